package journal

import (
	"cmp"
	"hash/fnv"
	"math/bits"
	"slices"
)

// ordered sorts candidates in the order in which they are to take a store over: whom the last owner named, who owns it, who serves the fewest stores, the
// operator's word, who has the least to do, and then by a hash, so that stores that are freed together do not all go to the same one. The order is total,
// and the same for whoever knows the same candidates.
func ordered(list []Candidate, store, successor string) []Candidate {
	slices.SortFunc(list, func(a, b Candidate) int {
		return cmp.Or(
			first(successor != "" && a.Node == successor, successor != "" && b.Node == successor),
			first(a.Own, b.Own),
			cmp.Compare(a.Serves, b.Serves),
			cmp.Compare(a.Rank, b.Rank),
			cmp.Compare(coarse(a.Load), coarse(b.Load)),
			cmp.Compare(nodeHash(store, a.Node), nodeHash(store, b.Node)),
			cmp.Compare(a.Node, b.Node),
		)
	})
	return list
}

// placeOf is how many of an ordered list go before node; all of them if it is not there.
func placeOf(list []Candidate, node string) int {
	if i := slices.IndexFunc(list, func(c Candidate) bool { return c.Node == node }); i >= 0 {
		return i
	}
	return len(list)
}

func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// coarse keeps a little more or less to do from changing the order all the time.
func coarse(load int) int { return bits.Len(uint(max(load, 0))) }

func nodeHash(store, node string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(store))
	h.Write([]byte{0})
	h.Write([]byte(node))
	x := h.Sum64() // of strings that differ at their ends only, the high bits hardly differ
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}
