package broker

import (
	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// target is what an ACK or NACK refers to.
type target struct {
	hold *hold
	// vain means that nothing is to be acknowledged there: a topic, an automatic subscription.
	vain bool
}

// target finds what r refers to. bad means that it can refer to nothing this connection was ever given.
func (s *store) target(p *peer, r *request) (t target, bad bool) {
	if r.byAck {
		if r.ack.epoch != s.epoch || r.ack.conn != p.number || r.ack.n == 0 || r.ack.n > p.acks || r.ack.sub > p.numbers {
			return t, true
		}
		sub := p.subs[r.ack.sub]
		if sub == nil {
			return t, false
		}
		return target{sub.byAck(r.ack.n), sub.vain()}, false
	}
	if r.id != nil {
		sub := p.session.subs[string(r.id)]
		if sub == nil {
			return t, false
		}
		return target{sub.byID(r.msg), sub.vain()}, false
	}
	for _, sub := range p.subs { // 1.0 names the message only
		if h := sub.byID(r.msg); h != nil {
			return target{hold: h}, false
		}
		t.vain = t.vain || sub.vain()
	}
	return t, false
}

// vain reports whether an acknowledgement of what the subscription does not hold means nothing. Of a topic's message it never does: nobody else has it.
func (sub *subscription) vain() bool { return sub.topic != nil || sub.mode == ackAuto }

// refusal reports whether r gives back what it names. A topic's message cannot be given back, as a direct client's cannot.
func (r *request) refusal(h *hold) bool { return r.command == frame.Nack && h.sub.topic == nil }

// acknowledge applies an ACK or NACK. One that comes too late, for a message which the subscription holds no longer, is applied as
// nothing and counted.
func (s *store) acknowledge(p *peer, r *request) {
	t, bad := s.target(p, r)
	if bad {
		s.refuse(p, r.receipt, faultf("unknown acknowledgement", "%s names a delivery that this connection never got", r.command))
		return
	}
	if r.tx != nil {
		s.acknowledgeInTx(p, r, t)
		return
	}
	if t.hold == nil || t.hold.tx != nil {
		if !t.vain {
			s.count.late.Inc()
		}
		s.nothing(p, r, false)
		return
	}
	holds := s.upTo(p, t.hold)
	if r.refusal(t.hold) {
		if lsn, ok := s.nothing(p, r, false); ok {
			for _, h := range holds {
				s.giveBack(h, lsn)
			}
			s.count.nacks.Add(len(holds))
		}
		return
	}
	s.settleAck(p, r, holds)
}

// upTo is what an acknowledgement of h covers: in client mode everything the subscription got up to it and no transaction has. A
// sidecar names each message by itself. [STOMP 1.2 SUBSCRIBE ack Header]
func (s *store) upTo(p *peer, h *hold) []*hold {
	s.covered = s.covered[:0]
	if h.sub.mode != ackClient || p.sidecar {
		s.covered = append(s.covered, h)
		return s.covered
	}
	for x := h.sub.first; ; x = x.next {
		if x.tx == nil {
			s.covered = append(s.covered, x)
		}
		if x == h {
			return s.covered
		}
	}
}

// settleAck journals that the messages are done, then forgets them.
func (s *store) settleAck(p *peer, r *request, holds []*hold) {
	s.acked = s.acked[:0]
	for _, h := range holds {
		s.acked = append(s.acked, h.msg)
	}
	o := origin{}
	if p.sidecar {
		o = p.origin(r.effect)
	}
	s.scratch, s.ends = appendAcks(appendOrigin(s.scratch[:0], o), s.ends[:0], s.acked)
	if p.sidecar || len(s.ends) > 0 {
		if _, err := s.append(journal.Entry{Type: recAck, Payload: s.scratch, Account: journal.Account{Ends: s.ends}}, s.effect(p, r)); err != nil {
			s.broken(p, r, err)
			return
		}
		p.applied(r)
	} else {
		s.answer(p, r, 0)
	}
	for i, h := range holds {
		h.sub.saw(h.msg)
		s.drop(h)
		s.remove(s.acked[i])
	}
	s.count.acks.Add(len(holds))
	clear(s.acked)
}
