package journal

import (
	"cmp"
	"slices"
)

// account is what the ledger knows of a segment.
type account struct {
	sealed       // end and last count once it is closed
	closed bool  // a later segment was begun
	index  int64 // octets of the file of its index; 0 if there is none
	live   int   // things in it that nothing has ended
	bytes  int64 // octets of those
	start  int64 // where the records behind the head begin: what can be had back if the rest is moved elsewhere
	size   int64 // of its file
	refs   []ref // sorted by segment
	// emptied: the caller has moved and told again what is in it, and then so many things were left, which it should not have missed.
	emptied bool
	left    int
}

// ref says that a segment holds so many endings of things in another one, which existed then.
type ref struct {
	to Segment
	n  int
}

// ledger decides which segments can be deleted. It is pure. Segments are in LSN order and the last is the current one.
//
// A segment goes when nothing in it is live and no ending in it refers to a segment that stays. The ledger may run ahead of what is durable: that a segment
// goes is said by a record that follows all that led to it, its file goes when that record is durable, and recovery keeps or loses a record
// together with all that follow.
type ledger struct {
	list  []*account
	bytes int64 // octets of what is live in all of them
	dirty bool  // something changed that may let a segment go
}

func (l *ledger) begin(p place, first LSN) {
	l.list = append(l.list, &account{sealed: sealed{place: p, first: first}, start: segmentHeader})
}

// opened says where the records behind the head of the current segment begin.
func (l *ledger) opened(off int64) { l.list[len(l.list)-1].start = off }

// seal closes the current segment, whose file has size octets, or as many as its log if they are more.
func (l *ledger) seal(last LSN, end, size int64) {
	a := l.list[len(l.list)-1]
	a.last, a.end, a.size, a.closed = last, end, max(end, size), true
	l.dirty = true
}

// find looks a segment up; almost always it is near the end or near the beginning of a short list.
func (l *ledger) find(id Segment) *account {
	if n := len(l.list); n > 0 && l.list[n-1].id == id {
		return l.list[n-1]
	}
	i, ok := slices.BinarySearchFunc(l.list, id, func(a *account, id Segment) int { return cmp.Compare(a.id, id) })
	if !ok {
		return nil
	}
	return l.list[i]
}

// note books a record of segment id, whose payload has size octets.
func (l *ledger) note(id Segment, size int, a Account) {
	own := l.find(id)
	if a.Live > 0 {
		if a.Bytes == 0 {
			a.Bytes = int64(size)
		}
		own.live += a.Live
		own.bytes += a.Bytes
		l.bytes += a.Bytes
	}
	for _, end := range a.Ends {
		s := l.find(end.Segment)
		if s == nil {
			continue // deleted already: cannot come back
		}
		s.live--
		gone := end.Bytes
		if s.live == 0 {
			gone, l.dirty = s.bytes, true // whoever tells no octets with an ending leaves them to the last one
		}
		s.bytes -= gone
		l.bytes -= gone
		if s != own {
			own.refer(end.Segment)
		}
	}
	for _, id := range a.Again {
		if s := l.find(id); s != nil && s != own {
			own.refer(id)
		}
	}
}

func (a *account) refer(id Segment) {
	i := len(a.refs) - 1
	if i < 0 || a.refs[i].to != id {
		var ok bool
		i, ok = slices.BinarySearchFunc(a.refs, id, func(r ref, id Segment) int { return cmp.Compare(r.to, id) })
		if !ok {
			a.refs = slices.Insert(a.refs, i, ref{to: id})
		}
	}
	a.refs[i].n++
}

// dead lists the segments that can go together, oldest first. The caller makes that decision durable before it touches a file, and tells remove.
func (l *ledger) dead() []*account {
	if !l.dirty {
		return nil
	}
	l.dirty = false
	going := l.free()
	out := make([]*account, 0, len(going))
	for _, a := range l.list {
		if going[a.id] {
			out = append(out, a)
		}
	}
	return out
}

// free is what dead lists, in no order.
func (l *ledger) free() map[Segment]bool {
	var going map[Segment]bool
	for again := true; again; { // endings refer backwards, so one pass finds nearly all
		again = false
		for _, a := range l.list {
			if !a.closed || a.live != 0 || going[a.id] {
				continue
			}
			if !slices.ContainsFunc(a.refs, func(r ref) bool { return l.stays(r.to, going) }) {
				if going == nil {
					going = map[Segment]bool{}
				}
				going[a.id] = true
				again = len(a.refs) > 0 || again
			}
		}
	}
	return going
}

func (l *ledger) stays(id Segment, going map[Segment]bool) bool {
	return l.find(id) != nil && !going[id]
}

func (l *ledger) remove(gone []*account) {
	l.list = slices.DeleteFunc(l.list, func(a *account) bool { return slices.Contains(gone, a) })
	l.dirty = l.dirty || len(gone) > 0
}

// manifest lists what stays, but for the current segment.
func (l *ledger) manifest() []sealed {
	list := make([]sealed, 0, len(l.list))
	for _, a := range l.list {
		if a.closed {
			list = append(list, a.sealed)
		}
	}
	return list
}
