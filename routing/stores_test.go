package routing

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/understudy-mq/understudy/health"
)

const storeC = "01234567-89ab-cdef-0123-456789abcded"

// named is a store with a name, at an epoch.
func named(store, name string, epoch uint64) func(*Candidate) {
	return func(c *Candidate) {
		c.Verdict.Stores = append(c.Verdict.Stores, health.Served{UUID: store, Name: name, Epoch: epoch})
	}
}

func over(store string, epoch uint64) func(*Candidate) {
	return func(c *Candidate) {
		c.Verdict.Stores = append(c.Verdict.Stores, health.Served{UUID: store, Epoch: epoch, Stale: true})
	}
}

func TestChooseAmongStores(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cands []Candidate
		wants Wants
		want  string
		stale int
		err   string
	}{
		{name: "two stores on one target", wants: Wants{Store: storeB}, cands: []Candidate{
			cand("both", health.Active, at(storeA, 1), at(storeB, 2)), cand("other", health.Active, at(storeA, 1)),
		}, want: "both=serves other=other-store"},
		{name: "by the name of either", wants: Wants{Store: "bills"}, cands: []Candidate{
			cand("both", health.Active, named(storeA, "orders", 1), named(storeB, "bills", 2)), cand("other", health.Active, named(storeC, "x", 1)),
		}, want: "both=serves other=other-store"},
		{name: "one moved away, the other stays", wants: Wants{Store: storeB}, cands: []Candidate{
			cand("old", health.Active, at(storeA, 1), at(storeB, 0)), cand("new", health.Active, at(storeB, 3), at(storeC, 1)),
		}, want: "new=serves old=standby"},
		{name: "who stands for it before who does not know it", wants: Wants{Store: storeB}, cands: []Candidate{
			cand("stranger", health.Active, at(storeA, 1)), cand("idle", health.Standby, at(storeC, 0)), cand("busy", health.Active, at(storeC, 1), at(storeB, 0)),
			cand("new", health.Unknown),
		}, want: "new=likely busy=standby idle=other-store stranger=other-store"},
		{name: "stale for this store, good for the other", wants: Wants{Store: storeB}, cands: []Candidate{
			cand("a", health.Active, over(storeA, 1), at(storeB, 2)),
		}, want: "a=serves"},
		{name: "and out for the one it lost", wants: Wants{Store: storeA}, cands: []Candidate{
			cand("a", health.Active, over(storeA, 1), at(storeB, 2)), cand("b", health.Standby),
		}, want: "b=standby", stale: 1},
		{name: "out by what sessions saw", wants: Wants{Store: storeA, Epochs: map[string]uint64{storeA: 5}}, cands: []Candidate{
			cand("a", health.Active, at(storeA, 4), at(storeB, 2)), cand("b", health.Standby),
		}, want: "b=standby", stale: 1},
		{name: "the higher epoch of this store counts, not of the other", wants: Wants{Store: storeA}, cands: []Candidate{
			cand("a", health.Active, at(storeA, 6), at(storeB, 9)), cand("b", health.Active, at(storeA, 7), at(storeB, 8)),
		}, want: "b=serves a=likely"},
		{name: "nothing named, one known and stood for", cands: []Candidate{
			cand("a", health.Active, at(storeA, 4)), cand("b", health.Standby, at(storeA, 0)),
		}, want: "a=serves b=standby"},
		{name: "nothing named, several served", cands: []Candidate{
			cand("a", health.Active, named(storeA, "orders", 4)), cand("b", health.Active, named(storeB, "bills", 4)),
		}, want: "a=serves b=serves", err: "none was named: bills, orders"},
		{name: "nothing named, a second one stood for by somebody", cands: []Candidate{
			cand("a", health.Active, named(storeA, "orders", 4)), cand("b", health.Standby, at(storeB, 0)),
		}, want: "a=serves b=standby", err: "none was named: " + storeB + ", orders"},
		{name: "nothing named, a second one of somebody dead", cands: []Candidate{
			cand("a", health.Active, named(storeA, "orders", 4)), cand("b", health.Down, named(storeB, "bills", 0)),
		}, want: "a=serves b=down", err: "bills, orders"},
		{name: "two stores of the name wanted, each served", wants: Wants{Store: "orders"}, cands: []Candidate{
			cand("a", health.Active, named(storeA, "orders", 4)), cand("b", health.Active, named(storeC, "orders", 1)), cand("c", health.Standby, named(storeA, "orders", 0)),
		}, want: "a=serves b=serves c=standby",
			err: "2 stores have the name orders: " + storeC + " served by b:61613 at epoch 1, " + storeA + " served by a:61613 at epoch 4"},
		{name: "two of the name wanted at one target", wants: Wants{Store: "orders"}, cands: []Candidate{
			cand("a", health.Active, named(storeA, "orders", 4), named(storeC, "orders", 1)),
		}, want: "a=serves", err: storeC + " served by a:61613 at epoch 1, " + storeA + " served by a:61613 at epoch 4"},
		{name: "one of two holders is suspect", wants: Wants{Store: "orders"}, cands: []Candidate{
			cand("a", health.Suspect, named(storeA, "orders", 4)), cand("b", health.Active, named(storeC, "orders", 1)),
		}, want: "b=serves a=likely", err: storeA + " served by a:61613 at epoch 4"},
		{name: "two of the name, by UUID", wants: Wants{Store: storeA}, cands: []Candidate{
			cand("a", health.Active, named(storeA, "orders", 4)), cand("b", health.Active, named(storeC, "orders", 1)),
		}, want: "a=serves b=other-store"},
		{name: "two of another name", wants: Wants{Store: "bills"}, cands: []Candidate{
			cand("a", health.Active, named(storeA, "orders", 4)), cand("b", health.Active, named(storeC, "orders", 1), named(storeB, "bills", 2)),
		}, want: "b=serves a=other-store"},
		{name: "one store, served twice for a moment", wants: Wants{Store: "orders"}, cands: []Candidate{
			cand("a", health.Active, named(storeA, "orders", 4)), cand("b", health.Active, named(storeA, "orders", 5)),
		}, want: "b=serves a=likely"},
		{name: "the namesake is in nobody's hands", wants: Wants{Store: "orders"}, cands: []Candidate{
			cand("a", health.Active, named(storeA, "orders", 4)), cand("b", health.Standby, named(storeC, "orders", 0)),
		}, want: "a=serves b=standby"},
		{name: "the namesake's holder is dead", wants: Wants{Store: "orders"}, cands: []Candidate{
			cand("a", health.Active, named(storeA, "orders", 4)), cand("b", health.Down, named(storeC, "orders", 1)),
		}, want: "a=serves b=down"},
		{name: "the namesake's epoch is over, as sessions saw", wants: Wants{Store: "orders", Epochs: map[string]uint64{storeC: 2}}, cands: []Candidate{
			cand("a", health.Active, named(storeA, "orders", 4)), cand("b", health.Active, named(storeC, "orders", 1)),
		}, want: "a=serves", stale: 1},
		{name: "brokers of other kinds have none to choose from", cands: []Candidate{
			cand("a", health.Active, announced("orders")), cand("b", health.Active, announced("bills")),
		}, want: "a=serves b=serves"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Choose("", tt.cands, tt.wants, seeded(1))
			if errors.Is(err, ErrWhichStore) != (tt.err != "") || tt.err != "" && !strings.HasSuffix(err.Error(), tt.err) {
				t.Fatalf("err = %v, want %q", err, tt.err)
			}
			got := strings.Split(names(c), " ")
			if want := strings.Split(tt.want, " "); !slices.Equal(sorted(got), sorted(want)) || ranks(got) != ranks(want) { // inside a rank weight draws
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if len(c.Stale) != tt.stale {
				t.Errorf("stale = %v, want %d of them", c.Stale, tt.stale)
			}
		})
	}
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

func ranks(targets []string) (out string) {
	for _, t := range targets {
		_, rank, _ := strings.Cut(t, "=")
		out += rank + " "
	}
	return out
}

func TestStoresNamesTheirHolders(t *testing.T) {
	got := Stores([]Candidate{
		cand("a", health.Active, named(storeA, "orders", 4), at(storeB, 0)), cand("b", health.Active, at(storeA, 3), named(storeB, "bills", 0)),
		cand("c", health.Suspect, at(storeB, 7)), cand("d", health.Active, over(storeC, 2)),
	})
	want := []Store{{UUID: storeB, Name: "bills"}, {UUID: storeC}, {UUID: storeA, Name: "orders", Holder: "a:61613", Epoch: 4}}
	slices.SortFunc(want, func(a, b Store) int { return strings.Compare(a.UUID, b.UUID) })
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	long := make([]Candidate, 3*maxListed)
	for i := range long {
		long[i] = cand(fmt.Sprint("b", i), health.Active, at(fmt.Sprint("store-", i), 1))
	}
	_, err := Choose("", long, Wants{}, seeded(1))
	if !errors.Is(err, ErrWhichStore) || !strings.HasSuffix(err.Error(), " and 32 more") {
		t.Errorf("err = %v", err)
	}
}

// Sessions come and go, stores are lost and found: as long as nothing is lost no store is more than one session ahead of another, and a store in
// nobody's hands gets none while another is served.
func TestShareIsEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "stores")
		stores := make([]Store, n)
		for i := range stores {
			stores[i] = Store{UUID: fmt.Sprint("u", i), Holder: "a:1"}
		}
		have, rnd := map[string]int{}, seeded(rapid.Uint64().Draw(t, "seed"))
		for range rapid.IntRange(0, 40).Draw(t, "sessions") {
			s, ok := Share(stores, have, rnd)
			if !ok {
				t.Fatal("no store")
			}
			have[s.UUID]++
		}
		least, most := 1<<30, 0
		for _, s := range stores {
			least, most = min(least, have[s.UUID]), max(most, have[s.UUID])
		}
		if most-least > 1 {
			t.Fatalf("shares are %v", have)
		}
		if n > 1 {
			stores[0].Holder = ""
			have["u0"] = -9
			if s, _ := Share(stores, have, rnd); s.UUID == "u0" {
				t.Fatal("a session was sent to a store that nobody serves")
			}
		}
		for i := range stores {
			stores[i].Holder = ""
		}
		if _, ok := Share(stores, have, rnd); !ok {
			t.Fatal("where no store is served there is none to wait for")
		}
	})
	if _, ok := Share(nil, nil, seeded(1)); ok {
		t.Error("a store out of nothing")
	}
	first := map[string]int{}
	rnd := seeded(5)
	for range 3000 {
		s, _ := Share([]Store{{UUID: "a"}, {UUID: "b"}, {UUID: "c"}}, nil, rnd)
		first[s.UUID]++
	}
	for _, s := range []string{"a", "b", "c"} {
		if first[s] < 850 || first[s] > 1150 {
			t.Errorf("of many sidecars with one session each, %d of 3000 chose %s", first[s], s)
		}
	}
}

func TestSharedNames(t *testing.T) {
	shared := Shared([]Candidate{
		cand("a", health.Active, named(storeA, "orders", 4), named(storeB, "bills", 2)), cand("b", health.Active, named(storeC, "orders", 1), at("nameless", 1)),
		cand("c", health.Active, named(storeA, "orders", 3), at("nameless too", 1)), cand("d", health.Standby, named("x", "bills", 0)), cand("e", health.Active, over(storeB, 1)),
	}, Wants{})
	want := []Store{{storeC, "orders", "b:61613", 1}, {storeA, "orders", "a:61613", 4}}
	if len(shared) != 1 || shared[0].Name != "orders" || !slices.Equal(shared[0].Stores, want) || !errors.Is(shared[0], ErrWhichStore) {
		t.Errorf("shared: %v", shared)
	}
}
