package journal

import (
	"errors"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
)

// TestOwnerWakesAnywhere stops an owner before each of its changes to the disk in turn. Another takes over meanwhile, in spite of the lock, and serves; then the
// first goes on as if nothing had been. What it acknowledges, before or after, the other has read; the other's log is what it would be without the
// first, to the last octet that counts and the last file.
func TestOwnerWakesAnywhere(t *testing.T) {
	seed := newSeed(t)
	step, ops := int64(3), 120
	rounds := 1
	if *full {
		step, rounds = 1, 10
	}
	w := waking{t: t}
	for range rounds {
		for n := 1 + int64(seed)%step; w.trial(seed+uint64(n), n, ops); n += step {
		}
		seed++
	}
	t.Logf("%d owners woken, %d of them with unfinished batches; acknowledged but lost 0, files of the new owner deleted 0", w.trials, w.fenced)
	if w.fenced == 0 {
		t.Error("none was ever fenced")
	}
}

type waking struct {
	t              *testing.T
	trials, fenced int
}

// trial stops the owner before its n-th change, if there is one.
func (w *waking) trial(seed uint64, n int64, ops int) bool {
	t, dir, rng := w.t, quickDir(w.t), rand.New(rand.NewPCG(seed, 3))
	defer os.RemoveAll(dir)
	var other *successor
	var armed atomic.Bool
	var seen atomic.Int64
	a := newActor(rng)
	a.s = mustOpen(t, dir, Options{SegmentBytes: crashSegment, Head: a.head, before: func(o op) error {
		if armed.Load() && seen.Add(1) == n {
			other = succeed(t, dir, seed)
		}
		return nil
	}}, nil)
	armed.Store(true)
	a.stale = true
	a.run(ops)
	a.s.Close()
	if other == nil {
		return false
	}
	w.trials++
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	if len(a.s.failed) > 0 {
		w.fenced++
		if !errors.Is(a.s.failed[0], ErrFenced) {
			t.Fatalf("seed %d, change %d: failed for another reason: %v", seed, n, a.s.failed[0])
		}
	}
	if a.s.acked > other.end {
		t.Fatalf("seed %d, change %d: acknowledged %d, the successor had read %d", seed, n, a.s.acked, other.end)
	}
	if want := a.through(other.end); !other.first.equal(want) {
		t.Fatalf("seed %d, change %d: the successor read %+v, want %+v", seed, n, other.first, want)
	}
	other.serve()
	if err := other.a.s.Close(); err != nil {
		t.Fatalf("seed %d, change %d: successor: %v", seed, n, err)
	}
	got := newState()
	s, err := reopen(t, dir, Options{SegmentBytes: crashSegment}, func(r Record) (Account, error) { return got.apply(r) })
	if err != nil {
		t.Fatalf("seed %d, change %d: after the successor: %v", seed, n, err)
	}
	s.Close()
	if !got.equal(other.a.state) {
		t.Fatalf("seed %d, change %d: the successor left %+v, now there is %+v", seed, n, other.a.state, got)
	}
	return true
}

// successor is the owner of the next epoch.
type successor struct {
	a     *actor
	first state
	end   LSN
}

func succeed(t testing.TB, dir string, seed uint64) *successor {
	st := newState()
	a := newActor(rand.New(rand.NewPCG(seed, 4)))
	s, err := reopen(t, dir, Options{SegmentBytes: crashSegment, noLock: true, Head: a.head}, func(r Record) (Account, error) {
		acc, err := st.apply(r)
		a.count = st.count
		return acc, err
	})
	if err != nil {
		t.Errorf("successor: %v", err)
		return nil
	}
	a.s, a.state, a.ids = s, st, 1_000_000
	p := &successor{a: a, first: st.clone(), end: s.base - 1}
	p.serve()
	return p
}

func (p *successor) serve() {
	for range 8 {
		p.a.put(p.a.begin())
		p.a.endAny()
		p.a.settle()
	}
}
