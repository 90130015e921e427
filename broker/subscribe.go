package broker

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// subscribe begins a subscription, or continues one that a session had. Dispatch begins once the record that names it is durable: an owner
// after us must know for whom the messages wait. A direct client's is in no record and begins at once.
func (s *store) subscribe(p *peer, r *request) {
	c := p.session
	id := string(r.id)
	if r.id == nil { // 1.0: no id of ours can be one of the client's
		id = "\x00" + strconv.FormatUint(p.numbers+1, 10)
	}
	if !s.mayListen(p, r) {
		return
	}
	sub := c.subs[id]
	if sub != nil && sub.present {
		s.refuse(p, r.receipt, faultf("subscription exists", "SUBSCRIBE names a subscription that this connection has already"))
		return
	}
	if sub == nil && len(c.subs) >= s.cfg.MaxSubscriptions {
		s.refuse(p, r.receipt, faultf("too many subscriptions", "this connection has %d subscriptions, the limit", len(c.subs)))
		return
	}
	if q := s.queues[string(r.dest)]; q != nil && q.damage != nil {
		s.refuseDamaged(p, r.receipt, q)
		return
	}
	if r.browser {
		s.browse(p, r, id, sub)
		return
	}
	if sub != nil && sub.topic != nil && sub.queue != nil && sub.queue.damage != nil {
		s.refuseDamaged(p, r.receipt, sub.queue)
		return
	}
	fresh := &subscription{id: id, dest: string(r.dest), session: c, mode: r.mode, prefetch: s.prefetch(r), pick: newPick(r.selector)}
	if r.durable != nil {
		d, ok := s.attachable(p, r, sub)
		if !ok {
			return
		}
		if d.queue.damage != nil {
			s.refuseDamaged(p, r.receipt, d.queue)
			return
		}
		if sub != nil && sub.gone { // its durable subscription was made anew
			sub = nil
		}
		fresh.durable, fresh.pick = d, nil
	}
	if !s.record(p, r, sub, fresh) {
		return
	}
	if sub != nil && (sub.dest != fresh.dest || sub.durable != fresh.durable) {
		s.unsubscribeNow(sub)
		sub = nil
	}
	if sub == nil {
		sub = fresh
		s.attach(sub)
	} else if sub.pick.text() != fresh.pick.text() {
		s.reselect(sub, fresh.pick)
	}
	sub.mode, sub.prefetch = fresh.mode, fresh.prefetch
	s.present(p, sub, r.id != nil)
	if c.direct && sub.durable == nil {
		s.start(p, sub, r.receipt)
		return
	}
	if sub.queue != nil {
		s.claim(sub, r.claims)
		s.admitBack(sub)
	}
	// Waiting for everything appended so far, not for the subscription's record only: an answer that a claim is gone rests on an ACK.
	s.when(s.last, pend{start: sub, peer: p, receipt: bytes.Clone(r.receipt)})
}

// present makes a subscription one of the connection's. named says that the client gave it an id.
func (s *store) present(p *peer, sub *subscription, named bool) {
	sub.present = true
	p.numbers++
	sub.number = p.numbers
	p.subs[sub.number] = sub
	sub.name(p, named, s.epoch)
}

// record journals a sidecar's subscription that is new or different. It reports whether the frame may go on.
func (s *store) record(p *peer, r *request, before, after *subscription) bool {
	c := p.session
	if c.direct || before != nil && before.dest == string(r.dest) && before.mode == after.mode && before.prefetch == after.prefetch &&
		before.durable == after.durable && before.pick.text() == after.pick.text() {
		return true
	}
	s.scratch = appendSubscribe(s.scratch[:0], c, after)
	if _, err := s.append(journal.Entry{Type: recSubscribe, Payload: s.scratch}, pend{peer: p}); err != nil {
		s.broken(p, r, err)
		return false
	}
	return true
}

// prefetch is how many messages a subscription may hold; 0: any number. A topic stops for nobody who has not asked for that.
func (s *store) prefetch(r *request) int {
	asked := r.prefetch
	if asked <= 0 && r.durable == nil && bytes.HasPrefix(r.dest, []byte(topicPrefix)) {
		return 0
	}
	if asked <= 0 {
		asked = s.cfg.Prefetch
	}
	return min(asked, s.cfg.MaxPrefetch)
}

// attach connects a subscription to its queue or topic; a sidecar's of a topic to both.
func (s *store) attach(sub *subscription) {
	sub.session.subs[sub.id] = sub
	if d := sub.durable; d != nil {
		d.sub, sub.queue = sub, d.queue
		d.queue.subs = append(d.queue.subs, sub)
		return
	}
	if !strings.HasPrefix(sub.dest, topicPrefix) {
		sub.queue = s.queue([]byte(sub.dest))
		sub.queue.subs = append(sub.queue.subs, sub)
		if sub.pick != nil {
			sub.queue.selecting++
		}
		return
	}
	sub.topic = s.topic(sub.dest)
	sub.topic.subs = append(sub.topic.subs, sub)
	if sub.session.direct {
		return
	}
	if sub.queue == nil { // else it is what the last owner has left to it
		sub.queue = s.newBacklog(sub.topic)
	}
	sub.queue.subs = append(sub.queue.subs, sub)
}

// name prepares the header lines that are the same in every MESSAGE of the subscription.
func (sub *subscription) name(p *peer, given bool, epoch uint64) {
	sub.line = nil
	if given {
		sub.line = frame.Escape([]byte("subscription:"), []byte(sub.id), p.version)
		sub.line = append(sub.line, '\n')
	}
	b := []byte("ack:")
	for _, n := range [...]uint64{epoch, p.number, sub.number} {
		b = append(strconv.AppendUint(b, n, 10), '.')
	}
	sub.ackLine = b
}

// start dispatches to a subscription for the first time on this connection: the RECEIPT, with the claims that were not granted, then what it
// holds and did not claim, then what its turn brings.
func (s *store) start(p *peer, sub *subscription, receipt []byte) {
	if sub.gone || !sub.present || sub.session.peer != p || p.deaf() {
		return
	}
	if receipt != nil {
		s.grow(p)
		b := append(p.out, "RECEIPT\nreceipt-id:"...)
		b = append(append(b, receipt...), '\n')
		b = s.appendGone(b, sub)
		p.out = append(b, "\n\x00\n"...)
		s.count.receipts.Inc()
		s.touch(p)
	}
	sub.refused = nil
	sub.active = true
	if sub.browse != nil {
		s.look(sub)
	} else if sub.queue != nil {
		for _, h := range sub.byPlace() {
			if h.claimed {
				h.claimed = false
				continue
			}
			h.owed = true
			sub.owed++
		}
		s.drain(sub)
		s.offer(sub)
	}
}

// appendGone names the claims that were refused.
func (s *store) appendGone(b []byte, sub *subscription) []byte {
	for i, id := range sub.refused {
		if i == 0 {
			b = append(b, frame.HeaderGone+":"...)
		} else {
			b = append(b, ',')
		}
		b = id.append(b, sub.session.peer.version)
		s.count.claimsGone.Inc()
	}
	if len(sub.refused) > 0 {
		b = append(b, '\n')
	}
	return b
}

// byPlace puts what sub holds into the order of the queue and returns it.
func (sub *subscription) byPlace() []*hold {
	holds := make([]*hold, 0, sub.held)
	for h := sub.first; h != nil; h = h.next {
		holds = append(holds, h)
	}
	slices.SortFunc(holds, func(a, b *hold) int {
		if a.msg.before(b.msg) {
			return -1
		}
		return 1
	})
	sub.first, sub.last = nil, nil
	for i, h := range holds {
		h.prev, h.next = nil, nil
		if i > 0 {
			h.prev, holds[i-1].next = holds[i-1], h
		} else {
			sub.first = h
		}
		sub.last = h
	}
	return holds
}

// unsubscribe ends a subscription. For a sidecar one that is not there has ended already: the answer to that was lost.
func (s *store) unsubscribe(p *peer, r *request) {
	if r.durable != nil {
		s.unsubscribeDurable(p, r)
		return
	}
	c := p.session
	sub := c.subs[string(r.id)]
	if r.id == nil { // 1.0; clients leave the id out even where SUBSCRIBE had one
		for _, other := range c.subs {
			if other.dest == string(r.dest) && (sub == nil || other.line == nil) {
				sub = other
			}
		}
	}
	if sub == nil {
		if c.direct {
			s.refuse(p, r.receipt, faultf("no such subscription", "UNSUBSCRIBE names a subscription that this connection does not have"))
			return
		}
		s.answer(p, r, s.last)
		return
	}
	if c.direct {
		s.unsubscribeNow(sub)
		s.answer(p, r, 0)
		return
	}
	s.scratch = appendText(appendSessionID(s.scratch[:0], c.id), sub.id)
	w := pend{peer: p, receipt: bytes.Clone(r.receipt)}
	if _, err := s.append(journal.Entry{Type: recUnsubscribe, Payload: s.scratch}, w); err != nil {
		s.broken(p, r, err)
		return
	}
	s.unsubscribeNow(sub)
}

// unsubscribeNow gives back what a subscription holds and forgets it. What an open transaction acknowledged stays until that ends.
func (s *store) unsubscribeNow(sub *subscription) {
	sub.gone, sub.active, sub.present = true, false, false
	delete(sub.session.subs, sub.id)
	if p := sub.session.peer; p != nil {
		delete(p.subs, sub.number)
	}
	for h := sub.first; h != nil; {
		next := h.next
		if h.tx == nil {
			s.requeue(h)
		}
		h = next
	}
	s.openGate(sub)
	if t := sub.topic; t != nil {
		t.subs = slices.DeleteFunc(t.subs, func(x *subscription) bool { return x == sub })
		s.forgetTopic(t)
		if q := sub.queue; q != nil {
			delete(s.backlogs, q.number)
			s.dissolve(q)
		}
		return
	}
	if sub.browse != nil {
		return
	}
	q := sub.queue
	if sub.durable != nil {
		sub.durable.sub = nil
	}
	s.reselect(sub, nil)
	q.subs = slices.DeleteFunc(q.subs, func(x *subscription) bool { return x == sub })
	s.soil(q)
}
