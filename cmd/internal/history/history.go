// Package history keeps what clients did to queues and what they saw, each with the time between question and answer, and judges whether queues that lose
// nothing, deliver nothing twice and keep order could have answered so, whatever happened to the brokers meanwhile. It is for tests only.
//
// Three judgements, for no single one is both complete and affordable:
//
//   - Messages: each message by itself is sent, held by one consumer at a time, given back, acknowledged once, and then never seen again. Histories of any size.
//   - Queues: what one producer sent to one queue, in which the next to be delivered is the one that was sent first. Porcupine searches the orders that the times
//     allow for one that a queue could have had, which is exponential where much is under way at once: for producers that wait for each receipt.
//   - Order: each consumer gets what one producer sent to one queue in that order, but for what is marked as redelivered.
package history

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Kind is what an operation does.
type Kind uint8

// Kinds. An operation of unknown outcome has no answer: it was done, at any time since it was asked for, or it was not.
const (
	Send    Kind = iota + 1 // done: the producer has a receipt
	Receive                 // begins when the consumer first had room for it
	Ack                     // done: the consumer has a receipt
	Return                  // the consumer gives back what it holds, or ends
	Drained                 // a consumer with room for all gets nothing more
)

func (k Kind) String() string {
	return [...]string{"?", "send", "receive", "ack", "return", "drained"}[k]
}

// Op is one operation of one client.
type Op struct {
	Kind           Kind
	Client         string // who: a producer, or a subscription
	Queue, Message string // Message is unique; none in Drained
	Again          bool   // Receive: it is marked as redelivered

	begin, end time.Duration // since the history began
	open       bool          // there is no answer
}

func (o Op) String() string {
	end := "?"
	if !o.open {
		end = o.end.String()
	}
	return fmt.Sprintf("%v to %s: %s %s %s %s", o.begin, end, o.Client, o.Kind, o.Queue, o.Message)
}

// History is safe for use by many clients at once.
type History struct {
	began time.Time
	mu    sync.Mutex
	ops   []Op
}

// New begins a history now.
func New() *History { return &History{began: time.Now()} }

// Now is the time since the history began.
func (h *History) Now() time.Duration { return time.Since(h.began) }

// Begin books an operation that begins now. Its end is booked with done, if there is an answer.
func (h *History) Begin(o Op) (done func()) { return h.BeginAt(h.Now(), o) }

// BeginAt is Begin of what began earlier.
func (h *History) BeginAt(at time.Duration, o Op) (done func()) {
	o.begin, o.open = at, true
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
	n := len(h.ops) - 1
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ops[n].end, h.ops[n].open = h.Now(), false
	}
}

// Ops is a copy of what was booked.
func (h *History) Ops() []Op {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ops)
}

// Verdict is what a judgement found.
type Verdict struct {
	Messages, Operations int
	Unknown              int      // partitions for which there was no time
	Wrong                []string // each with the operations that no queue would answer so
}

// Err is nil if nothing is wrong and everything was judged.
func (v Verdict) Err() error {
	if len(v.Wrong) == 0 && v.Unknown == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d messages have an impossible history, %d were not judged in time; the first:\n%s",
		len(v.Wrong), v.Messages, v.Unknown, strings.Join(v.Wrong[:min(3, len(v.Wrong))], "\n"))
}

// judge has porcupine look for an order that a model allows, in each part of a history.
func judge(parts map[string][]Op, model porcupine.Model, within time.Duration) (v Verdict) {
	limit := time.Now().Add(within)
	for _, name := range sortedKeys(parts) {
		ops := parts[name]
		v.Operations += len(ops)
		left := time.Until(limit)
		if left <= 0 {
			v.Unknown++
			continue
		}
		switch porcupine.CheckOperationsTimeout(model, operations(ops), left) {
		case porcupine.Illegal:
			lines := make([]string, len(ops))
			for i, o := range ops {
				lines[i] = "  " + o.String()
			}
			v.Wrong = append(v.Wrong, name+":\n"+strings.Join(lines, "\n"))
		case porcupine.Unknown:
			v.Unknown++
		}
	}
	return v
}

func sortedKeys(m map[string][]Op) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// operations translates. What was sent without an answer may be done after everything else, which is as good as never. What was given back or acknowledged without an
// answer has had its effect, if it has one, when the queue was found to be drained: by then its client is long gone.
func operations(ops []Op) []porcupine.Operation {
	drained := int64(math.MaxInt64)
	for _, o := range ops {
		if o.Kind == Drained {
			drained = min(drained, int64(o.begin)-1)
		}
	}
	list := make([]porcupine.Operation, len(ops))
	clients := map[string]int{}
	for i, o := range ops {
		if _, ok := clients[o.Client]; !ok {
			clients[o.Client] = len(clients)
		}
		end := int64(o.end)
		if o.open {
			if end = math.MaxInt64; o.Kind != Send {
				end = max(drained, int64(o.begin))
			}
		}
		list[i] = porcupine.Operation{ClientId: clients[o.Client], Input: o, Call: int64(o.begin), Return: end}
	}
	return list
}

// parted sorts operations by a key; those of Drained belong to all keys of their queue.
func parted(ops []Op, key func(Op) string) map[string][]Op {
	parts, queues := map[string][]Op{}, map[string]string{}
	for _, o := range ops {
		if o.Kind != Drained {
			parts[key(o)] = append(parts[key(o)], o)
			queues[key(o)] = o.Queue
		}
	}
	for _, o := range ops {
		if o.Kind == Drained {
			for k, q := range queues {
				if q == o.Queue {
					parts[k] = append(parts[k], o)
				}
			}
		}
	}
	for _, p := range parts {
		slices.SortStableFunc(p, func(a, b Op) int { return cmp.Compare(a.begin, b.begin) })
	}
	return parts
}
