package sessiontest

import (
	"strconv"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// Slots of the subscriptions that are not drawn by OpSubscribe.
const (
	replySlot   = 2
	browserSlot = 3
)

// replies is what the client calls its temporary queue.
const replies = "/temp-queue/replies"

// durableHeader is how a durable subscription is named.
func durableHeader(k Kind) string {
	if k == Artemis {
		return "durable-subscription-name"
	}
	return "activemq.subscriptionName"
}

// ask sends a request that wants its reply in a temporary queue, and subscribes to that first.
func (c *stompClient) ask(dst []byte, o *Op) []byte {
	if c.subs[replySlot] == nil {
		c.gens++
		s := &clientSub{id: "s2-" + strconv.Itoa(c.gens), gen: c.gens, dest: -1, mode: Auto}
		c.subs[replySlot], c.temp = s, true
		c.book.subs[s.id] = s
		dst = frame.AppendHeader(append(dst, "SUBSCRIBE\n"...), "id", s.id)
		dst = append(dst, "destination:"+replies+"\nack:auto\n\n\x00"...)
	}
	it := c.book.add(true, o.Dest, o.Size)
	it.place, it.request, it.sentAfter = c.book.nextPlace(), true, c.w.Downs
	dst = frame.AppendHeader(append(dst, "SEND\n"...), "destination", nameOf(o.Dest))
	dst = append(append(dst, noteOf(it, c.script.Version)...), laneOf(it)...)
	dst = append(dst, "persistent:true\nreply-to:"+replies+"\n"...)
	dst = c.request(dst, o.Receipt, true, "SEND "+it.key(), it)
	c.scratch = it.body(c.scratch[:0])
	if it.binary() {
		dst = frame.AppendUint(dst, "content-length", uint64(len(c.scratch)))
	}
	return append(append(append(dst, '\n'), c.scratch...), 0)
}

// browse looks through a queue.
func (c *stompClient) browse(dst []byte, o *Op) []byte {
	if c.subs[browserSlot] != nil {
		return dst
	}
	c.gens++
	s := &clientSub{id: "s3-" + strconv.Itoa(c.gens), gen: c.gens, dest: o.Dest, mode: Auto, browsed: map[*item]bool{}}
	c.subs[browserSlot] = s
	dst = frame.AppendHeader(append(dst, "SUBSCRIBE\n"...), "id", s.id)
	dst = frame.AppendHeader(dst, "destination", nameOf(o.Dest))
	return append(dst, "browser:true\n\n\x00"...)
}

// glance takes what a browser is shown: copies, each once, and then the end.
func (c *stompClient) glance(s *clientSub, f *frame.Frame) {
	if string(f.Value("browser")) == "end" {
		c.subs[browserSlot] = nil
		return
	}
	it := c.book.find(f.Body)
	switch {
	case it == nil || it.dest != s.dest:
		c.w.Fail("torn", "a browser was shown what is not in its queue: %.200q", f.Raw)
	case s.browsed[it]:
		c.w.Fail("resurrected", "a browser was shown %s twice", it.key())
	default:
		s.browsed[it] = true
	}
}

// starved judges, in the calm before DISCONNECT, that nothing is left that the client subscribes to and could have had.
func (c *stompClient) starved() {
	b, ok := c.broker.(*vendor)
	if !ok || c.holdsInTx() || len(c.w.Failures) > 0 {
		return
	}
	for _, s := range c.subs[:replySlot] {
		if s == nil || s.lane > 0 || c.book.shared[s.dest] || c.script.Queues[s.dest].Rival {
			continue
		}
		for _, m := range b.queues[s.dest] {
			if m.live && m.holder == nil {
				c.w.Fail("starved", "%s waits in queue %d, and the client's subscription %s is not given it", m.item.key(), s.dest, s.id)
				return
			}
		}
	}
	for _, t := range b.sortedTemps() {
		for _, m := range t.queue {
			if m.live && m.item.answerTo != nil {
				c.w.Fail("starved", "%s, the reply to %s, is in %s and was not shown to the client", m.item.key(), m.item.answerTo.key(), t.name)
				return
			}
		}
	}
}

// extras adds what not every conversation has: a durable subscription, requests, a browser.
func extras(r *Rand, s *Script) {
	s.Nameless = false
	if r.Chance(50) || s.Kind != ActiveMQ {
		s.ClientID = "app-7"
		s.Queues = append(s.Queues, Queue{Topic: true, Trickle: r.Between(5, 40)})
		for i := range s.Ops {
			if o := &s.Ops[i]; o.Kind == OpSubscribe && r.Chance(60) {
				o.Dest, o.Lane = topic, 0
			}
		}
		return
	}
	s.Queues[NumQueues-1].Answers = true
	for i := range s.Ops {
		switch o := &s.Ops[i]; {
		case o.Kind == OpIdle && r.Chance(30):
			*o = Op{Kind: OpBrowse, Dest: r.IntN(NumQueues - 1)}
		case o.Kind == OpIdle || o.Kind == OpSend && r.Chance(5):
			*o = Op{Kind: OpRequest, Dest: NumQueues - 1, Size: 12, Receipt: r.Chance(50)}
		}
	}
}
