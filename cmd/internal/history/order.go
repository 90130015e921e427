package history

import (
	"cmp"
	"fmt"
	"slices"
)

// Order judges the order of each producer's messages at each consumer. What is marked as redelivered may come out of it.
func Order(ops []Op) Verdict {
	type sent struct {
		producer string
		n        int
	}
	slices.SortStableFunc(ops, func(a, b Op) int { return cmp.Compare(a.begin, b.begin) })
	place, count := map[string]sent{}, map[string]int{}
	for _, o := range ops {
		if o.Kind == Send {
			from := o.Client + " " + o.Queue
			count[from]++
			place[o.Message] = sent{o.Client, count[from]}
		}
	}
	v := Verdict{Messages: len(place), Operations: len(ops)}
	slices.SortStableFunc(ops, func(a, b Op) int { return cmp.Compare(a.end, b.end) })
	last := map[[3]string]Op{}
	for _, o := range ops {
		if o.Kind != Receive || o.Again {
			continue
		}
		from := place[o.Message]
		way := [3]string{o.Client, o.Queue, from.producer}
		if before, ok := last[way]; ok && place[before.Message].n > from.n {
			v.Wrong = append(v.Wrong, fmt.Sprintf("  %v\n  %v\nof one producer came in the wrong order", before, o))
		}
		last[way] = o
	}
	return v
}
