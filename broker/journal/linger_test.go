package journal

import (
	"sync"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	type batch struct {
		took            time.Duration
		records, behind int
	}
	const ms = time.Millisecond
	for _, tc := range []struct {
		name     string
		batches  []batch
		patience time.Duration
		target   int
	}{
		{"nothing is known", nil, 0, 0},
		{"one writer is never waited for", []batch{{4 * ms, 1, 0}, {4 * ms, 1, 0}}, ms, 1},
		{"two halves that take turns", []batch{{4 * ms, 8, 8}, {4 * ms, 8, 8}}, ms, 16},
		{"all in one batch", []batch{{4 * ms, 8, 8}, {4 * ms, 16, 0}}, ms, 16},
		{"some are gone", []batch{{4 * ms, 16, 0}, {4 * ms, 5, 0}}, ms, 5},
		{"a fast disk", []batch{{100 * time.Microsecond, 8, 8}}, 0, 16},
		{"more than can come in time", []batch{{400 * time.Microsecond, 128, 128}}, 0, 256},
		{"as many, on a slow disk", []batch{{4 * ms, 128, 128}}, ms, 256},
		{"it became slow: not at once", []batch{{ms, 1, 0}, {9 * ms, 1, 0}}, 500 * time.Microsecond, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var p pace
			for _, b := range tc.batches {
				p.observe(b.took, b.records, b.behind)
			}
			if got := p.patience(tc.target / 2); got != tc.patience || p.target != tc.target {
				t.Errorf("%v for %d records, want %v for %d", got, p.target, tc.patience, tc.target)
			}
		})
	}
}

// Writers who each wait for their record share a sync, all of them: without lingering it would be one half after the other.
func TestLingerJoinsWriters(t *testing.T) {
	const writers, rounds = 16, 12
	w := newWaiters()
	j, err := Open(t.Context(), quickDir(t), Options{Durable: w.durable, before: slower(20 * time.Millisecond)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	before := j.Stats()
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range rounds {
				if err := w.append(j, []byte("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	st := j.Stats()
	if n := st.Batches - before.Batches; n > rounds*3/2 {
		t.Errorf("%d batches for %d rounds", n, rounds)
	}
}
