package main

import (
	"time"

	"github.com/understudy-mq/understudy/cmd/internal/overview"
	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/session/relay"
)

// candidateStatus is one broker as the sidecar sees it.
type candidateStatus struct {
	Group   string            `json:"group,omitempty"` // if there are several
	Target  string            `json:"target"`
	Tier    int               `json:"tier"`
	Weight  int               `json:"weight"`
	Sources []string          `json:"sources"`
	State   string            `json:"state"`
	Since   time.Time         `json:"since"`
	Stores  []knownStoreState `json:"stores,omitempty"`
	TLS     bool              `json:"tls,omitempty"`
	Because string            `json:"because,omitempty"`
}

// knownStoreState is one store as a broker was seen to have it.
type knownStoreState struct {
	UUID  string `json:"uuid"`
	Name  string `json:"name,omitempty"`
	Epoch uint64 `json:"epoch,omitempty"` // none: it stands for the store, and does not serve it
	Stale bool   `json:"stale,omitempty"` // that epoch is over
}

// storeState is one store with whoever serves it.
type storeState struct {
	Group         string     `json:"group,omitempty"` // if there are several
	UUID          string     `json:"uuid"`
	Name          string     `json:"name,omitempty"`
	Holder        string     `json:"holder,omitempty"` // none: it is in nobody's hands
	Epoch         uint64     `json:"epoch,omitempty"`
	UnservedSince *time.Time `json:"unserved_since,omitempty"`
	Sessions      int        `json:"sessions"`
}

// sessionStatus is one client.
type sessionStatus struct {
	Group         string    `json:"group,omitempty"` // if there are several; IDs are per group
	ID            uint64    `json:"id"`
	Client        string    `json:"client"`
	Since         time.Time `json:"since"`
	State         string    `json:"state"`
	Broker        string    `json:"broker,omitempty"`
	Store         string    `json:"store,omitempty"` // UUID
	Epoch         uint64    `json:"epoch,omitempty"`
	Waiting       string    `json:"waiting,omitempty"`
	NotResumable  string    `json:"not_resumable,omitempty"`
	WindowBytes   int       `json:"window_bytes"`
	Unconfirmed   int       `json:"unconfirmed"`
	Unacked       int       `json:"unacked"`
	InDoubt       int       `json:"in_doubt"`
	Subscriptions int       `json:"subscriptions"`
	Transactions  int       `json:"transactions"`
	Takeovers     uint64    `json:"takeovers"`
	LastSilenceMS float64   `json:"last_silence_ms,omitempty"`
}

// status is what /status shows of a sidecar.
func (c *sidecar) status() map[string]func() any {
	return map[string]func() any{
		"brokers":        func() any { return each(c, describeCandidates) },
		"stores":         func() any { return each(c, describeStores) },
		"waiting_stores": func() any { return each(c, describeWaiting) },
		"sessions":       func() any { return each(c, describeSessions) },
		"window":         func() any { return describeWindow(c.budget.State()) },
		"gossip":         func() any { return describeGossip(c.node) },
	}
}

// windowStatus is what the unconfirmed frames of all clients take together.
type windowStatus struct {
	Kept        int64 `json:"kept_bytes"`
	Limit       int64 `json:"limit_bytes"`
	Full        bool  `json:"full"`
	ClientsHeld int   `json:"clients_held"` // not read because of it
}

func describeWindow(s relay.BudgetState) windowStatus {
	return windowStatus{s.Kept, s.Limit, s.Full, s.Held}
}

// each joins what there is of every group, with the group's name if there are several.
func each[T any](c *sidecar, of func(g *group, name string) []T) []T {
	list := []T{}
	for _, g := range c.groups {
		name := g.set.name
		if len(c.groups) == 1 {
			name = ""
		}
		list = append(list, of(g, name)...)
	}
	return list
}

func describeCandidates(g *group, name string) []candidateStatus {
	var list []candidateStatus
	for _, k := range g.table.View().Candidates {
		v := k.Verdict
		list = append(list, candidateStatus{
			name, string(k.Target), k.Tier, int(k.Weight), k.Sources, v.State.String(), v.Since, known(v), k.TLS, v.Because.Kind.String() + " " + v.Because.Detail,
		})
	}
	return list
}

func known(v health.Verdict) (list []knownStoreState) {
	for _, s := range v.Stores {
		list = append(list, knownStoreState{s.UUID, s.Name, s.Epoch, s.Stale})
	}
	return list
}

func describeStores(g *group, name string) []storeState {
	var list []storeState
	for _, s := range g.proxy.Stores() {
		state := storeState{Group: name, UUID: s.UUID, Name: s.Name, Holder: string(s.Holder), Epoch: s.Epoch, Sessions: s.Sessions}
		if !s.Unserved.IsZero() {
			state.UnservedSince = &s.Unserved
		}
		list = append(list, state)
	}
	return list
}

// describeWaiting is the stores that nobody serves.
func describeWaiting(g *group, name string) (list []overview.WantedStore) {
	for _, s := range g.proxy.Stores() {
		if !s.Unserved.IsZero() {
			list = append(list, overview.WantedStore{Group: name, Store: s.UUID, Name: s.Name, Sessions: s.Sessions, Since: s.Unserved})
		}
	}
	return list
}

func describeSessions(g *group, name string) []sessionStatus {
	var list []sessionStatus
	for _, s := range g.proxy.Sessions() {
		r := s.Report
		list = append(list, sessionStatus{
			name, s.ID, s.Client, s.Since, r.State, r.Broker, r.Store, r.Epoch, s.Waiting, r.NotResumable, r.WindowBytes, r.Unconfirmed, r.Unacked, r.InDoubt,
			r.Subscriptions, r.Transactions, r.Takeovers, r.LastSilence.Seconds() * 1e3,
		})
	}
	return list
}
