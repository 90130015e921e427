package routing

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/understudy-mq/understudy/health"
)

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestTableMergesByTarget(t *testing.T) {
	table := NewTable(TableConfig{})
	empty := table.View()
	table.Set("srv:x", []Endpoint{{Target: "a:1", Name: "a.example:1", Tier: 10, Weight: 5}, {Target: "b:1", Tier: 20, Weight: 7}})
	if !closed(empty.Changed) {
		t.Fatal("a change was not announced")
	}
	table.Set("gossip", []Endpoint{{Target: "a:1", Tier: NoTier, Weight: 9, Store: "orders"}, {Target: "c:1", Tier: NoTier, Weight: 1}})
	table.Set("static", []Endpoint{{Target: "b:1", Tier: 20, Weight: 8, TLS: true, ServerName: "b.example", ConnectTimeout: time.Second, Protocol: "tcp"}})
	want := []Candidate{
		{Endpoint: Endpoint{Target: "a:1", Name: "a.example:1", Tier: 10, Weight: 5, Store: "orders"}, Sources: []string{"gossip", "srv:x"}},
		{Endpoint: Endpoint{Target: "b:1", Tier: 20, Weight: 8, TLS: true, ServerName: "b.example", ConnectTimeout: time.Second, Protocol: "tcp"}, Sources: []string{"srv:x", "static"}},
		{Endpoint: Endpoint{Target: "c:1", Tier: NoTier, Weight: 1}, Sources: []string{"gossip"}},
	}
	view := table.View()
	for _, c := range want {
		if ep, ok := table.Find(c.Target); !ok || ep != c.Endpoint {
			t.Errorf("%s is found as %+v %v", c.Target, ep, ok)
		}
	}
	if ep, ok := table.Find("d:1"); ok {
		t.Errorf("d:1 is found as %+v", ep)
	}
	if !slices.EqualFunc(view.Candidates, want, equalCandidate) {
		t.Fatalf("got  %+v\nwant %+v", view.Candidates, want)
	}
	table.Set("static", []Endpoint{{Target: "b:1", Tier: 20, Weight: 8, TLS: true, ServerName: "b.example", ConnectTimeout: time.Second, Protocol: "tcp"}})
	if closed(view.Changed) {
		t.Error("the same again was announced as a change")
	}
	table.Set("gossip", nil)
	if got := table.View().Candidates; len(got) != 2 || got[0].Tier != 10 || got[0].Store != "" {
		t.Errorf("after gossip fell silent: %+v", got)
	}
}

func TestTableJoinsVerdicts(t *testing.T) {
	changed := make(chan struct{})
	table := NewTable(TableConfig{Verdicts: func() (map[health.Target]health.Verdict, <-chan struct{}) {
		return map[health.Target]health.Verdict{"a:1": {Target: "a:1", State: health.Active, Reason: "seen"}, "z:1": {Target: "z:1"}}, changed
	}})
	table.Set("static", []Endpoint{{Target: "a:1"}, {Target: "b:1"}})
	view := table.View()
	if v := view.Candidates[0].Verdict; v.State != health.Active || v.Reason != "seen" {
		t.Errorf("a has verdict %+v", v)
	}
	if v := view.Candidates[1].Verdict; v.State != health.Unknown || v.Target != "b:1" {
		t.Errorf("b has verdict %+v", v)
	}
	close(changed)
	if !closed(view.Verdicts) || closed(view.Changed) {
		t.Error("the change of a verdict is not told apart from a change of candidates")
	}
}

func TestTableIsBounded(t *testing.T) {
	table := NewTable(TableConfig{})
	eps := make([]Endpoint, MaxCandidates+3)
	for i := range eps {
		eps[i].Target = health.Target(fmt.Sprint("b:", i))
	}
	table.Set("gossip", eps)
	if n := len(table.View().Candidates); n != MaxCandidates || table.Dropped() != 3 {
		t.Errorf("%d candidates, %d dropped", n, table.Dropped())
	}
}

// What is merged does not depend on who spoke first, nor on how often.
func TestMergeIsCommutativeAndIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		endpoint := rapid.Custom(func(t *rapid.T) Endpoint {
			return Endpoint{
				Target: health.Target(rapid.SampledFrom([]string{"a:1", "b:1", "c:1"}).Draw(t, "target")),
				Tier:   rapid.SampledFrom([]int{0, 1, NoTier}).Draw(t, "tier"), Weight: rapid.Uint16Range(0, 2).Draw(t, "weight"),
				Store: rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "store"),
			}
		})
		sources := map[string][]Endpoint{}
		for _, s := range []string{"one", "two", "three"} {
			sources[s] = rapid.SliceOfN(endpoint, 0, 4).Draw(t, s)
		}
		order := rapid.Permutation([]string{"one", "two", "three", "one", "two", "three"}).Draw(t, "order")
		table := NewTable(TableConfig{})
		for _, s := range order {
			table.Set(s, sources[s])
		}
		if got, want := table.View().Candidates, Merge(sources); !slices.EqualFunc(got, want, equalCandidate) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
		for _, c := range Merge(sources) {
			for _, s := range c.Sources {
				for _, ep := range sources[s] {
					if ep.Target == c.Target && ep.Tier < c.Tier {
						t.Fatalf("%s got tier %d, and %s says %d", c.Target, c.Tier, s, ep.Tier)
					}
				}
			}
		}
	})
}

// Readers and writers at once: for the race detector, and a reader that goes by the channels sees the last change.
func TestTableConcurrently(t *testing.T) {
	table := NewTable(TableConfig{})
	var writers, reader sync.WaitGroup
	const last = 100
	for _, s := range []string{"one", "two"} {
		writers.Go(func() {
			for i := 1; i <= last; i++ {
				table.Set(s, []Endpoint{{Target: health.Target(fmt.Sprint(s, ":", i))}})
			}
		})
	}
	reader.Go(func() {
		for {
			view := table.View()
			if len(view.Candidates) == 2 && view.Candidates[0].Target == "one:100" && view.Candidates[1].Target == "two:100" {
				return
			}
			<-view.Changed
		}
	})
	writers.Wait()
	reader.Wait()
}

// What each parked session does at each change: 3 candidates.
func BenchmarkViewAndChoose(b *testing.B) {
	verdicts := map[health.Target]health.Verdict{"a:1": {State: health.Down}, "b:1": {State: health.Standby}, "c:1": {State: health.Active, Stores: []health.Served{{UUID: storeA, Epoch: 4}}}}
	table := NewTable(TableConfig{Verdicts: func() (map[health.Target]health.Verdict, <-chan struct{}) { return verdicts, nil }})
	table.Set("static", []Endpoint{{Target: "a:1", Weight: 1}, {Target: "b:1", Weight: 1}, {Target: "c:1", Weight: 1}})
	w, rnd := Wants{Store: storeA, Epochs: map[string]uint64{storeA: 3}}, seeded(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Choose("a:1", table.View().Candidates, w, rnd); err != nil {
			b.Fatal(err)
		}
	}
}
