package demo

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// A pause is the longest gap around the claim, also where the last thing was heard before anybody measured, or by the old holder after the claim.
func TestGaps(t *testing.T) {
	var s silence
	for client := range 4 {
		s.note(client)
	}
	base := time.Now()
	at := func(ms int) time.Time { return base.Add(time.Duration(ms) * time.Millisecond) }
	for client := range s.last {
		s.last[client] = at(0)
	}
	s.begin(5)
	s.fault = at(5)
	s.events = [][]time.Time{
		{at(300), at(310), at(390), at(401), at(500)}, // 80 before the claim at 400, nothing after
		{at(350), at(402), at(470), at(900)},          // the old holder's last word came late; the first one late enough ends it
		{at(600)},                                     // nothing since before the fault
		{at(399)},                                     // waits
		{at(10), at(500 + 1)},                         // never heard anything before the fault
	}
	each, waiting := s.gaps(at(305), at(500))
	want := []time.Duration{99, 430, 600, 399, 491}
	for i := range want {
		want[i] *= time.Millisecond
	}
	if !slices.Equal(each, want) || waiting != 1 {
		t.Errorf("gaps %v, %d waiting; want %v and 1", each, waiting, want)
	}
	s.end()
	if !s.last[0].Equal(at(500)) || !s.last[3].Equal(at(399)) {
		t.Errorf("what was heard last is forgotten: %v", s.last)
	}
}

func TestStoresVerdict(t *testing.T) {
	good := func() *StoresResult { return &StoresResult{Stores: []StoreResult{{Home: true}, {Home: true}}} }
	if !good().Clean() {
		t.Fatal("nothing is wrong, and it is not clean")
	}
	for name, spoil := range map[string]func(r *StoresResult){
		"lost": func(r *StoresResult) { r.Stores[1].Lost = 1 }, "duplicated": func(r *StoresResult) { r.Stores[0].Duplicated = 1 },
		"reordered": func(r *StoresResult) { r.Stores[1].Reordered = 1 }, "phantom": func(r *StoresResult) { r.Stores[1].Phantom = 1 },
		"client": func(r *StoresResult) { r.Stores[1].ClientErrors = 1 }, "away": func(r *StoresResult) { r.Stores[1].Home = false },
		"order": func(r *StoresResult) { r.Order.Violations = []string{"x"} }, "problem": func(r *StoresResult) { r.Problems = []string{"x"} },
		"nothing was played": func(r *StoresResult) { r.Stores = nil },
	} {
		r := good()
		if spoil(r); r.Clean() {
			t.Error(name, "passes for clean")
		}
		if r.judge(Config{}, spans{}, spans{}); r.Verdict != "failed" {
			t.Error(name, "has the verdict", r.Verdict)
		}
	}
}

// A bar that is missed is said, and is no failure.
func TestStoresBars(t *testing.T) {
	r := &StoresResult{Stores: []StoreResult{{Home: true}}, RatePerSecond: 4749}
	r.judge(Config{Rate: 5000, Handovers: 1}, spans{}, spans{20, 150.1})
	var met []bool
	for _, bar := range r.Bars {
		met = append(met, bar.Met)
	}
	if !slices.Equal(met, []bool{true, false, false}) || r.Verdict != "clean" {
		t.Errorf("%+v", r)
	}
	r = &StoresResult{Stores: []StoreResult{{Home: true}}, Kills: 2}
	if r.judge(Config{Rate: 5000}, spans{50, 250}, spans{1, 1}); len(r.Bars) != 4 || slices.ContainsFunc(r.Bars, func(b barResult) bool { return !b.Met }) {
		t.Errorf("%+v", r.Bars)
	}
	var out bytes.Buffer
	if r.text(&out); !strings.Contains(out.String(), "bar          met: silence p50 at a take-over at most 50 ms (50.0)") || !strings.Contains(out.String(), "VERDICT: CLEAN.") {
		t.Error(out.String())
	}
}

func TestValidateStores(t *testing.T) {
	for _, c := range []struct {
		flag string
		cfg  Config
	}{
		{"standby", Config{Kills: 1, Standbys: 1}},
		{"handovers", Config{Kills: 1, Handovers: 1}},
		{"stores", Config{Stores: 1}},
		{"stores", Config{Stores: maxServers + 1}},
		{"stores", Config{Stores: -1}},
		{"standby", Config{Stores: 1, Standbys: maxServers + 1}},
		{"kills", Config{Stores: 2, Kills: 1}},
		{"stores", Config{Stores: 2, Messages: 1}},
		{"backlog", Config{Stores: 2, Backlog: maxBacklog + 1}},
		{"stores", Config{Stores: 2, Backlog: 1}},
		{"stores", Config{Stores: 2, Direct: true}},
		{"stores", Config{Stores: 2, Fault: FaultReset}},
	} {
		var field *FieldError
		if err := c.cfg.Validate(); !errors.As(err, &field) || field.Flag != c.flag {
			t.Errorf("%+v: %v, want --%s", c.cfg, err, c.flag)
		}
	}
	for _, cfg := range []Config{{Stores: 2}, {Stores: 1, Standbys: 1}, {Stores: 1, Standbys: 1, Handovers: 200}} {
		if err := cfg.Validate(); err != nil {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

// Who is killed next, and who is handed a store.
func TestVictims(t *testing.T) {
	s := &story{cfg: Config{Stores: 2, Standbys: 2, Out: io.Discard}.withDefaults(), cluster: &cluster{}}
	s.cast()
	a, b, one, two := s.cluster.members[0], s.cluster.members[1], s.cluster.members[2], s.cluster.members[3]
	s.stages[0].holder, s.stages[1].holder = a, b
	for i, step := range []struct {
		victim, taker *member
	}{{a, two}, {b, two}, {two, one}} {
		if got := s.victim(); got != step.victim {
			t.Fatalf("victim %d is %s, want %s", i, got.host, step.victim.host)
		}
		for _, st := range s.servedBy(step.victim) {
			st.holder = step.taker
		}
		s.down = append(s.down, step.victim)
	}
	if left := s.alive(); len(left) != 1 || left[0] != one || len(s.servedBy(one)) != 2 {
		t.Errorf("%d are left", len(left))
	}
	s.down = []*member{b}
	s.stages[1].holder = a
	if to := s.idlest(s.stages[0]); to != two {
		t.Errorf("the store would go to %s", to.host)
	}
}
