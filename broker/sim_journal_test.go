package broker

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// memory is a journal in memory with segments, heads and deletion as the real one has them. A crash keeps what was durable and any part of
// what was not.
type memory struct {
	t       interface{ Fatalf(string, ...any) }
	full    func() bool // whether the disk is, just now; may be nil
	behind  func() bool // whether a file is missing, just now; may be nil
	store   *store
	epoch   uint64
	records []memoryRecord
	next    journal.LSN
	seg     journal.Segment
	inSeg   int
	durable journal.LSN
	deleted map[journal.Segment]bool
	// forwarded are segments whose endings were told again, up to a record; empties is the one for which this goes on.
	forwarded map[journal.Segment]journal.LSN
	empties   *emptying
	// ended is what records that were deleted have ended in segments that stay.
	ended map[journal.Segment]journal.Account
}

type memoryRecord struct {
	journal.Record
	front   int // octets of the payload that recovery is shown; 0: all
	account journal.Account
}

const segmentRecords = 12

func (j *memory) Append(e journal.Entry) (journal.Position, error) {
	if j.full != nil && e.Live > 0 && !e.Reserve && j.full() {
		return journal.Position{}, journal.ErrFull
	}
	if j.behind != nil && e.Live > 0 && !e.Reserve && j.behind() {
		return journal.Position{}, journal.ErrBehind
	}
	if j.inSeg >= segmentRecords {
		j.open()
	}
	j.put(e)
	j.inSeg++
	return j.records[len(j.records)-1].Position, nil
}

func (j *memory) open() {
	j.seg++
	j.inSeg = 0
	for _, e := range j.store.head() {
		j.put(e)
	}
}

func (j *memory) put(e journal.Entry) {
	r := journal.Record{Position: journal.Position{LSN: j.next, Segment: j.seg, Offset: int64(j.next) * blockBytes}, Size: len(e.Payload), Epoch: j.epoch, Type: e.Type, Payload: bytes.Clone(e.Payload)}
	j.records = append(j.records, memoryRecord{r, e.Front, journal.Account{Live: e.Live, Bytes: e.Bytes, Ends: slices.Clone(e.Ends), Again: slices.Clone(e.Again)}})
	j.next++
}

// Read is the journal's. The offsets are LSNs.
func (j *memory) Read(at journal.Position, _ []byte) (journal.Record, error) {
	for i := range j.records {
		if r := &j.records[i]; r.Segment == at.Segment && r.Offset == at.Offset {
			if r.LSN > j.durable {
				j.t.Fatalf("record %d is read and not durable yet", r.LSN)
			}
			if at.LSN != 0 && at.LSN != r.LSN {
				break
			}
			return r.Record, nil
		}
	}
	return journal.Record{}, fmt.Errorf("nothing lies at %+v: %w", at, journal.ErrDamaged)
}

// content is a message as it would be if it was read.
func (j *memory) content(at slot) *message {
	m := at.message()
	if m != nil && !m.away {
		return m
	}
	e := at.page.readingOf(at.i)
	for i := range j.records {
		r := &j.records[i].Record
		if r.Segment != e.at.Segment || r.Offset != e.at.Offset {
			continue
		}
		var d digest
		if err := d.read(r); err != nil {
			j.t.Fatalf("message at %d: %v", e.pos, err)
		}
		c, err := d.content(e.pos)
		if err != nil {
			j.t.Fatalf("message at %d: %v", e.pos, err)
		}
		return &message{id: c.id, pos: e.pos, data: c.data, split: c.split}
	}
	j.t.Fatalf("the message at %+v is nowhere", e)
	return nil
}

// sync makes everything up to through durable, and deletes the segments that are dead then.
func (j *memory) sync(through journal.LSN) {
	j.durable = through
	live, current := map[journal.Segment]int{}, journal.Segment(0)
	for seg, sum := range j.ended {
		live[seg] -= sum.Live
	}
	for _, r := range j.records {
		if r.LSN <= through {
			live[r.Segment] += r.account.Live
			current = r.Segment
			for _, end := range r.account.Ends {
				live[end.Segment]--
			}
		}
	}
	for again := true; again; {
		again = false
		for seg := range live {
			if seg >= current || j.deleted[seg] || live[seg] != 0 {
				continue
			}
			free := true
			for _, r := range j.records {
				if told, ok := j.forwarded[seg]; r.Segment != seg || ok && told <= through {
					continue
				}
				for _, end := range r.account.Ends {
					free = free && (end.Segment == seg || j.deleted[end.Segment])
				}
				for _, to := range r.account.Again {
					free = free && (to == seg || j.deleted[to])
				}
			}
			if free {
				j.deleted[seg], again = true, true
			}
		}
	}
	for _, r := range j.records {
		if j.deleted[r.Segment] {
			for _, end := range r.account.Ends {
				sum := j.ended[end.Segment]
				sum.Live, sum.Bytes = sum.Live+1, sum.Bytes+end.Bytes
				j.ended[end.Segment] = sum
			}
		}
	}
	j.records = slices.DeleteFunc(j.records, func(r memoryRecord) bool { return j.deleted[r.Segment] })
}

// recovered is a new owner's store, made from what the journal kept up to last.
func (j *memory) recovered(last journal.LSN, now time.Time, cfg *Config) *store {
	j.records = slices.DeleteFunc(j.records, func(r memoryRecord) bool { return r.LSN > last })
	j.next = last + 1
	j.epoch++
	s := newStore(cfg, newCounters(newMetricSet(), "orders"))
	s.log, s.uuid, s.epoch, s.now = j, "store", j.epoch, now
	if cfg.MaxMemory <= tight {
		s.slots = 3
	}
	rc := newRecovery(s)
	for i := range j.records {
		r := &j.records[i]
		shown := r.Record
		if r.front > 0 {
			shown.Payload = shown.Payload[:r.front:r.front]
		}
		a, err := rc.visit(shown)
		if err != nil {
			j.t.Fatalf("recover record %d: %v", r.LSN, err)
		}
		if !j.sameAccount(r.Type, r.account, a) {
			j.t.Fatalf("record %d of type %d was appended with %+v and recovered with %+v", r.LSN, r.Type, r.account, a)
		}
		r.account = journal.Account{Live: a.Live, Bytes: a.Bytes, Ends: slices.Clone(a.Ends), Again: slices.Clone(a.Again)}
	}
	j.store, j.forwarded, j.empties, j.ended = s, map[journal.Segment]journal.LSN{}, nil, map[journal.Segment]journal.Account{}
	rc.finish()
	j.open()
	j.sync(j.next - 1)
	s.advance(j.durable)
	s.flush()
	j.balance()
	return s
}
