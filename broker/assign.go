package broker

// assign settles the order of what was on its way when the last owner died. Each consumer has seen messages up to some place; earlier ones
// that nobody claims were sent to somebody and lost. Given to a consumer that has seen later ones they would be out of order, so
// each goes to one that has not; only if there is none does it take its turn like any other. It is called once the sessions that were
// subscribed to the queue have claimed, or are given up.
func (s *store) assign(q *queue) {
	for _, l := range q.lanes {
		s.assignLane(q, l)
	}
	for _, sub := range q.subs {
		if sub.owed > 0 {
			s.drain(sub)
		}
	}
}

// assignLane does so for one priority: that a later message of another was seen says nothing.
func (s *store) assignLane(q *queue, l *lane) {
	var last place
	for _, sub := range q.subs {
		if at := sub.seen(l.prio); last.before(at) {
			last = at
		}
	}
	for i := range l.all.len() {
		m := l.all.at(i)
		if !m.recovered || !m.place().before(last) {
			break
		}
		if m.state != ready {
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
}

// behind returns the subscription that has seen nothing from m on, would have it, and holds least, or nil: one that is there or expected back.
// One that acknowledges automatically holds nothing.
func (q *queue) behind(m *message) *subscription {
	at := m.place()
	var best *subscription
	for _, sub := range q.subs {
		if (sub.present || !sub.away.IsZero()) && sub.mode != ackAuto && sub.seen(m.prio).before(at) && (best == nil || sub.held < best.held) && sub.wants(m) {
			best = sub
		}
	}
	return best
}
