package broker

import (
	"strings"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// txOverhead is what an element adds to the record of its COMMIT at most, beside its texts.
const txOverhead = 48

func (s *store) begin(p *peer, r *request) {
	switch {
	case p.txs[string(r.tx)] != nil:
		s.refuse(p, r.receipt, faultf("transaction exists", "BEGIN names a transaction that is open already"))
		return
	case len(p.txs) >= s.cfg.MaxTransactions:
		s.refuse(p, r.receipt, faultf("too many transactions", "this connection has %d open transactions, the limit", len(p.txs)))
		return
	case p.txs == nil:
		p.txs = map[string]*transaction{}
	}
	p.txs[string(r.tx)] = &transaction{}
	s.answer(p, r, 0)
}

// transaction finds an open transaction and refuses the frame if there is none, or none that could hold size octets more.
func (s *store) transaction(p *peer, r *request, size int) *transaction {
	t := p.txs[string(r.tx)]
	if t == nil {
		s.refuse(p, r.receipt, faultf("no such transaction", "%s names a transaction that is not open", r.command))
		return nil
	}
	if t.bytes+size > s.cfg.MaxRecord-recordOverhead {
		s.refuse(p, r.receipt, faultf("transaction too big", "the transaction exceeds the limit of %d octets", s.cfg.MaxRecord))
		return nil
	}
	t.bytes += size
	return t
}

func (s *store) sendInTx(p *peer, r *request) {
	m := r.message
	t := s.transaction(p, r, len(m.data)+len(r.dest)+txOverhead)
	if t == nil {
		return
	}
	// A session's message is named after the COMMIT, whose effect is not known yet.
	if index := int32(len(t.sends)); p.sidecar {
		m.id = p.messageID(0, index)
	} else {
		m.id = p.messageID(0, fromDirect)
	}
	t.sends = append(t.sends, txSend{msg: m, dest: string(r.dest)})
	s.memory += m.size()
	s.answer(p, r, 0)
}

// acknowledgeInTx remembers an ACK or NACK. The message stays with its subscription, but does not count against the prefetch any more: else a
// transaction could never acknowledge more than that.
func (s *store) acknowledgeInTx(p *peer, r *request, to target) {
	if to.vain && to.hold == nil {
		s.answer(p, r, 0)
		return
	}
	usable := to.hold != nil && to.hold.tx == nil
	if !usable && !p.sidecar {
		s.refuse(p, r.receipt, faultf("unknown acknowledgement", "%s in a transaction names a message that is not held, or acknowledged already", r.command))
		return
	}
	if !usable {
		// It moved to another consumer; the COMMIT will say so.
		if t := s.transaction(p, r, txOverhead); t != nil {
			t.acks = append(t.acks, txAck{id: r.msg, nack: r.command == frame.Nack})
			s.answer(p, r, 0)
		}
		return
	}
	holds, nack := s.upTo(p, to.hold), r.refusal(to.hold)
	t := s.transaction(p, r, len(holds)*txOverhead)
	if t == nil {
		return
	}
	for _, h := range holds {
		h.mark(t)
		t.acks = append(t.acks, txAck{h, h.msg.id, nack})
	}
	s.offer(to.hold.sub)
	s.answer(p, r, 0)
}

// commit makes a transaction one record, or nothing at all if it acknowledges a message that is in other hands now.
func (s *store) commit(p *peer, r *request) {
	t := s.transaction(p, r, 0)
	if t == nil {
		return
	}
	for i := range t.acks {
		if !t.acks[i].valid(t) {
			s.rollBack(p, r, t)
			return
		}
	}
	for i := range t.sends {
		if q := s.queues[t.sends[i].dest]; q != nil && q.damage != nil {
			s.refuseDamaged(p, r.receipt, q)
			return
		}
	}
	kind, live, octets := s.collect(t, r.effect, p)
	if live > recordPlaces {
		s.refuse(p, r.receipt, faultf("transaction too big", "the transaction has %d messages, one for each durable subscription of a topic, and %d are allowed", live, recordPlaces))
		return
	}
	var at journal.Position
	if p.sidecar || live > 0 || len(s.ends) > 0 {
		var err error
		e := journal.Entry{Type: kind, Payload: s.scratch, Account: journal.Account{Live: live, Bytes: octets, Ends: s.ends}}
		if at, err = s.append(e, s.effect(p, r)); err != nil {
			s.broken(p, r, err)
			return
		}
		p.applied(r)
	} else {
		s.answer(p, r, 0)
	}
	s.apply(t, at)
	s.endTx(p, string(r.tx), t)
	s.count.commits.Inc()
}

// collect writes the record of a COMMIT to scratch and ends, and returns its type, how many messages are in it, and what they count for.
func (s *store) collect(t *transaction, effect uint64, p *peer) (kind byte, live int, octets int64) {
	s.acked = s.acked[:0]
	for _, a := range t.acks {
		if !a.nack {
			s.acked = append(s.acked, a.hold.msg)
		}
	}
	var stored []txSend
	kind = recCommit
	for i := range t.sends {
		send := &t.sends[i]
		if p.sidecar {
			send.msg.id.n = effect
		}
		isTopic := strings.HasPrefix(send.dest, topicPrefix)
		if isTopic {
			send.targets = s.targets(send.dest, send.msg)
		}
		q := (*queue)(nil)
		if !isTopic {
			q = s.reach([]byte(send.dest))
			send.msg.transient = send.msg.transient || q == nil || q.fleeting()
		}
		if send.msg.transient || isTopic && len(send.targets) == 0 {
			continue
		}
		stored = append(stored, *send)
		n := max(1, len(send.targets))
		live += n
		octets += int64(n) * send.msg.stored()
		if isTopic {
			kind = recCommitTopics
		}
	}
	s.scratch, s.ends = appendCommit(s.scratch[:0], s.ends[:0], p.origin(effect), stored, s.acked, kind)
	return kind, live, octets
}

// apply does what the record says.
func (s *store) apply(t *transaction, at journal.Position) {
	for _, a := range t.acks {
		m := a.hold.msg
		if a.nack {
			s.giveBack(a.hold, at.LSN)
			continue
		}
		a.hold.sub.saw(m)
		s.drop(a.hold)
		s.remove(m)
		s.count.acks.Inc()
	}
	t.acks = nil
	index := uint32(0)
	for _, send := range t.sends {
		switch {
		case strings.HasPrefix(send.dest, topicPrefix):
			s.count.in.Inc()
			s.keep(send.targets, send.msg, at, index)
			if !send.msg.transient {
				index += uint32(len(send.targets))
			}
			s.publish(at.LSN, send.dest, send.msg)
		case send.msg.transient:
			s.hand(s.reach([]byte(send.dest)), send.msg, journal.Position{LSN: at.LSN}, 0)
		default:
			s.hand(s.reach([]byte(send.dest)), send.msg, at, index)
			index++
		}
	}
}

// rollBack ends a COMMIT that cannot be applied. The cursor passes it; the sidecar learns what became of it.
func (s *store) rollBack(p *peer, r *request, t *transaction) {
	if !p.sidecar {
		s.refuse(p, r.receipt, faultf("rolled back", "the transaction acknowledges a message that has moved to another consumer"))
		return
	}
	if _, ok := s.nothing(p, r, true); !ok {
		return
	}
	p.session.addRolled(r.effect)
	s.endTx(p, string(r.tx), t)
	s.count.rolledBack.Inc()
}

func (s *store) abort(p *peer, r *request) {
	t := s.transaction(p, r, 0)
	if t == nil {
		return
	}
	if _, ok := s.nothing(p, r, false); ok {
		s.endTx(p, string(r.tx), t)
	}
}

// endTx forgets a transaction. What it acknowledged and was not committed is as it was before: held, and to be acknowledged again.
func (s *store) endTx(p *peer, name string, t *transaction) {
	delete(p.txs, name)
	for i := range t.acks {
		a := &t.acks[i]
		if !a.valid(t) {
			continue
		}
		a.hold.mark(nil)
		if a.hold.sub.gone {
			s.requeue(a.hold)
		}
	}
	for _, send := range t.sends {
		s.memory -= send.msg.size()
	}
}

func (s *store) abortAll(p *peer) {
	for name, t := range p.txs {
		s.endTx(p, name, t)
	}
}
