package routing

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/understudy-mq/understudy/health"
)

const (
	storeA = "0123456789abcdef0123456789abcdef"
	storeB = "01234567-89ab-cdef-0123-456789abcdee"
)

func seeded(n uint64) *rand.Rand { return rand.New(rand.NewPCG(n, n)) }

// cand is name@tier/weight in a state; opts change the rest.
func cand(name string, state health.State, opts ...func(*Candidate)) Candidate {
	target := health.Target(name + ":61613")
	c := Candidate{Endpoint: Endpoint{Target: target, Weight: 1}, Verdict: health.Verdict{Target: target, State: state}}
	for _, o := range opts {
		o(&c)
	}
	return c
}

func at(store string, epoch uint64) func(*Candidate) {
	return func(c *Candidate) {
		if _, known := c.Verdict.Find(store); store != "" && !known {
			c.Verdict.Stores = append(c.Verdict.Stores, health.Served{UUID: store, Epoch: epoch})
		}
	}
}
func tier(n int) func(*Candidate)         { return func(c *Candidate) { c.Tier = n } }
func weight(n uint16) func(*Candidate)    { return func(c *Candidate) { c.Weight = n } }
func announced(s string) func(*Candidate) { return func(c *Candidate) { c.Store = s } }
func draining(c *Candidate)               { c.Verdict.Draining = true }

func names(c Choice) string {
	var out []string
	for _, r := range c.Targets {
		host, _, _ := strings.Cut(string(r.Target), ":")
		out = append(out, host+"="+r.Rank.String())
	}
	return strings.Join(out, " ")
}

func TestChooseOrder(t *testing.T) {
	tests := []struct {
		name  string
		prev  health.Target
		cands []Candidate
		wants Wants
		want  string
		stale int
		err   error
	}{
		{name: "nobody", err: ErrNoCandidates},
		{name: "states in order", cands: []Candidate{
			cand("down", health.Down), cand("standby", health.Standby), cand("leaving", health.Active, draining),
			cand("suspect", health.Suspect), cand("active", health.Active),
		}, want: "active=serves suspect=likely standby=standby leaving=draining down=down"},
		{name: "a dead one that was draining is dead", cands: []Candidate{
			cand("a", health.Down, draining), cand("b", health.Standby, draining),
		}, want: "b=draining a=down"},
		{name: "tier before state only inside a rank", cands: []Candidate{
			cand("near", health.Standby, tier(0)), cand("far", health.Active, tier(20)), cand("mid", health.Active, tier(10)),
		}, want: "mid=serves far=serves near=standby"},
		{name: "follows its store over tiers", wants: Wants{Store: storeA}, cands: []Candidate{
			cand("other", health.Active, at(storeB, 1), tier(0)), cand("ours", health.Active, at(storeA, 7), tier(9)), cand("any", health.Active, tier(0)),
		}, want: "ours=serves any=active other=other-store"},
		{name: "a standby may take our store before the owner of another does", wants: Wants{Store: storeA}, cands: []Candidate{
			cand("other", health.Active, at(storeB, 1)), cand("idle", health.Standby),
		}, want: "idle=standby other=other-store"},
		{name: "a name says nothing of a UUID", wants: Wants{Store: "orders"}, cands: []Candidate{
			cand("a", health.Active, at(storeA, 1)),
		}, want: "a=active"},
		{name: "a name is compared with a name", wants: Wants{Store: "orders"}, cands: []Candidate{
			cand("a", health.Active, at(storeA, 1), announced("bills")), cand("b", health.Active, at(storeB, 1), announced("orders")),
		}, want: "b=serves a=other-store"},
		{name: "an epoch that is over is out", wants: Wants{Store: storeA, Epochs: map[string]uint64{storeA: 5}}, cands: []Candidate{
			cand("old", health.Active, at(storeA, 4)), cand("new", health.Standby),
		}, want: "new=standby", stale: 1},
		{name: "also for a session that has no store yet", wants: Wants{Epochs: map[string]uint64{storeA: 5}}, cands: []Candidate{
			cand("old", health.Active, at(storeA, 4)), cand("new", health.Active, at(storeA, 5)),
		}, want: "new=serves", stale: 1},
		{name: "only epochs that are over", wants: Wants{Epochs: map[string]uint64{storeA: 5}}, cands: []Candidate{
			cand("old", health.Suspect, at(storeA, 4)), cand("older", health.Standby, at(storeA, 3)),
		}, stale: 2, err: ErrOnlyStale},
		{name: "what a dead one served is history", wants: Wants{Epochs: map[string]uint64{storeA: 5}}, cands: []Candidate{
			cand("dead", health.Down, at(storeA, 4)),
		}, want: "dead=down"},
		{name: "another store's epoch does not count", wants: Wants{Epochs: map[string]uint64{storeA: 5}}, cands: []Candidate{
			cand("b", health.Active, at(storeB, 4)),
		}, want: "b=serves"},
		{name: "of two owners the higher epoch is believed, the other is doubtful", wants: Wants{Store: storeA}, cands: []Candidate{
			cand("lower", health.Active, at(storeA, 6), tier(0)), cand("higher", health.Active, at(storeA, 7), tier(9)),
		}, want: "higher=serves lower=likely"},
		{name: "stays where it was inside a tier", prev: "c:61613", cands: []Candidate{
			cand("a", health.Active, weight(60000)), cand("b", health.Active, tier(1)), cand("c", health.Active),
		}, want: "c=serves a=serves b=serves"},
		{name: "but not for a worse tier", prev: "b:61613", cands: []Candidate{
			cand("a", health.Active), cand("b", health.Active, tier(1)),
		}, want: "a=serves b=serves"},
		{name: "and not where the weight was taken away", prev: "b:61613", cands: []Candidate{
			cand("a", health.Active, weight(65535)), cand("b", health.Active, weight(0)),
		}, want: "a=serves b=serves"},
		{name: "nor to one that drains", prev: "a:61613", cands: []Candidate{
			cand("a", health.Active, draining), cand("b", health.Unknown),
		}, want: "b=likely a=draining"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Choose(tt.prev, tt.cands, tt.wants, seeded(1))
			if !errors.Is(err, tt.err) {
				t.Fatalf("err = %v, want %v", err, tt.err)
			}
			if got := names(c); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if len(c.Stale) != tt.stale {
				t.Errorf("stale = %v, want %d of them", c.Stale, tt.stale)
			}
		})
	}
}

// Shares of the first place follow the weights of RFC 2782, zero weights get next to nothing, and zero weights alone share evenly.
func TestChooseWeights(t *testing.T) {
	const draws = 20000
	for _, tt := range []struct {
		weights []uint16
		share   []float64
	}{
		{[]uint16{1, 3}, []float64{0.30, 0.70}}, // the RFC draws from 0..sum inclusive, which favours the first a little: (1+½)/5
		{[]uint16{60, 20, 20}, []float64{0.60, 0.20, 0.20}},
		{[]uint16{0, 0, 0}, []float64{1. / 3, 1. / 3, 1. / 3}},
		{[]uint16{0, 1000}, []float64{0.001, 0.999}},
	} {
		t.Run(fmt.Sprint(tt.weights), func(t *testing.T) {
			var cands []Candidate
			for i, w := range tt.weights {
				cands = append(cands, cand(fmt.Sprint("b", i), health.Active, weight(w)))
			}
			rnd, first := seeded(7), make(map[health.Target]int)
			for range draws {
				c, err := Choose("", cands, Wants{}, rnd)
				if err != nil {
					t.Fatal(err)
				}
				first[c.Targets[0].Target]++
			}
			for i, want := range tt.share {
				if got := float64(first[cands[i].Target]) / draws; got < want-0.02 || got > want+0.02 {
					t.Errorf("weight %d came first in %.3f of draws, want %.3f", tt.weights[i], got, want)
				}
			}
		})
	}
}

// The addresses of one name have one share between them and are tried one after the other.
func TestChooseKeepsAddressesOfANameTogether(t *testing.T) {
	named := func(n string) func(*Candidate) { return func(c *Candidate) { c.Name = n } }
	cands := []Candidate{
		cand("10.0.0.1", health.Active, named("x:1")), cand("10.0.0.3", health.Active, named("y:1")), cand("10.0.0.2", health.Active, named("x:1")),
		cand("10.0.0.4", health.Active, named("x:1")),
	}
	rnd, xFirst := seeded(3), 0
	for range 4000 {
		c, err := Choose("", cands, Wants{}, rnd)
		if err != nil {
			t.Fatal(err)
		}
		switch got := names(c); got {
		case "10.0.0.1=serves 10.0.0.2=serves 10.0.0.4=serves 10.0.0.3=serves":
			xFirst++
		case "10.0.0.3=serves 10.0.0.1=serves 10.0.0.2=serves 10.0.0.4=serves":
		default:
			t.Fatalf("order %s splits a name", got)
		}
	}
	if xFirst < 1800 || xFirst > 2200 {
		t.Errorf("the name with three addresses came first %d times of 4000, want about half", xFirst)
	}
}

func drawCandidates(t *rapid.T) []Candidate {
	stores := []string{"", storeA, storeB}
	ones := rapid.IntRange(1, 2).Draw(t, "stores of each")
	n := rapid.IntRange(0, 8).Draw(t, "n")
	cands := make([]Candidate, n)
	for i := range cands {
		cands[i] = cand(fmt.Sprint("b", i), health.State(rapid.IntRange(0, 4).Draw(t, "state")),
			at(rapid.SampledFrom(stores).Draw(t, "store"), rapid.Uint64Range(0, 4).Draw(t, "epoch")),
			at(rapid.SampledFrom(stores[:ones]).Draw(t, "another store"), rapid.Uint64Range(0, 4).Draw(t, "its epoch")),
			tier(rapid.IntRange(0, 2).Draw(t, "tier")), weight(rapid.SampledFrom([]uint16{0, 1, 9, 65535}).Draw(t, "weight")))
		cands[i].Verdict.Draining = rapid.Bool().Draw(t, "draining")
		if i > 0 && rapid.Bool().Draw(t, "same name") {
			cands[i].Name = "shared:1"
		}
	}
	return cands
}

func TestChooseProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cands := drawCandidates(t)
		before := slices.Clone(cands)
		w := Wants{
			Store:  rapid.SampledFrom([]string{"", storeA}).Draw(t, "want"),
			Epochs: map[string]uint64{storeA: rapid.Uint64Range(0, 4).Draw(t, "seenA"), storeB: rapid.Uint64Range(0, 4).Draw(t, "seenB")},
		}
		prev := health.Target(fmt.Sprint("b", rapid.IntRange(0, 8).Draw(t, "prev"), ":61613"))
		seed := rapid.Uint64().Draw(t, "seed")
		c, err := Choose(prev, cands, w, seeded(seed))

		if !slices.EqualFunc(before, cands, equalCandidate) {
			t.Fatal("the candidates were changed")
		}
		if errors.Is(err, ErrWhichStore) != (w.Store == "" && len(c.Targets) > 0 && len(Stores(cands)) > 1) {
			t.Fatalf("err = %v with the stores %v", err, Stores(cands))
		}
		if (err != nil && !errors.Is(err, ErrWhichStore)) != (len(c.Targets) == 0) {
			t.Fatalf("err = %v with %d targets: empty must be an error, and nothing else", err, len(c.Targets))
		}
		seen := make(map[health.Target]bool)
		for _, r := range c.Targets {
			seen[r.Target] = true
			v := r.Verdict
			if v.State == health.Active && w.Store != "" && r.Store.Epoch > 0 && r.Store.Epoch < w.Epochs[r.Store.UUID] {
				t.Fatalf("%s serves at epoch %d, and %d was seen", r.Target, r.Store.Epoch, w.Epochs[r.Store.UUID])
			}
		}
		for _, s := range c.Stale {
			seen[s] = true
		}
		if len(seen) != len(cands) || len(c.Targets)+len(c.Stale) != len(cands) {
			t.Fatalf("%d candidates became %d targets and %d stale", len(cands), len(c.Targets), len(c.Stale))
		}
		for i := 1; i < len(c.Targets); i++ {
			a, b := c.Targets[i-1], c.Targets[i]
			if a.Rank > b.Rank {
				t.Fatalf("%s (%s) before %s (%s)", a.Target, a.Rank, b.Target, b.Rank)
			}
			if a.Rank == b.Rank && a.Rank != Serves && a.Tier > b.Tier {
				t.Fatalf("tier %d before %d within %s", a.Tier, b.Tier, a.Rank)
			}
		}
		again, _ := Choose(prev, cands, w, seeded(seed))
		if names(again) != names(c) {
			t.Fatalf("not a function of its arguments: %s, then %s", names(c), names(again))
		}
		slices.Reverse(cands)
		reversed, _ := Choose(prev, cands, w, seeded(seed))
		if names(reversed) != names(c) {
			t.Fatalf("depends on the order of candidates: %s, then %s", names(c), names(reversed))
		}
	})
}
