package broker

import (
	"strings"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/broker/selector"
)

// session folds the records that are about a session only.
func (rc *recovery) session(rd *reader, r *journal.Record) {
	c := rc.known(rd.session())
	switch r.Type {
	case recSession:
		c.attempt, c.hold = max(c.attempt, rd.uint()), rd.millis()
	case recSubscribe:
		c.closed = false
		rc.subscription(rd, c)
	case recBacklog:
		c.backlog(rd.text(), r.LSN)
	case recTemporary:
		c.closed = false
		rc.temporary(rd, c)
	case recUnsubscribe:
		delete(c.subs, string(rd.text()))
	case recClose:
		c.closed = true
		clear(c.subs)
		clear(c.temps)
		delete(rc.seen, c.id)
	}
	c.recorded = true
}

// temporary reads the name of one; its queue is found when the journal has been read.
func (rc *recovery) temporary(rd *reader, c *session) {
	if c.temps == nil {
		c.temps = map[string]*queue{}
	}
	c.temps[string(rd.text())] = nil
}

// subscription reads one; where it belongs is settled when the journal has been read.
func (rc *recovery) subscription(rd *reader, c *session) *subscription {
	sub := &subscription{id: string(rd.text()), dest: string(rd.text()), session: c}
	sub.mode, sub.prefetch = ackMode(rd.octet()), int(rd.uint())
	if sub.mode > ackEach {
		rd.fail()
	}
	// It was valid when it was written. Should a later version know better, its sidecar says it again when it is back.
	if text := rd.text(); len(text) > 0 {
		if sel, err := selector.Parse(string(text)); err == nil {
			sub.pick = newPick(sel)
		}
	}
	if number := journal.LSN(rd.uint()); number > 0 {
		sub.durable = &durable{number: number} // until all are known
	}
	if was := c.subs[sub.id]; was != nil && was.dest == sub.dest && was.durable == nil && sub.durable == nil {
		sub.left = was.left
	}
	c.subs[sub.id] = sub
	return sub
}

// backlog notes which queue of the journal belongs to a subscription to a topic.
func (c *session) backlog(id []byte, number journal.LSN) {
	if sub := c.subs[string(id)]; sub != nil && sub.durable == nil && strings.HasPrefix(sub.dest, topicPrefix) {
		sub.left = number
	}
}

// inherit gives a subscription to a topic what the last owner has left to it.
func (rc *recovery) inherit(sub *subscription) {
	if sub.left == 0 {
		return
	}
	s := rc.store
	if sub.queue = rc.queues[sub.left]; sub.queue == nil {
		sub.queue = s.newQueue(sub.dest)
	}
	sub.queue.number, sub.queue.destination = sub.left, newDestination(sub.dest)
	delete(rc.queues, sub.left)
	s.backlogs[sub.left] = sub.queue
}

// snapshot is what the parts of a head have said so far.
type snapshot struct {
	sessions map[sessionID]*session
	durables map[journal.LSN]*durable
	seen     map[sessionID]map[*queue]*floors
	floored  map[*queue]bool
	parts    uint64
}

// heads replaces what is known of sessions and durable subscriptions once the last part of a snapshot was read. A torn one changes nothing.
func (rc *recovery) heads(rd *reader) {
	part, parts := rd.uint(), rd.uint()
	if part == 0 {
		rc.head = &snapshot{sessions: map[sessionID]*session{}, durables: map[journal.LSN]*durable{}, seen: map[sessionID]map[*queue]*floors{},
			floored: map[*queue]bool{}}
	}
	if rc.head == nil || part != rc.head.parts { // a repair gave up the part before it: what is known stays
		rc.head, rd.b = nil, nil
		return
	}
	h := rc.head
	h.parts++
	for len(rd.b) > 0 {
		switch rd.octet() {
		case itemSession:
			c := rc.snapshot(rd)
			h.sessions[c.id] = c
		case itemDurable:
			d := rc.durable(rd, journal.LSN(rd.uint()))
			h.durables[d.number] = d
		case itemBacklog:
			number := journal.LSN(rd.uint())
			if c := h.sessions[rd.session()]; c != nil {
				c.backlog(rd.text(), number)
			} else {
				rd.fail()
			}
		default:
			rd.fail()
		}
	}
	if h.parts == parts && rd.err == nil {
		rc.store.sessions, rc.store.durables, rc.seen, rc.floored, rc.head = h.sessions, h.durables, h.seen, h.floored, nil
	}
}

func (rc *recovery) snapshot(rd *reader) *session {
	c := &session{id: rd.session(), subs: map[string]*subscription{}, recorded: true}
	c.attempt, c.accepted, c.hold, c.closed = rd.uint(), rd.uint(), rd.millis(), rd.octet()&flagClosed != 0
	for range rd.count(1) {
		c.rolled = append(c.rolled, rd.uint())
	}
	for range rd.count(4) {
		sub := rc.subscription(rd, c)
		for range rd.count(3) {
			prio, at := rd.octet(), place{journal.LSN(rd.uint()), uint32(rd.uint())}
			if prio >= priorities {
				rd.fail()
			} else {
				q := rc.queueOf(sub)
				rc.head.floored[q] = true
				*sight(rc.head.seen, c.id, q, int8(prio)-usualPriority) = at
			}
		}
	}
	for range rd.count(1) {
		rc.temporary(rd, c)
	}
	return c
}

// queueOf is the queue of a subscription. It may have no messages yet: that of which the owner knew may have been relocated, to behind the head.
func (rc *recovery) queueOf(sub *subscription) *queue {
	n := queueName{name: []byte(sub.dest)}
	if sub.durable != nil {
		n.number = sub.durable.number
	}
	return rc.make(n)
}

// sight is where it is noted what a session's client has seen of a queue.
func sight(seen map[sessionID]map[*queue]*floors, id sessionID, q *queue, prio int8) *place {
	of := seen[id]
	if of == nil {
		of = map[*queue]*floors{}
		seen[id] = of
	}
	f := of[q]
	if f == nil {
		f = new(floors)
		of[q] = f
	}
	return &f[prio+usualPriority]
}
