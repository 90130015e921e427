package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/understudy-mq/understudy/cmd/internal/ops"
)

// envPrefix and a flag's name in capitals make the name of its environment variable.
const envPrefix = "UNDERSTUDY_"

func env(name string) []string {
	return []string{envPrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))}
}

func text(name, value, usage string) cli.Flag {
	return &cli.StringFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
}

func texts(name, usage string) cli.Flag {
	return &cli.StringSliceFlag{Name: name, Usage: usage, EnvVars: env(name)}
}

func duration(name string, value time.Duration, usage string) cli.Flag {
	return &cli.DurationFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
}

func number(name string, value int, usage string) cli.Flag {
	return &cli.IntFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
}

func yes(name string, value bool, usage string) cli.Flag {
	return &cli.BoolFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
}

func octets(name string, value int64, usage string) cli.Flag {
	v := size(value)
	return &cli.GenericFlag{Name: name, Value: &v, DefaultText: v.String(), Usage: usage, EnvVars: env(name)}
}

// size is a number of octets, written as a plain number or with KiB, MiB or GiB behind it.
type size int64

var units = []struct {
	name  string
	shift uint
}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"", 0}}

// Set implements flag.Value.
func (s *size) Set(text string) error {
	for _, u := range units {
		digits, found := strings.CutSuffix(text, u.name)
		if !found {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > int64(1)<<(62-u.shift) {
			break
		}
		*s = size(n << u.shift)
		return nil
	}
	return fmt.Errorf("must be a size such as 65536, 64KiB or 16MiB")
}

// String implements flag.Value.
func (s *size) String() string {
	for _, u := range units {
		if n := int64(*s); n != 0 && n%(1<<u.shift) == 0 {
			return strconv.FormatInt(n>>u.shift, 10) + u.name
		}
	}
	return "0"
}

// values reads flags and remembers the first that cannot work.
type values struct {
	c   *cli.Context
	err error
}

func (v *values) fail(flag, value, hint string) {
	if v.err == nil {
		v.err = &ops.UsageError{Flag: flag, Value: value, Hint: hint}
	}
}

func (v *values) check(err error) {
	if v.err == nil {
		v.err = err
	}
}

func (v *values) text(name string) string { return v.c.String(name) }

// positive is a duration above zero.
func (v *values) positive(name string) time.Duration {
	d := v.c.Duration(name)
	if d <= 0 {
		v.fail(name, d.String(), "must be more than 0, for example 20s or 500ms")
	}
	return d
}

// notNegative is a duration from zero on.
func (v *values) notNegative(name string) time.Duration {
	d := v.c.Duration(name)
	if d < 0 {
		v.fail(name, d.String(), "must not be negative")
	}
	return d
}

// count is a number from low on.
func (v *values) count(name string, low int) int {
	n := v.c.Int(name)
	if n < low {
		v.fail(name, strconv.Itoa(n), fmt.Sprintf("must be at least %d", low))
	}
	return n
}

// octets is a size from low on.
func (v *values) octets(name string, low int64) int64 {
	n := int64(*v.c.Generic(name).(*size))
	if n < low {
		v.fail(name, strconv.FormatInt(n, 10), fmt.Sprintf("must be at least %d octets", low))
	}
	return n
}

// listen is a host:port to listen on.
func (v *values) listen(name string) string {
	addr := v.c.String(name)
	v.check(ops.CheckListen(name, addr, v.c.Bool("allow-remote")))
	return addr
}

// optionalListen is one that may be empty.
func (v *values) optionalListen(name string) string {
	if v.c.String(name) == "" {
		return ""
	}
	return v.listen(name)
}
