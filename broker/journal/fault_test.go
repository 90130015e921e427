package journal

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// failing fails the n-th change to the disk, and each one after it of the same file, as a disk does.
type failing struct {
	n    int64
	err  error
	seen atomic.Int64
	hit  atomic.Pointer[op]
}

func (f *failing) before(o op) error {
	if f.seen.Add(1) == f.n {
		f.hit.Store(&o)
		return f.err
	}
	return nil
}

// Whatever fails, and whenever: Open says so, or Failed is told, once; nothing is acknowledged after it, and all that was is there afterwards.
func TestEveryFaultIsFinal(t *testing.T) {
	rng := newRand(t)
	faults := map[opKind]int{}
	for n := int64(1); ; n++ {
		f := &failing{n: n, err: []error{syscall.EIO, syscall.ENOSPC}[n%2]}
		dir := quickDir(t)
		wl := workload{live: map[int]Segment{}}
		s, err := reopen(t, dir, Options{SegmentBytes: 8 << 10, before: f.before}, nil)
		var acked LSN
		if err == nil {
			wl.run(s, rng, 60)
			acked = s.finish(f)
		} else if !errors.Is(err, f.err) {
			t.Fatalf("fault %d: %v", n, err)
		}
		hit := f.hit.Load()
		if hit == nil {
			t.Logf("%d faults: %v (by kind of change)", n-1, faults)
			return
		}
		faults[hit.kind]++
		live := map[int]bool{}
		var last LSN
		s, err = reopen(t, dir, Options{SegmentBytes: 8 << 10}, func(r Record) (Account, error) {
			last = r.LSN
			return apply(live, string(r.Payload)), nil
		})
		if err != nil {
			t.Fatalf("fault %d (%+v): reopen: %v", n, hit, err)
		}
		s.Close()
		if want := wl.through(max(last, acked)); !maps.Equal(live, want) {
			t.Fatalf("fault %d (%+v): acknowledged %d, recovered %d: alive %v, want %v", n, hit, acked, last, live, want)
		}
	}
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
		// Only the file of a segment that nobody needed any more may fail in silence.
		if hit := f.hit.Load(); hit != nil && err == nil && hit.kind != opSyncDir {
			if p, ok := parsePlace(hit.name); !ok || p.id <= s.cur.id {
				s.t.Fatalf("fault %+v went unnoticed", hit)
			}
		}
		return s.acked
	}
	if !errors.Is(s.failed[0], f.err) || !errors.Is(err, f.err) {
		s.t.Fatalf("failed: %v, close: %v, want %v", s.failed[0], err, f.err)
	}
	if !strings.Contains(s.failed[0].Error(), "store "+s.Store()) {
		s.t.Fatalf("%v does not name the store", s.failed[0])
	}
	if s.late {
		s.t.Fatal("acknowledged after it had failed")
	}
	if _, err := s.Append(Entry{Type: 1}); !errors.Is(err, f.err) && !errors.Is(err, ErrClosed) {
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
