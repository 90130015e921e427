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
	id       []byte // upstream: the client's, or ours where 1.0 gave none
	given    bool   // the client gave the id
	dest     []byte // destination, as on the wire
	scope    []byte // within which the identity of a message means one message for this client
	mode     ackMode
	tracked  bool // deliveries are remembered and acknowledged upstream one by one
	frame    session.Buf
	wants    []byte // the client's receipt id, nil once answered or if none was asked
	at       time.Time
	pending  uint64 // number of our receipt on the current connection; 0: answered
	order    uint64 // when it was made, on the log's count
	known    bool   // a broker has taken it
	doubt    bool   // or may have: it was sent on a connection that broke
	sent     bool   // to the current broker
	internal bool   // made by us, not by the client
	browser  bool   // shows what is there and ends
	durable  bool   // has a name that outlives its connection
	ended    bool   // UNSUBSCRIBE sent to the current broker
	over     bool   // a browser that has shown everything
	position []byte // of the last message that a browser at a paired broker was shown
	closing  bool   // UNSUBSCRIBE seen: nothing more is shown
	left     bool   // and answered; kept only while a transaction acknowledges what it delivered
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

// inherited is the prefetch of the last subscription before sub that named one; 0 means no limit.
func (s *subscriptions) inherited(sub *subscription) int {
	n := 0
	for _, other := range s.list {
		if other.order < sub.order && other.prefetch > 0 {
			n = other.prefetch
		}
	}
	return n
}

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
	sub.discard()
}

func (s *subscriptions) close() {
	for _, sub := range s.list {
		sub.frame.Drop()
		sub.discard()
	}
	s.list = nil
}

// isTopic tells plain topics, whose messages nobody but a paired broker can acknowledge for good, from queues.
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
	if bytes.HasPrefix(sub.id, []byte(frame.PairedPrefix)) {
		r.reject(out, f, "subscription ids that begin with "+frame.PairedPrefix+" are the sidecar's")
		return
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
	sub.browser = string(f.Value("browser")) == "true"
	sub.durable = isDurable(f)
	sub.tracked = !sub.browser && (sub.mode != auto || !r.cfg.BrokerAutoAck && (!isTopic(sub.dest) || sub.durable))
	sub.wants = bytes.Clone(f.Value("receipt"))
	if old := r.subs.get(sub.id); old != nil && !old.closing {
		r.reject(out, f, "subscription id is in use on this connection")
		return
	}
	sub.frame = own(in)
	sub.order, sub.scope = r.log.tick(), sub.id
	if r.dialect != nil && !r.dialect.paired {
		sub.scope = r.scopeOf(sub)
	}
	r.subs.list = append(r.subs.list, sub)
	r.subs.byID[string(sub.id)] = sub
	if r.phase >= replaying {
		r.playSubscribe(sub, out)
	}
}

// isDurable reports whether a SUBSCRIBE, or an UNSUBSCRIBE, names a subscription that outlives its connection. [ActiveMQ, Artemis, RabbitMQ]
func isDurable(f *frame.Frame) bool {
	for _, name := range [...]string{"activemq.subscriptionName", "durable-subscription-name", "durable-subscriber-name"} {
		if _, ok := f.Get(name); ok {
			return true
		}
	}
	return string(f.Value("durable")) == "true" || string(f.Value("persistent")) == "true"
}

// playSubscribe sends a SUBSCRIBE to the current broker; to a paired one with claims on what the client holds of it.
func (r *Recorder) playSubscribe(sub *subscription, out *session.Out) {
	if r.gated {
		return // it has its turn when what is before it is settled
	}
	if sub.over {
		sub.sent = true
		return
	}
	for e := range r.log.all() {
		if e.kind == unsubscribeEntry && !e.sent && e.sub != sub && e.order < sub.order && (bytes.Equal(e.sub.id, sub.id) || e.sub.durable && sub.durable) {
			r.gated = true // its id, or its name, is in use until then
			return
		}
	}
	if sub.browser && sub.known && !r.dialect.paired {
		r.fail(out, "not-resumable", nil, "a queue browser was under way when its broker was lost", "")
		return
	}
	if sub.mode == auto && r.dialect.ownAckModes {
		sub.tracked = false
	}
	if r.dialect.paired && isTopic(sub.dest) && !sub.browser && !r.cfg.BrokerAutoAck {
		sub.tracked = true // it holds a topic's messages, too, and gives what was lost on the way again
	}
	if !r.dialect.paired {
		sub.scope = r.scopeOf(sub)
	}
	if sub.tracked && r.marking() && r.marks.state == marksOff {
		r.subscribeMarks(out)
		return
	}
	r.receipts++
	sub.pending, sub.sent = r.receipts, true
	raw, leave := sub.frame.Bytes(), dropReceipt
	b := append(r.scratch[:0], "SUBSCRIBE\n"...)
	b = appendReceipt(b, sub.pending)
	if sub.tracked && !r.dialect.ownAckModes {
		b = append(b, "ack:client-individual\n"...)
		leave |= dropAck
	}
	if !sub.given {
		b = frame.AppendHeader(b, "id", sub.id)
	}
	if d := r.dialect; d.paired {
		if b = r.appendClaims(b, sub); len(sub.position) > 0 {
			b = frame.AppendHeader(b, frame.HeaderBrowseAfter, sub.position)
		}
	} else {
		b, leave = r.subscribeTo(b, sub, leave, out)
	}
	b, rest := appendLines(b, raw, leave)
	r.scratch = b
	r.appendBroker(out, b)
	r.toBroker(out, sub.frame.Slice(rest, len(raw)))
}

// scopeOf is the queue, if it is one for certain: brokers deal its messages anew after a break, and any subscription of the client to it may
// be given what another one held. Elsewhere each subscription has its own copies.
func (r *Recorder) scopeOf(sub *subscription) []byte {
	if name, ok := bytes.CutPrefix(sub.dest, []byte("/amq/queue/")); ok {
		return append([]byte("/queue/"), name...)
	}
	if bytes.HasPrefix(sub.dest, []byte("/queue/")) && !sub.durable {
		return sub.dest
	}
	return strconv.AppendUint(append(bytes.Clone(sub.id), 0), sub.order, 10) // an id may be used again
}

// subscribeTo writes what a SUBSCRIBE to a broker that is not paired needs besides.
func (r *Recorder) subscribeTo(b []byte, sub *subscription, leave drops, out *session.Out) ([]byte, drops) {
	d, raw := r.dialect, sub.frame.Bytes()
	block := raw[afterCommand(raw):headerEnd(raw)]
	if d.declares {
		b = r.declare(b, block)
	}
	if d.tempQueues == tempRemote && bytes.HasPrefix(sub.dest, []byte(tempPrefix)) {
		if to := r.tempName(sub.dest, out); !bytes.Equal(to, sub.dest) {
			b = frame.AppendHeader(b, "destination", to)
			leave |= dropDestination
		}
	}
	own := headerOf(block, "prefetch-count")
	switch {
	case d.prefetchInherited && own == nil && sub.mode != auto:
		// What the client would have had: its own of before, and not one that we have put on an ack:auto subscription.
		n := r.subs.inherited(sub)
		b = frame.AppendUint(b, "prefetch-count", uint64(n))
	case d.prefetch != "" && sub.tracked && sub.mode == auto && own == nil && headerOf(block, "consumer-window-size") == nil && headerOf(block, "activemq.prefetchSize") == nil:
		b = append(b, d.prefetch...)
	}
	return b, leave
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
	if (sub == nil || sub.closing) && isDurable(f) {
		r.passOn(f, in, out) // it ends one that is not attached
		return
	}
	if sub == nil || sub.closing || sub.internal {
		r.mistake(f, in, "UNSUBSCRIBE names no subscription of this connection", out)
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
		if d.state != unacked {
			continue
		}
		r.owe(d, out)
		r.held.remove(slot)
	}
	e := entry{kind: unsubscribeEntry, sub: sub, frame: r.arena.keep(in), at: out.Now}
	e.setPlaces(f)
	r.emit(r.log.add(e), out)
}

// owe deals with a message that its subscription lets go of after it came back on another one: that one is owed it now, but its octets have
// gone. The next connection brings it.
func (r *Recorder) owe(d *delivery, out *session.Out) {
	if d.via != nil && !d.via.closing && !d.gone {
		r.leave(out, &Refusal{"again", "a message that another subscription is owed has to be delivered again"})
	}
}

// unbind lets go of what came back on a subscription that is about to end: it goes back to its queue with it.
func (r *Recorder) unbind(sub *subscription) {
	for slot, d := range r.held.all {
		if d.via == sub && !d.gone {
			r.held.lose(slot)
		}
	}
}

// browsed notes how far a browser has come, and its end. [ActiveMQ: MESSAGE with browser:end]
func (r *Recorder) browsed(sub *subscription, f *frame.Frame) {
	if at, ok := f.Get(frame.HeaderBrowse); ok && sub.browser {
		sub.position = append(sub.position[:0], at...)
	}
	if sub.browser && string(f.Value("browser")) == "end" {
		sub.over = true
	}
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
// again needs the subscription again, and after it the UNSUBSCRIBE. Where acknowledgements wait for redeliveries any that is not confirmed does.
func (r *Recorder) retire(sub *subscription) {
	if sub == nil || !sub.left {
		return
	}
	for _, d := range r.held.of(sub) {
		if d.state == inTx || d.state != unacked && !r.dialect.paired {
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
