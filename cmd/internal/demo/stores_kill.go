package demo

import (
	"context"
	"fmt"
	"time"
)

// kill kills a server with SIGKILL while something of all its stores is in the air, and sees who takes them.
func (s *story) kill(ctx context.Context, victim *member) error {
	stages := s.servedBy(victim)
	before := make([]inFlight, len(stages))
	for i, st := range stages {
		var err error
		if before[i], err = st.awaitInFlight(ctx); err != nil {
			return fmt.Errorf("store %s: %w", st.name, err)
		}
	}
	open := 0
	for i, st := range stages {
		open += st.openTransactions()
		before[i] = st.ledger.snapshot()
		st.silence.begin(st.listeners())
		defer st.silence.end()
	}
	at := time.Now()
	_ = victim.process.cmd.Process.Kill()
	sends, unacked := 0, 0
	for i, st := range stages {
		a, b := st.ledger.still(before[i])
		sends, unacked = sends+a, unacked+b
	}
	<-victim.process.gone
	dead := time.Now()
	s.say("KILL   %s (pid %d, SIGKILL), which serves %s: %d sends unconfirmed, %d transactions open, %d messages unacknowledged", victim.host, victim.process.pid(),
		names(stages), sends, open, unacked)
	s.result.Kills++
	s.result.InFlight.Sends, s.result.InFlight.Transactions = s.result.InFlight.Sends+sends, s.result.InFlight.Transactions+open
	s.result.InFlight.Unacked += unacked
	found, err := s.awaitTakers(ctx, victim, stages)
	if err != nil {
		return err
	}
	for _, st := range stages {
		t := found[st.name]
		st.result.Takeovers++
		s.say("TAKEN  store %s by %s, %s: epoch %d, %.1f ms after the kill", st.name, t.holder.host, t.how, t.epoch, milliseconds(t.since.Sub(at)))
		heard, err := st.awaitHeard(ctx, later(t.since, dead))
		if err != nil {
			return fmt.Errorf("store %s: %w", st.name, err)
		}
		st.silences = append(st.silences, heard...)
		s.heard(st, len(heard), "silence", heard)
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// taker is who has taken a store, and what it was then.
type taker struct {
	tenure
	how string
}

// awaitTakers waits until the stores of a server that is gone are served again, and judges the order.
func (s *story) awaitTakers(ctx context.Context, gone *member, stages []*stage) (map[string]taker, error) {
	s.down = append(s.down, gone)
	if len(stages) == 0 {
		return nil, nil
	}
	before, owners, took, above := load{}, map[string]string{}, freed{}, map[string]uint64{}
	for _, m := range s.alive() {
		before[m.host] = len(s.servedBy(m))
	}
	for _, st := range stages {
		owners[st.name], above[st.name] = st.owner.host, st.epoch
	}
	found, err := s.cluster.awaitTenures(ctx, above, s.alive())
	if err != nil {
		return nil, err
	}
	takers := map[string]taker{}
	for _, st := range stages {
		t := found[st.name]
		takers[st.name] = taker{t, before.describe(t.holder.host)}
		took[st.name] = t.holder.host
		s.claimed(st, t)
	}
	s.result.Order.Checked += len(stages)
	for _, bad := range breaches(took, owners, before) {
		s.result.Order.Violations = append(s.result.Order.Violations, bad)
		s.problem("order: %s", bad)
	}
	return takers, nil
}

// claimed notes a store's next holder. An epoch in between would be a holder that nobody saw.
func (s *story) claimed(st *stage, t tenure) {
	if t.epoch != st.epoch+1 {
		s.problem("store %s went from epoch %d to epoch %d in what should have been one move", st.name, st.epoch, t.epoch)
	}
	s.served(st, t)
}
