package main

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/understudy-mq/understudy/cmd/internal/ops"
	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/health/gossip"
	"github.com/understudy-mq/understudy/proxy"
	"github.com/understudy-mq/understudy/routing"
	"github.com/understudy-mq/understudy/routing/discover"
	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/relay"
	"github.com/understudy-mq/understudy/session/stomp"
)

// sidecar is the parts of a running one: discovery fills the table, health judges what is in it, the proxy moves sessions by it.
type sidecar struct {
	table     *routing.Table
	monitor   *health.Monitor
	discovery *discover.Discovery
	node      *gossip.Node // nil when gossip is off
	proxy     *proxy.Proxy
	stop      context.CancelFunc
	following sync.WaitGroup
	secrets   *ops.Secrets // of connections to brokers
	logins    *ops.Credentials
	budget    *relay.Budget
	foundTLS  bool // brokers that are found speak TLS
}

// assemble starts everything but the accepting of clients. The parts are closed by close, in the reverse order.
func (s *sidecarSettings) assemble(p *process) (car *sidecar, err error) {
	ctx, stop := context.WithCancel(context.Background())
	car = &sidecar{stop: stop, foundTLS: s.brokerTLS}
	defer func() {
		if err != nil {
			car.close()
		}
	}()
	if car.node, err = s.gossip.start(p.name, gossip.Sidecar, p.log, p.metrics); err != nil {
		return car, err
	}
	if car.secrets, err = ops.OpenTLS(s.brokerFiles, p.log); err != nil {
		return car, err
	}
	if s.brokerFiles.Insecure {
		p.log.Warn("certificates of brokers are not verified: whoever gets in between can read and change everything", "flag", "--broker-insecure")
	}
	// A broker whose machine is gone shows as silence: to heart-beats where there are some, to keep-alive where nothing waits for it, and else to the
	// proxy's own watch.
	beat := max(s.brokerTimeout/3, time.Second)
	dialer := &proxy.Dialer{TLS: car.secrets.Client, KeepAlive: net.KeepAliveConfig{Enable: true, Idle: beat, Interval: beat, Count: 2}}
	car.budget = relay.NewBudget(s.windowTotal)
	if car.logins, err = ops.OpenCredentials(s.credentials, p.log); err != nil {
		return car, err
	}
	prober := &ops.Prober{Credentials: func(t health.Target) (string, string) { return car.login(car.endpoint(t)) }, Dial: func(ctx context.Context, t health.Target) (net.Conn, error) {
		return dialer.Connect(ctx, car.endpoint(t))
	}}
	car.monitor = health.NewMonitor(health.Config{
		Probe: prober.Probe, Interval: s.probeInterval, Logger: p.log, Metrics: health.NewMetrics(p.metrics, ""),
	})
	car.table = routing.NewTable(routing.TableConfig{Verdicts: car.monitor.Snapshot})
	sources := discover.Config{
		Sink: car.table, Static: s.static, SRV: s.srv, TLS: s.brokerTLS, DNS: discover.DNS{Servers: s.dns}, Logger: p.log, Metrics: p.metrics,
	}
	if car.node != nil {
		sources.Gossip = car.announced
	}
	if car.discovery, err = discover.Start(sources); err != nil {
		return car, err
	}
	windowMetrics(p.metrics, car.budget)
	car.following.Go(func() { car.followTable(ctx) })
	if car.node != nil {
		car.following.Go(func() { car.followGossip(ctx) })
		car.following.Go(func() { car.followSuspicions(ctx) })
	}
	car.proxy, err = proxy.New(proxy.Config{
		Listener: p.listener, AllowRemote: s.allowRemote,
		NewRecorder: func() session.Recorder { return stomp.New(s.recorder) },
		View:        car.table.View, Health: car, Refresh: car.discovery.Refresh, Hurry: car.monitor.Hurry, Sidecars: car.sidecars,
		MaxConnections: s.maxConnections, DrainTimeout: s.drainTimeout, Dial: dialer.Connect, Credentials: car.login,
		BrokerTimeout: s.brokerTimeout, ClientTimeout: s.clientTimeout, Relay: relay.Config{Budget: car.budget},
		Logger: p.log, Metrics: p.metrics,
	})
	return car, err
}

// close ends what assemble started, in the reverse order; what was never started is nil.
func (c *sidecar) close() {
	c.stop()
	c.following.Wait()
	if c.discovery != nil {
		_ = c.discovery.Close()
	}
	if c.monitor != nil {
		c.monitor.Close()
	}
	if c.node != nil {
		_ = c.node.Close()
	}
}

// announced is what brokers say of themselves: endpoints that no operator has ranked. One that is lost stays, for health to judge, as
// long as gossip remembers it.
func (c *sidecar) announced() ([]routing.Endpoint, <-chan struct{}) {
	view, changed := c.node.Snapshot()
	var eps []routing.Endpoint
	for _, p := range view.Peers {
		if p.Kind != gossip.Broker || p.Presence == gossip.Left {
			continue
		}
		for _, addr := range p.Endpoints {
			eps = append(eps, routing.Endpoint{Target: health.Target(addr), Tier: routing.NoTier, Weight: 1, TLS: c.foundTLS})
		}
	}
	return eps, changed
}

// endpoint is what is known of a target that is to be probed.
func (c *sidecar) endpoint(t health.Target) routing.Endpoint {
	if ep, ok := c.table.Find(t); ok {
		return ep
	}
	return routing.Endpoint{Target: t, TLS: c.foundTLS} // it was forgotten just now
}

// login is what a broker is to be told instead of the client's own.
func (c *sidecar) login(ep routing.Endpoint) (login, passcode string) {
	return c.logins.For(string(ep.Target), ep.Name)
}

// reload reads again what can change while we run; what cannot be read stays as it was, and was logged.
func (c *sidecar) reload() {
	_ = c.secrets.Reload()
	_ = c.logins.Reload()
	c.discovery.Refresh()
}

// sidecars is how many share the brokers: reconnects are paced by it.
func (c *sidecar) sidecars() int {
	if c.node == nil {
		return 1
	}
	view, _ := c.node.Snapshot()
	return max(1, view.Sidecars)
}

// Observe implements proxy.Health. That one of our sessions lost its broker is news for all.
func (c *sidecar) Observe(e health.Evidence) {
	c.monitor.Observe(e)
	if c.node != nil && e.Kind == health.ConnLost {
		c.node.Suspect(e.Target)
	}
}

// ProbeNow implements proxy.Health.
func (c *sidecar) ProbeNow(t health.Target) { c.monitor.ProbeNow(t) }

// followTable has health watch what discovery knows.
func (c *sidecar) followTable(ctx context.Context) {
	for {
		view := c.table.View()
		targets := make([]health.Target, 0, len(view.Candidates))
		for _, candidate := range view.Candidates {
			targets = append(targets, candidate.Target)
		}
		c.monitor.SetTargets(targets)
		select {
		case <-view.Changed:
		case <-ctx.Done():
			return
		}
	}
}

// followGossip hands announcements to health as evidence; health knows what they are worth.
func (c *sidecar) followGossip(ctx context.Context) {
	for {
		view, changed := c.node.Snapshot()
		for _, p := range view.Peers {
			for _, e := range p.Evidence() {
				c.monitor.Observe(e)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// followSuspicions probes at once what another sidecar lost.
func (c *sidecar) followSuspicions(ctx context.Context) {
	for {
		select {
		case s := <-c.node.Suspicions():
			c.monitor.ProbeNow(s.Target)
		case <-ctx.Done():
			return
		}
	}
}

// drains tells the cluster that clients should not be sent here.
func (c *sidecar) drains() {
	if c.node != nil {
		_ = c.node.Announce(gossip.Announcement{Protocol: pairedProtocol, Draining: true}) // the only errors are of size and of a closed node
	}
}

func (c *sidecar) gossipAddr() string {
	if c.node == nil {
		return ""
	}
	return c.node.Addr()
}
