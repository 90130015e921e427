package journal

import (
	"fmt"
	"slices"
)

// Copy says how far a warm copy is.
type Copy struct {
	Epoch   uint64 // whose log is followed
	Applied LSN    // the last record that was visited
	Proved  LSN    // the last that its owner is known to have acknowledged
	Records uint64 // visited
	Cold    string // why there is no copy; "" where there is one
}

// copied is a warm copy as a follower leaves it to recovery.
type copied struct {
	epoch   uint64 // of the newest mark
	ledger  ledger
	records uint64
	at      found    // the segment that was being read, as far as it was
	off     int64    // where to read on in it
	next    LSN      // and what
	rest    []sealed // segments that were to come, in order; where the last one ends was not settled
}

func (f *follower) snapshot() *copied {
	s := f.trail[0]
	c := &copied{epoch: f.epoch, ledger: f.r.ledger, records: f.r.records, at: f.at, off: s.sc.off, next: s.sc.next}
	for _, s := range f.trail[1:] {
		c.rest = append(c.rest, s.sealed)
	}
	return c
}

// resume compares the log, as it was found behind the claimed epoch, with the copy, and returns what is left to visit. The log must begin with
// what was visited: every segment of it that was visited is known here with the same extent, the one that was being read goes at least as far, and behind it comes
// what was to come and then one record after the other. What was deleted since is forgotten; where that was not visited to its end, the copy is
// no state that the log was in.
func (r *recovery) resume(list []sealed, end found, places []place) ([]sealed, error) {
	c := r.copy
	if err := mended(r.disk, c.epoch, r.ours, places); err != nil {
		return nil, err
	}
	n, there := slices.BinarySearchFunc(list, c.at.place, func(s sealed, p place) int { return s.less(p) })
	cut, todo := end.opening.prev, list[n:]
	later := todo
	if there {
		cut, later = todo[0], todo[1:]
	} else {
		cut.first = c.at.opening.first
	}
	switch {
	case cut.place != c.at.place || cut.first != c.at.opening.first:
		return nil, fmt.Errorf("%w: %s is not part of it", errStale, c.at.name())
	case !there && (len(c.rest) > 0 || c.off != cut.end):
		return nil, fmt.Errorf("%w: %s was deleted before it was visited", errStale, c.at.name())
	case c.off > cut.end || c.next > cut.last+1 || (c.off == cut.end) != (c.next == cut.last+1):
		return nil, fmt.Errorf("%w: %s was cut behind record %d, and record %d was visited", errStale, c.at.name(), cut.last, c.next-1)
	}
	last := cut.last
	for i, s := range c.rest {
		if i >= len(later) || later[i].place != s.place || later[i].first != s.first || i < len(c.rest)-1 && later[i] != s {
			return nil, fmt.Errorf("%w: %s was deleted before it was visited", errStale, s.name())
		}
		last = later[i].last
	}
	if err := contiguous(last, later[len(c.rest):]); err != nil {
		return nil, err
	}
	r.ledger, r.records = c.ledger, c.records
	if err := r.ledger.reduce(list[:n], c.at.place); err != nil {
		return nil, err
	}
	if !there {
		r.ledger.without(func(a *account) bool { return a.place == c.at.place })
	}
	return todo, nil
}

// mended looks for a repair in the epochs between two. It leaves segments with the names and extents that they had, with other records in them; but it takes an
// epoch, and leaves a mark in it and no segment. (An owner has a segment; one whose last is deleted has a successor, and whoever followed neither is told
// to begin again for nothing.)
func mended(d *disk, from, to uint64, places []place) error {
	for e := from + 1; e < to; e++ {
		k, err := readMark(d, e)
		if err != nil {
			return err
		}
		if k.lsn > 0 && !slices.ContainsFunc(places, func(p place) bool { return p.epoch == e }) {
			return fmt.Errorf("%w: it was repaired in epoch %d", errStale, e)
		}
	}
	return nil
}

// reduce compares the segments before p with a later list of them and forgets those that it does not name any more.
func (l *ledger) reduce(list []sealed, p place) error {
	for _, s := range list {
		if a := l.find(s.id); a == nil || a.sealed != s {
			return fmt.Errorf("%w: it holds %s, records %d to %d", errStale, s.name(), s.first, s.last)
		}
	}
	l.without(func(a *account) bool {
		_, ok := slices.BinarySearchFunc(list, a.place, func(s sealed, p place) int { return s.less(p) })
		return !ok && a.less(p) < 0
	})
	return nil
}

// without forgets segments that were deleted.
func (l *ledger) without(gone func(*account) bool) {
	n := len(l.list)
	l.list = slices.DeleteFunc(l.list, func(a *account) bool {
		if !gone(a) {
			return false
		}
		l.bytes -= a.bytes
		return true
	})
	l.dirty = l.dirty || len(l.list) < n
}
