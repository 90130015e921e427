package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// Errors of HandOver.
var (
	ErrNoStore     = errors.New("no such store")
	ErrNotHeld     = errors.New("store is not served here")
	ErrNoCandidate = errors.New("no such candidate")
	ErrNotWarm     = errors.New("candidate has no warm copy")
	ErrMoving      = errors.New("store is moving already")
)

const (
	lookForOwner = 250 * time.Millisecond
	warmPatience = 10 * time.Second // for a candidate's copy, when an operator names it
	warmPoll     = 100 * time.Millisecond
)

// due names the owner to whom the store goes back now, if there is one: it has been there for long enough, and has all of the log.
func (h *handover) due(now time.Time) string {
	k := h.keeper
	if k.given.Own || k.srv.cfg.Failback != FailbackAuto || now.Sub(h.looked) < lookForOwner {
		return ""
	}
	h.looked = now
	for _, c := range h.log.Candidates() {
		if c.Own && c.Warm && now.Sub(c.Since) >= k.srv.cfg.FailbackAfter {
			return c.Node
		}
	}
	return ""
}

// HandOver gives a store, named by its name or UUID, to the server whose node name is to, or to the first of the candidates if that is "". It returns when
// the store was let go of. Its clients look for it elsewhere then, and those behind a sidecar notice nothing. It waits for the candidate's copy of the
// log, 10 s at most. Errors: ErrNoStore, ErrNotHeld, ErrNoCandidate, ErrNotWarm, ErrMoving, those of ctx, or what came in between.
func (s *Server) HandOver(ctx context.Context, store, to string) error {
	k, err := s.find(store)
	if err != nil {
		return err
	}
	node, err := k.successor(ctx, to)
	if err != nil {
		return fmt.Errorf("hand over %s: %w", store, err)
	}
	o := order{to: node, reason: byCommand, done: make(chan error, 1)}
	select {
	case k.orders <- o:
	case <-time.After(time.Second):
		return fmt.Errorf("hand over %s: %w", store, ErrMoving)
	case <-ctx.Done():
		return fmt.Errorf("hand over %s: %w", store, context.Cause(ctx))
	}
	select {
	case err = <-o.done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("hand over %s: %w", store, err)
	}
	return nil
}

// find is the keeper of a store that has that name or UUID.
func (s *Server) find(store string) (*keeper, error) {
	var known []string
	var found *keeper
	for _, k := range s.all() {
		v := k.view.Load()
		if v.uuid == store {
			return k, nil
		}
		if v.name == store {
			if found != nil {
				return nil, fmt.Errorf("%w: several stores have the name %s; say which by its UUID", ErrNoStore, store)
			}
			found = k
		}
		known = append(known, v.name)
	}
	if found == nil {
		return nil, fmt.Errorf("%w: %s; this server knows %s", ErrNoStore, store, enumerate(known))
	}
	return found, nil
}

// successor finds whom a store goes to, and waits until it is ready.
func (k *keeper) successor(ctx context.Context, to string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, warmPatience, ErrNotWarm)
	defer cancel()
	for {
		v := k.view.Load()
		if v.tenure == nil {
			if v.holder != "" {
				return "", fmt.Errorf("%w: %s serves it", ErrNotHeld, v.holder)
			}
			return "", fmt.Errorf("%w: it is %s", ErrNotHeld, v.role)
		}
		list := v.tenure.journal.Candidates()
		i := slices.IndexFunc(list, func(c journal.Candidate) bool { return c.Node == to || to == "" && c.Warm })
		switch {
		case i >= 0 && list[i].Warm:
			return list[i].Node, nil
		case len(list) == 0:
			return "", fmt.Errorf("%w: no other server stands for it", ErrNoCandidate)
		case i < 0 && to != "":
			return "", fmt.Errorf("%w: %s does not stand for it; %s", ErrNoCandidate, to, nodes(list))
		}
		if sleep(ctx, warmPoll) != nil {
			err := context.Cause(ctx)
			if errors.Is(err, ErrNotWarm) {
				err = fmt.Errorf("%w after %v: %s; only an owner and the first two candidates follow the log", err, warmPatience, nodes(list))
			}
			return "", err
		}
	}
}

func nodes(list []journal.Candidate) string {
	names := make([]string, len(list))
	for i, c := range list {
		if names[i] = c.Node; c.Warm {
			names[i] += " (warm)"
		}
	}
	return "candidates are " + enumerate(names)
}

func enumerate(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
