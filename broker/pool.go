package broker

import (
	"container/heap"
	"hash/maphash"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// pool is what all lanes of a store share: what they hold, and the clock of those that expire.
type pool struct {
	seed  maphash.Seed
	slots int // of a page

	memory    int64 // octets: of messages at hand with their overhead, of entries, of what transactions hold
	messages  int   // on queues, those included that are out
	outs      int   // messages that are out
	deadlines deadlines

	lanes []*lane // those that have messages at hand: eviction goes round them
}

func newPool() *pool { return &pool{seed: maphash.MakeSeed(), slots: pageSlots} }

// hash is what an entry keeps of an id. The seed is the pool's: nobody can make ids that collide.
func (pl *pool) hash(id msgID) uint64 { return maphash.Comparable(pl.seed, id) }

// newEntry makes the entry of a message that a record at home brought, or relocated. lsn and index are where it was first.
func (pl *pool) newEntry(id msgID, lsn journal.LSN, index uint32, home journal.Position, size int, flags uint8) entry {
	e := entry{pos: placeOf(lsn, index), hash: pl.hash(id), size: uint32(size), flags: flags}
	e.move(home)
	return e
}

// list makes a lane one that eviction looks at.
func (l *lane) list() {
	if l.at == 0 {
		pl := l.queue.pool
		pl.lanes = append(pl.lanes, l)
		l.at = len(pl.lanes)
	}
}

func (l *lane) unlist() {
	if l.at == 0 {
		return
	}
	pl := l.queue.pool
	last := len(pl.lanes) - 1
	moved := pl.lanes[last]
	pl.lanes[l.at-1], moved.at = moved, l.at
	pl.lanes[last] = nil
	pl.lanes = pl.lanes[:last]
	l.at = 0
}

// watchPage has the clock look at a page when the first of its messages that are out expires.
func (pl *pool) watchPage(p *page, at time.Time) {
	switch d := p.deadline; {
	case d == nil:
		p.deadline = &deadline{at: at, page: p}
		heap.Push(&pl.deadlines, p.deadline)
	case at.Before(d.at):
		d.at = at
		heap.Fix(&pl.deadlines, d.index)
	}
}

func (pl *pool) unwatchPage(p *page) {
	if p.deadline != nil {
		heap.Remove(&pl.deadlines, p.deadline.index)
		p.deadline = nil
	}
}
