package gossip

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/understudy-mq/understudy/health"
)

// Limits of an announcement; what exceeds them is refused on the way out and dropped on the way in.
const (
	maxString    = 255
	maxEndpoints = 16
	maxStores    = 64
)

// ErrTooBig says that an announcement exceeds a limit.
var ErrTooBig = errors.New("announcement exceeds a limit")

// Kind is what a node is.
type Kind uint8

// Kinds of nodes.
const (
	Broker  Kind = 1 + iota // serves stores, or speaks for a broker beside it
	Sidecar                 // serves clients
)

// String is the kind's name in logs.
func (k Kind) String() string {
	switch k {
	case Broker:
		return "broker"
	case Sidecar:
		return "sidecar"
	}
	return "other"
}

// Role is what a broker is for a store.
type Role uint8

// Roles.
const (
	Standby Role = iota
	Active
)

// String is the role's name in logs.
func (r Role) String() string {
	switch r {
	case Standby:
		return "standby"
	case Active:
		return "active"
	}
	return "other"
}

// Store is one store that a broker serves or stands for.
type Store struct {
	UUID  string
	Name  string
	Epoch uint64 // hearsay for whoever hears it: binds nobody
	Role  Role
}

// Announcement is what a node tells all others about itself.
type Announcement struct {
	Node      string // name, stable over restarts; set by the Node that announces
	Member    string // the life of the process that speaks; set by the Node
	Kind      Kind   // set by the Node
	Protocol  uint64 // version of what brokers and sidecars say to each other on the broker's port
	Endpoints []string
	Stores    []Store
	Draining  bool // wishes its clients to go elsewhere
	Leaving   bool // its last word
	// Incarnation and Sequence order the announcements of a node; set by the Node.
	Incarnation uint64
	Sequence    uint64
}

// validate checks the limits.
func (a *Announcement) validate() error {
	if len(a.Endpoints) > maxEndpoints || len(a.Stores) > maxStores {
		return fmt.Errorf("announce %d endpoints (limit %d), %d stores (limit %d): %w", len(a.Endpoints), maxEndpoints, len(a.Stores), maxStores, ErrTooBig)
	}
	texts := append([]string{a.Node, a.Member}, a.Endpoints...)
	for _, s := range a.Stores {
		texts = append(texts, s.UUID, s.Name)
	}
	for _, t := range texts {
		if len(t) > maxString || !utf8.ValidString(t) {
			return fmt.Errorf("announce %.40q: at most %d octets of UTF-8: %w", t, maxString, ErrTooBig)
		}
	}
	return nil
}

// Presence is what the membership says of a node.
type Presence uint8

// Presences.
const (
	Alive Presence = iota
	Lost           // the membership gave it up, or it never appeared there
	Left           // it said so itself

	unheard Presence = 0xff // before the first look
)

// String is the presence's name in logs.
func (p Presence) String() string {
	return [...]string{"alive", "lost", "left", "invalid"}[min(p, 3)]
}

// Peer is one node as it is known here. Its slices are shared: read only.
type Peer struct {
	Announcement
	Presence Presence
	Since    time.Time // when the announcement was heard or the presence changed, by our clock
}

// Evidence is what the peer's word is worth for health: one piece for each endpoint of a broker, none for a sidecar. It is dated Since, so
// that handing it over again changes nothing.
func (p Peer) Evidence() []health.Evidence {
	if p.Kind != Broker {
		return nil
	}
	e := health.Evidence{Kind: health.GossipStandby, At: p.Since, Draining: p.Draining, Detail: p.Node + " is " + p.Presence.String()}
	for _, s := range p.Stores {
		if s.Role == Active {
			e.Kind = health.GossipActive
			e.Stores = append(e.Stores, health.Served{UUID: s.UUID, Name: s.Name, Epoch: s.Epoch})
		}
	}
	if p.Presence != Alive {
		e.Kind = health.GossipLeft
	}
	all := make([]health.Evidence, 0, len(p.Endpoints))
	for _, endpoint := range p.Endpoints {
		e.Target = health.Target(endpoint)
		all = append(all, e)
	}
	return all
}

// View is the cluster as it is known here.
type View struct {
	Peers    []Peer // by name, ourselves included; those that are gone for no longer than a minute
	Members  int    // live members, ourselves included: at least 1
	Sidecars int    // live sidecars, ourselves included if we are one: the fleet that a reconnect is paced by
}

// Suspicion is a hint that something happened to a target: a reason to probe it now, and nothing more.
type Suspicion struct {
	Target health.Target
	By     string    // node that saw it
	At     time.Time // by that node's clock
}
