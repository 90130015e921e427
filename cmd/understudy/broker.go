package main

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/understudy-mq/understudy/broker"
	"github.com/understudy-mq/understudy/cmd/internal/admin"
	"github.com/understudy-mq/understudy/cmd/internal/ops"
	"github.com/understudy-mq/understudy/health/gossip"
)

const brokerDescription = `Serves STOMP over the journals of stores: those that it owns, and those of others that nobody serves. Start it twice on the same directory: one serves, the
other stands by and takes over when the first is gone. That a directory is in use is therefore no error. SIGTERM hands every store over.`

// pairedProtocol is the version of what brokers and sidecars say to each other, as it is gossiped.
const pairedProtocol = 1

func brokerCommand() *cli.Command {
	own := []cli.Flag{
		text("listen", "127.0.0.1:61613", "host:port for STOMP clients and sidecars; port 0 takes a free one."),
		text("advertise", "", "host:port under which sidecars reach this broker, as it is gossiped; the bound address when empty."),
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
		yes("warm-copy", true, "Follow a store's journal while standing by as its owner or as one of the first two candidates, so that a take-over does not depend on the backlog."),
		octets("segment", 0, "Size of a journal segment; 0 means 64MiB."),
	}
	return &cli.Command{
		Name: "broker", Usage: "serve STOMP over a journal, or stand by for the broker that does", Description: brokerDescription,
		Flags: slices.Concat(storeFlags(), own, gossipFlags(), processFlags()), Action: runBroker, Subcommands: []*cli.Command{handoverCommand()},
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
		Version: version(), Rank: v.count("rank", 0), ReclaimWindow: v.positive("reclaim-window"),
		MaxConnections: v.count("max-connections", 1), Prefetch: v.count("prefetch", 1), MaxRecord: int(v.octets("max-record", 64<<10)),
		MaxMemory: v.octets("max-memory", 1<<20), SegmentBytes: v.octets("segment", 0),
		FullTimeout: v.positive("full-timeout"),
		DeadLetters: v.text("dead-letters"), MaxDurables: v.count("max-durables", 1), MaxTemporary: v.count("max-temporary", 1), Cold: !c.Bool("warm-copy"),
	}
	s.broker.Stores, s.broker.StandForAll = v.stores()
	s.broker.Takeover, s.broker.TakeoverAfter = v.takeover()
	s.broker.Failback, s.broker.FailbackAfter = v.failback()
	if !strings.HasPrefix(s.broker.DeadLetters, "/queue/") {
		v.fail("dead-letters", s.broker.DeadLetters, "must be a queue, such as /queue/DLQ")
	}
	s.broker.Limits.Body = int(v.octets("max-frame", 0))
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

func unspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

func runBroker(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	s, err := readBroker(c)
	if err != nil {
		return err
	}
	unusable, err := s.checkOwn()
	if err != nil {
		return err
	}
	p, err := s.open(c)
	if err != nil {
		return err
	}
	for _, err := range unusable {
		p.log.Error("a store cannot be used: the others go on, and it is tried again", "error", err)
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
	news := &announcer{node: node, endpoint: s.advertise, log: p.log}
	if news.endpoint == "" {
		news.endpoint = p.listener.Addr().String()
	}
	if err := p.bindAdmin(orderly); err != nil {
		p.listener.Close()
		return err
	}
	defer p.closeAdmin()
	host, _, _ := net.SplitHostPort(news.endpoint)
	cfg := s.broker
	cfg.Name, cfg.Listener, cfg.Logger, cfg.Metrics, cfg.Changed = p.name, p.listener, p.log, p.metrics, news.changed
	cfg.Endpoint, cfg.Admin = news.endpoint, p.adminURL(host)
	server, err := broker.New(cfg)
	if err != nil {
		p.listener.Close()
		return err
	}
	news.changed(server.Status())
	p.commands = map[string]admin.Command{"handover": handOver(server)}
	status := map[string]func() any{"broker": func() any { return describeBroker(server.Status()) }, "gossip": func() any { return describeGossip(node) }}
	if err := p.serveAdmin(orderly, status); err != nil {
		p.listener.Close()
		return err
	}
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
