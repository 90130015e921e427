package broker

import "strings"

// finish makes the store ready to serve. Every session is away; recovered messages wait for those that were subscribed to their queue. It takes time for each
// queue, session and durable subscription, and none for messages, but for those that a crash has left behind in queues that were being deleted.
func (rc *recovery) finish() {
	s := rc.store
	s.last, s.through = max(s.last, rc.last), max(s.through, rc.last)
	for number, d := range s.durables {
		if d.queue = rc.queues[number]; d.queue == nil {
			d.queue = s.newQueue(d.dest)
		}
		delete(rc.queues, number)
		s.enrol(d)
	}
	for _, c := range s.sessions {
		for _, sub := range c.subs {
			rc.inherit(sub)
		}
	}
	orphans := rc.queues
	temps := map[string]*queue{}
	for name, q := range s.queues {
		if strings.HasPrefix(name, remotePrefix) { // until its owner is found
			delete(s.queues, name)
			temps[name] = q
		}
	}
	for _, c := range s.sessions {
		for name := range c.temps {
			full := c.remoteName(name)
			if q := temps[full]; q != nil {
				s.queues[full] = q
				delete(temps, full)
			}
			s.own(c, name)
		}
	}
	for _, q := range orphans {
		s.abandon(q)
	}
	for _, q := range temps {
		s.abandon(q)
	}
	for _, c := range s.sessions {
		rc.await(c)
	}
	for _, q := range s.queues {
		s.soil(q)
	}
	for _, d := range s.durables {
		s.soil(d.queue)
	}
	*rc = recovery{store: s, records: rc.records, last: rc.last}
}

// abandon has a queue dissolved, once the journal takes what ends its messages.
func (s *store) abandon(q *queue) {
	if q.gone = true; q.count > 0 {
		s.paging.dissolving = append(s.paging.dissolving, q)
	}
}

// await has a session expected back.
func (rc *recovery) await(c *session) {
	s := rc.store
	c.durable, c.absent = c.accepted, s.now
	s.waiting[c] = struct{}{}
	for _, sub := range c.subs {
		if sub.durable != nil {
			if sub.durable = s.durables[sub.durable.number]; sub.durable == nil || sub.durable.sub != nil {
				delete(c.subs, sub.id) // deleted under it
				continue
			}
		}
		s.attach(sub)
		sub.away = s.now
		if q := sub.queue; q != nil && sub.topic == nil && q.count > 0 {
			sub.gate = true
			sub.floor = rc.seen[c.id][q]
			q.gates++
		}
	}
}
