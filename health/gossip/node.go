// Package gossip is the membership of brokers and sidecars, and what they tell each other: a Node announces itself, hears what all
// others announce, and passes on suspicions, over hashicorp/memberlist.
//
// Announcements travel as user messages (at once, to the members directly, and again by gossip) and as user state of the push/pull, so
// that a lost packet costs time and nothing else. Of each node the last word counts; the merge is commutative and idempotent.
//
// It guarantees that what is known converges on what each live node said last, that two halves of a parted cluster join again by
// themselves, and that nothing from outside makes it grow without limit. It guarantees no truth: whoever can reach the port, or has a
// key if there is one, can announce anything. So gossip is hearsay for health, and never decides alone.
//
// How soon a killed node is noticed is in config.go. A session's own broken connection is always sooner.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/understudy-mq/understudy/health"
)

// ErrClosed says that the Node was closed.
var ErrClosed = errors.New("gossip node is closed")

// Sizes of queues. What does not fit is dropped and counted: gossip repeats itself.
const (
	packetQueue = 256
	stateQueue  = 8
	outQueue    = 64
	hintQueue   = 64
)

// Node is one member. Safe for concurrent use.
type Node struct {
	cfg     Config
	member  string // our name in the membership: the configured one and a random part, new in each life
	addr    string
	ml      *memberlist.Memberlist
	keyring *memberlist.Keyring
	queue   *memberlist.TransmitLimitedQueue
	members *roster
	stop    context.CancelFunc
	wg      sync.WaitGroup

	packets    chan []byte    // from memberlist's callback to run
	states     chan []byte    // from memberlist's callback to run
	membership chan struct{}  // capacity 1: the roster changed
	dirty      chan struct{}  // capacity 1: our own announcement changed
	outbox     chan outbound  // suspicions to broadcast
	large      chan []byte    // capacity 1: our announcement, too big for a packet
	hints      chan Suspicion // to our user
	leaving    atomic.Bool

	mu        sync.Mutex
	own       Announcement
	ledger    ledger           // replaced, never changed
	notes     map[string]*note // by node name, as the ledger
	moved     []Peer           // to be logged by run: at most one for each change of presence
	view      View
	changed   chan struct{} // closed when view is replaced
	refuted   time.Time
	suspected map[health.Target]time.Time // when we broadcast a suspicion last
	sequence  uint64                      // of suspicions
	closed    bool
}

// note is what is remembered of a node beside its word.
type note struct {
	member   string
	heard    time.Time // when this life of it was first heard of
	seen     bool      // this life was a live member
	presence Presence
	since    time.Time
}

type outbound struct {
	Suspicion
	sequence uint64
}

// New starts a node and returns at once: it looks for others in the background, for as long as it lives.
func New(cfg Config) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg:        cfg,
		member:     memberName(cfg.Name),
		members:    newRoster(),
		packets:    make(chan []byte, packetQueue),
		states:     make(chan []byte, stateQueue),
		membership: make(chan struct{}, 1),
		dirty:      make(chan struct{}, 1),
		outbox:     make(chan outbound, outQueue),
		large:      make(chan []byte, 1),
		hints:      make(chan Suspicion, hintQueue),
		notes:      make(map[string]*note),
		changed:    make(chan struct{}),
		suspected:  make(map[health.Target]time.Time),
	}
	n.queue = &memberlist.TransmitLimitedQueue{NumNodes: n.members.count, RetransmitMult: retransmitMult}
	now := time.Now()
	n.own = Announcement{Node: cfg.Name, Member: n.member, Kind: cfg.Kind, Incarnation: uint64(now.UnixNano()), Sequence: 1}
	if err := n.own.validate(); err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.learn([]record{newRecord(n.own)}, now)
	n.mu.Unlock()

	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	if err := n.start(ctx); err != nil {
		stop()
		return nil, fmt.Errorf("start gossip on %s: %w", net.JoinHostPort(cfg.BindAddr, strconv.Itoa(cfg.BindPort)), err)
	}
	kick(n.dirty)
	n.wg.Go(func() { n.run(ctx) })
	n.wg.Go(func() { n.rejoin(ctx) })
	return n, nil
}

// start binds the sockets and starts memberlist.
func (n *Node) start(ctx context.Context) error {
	conf, err := n.tuned()
	if err != nil {
		return err
	}
	t, err := listen(ctx, n.cfg, conf.Logger)
	if err != nil {
		return err
	}
	conf.Transport = t
	if conf.AdvertisePort == 0 {
		conf.AdvertisePort = t.GetAutoBindPort()
	}
	conf.BindPort = t.GetAutoBindPort()
	n.keyring = conf.Keyring
	if n.ml, err = memberlist.Create(conf); err != nil {
		_ = t.Shutdown()
		return err
	}
	n.addr = n.ml.LocalNode().Address()
	return nil
}

// Addr is the host:port that others join.
func (n *Node) Addr() string { return n.addr }

// Name is the node's name.
func (n *Node) Name() string { return n.cfg.Name }

// Announce replaces what we tell about ourselves, here at once and everywhere else as fast as the network allows. Node, Member, Kind,
// Incarnation and Sequence are filled in. The only errors are ErrTooBig and ErrClosed.
func (n *Node) Announce(a Announcement) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return ErrClosed
	}
	return n.announce(a, time.Now())
}

func (n *Node) announce(a Announcement, now time.Time) error {
	a.Node, a.Member, a.Kind = n.own.Node, n.own.Member, n.own.Kind
	a.Incarnation, a.Sequence = n.own.Incarnation, n.own.Sequence+1
	a.Endpoints = append([]string(nil), a.Endpoints...)
	a.Stores = append([]Store(nil), a.Stores...)
	if err := a.validate(); err != nil {
		return err
	}
	n.own = a
	n.learn([]record{newRecord(a)}, now)
	kick(n.dirty)
	return nil
}

// Suspect tells all others that something happened to t, so that they probe it now. It never blocks; what is said twice within 100 ms
// is said once.
func (n *Node) Suspect(t health.Target) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if last, ok := n.suspected[t]; n.closed || t == "" || len(t) > maxString || (ok && now.Sub(last) < suspectGap) {
		return
	}
	if len(n.suspected) >= maxHints {
		clear(n.suspected)
	}
	n.suspected[t] = now
	n.sequence = max(n.sequence+1, uint64(now.UnixNano()))
	select {
	case n.outbox <- outbound{Suspicion{Target: t, By: n.cfg.Name, At: now}, n.sequence}:
	default:
		n.cfg.Metrics.dropped("outbox-full")
	}
}

// Suspicions are what others saw: each a reason to probe its target now. At most one for each target in 50 ms; those that nobody
// fetches are dropped. The channel is never closed.
func (n *Node) Suspicions() <-chan Suspicion { return n.hints }

// Snapshot is the cluster as it is known here, and a channel that is closed as soon as that is out of date.
func (n *Node) Snapshot() (View, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.view, n.changed
}

// SetKeys changes the encryption keys without a restart: all of them decrypt, the first encrypts. To change a key, give every node
// the new one second, then first, then alone. A node that was started without keys cannot get any.
func (n *Node) SetKeys(keys []string) error {
	decoded, err := decodeKeys(keys)
	if err != nil {
		return err
	}
	if n.keyring == nil || len(decoded) == 0 {
		return errors.New("set gossip keys: encryption is switched on or off only by a restart")
	}
	return rekey(n.keyring, decoded)
}

// Close says good-bye to the others, for at most Config.LeaveTimeout, and stops. It is idempotent. memberlist's own goroutines end
// within its stream time-out of 2 s.
func (n *Node) Close() error {
	if !n.end() {
		return nil
	}
	n.mu.Lock()
	last := n.own
	last.Leaving, last.Stores, last.Sequence = true, nil, last.Sequence+1
	n.own = last
	n.mu.Unlock()
	if msg := encodeAnnouncement(newRecord(last)); len(msg) <= maxPacket {
		// The packet is there long before the membership's own news, which waits for its turn in the gossip.
		n.spread("announcement", last.Node, msg)
	}
	err := n.ml.Leave(n.cfg.LeaveTimeout)
	if err != nil {
		n.cfg.Logger.Debug("gossip: leave was not heard by all", "error", err)
	}
	return n.ml.Shutdown()
}

// end stops our goroutines and waits for them; it reports false if that was done before.
func (n *Node) end() bool {
	n.mu.Lock()
	was := n.closed
	n.closed = true
	n.mu.Unlock()
	n.leaving.Store(true)
	n.stop()
	n.wg.Wait()
	return !was
}

// kick never blocks: one kick is as good as many.
func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

var discard = slog.New(slog.DiscardHandler)
