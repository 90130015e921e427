package main

import (
	"time"

	"github.com/understudy-mq/understudy/session/relay"
)

// candidateStatus is one broker as the sidecar sees it.
type candidateStatus struct {
	Group   string    `json:"group,omitempty"` // if there are several
	Target  string    `json:"target"`
	Tier    int       `json:"tier"`
	Weight  int       `json:"weight"`
	Sources []string  `json:"sources"`
	State   string    `json:"state"`
	Since   time.Time `json:"since"`
	Store   string    `json:"store,omitempty"`
	Epoch   uint64    `json:"epoch,omitempty"`
	TLS     bool      `json:"tls,omitempty"`
	Because string    `json:"because,omitempty"`
}

// sessionStatus is one client.
type sessionStatus struct {
	Group         string    `json:"group,omitempty"` // if there are several; IDs are per group
	ID            uint64    `json:"id"`
	Client        string    `json:"client"`
	Since         time.Time `json:"since"`
	State         string    `json:"state"`
	Broker        string    `json:"broker,omitempty"`
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
		"brokers":  func() any { return each(c, describeCandidates) },
		"sessions": func() any { return each(c, describeSessions) },
		"window":   func() any { return describeWindow(c.budget.State()) },
		"gossip":   func() any { return describeGossip(c.node) },
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
			name, string(k.Target), k.Tier, int(k.Weight), k.Sources, v.State.String(), v.Since, v.Store, v.Epoch, k.TLS, v.Because.Kind.String() + " " + v.Because.Detail,
		})
	}
	return list
}

func describeSessions(g *group, name string) []sessionStatus {
	var list []sessionStatus
	for _, s := range g.proxy.Sessions() {
		r := s.Report
		list = append(list, sessionStatus{
			name, s.ID, s.Client, s.Since, r.State, r.Broker, r.Epoch, s.Waiting, r.NotResumable, r.WindowBytes, r.Unconfirmed, r.Unacked, r.InDoubt,
			r.Subscriptions, r.Transactions, r.Takeovers, r.LastSilence.Seconds() * 1e3,
		})
	}
	return list
}
