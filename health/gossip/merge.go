package gossip

import (
	"bytes"
	"cmp"
	"time"

	"github.com/understudy-mq/understudy/health"
)

// compare orders the records of one node: a later life, then a later word. Two different records of the same incarnation and sequence
// come from two nodes of one name; their octets decide, so that everybody decides alike.
func (r record) compare(o record) int {
	return cmp.Or(cmp.Compare(r.Incarnation, o.Incarnation), cmp.Compare(r.Sequence, o.Sequence), bytes.Compare(r.raw, o.raw))
}

// ledger holds the last word of each node, by name.
type ledger map[string]record

// merge returns what is known once in is heard too: of each node the greatest record. It changes neither argument, is commutative,
// associative and idempotent, and names the nodes of which something new was learnt; if there are none it returns l itself.
func (l ledger) merge(in []record) (ledger, []string) {
	merged, learnt := l, []string(nil)
	for _, r := range in {
		if have, ok := merged[r.Node]; ok && have.compare(r) >= 0 {
			continue
		}
		if len(learnt) == 0 {
			merged = make(ledger, len(l)+len(in))
			for node, have := range l {
				merged[node] = have
			}
		}
		merged[r.Node] = r
		learnt = append(learnt, r.Node)
	}
	return merged, learnt
}

// Limits of hints.
const (
	hintGap  = 50 * time.Millisecond // least time between two hints on one target
	maxHints = 1024                  // targets and sources remembered
)

// hints keeps suspicions from becoming a storm: each is passed on once, and a target not more often than once in hintGap.
type hints struct {
	last map[hintSource]uint64       // sequence of the newest
	at   map[health.Target]time.Time // when a hint was passed on last
}

type hintSource struct {
	by     string
	target health.Target
}

func newHints() *hints {
	return &hints{last: make(map[hintSource]uint64), at: make(map[health.Target]time.Time)}
}

// accept reports whether the suspicion is news at now.
func (h *hints) accept(s Suspicion, sequence uint64, now time.Time) bool {
	if len(h.last) >= maxHints || len(h.at) >= maxHints {
		// Forgetting costs at most a probe that was made already.
		clear(h.last)
		clear(h.at)
	}
	source := hintSource{s.By, s.Target}
	if last, ok := h.last[source]; ok && sequence <= last {
		return false
	}
	h.last[source] = sequence
	if last, ok := h.at[s.Target]; ok && now.Sub(last) < hintGap {
		return false
	}
	h.at[s.Target] = now
	return true
}
