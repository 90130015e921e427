package sessiontest

import (
	"slices"
	"strconv"
	"strings"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// ack takes an ACK or NACK.
func (b *vendor) ack(c *vconn, f *frame.Frame) {
	if b.kind == RabbitMQ {
		b.ackTag(c, f)
		return
	}
	m := b.named(c, f)
	if m == nil || m.inTx {
		// A stale id costs an ERROR, and with Artemis in 1.2 the connection. It never hits another message.
		text := "Unexpected ACK received for message-id [" + b.ackName(c, f) + "]"
		if b.kind == Artemis {
			text = "AMQ339025: failed to ack because no message with id: " + b.ackName(c, f)
		}
		b.failure(c, f, text, false)
		return
	}
	list := []*vmessage{m}
	if m.holder.mode == Cumulative && f.Command == frame.Ack || m.holder.mode == Cumulative && b.kind != ActiveMQ {
		list = b.upTo(m.holder.sent, m) // ActiveMQ's NACK means one message in every mode
	}
	b.acknowledge(c, f, list)
}

// acknowledge settles messages now, or with the transaction. Artemis does not know acknowledgements in transactions and settles at once.
func (b *vendor) acknowledge(c *vconn, f *frame.Frame, list []*vmessage) {
	nack := f.Command == frame.Nack
	if name, in := f.Get("transaction"); in && b.kind != Artemis {
		t := c.tx(string(name))
		if t == nil {
			b.unknownTx(c, f)
			return
		}
		for _, m := range list {
			m.inTx = true
		}
		t.steps = append(t.steps, vstep{acks: list, nack: nack})
		b.pending = true
		b.receipt(c, f, nil)
		return
	}
	if nack && !b.kind.refuses() {
		b.requeue(list)
		b.receipt(c, f, nil)
		return
	}
	for _, m := range list {
		b.judgeAck(m, m.holder, nack)
	}
	ch := &change{}
	if nack {
		ch.nack = list // ActiveMQ: to the dead-letter queue at once, never delivered again; Artemis: the same as ACK
	} else {
		ch.ack = list
	}
	b.commit(ch)
	b.receipt(c, f, ch)
}

// requeue gives messages back for another delivery.
func (b *vendor) requeue(list []*vmessage) {
	for _, m := range list {
		if m.holder != nil {
			b.judgeAck(m, m.holder, true)
		}
		b.letGo(m)
		m.redelivered = true
	}
	b.pending = true
}

// upTo is m and what was delivered before it and is not acknowledged in a transaction.
func (b *vendor) upTo(sent []*vmessage, m *vmessage) (list []*vmessage) {
	for _, x := range sent {
		if !x.inTx {
			list = append(list, x)
		}
		if x == m {
			break
		}
	}
	return list
}

// ackName is what the frame calls the message.
func (b *vendor) ackName(c *vconn, f *frame.Frame) string {
	if c.version == frame.V12 {
		return b.value(c, f, "id")
	}
	return b.value(c, f, "message-id")
}

// named finds what a frame acknowledges among what was delivered on this connection: in 1.2 by the ack header, which is new with every
// delivery, else by message-id.
func (b *vendor) named(c *vconn, f *frame.Frame) *vmessage {
	name, sub := b.ackName(c, f), b.value(c, f, "subscription")
	for _, s := range c.subs {
		if c.version == frame.V11 && sub != s.id {
			continue
		}
		for _, m := range s.sent {
			if s.mode != Auto && name != "" && (c.version == frame.V12 && m.ack == name || c.version != frame.V12 && b.messageID(s, m) == name) {
				return m
			}
		}
	}
	return nil
}

// ackTag is RabbitMQ's: only the subscription and the delivery tag in the id count, not the session, so that an id of an earlier
// connection acknowledges whatever has its tag now.
func (b *vendor) ackTag(c *vconn, f *frame.Frame) {
	name := b.ackName(c, f)
	who, rest, ok := strings.Cut(name, "@@")
	_, tagText, ok2 := strings.Cut(rest, "@@")
	tag, err := strconv.Atoi(tagText)
	if !ok || !ok2 || err != nil {
		b.failure(c, f, "Invalid header: ACK must include a valid id", false)
		return
	}
	sub := slices.IndexFunc(c.subs, func(s *vsub) bool { return b.consumerTag(s) == who })
	if sub < 0 {
		b.failure(c, f, "Subscription not found", false)
		return
	}
	var m *vmessage
	for _, s := range slices.Concat(c.subs, c.gone) {
		for _, x := range s.sent {
			if x.tag == tag && s.mode != Auto && !x.inTx {
				m = x
			}
		}
	}
	if m == nil {
		// The RECEIPT comes first all the same.
		b.receipt(c, f, nil)
		b.failure(c, &frame.Frame{}, "precondition_failed: PRECONDITION_FAILED - unknown delivery tag "+tagText, true)
		return
	}
	list := []*vmessage{m}
	if c.subs[sub].mode == Cumulative {
		list = nil // on the one channel: across all subscriptions of the connection
		for _, s := range slices.Concat(c.subs, c.gone) {
			for _, x := range s.sent {
				if x.tag <= tag && !x.inTx && s.mode != Auto {
					list = append(list, x)
				}
			}
		}
	}
	b.acknowledge(c, f, list)
}

func (b *vendor) consumerTag(s *vsub) string {
	if s.given {
		return "T_" + s.id
	}
	return "Q_" + nameOf(s.dest)
}

// messageID is how a MESSAGE is called on this connection.
func (b *vendor) messageID(s *vsub, m *vmessage) string {
	switch b.kind {
	case ActiveMQ:
		return m.id // the producer's name for it, for life
	case Artemis:
		return strconv.Itoa(s.number) + "," + m.id // the record's number is for life, the consumer's is new with each SUBSCRIBE
	case RabbitMQ:
		return b.consumerTag(s) + "@@" + s.conn.session + "@@" + strconv.Itoa(m.tag)
	}
	return "m" + strconv.Itoa(s.conn.link) + "." + strconv.Itoa(m.tag)
}

// judgeAck compares an acknowledgement that is applied with what the client said.
func (b *vendor) judgeAck(m *vmessage, s *vsub, nack bool) {
	it := m.item
	if s.browser || s.rival || m.body != nil {
		return
	}
	if b.kind == RabbitMQ && it.own && !nack && it.applied > 1 && (b.copies(m) || it.saidAck || it.held || it.gone) {
		return // a copy that was recognised as one
	}
	b.book.settled(it, s.id, nack)
}

// copies reports whether another copy of the message is still there.
func (b *vendor) copies(m *vmessage) bool {
	for _, x := range b.queues[m.item.dest] {
		if x != m && x.item == m.item && x.live {
			return true
		}
	}
	return false
}
