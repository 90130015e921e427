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
	ErrMoving      = errors.New("store is moving already")
)

const (
	lookForOwner = 250 * time.Millisecond
	// standPatience is for a server that has just let go of the store, or was started, and is about to stand for it.
	standPatience = time.Second
	warmPoll      = 100 * time.Millisecond
)

// due names the owner to whom the store goes back now, if there is one: it has been there for long enough, and has all of the log. One that has no copy by
// then, because it follows no log, gets the store all the same, and reads it then.
func (h *handover) due(now time.Time) string {
	k := h.keeper
	if k.given.Own || k.srv.cfg.Failback != FailbackAuto || now.Sub(h.looked) < lookForOwner {
		return ""
	}
	h.looked = now
	for _, c := range h.log.Candidates() {
		if there := now.Sub(c.Since); c.Own && there >= k.srv.cfg.FailbackAfter && (c.Warm || there >= k.srv.cfg.FailbackAfter+k.srv.cfg.warmPatience) {
			return c.Node
		}
	}
	return ""
}

// HandOver gives a store, named by its name or UUID, to the server whose node name is to, or to the first of the candidates if that is "". It returns when
// the store was let go of. Its clients look for it elsewhere then, and those behind a sidecar notice nothing. It waits for the candidate's copy of the
// log, 10 s at most; a candidate without one, and only an owner and the first two candidates have one, reads the log when it has the store, and clients wait
// that long. Errors: ErrNoStore, ErrNotHeld, ErrNoCandidate, ErrMoving, those of ctx, or what came in between.
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
	for asked := time.Now(); ; {
		v := k.view.Load()
		if v.tenure == nil {
			if v.holder != "" {
				return "", fmt.Errorf("%w: %s serves it", ErrNotHeld, v.holder)
			}
			return "", fmt.Errorf("%w: it is %s", ErrNotHeld, v.role)
		}
		list := v.tenure.journal.Candidates()
		i := slices.IndexFunc(list, func(c journal.Candidate) bool { return c.Node == to || to == "" && c.Warm })
		if i < 0 && to == "" && len(list) > 0 {
			i = 0
		}
		waited := time.Since(asked)
		switch {
		case i >= 0 && list[i].Warm:
			return list[i].Node, nil
		case i >= 0 && waited >= k.srv.cfg.warmPatience:
			k.log.Warn("the successor has no copy of the log, and will read it first", "successor", list[i].Node, "waited", waited.Round(time.Millisecond).String())
			return list[i].Node, nil
		case i >= 0, waited < standPatience:
		case len(list) == 0:
			return "", fmt.Errorf("%w: no other server stands for it", ErrNoCandidate)
		default:
			return "", fmt.Errorf("%w: %s does not stand for it; %s", ErrNoCandidate, to, nodes(list))
		}
		if sleep(ctx, warmPoll) != nil {
			return "", context.Cause(ctx)
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
