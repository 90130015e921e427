package overview

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2031, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// answer is what a broker says; its admin listener is named after it.
func answer(node string, stores ...Store) Answer {
	return Answer{URL: "http://" + node + ":9613", Report: &Report{
		Process: Process{Name: node, PID: 1, Started: ago(time.Hour)}, Broker: &Broker{Node: node, Listen: node + ":61613", Connections: 2, Stores: stores},
	}}
}

const (
	uuidA = "aaaaaaaa-0000-4000-8000-000000000001"
	uuidB = "bbbbbbbb-0000-4000-8000-000000000002"
	uuidC = "cccccccc-0000-4000-8000-000000000003"
)

func uuidOf(name string) string {
	return map[string]string{"a": uuidA, "b": uuidB, "c": uuidC}[name]
}

func active(name string, epoch uint64, next ...Candidate) Store {
	return Store{Name: name, UUID: uuidOf(name), Role: "active", Epoch: epoch, Since: ago(30 * time.Minute), Candidates: next, Sessions: 4, Messages: 1000}
}

func standby(name, owner string, epoch uint64) Store {
	return Store{Name: name, UUID: uuidOf(name), Role: "standby", Since: ago(time.Hour), Owner: &Holder{Node: owner, PID: 7, Epoch: epoch}}
}

func own(s Store) Store { s.Own = true; return s }

func candidate(node string, serves int, warm bool) Candidate {
	return Candidate{Node: node, Serves: serves, Warm: warm, Since: ago(50 * time.Hour), Endpoint: node + ":61613", Admin: "http://" + node + ":9613"}
}

func unreachable(name string) Store {
	again := now.Add(8 * time.Second)
	return Store{Name: name, Dir: "/s/" + name, Role: "unreachable", Since: ago(time.Minute), Trouble: "read /s/" + name + "/UUID: permission denied", Again: &again}
}

// The pictures are in testdata; UPDATE=1 writes them anew, to be read before they are committed.
func TestPictures(t *testing.T) {
	s1, s2 := candidate("s1", 0, true), candidate("s2", 0, false)
	long := ago(1300 * time.Millisecond)
	takenOver := active("a", 5, s2, candidate("n2", 1, false))
	takenOver.Absent, takenOver.AbsentSince, takenOver.Takeovers, takenOver.Since = 3, &long, 1, ago(1500*time.Millisecond)
	frozen := standby("b", "n2", 8)
	frozen.Owner.SilentMS = 4200
	full := own(active("c", 1))
	full.DiskFull, full.Damaged = true, 2
	back := candidate("n1", 0, true)
	back.Own, back.Since = true, ago(12*time.Second)
	for _, c := range []struct {
		name    string
		answers []Answer
		held    bool
	}{
		{"three-and-two", []Answer{
			answer("n1", own(active("a", 4, s1, s2)), standby("b", "n2", 7)),
			answer("n2", own(active("b", 7, s2, s1)), standby("a", "n1", 4)),
			answer("s1", standby("a", "n1", 4), standby("b", "n2", 7)),
			answer("s2", standby("a", "n1", 4), standby("b", "n2", 7)),
		}, true},
		{"taken-over", []Answer{
			{URL: "http://n1:9613", Err: errors.New("is not reached: connect: connection refused")},
			answer("s1", takenOver),
			answer("s2", standby("a", "s1", 5)),
		}, true},
		{"on-the-way-back", []Answer{answer("s1", active("a", 5, back, s2)), answer("n1", own(standby("a", "s1", 5)))}, true},
		{"only-a-standby-was-asked", []Answer{answer("s2", standby("a", "s1", 5), standby("c", "", 0))}, false},
		{"troubled", []Answer{
			answer("n1", own(active("a", 4, s1)), unreachable("b")),                                                                // it does not know yet that it has lost a
			answer("n2", active("a", 5), frozen, own(Store{Name: "d", Role: "failed", Error: "sync segment: input/output error"})), //
			answer("n3", full, unreachable("nowhere")),
		}, false},
		{"recovering", []Answer{
			answer("n1", Store{Name: "a", UUID: uuidA, Role: "recovering", Since: ago(40 * time.Millisecond)}),
			answer("n2", standby("a", "n3", 4)),
		}, true},
		{"a-sidecar-alone", []Answer{{URL: "http://127.0.0.1:9614", Report: &Report{
			Process: Process{Name: "car", PID: 3, Draining: true}, Sessions: []Session{{State: "run"}, {State: "run"}, {State: "park"}},
			Brokers: []Target{target("n1:61613", "active", uuidA, 4), target("n2:61613", "standby", uuidA, 0), target("n3:61613", "down", uuidB, 9)},
			Waiting: []WantedStore{{Store: uuidB, Name: "b", Sessions: 12}},
		}}}, false},
		{"a-sidecar-beside-its-brokers", []Answer{
			answer("n1", own(active("a", 4, s1))),
			{URL: "http://127.0.0.1:9614", Report: &Report{
				Process: Process{Name: "car", PID: 3}, Brokers: []Target{target("n0:61613", "active", uuidA, 3), target("n1:61613", "active", uuidA, 4)},
				Waiting: []WantedStore{{Store: "a", Sessions: 1}, {Store: "c", Sessions: 2}},
			}},
		}, false},
		{"nobody", []Answer{{URL: "http://127.0.0.1:9613", Err: errors.New("is not reached: connect: connection refused")}}, false},
		{"what-a-terminal-would-obey", []Answer{answer("n1\x1b[2J\u202e", Store{Name: "a\nb\tc", Role: "active", Epoch: 1, Candidates: []Candidate{{Node: strings.Repeat("x", 999)}}})}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			view := Merge(c.answers)
			var out bytes.Buffer
			if err := Print(&out, view, now); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", c.name+".txt")
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if out.String() != string(want) {
				t.Errorf("got\n%s\nwant\n%s", out.String(), want)
			}
			if view.Held() != c.held {
				t.Errorf("all held: %t", view.Held())
			}
			// Whoever answers first must make no difference.
			reversed := make([]Answer, 0, len(c.answers))
			for i := range c.answers {
				reversed = append(reversed, c.answers[len(c.answers)-1-i])
			}
			other := Merge(reversed)
			for i, s := range view.Stores {
				if o := other.Stores[i]; o.Name != s.Name || o.Holder != s.Holder || o.Epoch != s.Epoch || o.State != s.State || fmt.Sprint(o.Owners) != fmt.Sprint(s.Owners) {
					t.Errorf("the other way round %s is held by %q at %d, %s", o.Name, o.Holder, o.Epoch, o.State)
				}
			}
		})
	}
}

func target(addr, state, uuid string, epoch uint64) Target {
	t := Target{Target: addr, State: state}
	t.Stores = append(t.Stores, struct {
		UUID  string `json:"uuid"`
		Name  string `json:"name"`
		Epoch uint64 `json:"epoch"`
		Stale bool   `json:"stale"`
	}{UUID: uuid, Name: map[string]string{uuidA: "a", uuidB: "b"}[uuid], Epoch: epoch})
	return t
}

// A server that is reached in two ways is one server.
func TestOneServerCountsOnce(t *testing.T) {
	a := active("a", 3)
	a.Takeovers = 2
	one, two := answer("n1", a), answer("n1", a)
	two.URL = "http://localhost:9613"
	if v := Merge([]Answer{one, two}); len(v.Servers) != 1 || v.Stores[0].Takeovers != 2 {
		t.Errorf("%+v", v)
	}
}

func TestStoreByNameOrUUID(t *testing.T) {
	second := active("a", 9)
	second.UUID = uuidB
	v := Merge([]Answer{answer("n1", active("a", 3), active("c", 1)), answer("n2", second)})
	for _, c := range []struct {
		want, uuid string
		ambiguous  bool
	}{{"c", uuidC, false}, {strings.ToUpper(uuidB), uuidB, false}, {"a", uuidA, true}, {"x", "", false}} {
		s, ambiguous := v.Store(c.want)
		if got := s; (got == nil) != (c.uuid == "") || got != nil && got.UUID != c.uuid || ambiguous != c.ambiguous {
			t.Errorf("%s: %+v, ambiguous %t", c.want, s, ambiguous)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 40 * time.Millisecond: "0s", 1234 * time.Millisecond: "1.2s", 15400 * time.Millisecond: "15s", 119 * time.Minute: "119m", 47 * time.Hour: "47h", 50 * time.Hour: "2d",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
