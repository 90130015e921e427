package broker

import (
	"errors"

	"github.com/understudy-mq/understudy/broker/journal"
)

// dissolveSome ends messages of queues that are gone, a few pages at a time: the journal learns of them without their being read.
func (s *store) dissolveSome() {
	g := &s.paging
	budget := dissolvePages
	for len(g.dissolving) > 0 && budget > 0 {
		q := g.dissolving[0]
		more := false
		for _, l := range q.lanes {
			for i := 0; i < len(l.pages) && l.out > 0; {
				p := l.pages[i]
				if p.out == 0 {
					i++
					continue
				}
				if budget--; budget < 0 {
					more = true
					break
				}
				if !s.endPage(p) { // it may be gone then
					return
				}
			}
		}
		if !more {
			g.dissolving = g.dissolving[1:]
		}
	}
	if len(g.dissolving) == 0 {
		g.dissolving = nil
	}
}

// endPage ends what is out of a page. It reports false if the disk has no room for the record: then it is tried again, for else nothing would
// free the segments of what is in it. A journal that has failed or is closing takes nothing any more: the next owner ends it again.
func (s *store) endPage(p *page) bool {
	s.ends = s.ends[:0]
	s.scratch = appendOrigin(s.scratch[:0], origin{})
	s.scratch, s.ends = appendEnded(s.scratch, s.ends, p)
	_, err := s.append(journal.Entry{Type: recAck, Payload: s.scratch, Account: journal.Account{Ends: s.ends}}, pend{})
	if errors.Is(err, journal.ErrFull) {
		return false
	}
	p.lane.endAll(p)
	return true
}
