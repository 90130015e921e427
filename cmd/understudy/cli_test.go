package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// TestUsage runs command lines that cannot work: each must end with the exit code for that, and one line that names the flag, its value and
// what to do.
func TestUsage(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	broker := []string{"broker", "--store", dir, "--listen", "127.0.0.1:0"}
	sidecar := []string{"sidecar", "--listen", "127.0.0.1:0", "--broker", "stomp://127.0.0.1:1"}
	for _, c := range []struct {
		name string
		args []string
		env  string
		code int
		want []string
	}{
		{"unknown command", []string{"sidcar"}, "", 2, []string{`no command "sidcar"`, "understudy --help"}},
		{"unknown flag", []string{"sidecar", "--lisen", "x"}, "", 2, []string{"lisen", "understudy sidecar --help"}},
		{"unknown flag at the root", []string{"--frobnicate"}, "", 2, []string{"frobnicate", "understudy --help"}},
		{"stray argument", append(sidecar, "stray"), "", 2, []string{`"stray"`, "understudy sidecar --help"}},
		{"no number", append(broker, "--prefetch", "many"), "", 2, []string{"many", "prefetch"}},
		{"no number in the environment", broker, "UNDERSTUDY_PREFETCH=many", 2, []string{"many", "prefetch", "UNDERSTUDY_PREFETCH"}},
		{"no duration", append(sidecar, "--hold-timeout", "20"), "", 2, []string{"20", "hold-timeout"}},
		{"negative duration", append(sidecar, "--hold-timeout", "-1s"), "", 2, []string{"--hold-timeout", `"-1s"`, "more than 0"}},
		{"no size", append(sidecar, "--window", "4 bananas"), "", 2, []string{"4 bananas", "window", "16MiB"}},
		{"too small a size", append(sidecar, "--window", "1"), "", 2, []string{"--window", `"1"`, "at least 65536"}},
		{"no broker", []string{"sidecar", "--listen", "127.0.0.1:0"}, "", 2, []string{"--broker", "--srv", "--gossip-join"}},
		{"bad URI", []string{"sidecar", "--broker", "http://a:1"}, "", 2, []string{"--broker", "http://a:1", "stomp"}},
		{"password in a URI", []string{"sidecar", "--broker", "stomp://user:hunter2@a:1"}, "", 2, []string{"--broker", "credentials"}},
		{"TLS without a port", []string{"sidecar", "--broker", "stomp+ssl://a"}, "", 2, []string{"--broker", "stomp+ssl://host:port"}},
		{"a CA for nobody", append(sidecar, "--broker-ca", file), "", 2, []string{"--broker-tls", "stomp+ssl"}},
		{"half a certificate", append(sidecar, "--broker-tls", "--broker-cert", file), "", 2, []string{"--broker-cert", "--broker-key", "together"}},
		{"a CA that is none", append(sidecar, "--broker-tls", "--broker-ca", file), "", 2, []string{"--broker-ca", file, "PEM"}},
		{"TLS to some", []string{"sidecar", "--broker", "stomp+ssl://a:1", "--srv", "_stomp._tcp.mq.example"}, "", 2, []string{"--broker-tls", "true or false"}},
		{"credentials that are none", append(sidecar, "--credentials", file), "", 2, []string{"--credentials", file, "line 1", `"broker"`}},
		{"no such way with what is in doubt", append(sidecar, "--in-doubt", "guess"), "", 2, []string{"--in-doubt", "guess", "lookup, resend"}},
		{"no such replay", append(sidecar, "--replay", "some"), "", 2, []string{"--replay", "some", "session, sends"}},
		{"no such acknowledger", append(sidecar, "--auto-ack", "me"), "", 2, []string{"--auto-ack", "me", "safe or broker"}},
		{"less for all than for one", append(sidecar, "--window-total", "1MiB"), "", 2, []string{"--window-total", "--window"}},
		{"negative time-out", append(sidecar, "--broker-timeout", "-1s"), "", 2, []string{"--broker-timeout", "negative"}},
		{"a group without a name", append(sidecar, "--group", "listen=127.0.0.1:0"), "", 2, []string{"--group", "begin with a name"}},
		{"a group without a listener", append(sidecar, "--group", "g broker=stomp://b:1"), "", 2, []string{"--group", `"g"`, "listen=host:port"}},
		{"a group without brokers", append(sidecar, "--group", "g listen=127.0.0.1:0"), "", 2, []string{"--group", `"g"`, "no broker"}},
		{"a group with another word", append(sidecar, "--group", "g listen=127.0.0.1:0 brokers=x"), "", 2, []string{"--group", "brokers", "listen, store and mode"}},
		{"a store of no name", append(sidecar, "--store", "a b"), "", 2, []string{"--store", "a b", "UUID", "spread"}},
		{"a group's store of no name", append(sidecar, "--group", "g listen=127.0.0.1:0 broker=stomp://b:1 store=a/b"), "", 2, []string{"--group", "a/b", "spread"}},
		{"a group that is reachable", append(sidecar, "--group", "g listen=0.0.0.0:1 broker=stomp://b:1"), "", 2, []string{"--group", "0.0.0.0:1", "--allow-remote"}},
		{"two groups of one name", append(sidecar, "--group", "g listen=127.0.0.1:0 broker=stomp://b:1", "--group", "g listen=127.0.0.1:0 broker=stomp://b:1"), "", 2, []string{"--group", `"g"`, "another group"}},
		{"two groups of one listener", append(sidecar, "--group", "g listen=127.0.0.1:7 broker=stomp://b:1", "--group", "h listen=127.0.0.1:7 broker=stomp://b:1"), "", 2, []string{"--group", `"h"`, "another group"}},
		{"gossip for a group, and none there", append(sidecar, "--group", "g listen=127.0.0.1:0 gossip=true"), "", 2, []string{"--group", "--gossip-join"}},
		{"tcp in front of STOMP", []string{"sidecar", "--listen", "tcp://127.0.0.1:0", "--broker", "stomp://b:1"}, "", 2, []string{"--broker", "b:1", "tcp://host:port"}},
		{"STOMP in front of tcp", []string{"sidecar", "--broker", "tcp://b:1"}, "", 2, []string{"--broker", "another protocol"}},
		{"tcp and gossip", []string{"sidecar", "--listen", "tcp://127.0.0.1:0", "--gossip-listen", "127.0.0.1:0"}, "", 2, []string{"--listen", "gossip"}},
		{"a broker of tcp", append(broker, "--listen", "tcp://127.0.0.1:0"), "", 2, []string{"--listen", "tcp://127.0.0.1:0", "STOMP"}},
		{"no such mode", append(sidecar, "--mode", "forget"), "", 2, []string{"--mode", "forget", "resume or redirect"}},
		{"clients' certificates without one of ours", append(sidecar, "--listen-ca", file), "", 2, []string{"--listen-ca", "--listen-cert"}},
		{"broker twice", append(sidecar, "--broker", "stomp://127.0.0.1:1"), "", 2, []string{"--broker", "twice"}},
		{"bad SRV name", []string{"sidecar", "--srv", "stomp://mq.example"}, "", 2, []string{"--srv", "stomp://mq.example", "_stomp._tcp"}},
		{"bad resolver", append(sidecar, "--dns-server", "dns.example"), "", 2, []string{"--dns-server", "dns.example", "ip:port"}},
		{"remote sidecar", []string{"sidecar", "--listen", "0.0.0.0:0", "--broker", "stomp://a"}, "", 2, []string{"--listen", "0.0.0.0:0", "--allow-remote"}},
		{"remote admin", append(sidecar, "--admin-listen", "0.0.0.0:0"), "", 2, []string{"--admin-listen", "--allow-remote"}},
		{"remote gossip", append(broker, "--gossip-listen", "192.0.2.1:7946"), "", 2, []string{"--gossip-listen", "--allow-remote"}},
		{"gossip to elsewhere from loopback", append(broker, "--gossip-join", "192.0.2.1:7946"), "", 2, []string{"--gossip-join", "192.0.2.1:7946", "--gossip-listen"}},
		{"bad peer", append(broker, "--gossip-join", "somewhere"), "", 2, []string{"--gossip-join", "somewhere", "host:port"}},
		{"bad gossip key", append(sidecar, "--gossip-listen", "127.0.0.1:0", "--gossip-key", "c2VjcmV0"), "", 2, []string{"--gossip-key", "16, 24 or 32"}},
		{"unreadable key file", append(sidecar, "--gossip-key", "@"+filepath.Join(dir, "absent")), "", 2, []string{"--gossip-key", "cannot be read"}},
		{"port without host", []string{"broker", "--store", dir, "--listen", "61613"}, "", 2, []string{"--listen", `"61613"`, "host:port"}},
		{"every address to gossip", []string{"broker", "--store", dir, "--listen", "0.0.0.0:0", "--allow-remote", "--gossip-listen", "127.0.0.1:0"}, "", 2,
			[]string{"--listen", "--advertise"}},
		{"bad advertise", append(broker, "--advertise", "here"), "", 2, []string{"--advertise", "here", "host:port"}},
		{"no directory", []string{"broker", "--listen", "127.0.0.1:0"}, "", 2, []string{"--store", "must name", "--standby"}},
		{"a store's name is a word of sidecars", []string{"broker", "--store", "spread=" + dir}, "", 2, []string{"--store", "spread=", "NAME=DIR"}},
		{"a store's name is a UUID", []string{"broker", "--store", "5b2c7a52-6f0e-4b0c-9f64-0d5d3b1f6a11=" + dir}, "", 2, []string{"--store", "UUID"}},
		{"a store's name is a path", []string{"broker", "--store", "../a=" + dir}, "", 2, []string{"--store", "../a=", "NAME=DIR"}},
		{"a store without a directory", []string{"broker", "--store", "a="}, "", 2, []string{"--store", `"a="`, "NAME=DIR"}},
		{"two stores of one name", []string{"broker", "--store", "a=" + dir, "--stand-for", "b=" + file + ",a=" + file}, "", 2, []string{"--stand-for", "second store of that name"}},
		{"two stores of one directory", []string{"broker", "--store", "a=" + dir, "--stand-for", "b=" + dir + "/."}, "", 2, []string{"--stand-for", "directory of store a"}},
		{"two stores of one directory, by a link", []string{"broker", "--store", "a=" + dir, "--stand-for", "b=" + link}, "", 2, []string{"--stand-for", "directory of store a"}},
		{"stands for others without saying that it owns nothing", []string{"broker", "--stand-for", "b=" + dir}, "", 2, []string{"--store", "--standby"}},
		{"a standby with a store", append(broker, "--standby"), "", 2, []string{"--standby", "--store"}},
		{"a standby of nothing", []string{"broker", "--standby"}, "", 2, []string{"--standby", "--stand-for", "--stand-for-all"}},
		{"no such way back", append(broker, "--failback", "never"), "", 2, []string{"--failback", `"never"`, "auto or manual"}},
		{"a way back at once", append(broker, "--failback-after", "0s"), "", 2, []string{"--failback-after", "more than 0"}},
		{"bad takeover", append(broker, "--takeover", "maybe"), "", 2, []string{"--takeover", `"maybe"`, "strict, kill or lease"}},
		{"negative patience", append(broker, "--takeover-after", "-1s"), "", 2, []string{"--takeover-after", "negative"}},
		{"bad log level", append(broker, "--log-level", "loud"), "", 2, []string{"--log-level", `"loud"`, "debug, info, warn or error"}},
		{"bad log format", broker, "UNDERSTUDY_LOG_FORMAT=xml", 2, []string{"--log-format", `"xml"`, "text or json"}},
		{"directory is a file", []string{"broker", "--store", file, "--listen", "127.0.0.1:0"}, "", 1, []string{"--store " + file, "must be a directory"}},
		{"directory under a file", []string{"broker", "--store", filepath.Join(file, "x"), "--listen", "127.0.0.1:0"}, "", 1, []string{"--store", "must be a directory"}},
		{"port in use by the broker", []string{"broker", "--store", dir, "--listen", taken.Addr().String()}, "", 1, []string{"--listen " + taken.Addr().String(), "another process"}},
		{"port in use by the sidecar", []string{"sidecar", "--broker", "stomp://a", "--listen", taken.Addr().String()}, "", 1, []string{"--listen " + taken.Addr().String(), "another process"}},
		{"admin port in use", append(sidecar, "--admin-listen", taken.Addr().String()), "", 1, []string{"--admin-listen " + taken.Addr().String(), "another process"}},
		{"address file in no folder", append(sidecar, "--addr-file", filepath.Join(dir, "no", "file")), "", 1, []string{"--addr-file"}},
		{"demo without an end", []string{"demo", "--kills", "0"}, "", 2, []string{"--kills", "--messages"}},
		{"demo with a strange mode", []string{"demo", "--ack", "later"}, "", 2, []string{"--ack", `"later"`, "client-individual"}},
		{"demo without producers", []string{"demo", "--producers", "0"}, "", 2, []string{"--producers", "at least 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if name, value, ok := strings.Cut(c.env, "="); ok {
				t.Setenv(name, value)
			}
			var stdout, stderr bytes.Buffer
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			code := run(ctx, append([]string{"understudy"}, c.args...), &stdout, &stderr)
			if code != c.code {
				t.Errorf("exit code %d, want %d; stderr %q", code, c.code, stderr.String())
			}
			last := lastLine(stderr.String())
			for _, want := range c.want {
				if !strings.Contains(last, want) {
					t.Errorf("no %q in %q", want, last)
				}
			}
			if c.code == 2 && strings.Count(stderr.String(), "\n") != 1 || stdout.Len() > 0 {
				t.Errorf("more than one line: stderr %q, stdout %q", stderr.String(), stdout.String())
			}
			if strings.Contains(stderr.String(), "hunter2") || strings.Contains(stderr.String(), "c2VjcmV0") {
				t.Error("a secret was printed")
			}
		})
	}
}

func lastLine(s string) string {
	s = strings.TrimRight(s, "\n")
	return s[strings.LastIndexByte(s, '\n')+1:]
}

func TestHelpAndVersion(t *testing.T) {
	secret := base64.StdEncoding.EncodeToString([]byte("sixteen octets!!"))
	t.Setenv("UNDERSTUDY_GOSSIP_KEY", secret)
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{}, []string{"sidecar", "broker", "demo", "Exit codes"}},
		{[]string{"--help"}, []string{"sidecar", "broker", "demo", "Exit codes"}},
		{[]string{"sidecar", "--help"}, []string{"--hold-timeout", "UNDERSTUDY_HOLD_TIMEOUT", "default: 20s", "4MiB"}},
		{[]string{"broker", "--help"}, []string{"--store", "UNDERSTUDY_STORE", "96MiB"}},
		{[]string{"demo", "--help"}, []string{"--kills", "UNDERSTUDY_KILLS", "negative control"}},
		{[]string{"version"}, []string{"understudy "}},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), append([]string{"understudy"}, c.args...), &stdout, &stderr); code != 0 || stderr.Len() > 0 {
			t.Errorf("%v: exit code %d, stderr %q", c.args, code, stderr.String())
		}
		for _, want := range c.want {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("%v: no %q in %q", c.args, want, stdout.String())
			}
		}
		if strings.Contains(stdout.String(), secret) {
			t.Errorf("%v: the help shows a secret from the environment", c.args)
		}
	}
}

// Every flag has its environment variable and one sentence that says what it is.
func TestEveryFlagIsDocumented(t *testing.T) {
	sentence := regexp.MustCompile(`^\S.*[^.]\.$`)
	for _, command := range newApp(nil, nil).Commands {
		seen := map[string]bool{}
		for _, f := range command.Flags {
			name := f.Names()[0]
			d, ok := f.(cli.DocGenerationFlag)
			if !ok || !sentence.MatchString(d.GetUsage()) {
				t.Errorf("%s --%s: usage %q", command.Name, name, d.GetUsage())
			}
			if want := "UNDERSTUDY_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")); len(d.GetEnvVars()) != 1 || d.GetEnvVars()[0] != want {
				t.Errorf("%s --%s: environment %v, want %s", command.Name, name, d.GetEnvVars(), want)
			}
			if seen[name] {
				t.Errorf("%s --%s is there twice", command.Name, name)
			}
			seen[name] = true
		}
	}
}

func TestSize(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "65536": 65536, "64KiB": 65536, "16MiB": 16 << 20, "2GiB": 2 << 30, "3 MiB": 3 << 20} {
		var s size
		if err := s.Set(in); err != nil || int64(s) != want {
			t.Errorf("%q: %d %v, want %d", in, s, err, want)
		}
		var back size
		if err := back.Set(s.String()); err != nil || back != s {
			t.Errorf("%q is written as %q, which reads as %d %v", in, s.String(), back, err)
		}
	}
	for _, bad := range []string{"", "-1", "1.5MiB", "16MB", "MiB", "9223372036854775807GiB", "99999999999999999999"} {
		var s size
		if err := s.Set(bad); err == nil {
			t.Errorf("%q passes as %d", bad, s)
		}
	}
}
