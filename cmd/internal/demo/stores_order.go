package demo

import (
	"fmt"
	"maps"
	"slices"
)

// load is how many stores each server serves that is there to take one over: by its name, before anything is freed.
type load map[string]int

// freed is what became of stores that lost their holder at one moment: who took each.
type freed map[string]string

// after is the load once the stores were taken.
func (l load) after(f freed) load {
	sum := maps.Clone(l)
	for _, server := range f {
		sum[server]++
	}
	return sum
}

// breaches says what is against the order in which servers take stores over: the owner if it is there, else an idle server, else the one that serves
// least. Stores that were freed together were taken one after the other, nobody knows in which order; so what is asked is whether there is one that was
// right at each step: whoever took a store served, in the end, at most one more than any other that could have had it.
func breaches(f freed, owners map[string]string, before load) []string {
	var bad []string
	after := before.after(f)
	for _, store := range slices.Sorted(maps.Keys(f)) {
		taker, owner := f[store], owners[store]
		if _, there := before[taker]; !there {
			bad = append(bad, fmt.Sprintf("store %s was taken by %s, which is not there", store, taker))
			continue
		}
		if _, there := before[owner]; there {
			if taker != owner {
				bad = append(bad, fmt.Sprintf("store %s was taken by %s, though its owner %s is there", store, taker, owner))
			}
			continue
		}
		for _, other := range slices.Sorted(maps.Keys(after)) {
			if after[taker]-1 > after[other] {
				bad = append(bad, fmt.Sprintf("store %s was taken by %s, which then served %d, though %s served %d", store, taker, after[taker], other, after[other]))
				break
			}
		}
	}
	return bad
}

// describe is what a server was when it took a store over.
func (l load) describe(server string) string {
	least := l[server]
	for _, n := range l {
		least = min(least, n)
	}
	switch n := l[server]; {
	case n == 0:
		return "which was idle"
	case len(l) == 1:
		return "the last one left"
	case n == least:
		return fmt.Sprintf("none was idle, nobody served fewer than its %d", n)
	default:
		return fmt.Sprintf("which served %d", n)
	}
}
