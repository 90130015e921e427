package journal

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWatch(t *testing.T) {
	const ms = time.Millisecond
	alive := func(beat uint64) pulse { return pulse{Epoch: 7, Node: "a", PID: 10, Start: 5, Boot: "x", Beat: beat} }
	type look struct {
		after  time.Duration
		pulse  pulse
		bad    bool
		report bool
		frozen bool
	}
	for name, looks := range map[string][]look{
		"first seen": {{pulse: alive(1), report: true}},
		"lives":      {{pulse: alive(1), report: true}, {after: 90 * ms, pulse: alive(2)}, {after: 90 * ms, pulse: alive(4)}},
		"claims":     {{pulse: pulse{PID: 10, Node: "a", Start: 5, Boot: "x", Beat: 1}, report: true}, {after: 9 * ms, pulse: alive(2), report: true}},
		"claims between two beats": {
			{pulse: pulse{PID: 10, Node: "a", Start: 5, Boot: "x", Beat: 1}, report: true}, {after: 100 * ms, pulse: pulse{PID: 10, Node: "a", Start: 5, Boot: "x", Beat: 1}},
			{after: 90 * ms, pulse: alive(1), report: true}, {after: 100 * ms, pulse: alive(1)}, {after: 100 * ms, pulse: alive(1), report: true, frozen: true},
		},
		"another owner": {{pulse: alive(1), report: true}, {after: 9 * ms, pulse: pulse{Epoch: 8, PID: 11, Beat: 1}, report: true}},
		"falls silent": {
			{pulse: alive(1), report: true}, {after: 100 * ms, pulse: alive(1)}, {after: 99 * ms, pulse: alive(1)},
			{after: 1 * ms, pulse: alive(1), report: true, frozen: true},
			{after: 100 * ms, pulse: alive(1), frozen: true}, {after: 100 * ms, pulse: alive(1), report: true, frozen: true},
		},
		"comes back": {
			{pulse: alive(1), report: true}, {after: 100 * ms, pulse: alive(1)}, {after: 100 * ms, pulse: alive(1), report: true, frozen: true},
			{after: 10 * ms, pulse: alive(2), report: true}, {after: 100 * ms, pulse: alive(2)},
		},
		"the candidate itself slept":     {{pulse: alive(1), report: true}, {after: time.Hour, pulse: alive(1)}, {after: 50 * ms, pulse: alive(2)}},
		"a torn reading is no life":      {{pulse: alive(1), report: true}, {after: 100 * ms, bad: true}, {after: 100 * ms, pulse: alive(1)}},
		"released in good order":         {{pulse: pulse{Epoch: 7, Node: "a", Beat: 9}, report: true}, {after: 100 * ms, pulse: pulse{Epoch: 7, Node: "a", Beat: 9}}, {after: 100 * ms, pulse: pulse{Epoch: 7, Node: "a", Beat: 9}, report: true}},
		"nothing was ever written there": {{bad: true, report: true}, {after: 100 * ms, bad: true}, {after: 100 * ms, bad: true}},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1000, 0)
			w := watch{after: 200 * ms, looked: now}
			for i, l := range looks {
				now = now.Add(l.after)
				if got := w.look(now, l.pulse, !l.bad); got != l.report || w.frozen() != l.frozen {
					t.Errorf("look %d: report %v, frozen %v; want %v, %v (%+v)", i, got, w.frozen(), l.report, l.frozen, w.owner())
				}
			}
		})
	}
}

// In a bubble time is fake, and a goroutine that is left behind fails the test.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, err := Open(t.Context(), dir, Options{Node: "a", SegmentBytes: 8 << 10}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var told []Owner
		opened := make(chan *Journal)
		go func() {
			opt := Options{Node: "b", SegmentBytes: 8 << 10, Waiting: func(o Owner) { told = append(told, o) }, TakeoverAfter: 300 * time.Millisecond}
			b, err := Open(context.Background(), dir, opt, nil)
			if err != nil {
				t.Error(err)
			}
			opened <- b
		}()
		time.Sleep(10 * time.Second)
		select {
		case <-opened:
			t.Fatal("two owners")
		default:
		}
		start := time.Now()
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		b := <-opened
		if took := time.Since(start); took > 2*defaultPoll {
			t.Errorf("hand-over took %v", took)
		}
		if b.Epoch() != 2 || len(told) == 0 || told[0].Epoch != 1 || told[0].Node != "a" || told[0].PID != os.Getpid() {
			t.Errorf("epoch %d, told %+v", b.Epoch(), told)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// An owner without any traffic hears of its successor from its heart-beat.
func TestIdleOwnerIsFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		failed := make(chan error, 2)
		a, err := Open(t.Context(), dir, Options{SegmentBytes: 8 << 10, Failed: func(err error) { failed <- err }}, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Open(t.Context(), dir, Options{SegmentBytes: 8 << 10, noLock: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if err := <-failed; !errors.Is(err, ErrFenced) {
			t.Errorf("failed: %v", err)
		}
		if _, err := a.Append(Entry{Type: 1}); !errors.Is(err, ErrFenced) {
			t.Errorf("append: %v", err)
		}
		if err := a.Close(); !errors.Is(err, ErrFenced) {
			t.Errorf("close: %v", err)
		}
		time.Sleep(time.Second)
		if len(failed) != 0 {
			t.Errorf("failed twice")
		}
	})
}

// Failed may close the journal: that is the natural thing to do there.
func TestCloseFromFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		opened := make(chan *Journal, 1)
		done := make(chan error)
		a, err := Open(t.Context(), dir, Options{SegmentBytes: 8 << 10, Failed: func(error) { done <- (<-opened).Close() }}, nil)
		if err != nil {
			t.Fatal(err)
		}
		opened <- a
		if err := os.WriteFile(filepath.Join(dir, epochName(2)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, ErrFenced) {
			t.Error(err)
		}
	})
}

// The lower rank gets the store, though the higher one polls at the same times.
func TestRank(t *testing.T) {
	for range 10 {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			a, err := Open(t.Context(), dir, Options{SegmentBytes: 8 << 10}, nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ends := make(chan error, 2)
			for rank := range 2 {
				go func() {
					opt := Options{SegmentBytes: 8 << 10, Node: string(rune('a' + rank)), Standing: func() Standing { return Standing{Rank: 1 - rank} }}
					j, err := Open(ctx, dir, opt, nil)
					if err == nil && rank == 0 {
						err = errors.New("the higher rank was faster")
					}
					if err == nil {
						cancel()
						time.Sleep(time.Second)
						err = j.Close()
					}
					ends <- err
				}()
			}
			time.Sleep(time.Second)
			a.Close()
			for range 2 {
				if err := <-ends; err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}
		})
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), file, Options{}, nil); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("file: %v", err)
	}
	if _, err := Open(t.Context(), filepath.Join(file, "below"), Options{}, nil); err == nil {
		t.Error("below a file: no error")
	}
	if _, err := Open(t.Context(), filepath.Join(dir, "a", "b"), Options{}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("below what is not there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "a")); err == nil {
		t.Error("a directory was made where a file system may be missing")
	}
	deep := filepath.Join(dir, "a")
	s := mustOpen(t, deep, Options{SegmentBytes: 8 << 10}, nil)
	if st, err := os.Stat(deep); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("not needed any more")
	cancel(why)
	if _, err := Open(ctx, deep, Options{}, nil); !errors.Is(err, why) || !strings.Contains(err.Error(), lockName) {
		t.Errorf("cancelled: %v", err)
	}
	s.Close()
	visitor := errors.New("unknown record")
	s = mustOpen(t, deep, Options{SegmentBytes: 8 << 10}, nil)
	s.add("x", Account{Live: 1})
	s.Close()
	_, err := Open(t.Context(), deep, Options{}, func(Record) (Account, error) { return Account{}, visitor })
	if !errors.Is(err, visitor) || !strings.Contains(err.Error(), "seg-00000002") {
		t.Errorf("visitor: %v", err)
	}
	if os.Geteuid() == 0 {
		return // root may write anywhere
	}
	if err := os.Chmod(deep, 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), deep, Options{}, nil); err == nil {
		t.Error("read-only: no error")
	}
	if err := os.Chmod(deep, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), deep, Options{}, nil); err == nil {
		t.Error("unreadable: no error")
	}
	os.Chmod(deep, 0o700)
}

// LOCK is only ever written over, by whoever has it.
func TestLockFileStays(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{SegmentBytes: 8 << 10, Node: strings.Repeat("n\n", 400)}, nil)
	before, err := os.Stat(filepath.Join(dir, lockName))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if p, err := readPulse(f); err != nil || p.PID != 0 || p.Epoch != 1 || p.Beat == 0 || len(p.Node) != maxNode {
		t.Errorf("%+v, %v", p, err)
	}
	mustOpen(t, dir, Options{SegmentBytes: 8 << 10}, nil)
	after, err := os.Stat(filepath.Join(dir, lockName))
	if err != nil || !os.SameFile(before, after) || after.Size() != lockBytes {
		t.Errorf("LOCK changed: %v, %v", after, err)
	}
}
