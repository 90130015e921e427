package broker

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/broker/selector"
)

// recovery folds journal records into a store. Its message list is in LSN order, which is the order of every queue; an acknowledged
// message stays in it, without its octets, until the next compaction.
type recovery struct {
	store   *store
	list    []*message
	live    int
	hint    int // where the last message was found: acknowledgements come in about the order of sends
	head    map[sessionID]*session
	headOf  map[journal.LSN]*durable
	part    uint64
	temps   map[string]*queue      // temporary ones, by everybody's name; some may be gone
	queues  map[journal.LSN]*queue // of durable subscriptions, by number; some may be gone
	records int
	last    journal.LSN
	// seen is the last message of a queue that a session has acknowledged.
	seen map[sessionID]map[*queue]*floors
}

func newRecovery(s *store) *recovery {
	return &recovery{store: s, queues: map[journal.LSN]*queue{}, temps: map[string]*queue{}, seen: map[sessionID]map[*queue]*floors{}}
}

// visit folds one record and says again what it meant for the life of segments.
func (rc *recovery) visit(r journal.Record) (journal.Account, error) {
	rc.records++
	rc.last = r.LSN
	rd := reader{b: r.Payload}
	var a journal.Account
	switch r.Type {
	case recSend:
		o := rd.origin()
		a.Live, a.Bytes = 1, rc.send(&rd, &r, o)
	case recAck:
		o := rd.origin()
		rc.applied(o)
		a.Ends = rc.acks(&rd, o)
	case recCommit, recCommitTopics:
		o := rd.origin()
		a.Live, a.Bytes = rc.sends(&rd, &r, o)
		a.Ends = rc.acks(&rd, o)
		rc.applied(o)
	case recCursor:
		o := rd.origin()
		if c := rc.applied(o); c != nil && rd.octet()&flagRolledBack != 0 {
			c.addRolled(o.effect)
		}
	case recSession, recSubscribe, recSubscribe1, recUnsubscribe, recTemporary, recClose:
		rc.session(&rd, r.Type)
	case recPublish:
		o := rd.origin()
		a.Live, a.Bytes = rc.publish(&rd, &r, o)
	case recMove:
		a = rc.move(&rd, &r)
	case recDurable:
		if d := rc.durable(&rd, r.LSN); rd.err == nil {
			rc.store.durables[d.number] = d
		}
	case recErase:
		delete(rc.store.durables, journal.LSN(rd.uint()))
	case recHead, recHead1:
		rc.heads(&rd, r.Type == recHead1)
	default:
		return a, fmt.Errorf("read record %d: type %d is unknown: was the store written by a newer version?", r.LSN, r.Type)
	}
	if err := rd.end(r.Type); err != nil {
		return a, fmt.Errorf("record %d: %w", r.LSN, err)
	}
	return a, nil
}

func (rc *recovery) send(rd *reader, r *journal.Record, o origin) (octets int64) {
	dest, number, lines := rd.text(), rd.uint(), rd.text()
	if rd.err != nil {
		return 0
	}
	data := append([]byte(nil), lines...)
	data = append(data, rd.b...)
	rd.b = nil
	id := o.messageOf(r.Epoch, number, false)
	octets = rc.add(r, id, 0, rc.store.queue(dest), data, len(lines))
	rc.applied(o)
	return octets
}

// move reads a message that went from one queue to another.
func (rc *recovery) move(rd *reader, r *journal.Record) (a journal.Account) {
	lsn, index, seg := journal.LSN(rd.uint()), uint32(rd.uint()), journal.Segment(rd.uint())
	dest := rd.text()
	id := msgID{rd.uint(), rd.uint(), rd.uint(), int32(uint32(rd.uint()))}
	lines := rd.text()
	if rd.err != nil {
		return a
	}
	m := rc.find(lsn, index)
	if a.Ends = []journal.Ending{rc.ending(m, seg)}; m != nil && m.state != done {
		rc.end(m)
	}
	data := slices.Concat(lines, rd.b)
	rd.b = nil
	a.Live, a.Bytes = 1, rc.add(r, id, 0, rc.store.queue(dest), data, len(lines))
	return a
}

// publish reads a message to a topic and returns for how many durable subscriptions it is, and what it counts for.
func (rc *recovery) publish(rd *reader, r *journal.Record, o origin) (live int, octets int64) {
	dest, number := rd.text(), rd.uint()
	targets := rc.targets(rd, dest)
	lines := rd.text()
	if rd.err != nil {
		return 0, 0
	}
	data := slices.Concat(lines, rd.b)
	rd.b = nil
	for i, q := range targets {
		octets += rc.add(r, o.messageOf(r.Epoch, number, false), uint32(i), q, data, len(lines))
	}
	rc.applied(o)
	return len(targets), octets
}

func (rc *recovery) targets(rd *reader, dest []byte) []*queue {
	list := make([]*queue, rd.count(1))
	for i := range list {
		list[i] = rc.durableQueue(journal.LSN(rd.uint()), string(dest))
	}
	return list
}

// durableQueue is the queue of a durable subscription, which may have been deleted since.
func (rc *recovery) durableQueue(number journal.LSN, dest string) *queue {
	q := rc.queues[number]
	if q == nil {
		q = newQueue(dest)
		q.gone = true // until its subscription is found
		rc.queues[number] = q
	}
	return q
}

// sends reads the messages of a COMMIT and returns how many there are, one for each that it is for, and what they count for.
func (rc *recovery) sends(rd *reader, r *journal.Record, o origin) (live int, octets int64) {
	for range rd.count(4) {
		number, dest := rd.uint(), rd.text()
		var targets []*queue
		if r.Type == recCommitTopics {
			targets = rc.targets(rd, dest)
		}
		lines, body := rd.text(), rd.text()
		if rd.err != nil {
			return live, octets
		}
		if len(targets) == 0 {
			targets = append(targets, rc.store.queue(dest))
		}
		data := slices.Concat(lines, body)
		for _, q := range targets {
			octets += rc.add(r, o.messageOf(r.Epoch, number, true), uint32(live), q, data, len(lines))
			live++
		}
	}
	return live, octets
}

func (rc *recovery) durable(rd *reader, number journal.LSN) *durable {
	d := &durable{number: number, durableKey: durableKey{string(rd.text()), string(rd.text())}, dest: string(rd.text())}
	if text := rd.text(); len(text) > 0 {
		var err error
		if d.selector, err = selector.Parse(string(text)); err != nil {
			rd.fail() // it decides what is stored
		}
	}
	return d
}

func (rc *recovery) add(r *journal.Record, id msgID, index uint32, q *queue, data []byte, split int) (octets int64) {
	m := &message{
		id: id, queue: q, dest: &q.destination, data: data, split: int32(split),
		lsn: r.LSN, home: r.Position, index: index, recovered: true,
	}
	m.standing()
	rc.list = append(rc.list, m)
	rc.live++
	return m.stored()
}

// applied moves a session's cursor. A session may be known by its effects alone.
func (rc *recovery) applied(o origin) *session {
	if o.kind != bySession {
		return nil
	}
	c := rc.known(o.session)
	c.accepted = max(c.accepted, o.effect)
	return c
}

func (rc *recovery) known(id sessionID) *session {
	c := rc.store.sessions[id]
	if c == nil {
		c = &session{id: id, subs: map[string]*subscription{}}
		rc.store.sessions[id] = c
	}
	return c
}

func (rc *recovery) acks(rd *reader, o origin) []journal.Ending {
	n := rd.count(3)
	ends := make([]journal.Ending, 0, n)
	seen := rc.seen[o.session]
	if seen == nil && o.kind == bySession && n > 0 {
		seen = map[*queue]*floors{}
		rc.seen[o.session] = seen
	}
	for range n {
		lsn, index, seg := journal.LSN(rd.uint()), uint32(rd.uint()), journal.Segment(rd.uint())
		m := rc.find(lsn, index)
		ends = append(ends, rc.ending(m, seg))
		if m != nil && m.state != done {
			rc.end(m)
			if seen != nil {
				f := seen[m.queue]
				if f == nil {
					f = new(floors)
					seen[m.queue] = f
				}
				f.saw(m)
			}
		}
	}
	if len(rc.list) > 4096 && rc.live < len(rc.list)/2 {
		rc.compact()
	}
	return ends
}

// ending is that of a message of segment seg. It is nil if its segment was deleted; nobody counts then.
func (rc *recovery) ending(m *message, seg journal.Segment) journal.Ending {
	if m == nil || m.state == done {
		return journal.Ending{Segment: seg}
	}
	return m.ending()
}

func (rc *recovery) end(m *message) {
	m.state, m.data, m.split = done, nil, 0
	rc.live--
}

// find looks a message up by its record. It may be missing: its segment was deleted, for it is acknowledged.
func (rc *recovery) find(lsn journal.LSN, index uint32) *message {
	for i := rc.hint; i < len(rc.list) && i < rc.hint+4; i++ {
		if m := rc.list[i]; m.lsn == lsn && m.index == index {
			rc.hint = i
			return m
		}
	}
	i := sort.Search(len(rc.list), func(i int) bool {
		m := rc.list[i]
		return m.lsn > lsn || m.lsn == lsn && m.index >= index
	})
	if i == len(rc.list) || rc.list[i].lsn != lsn || rc.list[i].index != index {
		return nil
	}
	rc.hint = i
	return rc.list[i]
}

func (rc *recovery) compact() {
	kept := rc.list[:0]
	for _, m := range rc.list {
		if m.state != done {
			kept = append(kept, m)
		}
	}
	clear(rc.list[len(kept):])
	rc.list, rc.hint = kept, 0
}

// session folds the records that are about a session only.
func (rc *recovery) session(rd *reader, kind byte) {
	c := rc.known(rd.session())
	switch kind {
	case recSession:
		c.attempt, c.hold = max(c.attempt, rd.uint()), rd.millis()
	case recSubscribe, recSubscribe1:
		c.closed = false
		rc.subscription(rd, c, kind == recSubscribe1)
	case recTemporary:
		c.closed = false
		rc.temporary(rd, c)
	case recUnsubscribe:
		delete(c.subs, string(rd.text()))
	case recClose:
		c.closed = true
		clear(c.subs)
		clear(c.temps)
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
func (rc *recovery) subscription(rd *reader, c *session, plain bool) {
	sub := &subscription{id: string(rd.text()), dest: string(rd.text()), session: c}
	sub.mode, sub.prefetch = ackMode(rd.octet()), int(rd.uint())
	if sub.mode > ackEach {
		rd.fail()
	}
	if !plain {
		// It was valid when it was written. Should a later version know better, its sidecar says it again when it is back.
		if text := rd.text(); len(text) > 0 {
			if sel, err := selector.Parse(string(text)); err == nil {
				sub.pick = newPick(sel)
			}
		}
		if number := journal.LSN(rd.uint()); number > 0 {
			sub.durable = &durable{number: number} // until all are known
		}
	}
	c.subs[sub.id] = sub
}

// heads replaces what is known of sessions and durable subscriptions once the last part of a snapshot was read. A torn one changes nothing.
func (rc *recovery) heads(rd *reader, plain bool) {
	part, parts := rd.uint(), rd.uint()
	if part == 0 {
		rc.head, rc.headOf, rc.part = map[sessionID]*session{}, map[journal.LSN]*durable{}, 0
	}
	if part != rc.part || rc.head == nil {
		rd.fail()
		return
	}
	rc.part++
	for len(rd.b) > 0 {
		kind := byte(itemSession)
		if !plain {
			kind = rd.octet()
		}
		switch kind {
		case itemSession:
			c := rc.snapshot(rd, plain)
			rc.head[c.id] = c
		case itemDurable:
			d := rc.durable(rd, journal.LSN(rd.uint()))
			rc.headOf[d.number] = d
		default:
			rd.fail()
		}
	}
	if rc.part == parts && rd.err == nil {
		rc.store.sessions, rc.store.durables, rc.head, rc.headOf = rc.head, rc.headOf, nil, nil
	}
}

func (rc *recovery) snapshot(rd *reader, plain bool) *session {
	c := &session{id: rd.session(), subs: map[string]*subscription{}, recorded: true}
	c.attempt, c.accepted, c.hold, c.closed = rd.uint(), rd.uint(), rd.millis(), rd.octet()&flagClosed != 0
	for range rd.count(1) {
		c.rolled = append(c.rolled, rd.uint())
	}
	for range rd.count(4) {
		rc.subscription(rd, c, plain)
	}
	if !plain {
		for range rd.count(1) {
			rc.temporary(rd, c)
		}
	}
	return c
}

// finish makes the store ready to serve. Every session is away; recovered messages wait for those that were subscribed to their queue.
func (rc *recovery) finish() {
	s := rc.store
	s.last, s.through = max(s.last, rc.last), max(s.through, rc.last)
	for number, d := range s.durables {
		d.queue = rc.durableQueue(number, d.dest)
		d.queue.gone = false
		s.enrol(d)
	}
	for name, q := range s.queues {
		if q.gone = strings.HasPrefix(name, remotePrefix); q.gone { // until its owner is found
			delete(s.queues, name)
			rc.temps[name] = q
		}
	}
	for _, c := range s.sessions {
		for name := range c.temps {
			full := c.remoteName(name)
			if q := rc.temps[full]; q != nil {
				s.queues[full], q.gone = q, false
			}
			s.own(c, name)
		}
	}
	for _, m := range rc.list {
		if m.state != done {
			if s.add(m.queue, m); m.queue.gone {
				s.discard(m)
			}
		}
	}
	for _, c := range s.sessions {
		c.durable, c.absent = c.accepted, s.now
		s.waiting[c] = struct{}{}
		for _, sub := range c.subs {
			if sub.durable != nil {
				if sub.durable = s.durables[sub.durable.number]; sub.durable == nil || sub.durable.sub != nil {
					delete(c.subs, sub.id) // deleted under it
					continue
				}
			}
			s.attach(sub)
			sub.away = s.now
			if q := sub.queue; q != nil && q.count > 0 {
				sub.gate = true
				sub.floor = rc.seen[c.id][q]
				q.gates++
			}
		}
	}
	for _, q := range s.queues {
		s.soil(q)
	}
	for _, d := range s.durables {
		s.soil(d.queue)
	}
	rc.list = nil
}
