package demo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestNameServer(t *testing.T) {
	s, err := startDNS()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.set("broker-a", "127.0.0.1:1001"); err != nil {
		t.Fatal(err)
	}
	if err := s.set("broker-b", "127.0.0.1:1002"); err != nil {
		t.Fatal(err)
	}
	if err := s.set("broker-a", "127.0.0.1:2001"); err != nil { // moved
		t.Fatal(err)
	}
	if err := s.set("broker-c", "nonsense"); err == nil {
		t.Error("published nonsense")
	}
	for _, network := range []string{"udp", "tcp"} {
		ask := func(name string, kind uint16) *dns.Msg {
			t.Helper()
			q := new(dns.Msg)
			q.SetQuestion(name, kind)
			a, _, err := (&dns.Client{Net: network, Timeout: 5 * time.Second}).Exchange(q, s.addr)
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		a := ask(service+".", dns.TypeSRV)
		got := map[string]uint16{}
		for _, rr := range a.Answer {
			got[rr.(*dns.SRV).Target] = rr.(*dns.SRV).Port
		}
		if len(got) != 2 || got["broker-a.mq.example."] != 2001 || got["broker-b.mq.example."] != 1002 || len(a.Extra) != 2 {
			t.Error(network, a)
		}
		if a = ask("broker-b.mq.example.", dns.TypeA); len(a.Answer) != 1 || !a.Answer[0].(*dns.A).A.IsLoopback() {
			t.Error(network, a)
		}
		if a = ask("broker-b.mq.example.", dns.TypeAAAA); a.Rcode != dns.RcodeSuccess || len(a.Answer) != 0 {
			t.Error(network, a)
		}
		if a = ask("broker-x.mq.example.", dns.TypeA); a.Rcode != dns.RcodeNameError {
			t.Error(network, a)
		}
	}
}

// What was on its way when a connection is reset must be gone, and the next connection must work.
func TestForwarderResets(t *testing.T) {
	broker, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	f, err := startForwarder()
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	f.aim(broker.Addr().String())
	connect := func() (near, far net.Conn) {
		t.Helper()
		if near, err = net.Dial("tcp", f.addr()); err != nil {
			t.Fatal(err)
		}
		if far, err = broker.Accept(); err != nil {
			t.Fatal(err)
		}
		return near, far
	}
	near, far := connect()
	exchange(t, near, far, "there")
	exchange(t, far, near, "and back")
	before := time.Now()
	if n := f.reset(); n != 1 {
		t.Error("reset", n, "connections")
	}
	for name, c := range map[string]net.Conn{"near": near, "far": far} {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s end: %v, want a reset", name, err)
		}
		c.Close()
	}
	near, far = connect()
	exchange(t, near, far, "again")
	if !f.latest().After(before) {
		t.Error("the new connection was not noticed")
	}
	if err := near.(*net.TCPConn).CloseWrite(); err != nil { // an orderly end stays one
		t.Fatal(err)
	}
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Error("after CloseWrite:", err)
	}
	exchange(t, far, near, "half open")
	near.Close()
	far.Close()
}

func exchange(t *testing.T, from, to net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(from, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	_ = to.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
		t.Fatalf("%q %v", got, err)
	}
}

// The nursery is tested with the shell's commands as children.
func TestNursery(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell here")
	}
	t.Setenv("UNDERSTUDY_LISTEN", "127.0.0.1:1")
	dir := t.TempDir()
	var tee bytes.Buffer
	n := newNursery(sh, dir, &tee)
	obedient, err := n.start("obedient", "-c", "trap 'echo bye; exit 0' TERM; echo listen=$UNDERSTUDY_LISTEN; while :; do sleep 0.01; done")
	if err != nil {
		t.Fatal(err)
	}
	awaitText(t, filepath.Join(dir, "obedient.log"), "listen=\n")
	if err := obedient.ended(); err != nil {
		t.Error(err)
	}
	if err := obedient.stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := obedient.ended(); err == nil {
		t.Error("ended and does not say so")
	}
	if got := n.tail("obedient", 1); got != "bye" {
		t.Errorf("tail %q", got)
	}
	deaf, err := n.start("deaf", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done")
	if err != nil {
		t.Fatal(err)
	}
	awaitText(t, filepath.Join(dir, "deaf.log"), "up\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := deaf.stop(ctx); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Error("a killed child is no clean end:", err)
	}
	left, err := n.start("left", "-c", "while :; do sleep 0.01; done")
	if err != nil {
		t.Fatal(err)
	}
	n.close()
	if err := syscall.Kill(left.pid(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Error("a child outlived the nursery:", err)
	}
	if !strings.Contains(tee.String(), "    [obedient] bye\n") {
		t.Errorf("tee %q", tee.String())
	}
	none := newNursery(filepath.Join(dir, "absent"), dir, nil)
	defer none.close()
	if _, err := none.start("absent"); err == nil || !strings.Contains(err.Error(), "start absent") {
		t.Error(err)
	}
}

func awaitText(t *testing.T, file, want string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(file)
		if err == nil && string(text) == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %q %v, want %q", file, text, err, want)
		}
	}
}

func TestValidate(t *testing.T) {
	good := Config{Kills: 1}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		flag   string
		change func(*Config)
	}{
		{"kills", func(c *Config) { c.Kills = 0 }},
		{"kills", func(c *Config) { c.Kills = -1 }},
		{"messages", func(c *Config) { c.Messages = -1 }},
		{"rate", func(c *Config) { c.Rate = -5 }},
		{"payload", func(c *Config) { c.Payload = bodyHead - 1 }},
		{"payload", func(c *Config) { c.Payload = maxPayload + 1 }},
		{"producers", func(c *Config) { c.Producers = maxClients + 1 }},
		{"consumers", func(c *Config) { c.Consumers = -1 }},
		{"ack", func(c *Config) { c.Ack = "always" }},
		{"fault", func(c *Config) { c.Fault = "earthquake" }},
	} {
		cfg := good
		c.change(&cfg)
		var field *FieldError
		if err := cfg.Validate(); !errors.As(err, &field) || field.Flag != c.flag {
			t.Errorf("%s: %v", c.flag, err)
		}
	}
}

func TestVerdict(t *testing.T) {
	for name, spoil := range map[string]func(r *Result){
		"lost": func(r *Result) { r.Lost = 1 }, "duplicated": func(r *Result) { r.Duplicated = 1 }, "reordered": func(r *Result) { r.Reordered = 1 },
		"phantom": func(r *Result) { r.Phantom = 1 }, "broken client": func(r *Result) { r.ClientsReconnected = 1 },
		"problem": func(r *Result) { r.Problems = []string{"x"} },
	} {
		r := &Result{}
		if !r.Clean() {
			t.Fatal("nothing is wrong, and it is not clean")
		}
		if spoil(r); r.Clean() {
			t.Error(name, "passes for clean")
		}
	}
	var out bytes.Buffer
	r := &Result{}
	r.fill(Config{}, counts{sent: 3, confirmed: 2, received: 2, duplicated: 1}, 0, []time.Duration{40 * time.Millisecond, 30 * time.Millisecond})
	if err := writeJSON(&out, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"verdict":"failed"`, `"sent":3`, `"silence_ms":{"p50":40,"max":40}`, `"in_flight_at_kill":{"sends":0,"unacked":0}`, `"clients_reconnected":0`} {
		if !strings.Contains(out.String(), want) {
			t.Error("no", want, "in", out.String())
		}
	}
	if strings.Count(out.String(), "\n") != 1 {
		t.Error("more than one line: " + strconv.Quote(out.String()))
	}
}

// The sample zone in configs must be what a name server takes.
func TestSampleZone(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "configs", "dns", "mq.example.zone"))
	if err != nil {
		t.Fatal(err)
	}
	hosts, targets := map[string]bool{}, map[string]bool{}
	zone := dns.NewZoneParser(bytes.NewReader(text), "", "mq.example.zone")
	for rr, ok := zone.Next(); ok; rr, ok = zone.Next() {
		switch rr := rr.(type) {
		case *dns.A:
			hosts[rr.Hdr.Name] = true
		case *dns.SRV:
			if rr.Hdr.Name != service+"." {
				t.Error("an SRV record for", rr.Hdr.Name)
			}
			targets[rr.Target] = true
		}
	}
	if err := zone.Err(); err != nil || len(targets) != 3 {
		t.Error(err, targets)
	}
	for target := range targets {
		if !hosts[target] {
			t.Error("no address for", target)
		}
	}
}
