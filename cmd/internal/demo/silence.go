package demo

import (
	"slices"
	"sync"
	"time"
)

// silence measures, for each client and each fault, how long it heard nothing new: from the fault to its first RECEIPT (a producer) or
// first MESSAGE (a consumer) of the new epoch. Clients do not see epochs, so an event counts from the moment on at which the new owner
// had claimed its epoch: nothing that the old one said is still under way then, for the old one was dead before.
type silence struct {
	mu     sync.Mutex
	last   []time.Time   // by client: when it heard something before the fault
	events [][]time.Time // by client, since the fault; nil while nobody measures
	fault  time.Time
}

// note is called by a client when it hears something. It is cheap while nobody measures.
func (s *silence) note(client int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if client < len(s.events) {
		s.events[client] = append(s.events[client], time.Now())
		return
	}
	for len(s.last) <= client {
		s.last = append(s.last, time.Time{})
	}
	s.last[client] = time.Now()
}

// begin starts to measure the first clients of the list, just before the fault.
func (s *silence) begin(clients int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events, s.fault = make([][]time.Time, clients), time.Now()
}

// since returns each client's silence, given when the new epoch was claimed; waiting is how many have heard nothing yet.
func (s *silence) since(claimed time.Time) (each []time.Duration, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	each = make([]time.Duration, len(s.events))
	for i, events := range s.events {
		at := slices.IndexFunc(events, func(t time.Time) bool { return !t.Before(claimed) })
		if at < 0 {
			waiting++
			continue
		}
		each[i] = events[at].Sub(s.fault)
	}
	return each, waiting
}

// gaps returns for each client the longest time between two things that it heard, of those that ended between from and the first thing that it heard
// at until or later; waiting is how many have heard nothing that late yet.
func (s *silence) gaps(from, until time.Time) (each []time.Duration, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	each = make([]time.Duration, len(s.events))
	for i, events := range s.events {
		before := s.fault
		if i < len(s.last) && !s.last[i].IsZero() {
			before = s.last[i]
		}
		served := false
		for _, at := range events {
			if !at.Before(from) {
				each[i] = max(each[i], at.Sub(before))
			}
			if before = at; !at.Before(until) {
				served = true
				break
			}
		}
		if !served {
			waiting++
		}
	}
	return each, waiting
}

// end stops measuring.
func (s *silence) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, events := range s.events {
		if len(events) > 0 && i < len(s.last) {
			s.last[i] = events[len(events)-1]
		}
	}
	s.events = nil
}

// spread returns the median (the upper one of two) and the maximum; zeros for nothing.
func spread(d []time.Duration) (p50, most time.Duration) {
	if len(d) == 0 {
		return 0, 0
	}
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2], d[len(d)-1]
}
