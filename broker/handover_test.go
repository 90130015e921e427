package broker

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

var (
	handOvers    = flag.Int("handover.times", 12, "how often TestHandOverUnderLoad moves the store")
	handOverRate = flag.Int("handover.rate", 1000, "effects a second that it has under way")
)

// A store goes to and fro under load, with transactions open, acknowledgements under way and messages in clients' hands. Nothing is lost, comes twice, or comes
// in another order, no connection ends but by the word, and the pause is short.
func TestHandOverUnderLoad(t *testing.T) {
	dirs := []string{t.TempDir()}
	servers := crew(t, dirs, []string{"a", "b"}, manual)
	addrs := []string{servers[0].addr, servers[1].addr}
	stop, stopped := make(chan struct{}), make(chan struct{})
	total := 0
	producer, consumer := newNomad(1, addrs...), newNomad(2, addrs...)
	var others []*nomad
	var running sync.WaitGroup
	const pairs = 4
	every := time.Second / time.Duration(max(*handOverRate/(2*pairs), 1))
	running.Go(func() {
		defer close(stopped)
		n, err := producer.produce("p", "/queue/a", every, stop)
		if err != nil {
			t.Error("producer:", err)
		}
		total = n
	})
	running.Go(func() {
		if err := consumer.consume("/queue/a", over(stopped, &total)); err != nil {
			t.Error("consumer:", err)
		}
	})
	for i := range pairs - 1 {
		p, c := newNomad(10+2*i, addrs...), newNomad(11+2*i, addrs...)
		others = append(others, p, c)
		queue, done, n := fmt.Sprint("/queue/", i), make(chan struct{}), new(int)
		running.Go(func() {
			defer close(done)
			var err error
			if *n, err = p.produce("p", queue, every, stop); err != nil {
				t.Error("another producer:", err)
			}
		})
		running.Go(func() {
			if err := c.consume(queue, over(done, n)); err != nil {
				t.Error("another consumer:", err)
			}
		})
	}
	held := 0
	for i := range *handOvers {
		from, to := servers[held], servers[1-held]
		from.warmFor(0, 1)
		direct := from.connected("1.2")
		time.Sleep(20 * time.Millisecond)
		if err := from.HandOver(t.Context(), "store-0", to.cfg.Name); err != nil {
			t.Fatal("hand-over ", i, ": ", err)
		}
		if r := direct.refused("store moves"); r.headers[frame.HeaderMoved] != "" {
			t.Fatalf("got %v: a direct client sees no header of ours", r)
		}
		eventually(t, "all have followed", func() bool { return to.Status().Stores[0].Connections == 2*pairs || t.Failed() })
		held = 1 - held
		if t.Failed() {
			break
		}
		if st := from.Status().Stores[0]; st.Handovers != uint64(i/2+1) || st.Err != nil || st.Trouble != nil {
			t.Fatalf("got %+v", st)
		}
	}
	close(stop)
	running.Wait()
	var pauses []time.Duration
	moved, broke := 0, 0
	for _, n := range append(others, producer, consumer) {
		pauses = append(pauses, n.pauses...)
		moved += n.moved
		broke += n.broke
	}
	slices.Sort(pauses)
	if len(pauses) == 0 || t.Failed() {
		return
	}
	t.Logf("%d messages of the first pair; %d moves of sessions; pause p50 %v p90 %v max %v", total, moved, pauses[len(pauses)/2], pauses[len(pauses)*9/10], pauses[len(pauses)-1])
	if want := (2 * pairs) * *handOvers; moved != want || broke != 0 {
		t.Errorf("%d sessions heard that the store moves, want %d; %d connections ended without a word", moved, want, broke)
	}
}

// over says how many messages there are, once that is known.
func over(done <-chan struct{}, n *int) func() (int, bool) {
	return func() (int, bool) {
		select {
		case <-done:
			return *n, true
		default:
			return 0, false
		}
	}
}

// A command says what is wrong with it.
func TestHandOverIsRefused(t *testing.T) {
	dirs := []string{t.TempDir()}
	a := join(t, dirs, "a", 0)
	for _, test := range []struct {
		store, to string
		want      error
	}{
		{"nothing", "", ErrNoStore},
		{"store-0", "", ErrNoCandidate},
		{a.one().UUID, "b", ErrNoCandidate},
	} {
		if err := a.HandOver(t.Context(), test.store, test.to); !errors.Is(err, test.want) {
			t.Errorf("%s to %q: got %v, want %v", test.store, test.to, err, test.want)
		}
	}
	b := join(t, dirs, "b", 1)
	a.warmFor(0, 1)
	if err := a.HandOver(t.Context(), "store-0", "c"); !errors.Is(err, ErrNoCandidate) {
		t.Errorf("got %v, want ErrNoCandidate", err)
	}
	if err := b.HandOver(t.Context(), "store-0", "a"); !errors.Is(err, ErrNotHeld) {
		t.Errorf("got %v, want ErrNotHeld", err)
	}
	cold := join(t, dirs, "cold", 1, func(c *Config) { c.Cold = true })
	eventually(t, "it is seen", func() bool { return len(a.one().Candidates) == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := a.HandOver(ctx, "store-0", cold.cfg.Name); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
}

// Whoever has just let go of the store, or just got it, needs a moment before it stands or serves: who commands waits for it and is not refused.
func TestHandOverAtOnce(t *testing.T) {
	servers := crew(t, []string{t.TempDir()}, []string{"a", "b"}, manual)
	servers[0].warmFor(0, 1)
	for i := range 8 {
		from, to := servers[i%2], servers[(i+1)%2]
		eventually(t, "it serves", func() bool { return from.one().Role == Active })
		if err := from.HandOver(t.Context(), "store-0", to.cfg.Name); err != nil {
			t.Fatal(i, err)
		}
	}
}

// A server that follows no log takes a store all the same, when it has been waited for; so does an owner, by itself.
func TestHandOverToWhoFollowsNoLog(t *testing.T) {
	const patience = time.Second + standPatience
	dirs := []string{t.TempDir()}
	away := func(c *Config) {
		c.warmPatience = patience
		c.Cold, c.Failback, c.FailbackAfter = true, FailbackAuto, 100*time.Millisecond
	}
	owner := join(t, dirs, "owner", 0, away)
	other := join(t, dirs, "other", 1, away)
	eventually(t, "it is seen", func() bool { return len(owner.one().Candidates) == 1 })
	began := time.Now()
	if err := owner.HandOver(t.Context(), "store-0", "other"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < patience {
		t.Errorf("nobody waited for a copy: %v", took)
	}
	eventually(t, "the other one serves", func() bool { return other.one().Role == Active })
	eventually(t, "the store goes back", func() bool { return owner.one().Role == Active })
}

// The owner was away, and gets its store back by itself, when it has been there for a while.
func TestStoreGoesBackToItsOwner(t *testing.T) {
	dirs := []string{t.TempDir()}
	soon := func(c *Config) { c.FailbackAfter = 300 * time.Millisecond }
	b := join(t, dirs, "b", 1, soon)
	if st := b.one(); st.Role != Unreachable || st.Trouble == nil {
		eventually(t, "it is not made by who does not own it", func() bool { return b.one().Role == Unreachable })
	}
	a := join(t, dirs, "a", 0, soon)
	eventually(t, "the standby reaches it", func() bool { return b.one().Role == Standby })
	a.warmFor(0, 1)
	c, _ := a.sidecar(sessionX, 1)
	c.effect(1, "SEND", "destination:/queue/a", "=one")
	a.stop()
	if r := c.expect("ERROR"); r.headers[frame.HeaderMoved] == "" {
		t.Fatalf("got %v", r)
	}
	eventually(t, "the standby has it", func() bool { return b.one().Role == Active })
	if n := b.all()[0].count.takeovers.Get(); n != 1 {
		t.Errorf("%d take-overs, want 1", n)
	}
	c, hello := b.sidecar(sessionX, 2)
	if hello.headers["understudy-cursor"] != "1" {
		t.Fatalf("got %v", hello)
	}
	back := start(t, dirs[0], soon, func(c *Config) { c.Name, c.Changed = "a", nil; c.Stores[0].Name = "store-0" })
	began := time.Now()
	eventually(t, "the owner has it back", func() bool { return back.one().Role == Active })
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("after %v already", took)
	}
	if r := c.expect("ERROR"); r.headers[frame.HeaderMoved] == "" {
		t.Fatalf("got %v", r)
	}
	eventually(t, "it is counted", func() bool { return b.all()[0].count.handovers[byFailback].Get() == 1 && b.one().Handovers == 1 })
	back.subscriber("/queue/a", "auto").message("one")
}

// Servers end one after the other, and the last has all stores; then the owners come back and so do their stores.
func TestLastServerHasAllStores(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	quick := func(c *Config) { c.FailbackAfter = 200 * time.Millisecond }
	for _, dir := range dirs[1:] {
		t.Cleanup(func() { checkStore(t, dir) })
	}
	names := []string{"a", "b", "c", "idle"}
	servers := crew(t, dirs, names, quick)
	serves := func(s *testServer) (n int) {
		for _, st := range s.Status().Stores {
			if st.Role == Active {
				n++
			}
		}
		return n
	}
	for i, s := range servers[:3] {
		s.connected("1.2").sent("/queue/a", fmt.Sprint(i))
	}
	for i, s := range servers[:3] {
		s.warmFor(i, 3)
		eventually(t, "the idle one is the first, and warm", func() bool {
			first := s.Status().Stores[i].Candidates[0]
			return first.Node == "idle" && first.Warm
		})
	}
	servers[0].stop()
	eventually(t, "the idle one has the first", func() bool { return serves(servers[3]) == 1 })
	servers[1].stop()
	eventually(t, "two have three", func() bool { return serves(servers[2])+serves(servers[3]) == 3 })
	servers[2].stop()
	eventually(t, "one has all", func() bool { return serves(servers[3]) == 3 })
	last := servers[3]
	for i := range dirs {
		c := last.dial()
		c.connect("1.2", fmt.Sprint("understudy-store:store-", i))
		c.subscribe("s", "/queue/a", "client")
		c.message(fmt.Sprint(i))
		c.nc.Close()
	}
	for i := 2; i >= 0; i-- {
		servers[i] = start(t, dirs[0], quick, func(c *Config) {
			c.Name, c.Changed, c.Stores = names[i], nil, nil
			for j, dir := range dirs {
				c.Stores = append(c.Stores, StoreConfig{Name: fmt.Sprint("store-", j), Dir: dir, Own: j == i})
			}
		})
	}
	for i, s := range servers[:3] {
		eventually(t, "it goes back", func() bool { return s.Status().Stores[i].Role == Active && serves(s) == 1 })
		s.subscriber("/queue/a", "client").message(fmt.Sprint(i))
	}
	if n := serves(last); n != 0 {
		t.Errorf("%d stores are left behind", n)
	}
}

// A server that ends leaves its stores to different standbys, though each of them would be the first for all.
func TestStoresAreLeftToDifferentServers(t *testing.T) {
	s := two(t)
	var idle []*testServer
	for _, name := range []string{"x", "y"} {
		idle = append(idle, start(t, s.cfg.Stores[0].Dir, func(c *Config) {
			c.Name, c.Changed, c.Stores = name, nil, slices.Clone(s.cfg.Stores)
			for i := range c.Stores {
				c.Stores[i].Own = false
			}
		}))
	}
	for i := range 2 {
		eventually(t, "both are warm", func() bool {
			list := s.Status().Stores[i].Candidates
			return len(list) == 2 && list[0].Warm && list[1].Warm
		})
	}
	s.stop()
	serves := func(s *testServer) (n int) {
		for _, st := range s.Status().Stores {
			if st.Role == Active {
				n++
			}
		}
		return n
	}
	eventually(t, "both are served", func() bool { return serves(idle[0])+serves(idle[1]) == 2 })
	if a, b := serves(idle[0]), serves(idle[1]); a != 1 || b != 1 {
		t.Errorf("one has %d, the other %d", a, b)
	}
}
