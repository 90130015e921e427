package gossip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/health"
)

// start gives a running node that is closed with the test.
func start(t *testing.T, cfg Config) *Node {
	t.Helper()
	if cfg.Kind == 0 {
		cfg.Kind = Broker
	}
	if cfg.RejoinInterval == 0 {
		cfg.RejoinInterval = 300 * time.Millisecond
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// kill ends a node as a crash does: nobody is told.
func (n *Node) kill() {
	if n.end() {
		_ = n.ml.Shutdown()
	}
}

// await waits until the node's view satisfies ok, and says how long that took.
func await(t *testing.T, n *Node, limit time.Duration, what string, ok func(View) bool) time.Duration {
	t.Helper()
	began := time.Now()
	deadline := time.After(limit)
	for {
		v, changed := n.Snapshot()
		if ok(v) {
			return time.Since(began)
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s does not see %s within %v; it sees %+v", n.Name(), what, limit, v)
		}
	}
}

func (v View) peer(name string) (Peer, bool) {
	for _, p := range v.Peers {
		if p.Node == name {
			return p, true
		}
	}
	return Peer{}, false
}

func members(want int) func(View) bool { return func(v View) bool { return v.Members == want } }

func presence(name string, want Presence) func(View) bool {
	return func(v View) bool {
		p, ok := v.peer(name)
		return ok && p.Presence == want
	}
}

func epoch(name string, want uint64) func(View) bool {
	return func(v View) bool {
		p, ok := v.peer(name)
		return ok && p.Presence == Alive && len(p.Stores) == 1 && p.Stores[0].Epoch == want
	}
}

func owner(e uint64) Announcement {
	return Announcement{Endpoints: []string{"127.0.0.1:61613"}, Stores: []Store{{UUID: "s", Name: "orders", Epoch: e, Role: Active}}}
}

// three gives three nodes that know each other: two brokers and a sidecar.
func three(t *testing.T, cfg Config) [3]*Node {
	t.Helper()
	var ns [3]*Node
	for i := range ns {
		cfg.Name, cfg.Kind = fmt.Sprintf("node-%d", i), Broker
		if i == 2 {
			cfg.Kind = Sidecar
		}
		ns[i] = start(t, cfg)
		cfg.Join = append(cfg.Join, ns[i].Addr())
	}
	for _, n := range ns {
		await(t, n, 5*time.Second, "all three", func(v View) bool { return v.Members == 3 && v.Sidecars == 1 && len(v.Peers) == 3 })
	}
	return ns
}

func TestAnnouncementSpreads(t *testing.T) {
	t.Parallel()
	ns := three(t, Config{Label: "here", Keys: []string{"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}})
	fastest := time.Hour
	for e := range uint64(5) {
		began := time.Now()
		if err := ns[0].Announce(owner(e + 1)); err != nil {
			t.Fatal(err)
		}
		if v, _ := ns[0].Snapshot(); !epoch("node-0", e+1)(v) {
			t.Fatal("a node does not see its own announcement at once")
		}
		for _, n := range ns[1:] {
			await(t, n, time.Second, "the epoch", epoch("node-0", e+1))
		}
		took := time.Since(began)
		fastest = min(fastest, took)
		t.Logf("epoch %d everywhere after %v", e+1, took)
	}
	if fastest > gossipInterval/2 {
		t.Errorf("the fastest of five took %v: announcements wait for the gossip", fastest)
	}
	v, _ := ns[2].Snapshot()
	p, _ := v.peer("node-0")
	if p.Kind != Broker || p.Member == "" || p.Sequence < 6 || len(p.Evidence()) != 1 || p.Evidence()[0].Kind != health.GossipActive {
		t.Errorf("peer is %+v", p)
	}
}

func TestKilledNodeIsLost(t *testing.T) {
	t.Parallel()
	ns := three(t, Config{})
	if err := ns[0].Announce(owner(7)); err != nil {
		t.Fatal(err)
	}
	await(t, ns[2], time.Second, "the epoch", epoch("node-0", 7))
	ns[0].kill()
	took := await(t, ns[2], 10*time.Second, "the loss", presence("node-0", Lost))
	await(t, ns[1], 5*time.Second, "the loss", presence("node-0", Lost))
	t.Logf("loss noticed after %v", took)
	v, _ := ns[2].Snapshot()
	p, _ := v.peer("node-0")
	if e := p.Evidence(); len(e) != 1 || e[0].Kind != health.GossipLeft || len(e[0].Stores) != 1 || e[0].Stores[0].Epoch != 7 {
		t.Errorf("evidence of the loss is %+v", e)
	}
	// It comes back under its name and elsewhere, and is known again though the others still remember it.
	back := start(t, Config{Name: "node-0", Join: []string{ns[1].Addr()}})
	if err := back.Announce(owner(9)); err != nil {
		t.Fatal(err)
	}
	for _, n := range ns[1:] {
		await(t, n, 2*time.Second, "the new life", epoch("node-0", 9))
	}
}

// A node that comes back before anybody missed it must not be taken for a conflict, nor for its own dead predecessor.
func TestRestartBeforeLossIsNoticed(t *testing.T) {
	t.Parallel()
	ns := three(t, Config{})
	ns[0].kill()
	back := start(t, Config{Name: "node-0", Join: []string{ns[2].Addr()}})
	if err := back.Announce(owner(2)); err != nil {
		t.Fatal(err)
	}
	for _, n := range ns[1:] {
		await(t, n, time.Second, "the new life", epoch("node-0", 2))
		await(t, n, 10*time.Second, "the old life gone", func(v View) bool { return members(3)(v) && epoch("node-0", 2)(v) })
	}
}

func TestLeaveIsKnownAtOnce(t *testing.T) {
	t.Parallel()
	ns := three(t, Config{})
	if err := ns[0].Announce(owner(7)); err != nil {
		t.Fatal(err)
	}
	await(t, ns[2], time.Second, "the epoch", epoch("node-0", 7))
	done := make(chan error, 1)
	go func() { done <- ns[0].Close() }()
	await(t, ns[2], time.Second, "the leave", presence("node-0", Left))
	if err := <-done; err != nil {
		t.Error(err)
	}
	await(t, ns[2], 3*time.Second, "two members", members(2))
	if err := ns[0].Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := ns[0].Announce(owner(8)); err != ErrClosed {
		t.Errorf("Announce after Close: %v", err)
	}
	if v, _ := ns[2].Snapshot(); !presence("node-0", Left)(v) {
		t.Error("a node that left counts as lost once the membership has noticed")
	}
}

// wires is a network that can be parted.
type wires struct {
	parted atomic.Bool
	lost   [2]atomic.Int32 // messages and dials, by the side they came from
	mu     sync.Mutex
	side   map[string]bool // address → side
}

func (w *wires) put(addr string, side bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.side[addr] = side
}

func (w *wires) from(side bool) func(string) bool {
	return func(to string) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.parted.Load() || w.side[to] == side {
			return true
		}
		if side {
			w.lost[1].Add(1)
		} else {
			w.lost[0].Add(1)
		}
		return false
	}
}

// The membership never speaks again to a member that it lost more than half a minute ago; here it is made to forget at once, by
// restarts on both sides, and only the seeds lead back.
func TestPartedClusterJoinsAgain(t *testing.T) {
	t.Parallel()
	w := &wires{side: make(map[string]bool)}
	a := start(t, Config{Name: "a", wire: w.from(false)})
	w.put(a.Addr(), false)
	b := start(t, Config{Name: "b", Join: []string{a.Addr()}, wire: w.from(true)})
	w.put(b.Addr(), true)
	await(t, a, 5*time.Second, "both", members(2))
	await(t, b, 5*time.Second, "both", members(2))

	w.parted.Store(true)
	await(t, a, 10*time.Second, "the loss", presence("b", Lost))
	await(t, b, 10*time.Second, "the loss", presence("a", Lost))
	if err := a.Announce(owner(5)); err != nil {
		t.Fatal(err)
	}
	b.kill() // and with it all memory of a
	seeds := func(context.Context) ([]string, error) { return []string{a.Addr()}, nil }
	b = start(t, Config{Name: "b", Resolve: seeds, wire: w.from(true)})
	w.put(b.Addr(), true)
	for before := w.lost[1].Load(); w.lost[1].Load() == before; {
		time.Sleep(time.Millisecond) // until it has tried in vain
	}
	if v, _ := b.Snapshot(); v.Members != 1 {
		t.Fatalf("parted, and sees %+v", v)
	}
	w.parted.Store(false)
	await(t, b, 3*time.Second, "the other side", epoch("a", 5))
	await(t, a, 3*time.Second, "the other side", presence("b", Alive))
}

// What does not come directly comes through others, long before the next exchange of states.
func TestNewsGoesRoundABrokenPath(t *testing.T) {
	t.Parallel()
	var far atomic.Pointer[string]
	reach := func(to string) bool { s := far.Load(); return s == nil || to != *s }
	a := start(t, Config{Name: "a", wire: reach})
	b := start(t, Config{Name: "b", Join: []string{a.Addr()}})
	c := start(t, Config{Name: "c", Join: []string{b.Addr()}})
	for _, n := range []*Node{a, b, c} {
		await(t, n, 5*time.Second, "all", members(3))
	}
	addr := c.Addr()
	far.Store(&addr)
	if err := a.Announce(owner(3)); err != nil {
		t.Fatal(err)
	}
	await(t, c, time.Second, "the epoch", epoch("a", 3))
	a.Suspect("10.0.0.1:61613")
	select {
	case <-c.Suspicions():
	case <-time.After(time.Second):
		t.Error("the suspicion did not come through")
	}
}

func TestSuspicionBecomesHint(t *testing.T) {
	t.Parallel()
	ns := three(t, Config{})
	began := time.Now()
	for range 1000 {
		ns[0].Suspect("10.0.0.1:61613")
	}
	for _, n := range ns[1:] {
		select {
		case s := <-n.Suspicions():
			if s.Target != "10.0.0.1:61613" || s.By != "node-0" || time.Since(s.At).Abs() > time.Minute {
				t.Errorf("hint is %+v", s)
			}
		case <-time.After(time.Second):
			t.Fatalf("%s got no hint", n.Name())
		}
	}
	t.Logf("hint everywhere after %v", time.Since(began))
	time.Sleep(500 * time.Millisecond) // the gossip repeats it on the wire all the while
	for _, n := range ns {
		select {
		case s := <-n.Suspicions():
			t.Errorf("%s got another hint: %+v", n.Name(), s)
		default:
		}
	}
}

// More than fits into a packet goes over a stream.
func TestLargeAnnouncementSpreads(t *testing.T) {
	t.Parallel()
	ns := three(t, Config{})
	a := owner(3)
	for i := range maxStores - 1 {
		a.Stores = append(a.Stores, Store{UUID: fmt.Sprint(i), Name: strings.Repeat("x", 200), Epoch: 1})
	}
	if err := ns[0].Announce(a); err != nil {
		t.Fatal(err)
	}
	for _, n := range ns[1:] {
		await(t, n, 2*time.Second, "all stores", func(v View) bool {
			p, ok := v.peer("node-0")
			return ok && len(p.Stores) == maxStores
		})
	}
	a.Stores = append(a.Stores, Store{})
	if err := ns[0].Announce(a); err == nil {
		t.Error("an announcement beyond the limit is accepted")
	}
}

// Keys are changed one node at a time, as an operator does it.
func TestKeysChangeWithoutRestart(t *testing.T) {
	t.Parallel()
	const oldKey, newKey = "MDEyMzQ1Njc4OTAxMjM0NQ==", "NTQzMjEwOTg3NjU0MzIxMA=="
	ns := three(t, Config{Keys: []string{oldKey}})
	for _, keys := range [][]string{{oldKey, newKey}, {newKey, oldKey}, {newKey}} {
		for _, n := range ns {
			if err := n.SetKeys(keys); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := ns[0].Announce(owner(4)); err != nil {
		t.Fatal(err)
	}
	await(t, ns[2], time.Second, "the epoch", epoch("node-0", 4))
	stranger := start(t, Config{Name: "stranger", Keys: []string{oldKey}, Join: []string{ns[0].Addr()}})
	time.Sleep(500 * time.Millisecond)
	if v, _ := stranger.Snapshot(); v.Members != 1 {
		t.Errorf("the old key still opens the door: %+v", v)
	}
}

func TestBadConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no name":       {Kind: Broker},
		"no kind":       {Name: "a"},
		"bad bind":      {Name: "a", Kind: Broker, BindAddr: "localhost"},
		"bad advertise": {Name: "a", Kind: Broker, Advertise: "host"},
		"bad key":       {Name: "a", Kind: Broker, Keys: []string{"c2VjcmV0"}},
		"not base64":    {Name: "a", Kind: Broker, Keys: []string{"!"}},
		"long label":    {Name: "a", Kind: Broker, Label: strings.Repeat("x", maxLabel+1)},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := New(cfg)
			if err == nil {
				_ = n.Close()
				t.Fatal("accepted")
			}
			if strings.Contains(err.Error(), "c2VjcmV0") || strings.Contains(err.Error(), "secret") {
				t.Errorf("error tells the key: %v", err)
			}
		})
	}
	taken := start(t, Config{Name: "a"})
	if n, err := New(Config{Name: "b", Kind: Broker, BindPort: int(portOf(t, taken.Addr()))}); err == nil {
		_ = n.Close()
		t.Error("two nodes on one port")
	}
}

// A seed that accepts and says nothing holds up neither New nor Close.
func TestCloseDoesNotWaitForASilentSeed(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	n := start(t, Config{Name: "a", Join: []string{silent.Addr().String()}})
	c, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > streamTimeout/2 {
		t.Errorf("Close took %v", took)
	}
}

// memberlist ends its goroutines some time after Shutdown has returned; ours are gone when Close returns.
func TestCloseLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	a := start(t, Config{Name: "a"})
	b := start(t, Config{Name: "b", Join: []string{a.Addr(), "127.0.0.1:1"}})
	await(t, b, 5*time.Second, "both", members(2))
	began := time.Now()
	_ = b.Close()
	_ = a.Close()
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("Close took %v", took)
	}
	buf := make([]byte, 1<<20)
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, before it were %d:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

func portOf(t *testing.T, addr string) uint16 {
	t.Helper()
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return ap.Port()
}
