package broker

import (
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// ackMode is how a subscription acknowledges. [STOMP 1.2 SUBSCRIBE ack Header]
type ackMode uint8

const (
	ackAuto   ackMode = iota // acknowledged when handed to the connection's writer
	ackClient                // cumulative
	ackEach                  // client-individual
)

// subscription is one SUBSCRIBE. That of a direct client lives as long as the connection. That of a sidecar session is recorded with the
// session, so it can be there before its SUBSCRIBE comes again, or while the session is away: then it is not present.
type subscription struct {
	id       string
	number   uint64 // of its connection's
	line     []byte // the subscription header in the connection's version; nil if a 1.0 client gave no id
	ackLine  []byte // "ack:" and what all its ack ids begin with
	session  *session
	dest     string
	queue    *queue // one of these two is set; of a sidecar's to a topic both: the queue is its backlog
	topic    *topic
	browse   *browse  // it only looks; it has neither queue nor topic
	durable  *durable // whose queue it is; nil otherwise
	mode     ackMode
	prefetch int
	pick     *pick // nil: it takes every message

	active  bool // dispatch has begun: the record that names it is durable
	inTurn  bool // takes part in its queue's turns
	present bool
	gone    bool // unsubscribed; what an open transaction acknowledged stays until it ends

	// What it holds, in the order of delivery.
	first, last *hold
	held        int
	inTx        int // of those, acknowledged in an open transaction

	// While it is not present.
	left journal.LSN // number of the backlog that the last owner has left to it; only while the journal is read
	gate bool        // recovered messages of its queue wait for it
	away time.Time   // when the wait for it began; zero: nothing waits

	floor *floors // of a sidecar's: the last messages that its client is known to have seen

	refused []msgID // claims that its RECEIPT will say are gone
	owed    int     // of what it holds, to be sent again

	// Of a topic.
	backlog      ring[*message] // what a slow direct client has not taken yet
	backlogBytes int
	dropped      uint64
}

// hold is a message in the hands of a subscription.
type hold struct {
	msg        *message
	sub        *subscription
	prev, next *hold
	ack        uint64 // the number in its ack header
	basis      basis  // what its right to the message rests on: its last delivery, in this epoch or by claim in an earlier one; zero: none yet
	claimed    bool   // on this connection: the client has it, nothing is to be sent
	owed       bool   // lost on the way to the client, or assigned to it, and not sent yet
	tx         *transaction
}

// basis is the delivery on which a right to a message rests: the highest counts.
type basis struct {
	epoch   uint64
	ordinal uint64
}

func (b basis) above(o basis) bool {
	return b.epoch > o.epoch || b.epoch == o.epoch && b.ordinal > o.ordinal
}

// claim is one element of HeaderClaims.
type claim struct {
	id    msgID
	basis basis
}

// floors are the last messages of each priority that a client is known to have seen.
type floors [priorities]place

// saw notes that the client has seen a message.
func (f *floors) saw(m *message) {
	if at := &f[m.priority()]; at.before(m.place()) {
		*at = m.place()
	}
}

// saw notes that the subscription's client has seen a message. A direct client is not expected back, so nobody will ask.
func (sub *subscription) saw(m *message) {
	if sub.session.direct || m.transient || sub.topic != nil {
		return
	}
	if sub.floor == nil {
		sub.floor = new(floors)
	}
	sub.floor.saw(m)
}

// seen is the last message of a priority that the client is known to have seen.
func (sub *subscription) seen(prio int8) place {
	if sub.floor == nil {
		return place{}
	}
	return sub.floor[prio+usualPriority]
}

// credit reports whether the subscription may be sent another message now.
func (sub *subscription) credit() bool {
	if !sub.active || sub.owed > 0 || sub.mode != ackAuto && sub.full(sub.held) {
		return false
	}
	return sub.session.peer.room()
}

// full reports whether the client may not have more messages than n, of which some are acknowledged in a transaction.
func (sub *subscription) full(n int) bool { return sub.prefetch > 0 && n-sub.inTx >= sub.prefetch }

// take makes m held by sub; h is blank.
func (sub *subscription) take(m *message, h *hold, b basis) {
	*h = hold{msg: m, sub: sub, prev: sub.last, basis: b}
	if sub.last != nil {
		sub.last.next = h
	} else {
		sub.first = h
	}
	sub.last = h
	sub.held++
	m.hold, m.state = h, held
}

// release unlinks h; the message is nobody's then. The caller decides what becomes of it.
func (sub *subscription) release(h *hold) {
	if h.prev != nil {
		h.prev.next = h.next
	} else {
		sub.first = h.next
	}
	if h.next != nil {
		h.next.prev = h.prev
	} else {
		sub.last = h.prev
	}
	if h.tx != nil {
		sub.inTx--
	}
	if h.owed {
		sub.owed--
	}
	sub.held--
	h.msg.hold = nil
}

// mark puts h into a transaction, or takes it out (nil).
func (h *hold) mark(t *transaction) {
	if h.tx == nil && t != nil {
		h.sub.inTx++
	} else if h.tx != nil && t == nil {
		h.sub.inTx--
	}
	h.tx = t
}

// search finds a hold from both ends at once, for clients acknowledge the oldest or the newest.
func (sub *subscription) search(want func(*hold) bool) *hold {
	a, b := sub.first, sub.last
	for range (sub.held + 1) / 2 {
		if want(a) {
			return a
		}
		if want(b) {
			return b
		}
		a, b = a.next, b.prev
	}
	return nil
}

func (sub *subscription) byID(id msgID) *hold {
	return sub.search(func(h *hold) bool { return h.msg.id == id })
}

func (sub *subscription) byAck(n uint64) *hold {
	return sub.search(func(h *hold) bool { return h.ack == n })
}

// topic fans out to those who are there.
type topic struct {
	destination
	subs     []*subscription
	durables []*durable
}

// transaction is what an open transaction has collected.
type transaction struct {
	sends []txSend
	acks  []txAck
	bytes int
}

type txSend struct {
	msg     *message
	dest    string
	targets []*durable // of a topic's, from the COMMIT on
}

// txAck is an ACK or NACK in a transaction. hold is nil if the message was not there to be acknowledged.
type txAck struct {
	hold *hold
	id   msgID
	nack bool
}

// valid reports whether the message is still in the hands of the subscription that acknowledged it. A hold may have been given up and used
// for another delivery since; then its message or its transaction is another one.
func (a *txAck) valid(t *transaction) bool {
	return a.hold != nil && a.hold.tx == t && a.hold.msg.id == a.id
}

// session is a client's conversation. A direct client's is its connection's; a sidecar's outlives connections.
type session struct {
	id     sessionID
	direct bool
	client string // client-id, "" if CONNECT had none
	peer   *peer  // nil while absent
	name   string // of a direct one, unique as a session's id is
	subs   map[string]*subscription
	temps  map[string]*queue // temporary queues, by the name that the client has for them

	// Of a sidecar session.
	attempt  uint64
	accepted uint64   // the last effect applied, durable or not
	durable  uint64   // the last effect known to be durable
	rolled   []uint64 // effects that were COMMITs and were rolled back, until the sidecar's cursor passes them
	told     int      // of rolled, how many a RECEIPT has said already
	hold     time.Duration
	recorded bool // the journal knows of it
	fresh    bool // the journal knows its attempt and hold
	closed   bool // ended for ever; its cursor is kept for a while for a sidecar that missed the answer
	absent   time.Time
	confirm  bool // a cursor RECEIPT is due
}
