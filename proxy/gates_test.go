package proxy

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/relay"
)

// Whoever comes and goes: never more inside than may be, nobody waits while there is room, and who came first is let in first.
func TestGates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var g gates
		type guest struct {
			turn  *turn
			leave func()
		}
		var here []guest
		for range rapid.IntRange(1, 4*maxLogins).Draw(t, "steps") {
			if n := len(here); n > 0 && rapid.IntRange(0, 2).Draw(t, "what") == 0 {
				i := rapid.IntRange(0, n-1).Draw(t, "who")
				here[i].leave()
				here[i].leave() // twice is once
				here = append(here[:i:i], here[i+1:]...)
			} else {
				mine, leave := g.enter("a:1")
				here = append(here, guest{mine, leave})
			}
			inside := 0
			for i, h := range here {
				select {
				case <-h.turn.come:
					if inside++; inside != i+1 {
						t.Fatalf("number %d of the queue is inside, and %d before it are", i, inside-1)
					}
				default:
				}
			}
			if inside != min(maxLogins, len(here)) {
				t.Fatalf("%d are inside, of %d", inside, len(here))
			}
		}
		for _, h := range here {
			h.leave()
		}
		if len(g.at) != 0 {
			t.Fatalf("left over: %v", g.at)
		}
	})
}

// A fleet is let in by turns: who waits is let in when another is live, or gone, chooses again when something better comes up, and ends when it has to.
func TestAFleetIsLetInByTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker("a:1", active, accept)
		var inside []*link
		for range maxLogins {
			l := w.link(nil)
			if d := w.dialFor(l, relay.Try{}, "a:1"); d != 0 {
				t.Fatalf("waited %v for a place that was free", d)
			}
			inside = append(inside, l)
		}
		arrive := func() (l *link, at chan health.Target) {
			l, at = w.link(nil), make(chan health.Target, 1)
			go func() {
				conn, err := l.dial(t.Context(), relay.Try{})
				if err != nil {
					t.Error(err)
					return
				}
				conn.Close()
				at <- l.at()
			}()
			synctest.Wait()
			return l, at
		}
		first, at1 := arrive()
		if s := first.status(); len(at1) != 0 || !strings.Contains(s.Waiting, "being let into a:1") {
			t.Fatalf("one too many is inside, or does not say why it waits: %q", s.Waiting)
		}
		inside[0].event(relay.Event{Kind: relay.Live, At: time.Now(), Report: session.Report{State: "run"}})
		synctest.Wait()
		if len(at1) != 1 || first.status().Waiting != "" {
			t.Fatal("a session is live, and its place is not given to the next")
		}
		_, at2 := arrive()
		inside[1].event(relay.Event{Kind: relay.Refused, At: time.Now(), Err: coded("error")})
		synctest.Wait()
		if len(at2) != 1 {
			t.Fatal("a session was refused, and its place is not given to the next")
		}
		_, at3 := arrive()
		w.verdict("a:1", health.Verdict{State: health.Down})
		w.broker("b:1", active, accept)
		time.Sleep(queueNews)
		synctest.Wait()
		if len(at3) != 1 || <-at3 != "b:1" {
			t.Error("who waits at a broker that is gone does not look elsewhere")
		}
		w.verdict("b:1", health.Verdict{State: health.Down})
		w.verdict("a:1", active)
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(ErrDrained) })
		if _, err := w.link(nil).dial(ctx, relay.Try{}); !errors.Is(err, ErrDrained) {
			t.Errorf("err = %v", err)
		}
	})
}

// A connect that is given up late says nothing of the broker: it was us who were busy.
func TestABusyMachineBlamesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		late := time.Duration(0)
		w.broker("a:1", active, func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			time.Sleep(late)
			return nil, ctx.Err()
		})
		for _, late = range []time.Duration{time.Millisecond, DefaultDialTimeout} {
			w.evidence = nil
			ctx, cancel := context.WithTimeout(t.Context(), late+DefaultDialTimeout+time.Millisecond)
			_, _ = w.link(nil).dial(ctx, relay.Try{})
			cancel()
			if blamed := len(w.evidence) > 0; blamed != (late == time.Millisecond) {
				t.Errorf("late by %v: evidence %+v", late, w.evidence)
			}
		}
		if !strings.Contains(w.log.String(), "too busy") {
			t.Errorf("not said:\n%s", w.log.String())
		}
	})
}
