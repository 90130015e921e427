package journal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// store is a journal under test and what it told its owner.
type store struct {
	*Journal
	t      testing.TB
	mu     sync.Mutex
	change chan struct{}
	acked  LSN
	failed []error
	full   bool
	base   LSN  // first number that is counted in Stats.Records
	late   bool // acknowledged after it had failed
}

// newRand gives each run its own luck, and says how to have it again.
func newRand(t testing.TB) *rand.Rand { return rand.New(rand.NewPCG(newSeed(t), 1)) }

// newSeed is JOURNAL_SEED, or another one each time.
func newSeed(t testing.TB) uint64 {
	seed := rand.Uint64N(1 << 40)
	if s := os.Getenv("JOURNAL_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("JOURNAL_SEED=%d", seed)
	return seed
}

// reopen opens dir; visit may be nil.
func reopen(t testing.TB, dir string, opt Options, visit func(Record) (Account, error)) (*store, error) {
	t.Helper()
	s := &store{t: t, change: make(chan struct{})}
	if visit == nil {
		visit = func(Record) (Account, error) { return Account{}, nil }
	}
	opt.Durable = func(through LSN) { s.tell(func() { s.acked, s.late = through, s.late || len(s.failed) > 0 }) }
	opt.Failed = func(err error) { s.tell(func() { s.failed = append(s.failed, err) }) }
	if opt.Space == nil {
		opt.Space = func(full bool) { s.tell(func() { s.full = full }) }
	}
	j, err := Open(context.Background(), dir, opt, visit)
	if err != nil {
		return nil, err
	}
	s.Journal = j
	j.mu.Lock()
	s.base = j.ledger.list[len(j.ledger.list)-1].first
	j.mu.Unlock()
	t.Cleanup(func() {
		j.Close()
		sound(t, dir)
	})
	return s, nil
}

// spoilt are the directories that a test has damaged.
var spoilt sync.Map

// sound checks a store that somebody had open, unless the test has removed or damaged it since.
func sound(t testing.TB, dir string) {
	t.Helper()
	if _, ok := spoilt.Load(dir); ok {
		return
	}
	rep, err := Check(dir, CheckOptions{})
	if errors.Is(err, ErrNoStore) {
		return
	}
	if err == nil {
		err = rep.Err()
	}
	if err != nil {
		t.Errorf("check %s: %v", dir, err)
	}
}

func mustOpen(t testing.TB, dir string, opt Options, visit func(Record) (Account, error)) *store {
	t.Helper()
	s, err := reopen(t, dir, opt, visit)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *store) tell(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.change)
	s.change = make(chan struct{})
}

// until waits for a condition on what the owner was told.
func (s *store) until(what string, cond func() bool) {
	s.t.Helper()
	limit := time.After(10 * time.Second)
	for {
		s.mu.Lock()
		ok, change := cond(), s.change
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-change:
		case <-limit:
			s.t.Fatalf("waited 10 s for %s", what)
		}
	}
}

func (s *store) durable(lsn LSN) {
	s.t.Helper()
	s.until(fmt.Sprint("record ", lsn), func() bool { return s.acked >= lsn })
}

// Append waits where the journal is behind with its files, as a broker does.
func (s *store) Append(e Entry) (Position, error) { return appendTo(s.Journal, e) }

func appendTo(j *Journal, e Entry) (Position, error) {
	for {
		at, err := j.Append(e)
		if !errors.Is(err, ErrBehind) {
			return at, err
		}
		time.Sleep(50 * time.Microsecond)
	}
}

func (s *store) add(payload string, a Account) (LSN, Segment) {
	s.t.Helper()
	at, err := s.Append(Entry{Type: 1, Payload: []byte(payload), Account: a})
	if err != nil {
		s.t.Fatal(err)
	}
	return at.LSN, at.Segment
}

func collect(into *[]string) func(Record) (Account, error) {
	return func(r Record) (Account, error) {
		*into = append(*into, string(r.Payload))
		return Account{Live: 1}, nil
	}
}

func TestAppendAndReopen(t *testing.T) {
	dir := t.TempDir() + "/store"
	s := mustOpen(t, dir, Options{SegmentBytes: 16 << 10}, nil)
	var want []string
	var last LSN
	for i := range 500 {
		want = append(want, fmt.Sprintf("record %d %0*d", i, i%300, 0))
		last, _ = s.add(want[i], Account{Live: 1})
	}
	s.durable(last)
	uuid := s.Store()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		var got []string
		s = mustOpen(t, dir, Options{SegmentBytes: 16 << 10}, collect(&got))
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("round %d: %d records, want %d: %.200v", round, len(got), len(want), got)
		}
		if s.Store() != uuid || s.Epoch() != uint64(round+2) {
			t.Errorf("store %s epoch %d", s.Store(), s.Epoch())
		}
		want = append(want, fmt.Sprint("more ", round))
		last, _ = s.add(want[len(want)-1], Account{Live: 1})
		s.durable(last)
		s.Close()
	}
}
