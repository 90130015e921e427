package discover

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/miekg/dns"

	"github.com/understudy-mq/understudy/routing"
)

func TestSchedule(t *testing.T) {
	most := func(n int64) int64 { return n - 1 }
	least := func(int64) int64 { return 0 }
	failed := errors.New("SERVFAIL")
	s := schedule{min: time.Second, max: 30 * time.Second}
	for i, tt := range []struct {
		ttl  time.Duration
		err  error
		rnd  func(int64) int64
		want time.Duration
	}{
		{ttl: 0, want: time.Second}, // the floor
		{ttl: 5 * time.Second, want: 5 * time.Second},
		{ttl: time.Hour, want: 30 * time.Second}, // the ceiling
		{err: failed, rnd: most, want: 250 * time.Millisecond},
		{err: failed, rnd: least, want: 250 * time.Millisecond}, // half of 500
		{err: failed, rnd: most, want: time.Second},
		{err: failed, rnd: most, want: 2 * time.Second},
		{err: failed, rnd: most, want: 4 * time.Second},
		{err: failed, rnd: most, want: 5 * time.Second},
		{err: failed, rnd: most, want: 5 * time.Second},
		{ttl: 9 * time.Second, err: ErrNoService, want: 9 * time.Second}, // an answer, after which failures begin afresh
		{err: failed, rnd: most, want: 250 * time.Millisecond},
	} {
		if got := s.after(tt.ttl, tt.err, tt.rnd); got != tt.want {
			t.Errorf("step %d: wait %v, want %v", i, got, tt.want)
		}
	}
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{refresh: make(chan struct{}, 1)}
		wait := func(want time.Duration) {
			t.Helper()
			asked := time.Now()
			if !s.pause(t.Context(), asked, 30*time.Second, time.Second) || time.Since(asked) != want {
				t.Errorf("waited %v, want %v", time.Since(asked), want)
			}
		}
		wait(30 * time.Second)
		s.refresh <- struct{}{}
		wait(time.Second) // asked for at once, and the floor holds
		time.AfterFunc(7*time.Second, func() { s.refresh <- struct{}{} })
		time.AfterFunc(7*time.Second+1, func() { s.refresh <- struct{}{} })
		wait(7 * time.Second)
		wait(time.Second) // the second request
	})
}

// sink notes what it is told.
type sink struct {
	mu  sync.Mutex
	now map[string]string
}

func (s *sink) Set(source string, eps []routing.Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		s.now = map[string]string{}
	}
	s.now[source] = show(eps)
}

func (s *sink) says(source string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now[source]
}

const (
	one = "127.0.0.1:1(a.mq.example:1)0/1"
	two = "127.0.0.2:1(b.mq.example:1)0/1"
)

var (
	recordA = []string{service + ". 60 IN SRV 0 1 1 a.mq.example.", "a.mq.example. 60 IN A 127.0.0.1"}
	recordB = []string{service + ". 60 IN SRV 0 1 1 b.mq.example.", "b.mq.example. 60 IN A 127.0.0.2"}
	noDot   = service + ". 60 IN SRV 0 0 0 ."
)

// A name's life: not there yet, there, resolvers failing in each way, changed, decidedly none, back again. Only good answers change what is known.
func TestLifeOfAName(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() { leaked(t, before) }) // after the server's own clean-up
	n := startNameserver(t)
	var log bytes.Buffer
	known, set := &sink{}, metrics.NewSet()
	d, err := Start(Config{Sink: known, SRV: []string{service}, TLS: true, Metrics: set, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		DNS: DNS{Servers: []string{n.addr}, Timeout: 50 * time.Millisecond, MinTTL: 5 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	source := "srv:" + service
	status := func() Status { return d.Status()[0] }
	failing := func(why error) func() bool { return func() bool { return errors.Is(status().Err, why) } }
	refreshed := func(what string, ok func() bool) {
		t.Helper()
		eventually(t, what, func() bool { d.Refresh(); return ok() })
	}

	eventually(t, "said that the name is not there", failing(ErrNoName))
	if s := status(); !s.Good.IsZero() || s.Asked.IsZero() || known.says(source) != "" {
		t.Errorf("status %+v, known %q", s, known.says(source))
	}
	n.set(recordA...)
	eventually(t, "found by itself", func() bool { return known.says(source) == one })
	if ep := status().Endpoints[0]; !ep.TLS || ep.Host() != "a.mq.example" {
		t.Errorf("%+v: want TLS, with the SRV target's name in the certificate", ep)
	}
	good := status().Good
	for _, tt := range []struct {
		name   string
		break_ func()
		seen   func() bool
	}{
		{"NXDOMAIN", func() { n.set() }, failing(ErrNoName)},
		{"no records", func() { n.set(service + ". 60 IN TXT x") }, failing(ErrNoRecords)},
		{"SERVFAIL", func() { n.fail(dns.RcodeServerFailure) }, func() bool { return strings.Contains(fmt.Sprint(status().Err), "SERVFAIL") }},
		{"silence", func() { n.change(silent) }, func() bool { return strings.Contains(fmt.Sprint(status().Err), "deadline exceeded") }},
	} {
		tt.break_()
		refreshed(tt.name, tt.seen)
		if known.says(source) != one || len(status().Endpoints) != 1 || status().Good.Before(good) {
			t.Errorf("%s: known %q, status %+v", tt.name, known.says(source), status())
		}
	}
	n.set(recordA[0], recordB[0], recordB[1])
	refreshed("the address of a host is gone", func() bool { return known.says(source) == one+" "+two })
	if s := status(); s.Err == nil || !strings.Contains(s.Err.Error(), "a.mq.example") {
		t.Errorf("status does not say so: %v", s.Err)
	}
	n.set(append(recordB, recordA...)...)
	refreshed("two", func() bool { return known.says(source) == one+" "+two && status().Err == nil })
	n.set(recordB...)
	refreshed("one removed", func() bool { return known.says(source) == two })
	n.set(noDot)
	refreshed("decidedly none", func() bool { return known.says(source) == "" && errors.Is(status().Err, ErrNoService) })
	n.set(recordA...)
	refreshed("back", func() bool { return known.says(source) == one })

	var b bytes.Buffer
	set.WritePrometheus(&b)
	for _, name := range []string{"understudy_dns_last_success_timestamp_seconds", "understudy_dns_lookups_total", "understudy_dns_failures_total", "understudy_discovery_candidates"} {
		if !strings.Contains(b.String(), fmt.Sprintf("%s{source=%q} ", name, source)) || strings.Contains(b.String(), fmt.Sprintf("%s{source=%q} 0\n", name, source)) {
			t.Errorf("%s is missing or 0:\n%s", name, b.String())
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	asked := n.count("udp SRV")
	d.Refresh()
	time.Sleep(20 * time.Millisecond)
	if n.count("udp SRV") != asked || known.says(source) != one {
		t.Error("asked after Close, or what was known is forgotten")
	}
	if c := strings.Count(log.String(), "SERVFAIL"); c != 1 {
		t.Errorf("SERVFAIL is in the log %d times:\n%s", c, log.String())
	}
	b.Reset()
	if set.WritePrometheus(&b); strings.Contains(b.String(), "last_success") {
		t.Error("a gauge is left after Close")
	}
}

// Close does not wait for a resolver that does not answer.
func TestCloseIsPrompt(t *testing.T) {
	n := startNameserver(t)
	n.change(silent)
	d, err := Start(Config{Sink: &sink{}, SRV: []string{service}, DNS: DNS{Servers: []string{n.addr}, Timeout: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "asked", func() bool { return n.count("udp") > 0 })
	began := time.Now()
	if d.Close(); time.Since(began) > time.Second {
		t.Errorf("took %v", time.Since(began))
	}
}

func TestStaticAndGossip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps, err := ParseStatic([]string{"stomp://127.0.0.1:1?priority=3"})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		announced, changed := []routing.Endpoint(nil), make(chan struct{})
		table := routing.NewTable(routing.TableConfig{})
		d, err := Start(Config{Sink: table, Static: eps, Gossip: func() ([]routing.Endpoint, <-chan struct{}) {
			mu.Lock()
			defer mu.Unlock()
			return announced, changed
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		synctest.Wait()
		if c := table.View().Candidates; len(c) != 1 || c[0].Tier != 3 {
			t.Errorf("candidates %+v", c)
		}
		mu.Lock()
		announced = []routing.Endpoint{{Target: "127.0.0.1:1", Tier: routing.NoTier, Store: "s"}, {Target: "127.0.0.1:2", Tier: routing.NoTier}}
		close(changed)
		changed = make(chan struct{})
		mu.Unlock()
		synctest.Wait()
		c := table.View().Candidates
		if len(c) != 2 || c[0].Tier != 3 || c[0].Store != "s" || fmt.Sprint(c[0].Sources) != "[gossip static]" || c[1].Tier != routing.NoTier {
			t.Errorf("candidates %+v", c)
		}
		if s := d.Status(); len(s) != 2 || s[0].Source != "static" || s[1].Source != "gossip" || len(s[1].Endpoints) != 2 || s[1].Good.IsZero() {
			t.Errorf("status %+v", s)
		}
		d.Refresh() // nobody to ask, and nothing to wait for
	})
}

func TestStartErrors(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no sink":         {SRV: []string{service}},
		"empty name":      {Sink: &sink{}, SRV: []string{""}},
		"not a name":      {Sink: &sink{}, SRV: []string{"a..b"}},
		"a broken server": {Sink: &sink{}, SRV: []string{service}, DNS: DNS{Servers: []string{"::::"}}},
	} {
		if d, err := Start(cfg); err == nil {
			d.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := Start(Config{Sink: &sink{}}); !errors.Is(err, ErrNoSource) {
		t.Errorf("no source: %v", err)
	}
}
