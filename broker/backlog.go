package broker

import (
	"slices"

	"github.com/understudy-mq/understudy/broker/journal"
)

// The backlog of a topic's subscription. What a direct client is too slow for waits in a ring and is gone with its connection. A sidecar session's
// subscription has a queue of its own instead, as a durable one has, but of messages that are in no journal: so what it was sent and may not have got is
// held like any message, waits while it is away, as long as the hold lasts, and is claimed, given again in its place and acknowledged like any
// message. The session is the only consumer, so no window ends that.
//
// Dropping is what a topic may do and a queue may not; to wait would stall every other subscriber. So a backlog is bounded, and what comes beyond that is
// dropped, counted and said. Those of absent sessions are bounded together, too. When they come near that, the ones that have been away for longest, and longer
// than anybody's messages would wait in a queue, lose theirs: most likely their sidecars are dead, and those that are expected shall have room. A crash loses it. An orderly hand-over does not: see bequest.go.

// common is what the copies of a published message have in common: its octets are in memory once.
type common struct {
	copies int
	octets int64
	number uint64 // of the publication, in their order
}

// backlogShare is the part of Config.MaxMemory, as 1/n, that the backlogs of absent sessions may take together. All may take twice as much.
const backlogShare = 4

// newBacklog makes the queue of a sidecar's subscription to a topic.
func (s *store) newBacklog(t *topic) *queue { return &queue{destination: t.destination, pool: s.pool} }

// retain keeps a published message for the sidecar sessions that are subscribed to its topic, whether they are there or not. It is theirs when the
// record at lsn is durable.
func (s *store) retain(t *topic, m *message, lsn journal.LSN) {
	var shared *common
	size := m.size()
	for _, sub := range t.subs {
		if sub.queue == nil || !sub.wants(m) {
			continue
		}
		if !s.roomFor(sub, size) {
			s.overrun(sub)
			continue
		}
		if shared == nil {
			s.published++
			shared = &common{octets: int64(len(m.data)), number: s.published}
		}
		c := new(message)
		*c = *m
		c.transient, c.lsn, c.index, c.home, c.common = true, lsn, 0, journal.Position{}, shared
		s.add(sub.queue, c)
	}
}

// roomFor reports whether a message of that size may be kept for sub. What a client was sent and has not acknowledged makes room for what it was not sent,
// for it has most likely got that; but not where the client has said how many it will take at most.
func (s *store) roomFor(sub *subscription, size int64) bool {
	most := int64(s.cfg.MaxBacklog)
	for h := sub.first; h != nil && sub.active && sub.prefetch == 0 && sub.queue.kept+size > most; {
		next := h.next
		if m := h.msg; m.common != nil && h.tx == nil && !h.owed {
			s.drop(h)
			m.state = done
			s.remove(m)
		}
		h = next
	}
	all := s.cfg.MaxMemory / backlogShare
	if sub.present {
		all *= 2 // whoever is there does not go short because of those who are not
	}
	return sub.queue.kept+size <= most && s.kept+size <= all
}

// relieve makes room for what is kept for absent sessions if there is little left.
func (s *store) relieve() {
	most := s.cfg.MaxMemory / backlogShare
	if s.kept <= most/4*3 {
		return
	}
	var old []*session
	for c := range s.waiting {
		if c.peer == nil && !s.now.Before(c.absent.Add(stretch*s.cfg.ReclaimWindow)) {
			old = append(old, c)
		}
	}
	slices.SortFunc(old, func(a, b *session) int { return a.absent.Compare(b.absent) })
	for _, c := range old {
		for _, sub := range c.subs {
			if sub.topic != nil {
				s.shed(sub)
			}
		}
		if s.kept <= most/2 {
			return
		}
	}
}

// shed drops what a subscription's backlog has in memory.
func (s *store) shed(sub *subscription) {
	var all []*message
	sub.queue.each(func(at slot) {
		if m := at.message(); m != nil && m.common != nil && m.state != done {
			all = append(all, m)
		}
	})
	for _, m := range all {
		if m.hold != nil {
			s.drop(m.hold)
		}
		m.state = done
		s.remove(m)
		s.overrun(sub)
	}
}

// overrun counts a topic's message that is dropped, and says so the first time.
func (s *store) overrun(sub *subscription) {
	if sub.dropped++; sub.dropped == 1 {
		s.slog.Warn("topic messages dropped for a slow or absent subscriber", "destination", sub.dest, "subscription", sub.id, "absent", !sub.present)
	}
	s.count.dropped.Inc()
}

// share accounts for a copy of a topic's message that was added to a backlog.
func (s *store) share(m *message) {
	c := m.common
	if c.copies++; c.copies == 1 {
		s.memory += c.octets
		s.kept += c.octets
	}
	s.kept += messageOverhead
	m.queue.kept += c.octets + messageOverhead
}

// unshare does so for one that goes.
func (s *store) unshare(m *message) {
	c := m.common
	if c.copies--; c.copies == 0 {
		s.memory -= c.octets
		s.kept -= c.octets
	}
	s.kept -= messageOverhead
	m.queue.kept -= c.octets + messageOverhead
	m.common = nil
}
