package broker

import (
	"slices"
	"sort"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// lane is messages of one priority in the order of their places: those that are ready or held, and some that are done. It is a row of pages; no page is
// empty but the last.
type lane struct {
	prio     int8
	queue    *queue
	pages    []*page
	cur      int // the page that peek has come to
	out      int // messages that are out
	live     int
	assigned uint64 // the place that assign has come to
	indexed  uint64 // and that the queue's index has come to
	hot      int    // pages from here on have no octets at hand
	at       int    // in pool.lanes, counted from 1; 0: it is not there
}

// tail returns the page for one more message of that size, with an object or with an entry.
func (l *lane) tail(size int64, out bool) *page {
	if n := len(l.pages); n > 0 {
		p := l.pages[n-1]
		if p.len() == 0 {
			if out {
				p.objs = nil
			}
			return p
		}
		if p.roomy(size) && !p.reading && (out && p.objs == nil || !out && p.outs == nil) {
			return p
		}
	}
	p := &page{lane: l}
	l.pages = append(l.pages, p)
	return p
}

// push adds an object at the end.
func (l *lane) push(m *message) {
	size := int64(m.octets())
	p := l.tail(size, false)
	p.objs = append(grown(p.objs, l.queue.pool.slots), m)
	m.page = p
	p.live++
	p.size += size
	p.newest = max(p.newest, m.lsn, m.home.LSN)
	if m.away {
		p.away++
	} else {
		p.data += size
	}
	l.live++
	l.hot = len(l.pages)
	l.list()
}

// pushOut adds a message that is out at the end. expires is when it expires; zero: never.
func (l *lane) pushOut(e entry, expires time.Time) {
	p := l.tail(int64(e.size), true)
	p.outs = append(grown(p.outs, l.queue.pool.slots), e)
	l.added(p, &e, expires)
}

// insertOut adds a message that is out in its place, which may be anywhere. It is for recovery, before anybody looks.
func (l *lane) insertOut(e entry, expires time.Time) {
	i := l.from(e.pos)
	if i == len(l.pages) {
		l.pushOut(e, expires)
		return
	}
	p := l.pages[i]
	at := p.from(e.pos)
	if p.objs != nil || p.len() >= l.queue.pool.slots {
		right := &page{lane: l}
		if at == p.head {
			l.pages = slices.Insert(l.pages, i, right)
			p = right
		} else {
			if l.split(p, right, at); right.live > 0 {
				l.pages = slices.Insert(l.pages, i+1, right)
			}
		}
		if p.objs != nil { // entries do not go among objects: they get a page between
			p = &page{lane: l}
			l.pages = slices.Insert(l.pages, i+1, p)
		}
		at = p.len()
	}
	if l.hot > 0 {
		l.hot = len(l.pages)
	}
	p.outs = slices.Insert(p.outs, at, e)
	l.added(p, &e, expires)
}

// split moves the slots of p from i on to right, which is empty and behind it.
func (l *lane) split(p, right *page, i int) {
	rest := &page{lane: l}
	*rest = *p
	rest.head, rest.met, rest.waiters = i, 0, nil
	rest.recount()
	if p.objs != nil {
		p.objs = p.objs[:i:i]
	}
	if p.outs != nil {
		p.outs = p.outs[:i:i]
	}
	p.met = min(p.met, i)
	p.recount()
	right.gather(rest)
	if p.deadline != nil {
		l.queue.pool.watchPage(right, p.deadline.at)
	}
}

// recount makes the sums of a page anew from its slots.
func (p *page) recount() {
	p.live, p.out, p.away, p.data, p.size = 0, 0, 0, 0, 0
	for i := p.head; i < p.len(); i++ {
		if p.empty(i) {
			continue
		}
		p.live++
		switch m := p.obj(i); {
		case m == nil:
			p.out++
			p.size += int64(p.outs[i].size)
		case m.away:
			p.away++
			p.size += int64(m.octets())
		default:
			p.data += int64(m.octets())
			p.size += int64(m.octets())
		}
	}
}

// added accounts for a new entry in p.
func (l *lane) added(p *page, e *entry, expires time.Time) {
	p.live++
	p.out++
	p.size += int64(e.size)
	l.live++
	l.out++
	pl := l.queue.pool
	pl.outs++
	pl.messages++
	pl.memory += entryOverhead
	l.queue.count++
	l.queue.places = max(l.queue.places, e.pos)
	if !expires.IsZero() {
		pl.watchPage(p, expires)
	}
}

// from returns the first page with a slot behind a place.
func (l *lane) from(pos uint64) int {
	return sort.Search(len(l.pages), func(i int) bool { p := l.pages[i]; return p.head == p.len() || p.last() > pos })
}

// find returns the slot of a place, if there is a message that is not done.
func (l *lane) find(pos uint64) (slot, bool) {
	if i := l.from(pos - 1); i < len(l.pages) {
		p := l.pages[i]
		if at := p.find(pos); at >= 0 {
			return slot{p, at}, true
		}
	}
	return slot{}, false
}

// rehome notes that the message in a place lies somewhere else now, and reports whether it is there. It goes out, or is read, again when the record at
// home is durable.
func (l *lane) rehome(pos uint64, home journal.Position) bool {
	s, ok := l.find(pos)
	if !ok {
		return false
	}
	if m := s.message(); m != nil {
		m.home = home
	} else {
		s.entry().move(home)
	}
	s.page.newest = max(s.page.newest, home.LSN)
	return true
}

// end forgets a message that is out and done.
func (l *lane) end(s slot) {
	s.page.outs[s.i].flags |= outGone
	s.page.out--
	l.out--
	pl := l.queue.pool
	pl.outs--
	pl.messages--
	pl.memory -= entryOverhead
	l.queue.count--
	l.ended(s.page)
}

// endAll forgets what is out of a page.
func (l *lane) endAll(p *page) {
	n := p.out
	if n == 0 {
		return
	}
	for i := p.head; i < p.len(); i++ {
		if e := p.ent(i); e != nil {
			e.flags |= outGone
		}
	}
	p.out = 0
	l.out -= n
	pl := l.queue.pool
	pl.outs -= n
	pl.messages -= n
	pl.memory -= int64(n) * entryOverhead
	pl.unwatchPage(p)
	l.queue.count -= n
	l.live -= n - 1
	p.live -= n - 1
	l.ended(p)
}

// remove forgets a message with an object; its state is done.
func (l *lane) remove(m *message, size int64) {
	p := m.page
	if m.page = nil; m.away {
		p.away--
	} else {
		p.data -= size
	}
	l.ended(p)
}

// ended is what follows when a message of p has become done. Pages are emptied in any order, for anybody may hold a message as long as he likes: those that
// are mostly empty are made smaller, and joined with their neighbours.
func (l *lane) ended(p *page) {
	l.live--
	p.live--
	if l.live == 0 {
		l.unlist()
	}
	if p.live == 0 {
		l.drop(p)
		return
	}
	p.advance()
	if used := p.len() - p.head; !p.reading && used >= 16 && p.live <= used/4 {
		p.gather(p)
		l.join(p)
	}
}

// drop takes an empty page out. The last one stays, as long as it is the only one and nobody waits for it.
func (l *lane) drop(p *page) {
	if len(l.pages) == 1 && !p.reading && !p.wanted {
		l.queue.pool.unwatchPage(p)
		p.reset()
		l.cur = 0
		return
	}
	l.cut(l.index(p))
}

// index finds a page in the row. Its places, if it has any, tell where it is.
func (l *lane) index(p *page) int {
	if l.pages[0] == p {
		return 0
	}
	if p.head < p.len() {
		if i := l.from(p.last() - 1); i < len(l.pages) && l.pages[i] == p {
			return i
		}
	}
	return slices.Index(l.pages, p)
}

// cut takes a page out of the row.
func (l *lane) cut(i int) {
	l.queue.pool.unwatchPage(l.pages[i])
	if i == 0 {
		l.pages[0] = nil
		l.pages = l.pages[1:]
	} else {
		l.pages = slices.Delete(l.pages, i, i+1)
	}
	if i < l.cur {
		l.cur--
	}
	l.cur = min(l.cur, max(len(l.pages)-1, 0))
	if i < l.hot {
		l.hot--
	}
}

// join puts a small page and the one before it, or else the one behind it, into one.
func (l *lane) join(p *page) {
	i := l.index(p)
	if i > 0 && l.merge(i-1) || i+1 < len(l.pages) && l.merge(i) {
		return
	}
}

// merge puts page i+1 into page i if both together are half a page at most. It reports whether it did.
func (l *lane) merge(i int) bool {
	a, b := l.pages[i], l.pages[i+1]
	if a.reading || b.reading || a.wanted || b.wanted || a.live+b.live > l.queue.pool.slots/2 || a.size+b.size > pageBytes/2 {
		return false
	}
	if a.live > 0 && b.live > 0 && (a.out == a.live) != (b.out == b.live) {
		return false // one of them needs no objects
	}
	a.gather(a, b)
	if b.deadline != nil {
		l.queue.pool.watchPage(a, b.deadline.at)
	}
	if l.cur == i+1 {
		l.cur = i
	}
	l.cut(i + 1)
	return true
}

// peek returns the first message that is ready and was never met, and its slot. It is nil if that is out; there is no slot if there is none.
func (l *lane) peek() (*message, slot) {
	for l.cur < len(l.pages) {
		p := l.pages[l.cur]
		for n := p.len(); p.met < n; p.met++ {
			m := p.obj(p.met)
			switch {
			case m == nil:
				if p.ent(p.met) != nil {
					return nil, slot{p, p.met}
				}
			case m.state == ready:
				return m, slot{p, p.met}
			default:
				m.unmet = false
			}
		}
		if l.cur == len(l.pages)-1 {
			break
		}
		l.cur++
	}
	return nil, slot{}
}

// cursor goes along a lane.
type cursor struct {
	l    *lane
	page int
	i    int
}

// behind is a cursor at the first message behind a place.
func (l *lane) behind(pos uint64) cursor {
	c := cursor{l: l, page: l.from(pos)}
	if c.page < len(l.pages) {
		c.i = l.pages[c.page].from(pos)
	}
	return c
}

// next goes on to the next message that is not done and reports whether there is one. Nothing may be added or removed while a cursor is used.
func (c *cursor) next() (slot, bool) {
	for c.page < len(c.l.pages) {
		p := c.l.pages[c.page]
		for c.i = max(c.i, p.head); c.i < p.len(); c.i++ {
			if !p.empty(c.i) {
				c.i++
				return slot{p, c.i - 1}, true
			}
		}
		c.page++
		c.i = 0
	}
	return slot{}, false
}

// each calls f with every message that is not done.
func (l *lane) each(f func(slot)) {
	c := l.behind(0)
	for s, ok := c.next(); ok; s, ok = c.next() {
		f(s)
	}
}
