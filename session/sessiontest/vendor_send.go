package sessiontest

import (
	"slices"
	"strconv"
	"strings"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// send takes a SEND.
func (b *vendor) send(c *vconn, f *frame.Frame) {
	c.sends++ // ActiveMQ counts before it looks whether the SEND is part of a transaction
	if b.kind == RabbitMQ && f.Value("message-id") != nil {
		b.failure(c, f, "'message-id' is not allowed on 'SEND'", false)
		return
	}
	if t := b.temp(c, b.value(c, f, "destination")); t != nil && !t.own {
		b.w.Fail("torn", "link %d: the client sends to no temporary queue: %s", c.link, brief(f.Raw))
		return
	}
	m, ok := b.parsePrivate(c, f), true
	if m == nil {
		m, ok = b.parseSend(c, f)
	}
	if !ok {
		return
	}
	if name, in := f.Get("transaction"); in {
		t := c.tx(string(name))
		if t == nil {
			b.unknownTx(c, f)
			return
		}
		step := vstep{send: m, declares: string(f.Value("x-queue-type")) == "quorum"}
		if b.kind == RabbitMQ {
			// A transaction is a buffer in the STOMP process: a SEND in it is answered when it was confirmed, behind COMMIT.
			step.receipt = string(f.Value("receipt"))
		} else {
			b.receipt(c, f, nil)
		}
		t.steps = append(t.steps, step)
		return
	}
	if m.body == nil && !b.declare(c, f, m.item.dest) {
		return
	}
	if b.electing > b.w.Now() && b.kind == RabbitMQ {
		b.noLeader(c, f, m)
		return
	}
	b.receipt(c, f, b.store(m))
}

// noLeader: a confirm that is negative, as it is while a leader is being elected, ends the connection without a word. Without a receipt nobody
// confirms, and the message is gone.
func (b *vendor) noLeader(c *vconn, f *frame.Frame, m *vmessage) {
	if f.Value("receipt") == nil {
		b.w.Tracef("broker %d: no leader, %s is dropped", c.link, m.item.key())
		return
	}
	b.w.Tracef("broker %d: no leader, %s is not confirmed", c.link, m.item.key())
	b.hangup(c)
}

// store stores a message; nil means that Artemis knows its duplicate id, and drops the copy with an ordinary RECEIPT.
func (b *vendor) store(m *vmessage) *change {
	if o := b.ring[b.ringKey(m)]; m.dup != "" && o != nil {
		b.w.Tracef("broker: %s is a duplicate", m.item.key())
		if o.in.done {
			return nil
		}
		return o.in
	}
	ch := &change{enq: []*vmessage{m}}
	b.commit(ch)
	return ch
}

// parseSend reads what consumers will see of a SEND.
func (b *vendor) parseSend(c *vconn, f *frame.Frame) (*vmessage, bool) {
	it := b.book.find(f.Body)
	if it == nil || !it.own {
		b.w.Fail("torn", "the broker was sent a body that the client did not: %.100q", f.Body)
		return nil, false
	}
	if dest, ok := queueOf(b.value(c, f, "destination")); !ok || dest != it.dest {
		b.w.Fail("torn", "%s was sent to queue %d, and came for %q", it.key(), it.dest, f.Value("destination"))
		return nil, false
	}
	b.serial++
	m := &vmessage{item: it, sized: f.HasContentLength, persistent: string(f.Value("persistent")) == "true", id: strconv.Itoa(b.serial)}
	if b.kind == ActiveMQ {
		m.id = c.id + ":-1:1:" + strconv.Itoa(c.sends)
	}
	if m.persistent == it.volatile || m.sized != it.binary() {
		b.w.Fail("torn", "%s lost or gained persistent or content-length on its way: %s", it.key(), brief(f.Raw))
	}
	if b.kind == Artemis {
		m.dup = b.value(c, f, "_AMQ_DUPL_ID")
	}
	if m.replyTo = b.value(c, f, "reply-to"); strings.HasPrefix(m.replyTo, localTemp) {
		m.replyTo = remoteTemp + b.temp(c, m.replyTo).name // what consumers see
	}
	if (m.replyTo != "") != it.request {
		b.w.Fail("torn", "%s lost or gained reply-to on its way: %s", it.key(), brief(f.Raw))
	}
	m.head = b.visible(f)
	if !strings.Contains(string(f.Block), noteOf(it, c.version)) || !strings.Contains(string(f.Block), laneOf(it)) {
		b.w.Fail("torn", "%s lost a header on its way: %s", it.key(), brief(f.Raw))
	}
	return m, true
}

// visible is what consumers see of a SEND's headers. RabbitMQ and Artemis copy all of them, receipt and transaction too; ActiveMQ strips those
// that mean something to it. RabbitMQ turns their order round.
func (b *vendor) visible(f *frame.Frame) []byte {
	var lines [][]byte
	f.Headers(func(name, value []byte) bool {
		s := string(name)
		known := s == "receipt" || s == "transaction" || s == "message-id"
		if s != "destination" && s != "content-length" && s != "reply-to" && (b.kind == RabbitMQ || b.kind == Artemis || !known) {
			lines = append(lines, frame.AppendHeader(nil, s, value))
		}
		return true
	})
	if b.kind == RabbitMQ {
		slices.Reverse(lines)
	}
	return slices.Concat(lines...)
}

// declare is RabbitMQ's: a queue is declared at its first use on a connection, and one whose arguments differ closes the connection.
func (b *vendor) declare(c *vconn, f *frame.Frame, dest int) bool {
	if b.kind != RabbitMQ || c.declared[dest] {
		return true
	}
	if string(f.Value("x-queue-type")) != "quorum" {
		b.failure(c, f, "precondition_failed: PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue", true)
		return false
	}
	c.declared[dest] = true
	return true
}

func (b *vendor) unknownTx(c *vconn, f *frame.Frame) {
	b.failure(c, f, [...]string{ActiveMQ: "Invalid transaction id: ", Artemis: "AMQ339001: no transaction ", RabbitMQ: "Bad transaction ",
		Unfamiliar: "no transaction "}[b.kind]+string(f.Value("transaction")), false)
}

func (b *vendor) begin(c *vconn, f *frame.Frame) {
	name := string(f.Value("transaction"))
	switch t := c.tx(name); {
	case t == nil:
		c.txs = append(c.txs, &vtx{name: name})
	case b.kind == RabbitMQ:
		t.steps = nil // a second BEGIN discards what the first one gathered, silently
	default:
		b.failure(c, f, "Transaction "+name+" already started", false)
		return
	}
	b.receipt(c, f, nil)
}

// finish takes COMMIT and ABORT.
func (b *vendor) finish(c *vconn, f *frame.Frame) {
	t := c.tx(string(f.Value("transaction")))
	if t == nil {
		b.unknownTx(c, f)
		return
	}
	c.txs = slices.DeleteFunc(c.txs, func(x *vtx) bool { return x == t })
	if f.Command == frame.Abort {
		for _, s := range t.steps {
			for _, m := range s.acks {
				m.inTx = false // delivered and not acknowledged, as before: the same ack id is good again
			}
		}
		b.pending = true
		b.receipt(c, f, nil)
		return
	}
	if b.kind == RabbitMQ {
		b.replayTx(c, f, t)
		return
	}
	ch := &change{tx: true}
	for _, s := range t.steps {
		switch {
		case s.send == nil:
			b.settleTx(s, ch)
		case s.send.dup != "" && b.ring[b.ringKey(s.send)] != nil:
			// The transaction is rolled back: what it holds is there already.
			b.failure(c, f, "AMQ339013: Error committing: Duplicate message detected", false)
			return
		default:
			ch.enq = append(ch.enq, s.send)
		}
	}
	b.commit(ch)
	b.receipt(c, f, ch)
}

// settleTx adds what a COMMIT acknowledges to its change.
func (b *vendor) settleTx(s vstep, ch *change) {
	for _, m := range s.acks {
		if m.holder == nil || !m.live {
			continue
		}
		b.judgeAck(m, m.holder, s.nack)
		if s.nack {
			ch.nack = append(ch.nack, m)
		} else {
			ch.ack = append(ch.ack, m)
		}
	}
}

// replayTx is RabbitMQ's COMMIT: frame by frame, not atomic; its own RECEIPT comes at once and means nothing.
func (b *vendor) replayTx(c *vconn, f *frame.Frame, t *vtx) {
	b.receipt(c, f, nil)
	for _, s := range t.steps {
		if s.send == nil {
			ch := &change{}
			if s.nack {
				b.requeue(s.acks)
				continue
			}
			b.settleTx(s, ch)
			b.commit(ch)
			continue
		}
		if !c.declared[s.send.item.dest] && !s.declares {
			b.declare(c, &frame.Frame{}, s.send.item.dest) // says what is wrong
			return
		}
		c.declared[s.send.item.dest] = true
		if b.electing > b.w.Now() {
			if s.receipt != "" {
				b.hangup(c)
				return
			}
			continue
		}
		ch := b.store(s.send)
		if s.receipt != "" {
			b.answer(c, vanswer{after: ch, head: "RECEIPT\nreceipt-id:" + s.receipt + "\n\n\x00"})
		}
	}
}

// receipt answers a frame that asks for it, once ch is durable. For what is not persistent nothing is waited for.
func (b *vendor) receipt(c *vconn, f *frame.Frame, ch *change) {
	id, ok := f.Get("receipt")
	if !ok {
		return
	}
	if ch != nil && len(ch.enq) == 1 && len(ch.ack) == 0 && !ch.enq[0].persistent && b.kind != RabbitMQ {
		ch = nil
	}
	if b.kind == RabbitMQ && (f.Command == frame.Ack || f.Command == frame.Nack) {
		ch = nil // the RECEIPT of an acknowledgement says nothing about the leader's log
	}
	if b.kind == ActiveMQ && ch != nil {
		c.waits = ch
	}
	b.answer(c, vanswer{after: ch, head: "RECEIPT\nreceipt-id:" + string(id) + "\n\n\x00"})
}

// answer queues a frame behind what has to be durable first.
func (b *vendor) answer(c *vconn, a vanswer) {
	c.answers = append(c.answers, a)
	b.flush(c)
}

// flush sends what may be sent: in order, except with RabbitMQ, whose confirms are overtaken by whatever needs none.
func (b *vendor) flush(c *vconn) {
	kept := c.answers[:0]
	for i, a := range c.answers {
		if a.after != nil && !a.after.done {
			if b.kind != RabbitMQ {
				kept = append(kept, c.answers[i:]...)
				break
			}
			kept = append(kept, a)
			continue
		}
		if a.sub != nil {
			a.sub.ready, b.pending = true, true
		}
		if a.head != "" {
			b.say(c, a.head)
		}
	}
	c.answers = kept
}

func (b *vendor) disconnect(c *vconn, f *frame.Frame) {
	b.book.closed = true
	if b.kind == RabbitMQ {
		// Its RECEIPT overtakes those of SENDs that are not confirmed yet, and the end of the connection takes them with it.
		c.answers = nil
	}
	b.receipt(c, f, nil)
	for _, s := range slices.Concat(c.subs, c.gone) {
		b.release(s, false)
	}
	c.subs, c.gone, c.txs = nil, nil, nil
	if len(c.answers) == 0 {
		b.hangup(c)
	}
}
