package broker

import (
	"bytes"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// messages folds a record that is about messages. Each that is alive is an entry in its lane: nothing is left to do about them when the journal has been read,
// however many they are.
func (rc *recovery) messages(r *journal.Record) (a journal.Account, err error) {
	if err := rc.digest.read(r); err != nil {
		return a, err
	}
	session := rc.applied(rc.digest.origin)
	switch r.Type {
	case recRelocate:
		a.Live, a.Bytes = rc.relocated(r)
		return a, nil
	case recForward:
		rc.forwarded()
		return a, nil
	case recMove: // it may come back to where it was
		rc.ended(nil)
		a.Live, a.Bytes = rc.brought(r)
	default:
		a.Live, a.Bytes = rc.brought(r)
		rc.ended(session)
	}
	return a, nil
}

// brought adds what a record brings.
func (rc *recovery) brought(r *journal.Record) (live int, octets int64) {
	copies := rc.digest.copies
	for i := range rc.digest.brings {
		b := &rc.digest.brings[i]
		prio, expires := standing(b.lines)
		for _, to := range copies[:b.copies] {
			rc.insert(b, rc.make(to.in).lane(prio), to.index, r.Position, expires)
		}
		live += b.copies
		octets += int64(b.copies) * (int64(b.size) + storedOverhead)
		copies = copies[b.copies:]
	}
	return live, octets
}

// insert puts a message in its place, which is the last one unless it was relocated.
func (rc *recovery) insert(b *brought, l *lane, index uint32, home journal.Position, expires time.Time) {
	e := rc.store.newEntry(b.id, b.lsn, index, home, b.size, outRecovered)
	if e.pos > l.queue.places {
		l.pushOut(e, expires)
	} else {
		l.insertOut(e, expires)
	}
}

// relocated moves messages to another segment. One that is not there has lost the record that it came from, and is added: whatever ends a message comes
// behind its relocations.
func (rc *recovery) relocated(r *journal.Record) (live int, octets int64) {
	b := &rc.digest.brings[0]
	prio, expires := standing(b.lines)
	for i, to := range rc.digest.copies {
		l := rc.make(to.in).lane(prio)
		if s, ok := l.find(placeOf(b.lsn, to.index)); ok {
			rc.ends = append(rc.ends, s.entry().ending())
			l.rehome(placeOf(b.lsn, to.index), r.Position)
		} else {
			rc.again = append(rc.again, rc.digest.ends[i].home)
			rc.insert(b, l, to.index, r.Position, expires)
		}
	}
	return b.copies, int64(b.copies) * (int64(b.size) + storedOverhead)
}

// forwarded ends what is not ended yet, by a record that is still there. A message that lives in another segment was relocated, which ended nothing but its
// stay in that one.
func (rc *recovery) forwarded() {
	for i := range rc.digest.ends {
		m := &rc.digest.ends[i]
		if l, s := rc.find(m); l != nil && s.entry().home().Segment == m.home {
			rc.end(l, s)
		} else {
			rc.again = append(rc.again, m.home)
		}
	}
}

// ended ends messages, wherever they are, and notes what the client of the session has seen. If one is not there, the segment that brought it was deleted or
// a forwarded ending came first.
func (rc *recovery) ended(c *session) {
	for i := range rc.digest.ends {
		m := &rc.digest.ends[i]
		l, s := rc.find(m)
		if l == nil {
			rc.again = append(rc.again, m.home)
			if c != nil {
				rc.sawAll(c, m)
			}
			continue
		}
		if c != nil {
			if f := sight(rc.seen, c.id, l.queue, l.prio); f.before(m.at) {
				*f = m.at
			}
		}
		rc.end(l, s)
	}
}

// sawAll notes what a client has seen of a message that is not there any more, while earlier ones of its queue may be, relocated. Nobody knows its priority,
// so it is noted for all: that a client seems to have seen more than it has costs it a turn and puts nothing out of order.
func (rc *recovery) sawAll(c *session, m *mention) {
	q := rc.make(m.in)
	for prio := range int8(priorities) {
		if f := sight(rc.seen, c.id, q, prio-usualPriority); f.before(m.at) {
			*f = m.at
		}
	}
}

func (rc *recovery) end(l *lane, s slot) {
	rc.ends = append(rc.ends, s.entry().ending())
	l.end(s)
	if l.queue.count == 0 {
		rc.emptied()
	}
}

// find looks for a message in the lanes of its queue, of which most have one. It returns nil if it is not there.
func (rc *recovery) find(m *mention) (*lane, slot) {
	if q := rc.named(m.in); q != nil {
		for _, l := range q.lanes {
			if s, ok := l.find(placeOf(m.at.lsn, m.at.index)); ok {
				return l, s
			}
		}
	}
	return nil, slot{}
}

// named returns the queue of a name, or nil. Most records are about the queue of the one before.
func (rc *recovery) named(n queueName) *queue {
	if q := rc.recent; q != nil && q.number == n.number && (n.number > 0 || q.name == string(n.name)) {
		return q
	}
	q := rc.queues[n.number]
	if n.number == 0 {
		q = rc.store.queues[string(n.name)]
	}
	if q != nil {
		rc.recent = q
	}
	return q
}

// make is named for a queue that is made if it is not there. That of a durable subscription, or a backlog, may be deleted since.
func (rc *recovery) make(n queueName) *queue {
	q := rc.named(n)
	switch {
	case q != nil:
		return q
	case n.number == 0:
		q = rc.store.queue(n.name)
	default:
		name := string(n.name)
		if d := rc.store.durables[n.number]; d != nil {
			name = d.dest
		}
		q = rc.store.newQueue(name)
		q.number = n.number
		rc.queues[n.number] = q
	}
	rc.recent = q
	return q
}

// emptied lets queues go that have nothing, when they may be half of all.
func (rc *recovery) emptied() {
	if rc.empty++; rc.empty < 1024 || rc.empty < (len(rc.store.queues)+len(rc.queues))/2 {
		return
	}
	rc.empty, rc.recent = 0, nil
	for name, q := range rc.store.queues {
		if q.count == 0 && !rc.floored[q] {
			delete(rc.store.queues, name)
		}
	}
	for number, q := range rc.queues {
		if q.count == 0 && !rc.floored[q] {
			delete(rc.queues, number)
		}
	}
}

// standing reads from the headers of a message what its SEND said of priority and expiry; zero: it does not expire.
func standing(lines []byte) (prio int8, expires time.Time) {
	for len(lines) > 0 {
		line := lines
		if end := bytes.IndexByte(lines, '\n'); end >= 0 {
			line, lines = lines[:end], lines[end+1:]
		} else {
			lines = nil
		}
		if len(line) == 0 || line[0] != 'p' && line[0] != 'e' {
			continue
		}
		if v, ok := bytes.CutPrefix(line, []byte("priority:")); ok && prio == 0 {
			prio = prioOf(v)
		} else if v, ok := bytes.CutPrefix(line, []byte("expires:")); ok && expires.IsZero() {
			if d := deadlineOf(v); d != nil {
				expires = d.at
			}
		}
	}
	return prio, expires
}
