package stomp

import (
	"bytes"
	"strings"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// fromClient takes one frame of the client.
func (r *Recorder) fromClient(f *frame.Frame, in session.Buf, out *session.Out) {
	switch {
	case r.stage == greeting:
		r.greet(f, in, out)
		return
	case r.stage == leaving:
		return // nothing counts behind a DISCONNECT
	case f.Command == frame.Connect || f.Command == frame.Stomp:
		r.reject(out, f, "second CONNECT on this connection")
		return
	}
	if f.Ours {
		var own bool
		if in, own = sanitize(&r.client, f, in); own {
			defer in.Drop()
		}
	}
	if r.verbatim() && r.dialect != nil {
		r.toBroker(out, in)
		if f.Command == frame.Disconnect {
			r.farewell.told = true
		}
		return
	}
	switch f.Command {
	case frame.Send:
		r.perform(sendEntry, f, in, out)
	case frame.Ack:
		r.ack(ackEntry, f, in, out)
	case frame.Nack:
		r.ack(nackEntry, f, in, out)
	case frame.Begin:
		r.begin(f, in, out)
	case frame.Commit:
		r.perform(commitEntry, f, in, out)
	case frame.Abort:
		r.perform(abortEntry, f, in, out)
	case frame.Subscribe:
		r.subscribe(f, in, out)
	case frame.Unsubscribe:
		r.unsubscribe(f, in, out)
	case frame.Disconnect:
		r.disconnect(f, out)
	default:
		r.reject(out, f, "unknown command "+string(f.Name))
	}
}

// greet takes the client's first frame. [STOMP 1.2 Connecting]
func (r *Recorder) greet(f *frame.Frame, in session.Buf, out *session.Out) {
	if f.Command != frame.Connect && f.Command != frame.Stomp {
		r.reject(out, f, "the first frame must be CONNECT")
		return
	}
	if f.Ours {
		var own bool
		if in, own = sanitize(&r.client, f, in); own {
			defer in.Drop()
		}
	}
	// Until CONNECTED says which version it is to be, what the client pipelines is read in the highest that it offered.
	v, ok := highest(f.Value("accept-version"))
	if !ok {
		r.fail(out, "protocol", nil, "none of the versions offered is supported", "version:1.0,1.1,1.2\n")
		return
	}
	if !r.beats.negotiate(f.Value("heart-beat")) {
		r.reject(out, f, "malformed heart-beat header")
		return
	}
	r.version, r.client.Version, r.broker.Version = v, v, v
	r.connect = own(in)
	r.connectAt = out.Now
	r.stage = talking
}

// highest picks the best version of an accept-version header; without one it is 1.0. [STOMP 1.2 Protocol Negotiation]
func highest(accept []byte) (frame.Version, bool) {
	if len(accept) == 0 {
		return frame.V10, true
	}
	best, ok := frame.V10, false
	for s := range bytes.SplitSeq(accept, []byte{','}) {
		if v, known := frame.ParseVersion(bytes.TrimSpace(s)); known {
			best, ok = max(best, v), true
		}
	}
	return best, ok
}

// begin opens a transaction.
func (r *Recorder) begin(f *frame.Frame, in session.Buf, out *session.Out) {
	id := string(f.Value("transaction"))
	if strings.HasPrefix(id, frame.PairedPrefix) {
		r.reject(out, f, "transaction names that begin with "+frame.PairedPrefix+" are the sidecar's")
		return
	}
	if r.txs[id] != nil || id == "" {
		r.mistake(f, in, "BEGIN needs a transaction that is not open yet", out)
		return
	}
	tx := &transaction{id: id, first: r.log.end()}
	r.txs[id] = tx
	e := entry{kind: beginEntry, tx: tx, frame: r.arena.keep(in), at: out.Now}
	e.setPlaces(f)
	r.keep(tx, e, out)
}

// perform takes a SEND, COMMIT or ABORT: an effect, unless it is a SEND inside a transaction.
func (r *Recorder) perform(kind entryKind, f *frame.Frame, in session.Buf, out *session.Out) {
	e := entry{kind: kind, at: out.Now}
	if id, ok := f.Get("transaction"); ok || kind != sendEntry {
		if e.tx = r.txs[string(id)]; e.tx == nil {
			r.mistake(f, in, f.Command.String()+" names a transaction that is not open", out)
			return
		}
	}
	e.frame = r.arena.keep(in)
	e.setPlaces(f)
	if kind == sendEntry && e.tx != nil {
		r.keep(e.tx, e, out)
		return
	}
	if e.tx != nil {
		delete(r.txs, e.tx.id)
		r.log.charge(e.tx)
		e.tx.ended = true
	}
	if e.tx != nil && e.tx.lost {
		r.endLost(&e, out)
		return
	}
	r.effects++
	e.effect = r.effects
	p := r.log.add(e)
	if kind == abortEntry {
		r.returnAcks(e.tx, out) // from here on the client may acknowledge them again
	}
	if e.tx != nil && r.dialect != nil && r.dialect.buffersTx {
		r.endHere(p, out)
	} else {
		r.emit(p, out)
	}
	if r.staying && r.phase >= replaying && r.settled() {
		r.pump(out) // an UNSUBSCRIBE may have waited for this
	}
}

// endLost ends a transaction that was not to be played again. An ABORT comes true, a COMMIT cannot.
func (r *Recorder) endLost(e *entry, out *session.Out) {
	r.returnAcks(e.tx, out)
	switch {
	case e.kind == commitEntry:
		r.stats.rolledBack++
		r.rolledBack(out, e)
	case e.wants:
		r.receipt(out, e.receiptID())
	}
	r.finish(e.tx)
	e.frame.Drop()
	r.log.compact()
}

// endHere ends a transaction that the broker does not know of, or no more: a COMMIT lets its SENDs go, an ABORT forgets them.
func (r *Recorder) endHere(e *entry, out *session.Out) {
	if e.kind == commitEntry {
		e.tx.counted = true
		for inner := range r.log.of(e.tx) {
			if inner.kind == sendEntry {
				e.tx.open++
			}
		}
		if r.emit(e, out); e.tx.open > 0 {
			return
		}
	}
	r.settleOne(e, out)
}

// mistake deals with a frame that makes no sense to us. A broker that goes on after an ERROR is the one to say what it thinks of it; else it
// ends the session.
func (r *Recorder) mistake(f *frame.Frame, in session.Buf, message string, out *session.Out) {
	if r.dialect == nil || !r.dialect.goesOn(r.version) {
		r.reject(out, f, message)
		return
	}
	r.passOn(f, in, out)
}

// passOn gives a frame to the broker that has no place in what is kept.
func (r *Recorder) passOn(f *frame.Frame, in session.Buf, out *session.Out) {
	e := entry{kind: otherEntry, at: out.Now, frame: r.arena.keep(in)}
	e.setPlaces(f)
	r.emit(r.log.add(e), out)
}

// keep logs a frame of an open transaction. Such frames never pause the client, else its COMMIT could not arrive; a transaction that
// grows too large for a replay is let go instead, and the session says so.
func (r *Recorder) keep(tx *transaction, e entry, out *session.Out) {
	buffered := r.dialect != nil && r.dialect.buffersTx
	if e.wants && (tx.lost || r.answersNow(&e)) {
		r.receipt(out, e.receiptID()) // it means no more than that the frame has come
		e.wants = false
	}
	if tx.lost && e.kind == sendEntry {
		e.frame.Drop()
		return
	}
	if tx.unplayable && e.kind == sendEntry && !e.wants && !r.gated {
		r.emit(&e, out)
		e.frame.Drop()
		return
	}
	cost := entryCost + e.frame.Len()
	r.emit(r.log.add(e), out)
	if tx.unplayable {
		return
	}
	tx.size += cost
	if r.log.open += cost; r.log.open <= r.cfg.MaxTransaction {
		return
	}
	if r.gated && r.log.open <= maxGated*r.cfg.MaxTransaction && !buffered {
		return // what has not been sent cannot be let go; it will be as soon as something else is settled
	}
	if r.phase < replaying || buffered || r.gated {
		r.fail(out, "not-resumable", nil, "transaction "+clean(tx.id)+" is too large to be held (--max-transaction) until a broker can have it", "")
		return
	}
	r.log.release(tx)
}

// maxGated is by how much a transaction may outgrow MaxTransaction while its frames wait for their turn.
const maxGated = 4

// ack takes an ACK or NACK. In ack:client mode it means every message that this client had been shown on the subscription up to this
// one, whatever the broker has sent since. [STOMP 1.2 ACK, NACK]
func (r *Recorder) ack(kind entryKind, f *frame.Frame, in session.Buf, out *session.Out) {
	var tx *transaction
	if id, ok := f.Get("transaction"); ok {
		if tx = r.txs[string(id)]; tx == nil {
			r.mistake(f, in, f.Command.String()+" names a transaction that is not open", out)
			return
		}
	}
	var sub *subscription
	subID, named := f.Get("subscription")
	if named {
		sub = r.subs.get(subID)
	}
	name := f.Value("message-id")
	if r.version == frame.V12 {
		name = f.Value("id")
	}
	if len(name) == 0 {
		r.reject(out, f, f.Command.String()+" names no message")
		return
	}
	slot, ok := none, false
	if !named || sub != nil {
		slot, ok = r.held.find(name, sub)
	}
	e := entry{kind: kind, tx: tx, at: out.Now}
	if e.setPlaces(f); e.wants || kind == nackEntry {
		e.frame = r.arena.keep(in)
	}
	if !ok && r.dialect != nil && !r.dialect.paired {
		// A name that means nothing now must not reach the broker, to which it may mean another message.
		r.stats.late++
		if e.wants {
			r.receipt(out, e.receiptID())
		}
		e.frame.Drop()
		return
	}
	if !ok {
		// Not held (any more): an effect without consequence keeps the order of receipts, and the broker's word on a transaction.
		r.stats.late++
		e.target = byName(bytes.Clone(name), bytes.Clone(subID))
		if r.version == frame.V12 {
			e.target.named.id = []byte(r.cfg.Session + ":0") // an ack id is not a message-id; no message has this one, for effects start at 1
		}
		r.settleWith(e, out)
		return
	}
	if d := r.held.at(slot); d.sub.mode == clientCumulative && !(kind == nackEntry && r.dialect != nil && r.dialect.nackSingle) {
		subs := []*subscription{d.sub}
		if r.dialect != nil && r.dialect.connectionAcks {
			subs = r.subs.list
		}
		for _, sub := range subs {
			if sub.mode == auto {
				continue // the client knows nothing of those
			}
			for s := range r.held.through(sub, slot) {
				if s != slot && r.held.at(s).serial < d.serial {
					r.settleWith(entry{kind: kind, tx: tx, at: out.Now, target: ackTarget{slot: s}}, out)
				}
			}
		}
	}
	e.target = ackTarget{slot: slot}
	r.settleWith(e, out)
}

// acknowledge makes an acknowledgement of our own.
func (r *Recorder) acknowledge(kind entryKind, slot int32, out *session.Out) {
	r.settleWith(entry{kind: kind, at: out.Now, target: ackTarget{slot: slot}}, out)
}

// settleWith logs and sends an acknowledgement of one message.
func (r *Recorder) settleWith(e entry, out *session.Out) {
	if slot := e.target.slot; slot != none {
		state := acking
		switch {
		case e.tx != nil:
			state = inTx
		case e.kind == nackEntry:
			state = nacking
		}
		d := r.held.at(slot)
		d.tx = e.tx
		if d.gone && (r.dialect == nil || r.dialect.paired) {
			r.stats.late++
		}
		r.held.setState(slot, state)
		defer r.release(d.sub, out)
	}
	if e.tx != nil {
		r.keep(e.tx, e, out)
		return
	}
	r.effects++
	e.effect = r.effects
	p := r.log.add(e)
	r.emit(p, out)
	if !p.sent && r.astray(p) && !r.reclaiming() && r.dialect != nil && !r.dialect.paired {
		r.tooLate(p, out)
		r.log.compact()
	}
}

// sanitize removes headers from what a client sends that only a sidecar may set. own is true if the result is a copy that the caller
// must drop; the frame, which came from parser, then points into it.
func sanitize(parser *frame.Parser, f *frame.Frame, in session.Buf) (buf session.Buf, own bool) {
	found := false
	for name := range f.Headers {
		found = found || bytes.HasPrefix(name, []byte(frame.PairedPrefix))
	}
	if !found {
		return in, false
	}
	block := bytes.Index(f.Raw, f.Block)
	b := append([]byte(nil), f.Raw[:block]...)
	for line := range bytes.Lines(f.Block) {
		if !bytes.HasPrefix(bytes.TrimLeft(line, " \t"), []byte(frame.PairedPrefix)) { // 1.0 allows padding
			b = append(b, line...)
		}
	}
	b = append(b, f.Raw[block+len(f.Block):]...)
	if n, _, err := parser.Next(b, f); n != len(b) || err != nil {
		panic("session/stomp: a frame without some of its headers is none") // the same parser took the whole
	}
	return session.NewChunk(b, nil).Range(0, len(b)), true
}
