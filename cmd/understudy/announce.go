package main

import (
	"cmp"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/understudy-mq/understudy/broker"
	"github.com/understudy-mq/understudy/health/gossip"
)

// maxAnnounced is how many stores gossip takes in one announcement.
const maxAnnounced = 64

// announcer tells the cluster what the broker is, whenever that changes.
type announcer struct {
	node     *gossip.Node
	endpoint string
	log      *slog.Logger

	mu   sync.Mutex
	last gossip.Announcement
	cut  int // stores that were left out of it
}

func (a *announcer) changed(s broker.Status) {
	stores, cut := announced(s.Stores)
	a.say(func() {
		if cut > a.cut {
			a.log.Warn("gossip does not tell of all stores: sidecars find the others when they connect", "told", len(stores), "left_out", cut, "limit", maxAnnounced)
		}
		a.last = gossip.Announcement{Protocol: pairedProtocol, Endpoints: []string{a.endpoint}, Stores: stores, Draining: a.last.Draining}
		a.cut = cut
	})
}

func (a *announcer) drain() { a.say(func() { a.last.Draining = true }) }

// say changes what was said last and says it. A node that is closed has said its last word.
func (a *announcer) say(change func()) {
	if a.node == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
	if err := a.node.Announce(a.last); err != nil && !errors.Is(err, gossip.ErrClosed) {
		a.log.Error("gossip does not tell what this broker is", "error", err)
	}
}

// announced is what there is to say of a broker's stores: those that it serves first, and none that it could not serve. cut is how many are beyond the limit.
func announced(stores []broker.StoreStatus) (said []gossip.Store, cut int) {
	for _, s := range stores {
		switch {
		case s.UUID == "":
		case s.Role == broker.Active:
			said = append(said, gossip.Store{UUID: s.UUID, Name: s.Name, Epoch: s.Epoch, Role: gossip.Active})
		case s.Role == broker.Standby || s.Role == broker.Recovering:
			said = append(said, gossip.Store{UUID: s.UUID, Name: s.Name, Role: gossip.Standby})
		}
	}
	slices.SortStableFunc(said, func(a, b gossip.Store) int { return -cmp.Compare(a.Role, b.Role) })
	if len(said) > maxAnnounced {
		said, cut = said[:maxAnnounced:maxAnnounced], len(said)-maxAnnounced
	}
	return said, cut
}
