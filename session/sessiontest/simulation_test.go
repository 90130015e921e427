package sessiontest_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/understudy-mq/understudy/session/sessiontest"
)

// tally is what runs with one make brought.
type tally struct {
	runs, frames, struck, drained int
	kinds                         map[string]int
	matrix                        Matrix
	failed                        map[string]Case // the first of each kind of violation
}

// play runs seeds [first, first+n) on all processors, the makes in turn.
func play(first uint64, n, ops, faults int, kinds []Kind, make Factory) map[Kind]*tally {
	all := map[Kind]*tally{}
	for _, k := range kinds {
		all[k] = &tally{kinds: map[string]int{}, failed: map[string]Case{}}
	}
	var mu sync.Mutex
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				seed := first + uint64(i)
				kind := kinds[i%int64(len(kinds))]
				c := Simulated(seed, kind, ops, faults)
				r := RunSTOMP(c, make, false)
				mu.Lock()
				t := all[kind]
				t.runs, t.frames, t.struck = t.runs+1, t.frames+r.Frames, t.struck+r.Struck
				t.matrix.Add(r.Matrix)
				if r.Drained {
					t.drained++
				}
				if len(r.Violations) > 0 {
					v := r.Violations[0].Kind
					if t.kinds[v]++; t.kinds[v] == 1 {
						t.failed[v] = c
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return all
}

// TestSimulation plays long conversations with every make of broker, each with several faults, and says which cells of the cut-point
// matrix they struck. -seeds says how many.
func TestSimulation(t *testing.T) {
	n := *seeds
	if n == 0 {
		n = 1000
		if brief() {
			n = 100
		}
	}
	kinds := Kinds()
	began := time.Now()
	tallies := play(*first, n, *ops, *breaks, kinds, recorder)
	took := time.Since(began)
	for _, k := range kinds {
		a := tallies[k]
		struck, of, missing := a.matrix.Covered()
		t.Logf("%v: %d seeds, %d frames, %d faults struck, %d ended in good order, violations %v; %d of %d cells of the matrix:\n%v\nnever struck: %s",
			k, a.runs, a.frames, a.struck, a.drained, a.kinds, struck, of, &a.matrix, strings.Join(missing, ", "))
		for _, c := range a.failed {
			t.Error(report("simulation", c, RunSTOMP(c, recorder, false)))
		}
		// Sessions with an unknown broker end with the first thing in doubt, and elections cost links that a fault was meant for.
		if k != Unfamiliar && (a.struck*2 < 3*a.runs || a.frames < 200*a.runs) {
			t.Errorf("too tame: %d seeds with %v saw %d faults and %d frames", a.runs, k, a.struck, a.frames)
		}
	}
	t.Logf("%d seeds in %v: %.0f a minute", n, took.Round(time.Millisecond), float64(n)/took.Minutes())
}

// TestFalsities gives the recorder one defect at a time, between it and the shell, and asks that each is noticed with a broker where it
// matters; and that the way of giving it defects is not one itself.
func TestFalsities(t *testing.T) {
	caught := 0
	for _, how := range append([]Falsity{Honest}, Falsities()...) {
		found := ""
		for seed := uint64(1); seed <= 400 && found == ""; seed++ {
			kind := Kinds()[seed%uint64(len(Kinds()))]
			c := Simulated(seed, kind, 120, 2)
			if len(RunSTOMP(c, recorder, false).Violations) > 0 {
				continue
			}
			if v := RunSTOMP(c, Falsify(how, recorder), false).Violations; len(v) > 0 {
				found = fmt.Sprintf("seed %d, %v: %.160v", seed, kind, v[0])
			}
		}
		switch {
		case how == Honest && found != "":
			t.Fatalf("the wrapper is not transparent: %s", found)
		case how == Honest:
		case found == "":
			t.Errorf("%v was not noticed in 400 runs", how)
		default:
			caught++
			t.Logf("%v: %s", how, found)
		}
	}
	t.Logf("mutants caught %d/%d", caught, len(Falsities()))
}
