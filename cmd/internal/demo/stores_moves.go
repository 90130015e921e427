package demo

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A pause is looked for from some time before a store is claimed, for the old holder has fallen silent by then, to some time after, so that what the old one
// had said last is not taken for the new one's.
const (
	pauseBefore = 500 * time.Millisecond
	pauseAfter  = 100 * time.Millisecond
)

// openWait bounds the wait for a transaction to be open.
const openWait = time.Second

// revive starts a server again. If it owns a store, that must come home to it by itself.
func (s *story) revive(ctx context.Context, m *member) error {
	if err := s.cluster.startBroker(ctx, m); err != nil {
		return err
	}
	up := time.Now()
	s.down = slices.DeleteFunc(s.down, func(d *member) bool { return d == m })
	st := s.owned(m)
	if st == nil {
		s.say("BACK   %s (pid %d) stands by: nothing should move", m.host, m.process.pid())
		return nil
	}
	s.say("BACK   %s (pid %d), the owner of store %s, which %s serves", m.host, m.process.pid(), st.name, st.holder.host)
	st.silence.begin(st.listeners())
	defer st.silence.end()
	t, err := s.awaitMove(ctx, st, m)
	if err != nil {
		return err
	}
	s.say("HOME   store %s at %s by itself: epoch %d, %.2f s after it came up", st.name, t.holder.host, t.epoch, t.since.Sub(up).Seconds())
	if took := t.since.Sub(up); took < s.cfg.FailbackAfter-settle { // it was healthy a little before we saw that
		s.problem("store %s came home after %v, before its owner had been there for %v", st.name, took.Round(time.Millisecond), s.cfg.FailbackAfter)
	}
	return s.pause(ctx, st, t)
}

// awaitMove waits for the next holder of a store, who should be the one given.
func (s *story) awaitMove(ctx context.Context, st *stage, to *member) (tenure, error) {
	found, err := s.cluster.awaitTenures(ctx, map[string]uint64{st.name: st.epoch}, s.alive())
	if err != nil {
		return tenure{}, err
	}
	t := found[st.name]
	st.result.Handovers++
	s.claimed(st, t)
	if t.holder != to {
		s.problem("store %s went to %s instead of %s", st.name, t.holder.host, to.host)
	}
	return t, nil
}

// excursion hands a store to another server by command, and sees it come home.
func (s *story) excursion(ctx context.Context, st *stage) error {
	if err := s.command(ctx, st, s.idlest(st)); err != nil {
		return err
	}
	st.silence.begin(st.listeners())
	defer st.silence.end()
	t, err := s.awaitMove(ctx, st, st.owner)
	if err != nil {
		return err
	}
	s.say("HOME   store %s at %s by itself: epoch %d", st.name, t.holder.host, t.epoch)
	return s.pause(ctx, st, t)
}

// command has a store handed over, by the program's own command, while a transaction is open.
func (s *story) command(ctx context.Context, st *stage, to *member) error {
	for until := time.Now().Add(openWait); st.openTransactions() == 0 && time.Now().Before(until); {
		sleepUntil(ctx, nil, time.Now().Add(time.Millisecond))
	}
	open := st.openTransactions()
	s.result.InFlight.Transactions += open
	st.silence.begin(st.listeners())
	defer st.silence.end()
	from := st.holder
	err := s.cluster.kids.command(ctx, "handover", "broker", "handover", "--admin", "http://"+from.admin, "--to", to.host, st.name)
	if err != nil {
		return fmt.Errorf("hand store %s over to %s: %w", st.name, to.host, err)
	}
	t, err := s.awaitMove(ctx, st, to)
	if err != nil {
		return err
	}
	s.say("MOVED  store %s from %s to %s by command: epoch %d, with %d transactions open", st.name, from.host, t.holder.host, t.epoch, open)
	return s.pause(ctx, st, t)
}

// stop ends a server with SIGTERM, which hands its stores over, and brings it back.
func (s *story) stop(ctx context.Context, m *member) error {
	stages := s.servedBy(m)
	for _, st := range stages {
		st.silence.begin(st.listeners())
		defer st.silence.end()
	}
	if err := m.process.stop(ctx); err != nil {
		return err
	}
	s.say("STOP   %s (SIGTERM), which served %s", m.host, names(stages))
	s.result.Stops++
	found, err := s.awaitTakers(ctx, m, stages)
	if err != nil {
		return err
	}
	for _, st := range stages {
		t := found[st.name]
		st.result.Handovers++
		s.say("MOVED  store %s to %s, %s: epoch %d", st.name, t.holder.host, t.how, t.epoch)
		if err := s.pause(ctx, st, t.tenure); err != nil {
			return err
		}
	}
	for _, st := range stages {
		st.silence.end()
	}
	if err := s.rest(ctx); err != nil {
		return err
	}
	return s.revive(ctx, m)
}

// pause notes how long the clients of a store heard nothing when it was handed over.
func (s *story) pause(ctx context.Context, st *stage, t tenure) error {
	var each []time.Duration
	err := await(ctx, s.cfg.TakeoverTimeout, "every client of store "+st.name+" to hear of the new epoch", func() (bool, error) {
		waiting := 0
		each, waiting = st.silence.gaps(t.since.Add(-pauseBefore), t.since.Add(pauseAfter))
		if st.brokenClients() > 0 {
			return false, errClients
		}
		return waiting == 0, nil
	})
	if err != nil {
		return err
	}
	st.pauses = append(st.pauses, each...)
	s.heard(st, len(each), "pause", each)
	return nil
}

// heard says how long clients heard nothing.
func (s *story) heard(st *stage, n int, what string, each []time.Duration) {
	p50, most := spread(each)
	s.say("HEARD  by %d of %d clients of store %s: %s p50 %.1f ms, max %.1f ms", n, st.listeners(), st.name, what, milliseconds(p50), milliseconds(most))
}

// steady sees to it that every store is where it is believed to be: what moved without a reason is told.
func (s *story) steady(ctx context.Context) error {
	for _, st := range s.stages {
		all, err := s.cluster.tenures(ctx, st.holder)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(all, func(t tenure) bool { return t.store == st.name && t.epoch == st.epoch }) {
			s.problem("store %s is no longer served by %s in epoch %d, though nobody asked for a move", st.name, st.holder.host, st.epoch)
			found, err := s.cluster.awaitTenures(ctx, map[string]uint64{st.name: st.epoch}, s.alive())
			if err != nil {
				return err
			}
			s.served(st, found[st.name])
		}
	}
	return nil
}

// checkHome asks for the last time where the stores are.
func (s *story) checkHome(ctx context.Context) {
	if err := s.steady(ctx); err != nil {
		s.problem("%v", err)
	}
	for _, st := range s.stages {
		if st.holder != st.owner {
			s.problem("store %s is with %s at the end, not with its owner %s", st.name, st.holder.host, st.owner.host)
		}
	}
}
