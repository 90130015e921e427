package broker

import (
	"errors"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// Absence. A sidecar session that loses its connection is expected back. Until the reclaim window is over nobody else gets what it may
// hold: after a blip that is known, and the messages stay where they are; after a recovery it is not, and recovered messages of the
// queues to which it was subscribed wait until it has said which it holds. Its cursor outlives the window, until the hold is over; so do its temporary
// queues and what topics brought for it meanwhile.

const (
	// expiryMargin is added to the hold: the sidecar's clock began to run before ours.
	expiryMargin = 10 * time.Second
	// stretch bounds how long the window grows while sessions keep coming back, in windows.
	stretch = 5
	// maxRolled bounds the outcomes kept for a session. A sidecar asks only for what it has not seen confirmed, which its window bounds.
	maxRolled = 4096
)

// windowEnd is when the wait for something that went away at away is over, if nothing else happens.
func (s *store) windowEnd(away time.Time) time.Time {
	w := s.cfg.ReclaimWindow
	end := away.Add(w)
	if later := s.returned.Add(w / 2); s.returned.After(away) && later.After(end) {
		end = later
	}
	if most := away.Add(stretch * w); end.After(most) {
		end = most
	}
	return end
}

// park notes that a sidecar session has lost its connection.
func (s *store) park(c *session) {
	s.abortAll(c.peer)
	c.peer, c.absent = nil, s.now
	if !c.recorded {
		delete(s.sessions, c.id) // it has done nothing that could be asked for
		return
	}
	s.waiting[c] = struct{}{}
	for _, sub := range c.subs {
		if sub.browse != nil {
			s.unsubscribeNow(sub) // it comes again with its place, or not at all
			continue
		}
		if !sub.present {
			continue
		}
		sub.present, sub.active, sub.refused, sub.away = false, false, nil, s.now
	}
}

// admitBack ends the wait for a subscription: it is there, and has claimed.
func (s *store) admitBack(sub *subscription) {
	if !sub.away.IsZero() {
		s.returned = s.now
	}
	sub.away = time.Time{}
	s.openGate(sub)
}

// openGate lets recovered messages flow as far as sub is concerned.
func (s *store) openGate(sub *subscription) {
	if !sub.gate {
		return
	}
	sub.gate = false
	q := sub.queue
	if q.gates--; q.gates == 0 {
		q.assigning = true
		s.assign(q)
	}
	s.soil(q)
}

// claim settles who holds what of sub's queue, after a break. What the session holds and does not claim was lost on the way: it is sent
// again to the same subscription, in its place, for others may have had later messages already. A claim is granted if the message is there and
// nobody holds it by a better right; it is not sent, for the client has it. A refusal rests on records that are durable when it is told:
// what the session acknowledges after this is not gone, for that may be lost.
func (s *store) claim(sub *subscription, all []claim) {
	claims := make(map[msgID]basis, len(all))
	for _, c := range all {
		claims[c.id] = c.basis
	}
	sub.owed = 0
	for h := sub.first; h != nil; h = h.next {
		_, h.claimed = claims[h.msg.id]
		h.owed = false // an earlier connection may have left before it was sent
		if h.claimed {
			delete(claims, h.msg.id)
			s.count.claimsGranted.Inc()
		}
	}
	found := s.find(sub.queue, claims)
	for _, c := range all {
		if _, open := claims[c.id]; !open {
			continue
		}
		delete(claims, c.id)
		// Nobody else can have a session's copy of a topic's message: one that is not known any more is its client's.
		if s.grant(sub, c, found[c.id]) || sub.topic != nil {
			s.count.claimsGranted.Inc()
		} else {
			sub.refused = append(sub.refused, c.id)
		}
	}
}

// grant gives a message to the subscription that claims it, if it may.
func (s *store) grant(sub *subscription, c claim, m *message) bool {
	if m == nil || m.state == done || m.hold != nil && !c.basis.above(m.hold.basis) {
		return false
	}
	if h := m.hold; h != nil {
		if h.claimed { // its holder was granted it, and has not been told yet
			h.sub.refused = append(h.sub.refused, c.id)
		}
		s.drop(h)
	}
	m.redelivered = true
	sub.saw(m)
	sub.take(m, s.newHold(), c.basis)
	m.hold.claimed = true
	return true
}

// tick looks after sessions that are away.
func (s *store) tick() {
	for c := range s.waiting {
		expected := false
		for _, sub := range c.subs {
			if sub.away.IsZero() {
				continue
			}
			if s.now.Before(s.windowEnd(sub.away)) {
				expected = true
				continue
			}
			s.giveUp(sub)
		}
		switch {
		case c.peer != nil && !expected:
			delete(s.waiting, c)
		case c.peer == nil && !s.now.Before(c.absent.Add(c.hold+expiryMargin)):
			s.expire(c)
		}
	}
	if len(s.waiting) == 0 {
		s.unfilter()
	}
	s.relieve()
}

// giveUp ends the wait for a subscription: what it holds goes to others. There are none who could have what is kept of a topic for it.
func (s *store) giveUp(sub *subscription) {
	sub.away = time.Time{}
	if sub.topic != nil {
		return
	}
	if sub.held > 0 || sub.gate {
		s.slog.Info("session did not come back in time", "session", sub.session.id.String(), "destination", sub.dest, "requeued", sub.held)
	}
	for sub.first != nil {
		s.requeue(sub.first)
	}
	s.openGate(sub)
}

// expire forgets a session whose hold is over.
func (s *store) expire(c *session) {
	if !c.closed {
		// A record that the journal does not take leaves the session to the next owner, who lets it expire again. Where the disk is full it is tried
		// again: the session is not forgotten before what it has is given back.
		_, err := s.closeSession(c)
		if errors.Is(err, journal.ErrFull) {
			return
		}
		if err != nil && !errors.Is(err, s.err) {
			s.slog.Warn("session could not be closed", "session", c.id.String(), "error", err)
		}
	}
	delete(s.waiting, c)
	delete(s.sessions, c.id)
}

// closeSession ends a session for ever: what it held goes back at once. It returns the LSN of the record that says so.
func (s *store) closeSession(c *session) (journal.LSN, error) {
	var lsn journal.LSN
	if c.recorded || c.accepted > 0 {
		s.scratch = appendSessionID(s.scratch[:0], c.id)
		at, err := s.append(journal.Entry{Type: recClose, Payload: s.scratch}, pend{})
		if err != nil {
			return 0, err
		}
		lsn = at.LSN
	}
	c.closed = true
	s.release(c)
	return lsn, nil
}

// release ends all subscriptions and temporary queues of a session.
func (s *store) release(c *session) {
	for _, sub := range c.subs {
		s.unsubscribeNow(sub)
	}
	s.disown(c)
}

// leave is the end of a connection. A direct client's messages go back at once, as STOMP users expect.
func (s *store) leave(p *peer) {
	c := p.session
	if c == nil {
		return
	}
	p.quit = true
	s.abortAll(p)
	switch {
	case c.direct:
		s.release(c)
	case c.peer == p:
		s.park(c)
	}
}

// addRolled remembers that effect n was a COMMIT that could not be applied.
func (c *session) addRolled(n uint64) {
	c.rolled = append(c.rolled, n)
	if over := len(c.rolled) - maxRolled; over > 0 {
		c.rolled = append(c.rolled[:0], c.rolled[over:]...)
		c.told = max(0, c.told-over)
	}
}
