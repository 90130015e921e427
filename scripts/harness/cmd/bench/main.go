// Command bench measures the product against what else could be in its place, as ratios of one run. scripts/bench starts it from anywhere.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/understudy-mq/understudy/scripts/harness/bench"
)

// Exit codes.
const (
	done    = 0
	missed  = 1 // with -strict only
	misused = 2 // or software that has to be there is not
	failed  = 3 // the report could not be made
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// subject is one of the things that can be measured.
type subject interface {
	// parse takes the flags.
	parse(args []string, errs io.Writer) error
	// run returns the exit code; the error is printed by the caller.
	run(ctx context.Context, out, errs io.Writer) (int, error)
}

// subjects are made anew for each call.
var subjects = map[string]func() subject{
	"sidecar": func() subject { return &sidecar{} },
	"broker":  func() subject { return &broker{} },
	"journal": func() subject { return &journal{} },
}

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	if subjects[name] == nil {
		fmt.Fprintf(errs, "bench: say what to measure: %s; each has its own -help\n", strings.Join(slices.Sorted(maps.Keys(subjects)), ", "))
		return misused
	}
	s := subjects[name]()
	switch err := s.parse(args[1:], errs); {
	case errors.Is(err, flag.ErrHelp):
		return done
	case err != nil:
		fmt.Fprintln(errs, "bench:", err)
		return misused
	}
	code, err := s.run(ctx, out, errs)
	if err != nil {
		fmt.Fprintln(errs, "bench:", err)
	}
	return code
}

// common are the flags that every subject has.
type common struct {
	root, binary, data  string
	json, short, strict bool
	rounds              int
	seconds             float64
}

func (s *common) flags(name string, errs io.Writer) *flag.FlagSet {
	f := flag.NewFlagSet("bench "+name, flag.ContinueOnError)
	f.SetOutput(errs)
	f.StringVar(&s.root, "root", ".", "directory of the repository")
	f.StringVar(&s.binary, "understudy", "", "path of a built understudy binary; built unless given")
	f.BoolVar(&s.json, "json", false, "print one JSON object a line, one for each figure")
	f.BoolVar(&s.short, "short", false, "what fits a gate: short rounds, little of everything; the figures say little")
	f.BoolVar(&s.strict, "strict", false, "exit 1 when a bar is missed")
	f.IntVar(&s.rounds, "rounds", 5, "how often each load is offered to each")
	f.Float64Var(&s.seconds, "seconds", 1, "how long each load is offered in a round")
	return f
}

// finish parses; preset are the values that -short has for flags which were not given.
func (s *common) finish(f *flag.FlagSet, args []string, preset map[string]string) (given map[string]bool, err error) {
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	given = map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, value := range preset {
		if s.short && !given[name] {
			if err := f.Set(name, value); err != nil {
				return nil, err
			}
		}
	}
	if s.rounds < 1 || s.seconds <= 0 {
		return nil, errors.New("-rounds and -seconds must be positive")
	}
	return given, nil
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

// among returns the list if all its names are known.
func among(name, text string, known []string) ([]string, error) {
	all := list(text)
	for _, one := range all {
		if !slices.Contains(known, one) {
			return nil, fmt.Errorf("%s: unknown %q, it must be one of %s", name, one, strings.Join(known, ", "))
		}
	}
	return all, nil
}

// newRun makes what every run has: directories that the returned function removes, and the built product.
func (s *common) newRun(ctx context.Context, parent string, errs io.Writer) (opt bench.Options, about bench.About, clean func(), err error) {
	about = bench.About{Go: runtime.Version(), CPUs: runtime.NumCPU(), LoadFrom: bench.LoadAverage(), Date: time.Now().UTC().Format(time.RFC3339)}
	opt = bench.Options{Rounds: s.rounds, Load: time.Duration(s.seconds * float64(time.Second)), Threads: bench.Threads(),
		Logf: func(format string, args ...any) { fmt.Fprintf(errs, "# "+format+"\n", args...) }}
	clean = func() { _, _ = os.RemoveAll(opt.Scratch), os.RemoveAll(opt.Data) }
	defer func() {
		if err != nil {
			clean()
		}
	}()
	if opt.Scratch, err = os.MkdirTemp("", "bench-"); err != nil {
		return opt, about, nil, fmt.Errorf("make a directory for logs: %w", err)
	}
	if opt.Data, err = os.MkdirTemp(parent, "bench-"); err != nil {
		return opt, about, nil, fmt.Errorf("make a directory for stores: %w", err)
	}
	about.Data = fileSystem(opt.Data)
	opt.Understudy, err = s.build(ctx, opt.Scratch)
	return opt, about, clean, err
}

func (s *common) build(ctx context.Context, scratch string) (string, error) {
	if s.binary != "" {
		return filepath.Abs(s.binary)
	}
	root, err := filepath.Abs(s.root)
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	binary := filepath.Join(scratch, "understudy")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/understudy")
	build.Dir = root
	if text, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build understudy: %w: %s", err, text)
	}
	return binary, nil
}

// report prints lines, even if err came after them, and returns the exit code.
func report[L bench.Judged](s *common, out, errs io.Writer, lines []L, table func(io.Writer, []L) error, err error) (int, error) {
	missing, of := bench.Missed(lines)
	print := func() error {
		if s.json {
			fmt.Fprintf(errs, "# %d of %d bars met\n", of-missing, of)
			return bench.WriteJSON(out, lines)
		}
		if err := table(out, lines); err != nil {
			return err
		}
		_, err := fmt.Fprintf(out, "%d of %d bars met\n", of-missing, of)
		return err
	}
	if len(lines) > 0 {
		err = errors.Join(err, print())
	}
	switch {
	case err != nil:
		return failed, err
	case missing > 0 && s.strict:
		return missed, nil
	}
	return done, nil
}
