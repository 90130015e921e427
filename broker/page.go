package broker

import (
	"slices"
	"sort"

	"github.com/understudy-mq/understudy/broker/journal"
)

// entry is what stays in memory of a message that is out: ready, in the journal and durable. It has no pointers, so that the collector of garbage never looks
// at a backlog.
//
//	pos      place in the queue: the LSN of the record that brought the message, and which of its messages it is (placeBits)
//	hash     of the msgID, by pool.hash
//	segment  and block: where the record lies that has it now, the offset in blocks of eight octets
//	size     of its header lines and its body
type entry struct {
	pos     uint64
	hash    uint64
	segment uint32
	block   uint32
	size    uint32
	ordinal uint32
	flags   uint8
}

// Flags of an entry.
const (
	outRedelivered = 1 << iota // message.redelivered
	outRecovered               // message.recovered
	outGone                    // acknowledged or discarded: the slot is empty
)

// blockBytes is what the offsets of records are multiples of.
const blockBytes = 8

func (e *entry) lsn() journal.LSN { return journal.LSN(e.pos >> placeBits) }

func (e *entry) index() uint32 { return uint32(e.pos & (1<<placeBits - 1)) }

// home is where the message's record lies. Which LSN that has is known only if the message was never relocated, so it is left out.
func (e *entry) home() journal.Position {
	return journal.Position{Segment: journal.Segment(e.segment), Offset: int64(e.block) * blockBytes}
}

func (e *entry) move(to journal.Position) {
	e.segment, e.block = uint32(to.Segment), uint32(to.Offset/blockBytes)
}

// ending is what it means for its segment that the message goes.
func (e *entry) ending() journal.Ending {
	return journal.Ending{Segment: journal.Segment(e.segment), Bytes: int64(e.size) + storedOverhead}
}

// placeOf is the place of a message of the journal.
func placeOf(lsn journal.LSN, index uint32) uint64 { return uint64(lsn)<<placeBits | uint64(index) }

// Sizes of pages. A page is what is read back at once.
const (
	pageSlots = 256
	pageBytes = 256 << 10
	// entryOverhead is what a message that is out costs in memory: its entry, and its share in the page.
	entryOverhead = 44
)

// page is a run of a lane's messages in the order of their places. Each slot has an object (of a message that was taken or that came in this epoch and
// did not go out), or an entry, or neither if the message is done. An object without its octets is away: it is held, say, and will be read again when it
// has to be sent.
type page struct {
	lane *lane
	objs []*message // by slot; nil if no slot has an object
	outs []entry    // by slot; nil if no slot has an entry
	head int        // slots before it are empty
	met  int        // slots at the front that peek has passed
	live int        // slots that are not empty
	out  int        // of those: that have an entry
	away int        // of those: that have an object which is away
	data int64      // octets of messages at hand
	size int64      // octets of all messages it was given: it takes no more beyond pageBytes

	newest   journal.LSN // of what it was given or what was moved: nothing of it goes out before this is durable
	deadline *deadline   // the earliest of those that are out
	wanted   bool        // somebody waits for what is not there
	reading  bool        // and the loader is at it
	fresh    bool        // was read and not looked at since
	tried    uint64      // the last round in which it was asked to go out
	failures int         // to read it, in a row
	waiters  []*subscription
}

// slot is one place in a page.
type slot struct {
	page *page
	i    int
}

// message returns the object of a slot, or nil.
func (s slot) message() *message { return s.page.obj(s.i) }

// entry returns the entry of a slot whose message is out, or nil.
func (s slot) entry() *entry { return s.page.ent(s.i) }

func (p *page) len() int {
	if p.objs != nil {
		return len(p.objs)
	}
	return len(p.outs)
}

// obj returns the object in slot i, or nil. It may be done.
func (p *page) obj(i int) *message {
	if p.objs == nil {
		return nil
	}
	return p.objs[i]
}

// ent returns the entry in slot i, or nil.
func (p *page) ent(i int) *entry {
	if p.outs == nil || p.objs != nil && p.objs[i] != nil || p.outs[i].flags&outGone != 0 {
		return nil
	}
	return &p.outs[i]
}

// pos is the place of slot i, which is not before head.
func (p *page) pos(i int) uint64 {
	if m := p.obj(i); m != nil {
		return m.pos
	}
	return p.outs[i].pos
}

func (p *page) last() uint64 { return p.pos(p.len() - 1) }

// from returns the first slot behind a place.
func (p *page) from(pos uint64) int {
	return p.head + sort.Search(p.len()-p.head, func(i int) bool { return p.pos(p.head+i) > pos })
}

// find returns the slot of a place; -1 if there is none.
func (p *page) find(pos uint64) int {
	if pos == 0 {
		return -1
	}
	i := p.from(pos - 1)
	if i == p.len() || p.pos(i) != pos || p.empty(i) {
		return -1
	}
	return i
}

// empty reports whether the message in slot i is gone. One that is done and not removed yet is there.
func (p *page) empty(i int) bool {
	if m := p.obj(i); m != nil {
		return m.page == nil
	}
	return p.ent(i) == nil
}

// absent is how many messages of the page have to be read before they can be sent.
func (p *page) absent() int { return p.out + p.away }

// roomy reports whether a message of that size may go into the page.
func (p *page) roomy(size int64) bool {
	return p.len() < p.lane.queue.pool.slots && (p.size+size <= pageBytes || p.len() == 0)
}

// advance moves head over empty slots.
func (p *page) advance() {
	for n := p.len(); p.head < n && p.empty(p.head); p.head++ {
		if p.objs != nil {
			p.objs[p.head] = nil
		}
		if p.outs != nil {
			p.outs[p.head].flags |= outGone
		}
	}
}

// reset makes an empty page as good as new, with the slots it has.
func (p *page) reset() {
	clear(p.objs)
	*p = page{lane: p.lane, objs: p.objs[:0]}
}

// gather makes the slots anew from what is not empty in the pages before, in their order. The lane's own account of what is where is not touched by it.
func (p *page) gather(before ...*page) {
	var objs []*message
	var outs []entry
	live, out, met := 0, 0, 0
	for _, b := range before {
		live, out = live+b.live, out+b.out
	}
	if out > 0 {
		outs = make([]entry, 0, live)
	}
	if out < live {
		objs = make([]*message, 0, live)
	}
	passed := true // so far, all that peek comes to
	for _, b := range before {
		for i := b.head; i < b.len(); i++ {
			if b.empty(i) {
				continue
			}
			if passed && i < b.met {
				met++
			}
			m := b.obj(i)
			if m != nil {
				m.page = p
			}
			if objs != nil {
				objs = append(objs, m)
			}
			if outs != nil {
				e := entry{}
				if m == nil {
					e = b.outs[i]
				} else {
					e.pos = m.pos
				}
				outs = append(outs, e)
			}
		}
		passed = passed && b.met >= b.len()
	}
	size, data, away, newest := int64(0), int64(0), 0, journal.LSN(0)
	for _, b := range before {
		data, away, newest = data+b.data, away+b.away, max(newest, b.newest)
		if b.len() > 0 {
			size += b.size * int64(b.live) / int64(b.len())
		}
	}
	p.objs, p.outs, p.head, p.met, p.live, p.out = objs, outs, 0, met, live, out
	p.size, p.data, p.away, p.newest = size, data, away, newest
}

// grown returns list with room for one more, up to most.
func grown[T any](list []T, most int) []T {
	if len(list) < cap(list) {
		return list
	}
	return slices.Grow(list, min(max(4, 7*len(list)), max(most-len(list), 1)))
}
