package history

import (
	"hash/maphash"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// entry is a message in a queue; holder is "" while it is ready.
type entry struct{ message, holder string }

// Queues judges, for each queue and producer, all that the producer sent there together: what is ready is delivered in the order in which it was sent, and what was given
// back is where it was. Between producers no order is promised; and to guess it, for a backlog that grew while nobody could receive, would take for ever.
func Queues(ops []Op, within time.Duration) Verdict {
	senders := map[string]string{}
	for _, o := range ops {
		if o.Kind == Send {
			senders[o.Message] = o.Client
		}
	}
	parts := parted(ops, func(o Op) string { return o.Queue + " of " + senders[o.Message] })
	seed := maphash.MakeSeed()
	v := judge(parts, porcupine.Model{
		Init: func() any { return []entry(nil) },
		Step: func(s, in, _ any) (bool, any) {
			ok, after := queueStep(s.([]entry), in.(Op))
			return ok, after
		},
		Equal: func(a, b any) bool { return slices.Equal(a.([]entry), b.([]entry)) },
		Hash: func(s any) uint64 {
			var h maphash.Hash
			h.SetSeed(seed)
			for _, e := range s.([]entry) {
				h.WriteString(e.message)
				h.WriteByte(0)
				h.WriteString(e.holder)
				h.WriteByte(1)
			}
			return h.Sum64()
		},
	}, within)
	seen := map[string]bool{}
	for _, o := range ops {
		seen[o.Queue+" "+o.Message] = seen[o.Queue+" "+o.Message] || o.Kind == Send
	}
	for _, sent := range seen {
		if sent {
			v.Messages++
		}
	}
	return v
}

func queueStep(q []entry, o Op) (bool, []entry) {
	at := slices.IndexFunc(q, func(e entry) bool { return e.message == o.Message })
	first := slices.IndexFunc(q, func(e entry) bool { return e.holder == "" })
	mine := at >= 0 && q[at].holder == o.Client
	switch o.Kind {
	case Send:
		return at < 0, append(slices.Clip(q), entry{message: o.Message})
	case Receive:
		return at >= 0 && at == first, with(q, at, o.Client)
	case Ack:
		if mine {
			return true, slices.Delete(slices.Clone(q), at, at+1)
		}
		return o.open, q
	case Return:
		if mine {
			return true, with(q, at, "")
		}
		return true, q
	case Drained:
		return first < 0, q
	}
	return false, q
}

func with(q []entry, at int, holder string) []entry {
	if at < 0 {
		return q
	}
	q = slices.Clone(q)
	q[at].holder = holder
	return q
}
