package journal

import "slices"

// account is what the ledger knows of a segment.
type account struct {
	sealed           // end and last count once it is closed
	closed bool      // a later segment was begun
	live   int       // things in it that nothing has ended
	bytes  int64     // octets of those
	refs   []Segment // other segments that its endings refer to and that existed then; sorted
}

// ledger decides which segments can be deleted. It is pure. Segments are in LSN order and the last is the current one.
//
// A segment goes when nothing in it is live and no ending in it refers to a segment that stays. The ledger may run ahead of what is durable: that a segment
// goes is said by a record that follows all that led to it, its file goes when that record is durable, and recovery keeps or loses a record
// together with all that follow.
type ledger struct {
	list  []*account
	dirty bool // something changed that may let a segment go
}

func (l *ledger) begin(p place, first LSN) {
	l.list = append(l.list, &account{sealed: sealed{place: p, first: first}})
}

// seal closes the current segment.
func (l *ledger) seal(last LSN, end int64) {
	a := l.list[len(l.list)-1]
	a.last, a.end, a.closed = last, end, true
	l.dirty = true
}

// find looks a segment up; almost always it is near the end or near the beginning of a short list.
func (l *ledger) find(id Segment) *account {
	if n := len(l.list); n > 0 && l.list[n-1].id == id {
		return l.list[n-1]
	}
	i, ok := slices.BinarySearchFunc(l.list, id, func(a *account, id Segment) int {
		switch {
		case a.id < id:
			return -1
		case a.id > id:
			return 1
		}
		return 0
	})
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
	}
	for _, end := range a.Ends {
		s := l.find(end.Segment)
		if s == nil {
			continue // deleted already: cannot come back
		}
		s.live--
		s.bytes -= end.Bytes
		if s.live == 0 {
			s.bytes, l.dirty = 0, true
		}
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
	if n := len(a.refs); n > 0 && a.refs[n-1] == id {
		return
	}
	if i, ok := slices.BinarySearch(a.refs, id); !ok {
		a.refs = slices.Insert(a.refs, i, id)
	}
}

// dead lists the segments that can go together, oldest first. The caller makes that decision durable before it touches a file, and tells remove.
func (l *ledger) dead() []*account {
	if !l.dirty {
		return nil
	}
	l.dirty = false
	var out []*account
	for again := true; again; { // endings refer backwards, so one pass finds nearly all
		again = false
		for _, a := range l.list {
			if !a.closed || a.live != 0 || slices.Contains(out, a) {
				continue
			}
			if !slices.ContainsFunc(a.refs, func(id Segment) bool { return l.stays(id, out) }) {
				out = append(out, a)
				again = len(a.refs) > 0 || again
			}
		}
	}
	slices.SortFunc(out, func(a, b *account) int { return a.less(b.place) })
	return out
}

func (l *ledger) stays(id Segment, going []*account) bool {
	s := l.find(id)
	return s != nil && !slices.Contains(going, s)
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
