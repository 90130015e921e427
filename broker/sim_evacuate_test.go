package broker

import (
	"bytes"
	"slices"

	"pgregory.net/rapid"

	"github.com/understudy-mq/understudy/broker/journal"
)

// emptying is a segment of the journal in memory that is being evacuated, as the mover does it.
type emptying struct {
	*evacuation
	records []journal.Record // still to be looked at
}

func (j *memory) stays(seg journal.Segment) bool { return !j.deleted[seg] }

// evacuate goes on with a segment that is being emptied, or begins with one.
func (w *world) evacuate() {
	j := w.log
	if j.empties == nil {
		var sealed []journal.Segment
		for _, r := range j.records {
			if s := r.Segment; s < j.seg && !slices.Contains(sealed, s) && j.durableUpTo(s) {
				sealed = append(sealed, s)
			}
		}
		if len(sealed) == 0 {
			return
		}
		seg := rapid.SampledFrom(sealed).Draw(w.t, "segment to be emptied")
		j.empties = &emptying{evacuation: &evacuation{store: w.store, segment: seg, stays: j.stays}}
		for _, r := range j.records {
			if r.Segment == seg {
				r.Payload = bytes.Clone(r.Payload)
				j.empties.records = append(j.empties.records, r.Record)
			}
		}
	}
	e := j.empties
	for range rapid.IntRange(1, len(e.records)).Draw(w.t, "records") {
		if err := e.take(&e.records[0]); err != nil {
			w.t.Fatal(err)
		}
		e.records = e.records[1:]
	}
	if len(e.records) == 0 {
		if err := e.forward(); err != nil {
			w.t.Fatal(err)
		}
		j.forwarded[e.segment] = j.next - 1
		j.empties = nil
	}
	w.store.flush()
	j.balance()
}

// durableUpTo reports whether all records of a segment count.
func (j *memory) durableUpTo(seg journal.Segment) bool {
	for _, r := range j.records {
		if r.Segment == seg && r.LSN > j.durable {
			return false
		}
	}
	return true
}

// balance checks that what is live in each segment, by the accounts, is what the store has there.
func (j *memory) balance() {
	live, octets := map[journal.Segment]int{}, map[journal.Segment]int64{}
	for seg, sum := range j.ended {
		live[seg], octets[seg] = -sum.Live, -sum.Bytes
	}
	for _, r := range j.records {
		live[r.Segment] += r.account.Live
		octets[r.Segment] += r.account.Bytes
		for _, end := range r.account.Ends {
			live[end.Segment]--
			octets[end.Segment] -= end.Bytes
		}
	}
	count := func(q *queue) {
		q.each(func(s slot) {
			m, e := s.message(), s.entry()
			if m != nil && m.transient {
				return
			}
			end := journal.Ending{}
			if m != nil {
				end = m.ending()
			} else {
				end = e.ending()
			}
			if j.deleted[end.Segment] {
				j.t.Fatalf("message %d of %s lives in segment %d, which was deleted", s.page.pos(s.i)>>placeBits, q.name, end.Segment)
			}
			live[end.Segment]--
			octets[end.Segment] -= end.Bytes
		})
	}
	for _, q := range j.store.queues {
		count(q)
	}
	for _, d := range j.store.durables {
		count(d.queue)
	}
	for _, q := range j.store.backlogs {
		count(q)
	}
	for _, q := range j.store.paging.dissolving {
		count(q)
	}
	for seg, n := range live {
		if !j.deleted[seg] && (n != 0 || octets[seg] != 0) {
			j.t.Fatalf("by their accounts records have %d things and %d octets more alive in segment %d than the store has", n, octets[seg], seg)
		}
	}
}

// sameAccount reports whether recovery says of a record what was said when it was appended, but for what ended or lost its segment since.
func (j *memory) sameAccount(kind byte, was, is journal.Account) bool {
	if was.Live != is.Live || was.Bytes != is.Bytes {
		return false
	}
	named := slices.Clone(is.Again)
	for _, end := range is.Ends {
		named = append(named, end.Segment)
	}
	for _, end := range was.Ends {
		if !j.deleted[end.Segment] && !slices.Contains(is.Ends, end) {
			return false
		}
	}
	for _, seg := range was.Again {
		if !j.deleted[seg] && !slices.Contains(named, seg) {
			return false
		}
	}
	return len(is.Ends)+len(is.Again) == len(was.Ends)+len(was.Again)
}
