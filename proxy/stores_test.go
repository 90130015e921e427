package proxy

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/routing"
	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/relay"
)

// has is the verdict on a broker with stores, each as "uuid name epoch".
func has(state health.State, stores ...string) health.Verdict {
	v := health.Verdict{State: state}
	for _, text := range stores {
		var s health.Served
		if _, err := fmt.Sscan(text, &s.UUID, &s.Name, &s.Epoch); err != nil {
			panic(err)
		}
		v.Stores = append(v.Stores, s)
	}
	return v
}

// comesHome brings a session to target, where it becomes live in store at epoch.
func (w *world) comesHome(l *link, target health.Target, store string, epoch uint64) {
	w.t.Helper()
	w.lives(l, relay.Try{}, target, session.Report{State: "run", Store: store, Epoch: epoch})
}

func TestWhichStoreEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker("a:1", has(health.Active, "u1 orders 3"), accept)
		w.comesHome(w.link(nil), "a:1", "u1", 3) // there is only one as yet
		w.broker("b:1", has(health.Active, "u2 bills 5"), accept)
		l := w.link(nil)
		_, err := l.dial(t.Context(), relay.Try{})
		if !errors.Is(err, routing.ErrWhichStore) || !errors.Is(err, ErrWhichStore) || code(err) != codeWhichStore {
			t.Fatalf("err = %v", err)
		}
		for _, part := range []string{"orders", "bills", "--store NAME", "--store spread"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not name %s", err, part)
			}
		}
		if !strings.Contains(w.log.String(), "no store was named") {
			t.Error("nobody was told")
		}
		// One that is at home somewhere has no choice to make.
		w.dialFor(l, relay.Try{Hints: session.Hints{Ready: true, Store: "u2", Epoch: 5}}, "b:1")
	})
}

// Two stores that are served have the name that is configured: nobody is split over them. Who is in one of them stays, and follows it; who is new is
// refused, until one of them is gone. It is said once.
func TestNamesakesEndNewSessions(t *testing.T) {
	const mine, other = "11111111-0000-0000-0000-000000000001", "11111111-0000-0000-0000-000000000002"
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Store = "orders" })
		w.broker("a:1", has(health.Active, mine+" orders 3"), accept)
		stop := w.serve()
		home := &fakeRelay{}
		l := w.link(home)
		w.comesHome(l, "a:1", mine, 3)
		w.broker("b:1", has(health.Active, other+" orders 1"), accept)
		synctest.Wait()
		const shared = `understudy_sidecar_store_names_shared{listener="stomp"}`
		if home.cuts() != 0 || w.metric(shared) != 1 {
			t.Errorf("severed %v, names shared %v", home.severed, w.metric(shared))
		}
		for range 3 {
			_, err := w.link(nil).dial(t.Context(), relay.Try{})
			if !errors.Is(err, routing.ErrWhichStore) || !errors.Is(err, ErrWhichStore) || code(err) != codeWhichStore {
				t.Fatalf("err = %v", err)
			}
			for _, part := range []string{"2 stores have the name orders", mine + " served by a:1", other + " served by b:1", "--store UUID", "not mounted"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %s", err, part)
				}
			}
		}
		if n := strings.Count(w.log.String(), "stores share a name: "); n != 1 || strings.Contains(w.log.String(), "no store was named") || !strings.Contains(w.log.String(), mine+" served by a:1") {
			t.Errorf("said %d times:\n%s", n, w.log.String())
		}
		if len(w.dialsOf("b:1")) != 0 {
			t.Error("a session was brought to the namesake")
		}
		w.dialFor(l, relay.Try{Hints: session.Hints{Ready: true, Store: mine, Epoch: 3}}, "a:1")
		w.verdict("b:1", has(health.Standby, other+" orders 0"))
		synctest.Wait()
		w.dialFor(w.link(nil), relay.Try{}, "a:1")
		if w.metric(shared) != 0 || !strings.Contains(w.log.String(), "stores share a name no more") {
			t.Errorf("%v names shared:\n%s", w.metric(shared), w.log.String())
		}
		stop()
	})
}

// A broker that knows several stores may be the first that tells of them: what it refuses is looked into, and said to the client then.
func TestWhichStoreFromTheBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Pace = routing.Pace{Base: never, Cap: never} })
		w.broker("a:1", health.Verdict{}, accept)
		l := w.link(nil)
		w.dialFor(l, relay.Try{}, "a:1")
		l.event(relay.Event{Kind: relay.Refused, Err: coded("which-store"), At: time.Now()})
		if len(w.probed) != 1 || len(w.evidence) != 0 {
			t.Fatalf("probed %v, evidence %v", w.probed, w.evidence)
		}
		time.AfterFunc(time.Second, func() { w.verdict("a:1", has(health.Active, "u1 orders 3", "u2 bills 5")) })
		began := time.Now()
		if _, err := l.dial(t.Context(), relay.Try{Failures: 1}); !errors.Is(err, ErrWhichStore) || time.Since(began) != time.Second {
			t.Errorf("err = %v after %v", err, time.Since(began))
		}
	})
}

func TestSpreadSharesEvenlyAndStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Store = Spread })
		w.broker("a:1", has(health.Active, "u1 orders 3"), accept)
		w.broker("b:1", health.Verdict{}, accept)
		time.AfterFunc(300*time.Millisecond, func() { w.verdict("b:1", has(health.Active, "u2 bills 5", "u3 spare 0")) })
		var links []*link
		for i := range 10 {
			l := w.link(nil)
			view := w.table.View()
			if _, err := l.settle("", view); i == 0 && !errors.Is(err, errNotProbed) {
				t.Fatalf("chosen before all brokers have spoken: %v", err)
			}
			began := time.Now()
			conn, err := l.dial(t.Context(), relay.Try{})
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			if took := time.Since(began); i == 0 && took != 300*time.Millisecond || i > 0 && took != 0 {
				t.Errorf("session %d waited %v", i, took)
			}
			if want := map[health.Target]string{"a:1": "u1", "b:1": "u2"}[l.target]; l.wanted() != want {
				t.Errorf("session %d went to %s and asks for %s", i, l.target, l.wanted())
			}
			l.event(relay.Event{Kind: relay.Live, At: time.Now(), Report: session.Report{Store: l.wanted(), Epoch: map[string]uint64{"u1": 3, "u2": 5}[l.wanted()]}})
			links = append(links, l)
		}
		if n := w.proxy.homes.count("u1"); n != 5 || w.proxy.homes.count("u2") != 5 || w.proxy.homes.count("u3") != 0 {
			t.Errorf("shares are %v", w.proxy.homes.at)
		}
		// A store that goes, and one that comes, change nothing for those that have chosen.
		was := links[0].wanted()
		w.broker("c:1", has(health.Active, "u3 spare 1"), accept)
		if store, err := links[0].settle("", w.table.View()); store != was || err != nil {
			t.Errorf("the session went from %s to %s: %v", was, store, err)
		}
		if l := w.link(nil); func() string { s, _ := l.settle("", w.table.View()); return s }() != "u3" {
			t.Error("a new store gets no share")
		} else {
			l.end(nil)
		}
		for _, l := range links {
			l.end(nil)
		}
		if len(w.proxy.homes.at) != 0 {
			t.Errorf("shares left over: %v", w.proxy.homes.at)
		}
	})
}

// A broker that nobody can reach does not keep the others waiting for long, and where nothing is known it is asked.
func TestSpreadDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Store = Spread })
		w.broker("a:1", health.Verdict{}, accept)
		l := w.link(nil)
		if d := w.dialFor(l, relay.Try{}, "a:1"); d != sharePatience || l.wanted() != "" {
			t.Errorf("took %v, and asks for %q", d, l.wanted())
		}
		l.event(relay.Event{Kind: relay.Refused, Err: coded("which-store"), At: time.Now()})
		time.AfterFunc(time.Millisecond, func() { w.verdict("a:1", has(health.Active, "u1 orders 3", "u2 bills 5")) })
		if w.dialFor(l, relay.Try{Failures: 1}, "a:1"); l.wanted() != "u1" && l.wanted() != "u2" {
			t.Errorf("asks for %q", l.wanted())
		}
	})
}

// One of two stores of a broker is handed over: its sessions look elsewhere at once, the other's are left alone, and the evidence names the store.
func TestOneOfTwoStoresMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.proxy.cfg.Store = "u1"
		w.broker("a:1", has(health.Active, "u1 orders 3", "u2 bills 5"), accept)
		w.broker("b:1", has(health.Standby, "u1 orders 0"), accept)
		stays, goes := &fakeRelay{}, &fakeRelay{}
		other, l := w.link(stays), w.link(goes)
		w.lives(other, relay.Try{Hints: session.Hints{Ready: true, Store: "u2"}}, "a:1", session.Report{Store: "u2", Epoch: 5})
		w.comesHome(l, "a:1", "u1", 3)
		time.Sleep(5 * time.Second)
		w.evidence = nil
		l.event(relay.Event{Kind: relay.Lost, At: time.Now(), Err: coded("moved"), Report: session.Report{State: "park", Store: "u1", Epoch: 3}})
		if e := w.evidence; len(e) != 1 || e[0].Kind != health.NotServed || len(e[0].Stores) != 1 || !e[0].Stores[0].Is("u1") {
			t.Fatalf("evidence %+v", e)
		}
		w.verdict("a:1", has(health.Active, "u1 orders 0", "u2 bills 5"))
		home := relay.Try{Hints: session.Hints{Ready: true, Store: "u1", Epoch: 3}}
		if d := w.dialFor(l, home, "b:1"); d != 0 && l.target != "a:1" {
			t.Errorf("took %v", d)
		}
		// It is not there yet: the next looks come soon, and the moment that it is it is found.
		for home.Failures = 1; home.Failures < 20; home.Failures++ {
			l.event(relay.Event{Kind: relay.Refused, At: time.Now(), Err: coded("standby"), Report: session.Report{State: "park", Store: "u1", Epoch: 3}})
			began := time.Now()
			conn, err := l.dial(t.Context(), home)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			if d := time.Since(began); d > movingPace+movingRand {
				t.Errorf("look %d came after %v", home.Failures, d)
			}
		}
		w.verdict("b:1", has(health.Active, "u1 orders 4"))
		if d := w.dialFor(l, home, "b:1"); d != 0 {
			t.Errorf("found after %v", d)
		}
		l.event(relay.Event{Kind: relay.Live, At: time.Now(), Report: session.Report{Store: "u1", Epoch: 4}})
		if stays.cuts() != 0 || goes.cuts() != 0 {
			t.Errorf("severed: %v %v", stays.severed, goes.severed)
		}
	})
}

// The first look at a store that is about to be served again never waits, and a crowd that waits for it asks no more often than its scouts may.
func TestAMovingStoreIsNotStormed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker("a:1", ownerOf(3), accept)
		w.broker("b:1", standby, accept)
		const sessions = 500
		var links []*link
		for range sessions {
			l := w.link(nil)
			w.comesHome(l, "a:1", "s", 3)
			links = append(links, l)
		}
		time.Sleep(2 * time.Second)
		w.verdict("a:1", has(health.Standby, "s s 0"))
		moved := time.Now()
		live := make(chan time.Duration, sessions)
		var serving atomic.Bool
		for _, l := range links {
			go func() {
				l.event(relay.Event{Kind: relay.Lost, At: time.Now(), Err: coded("moved"), Report: session.Report{Store: "s", Epoch: 3}})
				for try := (relay.Try{Hints: session.Hints{Ready: true, Store: "s", Epoch: 3}}); ; try.Failures++ {
					conn, err := l.dial(t.Context(), try)
					if err != nil {
						t.Error(err)
						return
					}
					time.Sleep(300 * time.Microsecond) // login and its answer
					conn.Close()
					if serving.Load() && l.at() == "b:1" {
						l.event(relay.Event{Kind: relay.Live, At: time.Now(), Report: session.Report{Store: "s", Epoch: 4}})
						w.verdict("b:1", ownerOf(4))
						live <- time.Since(moved)
						return
					}
					l.event(relay.Event{Kind: relay.Refused, At: time.Now(), Err: coded("standby"), Report: session.Report{Store: "s", Epoch: 3}})
				}
			}()
		}
		const gap = 20 * time.Millisecond
		time.Sleep(gap)
		asked := len(w.dialsOf("a:1")) + len(w.dialsOf("b:1")) - sessions
		serving.Store(true)
		var last time.Duration
		for range sessions {
			last = <-live
		}
		if last-gap > movingPace+movingRand+time.Millisecond {
			t.Errorf("the last was live %v after the store was", last-gap)
		}
		if most := 2 * (maxScouts + int(gap/movingGap)); asked > most || asked < int(gap/(movingPace+movingRand)) {
			t.Errorf("%d logins in the %v in which nobody served, want at most %d", asked, gap, most)
		}
	})
}

// Health may be the first to see a higher epoch: sessions that are still with the old owner leave it then.
func TestAProbeFences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.proxy.cfg.Store = "u1"
		w.broker("a:1", has(health.Active, "u1 orders 3", "u2 bills 5"), accept)
		stop := w.serve()
		old, other := &fakeRelay{}, &fakeRelay{}
		w.comesHome(w.link(old), "a:1", "u1", 3)
		w.lives(w.link(other), relay.Try{Hints: session.Hints{Ready: true, Store: "u2"}}, "a:1", session.Report{Store: "u2", Epoch: 5})
		w.broker("b:1", has(health.Active, "u1 orders 4"), accept)
		synctest.Wait()
		if old.cuts() != 1 || other.cuts() != 0 {
			t.Errorf("severed: %v %v", old.severed, other.severed)
		}
		stop()
	})
}

// A store that no broker knows is as much in nobody's hands.
func TestAnUnknownStoreIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Store = "ordres" })
		w.broker("a:1", has(health.Active, "u1 orders 3"), accept)
		stop := w.serve()
		time.Sleep(2 * time.Second)
		if !strings.Contains(w.log.String(), "nobody serves a store") || w.metric(`understudy_sidecar_store_unserved_seconds{listener="stomp",store="ordres"}`) < 1 {
			t.Errorf("not seen:\n%s", w.log.String())
		}
		w.verdict("a:1", health.Verdict{State: health.Active}) // another kind of broker has no stores to be known
		synctest.Wait()
		if got := w.proxy.Stores(); len(got) != 0 {
			t.Errorf("still there: %+v", got)
		}
		stop()
	})
}

// serve has the proxy accept clients until the func it returns is called.
func (w *world) serve() (stop func()) {
	served := make(chan error, 1)
	go func() { served <- w.proxy.Serve() }()
	synctest.Wait()
	return func() {
		w.proxy.cancel(ErrClosed)
		w.proxy.mu.Lock()
		w.proxy.closing = true
		w.proxy.mu.Unlock()
		w.proxy.cfg.Listener.Close()
		<-served
		w.proxy.joined.Wait()
	}
}

func TestAStoreInNobodysHandsIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Store = "orders" })
		w.broker("a:1", has(health.Active, "u1 orders 3", "u2 bills 5"), accept)
		end := w.serve()
		for range 3 {
			w.comesHome(w.link(nil), "a:1", "u1", 3)
		}
		synctest.Wait()
		const unserved, sessions = `understudy_sidecar_store_unserved_seconds{listener="stomp",store="orders"}`, `understudy_sidecar_store_sessions{listener="stomp",store="orders"}`
		if w.metric(unserved) != 0 || w.metric(sessions) != 3 {
			t.Errorf("unserved %v, sessions %v", w.metric(unserved), w.metric(sessions))
		}
		since := time.Now()
		w.verdict("a:1", has(health.Active, "u1 orders 0", "u2 bills 5"))
		l := w.link(nil)
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			w.dialFor(l, relay.Try{}, "a:1")
			l.event(relay.Event{Kind: relay.Refused, At: time.Now(), Err: coded("standby")})
			_, _ = l.dial(t.Context(), relay.Try{Failures: 1})
		}()
		time.Sleep(900 * time.Millisecond)
		if strings.Contains(w.log.String(), "nobody serves") {
			t.Error("a take-over that may be under way was called a loss")
		}
		time.Sleep(5 * time.Second)
		if n := strings.Count(w.log.String(), "nobody serves a store"); n != 1 || !strings.Contains(w.log.String(), "store=orders uuid=u1") {
			t.Errorf("said %d times:\n%s", n, w.log.String())
		}
		if got := w.metric(unserved); got < 5 || got > 7 {
			t.Errorf("unserved for %v s", got)
		}
		status := w.proxy.Stores()
		if len(status) != 2 || !status[0].Unserved.Equal(since) || status[0].Holder != "" || status[1].Holder != "a:1" || !status[1].Unserved.IsZero() || status[0].Sessions != 3 {
			t.Errorf("status %+v", status)
		}
		if s := l.status(); s.Waiting != "" && !strings.HasPrefix(s.Waiting, "store orders is in nobody's hands: ") {
			t.Errorf("waits because %q", s.Waiting)
		}
		w.verdict("a:1", has(health.Active, "u1 orders 4", "u2 bills 5"))
		synctest.Wait()
		if !strings.Contains(w.log.String(), `msg="a store is served again" listener=stomp store=orders uuid=u1 broker=a:1 epoch=4 after=5.9s`) || w.metric(unserved) != 0 {
			t.Errorf("unserved %v:\n%s", w.metric(unserved), w.log.String())
		}
		<-stop
		end()
	})
}
