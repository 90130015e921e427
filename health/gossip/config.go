package gossip

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

// Config of a Node; Name and Kind are required.
type Config struct {
	// Name of the node: unique in the cluster, the same after a restart, at most 200 octets.
	Name string
	Kind Kind
	// BindAddr is the IP address to listen on, UDP and TCP; "" means 127.0.0.1, which only others on this machine can reach.
	BindAddr string
	// BindPort is the port of both; 0 means any that is free.
	BindPort int
	// Advertise is the ip:port that others are told to use; "" means what is bound. The port may be 0 for the bound one.
	Advertise string
	// Join are the seeds, host:port. Who is not a member is tried again for ever.
	Join []string
	// Resolve finds more seeds, each time somebody is missing; it must return when ctx ends. May be nil.
	Resolve func(ctx context.Context) ([]string, error)
	// Keys are AES keys of 16, 24 or 32 octets in base64: the first encrypts, all decrypt. None means plain text.
	Keys []string
	// Label keeps clusters apart that reach each other by mistake; at most 64 octets. It is no secret.
	Label string
	// RejoinInterval is the time between attempts to reach missing seeds; 0 means 10 s. A node that is alone begins at 100 ms.
	RejoinInterval time.Duration
	// LeaveTimeout bounds the good-bye of Close; 0 means 1 s.
	LeaveTimeout time.Duration
	Logger       *slog.Logger // nil discards
	Metrics      *Metrics     // nil counts for nobody

	// wire is a test's view of outgoing traffic: false loses it. nil means that nothing is lost.
	wire func(to string) bool
}

const (
	maxName  = 200
	maxLabel = 64
	// maxPacket is what fits into a packet of memberlist (1400 octets) with the label and the encryption.
	maxPacket = 1200
	// suspectGap is the least time between two suspicions of ours on one target.
	suspectGap = 100 * time.Millisecond
)

// How memberlist is tuned: faster than its LAN defaults, since a false alarm costs one probe here. What it gives, from the kill of a node
// to its loss in everybody's view, without packet loss and with healthy observers:
//
//	until somebody probes it    0 .. 1 probeInterval on average (each node probes one other per interval, in a shuffled round)
//	until the probe has failed  probeInterval
//	until suspicion is certain  suspicionMult x max(1, log10 n) x probeInterval, which is 1.5 s up to 10 members; with 3 and more members
//	                            twice as long unless another member confirms the suspicion, which takes one of its own probes
//	until the news is round     a few gossipIntervals
//
// that is 2 to 2.5 s for 2 members and 2 to 4.5 s for 3 to 10. A member that is itself starved of CPU takes up to 4 times as long. A node that
// leaves is known to have left after one packet.
const (
	probeInterval  = 500 * time.Millisecond
	probeTimeout   = 200 * time.Millisecond
	gossipInterval = 100 * time.Millisecond
	suspicionMult  = 3
	suspicionMax   = 2 // times the least time, if nobody confirms
	awarenessMax   = 4
	retransmitMult = 4
	pushPull       = 10 * time.Second
	streamTimeout  = 2 * time.Second
)

func (c Config) withDefaults() (Config, error) {
	if c.Name == "" || len(c.Name) > maxName {
		return c, fmt.Errorf("gossip name %.40q: give 1 to %d octets", c.Name, maxName)
	}
	if c.Kind != Broker && c.Kind != Sidecar {
		return c, fmt.Errorf("gossip kind %d: give Broker or Sidecar", c.Kind)
	}
	if len(c.Label) > maxLabel {
		return c, fmt.Errorf("gossip label of %d octets: at most %d", len(c.Label), maxLabel)
	}
	if c.BindAddr == "" {
		c.BindAddr = "127.0.0.1"
	}
	if net.ParseIP(c.BindAddr) == nil {
		return c, fmt.Errorf("gossip bind address %q: give an IP address", c.BindAddr)
	}
	if c.RejoinInterval <= 0 {
		c.RejoinInterval = 10 * time.Second
	}
	if c.LeaveTimeout <= 0 {
		c.LeaveTimeout = time.Second
	}
	if c.Logger == nil {
		c.Logger = discard
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	return c, nil
}

// memberName is new in each life, so that a node which comes back on another port, before the others missed it, is no conflict.
func memberName(name string) string {
	var life [6]byte
	_, _ = rand.Read(life[:]) // never fails
	return name + "~" + hex.EncodeToString(life[:])
}

// tuned is memberlist's configuration; the transport is still to be set.
func (n *Node) tuned() (*memberlist.Config, error) {
	conf := memberlist.DefaultLANConfig()
	conf.Name = n.member
	conf.Label = n.cfg.Label
	conf.BindAddr, conf.BindPort = n.cfg.BindAddr, n.cfg.BindPort
	conf.AdvertiseAddr, conf.AdvertisePort = "", 0
	if n.cfg.Advertise != "" {
		host, port, err := net.SplitHostPort(n.cfg.Advertise)
		if err != nil || net.ParseIP(host) == nil {
			return nil, fmt.Errorf("gossip advertise %q: give ip:port", n.cfg.Advertise)
		}
		p, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("gossip advertise %q: give ip:port", n.cfg.Advertise)
		}
		conf.AdvertiseAddr, conf.AdvertisePort = host, int(p)
	}
	conf.ProbeInterval, conf.ProbeTimeout = probeInterval, probeTimeout
	conf.SuspicionMult, conf.SuspicionMaxTimeoutMult = suspicionMult, suspicionMax
	conf.AwarenessMaxMultiplier = awarenessMax
	conf.GossipInterval, conf.RetransmitMult = gossipInterval, retransmitMult
	conf.PushPullInterval, conf.TCPTimeout = pushPull, streamTimeout
	conf.EnableCompression = false // small packets: CPU for nothing
	conf.Delegate, conf.Events = (*delegate)(n), (*delegate)(n)
	conf.Logger = log.New(logWriter{n}, "", 0)
	conf.LogOutput = nil
	keys, err := decodeKeys(n.cfg.Keys)
	if err != nil {
		return nil, err
	}
	if len(keys) > 0 {
		if conf.Keyring, err = memberlist.NewKeyring(keys, keys[0]); err != nil {
			return nil, fmt.Errorf("make gossip keyring: %w", err)
		}
	}
	return conf, nil
}

// decodeKeys names a bad key by its place, never by its text.
func decodeKeys(keys []string) ([][]byte, error) {
	decoded := make([][]byte, 0, len(keys))
	for i, k := range keys {
		key, err := base64.StdEncoding.DecodeString(k)
		if err != nil {
			err = errors.New("not base64")
		} else {
			err = memberlist.ValidateKey(key)
		}
		if err != nil {
			return nil, fmt.Errorf("gossip key %d of %d: %w", i+1, len(keys), err)
		}
		decoded = append(decoded, key)
	}
	return decoded, nil
}

// rekey makes keys the ring's only ones, the first its primary.
func rekey(ring *memberlist.Keyring, keys [][]byte) error {
	for _, k := range keys {
		if err := ring.AddKey(k); err != nil {
			return fmt.Errorf("add gossip key: %w", err)
		}
	}
	if err := ring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("use gossip key: %w", err)
	}
	for _, old := range ring.GetKeys() {
		if !containsKey(keys, old) {
			if err := ring.RemoveKey(old); err != nil {
				return fmt.Errorf("remove gossip key: %w", err)
			}
		}
	}
	return nil
}
