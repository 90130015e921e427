package broker

// assign settles the order of what was on its way when the last owner died. Each consumer has seen messages up to some place; earlier ones
// that nobody claims were sent to somebody and lost. Given to a consumer that has seen later ones they would be out of order, so
// each goes to one that has not; only if there is none does it take its turn like any other. It is called once the sessions that were
// subscribed to the queue have claimed, or are given up.
//
// What is out has to be read first. assign reports whether it came to an end: if not it is called again when the page is there.
func (s *store) assign(q *queue) bool {
	for _, l := range q.lanes {
		if !s.assignLane(q, l) {
			return false
		}
	}
	q.assigning = false
	for _, sub := range q.subs {
		if sub.owed > 0 {
			s.drain(sub)
		}
	}
	return true
}

// assignLane does so for one priority: that a later message of another was seen says nothing.
func (s *store) assignLane(q *queue, l *lane) bool {
	var last place
	for _, sub := range q.subs {
		if at := sub.seen(l.prio); last.before(at) {
			last = at
		}
	}
	c := l.behind(l.assigned)
	for at, ok := c.next(); ok; at, ok = c.next() {
		m, recovered, where := at.message(), false, place{}
		if m != nil {
			recovered, where = m.recovered, m.place()
		} else {
			e := at.entry()
			recovered, where = e.flags&outRecovered != 0, place{e.lsn(), e.index()}
		}
		if !recovered || !where.before(last) {
			break
		}
		if (m == nil || m.state == ready && m.away) && q.anyBehind(l.prio, where) {
			s.want(at.page, nil)
			return false
		}
		l.assigned = at.page.pos(at.i)
		if m == nil || m.state != ready {
			continue
		}
		if sub := q.behind(m); sub != nil {
			sub.take(m, s.newHold(), basis{})
			if sub.active {
				m.hold.owed = true
				sub.owed++
			}
		}
	}
	return true
}

// anyBehind reports whether a subscription has seen nothing of a priority from a place on.
func (q *queue) anyBehind(prio int8, at place) bool {
	for _, sub := range q.subs {
		if sub.maybeBehind(prio, at) {
			return true
		}
	}
	return false
}

func (sub *subscription) maybeBehind(prio int8, at place) bool {
	return (sub.present || !sub.away.IsZero()) && sub.mode != ackAuto && sub.seen(prio).before(at)
}

// behind returns the subscription that has seen nothing from m on, would have it, and holds least, or nil: one that is there or expected back.
// One that acknowledges automatically holds nothing.
func (q *queue) behind(m *message) *subscription {
	at := m.place()
	var best *subscription
	for _, sub := range q.subs {
		if sub.maybeBehind(m.prio, at) && (best == nil || sub.held < best.held) && sub.wants(m) {
			best = sub
		}
	}
	return best
}
