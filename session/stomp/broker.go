package stomp

import (
	"bytes"
	"errors"
	"iter"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// fromBroker takes one frame of the broker.
func (r *Recorder) fromBroker(f *frame.Frame, in session.Buf, out *session.Out) {
	if r.phase == login {
		switch f.Command {
		case frame.Connected:
			r.connected(f, out)
		case frame.Error:
			r.refused(f, out)
		default:
			r.leave(out, &Refusal{"malformed", "broker sent " + f.Command.String() + " before CONNECTED"})
		}
		return
	}
	if r.foreign {
		r.toClient(out, in)
		return
	}
	switch f.Command {
	case frame.Message:
		r.message(f, in, out)
	case frame.Receipt:
		r.receiptFromBroker(f, out)
	case frame.Error:
		r.errorFromBroker(f, out)
	default:
		r.leave(out, &Refusal{"malformed", "broker sent an unexpected " + f.Command.String()})
	}
}

// message shows a MESSAGE to the client, unless the client holds it already, or has left its subscription.
func (r *Recorder) message(f *frame.Frame, in session.Buf, out *session.Out) {
	subID, id := f.Value("subscription"), f.Value("message-id")
	sub := r.subs.get(subID)
	// Before its RECEIPT a subscription has no messages: these belong to an older one with the same id.
	if sub == nil || sub.closing || sub.pending != 0 || r.stage != talking {
		return
	}
	if slot, ok := r.held.returned(subID, id); ok && r.recognise(slot, ordinal(f), out) {
		return
	}
	if r.late.has(subID, id) {
		r.stats.hidden++
		r.ackAgain(sub, id, out)
		return
	}
	if sub.full() || len(sub.withheld) > 0 {
		sub.withheld = append(sub.withheld, in.Keep())
		return
	}
	r.deliver(sub, f, in, ordinal(f), out)
}

// recognise takes a message that had gone elsewhere and comes back while the client still has something to say of it. The client is
// not shown it again: what it holds is valid again, what it has acknowledged in vain is acknowledged now.
func (r *Recorder) recognise(slot int32, ordinal uint64, out *session.Out) bool {
	d := r.held.at(slot)
	if d.state == nacking {
		return false // the client gave it back; this may be for it
	}
	r.held.regain(slot, r.epoch, ordinal)
	r.stats.hidden++
	if d.state == acking {
		// Whether the acknowledgement under way came before or after this delivery only the broker knows; a second one harms nobody.
		r.ackAgain(d.sub, d.id.bytes(), out)
	}
	return true
}

// ackAgain acknowledges a message that is not in the table.
func (r *Recorder) ackAgain(sub *subscription, id []byte, out *session.Out) {
	r.settleWith(entry{kind: ackEntry, at: out.Now, target: ackTarget{slot: none, id: bytes.Clone(id), sub: sub.id}}, out)
}

// deliver shows a MESSAGE and remembers that the client holds it.
func (r *Recorder) deliver(sub *subscription, f *frame.Frame, in session.Buf, ordinal uint64, out *session.Out) {
	r.show(f, in, out)
	if !sub.tracked {
		return
	}
	var key []byte
	if r.version == frame.V12 && sub.mode != auto {
		key = f.Value("ack")
	}
	slot := r.held.add(sub, f.Value("message-id"), key, r.epoch, ordinal)
	if sub.mode == auto {
		r.auto.push(autoAck{slot: slot, serial: r.held.at(slot).serial, end: r.clientQueued})
	}
}

// release shows what was withheld, as far as the client has room again.
func (r *Recorder) release(sub *subscription, out *session.Out) {
	for len(sub.withheld) > 0 && !sub.full() {
		in := sub.withheld[0]
		sub.withheld = sub.withheld[1:]
		parser := frame.Parser{Limits: r.broker.Limits, Version: r.version}
		var f frame.Frame
		if n, _, err := parser.Next(in.Bytes(), &f); n > 0 && err == nil {
			r.deliver(sub, &f, in, ordinal(&f), out)
		}
		in.Drop()
	}
}

// ordinal is which delivery of its message in this epoch a MESSAGE is.
func ordinal(f *frame.Frame) uint64 {
	if n, ok := frame.ParseUint(f.Value(frame.HeaderDelivery)); ok {
		return n
	}
	return 1
}

// show passes a MESSAGE on as it came, less the headers that are ours, which the broker puts first.
func (r *Recorder) show(f *frame.Frame, in session.Buf, out *session.Out) {
	start := afterCommand(f.Raw)
	rest := f.Raw[start:]
	for bytes.HasPrefix(rest, []byte(frame.PairedPrefix)) {
		rest = rest[afterCommand(rest):]
	}
	if cut := len(f.Raw) - len(rest); cut > start {
		r.appendClient(out, f.Raw[:start])
		r.toClient(out, in.Slice(cut, in.Len()))
		return
	}
	r.toClient(out, in)
}

// receiptFromBroker takes a RECEIPT: a cursor that confirms effects, or the answer to one of our numbered receipts.
func (r *Recorder) receiptFromBroker(f *frame.Frame, out *session.Out) {
	if v, ok := f.Get(frame.HeaderCursor); ok {
		cursor, ok := frame.ParseUint(v)
		if !ok || cursor > r.effects {
			r.leave(out, &Refusal{"malformed", "broker confirmed an effect that it was not sent"})
			return
		}
		r.settle(cursor, f.Value(frame.HeaderRolledBack), out)
		r.takeLeave(out)
	}
	id, ours := bytes.CutPrefix(f.Value("receipt-id"), []byte{'u'})
	n, number := frame.ParseUint(id)
	if !ours || !number || n == 0 {
		return
	}
	if r.farewell.sent && n == r.farewell.awaiting {
		r.goodbye(out)
		return
	}
	for _, sub := range r.subs.list {
		if sub.pending == n {
			r.subscribed(sub, f, out)
			return
		}
	}
	e := r.log.answered(n)
	switch {
	case e == nil:
	case e.kind == unsubscribeEntry:
		r.unsubscribed(e, out)
	default:
		if id := e.receiptID(); id != nil {
			r.receipt(out, id)
			e.wants = false
		}
		if e.kind == sendEntry && e.tx.unplayable {
			r.log.settle(e)
			r.log.compact()
		}
	}
}

// settle drops from the log what is durable now and answers the client's receipts for it.
func (r *Recorder) settle(cursor uint64, rolledBack []byte, out *session.Out) {
	if cursor <= r.confirmed {
		return
	}
	r.confirmed = cursor
	r.log.confirm(cursor, func(e *entry) {
		back := e.kind == commitEntry && listed(rolledBack, e.effect)
		if e.tx != nil {
			r.answerOwed(r.log.of(e.tx), out)
		}
		switch {
		case back:
			r.stats.rolledBack++
			r.returnAcks(e.tx)
			r.rolledBack(out, e)
		case e.receiptID() != nil:
			r.receipt(out, e.receiptID())
		}
		switch {
		case e.tx != nil:
			r.finish(e.tx)
		case e.target.slot != none && (e.kind == ackEntry || e.kind == nackEntry):
			if d := r.held.at(e.target.slot); d.gone && e.kind == ackEntry {
				r.late.add(d.sub.id, d.id.bytes())
			}
			r.held.remove(e.target.slot)
		}
	})
	if r.log.compact(); len(r.log.entries) == 0 {
		r.arena.drop() // an idle session holds no buffer
	}
}

// answerOwed answers, in the client's order, receipts of frames that are no effects. They mean only that the frame was received, so
// what comes behind it and was answered answers it too.
func (r *Recorder) answerOwed(entries iter.Seq[*entry], out *session.Out) {
	for e := range entries {
		if e.wants && e.effect == 0 {
			r.receipt(out, e.receiptID())
			e.wants = false
		}
	}
}

// finish drops the frames of a transaction that is settled, and what it acknowledged.
func (r *Recorder) finish(tx *transaction) {
	var left *subscription // that this transaction kept alive
	for e := range r.log.of(tx) {
		if slot := e.target.slot; (e.kind == ackEntry || e.kind == nackEntry) && slot != none {
			if d := r.held.at(slot); d.tx == tx && d.state == inTx {
				sub := d.sub
				r.held.remove(slot)
				if sub.left && sub != left {
					r.retire(left)
					left = sub
				}
			}
		}
		if e.effect == 0 {
			r.log.settle(e)
		}
	}
	r.retire(left)
	r.log.size -= tx.charged
	tx.charged = 0
}

// returnAcks gives the messages that a transaction acknowledged back to the client, which may acknowledge them again, or leave their
// subscription. The transaction's own acknowledgements mean nothing any more and let go of them.
func (r *Recorder) returnAcks(tx *transaction) {
	for e := range r.log.of(tx) {
		if e.kind != ackEntry && e.kind != nackEntry || e.target.slot == none {
			continue
		}
		if d := r.held.at(e.target.slot); d.tx == tx && d.state == inTx {
			d.tx = nil
			r.held.setState(e.target.slot, unacked)
			e.target = ackTarget{slot: none, id: bytes.Clone(d.id.bytes()), sub: d.sub.id}
		}
	}
}

// receipt answers one receipt of the client; id is as it stood on the wire.
func (r *Recorder) receipt(out *session.Out, id []byte) {
	b := append(r.scratch[:0], "RECEIPT\nreceipt-id:"...)
	b = append(b, id...)
	b = append(b, "\n\n\x00"...)
	r.scratch = b
	r.appendClient(out, b)
}

// rolledBack tells the client that a COMMIT did not come about. The connection stays: the next transaction works.
func (r *Recorder) rolledBack(out *session.Out, e *entry) {
	b := append(r.scratch[:0], "ERROR\nmessage:transaction rolled back\n"+errorCode+":rolled-back\n"...)
	b = frame.AppendHeader(b, "transaction", e.tx.id)
	if id := e.receiptID(); id != nil {
		b = frame.AppendHeader(b, "receipt-id", id)
	}
	b = append(b, "\nA message that this transaction acknowledges has gone to another consumer. Nothing of it was applied.\n\x00"...)
	r.scratch = b
	r.appendClient(out, b)
}

// listed reports whether a comma-separated header value names n.
func listed(list []byte, n uint64) bool {
	for s := range bytes.SplitSeq(list, []byte{','}) {
		if v, ok := frame.ParseUint(s); ok && v == n {
			return true
		}
	}
	return false
}

// refused takes an ERROR in answer to our login. What concerns only us is dealt with at the next broker; so is anything once the client has
// been served, for it may be our own ghost that is in the way. Else it is the client's to know.
func (r *Recorder) refused(f *frame.Frame, out *session.Out) {
	code := string(f.Value(frame.HeaderError))
	switch {
	case code == frame.CodeLostState && r.farewell.told:
		r.goodbye(out) // our DISCONNECT was taken, its answer was lost, and the session forgotten
	case code == frame.CodeLostState:
		r.fail(out, code, nil, errorText(f), "")
	case code != "":
		r.leave(out, &Refusal{code, errorText(f)})
	case r.greeted:
		r.leave(out, &Refusal{"error", errorText(f)})
	default:
		r.passError(f, out)
	}
}

// maxRefusals is how many replays in a row may end in a broker's ERROR before that is the client's to know.
const maxRefusals = 10

// errorFromBroker takes an ERROR behind the login. A healthy broker's ERROR is the client's own and ends the session, as the broker closes
// after it. [STOMP 1.2 ERROR] So is one that answers a frame which no broker has seen before. Other ERRORs in a replay are tried again
// elsewhere or later, but not for ever.
func (r *Recorder) errorFromBroker(f *frame.Frame, out *session.Out) {
	_, moved := f.Get(frame.HeaderMoved)
	code := string(f.Value(frame.HeaderError))
	switch {
	case moved:
		r.leave(out, &Refusal{"moved", "the store moves to another server"})
	case code != "":
		r.leave(out, &Refusal{code, errorText(f)})
	case r.phase != running && r.stats.lives > 0 && r.refusals < maxRefusals && !r.firstSeen(f):
		r.refusals++
		r.leave(out, &Refusal{"error", errorText(f)})
	default:
		r.passError(f, out)
	}
}

// firstSeen reports whether an ERROR answers a frame that was sent to no broker before this one.
func (r *Recorder) firstSeen(f *frame.Frame) bool {
	sub, e := r.asker(f)
	return sub != nil && !sub.known || e != nil && !e.doubt
}

// asker finds what a receipt-id of ours was asked for.
func (r *Recorder) asker(f *frame.Frame) (*subscription, *entry) {
	id, ours := bytes.CutPrefix(f.Value("receipt-id"), []byte{'u'})
	n, ok := frame.ParseUint(id)
	if !ours || !ok || n == 0 {
		return nil, nil
	}
	for _, sub := range r.subs.list {
		if sub.pending == n {
			return sub, nil
		}
	}
	return nil, r.log.answered(n)
}

// passError shows the client a broker's ERROR and ends the session. A receipt id that we made becomes the client's again.
func (r *Recorder) passError(f *frame.Frame, out *session.Out) {
	b := append(r.scratch[:0], "ERROR\n"...)
	sub, e := r.asker(f)
	for name, value := range f.Headers {
		switch {
		case bytes.HasPrefix(name, []byte(frame.PairedPrefix)):
			continue
		case string(name) != "receipt-id" || sub == nil && e == nil:
		case sub != nil && sub.wants != nil:
			value = sub.wants
		case e != nil && e.receiptID() != nil:
			value = e.receiptID()
		default:
			continue
		}
		b = append(append(append(append(b, name...), ':'), value...), '\n')
	}
	b = append(append(append(b, '\n'), f.Body...), 0)
	r.scratch = b
	r.appendClient(out, b)
	r.end(out, "broker-error", errors.New(errorText(f)))
}
