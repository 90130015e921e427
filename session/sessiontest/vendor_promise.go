package sessiontest

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// refuses reports whether NACK is the end of a message: ActiveMQ gives it to the dead-letter queue, Artemis throws it away. The others give
// it back to its queue.
func (k Kind) refuses() bool { return k == ActiveMQ || k == Artemis }

// options are the headers of a SUBSCRIBE that differ from make to make.
func (c *stompClient) options(dst []byte, s *clientSub, o *Op) []byte {
	switch c.script.Kind {
	case Paired, ActiveMQ:
		if o.Prefetch > 0 {
			dst = frame.AppendUint(dst, "activemq.prefetchSize", uint64(o.Prefetch))
		}
	case RabbitMQ:
		if o.Prefetch > 0 {
			dst = frame.AppendUint(dst, "prefetch-count", uint64(o.Prefetch))
		}
		dst = c.declare(dst, o.Dest)
	default:
		s.prefetch = 0 // Artemis counts octets
	}
	if o.Dest == topic {
		dst = frame.AppendHeader(dst, durableHeader(c.script.Kind), "d1")
	} else if o.Lane > 0 && c.script.Kind.refuses() {
		s.lane = o.Lane
		c.book.shared[o.Dest] = true // the other lane may come later
		dst = frame.AppendHeader(dst, "selector", "lane = '"+strconv.Itoa(o.Lane-1)+"'")
	}
	return dst
}

// declare adds a queue's arguments where the client uses it for the first time, as programs do that declare what they use.
func (c *stompClient) declare(dst []byte, dest int) []byte {
	if c.script.Kind != RabbitMQ || c.declared[dest] {
		return dst
	}
	c.declared[dest] = true
	return append(dst, "x-queue-type:quorum\n"...)
}

// vendorHeaders are what a SEND to a broker that is not paired says besides.
func (c *stompClient) vendorHeaders(dst []byte, it *item, o *Op) []byte {
	if c.script.Kind == Paired {
		return dst
	}
	it.sentAfter, it.volatile = c.w.Downs, o.Fleeting && c.script.Kind != RabbitMQ
	if !it.volatile {
		dst = append(dst, "persistent:true\n"...)
	}
	dst = append(dst, laneOf(it)...)
	if c.script.Kind == RabbitMQ && o.Tx != 0 { // a transaction declares at its COMMIT
		return append(dst, "x-queue-type:quorum\n"...)
	}
	return c.declare(dst, o.Dest)
}

// vendorAck lets go of what an acknowledgement means at this make of broker.
func (c *stompClient) vendorAck(s *clientSub, i int, o *Op, nack bool) {
	kind, h := c.script.Kind, s.held[i]
	covers := func(x *holding) bool {
		switch {
		case x.tx != 0:
			return false
		case s.mode == Individual || kind == ActiveMQ && nack: // whose NACK means one message in every mode
			return x.sub == s && x.seq == h.seq
		case kind == RabbitMQ: // one channel: the scope is the connection
			return x.seq <= h.seq
		}
		return x.sub == s && x.seq <= h.seq
	}
	if kind == RabbitMQ && s.mode == Cumulative {
		for _, it := range c.forgotten {
			it.saidAck, it.saidNack = it.saidAck || !nack, it.saidNack || nack // UNSUBSCRIBE does not give them back: they are in the scope, too
		}
	}
	for _, sub := range c.subs {
		if sub == nil || sub.mode == Auto {
			continue
		}
		if o.Tx == 0 || kind == Artemis && c.script.Plain { // which settles at once; a recorder can do better
			c.settle(sub, func(_ int, x *holding) bool { return covers(x) }, func(*holding) bool { return nack })
			continue
		}
		for k := range sub.held {
			if covers(&sub.held[k]) {
				sub.held[k].tx, sub.held[k].nack = o.Tx, nack
			}
		}
	}
}

// holdsInTx reports whether an open transaction acknowledges anything.
func (c *stompClient) holdsInTx() bool {
	return slices.ContainsFunc(c.subs[:], func(s *clientSub) bool {
		return s != nil && slices.ContainsFunc(s.held, func(h holding) bool { return h.tx != 0 })
	})
}

// clean judges what the sidecar adds to SENDs for its own use: no client is to see it. What the brokers themselves leak of a client's own
// headers (RabbitMQ and Artemis: receipt, transaction) it would see without a sidecar as well.
func (c *stompClient) clean(f *frame.Frame) bool {
	ok := true
	f.Headers(func(name, value []byte) bool {
		s := string(name)
		if s == "receipt" && !strings.HasPrefix(string(value), "r-") {
			c.w.Fail("leak", "the client was sent a receipt header that is not its own: %s", brief(f.Raw))
			ok = false
		}
		return ok
	})
	return ok
}

// vendorExcuse judges an ERROR that ends a session: what is unknown may be said to be unknown where it is, and nowhere else.
func (c *stompClient) vendorExcuse(f *frame.Frame) bool {
	b, ok := c.broker.(*vendor)
	if !ok || c.w.Downs == 0 {
		return false
	}
	if c.subs[browserSlot] != nil {
		return true // a browser does not survive: that is said, and in words
	}
	switch string(f.Value("error-code")) {
	case "not-resumable":
		return b.kind == Unfamiliar
	case "in-doubt":
		return b.kind == Unfamiliar && c.judgeDoubt(b, f)
	}
	return false
}

// judgeDoubt asks that at least one thing was in doubt that no look-up could have settled.
func (c *stompClient) judgeDoubt(b *vendor, f *frame.Frame) bool {
	reasons := 0
	for _, it := range c.book.own {
		if it.place > 0 && !it.receipted && !it.aborted && it.sentAfter < c.w.Downs && !b.findable(it) {
			reasons++
		}
	}
	for _, t := range c.committed {
		if len(t.sends) == 0 && t.begun < c.w.Downs {
			reasons++ // nothing to look for
		}
	}
	for _, r := range c.requests {
		if strings.HasPrefix(r.what, "ACK") || strings.HasPrefix(r.what, "NACK") {
			reasons++
		}
	}
	if reasons == 0 {
		c.w.Fail("needless-doubt", "the client was told that something is in doubt, and nothing is: %s", brief(f.Raw))
	}
	return true
}

// findable reports whether a browser would have found the message when the present connection was made.
func (b *vendor) findable(it *item) bool {
	if b.kind != ActiveMQ || b.script.ClientID != "" || b.script.Page > 0 || it.storedAt >= b.loginAt || it.volatile {
		return false
	}
	return slices.ContainsFunc(b.queues[it.dest], func(m *vmessage) bool { return m.item == it && m.live && m.in.done })
}

// vendorRollback judges that the client was told "rolled back" for a good reason: something that the transaction acknowledges was not delivered
// again before its COMMIT.
func (c *stompClient) vendorRollback(t *clientTx) {
	b := c.broker.(*vendor)
	again := len(t.holds)
	for _, h := range t.holds {
		if it := h.item; it.moved || len(b.conns) == 0 || it.cameOn != b.conns[len(b.conns)-1].link || it.cameAt >= t.at {
			again--
		}
	}
	if again == len(t.holds) && (b.kind != Unfamiliar || c.w.Downs == 0) || b.kind == Artemis { // what an unknown broker delivers again nobody can recognise
		c.w.Fail("false-rollback", "the client was told that transaction %d was rolled back, and there was no reason", t.n)
	}
	c.book.rolled++
}

// atomic judges that a transaction was stored as a whole or not at all, where the broker can do that.
func (c *stompClient) atomic() {
	if c.script.Kind != ActiveMQ && c.script.Kind != Artemis {
		return
	}
	for _, t := range c.committed {
		n, of := 0, 0
		for _, it := range t.sends {
			if !it.evaporated {
				of++
				n += min(it.applied, 1)
			}
		}
		if n != 0 && n != of {
			c.w.Fail("torn-tx", "%d of %d messages of transaction %d are stored", n, of, t.n)
		}
	}
}

// shareChance is in how many of a hundred cases a subscription may be to the queue of the other one.
const shareChance = 15

// excuseCommits lets pass what a client that closed without a word will not be told: that its transaction had to be rolled back, because what
// it acknowledges went elsewhere, or comes under ids that nobody knows.
func (c *stompClient) excuseCommits() {
	for _, t := range c.committed {
		gone := slices.ContainsFunc(t.holds, func(h holding) bool { return h.item.moved || c.script.Kind == Unfamiliar })
		for _, it := range t.sends {
			it.doubtful = it.doubtful || gone
		}
	}
}

// RandomVendorCase draws a conversation with a broker that is not paired.
func RandomVendorCase(seed uint64, kind Kind, ops, n int) Case {
	c := RandomCase(seed, ops, n)
	r, s := NewRand(seed^0xabcdef), &c.Script
	s.Kind, s.Waits, s.Prompt = kind, false, false
	for i := range s.Queues {
		s.Queues[i].Paired = false
	}
	for i := range s.Ops {
		o := &s.Ops[i]
		switch {
		case o.Kind == OpSend && r.Chance(8):
			o.Fleeting = true
		case o.Kind == OpSubscribe && r.Chance(15):
			o.Lane = r.Between(1, 2)
		}
		if o.Kind == OpSubscribe && !r.Chance(shareChance) {
			o.Dest = o.Sub
		}
	}
	if kind == ActiveMQ && r.Chance(40) { // else most sessions end with the first SEND in doubt
		for i := range s.Ops {
			if o := &s.Ops[i]; o.Kind == OpSend && r.Chance(85) {
				*o = Op{Kind: OpAck, Sub: r.IntN(2), Pick: r.IntN(8), Tx: o.Tx, Wait: r.Span(0, 10*time.Millisecond)}
			}
		}
	}
	if kind.refuses() && r.Chance(25) {
		extras(r, s)
	}
	if kind == ActiveMQ {
		s.Early, s.Steals = r.Chance(50), r.Chance(50)
		if r.Chance(15) && !s.Queues[NumQueues-1].Answers {
			s.ClientID = "app-7"
		}
		if r.Chance(20) {
			s.Page = r.Between(1, 8)
		}
	}
	return c
}

// Simulated draws the case of a seed: what TestSimulation plays.
func Simulated(seed uint64, kind Kind, ops, n int) Case {
	var c Case
	if kind == Paired {
		c = RandomCase(seed, ops, n)
	} else {
		c = RandomVendorCase(seed, kind, ops, n)
	}
	c.Count = true
	r := NewRand(seed ^ 0x5eed)
	for i := range c.Faults {
		if f := &c.Faults[i]; r.Chance(8) {
			f.Kind, f.Down, f.KeepDown, f.Downtime = Freeze, true, 100, r.Span(0, 300*time.Millisecond)
			f.Notice = SilenceLimit + r.Span(100*time.Millisecond, time.Second)
		}
	}
	return c
}
