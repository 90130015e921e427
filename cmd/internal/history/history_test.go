package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// play makes a history of one queue that works as it should: producers, consumers of one message at a time, one of which ends and gives back what it holds, and a
// broker that is away for a while, so that answers are late or never come.
func play(seed uint64, messages int) []Op {
	rng := rand.New(rand.NewPCG(seed, 1))
	now := time.Duration(0)
	tick := func() time.Duration { now += time.Duration(1 + rng.IntN(1000)); return now }
	var ops []Op
	var queue []string
	closed := map[string]bool{}
	since := map[string]time.Duration{"c0": 0, "c1": 0, "c2": 0}
	holds, again := map[string]string{}, map[string]bool{}
	deliver := func(c string) {
		m := queue[0]
		queue = queue[1:]
		holds[c] = m
		ops = append(ops, Op{Kind: Receive, Client: c, Queue: "q", Message: m, Again: again[m], begin: since[c], end: tick() + 50})
	}
	for n := 0; n < messages || len(queue) > 0 || len(holds) > 0; {
		switch c := fmt.Sprint("c", rng.IntN(3)); {
		case rng.IntN(3) == 0 && n < messages:
			m := fmt.Sprintf("m%03d", n)
			begin := tick()
			queue = append(queue, m)
			ops = append(ops, Op{Kind: Send, Client: fmt.Sprint("p", n%2), Queue: "q", Message: m, begin: begin, end: tick() + time.Duration(rng.IntN(500)), open: rng.IntN(20) == 0})
			n++
		case closed[c]:
		case holds[c] == "" && len(queue) > 0:
			deliver(c)
		case holds[c] != "" && c == "c2" && n > messages/2:
			ops = append(ops, Op{Kind: Return, Client: c, Queue: "q", Message: holds[c], begin: tick(), open: true})
			queue, again[holds[c]] = append([]string{holds[c]}, queue...), true
			delete(holds, c)
			closed[c] = true
		case holds[c] != "":
			begin := tick()
			since[c] = begin
			ops = append(ops, Op{Kind: Ack, Client: c, Queue: "q", Message: holds[c], begin: begin, end: tick() + 20, open: rng.IntN(20) == 0})
			delete(holds, c)
		}
	}
	now += 2000
	return append(ops, Op{Kind: Drained, Client: "end", Queue: "q", begin: now, end: now + 1})
}

func find(ops []Op, kind Kind, skip int) int {
	for i, o := range ops {
		if o.Kind == kind && !o.open {
			if skip--; skip < 0 {
				return i
			}
		}
	}
	return -1
}

func TestAQueueThatWorksIsBelieved(t *testing.T) {
	for seed := range uint64(20) {
		ops := play(seed, 40)
		for name, v := range map[string]Verdict{"messages": Messages(ops, time.Minute), "queues": Queues(ops, time.Minute), "order": Order(slices.Clone(ops))} {
			if err := v.Err(); err != nil || v.Messages != 40 {
				t.Errorf("seed %d, %s: %d messages: %v", seed, name, v.Messages, err)
			}
		}
	}
}

// Each thing that must not happen is found in a history that would be right without it.
func TestAQueueThatDoesNotWorkIsNot(t *testing.T) {
	ofMessages := func(ops []Op) Verdict { return Messages(ops, time.Minute) }
	ofQueues := func(ops []Op) Verdict { return Queues(ops, time.Minute) }
	later := func(o Op, by time.Duration) Op { o.begin += by; o.end += by; return o }
	for name, c := range map[string]struct {
		hurt  func([]Op) []Op
		judge []func([]Op) Verdict
	}{
		"a message is lost": {func(ops []Op) []Op {
			m := ops[find(ops, Send, 5)].Message
			return slices.DeleteFunc(ops, func(o Op) bool { return o.Message == m && o.Kind != Send })
		}, []func([]Op) Verdict{ofMessages, ofQueues}},
		"a message comes twice": {func(ops []Op) []Op {
			return append(ops, later(ops[find(ops, Receive, 5)], 1))
		}, []func([]Op) Verdict{ofMessages, ofQueues}},
		"a message goes to two": {func(ops []Op) []Op {
			o := ops[find(ops, Receive, 5)]
			o.Client = "other"
			return append(ops, o)
		}, []func([]Op) Verdict{ofMessages, ofQueues}},
		"a message comes after its acknowledgement": {func(ops []Op) []Op {
			o := ops[find(ops, Ack, 5)]
			end := ops[len(ops)-1].begin
			return append(ops, Op{Kind: Receive, Client: "other", Queue: "q", Message: o.Message, begin: o.end + 1, end: end})
		}, []func([]Op) Verdict{ofMessages, ofQueues}},
		"a message comes that nobody sent": {func(ops []Op) []Op {
			return append(ops, Op{Kind: Receive, Client: "other", Queue: "q", Message: "phantom", begin: 1, end: ops[len(ops)-1].begin})
		}, []func([]Op) Verdict{ofMessages, ofQueues}},
		"a message comes before it is sent": {func(ops []Op) []Op {
			i := find(ops, Receive, 5)
			m := ops[i].Message
			for k := range ops {
				if ops[k].Kind == Send && ops[k].Message == m {
					ops[k].begin = ops[i].end + 1
					ops[k].end = ops[i].end + 2
				}
			}
			return ops
		}, []func([]Op) Verdict{ofMessages, ofQueues}},
		"one acknowledges what another holds": {func(ops []Op) []Op {
			ops[find(ops, Ack, 5)].Client = "other"
			return ops
		}, []func([]Op) Verdict{ofMessages, ofQueues}},
		"a queue is out of order": {func(ops []Op) []Op { // two that were sent one after the other, and delivered one after the other
			sent := func(m string) Op {
				return ops[slices.IndexFunc(ops, func(o Op) bool { return o.Kind == Send && o.Message == m })]
			}
			for _, a := range ops {
				for _, b := range ops {
					if a.Kind == Receive && b.Kind == Receive && !a.Again && !b.Again && a.end < b.begin && producer(ops, a.Message) == producer(ops, b.Message) && !sent(a.Message).open && sent(a.Message).end < sent(b.Message).begin {
						return swapped(ops, a.Message, b.Message)
					}
				}
			}
			panic("no two deliveries that follow each other")
		}, []func([]Op) Verdict{ofQueues}},
		"a consumer gets a producer's messages out of order": {func(ops []Op) []Op {
			for i, a := range ops {
				for k := i + 1; k < len(ops); k++ {
					b := ops[k]
					if a.Kind == Receive && b.Kind == Receive && a.Client == b.Client && !b.Again && producer(ops, a.Message) == producer(ops, b.Message) && a.Message < b.Message {
						ops[i].Message, ops[k].Message = b.Message, a.Message
						return ops
					}
				}
			}
			panic("no two of one producer")
		}, []func([]Op) Verdict{Order}},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(10) {
				ops := c.hurt(play(seed, 40))
				for i, judge := range c.judge {
					if v := judge(slices.Clone(ops)); len(v.Wrong) == 0 {
						t.Errorf("seed %d, judgement %d: believed (%+v)", seed, i, v)
					}
				}
			}
		})
	}
}

// swapped has two messages change places, but for where they were sent.
func swapped(ops []Op, a, b string) []Op {
	for n := range ops {
		switch {
		case ops[n].Kind == Send:
		case ops[n].Message == a:
			ops[n].Message = b
		case ops[n].Message == b:
			ops[n].Message = a
		}
	}
	return ops
}

func producer(ops []Op, message string) string {
	i := slices.IndexFunc(ops, func(o Op) bool { return o.Kind == Send && o.Message == message })
	return ops[i].Client
}

func TestCulpritIsNamed(t *testing.T) {
	ops := play(1, 40)
	if text := Culprit(ops, time.Minute); text != "" {
		t.Errorf("found in a queue that works:\n%s", text)
	}
	twice := ops[find(ops, Receive, 5)]
	twice.Client = "other"
	twice.end++
	if text := Culprit(append(ops, twice), time.Minute); !strings.Contains(text, twice.String()) {
		t.Errorf("%v is not in\n%s", twice, text)
	}
}

func TestBookedAsItHappens(t *testing.T) {
	h := New()
	done := h.Begin(Op{Kind: Send, Client: "p", Queue: "q", Message: "m"})
	h.Begin(Op{Kind: Send, Client: "p", Queue: "q", Message: "n"})
	done()
	ops := h.Ops()
	if len(ops) != 2 || ops[0].open || ops[0].end < ops[0].begin || !ops[1].open {
		t.Errorf("%+v", ops)
	}
}
