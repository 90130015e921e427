package broker

import (
	"errors"
	"slices"

	"github.com/understudy-mq/understudy/broker/journal"
)

// Paging. A backlog does not have to be in memory. When there is more than a part of Config.MaxMemory, messages that nobody has, that wait far from the front
// and that are durable go out, a page at a time: what is left of each is an entry. Whoever comes to one wants its page; the shell reads it from the journal
// without the mutex and hands it in, and the queue goes on. Nothing is skipped meanwhile, and nothing that is read is believed unless its checksums are right.

// paging is the store's account of it.
type paging struct {
	wishes     ring[*page] // to be read
	later      []*page     // to be read when more is durable
	evicting   bool        // until there is room again
	idle       bool        // nothing can go out in this round
	round      uint64      // of attempts: it changes when more may go out
	hand       int         // in pool.lanes: whose turn it is
	misses     int         // lanes in a row that had nothing to give
	level      int         // how hard it is tried
	dissolving []*queue    // gone, with messages that are out
	damaged    int         // queues
}

// What one call into the store does about paging at most.
const (
	evictPages    = 8
	evictAtOnce   = 32 // when somebody waits for room
	evictLooks    = 64 // at lanes that have nothing to give
	dissolvePages = 16
	// keepPages is how many pages from the front are let go only when nothing else can.
	keepPages = 4
	// aheadPages is how many pages are read before they are needed, when a queue is drained.
	aheadPages = 2
	// readTries is how often a page is read before an error that is no damage stops its queue.
	readTries = 4
)

// another begins a round: something became durable, or time has passed.
func (g *paging) another() {
	g.round++
	g.idle = false
	for _, p := range g.later {
		g.wishes.push(p)
	}
	clear(g.later)
	g.later = g.later[:0]
}

// want asks for what is not there of a page. Whoever waits and is no consumer of the queue is told when it is.
func (s *store) want(p *page, waiter *subscription) {
	if waiter != nil && !slices.Contains(p.waiters, waiter) {
		p.waiters = append(p.waiters, waiter)
	}
	if !p.wanted {
		p.wanted = true
		s.paging.wishes.push(p)
	}
}

// ahead asks for pages that a queue which is being drained comes to next.
func (s *store) ahead(q *queue) {
	for _, l := range q.lanes {
		if l.out == 0 {
			continue
		}
		for i := l.cur + 1; i <= l.cur+aheadPages && i < len(l.pages) && s.memory < s.cfg.MaxMemory; i++ {
			if l.pages[i].out > 0 {
				s.want(l.pages[i], nil)
			}
		}
	}
}

// errand is a page that is being read.
type errand struct {
	page  *page
	reads []reading
}

// reading is a message that is being read.
type reading struct {
	pos  uint64
	hash uint64 // of its id; 0: not known
	at   journal.Position
	content
	err error
}

// take returns up to most pages for the shell to read. What lies in records that are not durable yet stays for later.
func (s *store) take(most int) (list []*errand) {
	for s.paging.wishes.len() > 0 && len(list) < most {
		p := s.paging.wishes.pop()
		if p.newest > s.through && p.live > 0 {
			s.paging.later = append(s.paging.later, p)
			continue
		}
		e := &errand{page: p}
		if q := p.lane.queue; !q.gone && q.damage == nil {
			e.reads = p.readings()
		}
		p.reading = true
		list = append(list, e)
	}
	return list
}

func (p *page) readings() (list []reading) {
	for i := p.head; i < p.len() && p.absent() > 0; i++ {
		if m := p.obj(i); p.ent(i) != nil || m != nil && m.away && m.state != done {
			list = append(list, p.readingOf(i))
		}
	}
	return list
}

func (p *page) readingOf(i int) reading {
	if e := p.ent(i); e != nil {
		return reading{pos: e.pos, hash: e.hash, at: e.home()}
	}
	m := p.obj(i)
	return reading{pos: m.pos, at: journal.Position{Segment: m.home.Segment, Offset: m.home.Offset}}
}

// handIn takes what was read. A message may be done meanwhile, or lie somewhere else, where it is read again.
//
// It reports whether the disk should be given a moment: the error may pass.
func (s *store) handIn(e *errand) (wait bool) {
	p := e.page
	q := p.lane.queue
	p.reading, p.wanted = false, false
	waiters := p.waiters
	p.waiters = nil
	again, late := false, false
	var owed []*subscription
	for i := range e.reads {
		r := &e.reads[i]
		at := p.find(r.pos)
		if at < 0 || q.gone || q.damage != nil {
			continue
		}
		m := p.obj(at)
		if m != nil && !m.away {
			continue
		}
		if r.err != nil {
			if p.readingOf(at).at != r.at {
				again = true
				continue
			}
			if p.failures++; p.failures < readTries && !errors.Is(r.err, journal.ErrDamaged) {
				again, wait = true, true
				break
			}
			s.spoil(q, r)
			break
		}
		m = s.bringIn(p, at, r)
		late = late || s.expired(m)
		if m.hold != nil && m.hold.owed && !slices.Contains(owed, m.hold.sub) {
			owed = append(owed, m.hold.sub)
		}
	}
	if s.count.pagesRead.Inc(); !wait {
		p.failures = 0
	}
	if p.out == 0 {
		if p.objs == nil || !slices.Contains(p.objs[p.head:], nil) { // else they tell where the empty slots are
			p.outs = nil
		}
		s.unwatchPage(p)
	}
	if p.live > 0 && p.data > 0 {
		p.fresh, p.tried = true, 0
		p.lane.hot = max(p.lane.hot, p.lane.index(p)+1)
		p.lane.list()
	}
	if again {
		s.want(p, nil)
	}
	for _, sub := range owed {
		s.drain(sub)
	}
	for _, sub := range waiters {
		if !sub.gone {
			s.look(sub)
		}
	}
	if late {
		s.expireMessages(2 * pageSlots)
	}
	s.soil(q)
	return wait
}

// bringIn gives the message in a slot its octets, and an object if it has none.
func (s *store) bringIn(p *page, i int, r *reading) *message {
	m := p.obj(i)
	if m == nil {
		m = s.revive(slot{p, i}, r.id)
	}
	m.data, m.split, m.away = r.data, r.split, false
	s.memory += int64(len(m.data))
	p.away--
	p.data += int64(len(m.data))
	if m.deadline == nil && !r.expires.IsZero() {
		m.deadline = &deadline{at: r.expires}
		s.watch(m)
	}
	return m
}

// revive makes an object, without its octets, of a message that is out.
func (pl *pool) revive(at slot, id msgID) *message {
	p := at.page
	e := at.entry()
	q := p.lane.queue
	if p.objs == nil {
		p.objs = make([]*message, len(p.outs))
	}
	m := &message{
		id: id, dest: &q.destination, queue: q, page: p, lsn: e.lsn(), home: e.home(), pos: e.pos, length: e.size, prio: p.lane.prio, index: e.index(),
		ordinal: e.ordinal, recovered: e.flags&outRecovered != 0, redelivered: e.flags&outRedelivered != 0, unmet: true, away: true,
	}
	p.objs[at.i] = m
	p.out--
	p.away++
	p.lane.out--
	pl.outs--
	pl.memory += m.size() - entryOverhead
	return m
}
