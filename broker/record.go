package broker

import (
	"encoding/binary"

	"github.com/understudy-mq/understudy/broker/journal"
)

// Types of journal records. Numbers are uvarints, texts have their length before them as a uvarint, sessions are 16 octets. A type's
// layout never changes; a new layout is a new type.
//
//	send         origin, destination, number, lines, body
//	ack          origin, acks
//	commit       origin, n, n × (number, destination, lines, body), acks
//	cursor       origin, flags: bit 0 = it was a COMMIT and was rolled back
//	unsubscribe  session, id
//	close        session
//	session      session, attempt, hold in ms
//	subscribe    session, subscription
//	head         part, parts, then items to the end of the record. The last part replaces all that was known of what items are
//	durable      client-id, name, destination, selector; its number is the record's LSN
//	erase        number of a durable subscription
//	publish      origin, destination, number, n, n × durable, lines, body: a message for each durable subscription, numbered in this order
//	committopics as commit, with n, n × durable after the destination: none if that is a queue
//	temporary    session, name of a temporary queue as its client says it
//	move         queue, LSN, index, segment of a message, destination, 4 × number: the message's id, lines, body: it is there now, as these
//	relocate     LSN, segment, 4 × number: an id, n, n × (queue, index), lines, body: the messages that this record of the log had, one for each
//	             queue, and that were in that segment last, are in this record now. Nothing else changes: they keep place, order and id
//	backlog      session, id of a subscription to a topic: the journal keeps messages for it in a queue whose number is the record's LSN
//	bequest      4 × number: the message's id, destination, n, n × number of a backlog, lines, body: a message in each, numbered in this order
//	forward      acks: these messages were ended by a record that is to go. They are those of that segment: what was relocated from there since lives
//
//	origin        0, or 1 session effect, or 2 connection
//	queue         name; if that is empty, the number of the durable subscription, or the backlog, whose queue it is
//	acks          n, n × (queue, k, k × (LSN, index, segment)) of the messages; the segment is where the message was last
//	subscription  id, destination, mode, prefetch, selector, durable: the number of a durable subscription, 0 = of none
//	start         session, attempt, cursor, hold in ms, flags: bit 0 = closed, n, n × rolled-back effect
//	floors        n, n × (priority, LSN, index): the last messages that the subscription's client is known to have seen
//	item          1, start, n, n × (subscription, floors), n, n × name of a temporary queue; or 2, number, client-id, name, destination, selector;
//	              or 3, number, session, id: a backlog of that session, which has come before
//
// A number identifies a message within its origin: the count of the connection, or the index in a session's transaction. The lines are the
// sender's headers in STOMP 1.2 encoding. LSN and index name a message for life: those of the record that brought it to its queue, and its place in that. Where
// a record names a message it names the queue too, so that recovery needs no index of all messages to find it.
const (
	recSend         = 1
	recAck          = 2
	recCommit       = 3
	recCursor       = 4
	recUnsubscribe  = 6
	recClose        = 7
	recSession      = 9
	recSubscribe    = 10
	recHead         = 11
	recDurable      = 12
	recErase        = 13
	recPublish      = 14
	recCommitTopics = 15
	recTemporary    = 16
	recMove         = 17
	recRelocate     = 18
	recForward      = 19
	recBacklog      = 20
	recBequest      = 21
)

// Kinds of items in a head.
const itemSession, itemDurable, itemBacklog = 1, 2, 3

const flagRolledBack, flagClosed = 1, 1

// origin says whose effect a record is.
type origin struct {
	kind    byte
	session sessionID
	effect  uint64
	conn    uint64
}

const (
	byNobody  = 0
	bySession = 1
	byDirect  = 2
)

// origin of what p does as effect n, which is 0 for a direct client.
func (p *peer) origin(n uint64) origin {
	if p.sidecar {
		return origin{kind: bySession, session: p.session.id, effect: n}
	}
	return origin{kind: byDirect, conn: p.number}
}

func appendOrigin(b []byte, o origin) []byte {
	b = append(b, o.kind)
	switch o.kind {
	case bySession:
		b = appendSessionID(b, o.session)
		b = binary.AppendUvarint(b, o.effect)
	case byDirect:
		b = binary.AppendUvarint(b, o.conn)
	}
	return b
}

func appendSessionID(b []byte, id sessionID) []byte {
	o := id.octets()
	return append(b, o[:]...)
}

func appendText[T string | []byte](b []byte, t T) []byte {
	b = binary.AppendUvarint(b, uint64(len(t)))
	return append(b, t...)
}

// number is what identifies m within its origin.
func (id msgID) number() uint64 {
	switch id.index {
	case fromDirect:
		return id.n
	case outsideTx:
		return 0
	}
	return uint64(id.index)
}

// messageOf is the inverse of number.
func (o origin) messageOf(epoch, number uint64, inTx bool) msgID {
	switch {
	case o.kind == byDirect:
		return msgID{epoch, o.conn, number, fromDirect}
	case inTx:
		return msgID{o.session.hi, o.session.lo, o.effect, int32(number)}
	}
	return msgID{o.session.hi, o.session.lo, o.effect, outsideTx}
}

func appendSend(b []byte, o origin, dest []byte, m *message) []byte {
	b = appendOrigin(b, o)
	b = appendText(b, dest)
	b = binary.AppendUvarint(b, m.id.number())
	b = appendText(b, m.data[:m.split])
	return append(b, m.data[m.split:]...)
}

// front is how much of a record that ends with m's body recovery needs.
func (m *message) front(record []byte) int { return len(record) - (len(m.data) - int(m.split)) }

// appendPublish has the lines of a message to a topic once, for all that it is kept for.
func appendPublish(b []byte, o origin, dest []byte, targets []*durable, m *message) []byte {
	b = appendOrigin(b, o)
	b = appendText(b, dest)
	b = binary.AppendUvarint(b, m.id.number())
	b = appendTargets(b, targets)
	b = appendText(b, m.data[:m.split])
	return append(b, m.data[m.split:]...)
}

func appendTargets(b []byte, targets []*durable) []byte {
	b = binary.AppendUvarint(b, uint64(len(targets)))
	for _, d := range targets {
		b = binary.AppendUvarint(b, uint64(d.number))
	}
	return b
}

func appendDurable(b []byte, d *durable) []byte {
	for _, t := range [...]string{d.client, d.name, d.dest, selectorText(d.selector)} {
		b = appendText(b, t)
	}
	return b
}

func appendMove(b []byte, from *message, dest string, to *message) []byte {
	b = appendQueue(b, from.queue)
	for _, n := range [...]uint64{uint64(from.lsn), uint64(from.index), uint64(from.home.Segment)} {
		b = binary.AppendUvarint(b, n)
	}
	b = appendText(b, dest)
	b = appendID(b, to.id)
	b = appendText(b, to.data[:to.split])
	return append(b, to.data[to.split:]...)
}

// appendQueue names the queue that a message is in.
func appendQueue(b []byte, q *queue) []byte {
	if q.number == 0 {
		return appendText(b, q.name)
	}
	return binary.AppendUvarint(append(b, 0), uint64(q.number))
}

func appendID(b []byte, id msgID) []byte {
	for _, n := range [...]uint64{id.hi, id.lo, id.n, uint64(uint32(id.index))} {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func appendErase(b []byte, d *durable) []byte { return binary.AppendUvarint(b, uint64(d.number)) }

// appendCommit writes the sends that are to be kept, and the acknowledgements of messages that are.
func appendCommit(b []byte, ends []journal.Ending, o origin, sends []txSend, acked []*message, kind byte) ([]byte, []journal.Ending) {
	b = appendOrigin(b, o)
	b = binary.AppendUvarint(b, uint64(len(sends)))
	for i := range sends {
		m := sends[i].msg
		b = binary.AppendUvarint(b, m.id.number())
		b = appendText(b, sends[i].dest)
		if kind == recCommitTopics {
			b = appendTargets(b, sends[i].targets)
		}
		b = appendText(b, m.data[:m.split])
		b = appendText(b, m.data[m.split:])
	}
	return appendAcks(b, ends, acked)
}

// appendAcks writes the acknowledged messages that the journal has, and adds their segments to ends.
func appendAcks(b []byte, ends []journal.Ending, acked []*message) ([]byte, []journal.Ending) {
	groups := uint64(0)
	eachGroup(acked, func(*queue, []*message, int) { groups++ })
	b = binary.AppendUvarint(b, groups)
	eachGroup(acked, func(q *queue, of []*message, n int) {
		b = binary.AppendUvarint(appendQueue(b, q), uint64(n))
		for _, m := range of {
			if !m.transient {
				ends = append(ends, m.ending())
				b = appendMention(b, m.place(), m.home.Segment)
			}
		}
	})
	return b, ends
}

// appendEnded is appendAcks for what is out of a page.
func appendEnded(b []byte, ends []journal.Ending, p *page) ([]byte, []journal.Ending) {
	b = appendQueue(append(b, 1), p.lane.queue)
	b = binary.AppendUvarint(b, uint64(p.out))
	for i := p.head; i < p.len(); i++ {
		if e := p.ent(i); e != nil {
			ends = append(ends, e.ending())
			b = appendMention(b, place{e.lsn(), e.index()}, journal.Segment(e.segment))
		}
	}
	return b, ends
}

// appendMention names a message of a queue that was named before.
func appendMention(b []byte, at place, home journal.Segment) []byte {
	b = binary.AppendUvarint(b, uint64(at.lsn))
	b = binary.AppendUvarint(b, uint64(at.index))
	return binary.AppendUvarint(b, uint64(home))
}

// eachGroup calls f with runs of messages of one queue, n of which the journal has. Those of which it has none are left out.
func eachGroup(list []*message, f func(q *queue, of []*message, n int)) {
	for len(list) > 0 {
		q, i, n := list[0].queue, 0, 0
		for ; i < len(list) && list[i].queue == q; i++ {
			if !list[i].transient {
				n++
			}
		}
		if n > 0 {
			f(q, list[:i], n)
		}
		list = list[i:]
	}
}

func appendCursor(b []byte, o origin, rolledBack bool) []byte {
	b = appendOrigin(b, o)
	if rolledBack {
		return append(b, flagRolledBack)
	}
	return append(b, 0)
}

func appendSubscription(b []byte, sub *subscription) []byte {
	b = appendText(b, sub.id)
	b = appendText(b, sub.dest)
	b = append(b, byte(sub.mode))
	b = binary.AppendUvarint(b, uint64(sub.prefetch))
	b = appendText(b, sub.pick.text())
	number := journal.LSN(0)
	if sub.durable != nil {
		number = sub.durable.number
	}
	return binary.AppendUvarint(b, uint64(number))
}

// appendFloors writes what recovery would read from acknowledgements, were their segments still there. It matters only while there is a message that
// may be older.
func appendFloors(b []byte, sub *subscription) []byte {
	n := 0
	if sub.floor != nil && sub.queue != nil && sub.queue.count > 0 {
		for _, at := range sub.floor {
			if at != (place{}) {
				n++
			}
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	for prio := 0; n > 0; prio++ {
		if at := sub.floor[prio]; at != (place{}) {
			b = binary.AppendUvarint(append(b, byte(prio)), uint64(at.lsn))
			b = binary.AppendUvarint(b, uint64(at.index))
			n--
		}
	}
	return b
}

func appendSubscribe(b []byte, c *session, sub *subscription) []byte {
	return appendSubscription(appendSessionID(b, c.id), sub)
}
