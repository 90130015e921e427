package broker

import (
	"bytes"
	"slices"
	"strings"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/broker/selector"
)

// durable is a topic's durable subscription: a queue of its own that is filled whether anybody is there or not, until it is deleted. Its
// selector is asked when a message is published; what it does not want is never stored.
type durable struct {
	durableKey
	number   journal.LSN // of the record that made it: never used again
	dest     string
	selector *selector.Selector // nil: everything
	queue    *queue
	sub      *subscription // attached, or of a session that is expected back; nil: of nobody
}

// durableKey is who it belongs to: the client-id of CONNECT, and the name in SUBSCRIBE.
type durableKey struct{ client, name string }

func (d *durable) wants(m *message) bool { return d.selector == nil || d.selector.Matches(m) }

// selectorText is what a selector was parsed from, "" if there is none.
func selectorText(s *selector.Selector) string {
	if s == nil {
		return ""
	}
	return s.String()
}

// topic returns the topic of that name, made if there is none.
func (s *store) topic(name string) *topic {
	t := s.topics[name]
	if t == nil {
		t = &topic{destination: newDestination(name)}
		s.topics[name] = t
	}
	return t
}

// forgetTopic drops a topic that nobody listens to.
func (s *store) forgetTopic(t *topic) {
	if len(t.subs) == 0 && len(t.durables) == 0 {
		delete(s.topics, t.name)
	}
}

// enrol makes a durable subscription known, with its queue.
func (s *store) enrol(d *durable) {
	s.durables[d.number], s.named[d.durableKey] = d, d
	d.queue.number = d.number
	t := s.topic(d.dest)
	t.durables = append(t.durables, d)
}

// targets are the durable subscriptions that a message to dest is kept for. Which they are is in the message's record.
func (s *store) targets(dest string, m *message) (list []*durable) {
	t := s.topics[dest]
	if t == nil {
		return nil
	}
	for _, d := range t.durables {
		if d.wants(m) {
			list = append(list, d)
		}
	}
	return list
}

// keep stores a copy of a published message for each of its targets. The copies of a durable one are numbered from index within its record.
func (s *store) keep(targets []*durable, m *message, at journal.Position, index uint32) {
	for _, d := range targets {
		c := *m
		s.enqueue(d.queue, &c, at, index)
		if !m.transient {
			index++
		}
	}
}

// publishDurably journals a message to a topic that is kept for targets, and hands it out.
func (s *store) publishDurably(p *peer, r *request, targets []*durable) {
	m := r.message
	s.scratch = appendPublish(s.scratch[:0], p.origin(r.effect), r.dest, targets, m)
	e := journal.Entry{Type: recPublish, Payload: s.scratch, Front: m.front(s.scratch), Account: journal.Account{Live: len(targets), Bytes: int64(len(targets)) * m.stored()}}
	at, err := s.append(e, s.effect(p, r))
	if err != nil {
		s.broken(p, r, err)
		return
	}
	p.applied(r)
	s.count.in.Inc()
	s.keep(targets, m, at, 0)
	s.publish(at.LSN, string(r.dest), m)
}

// attachable finds the durable subscription that r asks for on behalf of before, which is nil if the connection has no subscription of that id. One
// that does not exist is made; one that has another topic or selector is made anew, as JMS has it. [Jakarta Messaging 3.1, 8.3.3]
// It reports whether the frame may go on.
func (s *store) attachable(p *peer, r *request, before *subscription) (*durable, bool) {
	key, ok := s.durableKey(p, r)
	if !ok {
		return nil, false
	}
	if !strings.HasPrefix(string(r.dest), topicPrefix) {
		s.refuse(p, r.receipt, faultf("invalid destination", "durable subscriptions are of topics, and %s is a queue", r.dest))
		return nil, false
	}
	d := s.named[key]
	if d != nil && d.sub != before && !s.vacate(p, r, d) {
		return nil, false
	}
	if d != nil && d.dest == string(r.dest) && selectorText(d.selector) == selectorText(r.selector) {
		return d, true
	}
	if d != nil && !s.erase(p, r, d, pend{peer: p}) {
		return nil, false
	}
	if len(s.durables) >= s.cfg.MaxDurables {
		s.refuse(p, r.receipt, faultf("too many durable subscriptions", "this store has %d durable subscriptions, the limit", len(s.durables)))
		return nil, false
	}
	d = &durable{durableKey: key, dest: string(r.dest), selector: r.selector, queue: s.newQueue(string(r.dest))}
	s.scratch = appendDurable(s.scratch[:0], d)
	at, err := s.append(journal.Entry{Type: recDurable, Payload: s.scratch}, pend{peer: p})
	if err != nil {
		s.broken(p, r, err)
		return nil, false
	}
	d.number = at.LSN
	s.enrol(d)
	return d, true
}

func (s *store) durableKey(p *peer, r *request) (durableKey, bool) {
	key := durableKey{p.session.client, string(r.durable)}
	if key.client == "" {
		s.refuse(p, r.receipt, faultf("no client-id", "a durable subscription belongs to a client-id, and CONNECT had none"))
		return key, false
	}
	return key, true
}

// vacate takes a durable subscription from a session that has not come back in time, or from an earlier connection of this one. It refuses the
// frame if somebody has it.
func (s *store) vacate(p *peer, r *request, d *durable) bool {
	sub := d.sub
	switch {
	case sub == nil:
		return true
	case sub.present || sub.session != p.session && !sub.away.IsZero():
		s.refuse(p, r.receipt, faultf("durable subscription in use", "the durable subscription %s of client %s is in use", d.name, d.client))
		return false
	}
	s.scratch = appendText(appendSessionID(s.scratch[:0], sub.session.id), sub.id)
	if _, err := s.append(journal.Entry{Type: recUnsubscribe, Payload: s.scratch}, pend{peer: p}); err != nil {
		s.broken(p, r, err)
		return false
	}
	s.unsubscribeNow(sub)
	return true
}

// unsubscribeDurable deletes a durable subscription, whether the connection is attached to it or not. For a sidecar one that is not there was
// deleted already: the answer to that was lost.
func (s *store) unsubscribeDurable(p *peer, r *request) {
	key, ok := s.durableKey(p, r)
	if !ok {
		return
	}
	d := s.named[key]
	switch {
	case d == nil && p.sidecar:
		s.answer(p, r, s.last)
	case d == nil:
		s.refuse(p, r.receipt, faultf("no such subscription", "client %s has no durable subscription %s", key.client, key.name))
	case d.sub != nil && d.sub.session == p.session || s.vacate(p, r, d):
		s.erase(p, r, d, pend{peer: p, receipt: bytes.Clone(r.receipt)})
	}
}

// erase deletes a durable subscription and what it keeps.
func (s *store) erase(p *peer, r *request, d *durable, w pend) bool {
	s.scratch = appendErase(s.scratch[:0], d)
	if _, err := s.append(journal.Entry{Type: recErase, Payload: s.scratch}, w); err != nil {
		s.broken(p, r, err)
		return false
	}
	if d.sub != nil {
		s.unsubscribeNow(d.sub)
	}
	delete(s.durables, d.number)
	delete(s.named, d.durableKey)
	if t := s.topics[d.dest]; t != nil {
		t.durables = slices.DeleteFunc(t.durables, func(x *durable) bool { return x == d })
		s.forgetTopic(t)
	}
	s.dissolve(d.queue)
	return true
}

// dissolve ends a queue with what is in it. What an open transaction has acknowledged goes when that ends.
func (s *store) dissolve(q *queue) {
	if q.gone = true; q.damage != nil {
		s.paging.damaged--
	}
	q.each(func(at slot) {
		if m := at.message(); m != nil && m.state == ready {
			s.discard(m)
		}
	})
	s.paging.dissolving = append(s.paging.dissolving, q)
	s.dissolveSome()
}

// discard ends a message that nobody will ever get. The journal learns of it with the automatic acknowledgements, and does not have to: a
// message without a queue is discarded again after a recovery.
func (s *store) discard(m *message) {
	m.state = done
	s.autoAck = append(s.autoAck, m)
}
