package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/VictoriaMetrics/metrics"
	"github.com/urfave/cli/v2"

	"github.com/understudy-mq/understudy/cmd/internal/ops"
	"github.com/understudy-mq/understudy/health/gossip"
)

// gossipSettings are the flags that brokers and sidecars have in common to find each other. listen is "" when gossip is off.
type gossipSettings struct {
	listen, label string
	join, keys    []string
}

func gossipFlags() []cli.Flag {
	return []cli.Flag{
		text("gossip-listen", "", "ip:port, UDP and TCP, for gossip among brokers and sidecars; 127.0.0.1:0 when only --gossip-join is given, else off."),
		texts("gossip-join", "host:port of a member to join; repeatable, those that are away are tried again for ever."),
		texts("gossip-key", "AES key of 16, 24 or 32 octets in base64, or @file; repeatable, the first encrypts, all decrypt, none means plain text."),
		text("gossip-label", "", "Keeps clusters apart that could reach each other by mistake."),
	}
}

func (v *values) gossip() gossipSettings {
	g := gossipSettings{listen: v.text("gossip-listen"), label: v.text("gossip-label"), join: v.c.StringSlice("gossip-join")}
	for _, peer := range g.join {
		host, port, err := net.SplitHostPort(peer)
		if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 || host == "" {
			v.fail("gossip-join", peer, "must be host:port of another member")
			continue
		}
		if g.listen == "" && !ops.Loopback(host) {
			v.fail("gossip-join", peer, "is on another machine, so --gossip-listen must name an address that others can reach")
		}
	}
	if g.listen == "" && len(g.join) > 0 {
		g.listen = "127.0.0.1:0"
	}
	if g.listen != "" {
		v.check(ops.CheckListen("gossip-listen", g.listen, v.c.Bool("allow-remote")))
	}
	for _, k := range v.c.StringSlice("gossip-key") {
		if path, ok := strings.CutPrefix(k, "@"); ok {
			text, err := os.ReadFile(path)
			if err != nil {
				v.check(&ops.UsageError{Flag: "gossip-key", Value: k, Hint: "cannot be read: " + err.Error()})
			}
			k = strings.TrimSpace(string(text))
		}
		if key, err := base64.StdEncoding.DecodeString(k); err != nil || len(key) != 16 && len(key) != 24 && len(key) != 32 {
			v.fail("gossip-key", "", "must be 16, 24 or 32 octets in base64, for example from: openssl rand -base64 32")
		}
		g.keys = append(g.keys, k)
	}
	return g
}

// start joins the cluster; nil when gossip is off.
func (g gossipSettings) start(name string, kind gossip.Kind, log *slog.Logger, set *metrics.Set) (*gossip.Node, error) {
	if g.listen == "" {
		return nil, nil
	}
	host, port, err := net.SplitHostPort(g.listen)
	if err != nil {
		return nil, fmt.Errorf("read --gossip-listen: %w", err)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("read --gossip-listen: %w", err)
	}
	node, err := gossip.New(gossip.Config{
		Name: name, Kind: kind, BindAddr: host, BindPort: int(n), Join: g.join, Keys: g.keys, Label: g.label, Logger: log, Metrics: gossip.NewMetrics(set),
	})
	if err != nil {
		return nil, ops.Hint(err, "see --gossip-listen and --gossip-key")
	}
	return node, nil
}

// gossipStatus is what the status page says of the cluster.
type gossipStatus struct {
	Addr     string       `json:"addr"`
	Members  int          `json:"members"`
	Sidecars int          `json:"sidecars"`
	Peers    []peerStatus `json:"peers"`
}

type peerStatus struct {
	Node      string   `json:"node"`
	Kind      string   `json:"kind"`
	Presence  string   `json:"presence"`
	Endpoints []string `json:"endpoints,omitempty"`
	Draining  bool     `json:"draining,omitempty"`

	Stores []peerStore `json:"stores,omitempty"` // as the peer says
}

// peerStore is a store that a broker says it serves or stands for.
type peerStore struct {
	UUID  string `json:"uuid"`
	Name  string `json:"name,omitempty"`
	Role  string `json:"role"`
	Epoch uint64 `json:"epoch,omitempty"`
}

func describeGossip(n *gossip.Node) any {
	if n == nil {
		return nil
	}
	view, _ := n.Snapshot()
	s := gossipStatus{Addr: n.Addr(), Members: view.Members, Sidecars: view.Sidecars, Peers: []peerStatus{}}
	for _, p := range view.Peers {
		peer := peerStatus{Node: p.Node, Kind: p.Kind.String(), Presence: p.Presence.String(), Endpoints: p.Endpoints, Draining: p.Draining}
		for _, store := range p.Stores {
			peer.Stores = append(peer.Stores, peerStore{store.UUID, store.Name, store.Role.String(), store.Epoch})
		}
		s.Peers = append(s.Peers, peer)
	}
	return s
}

// leave says good-bye, so that others do not wait for us to be missed.
func leaveGossip(n *gossip.Node, log *slog.Logger) {
	if n == nil {
		return
	}
	if err := n.Close(); err != nil && !errors.Is(err, context.Canceled) {
		log.Warn("leave gossip", "error", err)
	}
}
