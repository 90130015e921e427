package broker

import "strings"

// finish makes the store ready to serve. Every session is away; recovered messages wait for those that were subscribed to their queue.
func (rc *recovery) finish() {
	s := rc.store
	s.last, s.through = max(s.last, rc.last), max(s.through, rc.last)
	for number, d := range s.durables {
		d.queue = rc.durableQueue(number, d.dest)
		d.queue.gone = false
		s.enrol(d)
	}
	for name, q := range s.queues {
		if q.gone = strings.HasPrefix(name, remotePrefix); q.gone { // until its owner is found
			delete(s.queues, name)
			rc.temps[name] = q
		}
	}
	for _, c := range s.sessions {
		for name := range c.temps {
			full := c.remoteName(name)
			if q := rc.temps[full]; q != nil {
				s.queues[full], q.gone = q, false
			}
			s.own(c, name)
		}
	}
	for _, m := range rc.list {
		if m.state != done {
			if s.add(m.queue, m); m.queue.gone {
				s.discard(m)
			}
		}
	}
	for _, c := range s.sessions {
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
			if q := sub.queue; q != nil && q.count > 0 {
				sub.gate = true
				sub.floor = rc.seen[c.id][q]
				q.gates++
			}
		}
	}
	for _, q := range s.queues {
		s.soil(q)
	}
	for _, d := range s.durables {
		s.soil(d.queue)
	}
	rc.list = nil
}
