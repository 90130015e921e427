package routing

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/understudy-mq/understudy/health"
)

func TestPaceLimit(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name               string
		pace               Pace
		failures, sidecars int
		want               time.Duration
	}{
		{"the first try is immediate", Pace{}, 0, 1, 0},
		{"first failure", Pace{}, 1, 1, 5 * ms},
		{"doubles", Pace{}, 4, 1, 40 * ms},
		{"up to the cap", Pace{}, 8, 1, 500 * ms},
		{"for ever", Pace{}, math.MaxInt, 1, 500 * ms},
		{"a fleet goes on doubling", Pace{}, 9, 4, 1280 * ms},
		{"to its own cap", Pace{}, 99, 4, 2 * time.Second},
		{"and no further", Pace{}, 99, math.MaxInt, 5 * time.Second},
		{"no fleet at all", Pace{}, 99, -1, 500 * ms},
		{"own values", Pace{Base: 1 * ms, Cap: 10 * ms, Max: 15 * ms}, 99, 2, 15 * ms},
		{"a cap above the most counts", Pace{Cap: time.Minute}, 99, 2, time.Minute},
		{"a cap near the end of time", Pace{Base: 1, Cap: math.MaxInt64, Max: math.MaxInt64}, 99, 9, math.MaxInt64},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.pace.Limit(tt.failures, tt.sidecars); got != tt.want {
				t.Errorf("Limit = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestPaceDelayIsDrawnFromTheWholeRange(t *testing.T) {
	rnd, p := seeded(1), Pace{Base: 100, Cap: 100}
	low, high := false, false
	for range 1000 {
		d := p.Delay(1, 1, rnd)
		if d < 0 || d > 100 {
			t.Fatalf("delay %d is out of range", d)
		}
		low, high = low || d < 10, high || d > 90
	}
	if !low || !high {
		t.Error("jitter is not full")
	}
	if d := p.Delay(0, 1, rnd); d != 0 {
		t.Errorf("the first try waits %v", d)
	}
}

func TestWalkNews(t *testing.T) {
	standby, active := cand("a", health.Standby), cand("a", health.Active, at(storeA, 3))
	choice := func(c Candidate) Choice {
		ch, err := Choose("", []Candidate{c}, Wants{}, seeded(1))
		if err != nil {
			t.Fatal(err)
		}
		return ch
	}
	var w Walk
	try := func(c Candidate) {
		t.Helper()
		r, ok := w.Next(choice(c))
		if !ok {
			t.Fatal("the round is over too early")
		}
		w.Tried(r)
	}
	news := func(c Candidate, want bool) {
		t.Helper()
		if _, got := w.News(choice(c)); got != want {
			t.Fatalf("News = %v, want %v", got, want)
		}
	}
	try(standby)
	if _, ok := w.Next(choice(standby)); ok {
		t.Fatal("tried twice in a round")
	}
	news(standby, false)
	news(active, true) // it was tried as a standby
	w.Over()
	w.Over()
	found, _ := w.News(choice(active))
	w.Fresh(found)
	news(active, false) // used up
	if w.Failures() != 0 {
		t.Fatalf("%d failures after news", w.Failures())
	}
	try(active)
	news(active, false) // it turned the session away: calling it active again changes nothing
	w.Over()
	try(standby)
	news(active, false)
	news(cand("a", health.Active, at(storeA, 4)), true)
	w.Reset()
	news(active, true)
}

// However verdicts flap, a session that is always turned away makes no more attempts without a pause than there are targets and epochs.
func TestWalkIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w Walk
		unpaced := 0
		const targets, epochs = 3, 2
		for range 200 {
			var cands []Candidate
			for i := range targets {
				cands = append(cands, cand(string(rune('a'+i)), health.State(rapid.IntRange(0, 4).Draw(t, "state")),
					at(storeA, rapid.Uint64Range(1, epochs).Draw(t, "epoch"))))
			}
			c, err := Choose("", cands, Wants{}, seeded(1))
			if err != nil {
				t.Fatal(err)
			}
			if next, ok := w.Next(c); ok {
				w.Tried(next)
				continue
			}
			if r, news := w.News(c); news {
				w.Fresh(r)
				unpaced++
				continue
			}
			w.Over()
		}
		if unpaced > targets*epochs {
			t.Fatalf("%d rounds began without a pause, want at most %d", unpaced, targets*epochs)
		}
	})
}
