package broker

import (
	"encoding/binary"

	"github.com/understudy-mq/understudy/broker/journal"
)

// evacuation is what the mover has in hand of one segment. Its methods need the store's mutex.
type evacuation struct {
	store   *store
	segment journal.Segment
	stays   func(journal.Segment) bool
	digest  digest
	here    []resident

	// Endings that are to be told again.
	told  []mention
	again []journal.Segment
	names []byte // of their queues: what a record says is borrowed

	moved, octets, forwarded int         // messages, what was appended for them, endings
	last                     journal.LSN // that was appended
	waited                   int         // of octets, those that are durable for certain

	asked map[journal.Segment]bool // what stays said
}

// Bounds of records that the mover writes.
const (
	maxRelocated = 128 // copies of a message in one record, lest their names outgrow what the message's own record had
	maxForwarded = 512 // endings in one record
)

// take looks at one record of the segment: what is alive and still there is appended again, what it ended is noted.
func (e *evacuation) take(r *journal.Record) error {
	if !ofMessages(r.Type) {
		return nil // the heads of later segments have the state of sessions and durable subscriptions
	}
	d := &e.digest
	if err := d.read(r); err != nil {
		return err
	}
	copies := d.copies
	for i := range d.brings {
		b := &d.brings[i]
		if err := e.relocate(b, copies[:b.copies]); err != nil {
			return err
		}
		copies = copies[b.copies:]
	}
	for i := range d.ends {
		if m := &d.ends[i]; m.home != e.segment && e.needed(m.home) {
			e.note(m)
		}
	}
	if len(e.told) >= maxForwarded {
		return e.forward()
	}
	return nil
}

// needed reports whether a segment is part of the log. That it was when it was asked first is good enough: to tell an ending in vain does no harm.
func (e *evacuation) needed(seg journal.Segment) bool {
	stays, ok := e.asked[seg]
	if !ok {
		if e.asked == nil {
			e.asked = map[journal.Segment]bool{}
		}
		stays = e.stays(seg)
		e.asked[seg] = stays
	}
	return stays
}

// relocate appends a message again, for those of its copies that need it.
func (e *evacuation) relocate(b *brought, copies []copied) error {
	s := e.store
	prio, _ := standing(b.lines)
	for len(copies) > 0 {
		e.here, s.ends = e.here[:0], s.ends[:0]
		a := journal.Account{}
		n := 0
		for ; n < len(copies) && len(e.here) < maxRelocated; n++ {
			if l, at, end := s.alive(copies[n].in, prio, place{b.lsn, copies[n].index}); l != nil && end.Segment == e.segment {
				e.here = append(e.here, resident{copies[n], l, at})
				s.ends = append(s.ends, end)
				a.Bytes += end.Bytes
			}
		}
		copies = copies[n:]
		if len(e.here) == 0 {
			continue
		}
		s.scratch = appendRelocate(s.scratch[:0], b, e.segment, e.here)
		a.Live, a.Ends = len(e.here), s.ends
		at, err := s.append(journal.Entry{Type: recRelocate, Payload: s.scratch, Front: len(s.scratch) - len(b.body), Reserve: true, Account: a}, pend{})
		if err != nil {
			return err
		}
		for _, m := range e.here {
			m.lane.rehome(m.pos, at)
		}
		e.moved, e.octets, e.last = e.moved+len(e.here), e.octets+len(s.scratch), at.LSN
	}
	return nil
}

// resident is a message that is alive.
type resident struct {
	copied
	lane *lane
	pos  uint64
}

// alive finds a message by what a record says of it: its lane, its place there, and what it would mean that it ends. There is no lane if it is done.
func (s *store) alive(in queueName, prio int8, at place) (*lane, uint64, journal.Ending) {
	q := s.queues[string(in.name)]
	if in.number > 0 {
		if q = s.backlogs[in.number]; s.durables[in.number] != nil {
			q = s.durables[in.number].queue
		}
	}
	if q == nil {
		return nil, 0, journal.Ending{}
	}
	for _, l := range q.lanes {
		if l.prio != prio {
			continue
		}
		// A COMMIT that has messages which are in no journal puts others behind the places that are theirs after a restart.
		c := l.behind(placeOf(at.lsn, at.index) - 1)
		for sl, ok := c.next(); ok; sl, ok = c.next() {
			m, e := sl.message(), sl.entry()
			switch {
			case m == nil && e.pos == placeOf(at.lsn, at.index):
				return l, e.pos, e.ending()
			case m != nil && !m.transient && m.place() == at:
				return l, m.pos, m.ending()
			}
			if sl.page.pos(sl.i)>>placeBits > uint64(at.lsn) {
				break
			}
		}
	}
	return nil, 0, journal.Ending{}
}

// note keeps an ending until there are enough of them.
func (e *evacuation) note(m *mention) {
	own := *m
	if n := len(e.told); n > 0 && e.told[n-1].in.is(m.in) {
		own.in = e.told[n-1].in
	} else {
		from := len(e.names)
		e.names = append(e.names, m.in.name...)
		own.in.name = e.names[from:len(e.names):len(e.names)]
	}
	e.told, e.again = append(e.told, own), append(e.again, m.home)
}

// forward appends the endings that were noted.
func (e *evacuation) forward() error {
	if len(e.told) == 0 {
		return nil
	}
	s := e.store
	s.scratch = appendForward(s.scratch[:0], e.told)
	at, err := s.append(journal.Entry{Type: recForward, Payload: s.scratch, Account: journal.Account{Again: e.again}}, pend{})
	if err != nil {
		return err
	}
	e.forwarded += len(e.told)
	e.octets, e.last = e.octets+len(s.scratch), at.LSN
	e.told, e.again, e.names = e.told[:0], e.again[:0], e.names[:0]
	return nil
}

func appendRelocate(b []byte, m *brought, home journal.Segment, copies []resident) []byte {
	b = binary.AppendUvarint(b, uint64(m.lsn))
	b = binary.AppendUvarint(b, uint64(home))
	b = appendID(b, m.id)
	b = binary.AppendUvarint(b, uint64(len(copies)))
	for _, c := range copies {
		b = binary.AppendUvarint(appendQueueName(b, c.in), uint64(c.index))
	}
	b = appendText(b, m.lines)
	return append(b, m.body...)
}

func appendForward(b []byte, told []mention) []byte {
	groups := uint64(0)
	for i := range told {
		if i == 0 || !told[i].in.is(told[i-1].in) {
			groups++
		}
	}
	b = binary.AppendUvarint(b, groups)
	for len(told) > 0 {
		n := 1
		for n < len(told) && told[n].in.is(told[0].in) {
			n++
		}
		b = appendQueueName(b, told[0].in)
		b = binary.AppendUvarint(b, uint64(n))
		for _, m := range told[:n] {
			b = appendMention(b, m.at, m.home)
		}
		told = told[n:]
	}
	return b
}

func appendQueueName(b []byte, n queueName) []byte {
	if n.number == 0 {
		return appendText(b, n.name)
	}
	return binary.AppendUvarint(append(b, 0), uint64(n.number))
}
