package broker

import "math/bits"

// filter is a Bloom filter of ids, by their hashes. Sessions that come back after a recovery claim what they have acknowledged, too, and were not told of: to
// look for each such message in the whole backlog would take longer than all the rest.
type filter struct {
	bits  []uint64
	shift int
}

// filterWorth is how many messages a queue has for which a filter is worth its memory.
const filterWorth = 4096

// newFilter makes a filter for n ids. With 16 bits or more for each, four of them set, one id in 400 is wrongly taken for one of them.
func newFilter(n int) *filter {
	words := bits.Len(uint(n/4) | 1)
	return &filter{make([]uint64, 1<<words), 64 - 6 - words}
}

func (f *filter) size() int64 { return int64(len(f.bits)) * 8 }

// at are the four bits of a hash.
func (f *filter) at(h uint64, k int) (word, bit uint64) {
	h = bits.RotateLeft64(h*0x9e3779b97f4a7c15, 16*k)
	h = (h ^ h>>29) * 0xbf58476d1ce4e5b9
	return h >> f.shift >> 6, h >> f.shift & 63
}

func (f *filter) add(h uint64) {
	for k := range 4 {
		word, bit := f.at(h, k)
		f.bits[word] |= 1 << bit
	}
}

func (f *filter) has(h uint64) bool {
	for k := range 4 {
		word, bit := f.at(h, k)
		if f.bits[word]&(1<<bit) == 0 {
			return false
		}
	}
	return true
}

// index is where messages of a queue are, by the hashes of their ids: as far from the front as messages were that somebody has claimed. What sessions held when
// their broker died lies there, that of all of them mixed: if each looked for its own, the last of thousands would come too late.
type index struct {
	at map[uint64]indexed
}

type indexed struct {
	lane *lane
	pos  uint64
}

// indexOverhead is about what a message in an index costs, and indexShare the part of Config.MaxMemory, as 1/n, that one may take.
const (
	indexOverhead = 48
	indexShare    = 8
)

// find looks messages of a queue up by their ids, for claims. One that is out gets an object, without octets: nothing has to be read. Queues of many
// messages get a filter when something was looked for in vain, for as long as claims are expected.
func (s *store) find(q *queue, want map[msgID]basis) map[msgID]*message {
	if len(want) == 0 {
		return nil
	}
	found := make(map[msgID]*message, len(want))
	byHash := make(map[uint64]msgID, len(want))
	var some [256]uint64 // a bit for each hash that is wanted: most entries need no more
	for id := range want {
		h := s.hash(id)
		if m, known := s.lookUp(q, h, id); m != nil {
			found[id] = m
		} else if !known && (q.filter == nil || q.filter.has(h)) {
			byHash[h] = id
			some[h>>6&255] |= 1 << (h & 63)
		}
	}
	open := len(byHash)
	for _, l := range q.lanes {
		last := uint64(0)
		c := l.behind(l.indexed)
		for open > 0 {
			at, ok := c.next()
			if !ok {
				break
			}
			m := at.message()
			if m != nil {
				if _, wanted := want[m.id]; !wanted || m.state == done {
					continue
				}
			} else {
				h := at.entry().hash
				if some[h>>6&255]&(1<<(h&63)) == 0 {
					continue
				}
				id, wanted := byHash[h]
				if !wanted {
					continue
				}
				m = s.revive(at, id)
			}
			if found[m.id] == nil {
				found[m.id], last = m, m.pos
				open--
			}
		}
		s.index(q, l, last)
	}
	if open > 0 && q.filter == nil && q.count >= filterWorth {
		s.filter(q)
	}
	return found
}

// lookUp finds a message in the index. One that is known there and is gone is nowhere else.
func (s *store) lookUp(q *queue, h uint64, id msgID) (m *message, known bool) {
	where, known := q.index.at[h]
	if !known {
		return nil, false
	}
	at, ok := where.lane.find(where.pos)
	if !ok {
		return nil, true
	}
	if m = at.message(); m == nil && at.entry().hash == h {
		return s.revive(at, id), true
	}
	if m == nil || m.id != id || m.state == done {
		return nil, m == nil || m.id == id
	}
	return m, true
}

// index adds to the index what a lane has up to a place.
func (s *store) index(q *queue, l *lane, to uint64) {
	if to <= l.indexed {
		return
	}
	if q.index.at == nil {
		q.index.at = map[uint64]indexed{}
		s.indexes = append(s.indexes, q)
	}
	most := int(s.cfg.MaxMemory / indexShare / indexOverhead)
	c := l.behind(l.indexed)
	for at, ok := c.next(); ok && at.page.pos(at.i) <= to && len(q.index.at) < most; at, ok = c.next() {
		h := uint64(0)
		if m := at.message(); m != nil {
			h = s.hash(m.id)
		} else {
			h = at.entry().hash
		}
		l.indexed = at.page.pos(at.i)
		if _, there := q.index.at[h]; !there {
			q.index.at[h] = indexed{l, l.indexed}
			s.memory += indexOverhead
		}
	}
}

// filter gives a queue a filter of what is in it. What is added later is added to it.
func (s *store) filter(q *queue) {
	q.filter = newFilter(q.count)
	q.each(func(at slot) {
		if e := at.entry(); e != nil {
			q.filter.add(e.hash)
		} else {
			q.filter.add(s.hash(at.message().id))
		}
	})
	s.memory += q.filter.size()
	s.filtered = append(s.filtered, q)
}

// unfilter forgets filters and indexes: no claims are expected any more.
func (s *store) unfilter() {
	for _, q := range s.indexes {
		s.memory -= int64(len(q.index.at)) * indexOverhead
		q.index = index{}
		for _, l := range q.lanes {
			l.indexed = 0
		}
	}
	s.indexes = nil
	for _, q := range s.filtered {
		s.memory -= q.filter.size()
		q.filter = nil
	}
	s.filtered = nil
}
