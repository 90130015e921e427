package broker

import (
	"math"

	"github.com/understudy-mq/understudy/broker/journal"
)

// Levels of eviction: what is far from the front, and octets of messages that were sent; whatever nobody will ask for soon; everything that can.
const (
	evictFar = iota
	evictIdle
	evictAll
)

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
