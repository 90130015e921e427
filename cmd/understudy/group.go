package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"

	"github.com/understudy-mq/understudy/cmd/internal/ops"
	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/health/gossip"
	"github.com/understudy-mq/understudy/proxy"
	"github.com/understudy-mq/understudy/routing"
	"github.com/understudy-mq/understudy/routing/discover"
	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// defaultGroup is the name of what the flags beside --group describe.
const defaultGroup = "default"

// maxGroups bounds listeners, each of which has its own probes.
const maxGroups = 64

// groupSettings are a listener and the brokers behind it, which share their data. A session never goes to a broker of another group.
type groupSettings struct {
	name     string
	listen   string // host:port
	tcp      bool   // the protocol is not known here
	redirect bool   // sessions are not recorded
	gossip   bool   // brokers that are gossiped belong to it
	static   []routing.Endpoint
	srv      []string
	store    string
}

// sources says whether the group can have brokers at all.
func (g *groupSettings) sources() bool { return len(g.static) > 0 || len(g.srv) > 0 || g.gossip }

// listenScheme splits the scheme off a listening address: tcp:// or stomp://, which is the same as none.
func listenScheme(addr string) (rest string, tcp bool) {
	if rest, ok := strings.CutPrefix(addr, "tcp://"); ok {
		return rest, true
	}
	return strings.TrimPrefix(addr, "stomp://"), false
}

// readGroup reads a value of --group: a name, and then what the flags of that name say for the default group.
func (v *values) readGroup(text string) groupSettings {
	words := strings.Fields(text)
	if len(words) == 0 || strings.Contains(words[0], "=") || words[0] == defaultGroup || len(words[0]) > 64 {
		v.fail("group", "", "must begin with a name that is not "+defaultGroup+": orders listen=127.0.0.1:61614 broker=stomp://mq1.example")
		return groupSettings{}
	}
	g := groupSettings{name: words[0]}
	bad := func(hint string) { v.fail("group", g.name, hint) }
	var brokers []string
	for _, word := range words[1:] {
		key, value, ok := strings.Cut(word, "=")
		switch {
		case !ok || value == "":
			bad("has a word without =, or without a value behind it")
		case key == "listen" && g.listen == "":
			g.listen, g.tcp = listenScheme(value)
			if err := ops.CheckListen("group", g.listen, v.c.Bool("allow-remote")); err != nil {
				bad("listen: " + err.Error())
			}
		case key == "broker":
			brokers = append(brokers, value)
		case key == "srv":
			g.srv = append(g.srv, value)
		case key == "store" && g.store == "":
			g.store = v.wantedStore("group", value)
		case key == "mode":
			g.redirect = v.mode("group", value)
		case key == "gossip" && (value == "true" || value == "false"):
			g.gossip = value == "true"
		default:
			bad(key + ": the words are listen, store and mode (once each), broker and srv (any number), and gossip=true")
		}
	}
	if g.listen == "" {
		bad("has no listen=host:port")
	}
	v.brokers("group", &g, brokers)
	if !g.sources() {
		bad("has no broker: give broker=stomp://host:port, srv=_stomp._tcp.domain, or gossip=true")
	}
	return g
}

// brokers reads what flag says of a group's brokers.
func (v *values) brokers(flag string, g *groupSettings, uris []string) {
	var err error
	if g.static, err = discover.ParseStatic(uris); err != nil {
		v.fail(flag, "", err.Error())
	}
	for _, ep := range g.static {
		if (ep.Protocol == "tcp") != g.tcp {
			v.fail(flag, string(ep.Target), "speaks another protocol than its listener: a listener tcp://host:port has brokers tcp://host:port, another has stomp:// or stomp+ssl://")
		}
	}
	srvFlag := flag
	if flag == "broker" {
		srvFlag = "srv"
	}
	for _, name := range g.srv {
		if !plausibleName(name) {
			v.fail(srvFlag, name, "must be a domain name such as _stomp._tcp.mq.example")
		}
	}
	if g.tcp && g.gossip {
		v.fail("listen", g.listen, "is tcp://, and what brokers gossip is where they speak STOMP: name the brokers, or an SRV record")
	}
}

// wantedStore reads the name of a store, its UUID, or spread; "" is none.
func (v *values) wantedStore(flag, value string) string {
	if value != "" && !frame.ValidStoreName(value) {
		v.fail(flag, value, "is neither a store's UUID nor its name nor spread: a name is up to 64 letters, digits, dots, underscores and dashes")
	}
	return value
}

func (v *values) mode(flag, value string) (redirect bool) {
	switch value {
	case "resume":
	case "redirect":
		return true
	default:
		v.fail(flag, value, "mode must be resume or redirect")
	}
	return false
}

// group is the running parts of one: discovery fills the table, health judges what is in it, the proxy moves sessions by it.
type group struct {
	car       *sidecar
	set       groupSettings
	foundTLS  bool // brokers that are found speak TLS
	table     *routing.Table
	monitor   *health.Monitor
	discovery *discover.Discovery
	proxy     *proxy.Proxy
}

// startGroup starts everything but the accepting of clients; l becomes the group's once there is no error. What was started is closed by close.
func (c *sidecar) startGroup(ctx context.Context, s *sidecarSettings, set groupSettings, l net.Listener, p *process) (*group, error) {
	g := &group{car: c, set: set, foundTLS: s.brokerTLS && !set.tcp}
	c.groups = append(c.groups, g)
	log, label := p.log, ""
	if len(s.groups) > 1 {
		log, label = p.log.With("group", set.name), set.name
	}
	prober := &ops.Prober{Credentials: func(t health.Target) (string, string) { return c.login(g.endpoint(t)) },
		Dial: func(ctx context.Context, t health.Target) (net.Conn, error) {
			return c.dialer.Connect(ctx, g.endpoint(t))
		}}
	probe := prober.Probe
	if set.tcp {
		probe = prober.ProbeTCP
	}
	g.monitor = health.NewMonitor(health.Config{Probe: probe, Interval: s.probeInterval, Logger: log, Metrics: health.NewMetrics(p.metrics, label)})
	g.table = routing.NewTable(routing.TableConfig{Verdicts: g.monitor.Snapshot})
	sources := discover.Config{
		Sink: g.table, Static: set.static, SRV: set.srv, TLS: g.foundTLS, DNS: discover.DNS{Servers: s.dns}, Group: label, Logger: log, Metrics: p.metrics,
	}
	if set.gossip {
		sources.Gossip = g.announced
	}
	var err error
	if g.discovery, err = discover.Start(sources); err != nil {
		return g, err
	}
	c.following.Go(func() { g.followTable(ctx) })
	cfg := proxy.Config{
		Store: set.store, Listener: l, AllowRemote: s.allowRemote, Group: label, View: g.table.View, Health: g, Refresh: g.discovery.Refresh, Hurry: g.monitor.Hurry,
		Sidecars: c.sidecars, MaxConnections: s.maxConnections, DrainTimeout: s.drainTimeout, Dial: c.dialer.Connect, Credentials: c.login,
		BrokerTimeout: s.brokerTimeout, ClientTimeout: s.clientTimeout, Relay: relayConfig(c), Logger: p.log, Metrics: p.metrics,
		Splice: set.tcp || set.redirect, KeepFallen: !s.cut, Hold: s.recorder.Hold,
		NewRecorder: func() session.Recorder { return stomp.New(s.recorder) },
	}
	switch {
	case set.name != defaultGroup:
		cfg.Name = set.name
	case set.tcp:
		cfg.Name = "tcp"
	}
	if !set.tcp && s.listenFiles.Cert != "" {
		cfg.ClientTLS = c.shown.Server()
	}
	g.proxy, err = proxy.New(cfg)
	return g, err
}

// close ends what startGroup started, in the reverse order; what was never started is nil.
func (g *group) close() {
	if g.discovery != nil {
		_ = g.discovery.Close()
	}
	if g.monitor != nil {
		g.monitor.Close()
	}
}

// announced is what brokers say of themselves: endpoints that no operator has ranked. One that is lost stays, for health to judge, as
// long as gossip remembers it.
func (g *group) announced() ([]routing.Endpoint, <-chan struct{}) {
	view, changed := g.car.node.Snapshot()
	var eps []routing.Endpoint
	for _, p := range view.Peers {
		if p.Kind != gossip.Broker || p.Presence == gossip.Left {
			continue
		}
		for _, addr := range p.Endpoints {
			eps = append(eps, routing.Endpoint{Target: health.Target(addr), Tier: routing.NoTier, Weight: 1, TLS: g.foundTLS})
		}
	}
	return eps, changed
}

// endpoint is what is known of a target that is to be probed.
func (g *group) endpoint(t health.Target) routing.Endpoint {
	if ep, ok := g.table.Find(t); ok {
		return ep
	}
	return routing.Endpoint{Target: t, TLS: g.foundTLS} // it was forgotten just now
}

// Observe implements proxy.Health. That one of our sessions lost its broker is news for all.
func (g *group) Observe(e health.Evidence) {
	g.monitor.Observe(e)
	if g.car.node != nil && e.Kind == health.ConnLost {
		g.car.node.Suspect(e.Target)
	}
}

// ProbeNow implements proxy.Health.
func (g *group) ProbeNow(t health.Target) { g.monitor.ProbeNow(t) }

// followTable has health watch what discovery knows.
func (g *group) followTable(ctx context.Context) {
	for {
		view := g.table.View()
		targets := make([]health.Target, 0, len(view.Candidates))
		for _, candidate := range view.Candidates {
			targets = append(targets, candidate.Target)
		}
		g.monitor.SetTargets(targets)
		select {
		case <-view.Changed:
		case <-ctx.Done():
			return
		}
	}
}

// serve accepts clients until the proxy is shut down.
func (g *group) serve() error {
	if err := g.proxy.Serve(); err != nil {
		return fmt.Errorf("group %s: %w", g.set.name, err)
	}
	return nil
}

// warnings are what an operator should know of settings that work.
func (s *sidecarSettings) warnings(log *slog.Logger) {
	if s.brokerFiles.Insecure {
		log.Warn("certificates of brokers are not verified: whoever gets in between can read and change everything", "flag", "--broker-insecure")
	}
	if s.listenFiles.Cert != "" && slices.ContainsFunc(s.groups, func(g groupSettings) bool { return g.tcp }) {
		log.Warn("listeners of tcp:// do not speak TLS themselves: what their clients send is passed on as it is", "flag", "--listen-cert")
	}
}
