package routing

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/understudy-mq/understudy/health"
)

// Choose orders cands for a session that was last with prev ("" at first): by rank, by epoch where one store is served twice, by tier,
// and inside a tier by the weighted draw of RFC 2782, except that prev goes first there unless its weight was taken to 0. Choose
// neither keeps nor changes cands. It returns ErrNoCandidates or ErrOnlyStale, with the Choice, when Targets would be empty.
func Choose(prev health.Target, cands []Candidate, w Wants, rnd *rand.Rand) (Choice, error) {
	if len(cands) == 0 {
		return Choice{}, ErrNoCandidates
	}
	top := topEpochs(cands)
	c := Choice{Targets: make([]Ranked, 0, len(cands))}
	for _, cand := range cands {
		if stale(cand.Verdict, w) {
			c.Stale = append(c.Stale, cand.Verdict.Target)
			continue
		}
		c.Targets = append(c.Targets, Ranked{cand, rank(cand, w, top)})
	}
	if len(c.Targets) == 0 {
		return c, fmt.Errorf("%w: %d of %d", ErrOnlyStale, len(c.Stale), len(cands))
	}
	slices.SortFunc(c.Targets, func(a, b Ranked) int {
		return cmp.Or(compareGroup(a, b), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Target, b.Target))
	})
	for rest := c.Targets; len(rest) > 0; {
		n := 1
		for n < len(rest) && compareGroup(rest[0], rest[n]) == 0 {
			n++
		}
		draw(rest[:n], rnd)
		stick(rest[:n], prev)
		rest = rest[n:]
	}
	return c, nil
}

// compareGroup is 0 for candidates among which weight decides.
func compareGroup(a, b Ranked) int {
	byEpoch := 0
	if a.Rank == Serves && a.Verdict.Store == b.Verdict.Store {
		byEpoch = cmp.Compare(b.Verdict.Epoch, a.Verdict.Epoch)
	}
	return cmp.Or(cmp.Compare(a.Rank, b.Rank), byEpoch, cmp.Compare(a.Tier, b.Tier))
}

// stale: what was seen last of the target is an epoch that a login elsewhere has shown to be over. Of a target that is down, or of which
// nothing is known, the epoch is history and not a claim: it may have taken the store again since.
func stale(v health.Verdict, w Wants) bool {
	if v.State == health.Down || v.State == health.Unknown {
		return false
	}
	return v.Store != "" && v.Epoch > 0 && v.Epoch < w.Epochs[v.Store]
}

// topEpochs is the highest epoch at which each store is said to be served now.
func topEpochs(cands []Candidate) map[string]uint64 {
	top := make(map[string]uint64, 1)
	for _, c := range cands {
		if v := c.Verdict; v.State == health.Active && v.Store != "" {
			top[v.Store] = max(top[v.Store], v.Epoch)
		}
	}
	return top
}

func rank(c Candidate, w Wants, top map[string]uint64) Rank {
	v := c.Verdict
	switch {
	case v.State == health.Down:
		return Dead
	case v.Draining:
		return Draining
	case v.State == health.Standby:
		return Waiting
	}
	match := matchStore(c, w.Store)
	switch {
	case match == no:
		return Elsewise
	case v.State != health.Active, v.Epoch < top[v.Store]:
		return Likely
	case match == yes:
		return Serves
	}
	return Active
}

type answer uint8

const (
	unknown answer = iota
	yes
	no
)

// matchStore compares like with like: a UUID and a name say nothing of each other.
func matchStore(c Candidate, want string) answer {
	if want == "" {
		return yes
	}
	got := unknown
	for _, have := range [...]string{c.Verdict.Store, c.Store} {
		switch {
		case have == "":
		case have == want:
			return yes
		case isUUID(have) == isUUID(want):
			got = no
		}
	}
	return got
}

// isUUID: 32 hexadecimal digits, with or without the dashes of RFC 9562.
func isUUID(s string) bool {
	digits := 0
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'f', 'A' <= c && c <= 'F':
			digits++
		case c != '-':
			return false
		}
	}
	return digits == 32
}

// draw puts group, which is sorted by name, into the order of RFC 2782: again and again one is drawn from those left with a chance in
// proportion to its weight, weights of 0 having "a very small chance". Addresses of one name are one entry and stay together.
func draw(group []Ranked, rnd *rand.Rand) {
	for len(group) > 1 {
		// Zero weights come first in the running sum, as the RFC has it; a draw of 0 picks the first of them, so shuffle which one that is.
		heads := heads(group)
		rnd.Shuffle(len(heads), func(i, j int) { heads[i], heads[j] = heads[j], heads[i] })
		slices.SortStableFunc(heads, func(a, b span) int {
			return cmp.Compare(min(a.weight, 1), min(b.weight, 1))
		})
		sum := 0
		for _, h := range heads {
			sum += h.weight
		}
		at, pick := rnd.IntN(sum+1), 0
		for sum = heads[0].weight; sum < at; sum += heads[pick].weight {
			pick++
		}
		h := heads[pick]
		toFront(group, h.from, h.to)
		group = group[h.to-h.from:]
	}
}

// span is the range of the candidates that share a name.
type span struct{ from, to, weight int }

func heads(group []Ranked) []span {
	var out []span
	for i, r := range group {
		if n := len(out); n > 0 && r.Name != "" && group[i-1].Name == r.Name {
			out[n-1].to++
			out[n-1].weight = max(out[n-1].weight, int(r.Weight))
			continue
		}
		out = append(out, span{i, i + 1, int(r.Weight)})
	}
	return out
}

// toFront moves group[from:to] to the front and keeps the order of the rest.
func toFront(group []Ranked, from, to int) {
	moved := slices.Clone(group[from:to])
	copy(group[to-from:to], group[:from])
	copy(group, moved)
}

// stick puts prev first: what the session has there (messages, temporary queues) is worth more than a fair draw. A weight of 0 beside
// others that have more is an operator's wish to empty that target.
func stick(group []Ranked, prev health.Target) {
	at := slices.IndexFunc(group, func(r Ranked) bool { return r.Target == prev })
	if at < 0 {
		return
	}
	if group[at].Weight == 0 && slices.ContainsFunc(group, func(r Ranked) bool { return r.Weight > 0 }) {
		return
	}
	toFront(group, at, at+1)
}
