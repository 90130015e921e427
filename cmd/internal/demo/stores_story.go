package demo

import (
	"context"
	"errors"
	"slices"
	"time"
)

// downAndUp kills servers until one is left, brings them back in the opposite order, moves a store by command, and stops a server in good order.
func (s *story) downAndUp(ctx context.Context) error {
	for len(s.alive()) > 1 {
		if err := s.rest(ctx); err != nil {
			return err
		}
		if err := s.kill(ctx, s.victim()); err != nil {
			return err
		}
	}
	last := s.alive()[0]
	s.say("ALONE  %s is the last of %d servers and serves %s", last.host, len(s.cluster.members), names(s.servedBy(last)))
	for _, m := range slices.Backward(slices.Clone(s.down)) {
		if err := s.rest(ctx); err != nil {
			return err
		}
		if err := s.revive(ctx, m); err != nil {
			return err
		}
	}
	if err := s.rest(ctx); err != nil {
		return err
	}
	if err := s.excursion(ctx, s.stages[0]); err != nil {
		return err
	}
	if err := s.rest(ctx); err != nil {
		return err
	}
	if err := s.stop(ctx, s.stages[len(s.stages)-1].owner); err != nil {
		return err
	}
	return s.rest(ctx)
}

// toAndFro hands every store over by command, and back, as often as was asked for.
func (s *story) toAndFro(ctx context.Context) error {
	for range s.cfg.Handovers {
		for _, st := range s.stages {
			to := s.idlest(st)
			for _, to := range []*member{to, st.owner} {
				if err := s.rest(ctx); err != nil {
					return err
				}
				if err := s.command(ctx, st, to); err != nil {
					return err
				}
			}
		}
	}
	return s.rest(ctx)
}

// rest lets the clients work for a while, in which no store should move.
func (s *story) rest(ctx context.Context) error {
	sleepUntil(ctx, nil, time.Now().Add(s.cfg.Interval))
	if slices.ContainsFunc(s.stages, func(st *stage) bool { return st.brokenClients() > 0 }) {
		return errors.Join(ctx.Err(), errClients)
	}
	return errors.Join(ctx.Err(), s.steady(ctx))
}

// victim is who is killed next: owners first, then the standby that serves most, so that each time the order of those that are left is put to the test.
func (s *story) victim() *member {
	var most *member
	for _, m := range s.alive() {
		if s.owned(m) != nil {
			return m
		}
		if most == nil || len(s.servedBy(m)) > len(s.servedBy(most)) {
			most = m
		}
	}
	return most
}

// idlest is the server that serves least, but for the store's holder.
func (s *story) idlest(st *stage) *member {
	var least *member
	for _, m := range s.alive() {
		if m != st.holder && (least == nil || len(s.servedBy(m)) < len(s.servedBy(least))) {
			least = m
		}
	}
	return least
}
