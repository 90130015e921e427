package bench

import (
	"context"
	"fmt"
	"math"
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
	pairedBroker = "paired broker"
	pairedPeer   = "paired peer"
	unknownPeer  = "unknown peer"
)

// Peers are all there are.
func Peers() []string { return []string{pairedBroker, pairedPeer, unknownPeer} }

// The loads. Most client libraries write every frame by itself; those that gather some, when there are some, are the batched cases.
const (
	bulkSend       = "bulk-send"
	bulkDeliver    = "bulk-deliver"
	batchedSend    = "batched-send"
	batchedDeliver = "batched-deliver"
	pingPong       = "ping-pong"
)

// Cases are all loads.
func Cases() []string { return []string{bulkSend, bulkDeliver, batchedSend, batchedDeliver, pingPong} }

const (
	batch         = 16      // frames in one write at most
	stored        = 200_000 // messages of one load that are in the broker's queues at most, so that it does not take long to empty them
	bulkQueue     = "/queue/bench-bulk"
	pingPongQueue = "/queue/bench-ping"
)

// Options of a run.
type Options struct {
	Understudy   string   // path of the built binary
	Scratch      string   // directory for logs
	Data         string   // directory for the broker's journal
	Cases, Peers []string // those of Cases and Peers that are measured
	Rounds       int
	Load         time.Duration // how long one load is offered in a round
	Connections  int           // of the bulk loads
	Threads      int           // of haproxy: as many as the sidecar may use
	Logf         func(format string, args ...any)
}

// sample is what one load in one round by one way came to.
type sample struct {
	frames   int
	took     time.Duration
	cpu      cpuTime // the proxy's
	p50, p99 time.Duration
	out      int // messages that consumers had acknowledged when the last one was confirmed
}

// latencies counts frames by how long each took.
func (s *sample) latencies(took []time.Duration) {
	slices.Sort(took)
	if s.frames = len(took); s.frames > 0 {
		s.p50, s.p99 = took[len(took)/2], took[len(took)*99/100]
	}
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
	w.peers = slices.DeleteFunc(w.peers, func(p *peer) bool { return !slices.Contains(w.opt.Peers, p.name) })
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
	for _, l := range []struct {
		send, deliver string
		perWrite      int
	}{{bulkSend, bulkDeliver, 1}, {batchedSend, batchedDeliver, batch}} {
		counts, most := make([]int, w.opt.Connections), math.MaxInt
		if p.name == pairedBroker {
			most = stored / len(counts)
		}
		if w.wanted(l.send) || w.wanted(l.deliver) && p.name == pairedBroker {
			err := w.bulk(ctx, key{l.send, p.name, via}, p, l.perWrite, counts, func(c *client, queue string, _ int) (int, error) { return c.pipeline(queue, d, most) })
			if err != nil {
				return err
			}
		}
		if w.wanted(l.deliver) || w.wanted(l.send) && p.name == pairedBroker { // the next load finds the store as this one did
			if p.name != pairedBroker {
				clear(counts) // messages without end
			}
			err := w.bulk(ctx, key{l.deliver, p.name, via}, p, l.perWrite, counts, func(c *client, queue string, n int) (int, error) { return c.consume(queue, n, d) })
			if err != nil {
				return err
			}
		}
	}
	if !w.wanted(pingPong) {
		return nil
	}
	return w.pingPong(ctx, key{pingPong, p.name, via}, p, d)
}

func (w *field) wanted(load string) bool { return slices.Contains(w.opt.Cases, load) }

// bulk measures what several connections do at once, each with its queue and its element of counts.
func (w *field) bulk(ctx context.Context, k key, p *peer, perWrite int, counts []int, do func(c *client, queue string, n int) (int, error)) error {
	return w.measure(ctx, k, p, func(s *sample) (err error) {
		s.took, err = each(ctx, p.addr[k.via], len(counts), perWrite, func(i int, c *client) (err error) {
			counts[i], err = do(c, fmt.Sprintf("%s-%d", bulkQueue, i), counts[i])
			return err
		})
		for _, c := range counts {
			s.frames += c
		}
		return err
	})
}

func (w *field) pingPong(ctx context.Context, k key, p *peer, d time.Duration) error {
	pings := 0
	err := w.measure(ctx, k, p, func(s *sample) (err error) {
		s.took, err = each(ctx, p.addr[k.via], 1, 1, func(_ int, c *client) error {
			took, err := c.pingPong(pingPongQueue, d)
			s.latencies(took)
			return err
		})
		pings = s.frames
		return err
	})
	if err != nil || p.name != pairedBroker {
		return err
	}
	_, err = each(ctx, p.addr[Direct], 1, batch, func(_ int, c *client) error {
		_, err := c.consume(pingPongQueue, pings, d)
		return err
	})
	return err
}

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
