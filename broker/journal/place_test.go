package journal

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestPlace(t *testing.T) {
	node := func(name string, s Standing) Candidate { return Candidate{Node: name, Standing: s} }
	for name, tc := range map[string]struct {
		successor string
		want      []Candidate // in order
	}{
		"nobody":                       {},
		"the owner":                    {want: []Candidate{node("b", Standing{Own: true, Serves: 9, Rank: 9, Load: 9}), node("a", Standing{})}},
		"idle before active":           {want: []Candidate{node("b", Standing{Rank: 9}), node("a", Standing{Serves: 1})}},
		"one store before two":         {want: []Candidate{node("b", Standing{Serves: 1, Load: 1000}), node("a", Standing{Serves: 2})}},
		"rank among equals":            {want: []Candidate{node("b", Standing{Load: 99}), node("a", Standing{Rank: 1})}},
		"the least loaded":             {want: []Candidate{node("b", Standing{Load: 100}), node("a", Standing{Load: 300})}},
		"named before the owner":       {successor: "c", want: []Candidate{node("c", Standing{Serves: 3}), node("b", Standing{Own: true}), node("a", Standing{})}},
		"named, and not there":         {successor: "x", want: []Candidate{node("b", Standing{Own: true}), node("a", Standing{})}},
		"of two owners the less laden": {want: []Candidate{node("b", Standing{Own: true, Serves: 1}), node("a", Standing{Own: true, Serves: 2})}},
	} {
		t.Run(name, func(t *testing.T) {
			list := slices.Clone(tc.want)
			slices.Reverse(list)
			got := ordered(list, "store", tc.successor)
			if !slices.Equal(got, tc.want) {
				t.Errorf("order %v", got)
			}
			for i, c := range tc.want {
				if p := placeOf(got, c.Node); p != i {
					t.Errorf("%s has place %d, want %d", c.Node, p, i)
				}
			}
			if p := placeOf(got, "stranger"); p != len(got) {
				t.Errorf("who is not seen has place %d", p)
			}
		})
	}
}

// A little more or less to do changes nothing; much more does.
func TestLoadIsCoarse(t *testing.T) {
	if coarse(1000) != coarse(900) || coarse(1000) == coarse(2100) || coarse(-1) != coarse(0) || coarse(0) == coarse(1) {
		t.Error(coarse(900), coarse(1000), coarse(2100), coarse(-1), coarse(0), coarse(1))
	}
}

// Whoever knows the same candidates orders them the same way; nobody shares a place.
func TestOrderIsTotal(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(rt, "candidates")
		list := make([]Candidate, n)
		for i := range list {
			list[i] = Candidate{Node: fmt.Sprint("node-", i), Standing: Standing{
				Own: rapid.IntRange(0, 9).Draw(rt, "own") == 0, Serves: rapid.IntRange(0, 2).Draw(rt, "serves"),
				Load: rapid.IntRange(-1, 1<<20).Draw(rt, "load"), Rank: rapid.IntRange(-1, 1).Draw(rt, "rank"),
			}}
		}
		successor := ""
		if rapid.Bool().Draw(rt, "named") {
			successor = fmt.Sprint("node-", rapid.IntRange(0, 14).Draw(rt, "successor"))
		}
		one := ordered(slices.Clone(list), "store", successor)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		rng.Shuffle(n, func(i, j int) { list[i], list[j] = list[j], list[i] })
		other := ordered(slices.Clone(list), "store", successor)
		if !slices.Equal(one, other) {
			rt.Fatalf("two orders: %v, %v", one, other)
		}
		for i := range n - 1 {
			a, b := one[i], one[i+1]
			switch {
			case a.Node == successor:
			case b.Node == successor:
				rt.Fatalf("%v before the successor", a)
			case a.Own != b.Own && !a.Own:
				rt.Fatalf("%v before the owner %v", a, b)
			case a.Own == b.Own && a.Serves > b.Serves:
				rt.Fatalf("%v before %v, which serves fewer", a, b)
			}
		}
	})
}

// Equals share stores evenly.
func TestHashSpreads(t *testing.T) {
	first := map[string]int{}
	for i := range 400 {
		list := []Candidate{{Node: "a"}, {Node: "b"}, {Node: "c"}, {Node: "d"}}
		first[ordered(list, fmt.Sprintf("00000000-0000-4000-8000-%012d", i), "")[0].Node]++
	}
	for node, n := range first {
		if n < 60 || n > 140 {
			t.Errorf("%s is first for %d stores of 400", node, n)
		}
	}
}
