package proxy

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/routing"
	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/relay"
)

var (
	active  = health.Verdict{State: health.Active}
	standby = health.Verdict{State: health.Standby}
	suspect = health.Verdict{State: health.Suspect}
)

const never = time.Hour // a pace that only news can cut short

func ownerOf(epoch uint64) health.Verdict {
	return health.Verdict{State: health.Active, Stores: []health.Served{{UUID: "s", Name: "s", Epoch: epoch}}}
}

// dialFor runs dial and says how long it took; it fails the test unless it leads to want.
func (w *world) dialFor(l *link, t relay.Try, want health.Target) time.Duration {
	w.t.Helper()
	began := time.Now()
	conn, err := l.dial(w.t.Context(), t)
	if err != nil {
		w.t.Fatalf("dial: %v", err)
	}
	conn.Close()
	if l.target != want {
		w.t.Fatalf("dial led to %s, want %s", l.target, want)
	}
	return time.Since(began)
}

func TestDialFirstTryIsImmediate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker("a:1", standby, refuse)
		w.broker("b:1", active, accept)
		if d := w.dialFor(w.link(nil), relay.Try{}, "b:1"); d != 0 {
			t.Errorf("took %v", d)
		}
		if n := len(w.dialsOf("a:1")); n != 0 {
			t.Errorf("the standby was dialled %d times beside an active one", n)
		}
	})
}

func TestDialIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker("a:1", health.Verdict{State: health.Down}, refuse)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := w.link(nil).dial(ctx, relay.Try{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("err = %v", err)
		}
		at := w.dialsOf("a:1")
		for i := 1; i < len(at); i++ {
			if gap := at[i].Sub(at[i-1]); gap > routing.DefaultCap {
				t.Errorf("gap %d is %v, the cap is %v", i, gap, routing.DefaultCap)
			}
		}
		// 30 s at 250 ms in the mean, and a few more at the beginning.
		if n := len(at); n < 80 || n > 200 {
			t.Errorf("%d attempts in 30 s", n)
		}
		if w.refresh == 0 || !slices.Contains(w.kinds(), health.DialFailed) {
			t.Error("nobody was told")
		}
	})
}

func TestDialPaceGrowsWithTheFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Sidecars = func() int { return 10 } })
		w.broker("a:1", standby, refuse)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Second)
		defer cancel()
		_, _ = w.link(nil).dial(ctx, relay.Try{})
		if n := len(w.dialsOf("a:1")); n < 80 || n > 200 {
			t.Errorf("%d attempts in 300 s, ten sidecars together should make as many in 30 s as one", n)
		}
	})
}

// A standby answers, refuses the session, and is asked again by pace; the moment that it counts as active it is dialled.
func TestDialNewlyActiveEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Pace = routing.Pace{Base: never, Cap: never} })
		w.broker("a:1", health.Verdict{State: health.Down}, refuse)
		w.broker("b:1", standby, accept)
		l := w.link(nil)
		w.dialFor(l, relay.Try{}, "b:1")
		l.event(relay.Event{Kind: relay.Refused, Err: coded("standby"), At: time.Now()})
		time.AfterFunc(10*time.Second, func() { w.verdict("b:1", ownerOf(4)) })
		if d := w.dialFor(l, relay.Try{Failures: 1}, "b:1"); d != 10*time.Second {
			t.Errorf("took %v, want 10s", d)
		}
		if n := len(w.dialsOf("a:1")); n != 1 {
			t.Errorf("the dead one was tried %d times in the round, want once", n)
		}
		if w.hurried == 0 || w.hurrying != 0 {
			t.Errorf("health was hurried %d times, and %d are not done", w.hurried, w.hurrying)
		}
	})
}

// One that is called active again and again while it turns the session away does not unpace it.
func TestDialFlappingVerdictStaysPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker("a:1", active, refuse)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var flapper sync.WaitGroup
		flapper.Go(func() {
			for ctx.Err() == nil {
				w.verdict("a:1", suspect)
				time.Sleep(time.Millisecond)
				w.verdict("a:1", active)
				time.Sleep(time.Millisecond)
			}
		})
		_, _ = w.link(nil).dial(ctx, relay.Try{})
		flapper.Wait()
		if n := len(w.dialsOf("a:1")); n > 200 {
			t.Errorf("%d attempts in 30 s", n)
		}
	})
}

// A host that drops everything costs no more than the time until somebody else is active, and that says nothing against it.
func TestDialGivesUpADoubtfulOneForAnActiveOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker("a:1", suspect, hang)
		w.broker("b:1", standby, accept)
		time.AfterFunc(100*time.Millisecond, func() { w.verdict("b:1", ownerOf(4)) })
		if d := w.dialFor(w.link(nil), relay.Try{}, "b:1"); d != 100*time.Millisecond {
			t.Errorf("took %v", d)
		}
		if kinds := w.kinds(); len(kinds) != 0 {
			t.Errorf("evidence %v", kinds)
		}
	})
}

func TestDialTimeoutIsEvidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker("a:1", active, hang)
		w.broker("b:1", suspect, accept)
		began := time.Now()
		if d := w.dialFor(w.link(nil), relay.Try{}, "b:1"); d != DefaultDialTimeout {
			t.Errorf("took %v", d)
		}
		if len(w.evidence) != 1 {
			t.Fatalf("evidence %v", w.evidence)
		}
		e := w.evidence[0]
		if e.Target != "a:1" || e.Kind != health.DialFailed || !e.At.Equal(began) || !strings.Contains(e.Detail, "in time") {
			t.Errorf("evidence %+v: want a:1, from when the dial began", e)
		}
	})
}

func TestDialOwnFaultIsNoEvidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		full := 3
		w.broker("a:1", active, func(ctx context.Context) (net.Conn, error) {
			if full--; full >= 0 {
				return nil, &net.OpError{Op: "dial", Err: syscall.EMFILE}
			}
			return accept(ctx)
		})
		w.dialFor(w.link(nil), relay.Try{}, "a:1")
		if len(w.evidence) != 0 {
			t.Errorf("evidence %v", w.evidence)
		}
	})
}

func TestDialWaitsForACandidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		l := w.link(&fakeRelay{})
		time.AfterFunc(time.Minute, func() {
			if s := w.proxy.Sessions()[0]; !strings.Contains(s.Waiting, routing.ErrNoCandidates.Error()) {
				t.Errorf("status says waiting = %q", s.Waiting)
			}
			if n := w.metric(`understudy_sidecar_waiting_sessions{listener="stomp"}`); n != 1 {
				t.Errorf("%v sessions wait, want 1", n)
			}
			w.broker("a:1", health.Verdict{}, accept)
		})
		if d := w.dialFor(l, relay.Try{}, "a:1"); d != time.Minute {
			t.Errorf("took %v", d)
		}
		if s := w.proxy.Sessions()[0]; s.Waiting != "" {
			t.Errorf("still waiting: %q", s.Waiting)
		}
		if n := strings.Count(w.log.String(), "sessions wait for a broker"); n < 5 || n > 6 {
			t.Errorf("said %d times in a minute that sessions wait, want one in ten seconds", n)
		}
		if w.refresh == 0 || w.hurried != 1 || w.hurrying != 0 {
			t.Errorf("refreshed %d times, hurried %d, not done %d", w.refresh, w.hurried, w.hurrying)
		}
	})
}

// Only a broker whose epoch is over is left: it is not dialled, it is probed, by pace, until it says something else.
func TestDialNeverGoesToAnEpochThatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker("a:1", ownerOf(3), accept)
		time.AfterFunc(20*time.Second, func() { w.verdict("a:1", ownerOf(6)) })
		try := relay.Try{Hints: session.Hints{Ready: true, Store: "s", Epoch: 5}}
		if d := w.dialFor(w.link(nil), try, "a:1"); d != 20*time.Second {
			t.Errorf("took %v", d)
		}
		if n := len(w.probed); n < 40 || n > 200 {
			t.Errorf("probed %d times in 20 s", n)
		}
	})
}

// Of many sessions a few try the standby; when one finds it active, all go at once.
func TestDialSendsScouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker("b:1", standby, accept)
		const sessions = 50
		var mu sync.Mutex
		open, most, turned := 0, 0, 0
		isActive := false
		arrived := make(map[uint64]time.Time)
		var joined sync.WaitGroup
		for range sessions {
			l := w.link(nil)
			joined.Go(func() {
				for try := (relay.Try{}); ; try.Failures++ {
					conn, err := l.dial(t.Context(), try)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					open++
					if !isActive {
						most = max(most, open)
					}
					mu.Unlock()
					time.Sleep(3 * time.Millisecond) // login and its answer
					conn.Close()
					mu.Lock()
					open--
					if isActive {
						arrived[l.id] = time.Now()
						mu.Unlock()
						l.event(relay.Event{Kind: relay.Live, At: time.Now(), Report: session.Report{Store: "s", Epoch: 2}})
						w.verdict("b:1", ownerOf(2))
						return
					}
					turned++
					mu.Unlock()
					l.event(relay.Event{Kind: relay.Refused, Err: coded("standby"), At: time.Now()})
				}
			})
		}
		time.Sleep(2 * time.Second)
		mu.Lock()
		isActive = true
		from := time.Now()
		mu.Unlock()
		joined.Wait()
		if most > maxScouts {
			t.Errorf("%d sessions were at the standby at once, want at most %d", most, maxScouts)
		}
		if turned == 0 {
			t.Error("nobody tried the standby")
		}
		for id, at := range arrived {
			if d := at.Sub(from); d > 30*time.Millisecond {
				t.Errorf("session %d arrived %v after the take-over", id, d)
			}
		}
		for q, p := range w.proxy.scouts.at {
			if p.taken != 0 {
				t.Errorf("%d places at %v not given back", p.taken, q)
			}
		}
	})
}

// A session that ends while others have all the places at a standby is told why, and not given a connection that is none.
func TestDialEndsBesideScouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker("b:1", standby, accept)
		for range maxScouts {
			w.proxy.scouts.enter(quest{target: "b:1"}, time.Now(), scoutGap)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(ErrDrained)
		if conn, err := w.link(nil).dial(ctx, relay.Try{}); conn != nil || !errors.Is(err, ErrDrained) {
			t.Errorf("dial: %v, %v", conn, err)
		}
	})
}

// A broker that logs in and at once breaks off is paced; one that held for a while is dialled again without a pause.
func TestDialAfterALifeThatWasShort(t *testing.T) {
	for _, tt := range []struct {
		lived time.Duration
		paced bool
	}{{10 * time.Millisecond, true}, {2 * time.Second, false}} {
		t.Run(tt.lived.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(c *Config) { c.Pace = routing.Pace{Base: never, Cap: never} })
				w.broker("a:1", ownerOf(1), accept)
				l := w.link(nil)
				w.dialFor(l, relay.Try{}, "a:1")
				l.event(relay.Event{Kind: relay.Live, At: time.Now(), Report: session.Report{Store: "s", Epoch: 1}})
				time.Sleep(tt.lived)
				l.event(relay.Event{Kind: relay.Lost, At: time.Now(), Err: errRefused})
				if paced := w.dialFor(l, relay.Try{}, "a:1") > 0; paced != tt.paced {
					t.Errorf("paced = %v, want %v", paced, tt.paced)
				}
			})
		})
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	for name, state := range map[string]func(*world){
		"no candidate": func(*world) {},
		"pause":        func(w *world) { w.broker("a:1", standby, refuse) },
		"connect":      func(w *world) { w.broker("a:1", active, hang) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(c *Config) { c.Pace, c.DialTimeout = routing.Pace{Base: never, Cap: never}, never })
				state(w)
				why := errors.New("the client left")
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Second, func() { cancel(why) })
				began := time.Now()
				conn, err := w.link(nil).dial(ctx, relay.Try{})
				if conn != nil || !errors.Is(err, why) || time.Since(began) != time.Second {
					t.Errorf("conn = %v, err = %v after %v", conn, err, time.Since(began))
				}
				if name == "connect" && len(w.evidence) != 0 {
					t.Errorf("evidence %v", w.evidence)
				}
			})
		})
	}
}
