package broker

import (
	"context"
	"errors"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// The mover empties segments that are mostly dead, so that one old message cannot pin the disk. It reads such a segment again, off all locks; of each of
// its records the store is asked, under its mutex, what of it is alive and still lives there (that is appended again: relocate), and which of its endings are
// about messages of segments that stay (those are told again: forward). Then the journal is told that nothing in the segment is needed, and lets it go.
//
// Why a crash anywhere loses and doubles nothing. The log is cut behind some record; all before it is there.
//
//   - Before a relocate is durable, the message is in the segment that is being emptied, which stays: the journal deletes it by a record behind
//     everything that the mover appended.
//   - When it is durable, recovery meets the message twice while the old segment is there, and finds by LSN and index that it is one; it is where the
//     later record says. When the old segment has gone it meets the second record only, and puts the message in the place of its LSN and index.
//   - Nobody ends a message and then relocates it: both happen under one mutex. So a relocate that finds nothing is of a message that is alive,
//     and every ending of it comes behind. Those endings name the segment in which the message was then, so that segment's
//     file outlives them or takes them along.
//   - A forward says of messages in other segments what a record in this one said. While both are there, the second changes nothing. One that
//     repeats a relocate (the message left segment T) is about the copy in T only: a message that lives elsewhere by now is not touched.
//   - The endings that the mover sees cannot become more: the segment is sealed.
type mover struct {
	log    evacuated
	tenure *tenure
	unit   int64 // octets of a segment
}

// evacuated is the journal as the mover sees it. Scan may block, the others do not.
type evacuated interface {
	Sparse() (journal.Segment, bool)
	Stays(journal.Segment) bool
	Scan(journal.Segment, func(journal.Record) error) error
	Forwarded(journal.Segment)
	Stats() journal.Stats
}

const (
	moverPause       = 5 * time.Millisecond  // at least, between looks for something to do
	moverRest        = 20                    // and as many times what the last one took,
	moverPauseMost   = 50 * time.Millisecond // but not more: it may have taken long because the machine is busy
	moverBackOff     = time.Second           // after an error, doubled each time
	moverBackOffMost = 5 * time.Minute
	// A slice is what is done under one lock.
	sliceRecords = 64
	sliceBytes   = 1 << 20
	sliceTime    = time.Millisecond
	// moverShare is the part of the time, as 1/n, that the mover takes while nothing presses.
	moverShare = 5
	// moverPending bounds what the mover has on its way to the disk.
	moverPending = 1 << 20
)

// startMover has segments emptied until what it returns is called.
func (t *tenure) startMover(log evacuated) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	m := &mover{log: log, tenure: t, unit: t.cfg.SegmentBytes}
	if m.unit == 0 {
		m.unit = 64 << 20 // the journal's default
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// run empties segments until ctx ends.
func (m *mover) run(ctx context.Context) {
	failed := time.Duration(0) // how long the last error was waited for
	for ctx.Err() == nil {
		began := time.Now()
		seg, ok := m.log.Sparse()
		if !ok {
			// Only what is appended makes a segment sparse; and the journal has looked at all of them.
			_ = sleep(ctx, min(max(moverPause, moverRest*time.Since(began)), moverPauseMost))
			select {
			case <-ctx.Done():
			case <-m.tenure.toMover:
			}
			continue
		}
		e, err := m.empty(ctx, seg)
		if err == nil {
			failed = 0
			m.tenure.log.Debug("segment emptied", "segment", uint64(seg), "moved", e.moved, "forwarded", e.forwarded, "bytes", e.octets, "took", time.Since(began))
			continue
		}
		if ctx.Err() != nil || m.tenure.broken() {
			return
		}
		if errors.Is(err, journal.ErrBehind) {
			_ = sleep(ctx, moverPause)
			continue
		}
		failed = min(max(2*failed, moverBackOff), moverBackOffMost)
		if errors.Is(err, journal.ErrFull) {
			failed = moverBackOff // emptying is what makes room, as soon as there is a little
		}
		m.tenure.log.Warn("segment could not be emptied and stays for now", "segment", uint64(seg), "error", err, "again", failed)
		_ = sleep(ctx, failed)
	}
}

// broken reports whether nothing can be appended any more.
func (t *tenure) broken() bool {
	t.lock()
	defer t.unlock()
	return t.store.err != nil
}

// empty empties one segment.
func (m *mover) empty(ctx context.Context, seg journal.Segment) (*evacuation, error) {
	e := &evacuation{store: m.tenure.store, segment: seg, stays: m.log.Stays}
	var batch slice
	err := m.log.Scan(seg, func(r journal.Record) error {
		if !ofMessages(r.Type) {
			return nil
		}
		if batch.add(r); len(batch.records) < sliceRecords && len(batch.octets) < sliceBytes {
			return nil
		}
		return m.do(ctx, e, &batch, false)
	})
	if err == nil {
		err = m.do(ctx, e, &batch, true)
	}
	if err != nil {
		return e, err
	}
	m.log.Forwarded(seg)
	return e, nil
}

// slice is records on their way from the file to the store.
type slice struct {
	records []journal.Record
	octets  []byte
}

func (s *slice) add(r journal.Record) {
	from := len(s.octets)
	s.octets = append(s.octets, r.Payload...)
	r.Payload = s.octets[from:len(s.octets):len(s.octets)] // an array that grew is still there for those before
	s.records = append(s.records, r)
}

// do has the store look at the records of a slice, a millisecond at a time. last says that no more come.
func (m *mover) do(ctx context.Context, e *evacuation, batch *slice, last bool) error {
	for rest := batch.records; len(rest) > 0 || last; {
		if err := m.wait(ctx, e); err != nil {
			return err
		}
		began := time.Now()
		n, err := m.step(e, rest, last)
		if err != nil {
			return err
		}
		if rest = rest[n:]; len(rest) == 0 {
			last = false
		}
		if !m.pressed() {
			if err := sleep(ctx, (moverShare-1)*time.Since(began)); err != nil {
				return err
			}
		}
	}
	batch.records, batch.octets = batch.records[:0], batch.octets[:0]
	return nil
}

// step is what is done under one lock. It returns how many records were looked at.
func (m *mover) step(e *evacuation, records []journal.Record, last bool) (n int, err error) {
	m.tenure.lock()
	defer m.tenure.unlock()
	began := time.Now()
	for n < len(records) && err == nil && (n == 0 || time.Since(began) < sliceTime) {
		err = e.take(&records[n])
		n++
	}
	if err == nil && last && n == len(records) {
		err = e.forward()
	}
	return n, err
}

// wait lets the disk take what the mover appended, if that is much.
func (m *mover) wait(ctx context.Context, e *evacuation) error {
	if e.octets-e.waited <= moverPending {
		return ctx.Err()
	}
	for m.log.Stats().Durable < e.last {
		if err := sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	e.waited = e.octets
	return ctx.Err()
}

// pressed reports whether the disk is about to be fuller than it may be.
func (m *mover) pressed() bool {
	st := m.log.Stats()
	return st.DiskBytes > 2*st.LiveBytes+3*m.unit
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
