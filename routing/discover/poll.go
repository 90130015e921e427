package discover

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Back-off while a name has no answer: what is waited for is often a broker that is just being started.
const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// schedule says when to ask next. It is pure.
type schedule struct {
	min, max time.Duration
	failures int
}

// after is the wait after an answer with a TTL, or after a failure: a draw from the upper half of a limit that doubles.
func (s *schedule) after(ttl time.Duration, err error, rnd func(n int64) int64) time.Duration {
	if err == nil || errors.Is(err, ErrNoService) {
		s.failures = 0
		return min(max(ttl, s.min), s.max)
	}
	limit := firstRetry
	for range s.failures {
		if limit *= 2; limit >= lastRetry {
			limit = lastRetry
			break
		}
	}
	s.failures++
	return limit/2 + time.Duration(rnd(int64(limit/2)+1))
}

// runSRV looks a name up for as long as ctx lasts.
func (d *Discovery) runSRV(ctx context.Context, s *source, name string, r *resolver) {
	next := schedule{min: r.cfg.MinTTL, max: r.cfg.MaxTTL}
	known := addresses{}
	for {
		asked := time.Now()
		s.asked(asked)
		got, err := r.lookup(ctx, name, known)
		if ctx.Err() != nil {
			return
		}
		d.metrics.lookedUp(s, err)
		switch {
		case err == nil:
			known = got.addrs
			for i := range got.endpoints {
				got.endpoints[i].TLS = d.cfg.TLS
			}
			d.publish(s, got.endpoints, time.Now(), got.flaw)
		case errors.Is(err, ErrNoService):
			known = addresses{}
			d.publish(s, nil, time.Now(), err)
		default:
			d.fail(s, err)
		}
		if !s.pause(ctx, asked, next.after(got.ttl, err, rand.Int64N), r.cfg.MinTTL) {
			return
		}
	}
}

// pause waits, but after a Refresh only until gap has passed since the last question. It returns false when ctx is done.
func (s *source) pause(ctx context.Context, asked time.Time, wait, gap time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	refresh := s.refresh
	for {
		select {
		case <-timer.C:
			return true
		case <-refresh:
			refresh = nil
			if soon := gap - time.Since(asked); soon < wait {
				timer.Reset(max(soon, 0))
			}
		case <-ctx.Done():
			return false
		}
	}
}
