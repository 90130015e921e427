package broker

import (
	"slices"
	"sort"

	"github.com/understudy-mq/understudy/broker/journal"
)

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
func (rc *recovery) move(rd *reader, r *journal.Record) (octets int64) {
	from := rc.named(rd, false)
	at, home := rd.mention()
	dest := rd.text()
	id := rd.id()
	lines := rd.text()
	if rd.err != nil {
		return 0
	}
	rc.end(from, at, home)
	data := slices.Concat(lines, rd.b)
	rd.b = nil
	return rc.add(r, id, 0, rc.store.queue(dest), data, len(lines))
}

// relocate reads messages that went from one segment to another. Nothing was ended before: whatever ends a message comes behind its relocations.
func (rc *recovery) relocate(rd *reader, r *journal.Record) (live int, octets int64) {
	lsn, home := journal.LSN(rd.uint()), journal.Segment(rd.uint())
	id := rd.id()
	n := rd.count(2)
	type copyOf struct {
		q     *queue
		index uint32
	}
	var copies []copyOf
	for range n {
		q := rc.named(rd, true)
		copies = append(copies, copyOf{q, uint32(rd.uint())})
	}
	lines := rd.text()
	if rd.err != nil {
		return 0, 0
	}
	data := slices.Concat(lines, rd.b)
	rd.b = nil
	for _, c := range copies {
		at := place{lsn, c.index}
		if m := rc.find(at); m != nil && m.state != done {
			rc.ends = append(rc.ends, m.ending())
			m.home = r.Position
			octets += m.stored()
			continue
		}
		rc.again = append(rc.again, home)
		octets += rc.insert(r, id, at, c.q, data, len(lines))
	}
	return n, octets
}

// forward reads endings whose own records may be gone.
func (rc *recovery) forward(rd *reader) {
	rc.mentions(rd, func(q *queue, at place, home journal.Segment) {
		if m := rc.find(at); m != nil && m.state != done && m.home.Segment == home {
			rc.end(q, at, home)
		} else {
			rc.again = append(rc.again, home)
		}
	})
}

// mentions reads the names of messages and calls f with each. The queue is nil if it is not known: then nothing is in it.
func (rc *recovery) mentions(rd *reader, f func(q *queue, at place, home journal.Segment)) {
	for range rd.count(5) {
		q := rc.named(rd, false)
		for range rd.count(3) {
			if at, home := rd.mention(); rd.err == nil {
				f(q, at, home)
			}
		}
	}
}

// named reads the name of a queue. One that is not known is made, or else nil.
func (rc *recovery) named(rd *reader, create bool) *queue {
	if name := rd.text(); len(name) > 0 && create {
		return rc.store.queue(name)
	} else if len(name) > 0 {
		return rc.store.queues[string(name)]
	}
	number, dest := journal.LSN(rd.uint()), ""
	if d := rc.store.durables[number]; d != nil {
		dest = d.dest
	}
	if create {
		return rc.durableQueue(number, dest)
	}
	return rc.queues[number]
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
		q = rc.store.newQueue(dest)
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

func (rc *recovery) add(r *journal.Record, id msgID, index uint32, q *queue, data []byte, split int) (octets int64) {
	return rc.insert(r, id, place{r.LSN, index}, q, data, split)
}

// insert puts a message in its place, which is the last one unless it was relocated.
func (rc *recovery) insert(r *journal.Record, id msgID, at place, q *queue, data []byte, split int) (octets int64) {
	m := &message{
		id: id, queue: q, dest: &q.destination, data: data, split: int32(split),
		lsn: at.lsn, home: r.Position, index: at.index, recovered: true,
	}
	m.standing()
	i := len(rc.list)
	if i > 0 && !rc.list[i-1].place().before(at) {
		if i = rc.search(at); i < len(rc.list) && rc.list[i].place() == at { // it was ended by a forwarded ending
			rc.list[i] = m
			rc.live++
			return m.stored()
		}
	}
	rc.list = slices.Insert(rc.list, i, m)
	rc.live++
	return m.stored()
}

// acks reads acknowledgements, and notes what the client of the session has seen.
func (rc *recovery) acks(rd *reader, o origin) {
	rc.mentions(rd, func(q *queue, at place, home journal.Segment) {
		if m := rc.end(q, at, home); m != nil && o.kind == bySession {
			if f := sight(rc.seen, o.session, q, m.prio); f.before(at) {
				*f = at
			}
		}
	})
	if len(rc.list) > 4096 && rc.live < len(rc.list)/2 {
		rc.compact()
	}
}

// end ends a message, wherever it is. If it is not there the segment that brought it was deleted, or a forwarded ending came first.
func (rc *recovery) end(q *queue, at place, home journal.Segment) *message {
	m := rc.find(at)
	if m == nil || m.state == done {
		rc.again = append(rc.again, home)
		return nil
	}
	rc.ends = append(rc.ends, m.ending())
	m.state, m.data, m.split = done, nil, 0
	rc.live--
	return m
}

// find looks a message up by its place. It may be missing: its segment was deleted, for it is acknowledged.
func (rc *recovery) find(at place) *message {
	for i := rc.hint; i < len(rc.list) && i < rc.hint+4; i++ {
		if m := rc.list[i]; m.place() == at {
			rc.hint = i
			return m
		}
	}
	i := rc.search(at)
	if i == len(rc.list) || rc.list[i].place() != at {
		return nil
	}
	rc.hint = i
	return rc.list[i]
}

func (rc *recovery) search(at place) int {
	return sort.Search(len(rc.list), func(i int) bool { return !rc.list[i].place().before(at) })
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
