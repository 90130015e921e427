package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/understudy-mq/understudy/broker"
	"github.com/understudy-mq/understudy/broker/journal"
)

// settingsOf reads a broker's command line as the broker would, without starting it.
func settingsOf(t *testing.T, args ...string) (s brokerSettings) {
	t.Helper()
	var out bytes.Buffer
	app := newApp(&out, &out)
	for _, c := range app.Commands {
		if c.Name == "broker" {
			c.Action = func(c *cli.Context) (err error) { s, err = readBroker(c); return err }
		}
	}
	if err := app.RunContext(t.Context(), append([]string{"understudy", "broker"}, args...)); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return s
}

func TestStoreFlags(t *testing.T) {
	for _, c := range []struct {
		name string
		args string
		env  string
		want string // name=dir of each, with ! behind an own one; then what else there is
		all  string
	}{
		{"one", "--store a=/s/a", "", "a=/s/a!", ""},
		{"named by its directory", "--store /s/orders", "", "orders=/s/orders!", ""},
		{"named by a directory with a slash", "--store /s/orders/", "", "orders=/s/orders/!", ""},
		{"two of its own", "--store a=/s/a --store b=/s/b", "", "a=/s/a! b=/s/b!", ""},
		{"all-active", "--store a=/s/a --stand-for b=/s/b,c=/s/c", "", "a=/s/a! b=/s/b c=/s/c", ""},
		{"stands for, said twice", "--stand-for b=/s/b --store a=/s/a --stand-for c=/s/c", "", "a=/s/a! b=/s/b c=/s/c", ""},
		{"all of a tree", "--store a=/s/a --stand-for-all /s", "", "a=/s/a!", "/s"},
		{"standby of two", "--standby --stand-for b=/s/b,/s/c", "", "b=/s/b c=/s/c", ""},
		{"standby of all", "--standby --stand-for-all /s", "", "", "/s"},
		{"by the environment", "--standby", "UNDERSTUDY_STAND_FOR=b=/s/b,c=/s/c", "b=/s/b c=/s/c", ""},
		{"a name that is almost a UUID", "--store 5b2c7a52-6f0e-4b0c-9f64-0d5d3b1f6a1=/s/a", "", "5b2c7a52-6f0e-4b0c-9f64-0d5d3b1f6a1=/s/a!", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if name, value, ok := strings.Cut(c.env, "="); ok {
				t.Setenv(name, value)
			}
			s := settingsOf(t, strings.Fields(c.args)...)
			var got []string
			for _, store := range s.broker.Stores {
				text := fmt.Sprintf("%s=%s", store.Name, store.Dir)
				if store.Own {
					text += "!"
				}
				got = append(got, text)
			}
			if text := strings.Join(got, " "); text != c.want || s.broker.StandForAll != c.all {
				t.Errorf("%s, all of %q; want %s, all of %q", text, s.broker.StandForAll, c.want, c.all)
			}
		})
	}
}

func TestTakeoverFlags(t *testing.T) {
	for _, c := range []struct {
		args  string
		how   journal.Takeover
		after time.Duration
	}{
		{"", journal.Strict, time.Second},
		{"--takeover kill", journal.Kill, time.Second},
		{"--takeover lease", journal.Lease, 10 * time.Second},
		{"--takeover lease --takeover-after 4s", journal.Lease, 4 * time.Second},
		{"--takeover kill --takeover-after 300ms", journal.Kill, 300 * time.Millisecond},
	} {
		s := settingsOf(t, append([]string{"--store", "a=/s/a"}, strings.Fields(c.args)...)...)
		if s.broker.Takeover != c.how || s.broker.TakeoverAfter != c.after {
			t.Errorf("%q: %d after %v", c.args, s.broker.Takeover, s.broker.TakeoverAfter)
		}
	}
	s := settingsOf(t, "--store", "a=/s/a", "--failback", "manual", "--failback-after", "5s")
	if s.broker.Failback != broker.FailbackManual || s.broker.FailbackAfter != 5*time.Second {
		t.Errorf("way back %d after %v", s.broker.Failback, s.broker.FailbackAfter)
	}
}

// Each store fails alone: one that cannot be used is told about, and is an error only where there is nothing else to do.
func TestUnusableStores(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good, bad := filepath.Join(dir, "good"), filepath.Join(file, "bad")
	for _, c := range []struct {
		name   string
		args   []string
		told   int
		failed bool
	}{
		{"all are well", []string{"--store", good}, 0, false},
		{"the only one", []string{"--store", bad}, 0, true},
		{"what it lies in is not there", []string{"--store", filepath.Join(dir, "unmounted", "a")}, 0, true},
		{"one of two", []string{"--store", good, "--store", bad}, 1, false},
		{"others to stand for", []string{"--store", bad, "--stand-for", good}, 1, false},
		{"a tree to stand for", []string{"--store", bad, "--stand-for-all", dir}, 1, false},
		{"stood for, and not there", []string{"--standby", "--stand-for", bad}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := settingsOf(t, c.args...)
			told, err := s.checkOwn()
			if len(told) != c.told || (err != nil) != c.failed {
				t.Errorf("told %v, error %v", told, err)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "unmounted")); err == nil {
		t.Error("a directory was made where a file system is not mounted")
	}
	absent := filepath.Join(dir, "absent")
	s := settingsOf(t, "--standby", "--stand-for", absent)
	if _, err := s.checkOwn(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(absent); err == nil {
		t.Error("a directory was made by a server that does not own the store")
	}
}
