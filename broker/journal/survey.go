package journal

import (
	"errors"
	"io/fs"
	"slices"
)

// survey is a store as it reads beyond its damage: what Check tells of, and what Repair puts in order.
type survey struct {
	chain   []*examined // the segments of the log, in order
	strange []place     // files that stop recovery, and hold nothing of the log
	newer   bool        // a newer version was here
	guessed bool        // the list of segments could not be read, so the chain is what older lists name and is there
	unsure  []sealed    // what they name, and is not there: deleted in good order, or lost
}

// survey reads the store. The error is visit's, or one of the file system other than damage.
func (r *recovery) survey(visit func(Record) error) (*survey, error) {
	s := &survey{}
	r.exact = false
	places, err := r.list()
	if err != nil {
		return nil, err
	}
	end, err := s.latest(r, places)
	if err != nil {
		return nil, err
	}
	if end == nil {
		if r.mark.lsn > 0 {
			s.chain = append(s.chain, r.vanished())
		}
		return s, nil
	}
	last, err := r.examine(*end, nil, 0, nil)
	if err != nil {
		return nil, err
	}
	list, err := s.members(r, last, places)
	if err != nil {
		return nil, err
	}
	if s.guessed {
		list = s.plausible(list, places)
	}
	first := last.first
	for _, b := range list {
		e, err := r.examine(b.place, &b, 0, visit)
		if err != nil {
			return nil, err
		}
		s.add(e)
		if !last.header {
			first = e.last + 1
		}
	}
	lostCount := first == 0 // nothing in it is whole: it goes on behind what was acknowledged
	if lostCount {
		first = r.mark.lsn
	}
	if last, err = r.examine(*end, nil, first, visit); err != nil {
		return nil, err
	}
	if n := len(last.gaps); lostCount && n > 0 {
		last.gaps[n-1].from = 1
	}
	s.add(last)
	if s.guessed {
		s.between()
	}
	return s, nil
}

// between finds numbers that no segment has. Deleted segments leave such holes; where no list says so, lost ones may have left them.
func (s *survey) between() {
	next := LSN(1)
	for _, e := range s.chain {
		covered := slices.ContainsFunc(s.unsure, func(b sealed) bool { return b.first < e.first && b.last >= next }) ||
			slices.ContainsFunc(e.gaps, func(g gap) bool { return g.from <= next && g.to >= next })
		if e.first > next && !covered {
			s.unsure = append(s.unsure, sealed{place: e.place, first: next, last: e.first - 1})
		}
		next = e.last + 1
	}
}

func (s *survey) add(e *examined) {
	s.newer = s.newer || e.newer
	s.chain = append(s.chain, e)
}

// vanished stands for a log of which only the mark is left.
func (r *recovery) vanished() *examined {
	end := int64(segmentHeader + recordHeader)
	e := &examined{place: place{r.mark.epoch, r.mark.segment}, absent: true, first: r.mark.lsn, last: r.mark.lsn, end: end}
	e.miss(gap{off: 0, end: end, from: 1, to: r.mark.lsn, reason: "acknowledged records are gone with their segment"})
	return e
}

// latest finds the segment where the log ends: the newest that was begun, or of which anything says so though its beginning is damaged.
func (s *survey) latest(r *recovery, places []place) (end *place, err error) {
	var above []found
	var strange []place
	known := LSN(0) // the highest number below those
	for _, p := range slices.Backward(places) {
		c, err := r.inspect(p)
		switch {
		case errors.Is(err, fs.ErrNotExist): // deleted meanwhile, by an owner that lives
			continue
		case err != nil && !errors.Is(err, ErrDamaged):
			return nil, err
		case c.begun:
			end, known = &c.place, max(c.last, c.beyond.last)
		default:
			above = append(above, c)
			s.newer = s.newer || errors.Is(err, errVersion)
			if err != nil {
				strange = append(strange, p)
			}
			continue
		}
		break
	}
	for _, c := range slices.Backward(above) {
		if r.showsLife(c, known) {
			end, known = &c.place, max(known, c.beyond.last)
		}
	}
	for _, p := range strange {
		if end == nil || end.less(p) < 0 {
			s.strange = append(s.strange, p)
		}
	}
	return end, nil
}

// showsLife says whether a segment whose opening group is not whole has to be part of the log all the same: a record was acknowledged in it, or its header
// shows that records were acknowledged which nothing below it has.
func (r *recovery) showsLife(c found, known LSN) bool {
	switch {
	case r.mark.lsn > 0 && r.mark.segment == c.id && r.mark.epoch == c.epoch:
		return true
	case c.opening.first > 0:
		return max(c.proof, c.beyond.durable) >= c.opening.first || c.opening.first-1 > known
	}
	return c.beyond.durable > known
}

// members lists the segments before e, from its manifest or, where that is unreadable, from its predecessor's.
func (s *survey) members(r *recovery, e *examined, places []place) ([]sealed, error) {
	if e.listed {
		return slices.DeleteFunc(e.manifest, func(b sealed) bool { return slices.Contains(e.drops, b.id) }), nil
	}
	s.guessed = true
	var bound *sealed
	var before place
	if e.header && !e.foreign {
		if before = e.opening.prev.place; before.id == 0 {
			return nil, nil
		}
		bound = &e.opening.prev
	}
	if bound == nil {
		before = e.place
	}
	if bound == nil || !slices.Contains(places, before) { // deleted, or lost: then what was before it is all that can be known
		i, _ := slices.BinarySearchFunc(places, before, place.less)
		if i == 0 {
			return nil, nil
		}
		before, bound = places[i-1], nil
	}
	q := *r
	q.mark, q.all = mark{}, true // something was begun behind it, so nothing in it is a torn tail
	p, err := q.examine(before, bound, 0, nil)
	r.buf = q.buf
	if err != nil {
		return nil, err
	}
	list, err := s.members(r, p, places)
	if err != nil || p.foreign && bound == nil {
		return list, err
	}
	if p.first == 0 && bound != nil { // nothing in it says, so it began where its predecessor ended
		p.first = 1
		if n := len(list); n > 0 {
			p.first = list[n-1].last + 1
		}
	}
	if p.first == 0 || p.first > p.last {
		return list, nil
	}
	return append(list, p.sealedAs()), nil
}

// plausible keeps of a list that was put together what is there and in order.
func (s *survey) plausible(list []sealed, places []place) (kept []sealed) {
	for _, b := range list {
		n := len(kept)
		switch {
		case !slices.Contains(places, b.place):
			s.unsure = append(s.unsure, b)
		case n == 0 || b.first > kept[n-1].last && b.id > kept[n-1].id:
			kept = append(kept, b)
		}
	}
	return kept
}

// problem says that a segment is missing, perhaps.
func (b sealed) problem() Problem {
	return Problem{File: b.name(), From: b.first, To: b.last,
		Reason: "the segments before this, or it, are missing; whether they were deleted in good order cannot be known, for the last list of segments is unreadable"}
}
