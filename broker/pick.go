package broker

import (
	"bytes"
	"container/heap"

	"github.com/understudy-mq/understudy/broker/selector"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// pick is a subscription's selector and what it remembers of its queue, so that it looks at each message once, however long it waits for
// one that it wants: everything up to seen was looked at, in the lane of each priority, and of that what came back later and is wanted is in back.
type pick struct {
	selector *selector.Selector
	seen     [priorities]uint64
	back     byPlace
	in       map[*message]struct{} // back as a set: a message may come back often while nobody looks
}

func newPick(s *selector.Selector) *pick {
	if s == nil {
		return nil
	}
	return &pick{selector: s}
}

// text is what the selector was parsed from, "" if there is none.
func (p *pick) text() string {
	if p == nil {
		return ""
	}
	return p.selector.String()
}

// wants reports whether the subscription takes m.
func (sub *subscription) wants(m *message) bool {
	return sub.pick == nil || sub.pick.selector.Matches(m)
}

// returned notes that m is ready again.
func (p *pick) returned(m *message) {
	if _, there := p.in[m]; there || m.pos > p.seen[m.priority()] || !m.away && !p.selector.Matches(m) {
		return
	}
	if p.in == nil {
		p.in = map[*message]struct{}{}
	}
	p.in[m] = struct{}{}
	heap.Push(&p.back, m)
	p.back.trim(m.queue.count, func(m *message) { delete(p.in, m) })
}

// maxLooks bounds how many messages selectors look at in one call into the store. Whoever has not come to an end goes on in the next one.
const maxLooks = 4096

// next returns the first message that sub wants, or nil. more means that it has not looked at everything.
func (s *store) next(q *queue, sub *subscription) (m *message, more bool) {
	p := sub.pick
	if p == nil {
		m, at := q.peek()
		if m == nil && at.page != nil || m != nil && m.away {
			s.wantNext(q, m, at)
			return nil, false
		}
		return m, false
	}
	p.tidy()
	for _, l := range q.lanes {
		if len(p.back) > 0 && p.back[0].prio == l.prio {
			if m = p.back[0]; m.away {
				s.want(m.page, nil)
				return nil, false
			}
			return m, false
		}
		seen := &p.seen[l.prio+usualPriority]
		c := l.behind(*seen)
		for at, ok := c.next(); ok; at, ok = c.next() {
			m = at.message()
			if m == nil || m.state == ready && m.away {
				if m != nil || at.entry().flags&outRecovered == 0 || !q.gated() {
					s.want(at.page, nil)
				}
				return nil, false
			}
			if m.state == ready {
				if s.looks >= maxLooks {
					return nil, true
				}
				s.looks++
				if p.selector.Matches(m) {
					return m, false
				}
			}
			*seen = m.pos // one that is held is offered when it returns
		}
	}
	return nil, false
}

// tidy takes what is not ready, or turns out not to be wanted, from the front of what came back.
func (p *pick) tidy() {
	for len(p.back) > 0 {
		m := p.back[0]
		if m.state == ready && (m.away || p.selector.Matches(m)) {
			return
		}
		delete(p.in, m)
		heap.Pop(&p.back)
	}
}

// dispatchSelected is dispatch where somebody has a selector: each in its turn takes the first message that it wants. Who finds none drops out
// until the queue changes.
func (s *store) dispatchSelected(q *queue) {
	for _, sub := range q.subs {
		q.offer(sub)
	}
	for q.turns.len() > 0 {
		sub := q.turns.pop()
		if !sub.inTurn || !sub.credit() {
			sub.inTurn = false
			continue
		}
		m, more := s.next(q, sub)
		if m == nil || !s.due(q, m) {
			sub.inTurn = false
			if more {
				sub.session.peer.starved = true
				s.touch(sub.session.peer)
			}
			continue
		}
		if s.expired(m) {
			if sub.inTurn = s.bury(m); sub.inTurn {
				q.turns.push(sub)
			}
			continue
		}
		if p := sub.pick; p != nil {
			p.seen[m.priority()] = max(p.seen[m.priority()], m.pos)
		}
		q.turns.push(sub)
		s.deliver(sub, m)
	}
}

// reselect changes the selector of a subscription. Only that to a queue has looked at messages with it.
func (s *store) reselect(sub *subscription, to *pick) {
	q := sub.queue
	if q == nil || sub.topic != nil {
		sub.pick = to
		return
	}
	if sub.pick != nil {
		q.selecting--
	}
	if sub.pick = to; to != nil {
		q.selecting++
	}
	if q.selecting == 0 { // nobody looks after those that dropped out
		for _, other := range q.subs {
			q.offer(other)
		}
	}
	s.soil(q)
}

// Header makes the sender's headers those of a selector, with JMS's names beside STOMP's.
func (m *message) Header(name string) ([]byte, bool) {
	switch name {
	case "JMSMessageID":
		return m.id.append(nil, frame.V10), true
	case "JMSDeliveryMode":
		if m.transient {
			return []byte("NON_PERSISTENT"), true
		}
		return []byte("PERSISTENT"), true
	case "JMSPriority":
		return digits[m.priority() : m.priority()+1], true
	case "JMSCorrelationID":
		name = "correlation-id"
	case "JMSReplyTo":
		name = "reply-to"
	case "JMSTimestamp":
		name = "timestamp"
	case "JMSType":
		name = "type"
	}
	return m.line(name)
}

var digits = []byte("0123456789")

// line finds a header among the lines.
func (m *message) line(name string) ([]byte, bool) {
	for lines := m.data[:m.split]; len(lines) > 0; {
		line, rest, _ := bytes.Cut(lines, []byte{'\n'})
		lines = rest
		colon := bytes.IndexByte(line, ':')
		if colon < 0 {
			continue // in a record that this broker did not write
		}
		if key := line[:colon]; string(key) != name {
			if bytes.IndexByte(key, '\\') < 0 {
				continue
			}
			if plain, err := frame.Unescape(nil, key, frame.V12); err != nil || string(plain) != name {
				continue
			}
		}
		value := line[colon+1:]
		if bytes.IndexByte(value, '\\') < 0 {
			return value, true
		}
		plain, err := frame.Unescape(nil, value, frame.V12)
		return plain, err == nil
	}
	return nil, false
}
