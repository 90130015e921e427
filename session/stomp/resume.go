package stomp

import (
	"bytes"
	"time"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// carryOn takes CONNECTED of a broker that is not paired. There is no cursor: what is in doubt is settled as the dialect allows, then
// everything is played that the broker has not confirmed. What the client holds is its own again as the broker delivers it anew.
func (r *Recorder) carryOn(f *frame.Frame, out *session.Out) {
	r.upstream = string(f.Value("session"))
	r.declared, r.temps.made, r.marks.state = nil, 0, marksOff
	r.again = r.greeted // there was a connection before, from which the client may hold messages
	r.greetClient(f, out)
	r.enter(replaying, out)
	r.adopt(out)
	switch {
	case !r.weigh(out):
	case r.marking() && r.marks.used:
		r.subscribeMarks(out)
	default:
		r.goOn(out)
	}
}

// adopt settles what needs no broker: receipts inside transactions that are kept here, their ends if there is nothing in them, and
// ABORTs that were lost with the connection, for that has rolled back what they were to.
func (r *Recorder) adopt(out *session.Out) {
	r.gated = true
	for e := range r.log.all() {
		if e.tx != nil && e.wants && e.effect == 0 && r.answersNow(e) {
			r.receipt(out, e.receiptID())
			e.wants = false
		}
	}
	for r.adoptNext(out) {
	}
	r.gated = false
}

// adoptNext settles one such end, or an UNSUBSCRIBE of a subscription that is not worth making again; false means that there is none.
func (r *Recorder) adoptNext(out *session.Out) bool {
	for e := range r.log.all() {
		switch {
		case e.kind == abortEntry && (e.doubt || r.dialect.buffersTx), e.kind == commitEntry && r.dialect.buffersTx && !e.tx.counted:
			r.endHere(e, out)
			return true
		case (e.kind == ackEntry || e.kind == nackEntry) && e.tx == nil && e.target.slot == none:
			r.settleOne(e, out) // it names nothing that a broker of this kind has given us
			return true
		case e.kind == unsubscribeEntry && e.sub.known && !e.sub.durable && !r.awaitsReturn(e.sub):
			r.unsubscribed(e, out)
			return true
		}
	}
	return false
}

// answersNow reports whether the receipt of a frame inside a transaction is ours to give: it means no more than that the frame has come.
func (r *Recorder) answersNow(e *entry) bool {
	d := r.dialect
	return d != nil && !d.paired && (d.buffersTx || e.kind == ackEntry || e.kind == nackEntry)
}

// inDoubt is what the operator wants done with what is in doubt, or what is safe here.
func (r *Recorder) inDoubt() InDoubt {
	switch d := r.dialect; {
	case d.duplicateID != "":
		return InDoubtResend // exact
	case r.cfg.InDoubt == InDoubtLookup && !d.marks:
		return InDoubtError
	case r.cfg.InDoubt != InDoubtDefault:
		return r.cfg.InDoubt
	case d.marks:
		return InDoubtLookup
	case d.stamps:
		return InDoubtResend
	}
	return InDoubtError
}

// doubtful reports whether playing an entry again could do its work twice.
func (r *Recorder) doubtful(e *entry) bool {
	switch e.kind {
	case sendEntry:
		return e.doubt && (e.tx == nil || r.dialect.buffersTx)
	case commitEntry:
		return e.doubt && !r.dialect.buffersTx
	}
	return false
}

// weigh ends the session, and returns false, if something is in doubt and neither may be played again nor can be asked for.
func (r *Recorder) weigh(out *session.Out) bool {
	if want := r.inDoubt(); want == InDoubtResend || want == InDoubtLookup && r.marks.refused == "" {
		return true
	}
	for e := range r.log.all() {
		if r.doubtful(e) {
			r.unknown(out)
			return false
		}
	}
	return true
}

// unknown tells the client that the outcome of what it did is unknown.
func (r *Recorder) unknown(out *session.Out) {
	r.fail(out, "in-doubt", nil, "the broker was lost before it answered, and no broker can say what became of what is listed here: outcome unknown", "")
}

// lose marks everything that the client holds as not ours, until it is delivered again. Identities that mean nothing beyond their connection are
// not looked for.
func (r *Recorder) lose() {
	for slot, d := range r.held.all {
		if !d.gone && (r.dialect.identity == noIdentity || r.dialect.identity == byStamp && d.try == 0) {
			d.gone = true
		} else if !d.gone {
			r.held.lose(slot)
		}
	}
	r.reclaim = time.Time{}
}

// reclaiming reports whether redeliveries of what the client holds may still be on their way.
func (r *Recorder) reclaiming() bool {
	return r.phase < replaying || !r.settled() || !r.reclaim.IsZero()
}

// expire gives up on redeliveries that have not come. An acknowledgement that was under way when the broker was lost has done its work, or
// the message has gone to somebody else: either way there is nothing left to do. Should it come back it is acknowledged then.
func (r *Recorder) expire(out *session.Out) {
	if r.phase < replaying || !r.settled() || r.reclaim.IsZero() || out.Now.Before(r.reclaim) || r.unheard() {
		return
	}
	r.reclaim = time.Time{}
	for e := range r.log.all() {
		switch {
		case e.tx == nil && r.astray(e):
			r.tooLate(e, out)
		case e.kind == commitEntry && !e.sent && !r.dialect.buffersTx && r.turn(e) == waits:
			r.giveBack(e, out)
		}
	}
	r.log.compact()
	if (r.gated || r.staying) && r.settled() {
		r.pump(out)
		r.confirmReplay(out)
	}
	r.takeLeave(out)
}

// unheard reports whether nothing has come from the broker since redeliveries are not waited for any more, though something must: it may have
// them and be stuck.
func (r *Recorder) unheard() bool {
	return r.beats.brokerQuiet > 0 && r.beats.heardBroker.Before(r.reclaim)
}

// settled reports whether nothing has to be found out before the replay can go on.
func (r *Recorder) settled() bool { return r.marks.state == marksOff || r.marks.state == marksOn }

// tooLate settles an acknowledgement of a message that is not ours any more.
func (r *Recorder) tooLate(e *entry, out *session.Out) {
	if !e.doubt {
		r.stats.late++
	}
	if refused := e.kind == nackEntry; !refused || !r.dialect.nackRequeues {
		d := r.held.at(e.target.slot)
		r.late.put(d.sub.scope, d.id.bytes(), remembered{try: d.try, acked: true, refused: refused})
	}
	r.conclude(e, false, out)
	r.log.settle(e)
}

// giveBack ends a transaction that acknowledges a message which has gone elsewhere: at the broker by ABORT, for the client as rolled back.
func (r *Recorder) giveBack(e *entry, out *session.Out) {
	begun := false
	for inner := range r.log.of(e.tx) {
		begun = begun || inner.sent
	}
	if begun {
		b := append(r.scratch[:0], "ABORT\n"...)
		b = append(frame.AppendHeader(b, "transaction", e.tx.id), '\n', 0)
		r.scratch = b
		r.appendBroker(out, b)
	}
	r.conclude(e, true, out)
	r.log.settle(e)
}

// identify reads from a MESSAGE by what it is known again, and what the broker wants it to be called now.
func (r *Recorder) identify(f *frame.Frame) (id, name []byte) {
	id = f.Value("message-id")
	name = id
	if r.version == frame.V12 {
		if ack, ok := f.Get("ack"); ok && !r.dialect.acksByMessageID {
			name = ack
		}
	}
	if r.dialect.identity == bySuffix {
		id = id[bytes.IndexByte(id, ',')+1:]
	}
	return id, name
}

// returning deals with a MESSAGE that the client has had before; false means that it is to be shown.
func (r *Recorder) returning(sub *subscription, f *frame.Frame, out *session.Out) bool {
	id, name := r.identify(f)
	stamp, try, stamped := frame.CutStamp(f.Value(frame.HeaderStamp))
	if stamped && r.dialect.identity == byStamp {
		id = stamp
	}
	if slot, ok := r.held.returned(sub.scope, id); ok && (!stamped || r.held.at(slot).try == try || r.held.at(slot).try == 0) {
		return r.known(slot, sub, name, out)
	}
	var had remembered
	var ok bool
	if stamped {
		had, ok = r.late.get(sub.scope, stamp)
	}
	if !ok {
		had, ok = r.late.get(sub.scope, id)
	}
	if ok && (had.acked || stamped && had.try != try) {
		// Acknowledged before, or a copy of what was shown. The client is not asked again.
		r.stats.hidden++
		r.ackNamed(sub, name, had.refused, out)
		return true
	}
	return false
}

// known takes a message that comes back while the client still has something to say of it.
func (r *Recorder) known(slot int32, sub *subscription, name []byte, out *session.Out) bool {
	d := r.held.at(slot)
	if d.state == nacking && r.dialect.nackRequeues {
		for e := range r.log.all() {
			if e.kind == nackEntry && e.target.slot == slot {
				r.conclude(e, false, out) // this is what it was to bring about
				r.log.settle(e)
			}
		}
		r.log.compact()
		return false
	}
	r.held.regain(slot, 0, 0)
	d.name.set(name)
	if d.via = nil; sub != d.sub {
		d.via = sub
	}
	r.stats.hidden++
	for e := range r.log.all() {
		if !e.sent && e.target.slot == slot && (e.kind == ackEntry || e.kind == nackEntry) {
			r.emit(e, out)
			break
		}
	}
	if (r.gated || r.staying) && r.settled() {
		r.pump(out)
	}
	return true
}

// ackNamed acknowledges a message that is not in the table by the name that the broker has given it.
func (r *Recorder) ackNamed(sub *subscription, name []byte, refuse bool, out *session.Out) {
	kind := ackEntry
	if refuse {
		kind = nackEntry
	}
	r.settleWith(entry{kind: kind, at: out.Now, target: byName(bytes.Clone(name), sub.id)}, out)
}

// showForeign passes a MESSAGE on without the headers that are ours.
func (r *Recorder) showForeign(f *frame.Frame, in session.Buf, out *session.Out) {
	d := r.dialect
	stamped := bytes.Contains(f.Block, []byte(frame.PairedPrefix))
	if !stamped && !d.leaks && len(r.temps.names) == 0 {
		r.toClient(out, in)
		return
	}
	start := afterCommand(f.Raw)
	b := append(r.scratch[:0], f.Raw[:start]...)
	changed := false
	for line := range bytes.Lines(f.Block) {
		if r.ours(line) {
			changed = true
			continue
		}
		was := len(b)
		if b = r.appendLocal(b, line); !changed && !bytes.Equal(b[was:], line) {
			changed = true
		}
	}
	r.scratch = b
	if !changed {
		r.toClient(out, in)
		return
	}
	r.appendClient(out, b)
	r.toClient(out, in.Slice(start+len(f.Block), in.Len()))
}

// ours reports whether a header line of a MESSAGE was put there by a recorder: a stamp, a duplicate id, or a number for a receipt.
func (r *Recorder) ours(line []byte) bool {
	switch line[0] {
	case 'u':
		return bytes.HasPrefix(line, []byte(frame.PairedPrefix))
	case 'r':
		return r.dialect.leaks && bytes.HasPrefix(line, []byte("receipt:u"))
	case '_':
		if d := r.dialect; d.duplicateID != "" && bytes.HasPrefix(line, []byte(d.duplicateID)) {
			v := line[len(d.duplicateID)+1:]
			return len(v) > 33 && v[32] == '.' && isHex(v[:32])
		}
	}
	return false
}

func isHex(p []byte) bool {
	for _, c := range p {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
