package broker

import (
	"math"
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
)

// Levels of eviction: what is far from the front, and octets of messages that were sent; whatever nobody will ask for soon; everything that can.
const (
	evictFar = iota
	evictIdle
	evictAll
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

// evict makes room if memory is short, a few pages at a time.
func (s *store) evict(pages int) {
	g := &s.paging
	high, low := s.cfg.MaxMemory/4*3, s.cfg.MaxMemory/16*11
	if s.memory <= low || !g.evicting && s.memory <= high {
		g.evicting, g.level, g.misses = false, evictFar, 0
		return
	}
	g.evicting = true
	for looks := 0; pages > 0 && looks < evictLooks && !g.idle && s.memory > low; looks++ {
		if g.misses >= len(s.lanes) {
			if g.misses = 0; g.level == evictAll || len(s.lanes) == 0 {
				g.level, g.idle = evictFar, true
				return
			}
			g.level++
		}
		if g.hand >= len(s.lanes) {
			g.hand = 0
		}
		l := s.lanes[g.hand]
		g.hand++
		p := l.coldest(g, s.through)
		if p == nil {
			if g.misses++; l.hot == 0 {
				l.unlist()
			}
			continue
		}
		p.tried, g.misses = g.round, 0
		s.putOut(p, g.level == evictAll)
		pages--
	}
}

// coldest returns the page that can go out and is needed last, or nil. Only pages that are wholly durable are looked at: the others will be soon.
func (l *lane) coldest(g *paging, through journal.LSN) *page {
	for l.hot = min(l.hot, len(l.pages)); l.hot > 0 && l.pages[l.hot-1].data == 0; {
		l.hot--
	}
	keep := 0
	switch {
	case g.level == evictFar:
		keep = keepPages
	case g.level == evictIdle && len(l.queue.subs) > 0:
		keep = aheadPages
	}
	const most = 64
	for i := l.hot - 1; i >= 0 && i >= l.hot-most; i-- {
		p := l.pages[i]
		switch {
		case i >= l.cur && i < l.cur+keep:
		case p.data == 0 || p.reading || p.tried == g.round || p.newest > through:
		case p.fresh && g.level < evictAll:
			p.fresh = false // it was asked for
		default:
			return p
		}
	}
	return nil
}

// putOut lets the messages of a page go that can, and the octets of those that stay. hard includes what will be sent next.
func (s *store) putOut(p *page, hard bool) {
	n, went := p.len(), 0
	for i := p.head; i < n; i++ {
		m := p.obj(i)
		if m == nil || m.state == done || !s.inJournal(m) {
			continue
		}
		if m.state == ready && m.unmet && !m.returned && m.pos == placeOf(m.lsn, m.index) {
			if p.outs == nil {
				p.outs = make([]entry, n)
				for k := range p.outs {
					p.outs[k].flags = outGone
				}
			}
			s.letGo(p, i, m)
			went++
		} else if !m.away && (hard || m.state == held && !m.hold.owed) {
			s.memory -= int64(len(m.data))
			p.data -= int64(len(m.data))
			p.away++
			m.length, m.data, m.away = uint32(len(m.data)), nil, true
		}
	}
	if went == 0 {
		return
	}
	s.count.pagesOut.Inc()
	if p.live == n && p.out == n {
		p.objs = nil
	} else {
		p.gather(p)
	}
	if i := p.lane.index(p); i > p.lane.cur {
		p.lane.merge(i - 1)
	}
}

// inJournal reports whether the journal has m for certain, as it is.
func (s *store) inJournal(m *message) bool {
	return !m.transient && max(m.lsn, m.home.LSN, m.notBefore) <= s.through && m.home.Segment <= math.MaxUint32 && m.home.Offset <= math.MaxUint32*blockBytes
}

// letGo puts the entry of m in its slot.
func (s *store) letGo(p *page, i int, m *message) {
	e := s.newEntry(m.id, m.lsn, m.index, m.home, m.octets(), 0)
	e.ordinal = m.ordinal
	if m.redelivered {
		e.flags |= outRedelivered
	}
	if m.recovered {
		e.flags |= outRecovered
	}
	if m.deadline != nil {
		s.watchPage(p, m.deadline.at)
		s.unwatch(m)
	}
	if s.memory += entryOverhead - m.size(); m.away {
		p.away--
	} else {
		p.data -= int64(len(m.data))
	}
	p.outs[i], p.objs[i], m.page = e, nil, nil
	p.out++
	p.lane.out++
	s.outs++
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
func (s *store) handIn(e *errand) {
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
			s.spoil(q, r)
			break
		}
		m = s.bringIn(p, at, r)
		late = late || s.expired(m)
		if m.hold != nil && m.hold.owed && !slices.Contains(owed, m.hold.sub) {
			owed = append(owed, m.hold.sub)
		}
	}
	s.count.pagesRead.Inc()
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

// spoil stops a queue: what the journal has of it is not what was written. To go on behind that would be to lose messages and not to say so.
func (s *store) spoil(q *queue, r *reading) {
	lsn := r.pos >> placeBits
	q.damage = faultf("damaged queue", "message %d of %s cannot be read (segment %d, offset %d): %v. Nothing is delivered from this queue until the store is repaired: "+
		"stop the server and run 'understudy journal check'", lsn, q.name, r.at.Segment, r.at.Offset, r.err)
	s.paging.damaged++
	s.slog.Error("queue stopped: a message in the journal cannot be read", "destination", q.name, "lsn", lsn, "segment", uint64(r.at.Segment), "offset", r.at.Offset,
		"error", r.err)
	for _, sub := range q.subs {
		if p := sub.session.peer; p != nil && sub.present {
			s.refuseDamaged(p, nil, q)
		}
	}
}

func (s *store) refuseDamaged(p *peer, receipt []byte, q *queue) {
	f := *q.damage
	s.refuse(p, receipt, &f)
}

// dissolveSome ends messages of queues that are gone, a few pages at a time: the journal learns of them without their being read.
func (s *store) dissolveSome() {
	g := &s.paging
	budget := dissolvePages
	for len(g.dissolving) > 0 && budget > 0 {
		q := g.dissolving[0]
		more := false
		for _, l := range q.lanes {
			for i := 0; i < len(l.pages) && l.out > 0; {
				p := l.pages[i]
				if p.out == 0 {
					i++
					continue
				}
				if budget--; budget < 0 {
					more = true
					break
				}
				s.endPage(p) // it may be gone then
			}
		}
		if !more {
			g.dissolving = g.dissolving[1:]
		}
	}
	if len(g.dissolving) == 0 {
		g.dissolving = nil
	}
}

// endPage ends what is out of a page. A journal that cannot take it has failed, is full or is closing: the next owner ends it again.
func (s *store) endPage(p *page) {
	s.ends = s.ends[:0]
	s.scratch = appendOrigin(s.scratch[:0], origin{})
	s.scratch, s.ends = appendEnded(s.scratch, s.ends, p)
	_, _ = s.append(journal.Entry{Type: recAck, Payload: s.scratch, Account: journal.Account{Ends: s.ends}}, pend{})
	p.lane.endAll(p)
}
