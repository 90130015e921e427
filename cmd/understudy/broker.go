package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/understudy-mq/understudy/broker"
	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/cmd/internal/ops"
	"github.com/understudy-mq/understudy/health/gossip"
)

const brokerDescription = `Serves STOMP over the journal of a store. Start it twice on the same directory: one serves, the other stands by and takes over when
the first is gone. That the directory is in use is therefore no error.`

// pairedProtocol is the version of what brokers and sidecars say to each other, as it is gossiped.
const pairedProtocol = 1

func brokerCommand() *cli.Command {
	own := []cli.Flag{
		texts("store", "NAME=DIR, or DIR named by its last element: a store that this server owns; DIR holds its journal, is shared by all its brokers, and is made if it is not there."),
		text("listen", "127.0.0.1:61613", "host:port for STOMP clients and sidecars; port 0 takes a free one."),
		text("advertise", "", "host:port under which sidecars reach this broker, as it is gossiped; the bound address when empty."),
		text("takeover", "strict", "What a standby does about an owner that shows no life: strict waits for the lock, kill ends the owner (same host only)."),
		duration("takeover-after", time.Second, "How long an owner must have shown no life before --takeover kill acts."),
		number("rank", 0, "Standbys with a higher rank let those with a lower one go first."),
		duration("reclaim-window", 2*time.Second, "How long the unacknowledged messages of a sidecar's client wait for it to come back."),
		number("max-connections", 20000, "Connections at once; one more is closed."),
		octets("max-frame", 0, "Largest body of a frame; 0 means what fits a journal record."),
		octets("max-record", 16<<20, "Largest journal record, which bounds messages and transactions."),
		octets("max-memory", 96<<20, "What messages take in memory. Beyond, durable ones are in the journal only, but for 44 octets of each; a SEND is held back when nothing more can go. The process needs twice as much."),
		number("prefetch", 1000, "Messages a subscription may hold unacknowledged when its client does not say."),
		text("dead-letters", "/queue/DLQ", "Queue for durable messages that have expired."),
		number("max-durables", 10000, "Durable subscriptions of topics; one more is refused."),
		number("max-temporary", 1000, "Temporary queues of one connection; one more is refused."),
		duration("full-timeout", 5*time.Second, "How long a SEND or COMMIT waits for memory, or for space on the disk, before it is refused."),
		yes("warm-copy", true, "Follow the owner's journal while standing by with --rank 0 or 1, so that a take-over does not depend on the backlog."),
		octets("segment", 0, "Size of a journal segment; 0 means 64MiB."),
	}
	return &cli.Command{
		Name: "broker", Usage: "serve STOMP over a journal, or stand by for the broker that does", Description: brokerDescription,
		Flags: append(append(own, gossipFlags()...), processFlags()...), Action: runBroker,
	}
}

type brokerSettings struct {
	processSettings
	gossip    gossipSettings
	broker    broker.Config
	advertise string
}

func readBroker(c *cli.Context) (brokerSettings, error) {
	v := &values{c: c}
	s := brokerSettings{processSettings: v.process(), gossip: v.gossip(), advertise: v.text("advertise")}
	s.broker = broker.Config{
		Stores: v.stores(), Version: version(),
		TakeoverAfter: v.positive("takeover-after"), Rank: v.count("rank", 0), ReclaimWindow: v.positive("reclaim-window"),
		MaxConnections: v.count("max-connections", 1), Prefetch: v.count("prefetch", 1), MaxRecord: int(v.octets("max-record", 64<<10)),
		MaxMemory: v.octets("max-memory", 1<<20), SegmentBytes: v.octets("segment", 0),
		FullTimeout: v.positive("full-timeout"),
		DeadLetters: v.text("dead-letters"), MaxDurables: v.count("max-durables", 1), MaxTemporary: v.count("max-temporary", 1), Cold: !c.Bool("warm-copy"),
	}
	if !strings.HasPrefix(s.broker.DeadLetters, "/queue/") {
		v.fail("dead-letters", s.broker.DeadLetters, "must be a queue, such as /queue/DLQ")
	}
	s.broker.Limits.Body = int(v.octets("max-frame", 0))
	switch how := v.text("takeover"); how {
	case "strict":
		s.broker.Takeover = journal.Strict
	case "kill":
		s.broker.Takeover = journal.Kill
	default:
		v.fail("takeover", how, "must be strict or kill")
	}
	if s.tcp {
		v.fail("listen", v.text("listen"), "must be host:port: a broker speaks STOMP")
	}
	if s.advertise != "" {
		if host, port, err := net.SplitHostPort(s.advertise); err != nil || host == "" || port == "" {
			v.fail("advertise", s.advertise, "must be host:port")
		}
	} else if host, _, err := net.SplitHostPort(s.listen); err == nil && s.gossip.listen != "" && unspecified(host) {
		v.fail("listen", s.listen, "is every address of this machine: --advertise must say which one to gossip")
	}
	return s, v.err
}

// stores are those that the server owns.
func (v *values) stores() []broker.StoreConfig {
	var all []broker.StoreConfig
	for _, text := range v.c.StringSlice("store") {
		name, dir, named := strings.Cut(text, "=")
		if !named {
			name, dir = filepath.Base(text), text
		}
		if dir == "" || !storeName.MatchString(name) || name == "spread" {
			v.fail("store", text, "must be NAME=DIR; a name has at most 64 letters, digits, dots, dashes and underscores, and is not spread")
		}
		all = append(all, broker.StoreConfig{Name: name, Dir: dir, Own: true})
	}
	if len(all) == 0 {
		v.fail("store", "", "must name the directory of a store")
	}
	return all
}

var storeName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func unspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

func runBroker(c *cli.Context) error {
	s, err := readBroker(c)
	if err != nil {
		return err
	}
	for _, store := range s.broker.Stores {
		if err := ops.CheckDir("store", store.Dir); err != nil {
			return err
		}
	}
	p, err := s.open(c)
	if err != nil {
		return err
	}
	orderly, now, stop := ops.Signals(c.Context)
	defer stop()
	return s.serve(p, orderly, now)
}

// serve runs the broker until orderly ends, then waits for its end, but no longer than now.
func (s *brokerSettings) serve(p *process, orderly, now context.Context) error {
	node, err := s.gossip.start(p.name, gossip.Broker, p.log, p.metrics)
	if err != nil {
		p.listener.Close()
		return err
	}
	defer leaveGossip(node, p.log)
	news := &announcer{node: node, endpoint: s.advertise}
	if news.endpoint == "" {
		news.endpoint = p.listener.Addr().String()
	}
	cfg := s.broker
	cfg.Name, cfg.Listener, cfg.Logger, cfg.Metrics, cfg.Changed = p.name, p.listener, p.log, p.metrics, news.changed
	server, err := broker.New(cfg)
	if err != nil {
		p.listener.Close()
		return err
	}
	news.changed(server.Status())
	status := map[string]func() any{"broker": func() any { return describeBroker(server.Status()) }, "gossip": func() any { return describeGossip(node) }}
	if err := p.serveAdmin(orderly, status); err != nil {
		p.listener.Close()
		return err
	}
	defer p.closeAdmin()
	addr := ""
	if node != nil {
		addr = node.Addr()
	}
	if err := p.announce("broker", addr); err != nil {
		p.listener.Close()
		return err
	}
	defer context.AfterFunc(orderly, func() {
		p.draining.Store(true)
		p.log.Info("broker ends", "because", context.Cause(orderly))
		news.drain()
	})()
	ended := make(chan error, 1)
	go func() { ended <- server.Run(orderly) }()
	select {
	case err := <-ended:
		return err
	case <-now.Done():
		return context.Cause(now)
	}
}

// announcer tells the cluster what the broker is, whenever that changes.
type announcer struct {
	node     *gossip.Node
	endpoint string

	mu   sync.Mutex
	last gossip.Announcement
}

func (a *announcer) changed(s broker.Status) {
	said := gossip.Announcement{Protocol: pairedProtocol, Endpoints: []string{a.endpoint}}
	for _, store := range s.Stores {
		if store.Role == broker.Active {
			said.Stores = append(said.Stores, gossip.Store{UUID: store.UUID, Name: store.Name, Epoch: store.Epoch, Role: gossip.Active})
		}
	}
	a.say(func(last *gossip.Announcement) { said.Draining = last.Draining; *last = said })
}

func (a *announcer) drain() { a.say(func(last *gossip.Announcement) { last.Draining = true }) }

// say changes what was said last and says it. A node that is closed has said its last word.
func (a *announcer) say(change func(*gossip.Announcement)) {
	if a.node == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.last)
	if err := a.node.Announce(a.last); err != nil && !errors.Is(err, gossip.ErrClosed) {
		panic("announcement exceeds a limit: " + err.Error()) // one endpoint, one store, and a draining flag
	}
}

// brokerStatus is the broker's part of /status.
type brokerStatus struct {
	Node        string        `json:"node"`
	Listen      string        `json:"listen"`
	Connections int           `json:"connections"`
	Stores      []storeStatus `json:"stores"`
}

// storeStatus is the broker's share in one store.
type storeStatus struct {
	Name       string    `json:"name"`
	Dir        string    `json:"dir"`
	Own        bool      `json:"own"`
	Role       string    `json:"role"`
	Since      time.Time `json:"since"`
	UUID       string    `json:"uuid,omitempty"`
	Epoch      uint64    `json:"epoch,omitempty"`
	Owner      any       `json:"owner,omitempty"`
	Copy       any       `json:"copy,omitempty"` // a standby's
	Sessions   int       `json:"sessions"`
	Absent     int       `json:"absent"`
	Queues     int       `json:"queues"`
	Messages   int       `json:"messages"`
	Out        int       `json:"out"`
	Bytes      int64     `json:"bytes"`
	Damaged    int       `json:"damaged_queues,omitempty"`
	RecoveryMS float64   `json:"recovery_ms,omitempty"`
	Recovered  int       `json:"recovered_records,omitempty"`
	Copied     int       `json:"copied_records,omitempty"` // of those: while it stood by
	DiskFull   bool      `json:"disk_full,omitempty"`
	MemoryFull bool      `json:"memory_full,omitempty"`
	Error      string    `json:"error,omitempty"`
}

func describeBroker(s broker.Status) brokerStatus {
	d := brokerStatus{Node: s.Node, Listen: s.Addr, Connections: s.Connections}
	for _, store := range s.Stores {
		d.Stores = append(d.Stores, describeStore(store))
	}
	return d
}

func describeStore(s broker.StoreStatus) storeStatus {
	d := storeStatus{
		Name: s.Name, Dir: s.Dir, Own: s.Own, Role: string(s.Role), Since: s.Since, UUID: s.UUID, Epoch: s.Epoch, Sessions: s.Sessions,
		Absent: s.Absent, Queues: s.Queues, Messages: s.Messages, Out: s.Out, Bytes: s.Bytes, Damaged: s.Damaged, RecoveryMS: s.Recovery.Seconds() * 1e3, Recovered: s.Recovered,
		Copied: s.Copied,
	}
	if s.Role == broker.Standby && s.Owner.PID != 0 {
		d.Owner = map[string]any{"node": s.Owner.Node, "pid": s.Owner.PID, "epoch": s.Owner.Epoch, "silent_ms": s.Owner.Silent.Milliseconds()}
	}
	if s.Role == broker.Standby {
		d.Copy = map[string]any{"epoch": s.Copy.Epoch, "applied": s.Copy.Applied, "proved": s.Copy.Proved, "records": s.Copy.Records, "cold": s.Copy.Cold}
	}
	d.DiskFull, d.MemoryFull = s.DiskFull, s.MemoryFull
	if s.Err != nil {
		d.Error = s.Err.Error()
	}
	return d
}
