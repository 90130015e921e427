package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/understudy-mq/understudy/cmd/internal/ops"
	"github.com/understudy-mq/understudy/health/gossip"
	"github.com/understudy-mq/understudy/proxy"
	"github.com/understudy-mq/understudy/routing"
	"github.com/understudy-mq/understudy/session/relay"
)

// sidecar is the parts of a running one: what its groups share, and the groups.
type sidecar struct {
	groups    []*group
	node      *gossip.Node // nil when gossip is off
	dialer    *proxy.Dialer
	secrets   *ops.Secrets // of connections to brokers
	shown     *ops.Secrets // towards clients; nil when they do not speak TLS
	logins    *ops.Credentials
	budget    *relay.Budget
	stop      context.CancelFunc
	following sync.WaitGroup
}

// assemble starts everything but the accepting of clients. The parts are closed by close, in the reverse order.
func (s *sidecarSettings) assemble(p *process) (car *sidecar, err error) {
	ctx, stop := context.WithCancel(context.Background())
	car = &sidecar{stop: stop, budget: relay.NewBudget(s.windowTotal)}
	defer func() {
		if err != nil {
			car.close()
		}
	}()
	s.warnings(p.log)
	if car.secrets, err = ops.OpenTLS(s.brokerFiles, p.log); err != nil {
		return car, err
	}
	if s.listenFiles.Cert != "" {
		if car.shown, err = ops.OpenTLS(s.listenFiles, p.log); err != nil {
			return car, err
		}
	}
	if car.logins, err = ops.OpenCredentials(s.credentials, p.log); err != nil {
		return car, err
	}
	// A broker whose machine is gone shows as silence: to heart-beats where there are some, to keep-alive where nothing waits for it, and else to the
	// proxy's own watch.
	beat := max(s.brokerTimeout/3, time.Second)
	car.dialer = &proxy.Dialer{TLS: car.secrets.Client, KeepAlive: net.KeepAliveConfig{Enable: true, Idle: beat, Interval: beat, Count: 2}}
	if car.node, err = s.gossip.start(p.name, gossip.Sidecar, p.log, p.metrics); err != nil {
		return car, err
	}
	processMetrics(p.metrics, car)
	for i, set := range s.groups {
		l := p.listener
		if i > 0 {
			if l, err = ops.Listen(ctx, "group", set.listen); err != nil {
				return car, ops.Hint(err, "it is that of group "+set.name)
			}
			p.more = append(p.more, ops.Address{Name: "listen-" + set.name, Addr: l.Addr().String()})
		}
		if _, err = car.startGroup(ctx, s, set, l, p); err != nil {
			if i > 0 {
				l.Close()
			}
			return car, err
		}
	}
	if car.node != nil {
		car.following.Go(func() { car.followGossip(ctx) })
		car.following.Go(func() { car.followSuspicions(ctx) })
	}
	return car, nil
}

func relayConfig(c *sidecar) relay.Config { return relay.Config{Budget: c.budget} }

// close ends what assemble started, in the reverse order. Listeners are closed by Shutdown; those of groups that never served, here.
func (c *sidecar) close() {
	c.stop()
	c.following.Wait()
	for _, g := range c.groups {
		if g.proxy != nil {
			done, cancel := context.WithCancel(context.Background())
			cancel()
			_ = g.proxy.Shutdown(done) // does nothing after another one
		}
		g.close()
	}
	if c.node != nil {
		_ = c.node.Close()
	}
}

// serve accepts clients in all groups; the channel gets what each ends with.
func (c *sidecar) serve() <-chan error {
	ended := make(chan error, len(c.groups))
	for _, g := range c.groups {
		go func() { ended <- g.serve() }()
	}
	return ended
}

// shutdown drains all groups at once.
func (c *sidecar) shutdown(ctx context.Context) error {
	errs := make([]error, len(c.groups))
	var joined sync.WaitGroup
	for i, g := range c.groups {
		joined.Go(func() { errs[i] = g.proxy.Shutdown(ctx) })
	}
	joined.Wait()
	return errors.Join(errs...)
}

// sessions is how many there are.
func (c *sidecar) sessions() (n int) {
	for _, g := range c.groups {
		n += len(g.proxy.Sessions())
	}
	return n
}

// login is what a broker is to be told instead of the client's own.
func (c *sidecar) login(ep routing.Endpoint) (login, passcode string) {
	return c.logins.For(string(ep.Target), ep.Name)
}

// reload reads again what can change while we run; what cannot be read stays as it was, and was logged.
func (c *sidecar) reload() {
	_ = c.secrets.Reload()
	if c.shown != nil {
		_ = c.shown.Reload()
	}
	_ = c.logins.Reload()
	for _, g := range c.groups {
		g.discovery.Refresh()
	}
}

// sidecars is how many share the brokers: reconnects are paced by it.
func (c *sidecar) sidecars() int {
	if c.node == nil {
		return 1
	}
	view, _ := c.node.Snapshot()
	return max(1, view.Sidecars)
}

// followGossip hands announcements to health as evidence; health knows what they are worth.
func (c *sidecar) followGossip(ctx context.Context) {
	for {
		view, changed := c.node.Snapshot()
		for _, p := range view.Peers {
			for _, e := range p.Evidence() {
				for _, g := range c.groups {
					if g.set.gossip {
						g.monitor.Observe(e)
					}
				}
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
			for _, g := range c.groups {
				g.monitor.ProbeNow(s.Target)
			}
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
