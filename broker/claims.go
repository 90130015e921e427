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

// find looks messages of a queue up by their ids, for claims. One that is out gets an object, without octets: nothing has to be read. Queues of many
// messages get a filter when something was looked for in vain, for as long as claims are expected.
func (s *store) find(q *queue, want map[msgID]basis) map[msgID]*message {
	if len(want) == 0 {
		return nil
	}
	byHash := make(map[uint64]msgID, len(want))
	var some [256]uint64 // a bit for each hash that is wanted: most entries need no more
	for id := range want {
		if h := s.hash(id); q.filter == nil || q.filter.has(h) {
			byHash[h] = id
			some[h>>6&255] |= 1 << (h & 63)
		}
	}
	found := make(map[msgID]*message, len(byHash))
	for _, l := range q.lanes {
		c := l.behind(0)
		for len(found) < len(byHash) {
			at, ok := c.next()
			if !ok {
				break
			}
			if m := at.message(); m != nil {
				if _, wanted := want[m.id]; wanted && m.state != done {
					found[m.id] = m
				}
				continue
			}
			h := at.entry().hash
			if some[h>>6&255]&(1<<(h&63)) == 0 {
				continue
			}
			if id, wanted := byHash[h]; wanted {
				found[id] = s.revive(at, id)
			}
		}
	}
	if len(found) < len(byHash) && q.filter == nil && q.count >= filterWorth {
		s.filter(q)
	}
	return found
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

// unfilter forgets the filters: no claims are expected any more.
func (s *store) unfilter() {
	for _, q := range s.filtered {
		s.memory -= q.filter.size()
		q.filter = nil
	}
	s.filtered = nil
}
