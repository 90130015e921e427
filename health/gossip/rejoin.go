package gossip

import (
	"context"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// aloneInterval is how soon a node that knows nobody tries again; it doubles up to Config.RejoinInterval.
	aloneInterval = 100 * time.Millisecond
	// maxSeeds bounds the addresses of one round; more are tried in later ones, at random.
	maxSeeds = 64
	// resolveTimeout bounds finding the seeds of one round.
	resolveTimeout = 5 * time.Second
)

// rejoin looks for missing seeds until ctx ends. The membership itself forgets a member half a minute after it was lost, and then no
// longer speaks to it: without this a parted cluster would stay parted.
func (n *Node) rejoin(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	alone := aloneInterval
	for {
		select {
		case <-ctx.Done():
			return
		case msg := <-n.large:
			n.sendReliably(ctx, msg)
			continue
		case <-timer.C:
		}
		n.joinMissing(ctx)
		wait := n.cfg.RejoinInterval
		if n.members.count() <= 1 {
			wait, alone = min(alone, wait), min(2*alone, wait)
		} else {
			alone = aloneInterval
		}
		timer.Reset(wait - rand.N(wait/5+1))
	}
}

// joinMissing exchanges the whole state with each seed that is not a member.
func (n *Node) joinMissing(ctx context.Context) {
	present := map[string]bool{n.addr: true}
	for addr := range maps.Values(n.members.all()) {
		present[addr] = true
	}
	for _, addr := range n.seeds(ctx) {
		if present[addr] || ctx.Err() != nil {
			continue
		}
		present[addr] = true
		if _, err := n.ml.Join([]string{addr}); err != nil {
			n.cfg.Metrics.joined("failed")
			n.cfg.Logger.Debug("gossip: seed not reached", "seed", addr, "error", err)
			continue
		}
		n.cfg.Metrics.joined("ok")
		n.cfg.Logger.Info("gossip: joined", "seed", addr)
	}
}

// seeds are the addresses, ip:port, of all seeds. Names are resolved here, since memberlist would do it without a limit of time.
func (n *Node) seeds(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	names := slices.Clone(n.cfg.Join)
	if n.cfg.Resolve != nil {
		more, err := n.cfg.Resolve(ctx)
		if err != nil {
			n.cfg.Logger.Debug("gossip: find seeds", "error", err)
		}
		names = append(names, more...)
	}
	var addrs []string
	for _, name := range names {
		host, port, err := net.SplitHostPort(name)
		if err != nil {
			n.cfg.Logger.Warn("gossip: seed is not host:port", "seed", name)
			continue
		}
		ips := []string{host}
		if _, err := netip.ParseAddr(host); err != nil {
			if ips, err = net.DefaultResolver.LookupHost(ctx, host); err != nil {
				n.cfg.Logger.Debug("gossip: resolve seed", "seed", name, "error", err)
			}
		}
		for _, ip := range ips {
			addrs = append(addrs, net.JoinHostPort(ip, port))
		}
	}
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	return addrs[:min(maxSeeds, len(addrs))]
}

// sendReliably brings an announcement that is too big for a packet to some members; the push/pull brings it to the rest.
func (n *Node) sendReliably(ctx context.Context, msg []byte) {
	for _, a := range n.others(fanoutReliable) {
		host, err := netip.ParseAddrPort(a.Addr)
		if err != nil || ctx.Err() != nil {
			continue
		}
		to := &memberlist.Node{Name: a.Name, Addr: host.Addr().AsSlice(), Port: host.Port()}
		if err := n.ml.SendReliable(to, msg); err != nil {
			n.cfg.Logger.Debug("gossip: send reliably", "to", a.Addr, "error", err)
			continue
		}
		n.cfg.Metrics.sent("announcement")
	}
}
