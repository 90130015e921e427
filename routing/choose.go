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
// neither keeps nor changes cands. It returns ErrNoCandidates or ErrOnlyStale, with the Choice, when Targets would be empty, and ErrWhichStore, with
// a Choice for a session that does not mind, when w names no store and there are several; as *Namesakes when w names one, and several of that name are
// served.
func Choose(prev health.Target, cands []Candidate, w Wants, rnd *rand.Rand) (Choice, error) {
	if len(cands) == 0 {
		return Choice{}, ErrNoCandidates
	}
	top := topEpochs(cands)
	c := Choice{Targets: make([]Ranked, 0, len(cands))}
	for _, cand := range cands {
		store, match := matchStore(&cand, w.Store)
		if stale(cand.Verdict, store, w) {
			c.Stale = append(c.Stale, cand.Verdict.Target)
			continue
		}
		c.Targets = append(c.Targets, Ranked{cand, rank(cand.Verdict, store, match, top), store})
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
	if w.Store == "" && several(cands) {
		return c, fmt.Errorf("%w: the brokers know several, and none was named: %s", ErrWhichStore, list(Stores(cands)))
	}
	if err := namesakes(cands, w); err != nil {
		return c, err
	}
	return c, nil
}

// compareGroup is 0 for candidates among which weight decides.
func compareGroup(a, b Ranked) int {
	byEpoch := 0
	if a.Rank == Serves && a.Store.UUID == b.Store.UUID {
		byEpoch = cmp.Compare(b.Store.Epoch, a.Store.Epoch)
	}
	return cmp.Or(cmp.Compare(a.Rank, b.Rank), byEpoch, cmp.Compare(a.Tier, b.Tier))
}

// stale: what was seen last of the target is an epoch of the store wanted that a login elsewhere has shown to be over; or, where any store will
// do, nothing but such epochs. Of a target that is down, or of which nothing is known, an epoch is history and not a claim: it may have taken the
// store again since.
func stale(v health.Verdict, store health.Served, w Wants) bool {
	if v.State == health.Down || v.State == health.Unknown {
		return false
	}
	over := func(s health.Served) bool { return s.Epoch > 0 && !w.live(s) }
	if w.Store != "" {
		return over(store)
	}
	return slices.ContainsFunc(v.Stores, over) && !slices.ContainsFunc(v.Stores, func(s health.Served) bool { return s.Epoch > 0 && !over(s) })
}

// live: it is served, and neither health nor a session has seen a higher epoch of it.
func (w Wants) live(s health.Served) bool { return s.Live() && s.Epoch >= w.Epochs[s.UUID] }

// topEpochs is the highest epoch at which each store is said to be served now.
func topEpochs(cands []Candidate) map[string]uint64 {
	top := make(map[string]uint64, 1)
	for _, c := range cands {
		if c.Verdict.State != health.Active {
			continue
		}
		for _, s := range c.Verdict.Stores {
			top[s.UUID] = max(top[s.UUID], s.Epoch)
		}
	}
	return top
}

func rank(v health.Verdict, store health.Served, match answer, top map[string]uint64) Rank {
	switch {
	case v.State == health.Down:
		return Dead
	case v.Draining:
		return Draining
	case match == no:
		return Elsewise
	case v.State == health.Standby, match == idle:
		return Waiting
	case v.State != health.Active, store.Epoch < top[store.UUID]:
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
	idle // it knows the store and does not serve it
	no
)

// matchStore is what a candidate has of the store wanted. What a broker says of its stores counts before what a source of discovery says, and like is
// compared with like: a UUID and a name say nothing of each other.
func matchStore(c *Candidate, want string) (health.Served, answer) {
	stores := c.Verdict.Stores
	if want == "" {
		only := health.Served{}
		for _, s := range stores {
			if s.Live() {
				if only.UUID != "" {
					return health.Served{}, yes
				}
				only = s
			}
		}
		return only, yes
	}
	if s, ok := c.Verdict.Find(want); ok {
		if s.Epoch > 0 {
			return s, yes
		}
		return s, idle
	}
	got := unknown
	for _, s := range stores {
		if isUUID(want) || s.Name != "" {
			got = no
		}
	}
	switch {
	case c.Store == want:
		return health.Served{}, yes
	case c.Store != "" && isUUID(c.Store) == isUUID(want):
		got = no
	}
	return health.Served{}, got
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
