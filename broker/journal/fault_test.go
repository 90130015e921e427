package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// failing fails the n-th change to the disk: alone, as a disk does that forgets what it said (the next sync succeeds), or with all that follow; a write
// may get half-way.
type failing struct {
	n       int64
	err     error
	short   bool
	forever bool
	dir     string
	seen    atomic.Int64
	hit     atomic.Pointer[op]
	begun   sync.Map    // names of files that something was written into
	soft    atomic.Bool // it hit a full disk, and a file that held nothing
}

func (f *failing) before(o op) error {
	n := f.seen.Add(1)
	if o.kind == opWrite && !allZero(o.data) {
		f.begun.Store(o.name, true)
	}
	if n < f.n || n > f.n && !f.forever {
		return nil
	}
	if n == f.n {
		_, begun := f.begun.Load(o.name)
		_, segment := parsePlace(o.name)
		_, index := parseIndexName(o.name)
		f.soft.Store(isFull(f.err) && (segment && !begun || index) && o.kind != opRemove)
		f.hit.Store(&o)
	}
	if f.short && o.kind == opWrite && n == f.n {
		file, err := os.OpenFile(filepath.Join(f.dir, o.name), os.O_RDWR, 0)
		if err == nil {
			file.WriteAt(o.data[:len(o.data)/2], o.off)
			file.Close()
		}
	}
	return f.err
}

// unsynced reports whether what failed, and nothing else, was a sync, after which nobody on this machine may rely on what it reads.
func (f *failing) unsynced() bool {
	hit := f.hit.Load()
	return hit != nil && !f.forever && !f.soft.Load() && (hit.kind == opSync || hit.kind == opSyncDir)
}

// Whatever fails, and whenever: Open says so, or Failed is told, once; nothing is acknowledged after it, and all that was is there afterwards.
func TestEveryFaultIsFinal(t *testing.T) {
	seed, faults := newSeed(t), map[string]int{}
	ops := 90
	if *full {
		ops = 240
	}
	step := 5
	if *full {
		step = 1
	}
	for _, f := range []func(n int64) *failing{
		func(n int64) *failing { return &failing{n: n, err: syscall.EIO} },
		func(n int64) *failing { return &failing{n: n, err: syscall.ENOSPC} },
		func(n int64) *failing { return &failing{n: n, err: syscall.EIO, short: true} },
		func(n int64) *failing { return &failing{n: n, err: syscall.ENOSPC, forever: true} },
	} {
		for n := 1 + int(seed)%step; faultAt(t, seed+uint64(n), ops, f(int64(n)), faults); n += step {
		}
	}
	t.Logf("faults by kind, each at one change to the disk: %v; acknowledged after it or lost: 0", faults)
}

// faultAt runs a workload into one fault. It says whether the workload got that far.
func faultAt(t *testing.T, seed uint64, ops int, f *failing, faults map[string]int) bool {
	t.Helper()
	f.dir = quickDir(t)
	a := newActor(rand.New(rand.NewPCG(seed, 2)))
	opt := Options{SegmentBytes: 8 << 10, before: f.before, Head: a.head}
	s, err := reopen(t, f.dir, opt, nil)
	var acked LSN
	if err == nil {
		a.s = s
		a.run(ops)
		acked = s.finish(f)
	} else if !errors.Is(err, f.err) || f.unsynced() && !errors.Is(err, ErrSync) {
		t.Fatalf("fault %d: %v", f.n, err)
	}
	hit := f.hit.Load()
	if hit == nil {
		return false
	}
	faults[fmt.Sprint(opNames[hit.kind], ": ", f.err)]++
	got := newState()
	s, err = reopen(t, f.dir, Options{SegmentBytes: 8 << 10}, func(r Record) (Account, error) { return got.apply(r) })
	if err != nil {
		t.Fatalf("seed %d, fault %d (%v): reopen: %v", seed, f.n, hit, err)
	}
	s.Close()
	if end := s.base - 1; end < acked {
		t.Fatalf("seed %d, fault %d (%v): acknowledged %d, recovered %d", seed, f.n, hit, acked, end)
	}
	if want := a.through(s.base - 1); !got.equal(want) {
		t.Fatalf("seed %d, fault %d (%v): acknowledged %d, recovered %d: %+v, want %+v", seed, f.n, hit, acked, s.base-1, got, want)
	}
	os.RemoveAll(f.dir)
	return true
}

// finish waits for the end of a journal whose disk may have failed, and returns what it had acknowledged.
func (s *store) finish(f *failing) LSN {
	s.t.Helper()
	err := s.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failed) > 1 {
		s.t.Fatalf("failed %d times: %v", len(s.failed), s.failed)
	}
	if len(s.failed) == 0 {
		// Only a full disk may pass, met by a file that held nothing.
		if hit := f.hit.Load(); hit != nil && err == nil && !f.soft.Load() {
			s.t.Fatalf("fault %+v went unnoticed", hit)
		}
		return s.acked
	}
	want := f.err
	if isFull(f.err) && errors.Is(s.failed[0], ErrFull) { // it was waited for, to the end
		want = ErrFull
	}
	if !errors.Is(s.failed[0], want) || !errors.Is(err, want) {
		s.t.Fatalf("failed: %v, close: %v, want %v", s.failed[0], err, want)
	}
	if f.unsynced() && want == f.err && !errors.Is(s.failed[0], ErrSync) {
		s.t.Fatalf("failed: %v, want %v", s.failed[0], ErrSync)
	}
	if !strings.Contains(s.failed[0].Error(), "store "+s.Store()) {
		s.t.Fatalf("%v does not name the store", s.failed[0])
	}
	if s.late {
		s.t.Fatal("acknowledged after it had failed")
	}
	if _, err := s.Append(Entry{Type: 1}); !errors.Is(err, want) && !errors.Is(err, ErrClosed) {
		s.t.Fatalf("append after the failure: %v", err)
	}
	return s.acked
}

func TestAppendErrors(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{MaxRecord: 100}, nil)
	if _, err := s.Append(Entry{Type: 1, Payload: make([]byte, 101)}); !errors.Is(err, ErrTooBig) {
		t.Error(err)
	}
	lsn, _ := s.add(strings.Repeat("x", 100), Account{})
	s.durable(lsn)
	if n := s.Pending(); n != 0 {
		t.Errorf("%d octets pending", n)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Append(Entry{Type: 1}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	for _, typ := range []byte{0, 128, 255} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("type %d was taken", typ)
				}
			}()
			s.Append(Entry{Type: typ})
		}()
	}
}

// Close makes durable what was appended before it, without anybody waiting.
func TestCloseFlushes(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{SegmentBytes: 8 << 10}, nil)
	var want []string
	for i := range 200 {
		want = append(want, payload(i))
		s.add(want[i], Account{Live: 1})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	mustOpen(t, dir, Options{}, collect(&got))
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%d of %d records", len(got), len(want))
	}
}
