package stomp

import (
	"bytes"
	"strconv"
	"time"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// ackMode of a subscription, as the client asked for it. [STOMP 1.2 SUBSCRIBE ack Header]
type ackMode uint8

const (
	auto             ackMode = iota
	clientCumulative         // ack:client
	clientIndividual
)

// subscription is one of the client's, played again on every broker for as long as it lasts.
type subscription struct {
	id      []byte // upstream: the client's, or ours where 1.0 gave none
	given   bool   // the client gave the id
	dest    []byte // destination, as on the wire
	mode    ackMode
	tracked bool // deliveries are remembered and acknowledged upstream one by one
	frame   session.Buf
	wants   []byte // the client's receipt id, nil once answered or if none was asked
	at      time.Time
	pending uint64 // number of our receipt on the current connection; 0: answered
	order   uint64 // when it was made, on the log's count
	known   bool   // a broker has taken it
	closing bool   // UNSUBSCRIBE seen: nothing more is shown
	left    bool   // and answered; kept only while a transaction acknowledges what it delivered
	// prefetch is how many messages the client asked to hold at most, 0 if it did not say. The broker keeps to it; what the client holds
	// and the broker has given to others counts only here, so that much may have to be withheld.
	prefetch int
	unacked  int
	withheld []session.Buf
	first    int32 // deliveries in the order shown
	last     int32
}

// full reports whether the client holds as many as it asked for.
func (sub *subscription) full() bool {
	return sub.prefetch > 0 && sub.mode != auto && sub.unacked >= sub.prefetch
}

// discard drops what was withheld: the client has not seen it, so the broker will give it again, or to others.
func (sub *subscription) discard() {
	for _, b := range sub.withheld {
		b.Drop()
	}
	sub.withheld = nil
}

// subscriptions in the order in which the client made them.
type subscriptions struct {
	list  []*subscription
	byID  map[string]*subscription
	named int // ids we made
}

func (s *subscriptions) get(id []byte) *subscription { return s.byID[string(id)] }

// byDestination finds the subscription that a 1.0 client without ids means. [STOMP 1.0 UNSUBSCRIBE]
func (s *subscriptions) byDestination(dest []byte) *subscription {
	for _, sub := range s.list {
		if !sub.closing && bytes.Equal(sub.dest, dest) {
			return sub
		}
	}
	return nil
}

func (s *subscriptions) remove(sub *subscription) {
	for i, x := range s.list {
		if x == sub {
			s.list = append(s.list[:i], s.list[i+1:]...)
			break
		}
	}
	if s.byID[string(sub.id)] == sub {
		delete(s.byID, string(sub.id))
	}
	sub.frame.Drop()
	sub.frame = session.Buf{}
}

func (s *subscriptions) close() {
	for _, sub := range s.list {
		sub.frame.Drop()
		sub.discard()
	}
	s.list = nil
}

// isTopic tells plain topics, whose messages nobody can acknowledge for good, from queues.
func isTopic(dest []byte) bool { return bytes.HasPrefix(dest, []byte("/topic/")) }

// subscribe takes a SUBSCRIBE of the client. Upstream every queue is acknowledged message by message: what the client's own mode
// means is worked out here, from what it was shown.
func (r *Recorder) subscribe(f *frame.Frame, in session.Buf, out *session.Out) {
	sub := &subscription{at: out.Now, first: none, last: none}
	sub.dest = bytes.Clone(f.Value("destination"))
	if id, ok := f.Get("id"); ok {
		sub.id, sub.given = bytes.Clone(id), true
	} else if r.version != frame.V10 {
		r.reject(out, f, "SUBSCRIBE has no id")
		return
	} else {
		r.subs.named++
		sub.id = append([]byte("auto-"), strconv.Itoa(r.subs.named)...)
	}
	switch string(f.Value("ack")) {
	case "", "auto":
	case "client":
		sub.mode = clientCumulative
	case "client-individual":
		sub.mode = clientIndividual
	default:
		r.reject(out, f, "ack is none of auto, client and client-individual")
		return
	}
	for _, name := range [...]string{"activemq.prefetchSize", "prefetch-count"} {
		if n, ok := frame.ParseUint(f.Value(name)); ok && n < 1<<31 && sub.prefetch == 0 {
			sub.prefetch = int(n)
		}
	}
	sub.tracked = sub.mode != auto || !isTopic(sub.dest)
	sub.wants = bytes.Clone(f.Value("receipt"))
	if old := r.subs.get(sub.id); old != nil && !old.closing {
		r.reject(out, f, "subscription id is in use on this connection")
		return
	}
	sub.frame = own(in)
	sub.order = r.log.tick()
	r.subs.list = append(r.subs.list, sub)
	r.subs.byID[string(sub.id)] = sub
	if r.phase >= replaying {
		r.playSubscribe(sub, out)
	}
}

// playSubscribe sends a SUBSCRIBE to the current broker, with claims on what the client holds of it. Headers of ours come first, for
// the first of repeated headers wins. [STOMP 1.2 Repeated Header Entries]
func (r *Recorder) playSubscribe(sub *subscription, out *session.Out) {
	r.receipts++
	sub.pending = r.receipts
	b := append(r.scratch[:0], "SUBSCRIBE\n"...)
	b = append(b, "receipt:u"...)
	b = strconv.AppendUint(b, sub.pending, 10)
	b = append(b, '\n')
	if sub.tracked {
		b = append(b, "ack:client-individual\n"...)
	}
	if !sub.given {
		b = frame.AppendHeader(b, "id", sub.id)
	}
	b = r.appendClaims(b, sub)
	r.scratch = b
	r.appendBroker(out, b)
	r.toBroker(out, sub.frame.Slice(afterCommand(sub.frame.Bytes()), sub.frame.Len()))
}

// appendClaims lists what the client holds on sub, and what it has acknowledged without our knowing that this is durable.
func (r *Recorder) appendClaims(b []byte, sub *subscription) []byte {
	start := len(b)
	for _, d := range r.held.of(sub) {
		if d.gone {
			continue
		}
		d.claimed = true
		if len(b) == start {
			b = append(b, frame.HeaderClaims+":"...)
		} else {
			b = append(b, ',')
		}
		b = append(b, d.id.bytes()...)
		b = append(b, '=')
		b = strconv.AppendUint(b, d.epoch, 10)
		b = append(b, '.')
		b = strconv.AppendUint(b, d.ordinal, 10)
	}
	if len(b) > start {
		b = append(b, '\n')
	}
	return b
}

// subscribed takes the broker's RECEIPT of a SUBSCRIBE: what it does not call gone is the client's as before, and is not delivered again.
func (r *Recorder) subscribed(sub *subscription, f *frame.Frame, out *session.Out) {
	sub.pending, sub.known = 0, true
	gone := map[string]bool{}
	if list, ok := f.Get(frame.HeaderGone); ok {
		for id := range bytes.SplitSeq(list, []byte{','}) {
			gone[string(id)] = true
		}
	}
	for slot, d := range r.held.of(sub) {
		switch {
		case !d.claimed:
		case gone[string(d.id.bytes())]:
			r.held.lose(slot)
		default:
			r.stats.hidden++
		}
		d.claimed = false
	}
	if sub.wants != nil {
		r.receipt(out, sub.wants)
		sub.wants = nil
	}
	r.confirmReplay(out)
}

// unsubscribe takes an UNSUBSCRIBE of the client. What it holds on the subscription goes back to the queue at the broker; an
// acknowledgement that is under way stays claimable until it is settled, so the subscription is kept until the broker has answered.
func (r *Recorder) unsubscribe(f *frame.Frame, in session.Buf, out *session.Out) {
	var sub *subscription
	if id, ok := f.Get("id"); ok {
		sub = r.subs.get(id)
	} else {
		sub = r.subs.byDestination(f.Value("destination"))
	}
	if sub == nil || sub.closing {
		r.reject(out, f, "UNSUBSCRIBE names no subscription of this connection")
		return
	}
	if sub.mode == auto && sub.tracked {
		for slot := range r.held.through(sub, none) {
			r.acknowledge(ackEntry, slot, out) // what was shown on ack:auto counts as acknowledged
		}
	}
	sub.closing = true
	sub.discard()
	for slot, d := range r.held.of(sub) {
		if d.state == unacked {
			r.held.remove(slot)
		}
	}
	e := entry{kind: unsubscribeEntry, sub: sub, frame: r.arena.keep(in), at: out.Now}
	e.setReceipt(f)
	r.emit(r.log.add(e), out)
}

// unsubscribed takes the broker's RECEIPT of an UNSUBSCRIBE.
func (r *Recorder) unsubscribed(e *entry, out *session.Out) {
	if id := e.receiptID(); id != nil {
		r.receipt(out, id)
		e.wants = false
	}
	e.sub.left = true
	r.retire(e.sub)
	r.log.compact()
}

// retire forgets a subscription that is over, unless a transaction still acknowledges what it delivered: playing that transaction
// again needs the subscription again, and after it the UNSUBSCRIBE.
func (r *Recorder) retire(sub *subscription) {
	if sub == nil || !sub.left {
		return
	}
	for _, d := range r.held.of(sub) {
		if d.state == inTx {
			return
		}
	}
	for e := range r.log.all() {
		if e.kind == unsubscribeEntry && e.sub == sub {
			r.log.settle(e)
		}
	}
	r.subs.remove(sub)
}
