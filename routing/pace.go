package routing

import (
	"math/rand/v2"
	"time"

	"github.com/understudy-mq/understudy/health"
)

// Defaults of Pace.
const (
	DefaultBase = 5 * time.Millisecond
	DefaultCap  = 500 * time.Millisecond
	DefaultMax  = 5 * time.Second
)

// Pace is how long to wait before an attempt: full jitter (a uniform draw between 0 and a limit that doubles with each failure), because
// what failed for many sessions at one moment must not come back at one moment.
type Pace struct {
	Base time.Duration // limit after the first failure; 0 means 5 ms
	Cap  time.Duration // limit that one sidecar alone grows to; 0 means 500 ms
	Max  time.Duration // what Cap times the number of sidecars never exceeds; 0 means 5 s. Less than Cap means Cap
}

// Limit is the longest that Delay returns after so many failures in a row, with so many sidecars sharing the brokers (values under 1 count as 1).
func (p Pace) Limit(failures, sidecars int) time.Duration {
	if failures <= 0 {
		return 0
	}
	base, capped, most := orDefault(p.Base, DefaultBase), orDefault(p.Cap, DefaultCap), orDefault(p.Max, DefaultMax)
	most = max(most, capped)
	// Compared by division: a fleet's size comes from the network and must not overflow the product.
	if n := time.Duration(max(sidecars, 1)); n > most/capped {
		capped = most
	} else {
		capped *= n
	}
	for limit := base; limit < capped; limit *= 2 {
		if failures--; failures == 0 {
			return limit
		}
		if limit > capped/2 {
			break
		}
	}
	return capped
}

// Delay draws the wait before the next attempt; the one after no failure is immediate.
func (p Pace) Delay(failures, sidecars int, rnd *rand.Rand) time.Duration {
	limit := p.Limit(failures, sidecars)
	if limit <= 0 {
		return 0
	}
	return time.Duration(rnd.Int64N(max(int64(limit)+1, int64(limit))))
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// Walk is one session's way through a Choice: each target once per round, in order. The caller waits between rounds, by Pace with Failures.
// The zero Walk begins. It belongs to one goroutine.
type Walk struct {
	round    int
	failures int
	tried    map[health.Target]attempt
}

// maxTried bounds a Walk's memory against brokers that come back under a new address each time.
const maxTried = 4 * MaxCandidates

type attempt struct {
	round  int
	active bool   // it was tried when it counted as active
	epoch  uint64 // the highest at which it was
}

// Next is the first target that this round has not tried; ok is false when the round is over.
func (w *Walk) Next(c Choice) (next Ranked, ok bool) {
	for _, r := range c.Targets {
		if a, was := w.tried[r.Target]; !was || a.round != w.round {
			return r, true
		}
	}
	return Ranked{}, false
}

// Tried notes an attempt of this round.
func (w *Walk) Tried(r Ranked) { w.note(r, w.round) }

func (w *Walk) note(r Ranked, round int) {
	if w.tried == nil || len(w.tried) > maxTried {
		w.tried = make(map[health.Target]attempt)
	}
	a := w.tried[r.Target]
	a.round = round
	if r.Rank <= Active {
		a.active, a.epoch = true, max(a.epoch, r.Store.Epoch)
	}
	w.tried[r.Target] = a
}

// Over ends the round as a failure.
func (w *Walk) Over() { w.round, w.failures = w.round+1, w.failures+1 }

// Again ends the round without calling it a failure: what is there to be tried was not this session's turn, or is waited for in another way.
func (w *Walk) Again() { w.round++ }

// Failures is the number of rounds in a row that led nowhere.
func (w *Walk) Failures() int { return w.failures }

// Fresh ends the round because of news, and forgets its failures; what was tried stays known. The news is used up, even if the next Choice
// no longer has it: else a verdict that flaps fast enough would start round after round without a pause.
func (w *Walk) Fresh(news Ranked) {
	w.note(news, w.round)
	w.round, w.failures = w.round+1, 0
}

// Reset begins afresh: the session was live for a while.
func (w *Walk) Reset() { *w = Walk{} }

// News is the best target that has become worth an attempt at once: it is active, and was not tried as that, or only at a lower epoch.
// A target that is called active again and again while it turns this session away is no news: those attempts stay paced.
func (w *Walk) News(c Choice) (Ranked, bool) {
	for _, r := range c.Targets {
		if r.Rank > Active {
			break
		}
		if a := w.tried[r.Target]; !a.active || a.epoch < r.Store.Epoch {
			return r, true
		}
	}
	return Ranked{}, false
}
