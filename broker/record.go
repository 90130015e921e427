package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// Types of journal records. Numbers are uvarints, texts have their length before them as a uvarint, sessions are 16 octets. A type's
// layout never changes; a new layout is a new type.
//
//	send         origin, destination, number, lines, body
//	ack          origin, acks
//	commit       origin, n, n × (number, destination, lines, body), acks
//	cursor       origin, flags: bit 0 = it was a COMMIT and was rolled back
//	subscribe    session, subscription
//	unsubscribe  session, id
//	close        session
//	session      session, attempt, hold in ms
//	head         part, parts, then items to the end of the record. The last part replaces all that was known of what items are
//	temporary    session, name of a temporary queue as its client says it
//	durable      client-id, name, destination, selector; its number is the record's LSN
//	erase        number of a durable subscription
//	publish      origin, destination, number, n, n × durable, lines, body: a message for each durable subscription, numbered in this order
//	committopics as commit, with n, n × durable after the destination: none if that is a queue
//	move         LSN, index, segment of a message, destination, 4 × number: the message's id, lines, body: it is there now, as these
//	subscribe1   session, plain: what earlier versions wrote, as the next one
//	head1        part, parts, then (start, n, n × plain) to the end: sessions alone
//
//	origin        0, or 1 session effect, or 2 connection
//	acks          n, n × (LSN, index, segment) of the messages
//	plain         id, destination, mode, prefetch
//	subscription  plain, selector, durable: the number of a durable subscription, 0 = of none
//	start         session, attempt, cursor, hold in ms, flags: bit 0 = closed, n, n × rolled-back effect
//	item          1, start, n, n × subscription, n, n × name of a temporary queue; or 2, number, client-id, name, destination, selector
//
// A number identifies a message within its origin: the count of the connection, or the index in a session's transaction. The lines are the
// sender's headers in STOMP 1.2 encoding.
const (
	recSend         = 1
	recAck          = 2
	recCommit       = 3
	recCursor       = 4
	recSubscribe1   = 5
	recUnsubscribe  = 6
	recClose        = 7
	recHead1        = 8
	recSession      = 9
	recSubscribe    = 10
	recHead         = 11
	recDurable      = 12
	recErase        = 13
	recPublish      = 14
	recCommitTopics = 15
	recTemporary    = 16
	recMove         = 17
)

// Kinds of items in a head.
const itemSession, itemDurable = 1, 2

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
	for _, n := range [...]uint64{uint64(from.lsn), uint64(from.index), uint64(from.home.Segment)} {
		b = binary.AppendUvarint(b, n)
	}
	b = appendText(b, dest)
	for _, n := range [...]uint64{to.id.hi, to.id.lo, to.id.n, uint64(uint32(to.id.index))} {
		b = binary.AppendUvarint(b, n)
	}
	b = appendText(b, to.data[:to.split])
	return append(b, to.data[to.split:]...)
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
	before := len(ends)
	for _, m := range acked {
		if !m.transient {
			ends = append(ends, m.ending())
		}
	}
	b = binary.AppendUvarint(b, uint64(len(ends)-before))
	for _, m := range acked {
		if !m.transient {
			b = binary.AppendUvarint(b, uint64(m.lsn))
			b = binary.AppendUvarint(b, uint64(m.index))
			b = binary.AppendUvarint(b, uint64(m.home.Segment))
		}
	}
	return b, ends
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

func appendSubscribe(b []byte, c *session, sub *subscription) []byte {
	return appendSubscription(appendSessionID(b, c.id), sub)
}

func appendSession(b []byte, c *session) []byte {
	b = appendSessionID(b, c.id)
	b = binary.AppendUvarint(b, c.attempt)
	return binary.AppendUvarint(b, uint64(c.hold/time.Millisecond))
}

func appendSnapshot(b []byte, c *session) []byte {
	b = appendSessionID(append(b, itemSession), c.id)
	b = binary.AppendUvarint(b, c.attempt)
	b = binary.AppendUvarint(b, c.accepted)
	b = binary.AppendUvarint(b, uint64(c.hold/time.Millisecond))
	flags := byte(0)
	if c.closed {
		flags = flagClosed
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(len(c.rolled)))
	for _, n := range c.rolled {
		b = binary.AppendUvarint(b, n)
	}
	recorded := 0
	for _, sub := range c.subs {
		if sub.browse == nil {
			recorded++
		}
	}
	b = binary.AppendUvarint(b, uint64(recorded))
	for _, sub := range c.subs {
		if sub.browse == nil {
			b = appendSubscription(b, sub)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(c.temps)))
	for name := range c.temps {
		b = appendText(b, name)
	}
	return b
}

// head returns the snapshot of all sessions and durable subscriptions that a segment begins with, in parts of moderate size.
func (s *store) head() []journal.Entry {
	const partBytes = 256 << 10
	var parts [][]byte
	var part []byte
	for _, c := range s.sessions {
		if part = appendSnapshot(part, c); len(part) >= partBytes {
			parts, part = append(parts, part), nil
		}
	}
	for _, d := range s.durables {
		if part = appendDurable(appendErase(append(part, itemDurable), d), d); len(part) >= partBytes {
			parts, part = append(parts, part), nil
		}
	}
	if part != nil || parts == nil {
		parts = append(parts, part)
	}
	entries := make([]journal.Entry, len(parts))
	for i, p := range parts {
		b := binary.AppendUvarint(nil, uint64(i))
		b = binary.AppendUvarint(b, uint64(len(parts)))
		entries[i] = journal.Entry{Type: recHead, Payload: append(b, p...)}
	}
	return entries
}

var errRecord = errors.New("record does not have the layout of its type")

// reader takes a payload apart. After the first mistake everything is zero and err is set.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() { r.b, r.err = nil, errRecord }

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads the number of elements that follow, each of at least size octets.
func (r *reader) count(size int) int {
	n := r.uint()
	if n > uint64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) octet() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail()
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

// text is borrowed from the payload.
func (r *reader) text() []byte { return r.take(r.count(1)) }

func (r *reader) session() (id sessionID) {
	if b := r.take(16); b != nil {
		id = sessionOf(b)
	}
	return id
}

func (r *reader) origin() (o origin) {
	switch o.kind = r.octet(); o.kind {
	case byNobody:
	case bySession:
		o.session = r.session()
		o.effect = r.uint()
	case byDirect:
		o.conn = r.uint()
	default:
		r.fail()
	}
	return o
}

func (r *reader) millis() time.Duration {
	return time.Duration(min(r.uint(), maxHold*1000)) * time.Millisecond
}

// end reports what was wrong with the payload: trailing octets are, too.
func (r *reader) end(kind byte) error {
	if r.err == nil && len(r.b) > 0 {
		r.fail()
	}
	if r.err != nil {
		return fmt.Errorf("read record of type %d: %w", kind, r.err)
	}
	return nil
}
