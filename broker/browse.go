package broker

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// browse is a subscription that is shown a queue as it was when it came: copies of its messages in their order, those that others hold
// included, then a MESSAGE with browser:end. It holds nothing and acknowledges nothing, so there is nothing to record: should its connection break,
// its sidecar asks for the rest.
type browse struct {
	queue *queue // nil: there was none
	dest  *destination
	at    browsed
	end   uint64 // the last place that it is to be shown
	done  bool
}

// browsed is how far a browser has come. Its zero value is the front: no message has a place of 0.
type browsed struct {
	priority int
	place    uint64
}

// parseBrowsed reads HeaderBrowse: priority.sequence.
func parseBrowsed(v []byte) (browsed, bool) {
	priority, sequence, _ := bytes.Cut(v, []byte{'.'})
	n, ok1 := frame.ParseUint(priority)
	place, ok2 := frame.ParseUint(sequence)
	return browsed{int(min(n, priorities)), place}, ok1 && ok2 && n < priorities && place > 0
}

func appendBrowsed(b []byte, m *message) []byte {
	b = append(b, frame.HeaderBrowse+":"...)
	b = append(strconv.AppendInt(b, int64(m.priority()), 10), '.')
	return append(strconv.AppendUint(b, m.pos, 10), '\n')
}

// browse begins a browser once everything that it is to see is durable. before is what the session had under that id.
func (s *store) browse(p *peer, r *request, id string, before *subscription) {
	c := p.session
	if strings.HasPrefix(string(r.dest), topicPrefix) || r.durable != nil {
		s.refuse(p, r.receipt, faultf("invalid destination", "browsers are of queues"))
		return
	}
	if before != nil {
		s.scratch = appendText(appendSessionID(s.scratch[:0], c.id), before.id)
		if _, err := s.append(journal.Entry{Type: recUnsubscribe, Payload: s.scratch}, pend{peer: p}); err != nil {
			s.broken(p, r, err)
			return
		}
		s.unsubscribeNow(before)
	}
	b := &browse{queue: s.queues[string(r.dest)], at: r.after}
	if b.queue != nil {
		b.dest, b.end = &b.queue.destination, b.queue.places
	} else {
		d := newDestination(string(r.dest))
		b.dest = &d
	}
	sub := &subscription{id: id, dest: string(r.dest), session: c, mode: ackAuto, pick: newPick(r.selector), browse: b}
	c.subs[id] = sub
	s.present(p, sub, r.id != nil)
	s.when(s.last, pend{start: sub, peer: p, receipt: bytes.Clone(r.receipt)})
}

// look shows a browser more, as much as its connection has room for.
func (s *store) look(sub *subscription) {
	b, p := sub.browse, sub.session.peer
	if b.done || !sub.active {
		return
	}
	if b.queue != nil {
		if b.queue.damage != nil {
			s.refuseDamaged(p, nil, b.queue)
			return
		}
		for _, l := range b.queue.lanes {
			if !s.lookAlong(sub, l) {
				return
			}
		}
	}
	if !p.room() {
		return
	}
	b.done, b.queue = true, nil
	s.grow(p)
	p.out = append(append(p.out, "MESSAGE\n"...), sub.line...)
	p.out = append(append(p.out, "message-id:0\n"...), b.dest.line[p.version]...)
	p.out = append(p.out, "browser:end\n\n\x00\n"...)
	s.touch(p)
}

// lookAlong shows a browser the messages of one priority, and reports whether it has come to their end.
func (s *store) lookAlong(sub *subscription, l *lane) bool {
	b, p := sub.browse, sub.session.peer
	from, priority := uint64(0), int(l.prio)+usualPriority
	switch {
	case b.at.place == 0 || priority < b.at.priority:
	case priority == b.at.priority:
		from = b.at.place
	default:
		return true
	}
	c := l.behind(from)
	for at, ok := c.next(); ok; at, ok = c.next() {
		place := at.page.pos(at.i)
		if place > b.end {
			break
		}
		if !p.room() {
			return false
		}
		if s.looks++; s.looks > maxLooks {
			p.starved = true
			s.touch(p)
			return false
		}
		m := at.message()
		if m == nil || m.away && m.state != done {
			s.want(at.page, sub)
			return false
		}
		b.at = browsed{priority, place}
		if m.state == done || s.expired(m) || !sub.wants(m) {
			continue
		}
		s.grow(p)
		p.out = appendMessage(p.out, p, sub, m, 0, 0)
		s.count.out.Inc()
		s.touch(p)
	}
	return true
}
