package broker

import (
	"bytes"
	"errors"
	"strings"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// topicPrefix tells a topic from a queue.
const topicPrefix = "/topic/"

// handle applies one frame. The order of its guards is that of the contract: a connection that may not act, a frame that makes no sense, an
// effect that was applied already or would leave a gap.
func (s *store) handle(p *peer, r *request) {
	if p.deaf() {
		return
	}
	if r.fault != nil {
		s.refuse(p, r.receipt, r.fault)
		return
	}
	if p.sidecar && r.isEffect() {
		if c := p.session; r.effect == 0 || r.effect > c.accepted+1 {
			f := faultf("gap in the effects", "%s carries effect %d, the one after %d was expected", r.command, r.effect, c.accepted)
			f.code = frame.CodeGap
			s.refuse(p, r.receipt, f)
			return
		} else if r.effect <= c.accepted {
			s.repeat(p, r)
			return
		}
	}
	if r.dest != nil && len(s.queues) >= s.cfg.MaxQueues && !strings.HasPrefix(string(r.dest), topicPrefix) && s.queues[string(r.dest)] == nil &&
		(r.command == frame.Send || r.command == frame.Subscribe) {
		s.refuse(p, r.receipt, s.tooManyQueues())
		return
	}
	if (p.sidecar && r.isEffect() || r.command == frame.Subscribe || r.temps != nil) && !s.introduce(p, r) {
		return
	}
	for _, name := range r.temps {
		if !s.provide(p, r, string(name)) {
			return
		}
	}
	switch r.command {
	case frame.Send:
		s.send(p, r)
	case frame.Ack, frame.Nack:
		s.acknowledge(p, r)
	case frame.Subscribe:
		s.subscribe(p, r)
	case frame.Unsubscribe:
		s.unsubscribe(p, r)
	case frame.Begin:
		s.begin(p, r)
	case frame.Commit:
		s.commit(p, r)
	case frame.Abort:
		s.abort(p, r)
	case frame.Disconnect:
		s.disconnect(p, r)
	case frame.Connect, frame.Stomp:
		s.refuse(p, r.receipt, faultf("already connected", "a connection says CONNECT once"))
	default:
		name := r.command.String()
		if r.command == frame.Unknown {
			name = string(r.name)
		}
		s.refuse(p, r.receipt, faultf("unknown command", "%s is not a command that a client may send", name))
	}
}

func (s *store) tooManyQueues() *fault {
	return faultf("too many queues", "this store has %d queues, the limit", len(s.queues))
}

// introduce journals who a sidecar session is, once for each of its connections, before anything that it does.
func (s *store) introduce(p *peer, r *request) bool {
	c := p.session
	if c.direct || c.fresh {
		return true
	}
	s.scratch = appendSession(s.scratch[:0], c)
	if _, err := s.append(journal.Entry{Type: recSession, Payload: s.scratch}, pend{peer: p}); err != nil {
		s.broken(p, r, err)
		return false
	}
	c.recorded, c.fresh = true, true
	return true
}

// isEffect reports whether a sidecar numbers the frame.
func (r *request) isEffect() bool {
	switch r.command {
	case frame.Send, frame.Ack, frame.Nack:
		return r.tx == nil
	}
	return r.command == frame.Commit || r.command == frame.Abort
}

// repeat confirms an effect that was applied before. If it is not durable yet, its confirmation is on its way.
func (s *store) repeat(p *peer, r *request) {
	c := p.session
	s.count.repeated.Inc()
	if r.tx != nil {
		if t := p.txs[string(r.tx)]; t != nil {
			s.endTx(p, string(r.tx), t)
		}
	}
	if r.effect > c.durable {
		return
	}
	for i, n := range c.rolled {
		if n == r.effect {
			c.told = min(c.told, i)
		}
	}
	s.confirmSoon(c)
}

// admit reports whether there is memory for what r brings. Acknowledgements are always admitted: they make room.
func (s *store) admit(p *peer, r *request) bool {
	if r.message == nil || s.memory+r.message.size() <= s.cfg.MaxMemory || p.deaf() || r.fault != nil {
		return true
	}
	if p.sidecar && r.tx == nil && r.effect <= p.session.accepted {
		return true // it will only be confirmed
	}
	if s.evict(evictAtOnce); s.memory+r.message.size() <= s.cfg.MaxMemory {
		return true
	}
	s.full = append(s.full, p)
	return false
}

// answer sends the RECEIPT that a direct client asked for, or a sidecar for something that is no effect, once lsn is durable.
func (s *store) answer(p *peer, r *request, lsn journal.LSN) {
	if r.receipt != nil && !(p.sidecar && r.isEffect()) {
		s.when(lsn, pend{peer: p, receipt: bytes.Clone(r.receipt)})
	}
}

// effect is what waits for the record of what p does with r.
func (s *store) effect(p *peer, r *request) pend {
	w := pend{peer: p}
	if p.sidecar {
		w.session, w.effect = p.session, r.effect
	} else if r.receipt != nil {
		w.receipt = bytes.Clone(r.receipt)
	}
	return w
}

// applied moves the cursor; the record is in the journal.
func (p *peer) applied(r *request) {
	if p.sidecar {
		p.session.accepted = r.effect
	}
}

// nothing journals an effect that changes nothing but the cursor. It reports the record's LSN, and whether the journal took it.
func (s *store) nothing(p *peer, r *request, rolledBack bool) (journal.LSN, bool) {
	if !p.sidecar {
		s.answer(p, r, 0)
		return 0, true
	}
	s.scratch = appendCursor(s.scratch[:0], p.origin(r.effect), rolledBack)
	at, err := s.append(journal.Entry{Type: recCursor, Payload: s.scratch}, s.effect(p, r))
	if err != nil {
		s.broken(p, r, err)
		return 0, false
	}
	p.applied(r)
	return at.LSN, true
}

// broken answers a frame whose record the journal did not take; if that is for want of room, it waits.
func (s *store) broken(p *peer, r *request, err error) {
	if errors.Is(err, journal.ErrFull) {
		if p.untaken = !p.deaf(); !p.untaken {
			s.refuse(p, r.receipt, s.overflow(p, r))
		}
		return
	}
	if errors.Is(err, journal.ErrTooBig) {
		s.refuse(p, r.receipt, faultf("too big", "%s exceeds the limit of %d octets in one record", r.command, s.cfg.MaxRecord))
		return
	}
	s.refuse(p, r.receipt, fenced(err))
}

func fenced(err error) *fault {
	f := faultf("store lost", "this server can confirm nothing any more: %v", err)
	f.code = frame.CodeFenced
	return f
}

// send stores a message and puts it on its queue, where it waits for its record to be durable; or publishes it.
func (s *store) send(p *peer, r *request) {
	m := r.message
	if r.tx != nil {
		s.sendInTx(p, r)
		return
	}
	m.id = p.messageID(r.effect, outsideTx)
	if strings.HasPrefix(string(r.dest), topicPrefix) {
		targets := s.targets(string(r.dest), m)
		if len(targets) > 0 && !m.transient {
			s.publishDurably(p, r, targets)
			return
		}
		if lsn, ok := s.nothing(p, r, false); ok {
			s.count.in.Inc()
			s.keep(targets, m, journal.Position{LSN: lsn}, 0)
			s.publish(lsn, string(r.dest), m)
		}
		return
	}
	q := s.reach(r.dest)
	if q != nil && q.damage != nil {
		s.refuseDamaged(p, r.receipt, q)
		return
	}
	if q == nil || m.transient || q.fleeting() {
		if lsn, ok := s.nothing(p, r, false); ok {
			m.transient = true
			s.hand(q, m, journal.Position{LSN: lsn}, 0)
		}
		return
	}
	s.scratch = appendSend(s.scratch[:0], p.origin(r.effect), r.dest, m)
	w := s.effect(p, r)
	w.queue = q
	e := journal.Entry{Type: recSend, Payload: s.scratch, Front: m.front(s.scratch), Account: journal.Account{Live: 1, Bytes: m.stored()}}
	at, err := s.append(e, w)
	if err != nil {
		s.forget(w.queue)
		s.broken(p, r, err)
		return
	}
	p.applied(r)
	s.count.in.Inc()
	m.lsn, m.home = at.LSN, at
	s.add(w.queue, m)
}

// hand is enqueue for a queue that may not be there any more.
func (s *store) hand(q *queue, m *message, at journal.Position, index uint32) {
	s.count.in.Inc()
	if q == nil {
		s.count.unreachable.Inc()
		return
	}
	s.enqueue(q, m, at, index)
}

// enqueue adds a message whose record, if any, is at that position, and has the queue dispatched when that is durable.
func (s *store) enqueue(q *queue, m *message, at journal.Position, index uint32) {
	m.lsn, m.home, m.index = at.LSN, at, index
	s.add(q, m)
	s.when(at.LSN, pend{queue: q})
}

// messageID names the next message of p.
func (p *peer) messageID(effect uint64, index int32) msgID {
	if p.sidecar {
		return msgID{p.session.id.hi, p.session.id.lo, effect, index}
	}
	p.sends++
	return msgID{p.epoch, p.number, p.sends, fromDirect}
}

// publish has a topic's message handed out once lsn is durable: to direct clients that are there then, and to sidecar sessions.
func (s *store) publish(lsn journal.LSN, name string, m *message) {
	if t := s.topics[name]; t != nil {
		m.dest = &t.destination
		s.retain(t, m, lsn)
		s.when(lsn, pend{publish: m})
	}
}

func (s *store) fanOut(m *message) {
	t := s.topics[m.dest.name]
	if t == nil {
		return
	}
	for _, sub := range t.subs {
		switch {
		case sub.queue != nil:
			s.soil(sub.queue)
		case !sub.active || s.expired(m) || !sub.wants(m):
		case sub.backlog.len() == 0 && sub.session.peer.room():
			s.show(sub, m)
		case sub.backlogBytes+len(m.data) > s.cfg.MaxBacklog:
			s.overrun(sub)
		default:
			sub.backlog.push(m)
			sub.backlogBytes += len(m.data)
		}
	}
}

// drain sends what could not be sent before: messages that the subscription holds and its client has not, or a topic's.
func (s *store) drain(sub *subscription) {
	if sub.browse != nil {
		s.look(sub)
		return
	}
	for h := sub.first; h != nil && sub.owed > 0 && sub.active; h = h.next {
		if !h.owed {
			continue
		}
		if h.msg.away {
			s.want(h.msg.page, nil)
			return
		}
		if sub.full(sub.held-sub.owed) || !sub.session.peer.room() {
			return
		}
		h.owed = false
		sub.owed--
		s.deliver(sub, h.msg)
	}
	for sub.active && sub.backlog.len() > 0 && sub.session.peer.room() {
		m := sub.backlog.pop()
		sub.backlogBytes -= len(m.data)
		s.show(sub, m)
	}
}

// show sends a topic's message. Nobody holds it afterwards.
func (s *store) show(sub *subscription, m *message) {
	p := sub.session.peer
	p.acks++
	s.grow(p)
	p.out = appendMessage(p.out, p, sub, m, 1, p.acks)
	s.count.out.Inc()
	s.touch(p)
}

// disconnect ends a conversation for ever. The answer says that everything before it is durable. [STOMP 1.2 DISCONNECT]
func (s *store) disconnect(p *peer, r *request) {
	w := pend{peer: p, close: true}
	if r.receipt != nil {
		w.receipt = bytes.Clone(r.receipt)
	}
	s.abortAll(p)
	p.quit = true
	lsn := p.last
	if c := p.session; c.direct {
		s.release(c)
	} else if closed, err := s.closeSession(c); err != nil {
		s.broken(p, r, err)
		return
	} else {
		lsn = max(lsn, closed)
	}
	s.when(lsn, w)
}
