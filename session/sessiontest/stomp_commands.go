package sessiontest

import (
	"strconv"
	"strings"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// effect judges the number of an effect frame: fresh means that it is to be applied.
func (b *stompBroker) effect(c *bconn, f *frame.Frame) (n uint64, isFresh bool) {
	if c.sess == nil {
		return 0, true
	}
	n, ok := b.number(c, f, frame.HeaderEffect)
	x := c.sess
	switch {
	case !ok:
		b.protocol(c, "%s is an effect and has no number: %s", f.Command, brief(f.Raw))
	case x.conn != c:
		if b.script.Fault == KeepsGhost {
			return n, true
		}
		b.protocol(c, "%s on a connection that was ended", f.Command)
	case n <= x.accepted:
		c.again = len(b.log)
		if n <= x.cursor && c.again > b.durable {
			c.again = b.durable
		}
		return n, b.script.Fault == AppliesTwice
	case n > x.accepted+1:
		b.w.Fail("gap", "%s is effect %d; %d was the last", f.Command, n, x.accepted)
	default:
		return n, true
	}
	return n, false
}

func (b *stompBroker) send(c *bconn, f *frame.Frame) {
	m, ok := b.parseSend(c, f)
	if !ok {
		return
	}
	if f.Value("transaction") != nil {
		if t := b.tx(c, f); t != nil {
			t.sends = append(t.sends, m)
			b.receipt(c, f, "")
		}
		return
	}
	n, isFresh := b.effect(c, f)
	if !isFresh {
		return
	}
	m.id = b.messageID(c, n, -1)
	b.commit(c, record{effect: n, enq: []*message{m}})
	b.plainReceipt(c, f)
}

// commit journals an effect. The messages it stores become known.
func (b *stompBroker) commit(c *bconn, r record) {
	r.sess = c.sess
	if b.script.Fault == SwapsBatch && len(b.log) > b.durable+1 && len(r.enq) == 1 {
		if last := &b.log[len(b.log)-1]; len(last.enq) == 1 && last.enq[0].item.dest == r.enq[0].item.dest {
			q := b.queues[r.enq[0].item.dest]
			q[len(q)-1], last.enq[0], r.enq[0] = r.enq[0], r.enq[0], last.enq[0]
			r.enq[0].live = true
			b.messages = append(b.messages, last.enq[0])
			b.append(r)
			return
		}
	}
	b.messages = append(b.messages, r.enq...)
	b.append(r)
	b.dirty()
}

func (b *stompBroker) messageID(c *bconn, effect uint64, index int) string {
	if c.sess == nil {
		b.serial++
		return "d" + strconv.Itoa(c.link) + "-" + strconv.Itoa(b.serial)
	}
	id := c.sess.id + ":" + strconv.FormatUint(effect, 10)
	if index >= 0 {
		id += ":" + strconv.Itoa(index)
	}
	return id
}

// parseSend reads what consumers will see of a SEND.
func (b *stompBroker) parseSend(c *bconn, f *frame.Frame) (*message, bool) {
	it := b.book.find(f.Body)
	if it == nil || !it.own {
		b.w.Fail("torn", "the broker was sent a body that the client did not: %.100q", f.Body)
		return nil, false
	}
	if dest, ok := queueOf(b.value(c, f, "destination")); !ok || dest != it.dest {
		b.w.Fail("torn", "%s was sent to queue %d, and came for %q", it.key(), it.dest, f.Value("destination"))
		return nil, false
	}
	m := &message{item: it, sized: f.HasContentLength}
	f.Headers(func(name, value []byte) bool {
		switch s := string(name); {
		case s == "destination" || s == "transaction" || s == "receipt" || s == "content-length":
		case strings.HasPrefix(s, frame.PairedPrefix):
		default:
			m.head = frame.AppendHeader(m.head, s, value)
		}
		return true
	})
	if m.sized != it.binary() || !strings.Contains(string(m.head), noteOf(it, c.version)) {
		b.w.Fail("torn", "%s lost or gained a header on its way: %s", it.key(), brief(f.Raw))
	}
	return m, true
}

// topic is the number of the one destination that is no queue.
const topic = NumQueues

// nameOf is a destination as it stands on the wire.
func nameOf(dest int) string {
	if dest == topic {
		return "/topic/" + strconv.Itoa(dest)
	}
	return "/queue/" + strconv.Itoa(dest)
}

// queueOf reads the number of a destination.
func queueOf(name string) (int, bool) {
	n, err := strconv.Atoi(name[strings.LastIndexByte(name, '/')+1:])
	return n, err == nil && n >= 0 && name == nameOf(n)
}

// noteOf is a header line that every message carries, with escapes where the version has them.
func noteOf(it *item, v frame.Version) string {
	if v == frame.V10 {
		return "x-note:" + it.key() + "-plain\n"
	}
	return "x-note:" + it.key() + "\\c\\\\\\n\n"
}

func (b *stompBroker) ack(c *bconn, f *frame.Frame) {
	a := txAck{sub: b.value(c, f, "subscription"), id: b.value(c, f, "message-id"), nack: f.Command == frame.Nack}
	if c.sess != nil && (a.sub == "" || a.id == "") {
		b.protocol(c, "%s without message-id and subscription: %s", f.Command, brief(f.Raw))
		return
	}
	if c.sess == nil {
		a = b.plainAck(c, f, a)
	}
	if f.Value("transaction") != nil {
		if t := b.tx(c, f); t != nil {
			if sub := c.sub(a.sub); b.script.TxFrees && sub != nil && len(b.held(sub, a.id)) > 0 {
				a.freed = sub
				sub.unacked--
				b.dirty()
			}
			if sub := c.sub(a.sub); c.sess == nil && sub != nil {
				for _, m := range b.held(sub, a.id) {
					t.acks = append(t.acks, txAck{sub: a.sub, id: m.id, nack: a.nack})
				}
			} else {
				t.acks = append(t.acks, a)
			}
			b.receipt(c, f, "")
		}
		return
	}
	n, isFresh := b.effect(c, f)
	if !isFresh {
		return
	}
	r := record{effect: n}
	b.resolve(c, a, &r)
	b.commit(c, r)
	b.plainReceipt(c, f)
}

// resolve adds what an acknowledgement settles to r; false means that the subscription does not hold the message.
func (b *stompBroker) resolve(c *bconn, a txAck, r *record) bool {
	sub := c.sub(a.sub)
	if sub == nil {
		return false
	}
	for _, m := range b.held(sub, a.id) {
		b.book.settled(m.item, sub.name, a.nack)
		if a.nack {
			r.nack = append(r.nack, m)
		} else {
			r.ack = append(r.ack, m)
		}
		sub.unacked--
	}
	return len(r.ack)+len(r.nack) > 0
}

// resolveOne is resolve for exactly the message that is named.
func (b *stompBroker) resolveOne(c *bconn, a txAck, r *record) {
	sub := c.sub(a.sub)
	plain := sub.plain
	sub.plain = false
	b.resolve(c, a, r)
	sub.plain = plain
}

// held is the message that an acknowledgement names, and for plain cumulative subscriptions those delivered before it.
func (b *stompBroker) held(sub *subscription, id string) (list []*message) {
	for _, m := range sub.owed { // not delivered again yet
		if m.id == id && m.holder == sub && m.live {
			return []*message{m}
		}
	}
	for i, m := range sub.sent {
		if m.holder != sub || !m.live {
			continue
		}
		if m.id == id {
			if sub.plain && sub.mode == Cumulative {
				for _, p := range sub.sent[:i] {
					if p.holder == sub && p.live && !sub.conn.inTx(sub.name, p.id) {
						list = append(list, p)
					}
				}
			}
			return append(list, m)
		}
	}
	return nil
}

// inTx reports whether an open transaction acknowledges the message already.
func (c *bconn) inTx(sub, id string) bool {
	for _, t := range c.txs {
		for _, a := range t.acks {
			if a.sub == sub && a.id == id {
				return true
			}
		}
	}
	return false
}

func (c *bconn) sub(name string) *subscription {
	for _, s := range c.subs {
		if s.name == name {
			return s
		}
	}
	return nil
}

func (b *stompBroker) tx(c *bconn, f *frame.Frame) *transaction {
	name := b.value(c, f, "transaction")
	for _, t := range c.txs {
		if t.name == name {
			return t
		}
	}
	b.protocol(c, "%s in transaction %q, which is not open", f.Command, name)
	return nil
}

func (b *stompBroker) begin(c *bconn, f *frame.Frame) {
	name := b.value(c, f, "transaction")
	for _, t := range c.txs {
		if t.name == name {
			b.protocol(c, "BEGIN of transaction %q, which is open", name)
			return
		}
	}
	c.txs = append(c.txs, &transaction{name: name})
	b.receipt(c, f, "")
}

// finish handles COMMIT and ABORT.
func (b *stompBroker) finish(c *bconn, f *frame.Frame) {
	n, isFresh := b.effect(c, f)
	if len(b.w.Failures) > 0 {
		return
	}
	t := &transaction{}
	if isFresh || b.value(c, f, "transaction") != "" && c.hasTx(b.value(c, f, "transaction")) {
		if t = b.tx(c, f); t == nil {
			return
		}
		for i := range c.txs {
			if c.txs[i] == t {
				c.txs = append(c.txs[:i], c.txs[i+1:]...)
				break
			}
		}
	}
	if !isFresh {
		return
	}
	for _, a := range t.acks {
		if a.freed != nil {
			a.freed.unacked++
		}
	}
	r := record{effect: n}
	if f.Command == frame.Commit || b.script.Fault == CommitsAborted {
		r = b.outcome(c, t, n)
	}
	b.commit(c, r)
	b.plainReceipt(c, f)
}

func (c *bconn) hasTx(name string) bool {
	for _, t := range c.txs {
		if t.name == name {
			return true
		}
	}
	return false
}

// outcome is the record of a COMMIT: all of the transaction, or nothing if it acknowledges what has moved on.
func (b *stompBroker) outcome(c *bconn, t *transaction, n uint64) record {
	r := record{effect: n}
	for _, a := range t.acks {
		sub := c.sub(a.sub)
		if sub == nil || len(b.held(sub, a.id)) == 0 {
			m, known := (*message)(nil), false
			for dest := range b.queues {
				if m, known = b.find(dest, a.id); known {
					break
				}
			}
			if !known || !m.item.moved {
				b.w.Fail("rolled-back", "COMMIT %d acknowledges %q, which the session does not hold and did not have to give up", n, a.id)
			}
			b.book.rolled++
			b.undo(c, t)
			return record{effect: n, rolled: true}
		}
	}
	for _, a := range t.acks {
		b.resolveOne(c, a, &r)
	}
	for i, m := range t.sends {
		m.id = b.messageID(c, n, i)
	}
	r.enq = t.sends
	if b.script.Fault == LosesCommit && len(r.enq) > 1 {
		r.enq = r.enq[1:]
	}
	return r
}

// undo notes that nothing of a transaction happened: what it acknowledged is held as before.
func (b *stompBroker) undo(c *bconn, t *transaction) {
	for _, m := range t.sends {
		m.item.aborted = true
	}
	for _, a := range t.acks {
		if sub := c.sub(a.sub); sub != nil {
			for _, m := range b.held(sub, a.id) {
				m.item.acked = false
			}
		}
	}
}

func (b *stompBroker) disconnect(c *bconn, f *frame.Frame) {
	if c.sess != nil {
		b.append(record{sess: c.sess, close: true})
	}
	for _, s := range c.subs {
		b.release(s, false)
	}
	c.subs, c.txs = nil, nil
	b.book.closed = true
	b.receipt(c, f, "")
}

// receipt answers a frame that asks for it, once everything up to here is durable.
func (b *stompBroker) receipt(c *bconn, f *frame.Frame, extra string) {
	if id, ok := f.Get("receipt"); ok {
		b.answer(c, answer{lsn: len(b.log), head: "RECEIPT\nreceipt-id:" + string(id) + "\n" + extra + "\n\x00"})
	}
	b.dirty()
}

// plainReceipt answers an effect of a client without a sidecar; a sidecar gets the cursor instead.
func (b *stompBroker) plainReceipt(c *bconn, f *frame.Frame) {
	if c.sess == nil {
		b.receipt(c, f, "")
	}
}
