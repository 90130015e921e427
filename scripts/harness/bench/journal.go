package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// appendLoads are those of the journal: writers that hand in one record at a time.
var appendLoads = []load{
	{"append 1", 1, 1, 0, nil}, {"append 16", 16, 1, 0, nil}, {"append 64", 64, 1, 0, nil}, {"append 256", 256, 1, 0, nil},
}

// What a store should come to.
const (
	recoveryBar = 1_000_000 // records per second, without a warm copy
	indexBar    = 48        // octets of memory for each queued message that is on disk only
)

// Parts are what RunJournal measures.
func Parts() []string { return []string{"append", "recovery", "broker"} }

// RunJournal compares the journal alone with the bare loop, and looks at stores that hold records records: how fast they are opened, and what a broker
// keeps in memory for each message. Parts that were done are returned with an error that came later.
func RunJournal(ctx context.Context, opt Options, records int) ([]Versus, error) {
	var all []Versus
	for _, part := range opt.Cases {
		var lines []Versus
		var err error
		switch part {
		case "append":
			lines, err = runAppends(ctx, opt)
		case "recovery":
			lines, err = measureRecovery(ctx, opt, records)
		case "broker":
			lines, err = measureStore(ctx, opt, records)
		}
		all = append(all, lines...)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

func runAppends(ctx context.Context, opt Options) ([]Versus, error) {
	w := &contest{opt: opt, loads: appendLoads}
	defer w.close()
	own, err := openOwn(ctx, filepath.Join(opt.Data, "journal"))
	if err != nil {
		return nil, err
	}
	w.undo = append(w.undo, func() { _ = own.journal.Close() })
	w.enter(&contender{Ours, "journal", func(ctx context.Context, l load, d time.Duration) (sample, error) {
		return closedLoop(ctx, l.outstanding(), d, own.append)
	}})
	if err := w.enterBare(); err != nil {
		return nil, err
	}
	if err := w.run(ctx); err != nil {
		return nil, err
	}
	lines := w.lines()
	for i := range lines {
		lines[i].Measure, lines[i].Unit = "durable", "records/s"
	}
	return lines, nil
}

// ownLog is the journal as a broker uses it: a lock around Append, and a queue of those who wait for a number. What it holds is ended at once, so that
// segments go as fast as they come.
type ownLog struct {
	journal *journal.Journal

	mu     sync.Mutex
	space  sync.Cond // the journal was behind with its files, and is no longer
	queue  []waiter
	failed error
}

type waiter struct {
	lsn  journal.LSN
	done chan error
}

var waiters = sync.Pool{New: func() any { return make(chan error, 1) }}

func openOwn(ctx context.Context, dir string) (*ownLog, error) {
	l := &ownLog{}
	l.space.L = &l.mu
	var err error
	if l.journal, err = journal.Open(ctx, dir, journal.Options{Durable: l.durable, Failed: l.fail, Space: l.spaceIs}, nil); err != nil {
		return nil, fmt.Errorf("open a journal: %w", err)
	}
	return l, nil
}

// append returns when the record counts.
func (l *ownLog) append(record []byte) error {
	done := waiters.Get().(chan error)
	defer waiters.Put(done)
	l.mu.Lock()
	e := journal.Entry{Type: 1, Payload: record}
	at, err := l.journal.Append(e)
	for errors.Is(err, journal.ErrBehind) && l.failed == nil {
		l.space.Wait()
		at, err = l.journal.Append(e)
	}
	if err = errors.Join(err, l.failed); err != nil {
		l.mu.Unlock()
		return err
	}
	l.queue = append(l.queue, waiter{at.LSN, done})
	l.mu.Unlock()
	return <-done
}

func (l *ownLog) spaceIs(bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.space.Broadcast()
}

func (l *ownLog) durable(through journal.LSN) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for ; n < len(l.queue) && l.queue[n].lsn <= through; n++ {
		l.queue[n].done <- nil
	}
	l.queue = append(l.queue[:0], l.queue[n:]...)
}

func (l *ownLog) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = err
	l.space.Broadcast()
	for _, w := range l.queue {
		w.done <- err
	}
	l.queue = nil
}

// pendingMost is how many octets may wait for the disk while a store is filled.
const pendingMost = 8 << 20

// fillStore makes a store of so many records that are all alive.
func fillStore(ctx context.Context, dir string, records int) error {
	j, err := journal.Open(ctx, dir, journal.Options{}, nil)
	if err != nil {
		return fmt.Errorf("open a journal to fill it: %w", err)
	}
	e := journal.Entry{Type: 1, Payload: body, Account: journal.Account{Live: 1}}
	for n := 0; n < records && err == nil; {
		if j.Pending() > pendingMost {
			err = pause(ctx, time.Millisecond)
			continue
		}
		if _, err = j.Append(e); errors.Is(err, journal.ErrBehind) {
			err = pause(ctx, time.Millisecond)
			continue
		}
		n++
	}
	if err = errors.Join(err, j.Close()); err != nil {
		return fmt.Errorf("fill a journal: %w", err)
	}
	return nil
}

// measureRecovery opens a store again and again, with its files in the page cache, as they are when only the process died, and without.
func measureRecovery(ctx context.Context, opt Options, records int) ([]Versus, error) {
	dir := filepath.Join(opt.Data, "recovery")
	opt.Logf("a journal of %d records", records)
	if err := fillStore(ctx, dir, records); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	warm, cold := []sample{}, []sample{}
	for round := -1; round < opt.Rounds; round++ {
		for _, into := range []*[]sample{&warm, &cold} {
			if into == &cold {
				if err := dropCache(dir); err != nil {
					return nil, err
				}
			}
			s, err := recoverOnce(ctx, dir, records)
			if err != nil {
				return nil, err
			}
			if round >= 0 {
				*into = append(*into, s)
			}
		}
	}
	setting := fmt.Sprintf("%d records of %d octets, opened by nobody but the journal itself", records, bodyBytes)
	lines := []Versus{
		{Case: "recovery", Measure: "read", Unit: "records/s", Result: resultOf(warm), With: "nothing", Setting: setting + ", files in the page cache"},
		{Case: "recovery, cold", Measure: "read", Unit: "records/s", Result: resultOf(cold), With: "nothing", Setting: setting + ", page cache dropped"},
	}
	lines[0].atLeast(recoveryBar)
	return lines, nil
}

func recoverOnce(ctx context.Context, dir string, records int) (sample, error) {
	s, start := sample{}, time.Now()
	j, err := journal.Open(ctx, dir, journal.Options{}, func(journal.Record) (journal.Account, error) {
		s.frames++
		return journal.Account{Live: 1}, nil
	})
	s.took = time.Since(start)
	if err != nil {
		return s, fmt.Errorf("recover a journal: %w", err)
	}
	if s.frames != records {
		err = fmt.Errorf("recover a journal: %d records came instead of %d", s.frames, records)
	}
	return s, errors.Join(err, j.Close())
}

func (v *Versus) atLeast(least float64) {
	v.Bar = &Bar{fmt.Sprintf("at least %.0f %s", least, v.Unit), v.Figure >= least}
}

func (v *Versus) atMost(most float64) {
	v.Bar = &Bar{fmt.Sprintf("at most %.0f %s", most, v.Unit), v.Figure <= most}
}
