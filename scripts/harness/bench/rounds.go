package bench

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// Via is the way from client to peer.
type Via string

// The ways, in the order of the report.
const (
	Direct  Via = "direct"
	HAProxy Via = "haproxy"
	Sidecar Via = "sidecar"
)

var ways = [...]Via{Direct, HAProxy, Sidecar}

// The peers.
const (
	pairedBroker  = "paired broker"
	pairedPeer    = "paired peer"
	unknownPeer   = "unknown peer"
	bulkSend      = "bulk-send"
	bulkDeliver   = "bulk-deliver"
	pingPong      = "ping-pong"
	bulkQueue     = "/queue/bench-bulk"
	pingPongQueue = "/queue/bench-ping"
)

// Options of a run.
type Options struct {
	Understudy  string // path of the built binary
	Scratch     string // directory for logs
	Data        string // directory for the broker's journal
	Rounds      int
	Load        time.Duration // how long one load is offered in a round
	Connections int           // of the bulk loads
	Threads     int           // of haproxy: as many as the sidecar may use
	Logf        func(format string, args ...any)
}

// sample is what one load in one round by one way came to.
type sample struct {
	frames   int
	took     time.Duration
	cpu      cpuTime // the proxy's
	p50, p99 time.Duration
}

func (s sample) rate() float64 { return float64(s.frames) / s.took.Seconds() }

// key is a load against a peer by a way.
type key struct {
	load, peer string
	via        Via
}

// peer is one of those, and the ways to it.
type peer struct {
	name  string
	addr  map[Via]string
	proxy map[Via]*process // nil for Direct
}

// field is everything that runs during the rounds.
type field struct {
	opt    Options
	peers  []*peer
	undo   []func()
	sample map[key][]sample // one for each round
}

// close ends what was started, the last first.
func (w *field) close() {
	for _, f := range slices.Backward(w.undo) {
		f()
	}
}

// open starts peers and proxies. close must be called even if it fails.
func (w *field) open(ctx context.Context) error {
	w.sample = map[key][]sample{}
	broker, err := startBroker(ctx, w.opt.Understudy, w.opt.Scratch, w.opt.Data, "127.0.0.1:0", 1000)
	if err != nil {
		return err
	}
	w.undo = append(w.undo, func() { broker.stop(syscall.SIGTERM) })
	w.peers = []*peer{{name: pairedBroker, addr: map[Via]string{Direct: broker.listen}}}
	for _, name := range []string{pairedPeer, unknownPeer} {
		a, err := startAnswerer(name == pairedPeer)
		if err != nil {
			return err
		}
		w.undo = append(w.undo, a.close)
		w.peers = append(w.peers, &peer{name: name, addr: map[Via]string{Direct: a.addr()}})
	}
	for _, p := range w.peers {
		h, err := startHAProxy(ctx, w.opt.Scratch, w.opt.Threads, 1000, p.addr[Direct])
		if err != nil {
			return err
		}
		w.undo = append(w.undo, func() { h.stop(syscall.SIGTERM) })
		s, err := startSidecar(ctx, w.opt.Understudy, w.opt.Scratch, p.addr[Direct], 1000)
		if err != nil {
			return err
		}
		w.undo = append(w.undo, func() { s.stop(syscall.SIGTERM) })
		p.addr[HAProxy], p.addr[Sidecar] = h.listen[p.addr[Direct]], s.listen
		p.proxy = map[Via]*process{HAProxy: h.process, Sidecar: s.process}
	}
	return nil
}

// run makes all rounds. Before the first one each load is offered shortly, and forgotten: pages are touched, caches filled, heaps grown.
func (w *field) run(ctx context.Context) error {
	for round := -1; round < w.opt.Rounds; round++ {
		d := w.opt.Load
		if round < 0 {
			d /= 4
		}
		w.opt.Logf("round %d of %d", round+1, w.opt.Rounds)
		for _, p := range w.peers {
			for i := range ways {
				via := ways[(i+max(round, 0))%len(ways)] // each way is the first as often as the others
				if err := w.loads(ctx, p, via, d); err != nil {
					return fmt.Errorf("%s via %s: %w", p.name, via, err)
				}
			}
		}
		if round < 0 {
			clear(w.sample)
		}
	}
	return nil
}

// loads offers every load to a peer by one way.
func (w *field) loads(ctx context.Context, p *peer, via Via, d time.Duration) error {
	addr, n := p.addr[via], w.opt.Connections
	counts := make([]int, n)
	queue := func(i int) string { return fmt.Sprintf("%s-%d", bulkQueue, i) }
	err := w.measure(ctx, key{bulkSend, p.name, via}, p, func(s *sample) (err error) {
		s.took, err = each(ctx, addr, n, func(i int, c *client) (err error) {
			counts[i], err = c.pipeline(queue(i), d)
			return err
		})
		for _, c := range counts {
			s.frames += c
		}
		return err
	})
	if err != nil {
		return err
	}
	err = w.measure(ctx, key{bulkDeliver, p.name, via}, p, func(s *sample) (err error) {
		if p.name != pairedBroker {
			clear(counts) // messages without end
		}
		s.took, err = each(ctx, addr, n, func(i int, c *client) (err error) {
			counts[i], err = c.consume(queue(i), counts[i], d)
			return err
		})
		for _, c := range counts {
			s.frames += c
		}
		return err
	})
	if err != nil {
		return err
	}
	err = w.measure(ctx, key{pingPong, p.name, via}, p, func(s *sample) (err error) {
		s.took, err = each(ctx, addr, 1, func(_ int, c *client) error {
			took, err := c.pingPong(pingPongQueue, d)
			if s.frames = len(took); s.frames > 0 {
				s.p50, s.p99 = took[len(took)/2], took[len(took)*99/100]
			}
			return err
		})
		return err
	})
	if err != nil || p.name != pairedBroker {
		return err
	}
	// The next way finds the store as this one did.
	pings := w.last(key{pingPong, p.name, via}).frames
	_, err = each(ctx, addr, 1, func(_ int, c *client) error {
		_, err := c.consume(pingPongQueue, pings, d)
		return err
	})
	return err
}

func (w *field) last(k key) sample { return w.sample[k][len(w.sample[k])-1] }

// measure notes what a load took of the proxy's time.
func (w *field) measure(ctx context.Context, k key, p *peer, load func(*sample) error) error {
	var s sample
	proxy := p.proxy[k.via]
	var before, after cpuTime
	var err error
	if proxy != nil {
		if before, err = proxy.cpu(); err != nil {
			return err
		}
	}
	if err := load(&s); err != nil {
		return fmt.Errorf("%s: %w", k.load, err)
	}
	if proxy != nil {
		if after, err = proxy.cpu(); err != nil {
			return err
		}
	}
	if s.frames == 0 {
		return fmt.Errorf("%s: not one frame got through", k.load)
	}
	s.cpu = after.sub(before)
	w.sample[k] = append(w.sample[k], s)
	return ctx.Err()
}
