package sessiontest

import (
	"slices"
	"strconv"
	"time"
)

// produce stores a message of the other producer, which has no sidecar.
func (b *vendor) produce(dest int) {
	if dest == topic && !b.durable {
		return // nobody wants it
	}
	it := b.book.add(false, dest, 4+b.w.Rand.IntN(60))
	it.place = 1
	b.serial++
	m := &vmessage{item: it, id: b.recordID("ID:producer-1-1:1:-1:1"), sized: it.binary(), persistent: true,
		head: []byte(noteOf(it, b.script.Version) + laneOf(it))}
	b.commit(&change{enq: []*vmessage{m}})
}

// recordID names a new message: ActiveMQ by its producer and a number, Artemis by the journal record.
func (b *vendor) recordID(producer string) string {
	if b.kind == ActiveMQ {
		return producer + ":" + strconv.Itoa(b.serial)
	}
	return strconv.Itoa(b.serial)
}

// commit applies a change and notes that it is not durable yet. Non-persistent messages never are, and nothing waits for them.
func (b *vendor) commit(ch *change) {
	for _, m := range ch.enq {
		m.live, m.in = true, ch
		m.item.applied++
		m.item.storedAt = b.w.Now()
		if m.dup != "" {
			b.ring[b.ringKey(m)] = m
		}
		if m.temp != nil {
			m.temp.queue = append(m.temp.queue, m)
			continue
		}
		b.queues[m.item.dest] = append(b.queues[m.item.dest], m)
		b.history[m.item.dest] = append(b.history[m.item.dest], m.item)
	}
	for _, m := range ch.ack {
		b.drop(m)
	}
	for _, m := range ch.nack {
		b.drop(m)
	}
	ch.slow = b.kind == RabbitMQ && len(ch.enq) == 0
	b.journal = append(b.journal, ch)
	if b.syncAt <= b.w.Now() {
		b.syncAt = b.w.Now() + b.w.Rand.Span(0, 3*time.Millisecond)
	}
	b.pending = true
}

func (b *vendor) ringKey(m *vmessage) string { return strconv.Itoa(m.item.dest) + "/" + m.dup }

// drop takes a message out of its queue.
func (b *vendor) drop(m *vmessage) {
	b.letGo(m)
	if m.live {
		m.live = false
		b.dead++
	}
}

// letGo takes a message from whoever holds it.
func (b *vendor) letGo(m *vmessage) {
	if s := m.holder; s != nil {
		if i := slices.Index(s.sent, m); i >= 0 {
			s.sent = slices.Delete(s.sent, i, i+1)
		}
	}
	m.holder, m.inTx = nil, false
}

// sync makes what was done durable and answers those who wait for it. RabbitMQ's acknowledgements lag: 17 of 50 that had their RECEIPT came
// back after the leader's death.
func (b *vendor) sync(all bool) {
	kept := b.journal[:0]
	for _, ch := range b.journal {
		if ch.slow && !all && b.w.Rand.Chance(60) {
			kept = append(kept, ch)
			continue
		}
		ch.done = true
		for _, m := range ch.enq {
			m.item.durable = true
		}
	}
	clear(b.journal[len(kept):])
	b.journal = kept
	if len(kept) > 0 {
		b.syncAt = b.w.Now() + b.w.Rand.Span(time.Millisecond, 40*time.Millisecond)
	}
	b.pending = true
	for _, c := range slices.Clone(b.conns) {
		b.flush(c)
		if c.waits != nil && c.waits.done {
			c.waits = nil
			b.work(c)
		}
	}
}

// Crash ends the server. Of what was not durable the first part survives; with RabbitMQ each acknowledgement by itself.
func (b *vendor) Crash(keep int) {
	n := len(b.journal) * keep / 100
	for i := len(b.journal) - 1; i >= 0; i-- {
		ch := b.journal[i]
		if lost := i >= n; ch.slow && b.w.Rand.Chance(100-keep) || !ch.slow && lost {
			b.undo(ch)
			continue
		}
		for _, m := range ch.enq {
			m.item.durable = true
		}
		ch.done = true
	}
	b.journal, b.syncAt = nil, 0
	b.succeed(true)
}

// undo takes back a change that a crash lost.
func (b *vendor) undo(ch *change) {
	for _, m := range ch.enq {
		b.erase(m)
	}
	for _, m := range slices.Concat(ch.ack, ch.nack) {
		b.requeued(m)
		m.live = true // if its own record is lost as well, that comes next
	}
}

// erase forgets a message as if it had never been stored.
func (b *vendor) erase(m *vmessage) {
	b.drop(m)
	it := m.item
	if it.applied--; it.applied == 0 {
		it.durable = false
	}
	it.evaporated = it.evaporated || !m.persistent
	if it.shown > 0 || it.evaporated {
		it.moved = true // it was dispatched before it was stored, or was never to be; sent again it is another message
	}
	delete(b.ring, b.ringKey(m))
	if m.temp != nil {
		m.temp.queue = slices.DeleteFunc(m.temp.queue, func(x *vmessage) bool { return x == m })
	} else {
		h := b.history[it.dest]
		if i := slices.Index(h, it); i >= 0 {
			b.history[it.dest] = slices.Delete(h, i, i+1)
		}
		q := b.queues[it.dest]
		if i := slices.Index(q, m); i >= 0 {
			b.queues[it.dest] = slices.Delete(q, i, i+1)
		}
	}
}

// succeed is the take-over by the next process.
func (b *vendor) succeed(crashed bool) {
	b.run++
	b.book.crashes++
	clear(b.temps)
	for _, c := range b.conns {
		c.state = over
		b.forgetTemps(c)
	}
	for dest, q := range b.queues {
		for _, m := range slices.Clone(q) {
			if m.holder != nil {
				b.requeued(m)
			}
			m.holder, m.inTx, m.redelivered = nil, false, b.kind == RabbitMQ && m.deliveries > 0
			if b.kind == RabbitMQ && b.w.Rand.Chance(20) {
				m.redelivered = true // it is said of messages that were never delivered, too
			}
			if !m.persistent && b.kind != RabbitMQ && m.live {
				b.erase(m)
			}
		}
		b.paged[dest] = 0
	}
	for _, r := range b.rivals {
		r.sent = nil
	}
	for _, t := range b.private {
		for _, m := range slices.Clone(t.queue) {
			if m.holder, m.inTx = nil, false; !m.persistent && m.live {
				b.erase(m)
			}
		}
	}
	b.conns, b.ackIDs = nil, 0
	b.upAt = max(b.w.downUntil, b.w.Now())
	if b.kind == RabbitMQ && crashed {
		b.electing = b.upAt + b.w.Rand.Span(0, 500*time.Millisecond)
	}
	b.w.Tracef("broker: process %d begins", b.run)
	b.pending = true
}

// Handover is an orderly stop: whoever is connected sees EOF and no ERROR.
func (b *vendor) Handover() {
	b.sync(true)
	for _, c := range b.conns {
		b.w.Hangup(c.link)
	}
	b.succeed(false)
}

// sweep forgets what is dead.
func (b *vendor) sweep() {
	if b.dead < 32 {
		return
	}
	b.dead = 0
	for _, t := range b.private {
		t.queue = slices.DeleteFunc(t.queue, func(m *vmessage) bool { return !m.live && m.in.done && !b.mayReturn(m) })
	}
	for i, q := range b.queues {
		b.queues[i] = slices.DeleteFunc(q, func(m *vmessage) bool {
			return !m.live && (m.in == nil || m.in.done) && !b.mayReturn(m)
		})
	}
}

// mayReturn reports whether a crash now could bring an acknowledged message back.
func (b *vendor) mayReturn(m *vmessage) bool {
	for _, ch := range b.journal {
		if slices.Contains(ch.ack, m) || slices.Contains(ch.nack, m) {
			return true
		}
	}
	return false
}

// requeued notes that a message goes back because its holder's connection is gone. What no one could recognise when it comes again is the
// client's to see twice: RabbitMQ's ids die with the connection, and only a stamp tells one message from another.
func (b *vendor) requeued(m *vmessage) {
	m.adrift = true
	if b.kind == Unfamiliar || b.kind == RabbitMQ && !m.item.own {
		m.item.moved = true
	}
}

// Lost ends a connection: what it had sent and was read may still be processed, transactions are undone, what it held goes back.
func (b *vendor) Lost(link int) {
	c := b.conn(link)
	if c == nil {
		return
	}
	if c.state == running && b.w.Rand.Chance(50) {
		for c.waits != nil && c.state == running && c.in.len() > 0 && len(b.w.Failures) == 0 {
			c.waits = nil
			b.work(c)
		}
	}
	i := slices.Index(b.conns, c)
	if i < 0 {
		return // closed by what it had sent last
	}
	b.conns = slices.Delete(b.conns, i, i+1)
	c.state = over
	for _, s := range slices.Concat(c.subs, c.gone) {
		b.release(s, true)
	}
	c.subs, c.gone, c.txs = nil, nil, nil
	b.forgetTemps(c)
}

// release gives what a subscription holds back to its queue; lost means that its connection broke.
func (b *vendor) release(s *vsub, lost bool) {
	for _, m := range s.sent {
		if m.holder == s {
			m.holder, m.inTx, m.redelivered = nil, false, true
			if b.kind == Artemis && !s.rival && b.w.Rand.Chance(50) {
				m.redelivered = false // the flag means little there
			}
			if lost {
				b.requeued(m)
			}
		}
	}
	s.sent = nil
	b.pending = true
}

// stored lists, by queue, the items of everything stored in order.
func (b *vendor) stored() [][]*item { return b.history }

// left lists what is in the queues and was delivered on the last connection: of the rest there was nothing to acknowledge it by.
func (b *vendor) left() (list []*item) {
	for _, q := range b.queues {
		for _, m := range q {
			if m.live && m.cameOn == b.w.Links {
				list = append(list, m.item)
			}
		}
	}
	return list
}

// heldBySession lists what the last connection has, delivered and not acknowledged.
func (b *vendor) heldBySession() (list []*item) {
	if len(b.conns) == 0 {
		return nil
	}
	for _, s := range b.conns[len(b.conns)-1].subs {
		for _, m := range s.sent {
			if m.body == nil {
				list = append(list, m.item)
			}
		}
	}
	return list
}

// calm reports that no connection is left that the sidecar has given up.
func (b *vendor) calm() bool { return len(b.conns) <= 1 && !b.pending }

// rest is what a connection has read and the server has not taken up.
func (b *vendor) rest(link int) []byte {
	if c := b.conn(link); c != nil {
		return c.in.buf[c.in.head:]
	}
	return nil
}
