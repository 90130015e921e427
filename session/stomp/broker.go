package stomp

import (
	"bytes"
	"errors"
	"iter"
	"strconv"
	"time"

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
	if r.verbatim() {
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
	if string(subID) == marksID && r.dialect.marks {
		r.marked(f, out)
		return
	}
	sub := r.listener(subID)
	if sub == nil || sub.closing || r.stage != talking {
		if sub != nil && sub.tracked && !sub.ended && !r.dialect.paired {
			r.returning(sub, f, out) // what the client acknowledged before it left may be waiting for this
		}
		return
	}
	// Before its RECEIPT a subscription has no messages: these belong to an older one with the same id.
	if sub.pending != 0 && r.dialect.receiptFirst {
		return
	}
	if !r.dialect.paired {
		if sub.tracked && r.returning(sub, f, out) {
			return
		}
	} else if slot, ok := r.held.returned(subID, id); ok && r.recognise(slot, ordinal(f), out) {
		return
	} else if _, ok := r.late.get(subID, id); ok {
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

// listener is the subscription that a MESSAGE is for. One that waits until an older one with its id has ended is not it.
func (r *Recorder) listener(id []byte) *subscription {
	sub := r.subs.get(id)
	if sub == nil || sub.sent {
		return sub
	}
	for _, old := range r.subs.list {
		if old.sent && !old.ended && bytes.Equal(old.id, id) {
			return old
		}
	}
	return nil
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
	r.settleWith(entry{kind: ackEntry, at: out.Now, target: byName(bytes.Clone(id), sub.id)}, out)
}

// deliver shows a MESSAGE and remembers that the client holds it.
func (r *Recorder) deliver(sub *subscription, f *frame.Frame, in session.Buf, ordinal uint64, out *session.Out) {
	if r.dialect.paired {
		r.show(f, in, out)
	} else {
		r.showForeign(f, in, out)
	}
	if p := in.Bytes(); p[len(p)-1] != '\n' {
		r.appendClient(out, []byte{'\n'}) // as ActiveMQ, Artemis and RabbitMQ have it; PHP's client loses frames without
	}
	if !sub.tracked {
		r.browsed(sub, f)
		return
	}
	var key, id []byte
	if r.dialect.paired {
		if id = f.Value("message-id"); r.version == frame.V12 && sub.mode != auto {
			key = f.Value("ack")
		}
	} else if id, key = r.identify(f); r.version == frame.V12 && sub.mode != auto {
		key = f.Value("ack")
	}
	stamp, try, stamped := frame.CutStamp(f.Value(frame.HeaderStamp))
	if stamped && r.dialect.identity == byStamp {
		id = stamp
	}
	slot := r.held.add(sub, id, key, r.epoch, ordinal)
	if r.dialect.acksByMessageID {
		r.held.at(slot).name.set(f.Value("message-id"))
	}
	if d := r.held.at(slot); stamped && !r.dialect.paired {
		d.stamp.set(stamp)
		d.try = try
		r.late.put(sub.scope, stamp, remembered{try: try})
	}
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
		if n, _, err := parser.Next(in.Bytes(), &f); n > 0 && err == nil && (r.dialect.paired || !r.returning(sub, &f, out)) {
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
	if r.marks.pending == n {
		r.marksAnswered("", out)
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
	case e.effect != 0:
		r.settleOne(e, out)
	default:
		if id := e.receiptID(); id != nil {
			r.receipt(out, id)
			e.wants = false
		}
		switch {
		case e.kind == otherEntry, e.kind == sendEntry && e.tx.unplayable:
			r.log.settle(e)
			r.log.compact()
		case e.kind == sendEntry && r.dialect.buffersTx:
			r.sentOne(e, out)
		}
	}
}

// sentOne takes the confirmation of a SEND of a transaction that is played as single frames. The last one confirms the COMMIT.
func (r *Recorder) sentOne(e *entry, out *session.Out) {
	tx := e.tx
	r.log.settle(e)
	if tx.open--; tx.open == 0 {
		for end := range r.log.of(tx) {
			if end.kind == commitEntry {
				r.settleOne(end, out)
				return
			}
		}
	}
	r.log.compact()
}

// settleOne settles one effect by itself.
func (r *Recorder) settleOne(e *entry, out *session.Out) {
	r.refusals = 0
	r.markStored(e, out)
	r.conclude(e, false, out)
	r.log.settle(e)
	if r.log.compact(); len(r.log.entries) == 0 {
		r.arena.drop() // an idle session holds no buffer
	}
	r.takeLeave(out)
}

// settle drops from the log what is durable now and answers the client's receipts for it.
func (r *Recorder) settle(cursor uint64, rolledBack []byte, out *session.Out) {
	if cursor <= r.confirmed {
		return
	}
	r.confirmed = cursor
	r.log.confirm(cursor, func(e *entry) { r.conclude(e, e.kind == commitEntry && listed(rolledBack, e.effect), out) })
	if r.log.compact(); len(r.log.entries) == 0 {
		r.arena.drop() // an idle session holds no buffer
	}
}

// conclude does what follows from an effect being settled: the client is answered, and what it depended on is forgotten. back means a
// COMMIT that ended as rolled back.
func (r *Recorder) conclude(e *entry, back bool, out *session.Out) {
	if e.tx != nil {
		r.answerOwed(r.log.of(e.tx), out)
	}
	switch {
	case back:
		r.stats.rolledBack++
		r.returnAcks(e.tx, out)
		r.rolledBack(out, e)
	case e.receiptID() != nil:
		r.receipt(out, e.receiptID())
	}
	switch {
	case e.tx != nil:
		if e.kind == commitEntry && !back && r.dialect != nil && r.dialect.acksOutsideTx {
			r.freeAcks(e.tx, nil, out)
		}
		r.finish(e.tx)
	case e.target.slot != none && (e.kind == ackEntry || e.kind == nackEntry):
		d := r.held.at(e.target.slot)
		switch {
		case r.dialect != nil && !r.dialect.paired:
			r.rememberAck(e, d)
		case d.gone && e.kind == ackEntry:
			r.late.put(d.sub.scope, d.id.bytes(), remembered{acked: true})
		}
		sub := d.sub
		if r.held.remove(e.target.slot); sub.left {
			r.retire(sub)
		}
	}
}

// rememberAck notes what may come back though it was acknowledged, or in another copy.
func (r *Recorder) rememberAck(e *entry, d *delivery) {
	acked := e.kind == ackEntry
	if d.try != 0 {
		r.late.put(d.sub.scope, d.stamp.bytes(), remembered{try: d.try, acked: acked})
	} else if acked && r.dialect.forgetsAcks && r.dialect.identity != byStamp {
		r.late.put(d.sub.scope, d.id.bytes(), remembered{acked: true})
	}
}

// freeAcks sends the acknowledgements of a transaction whose COMMIT is confirmed, or of a subscription that is about to end, at a broker that
// would have executed them at once.
func (r *Recorder) freeAcks(tx *transaction, sub *subscription, out *session.Out) {
	for e := range r.log.all() {
		if e.kind != ackEntry && e.kind != nackEntry || e.tx == nil || e.target.slot == none {
			continue
		}
		d := r.held.at(e.target.slot)
		if d.state != inTx || d.tx != e.tx || tx != nil && e.tx != tx || sub != nil && d.sub != sub {
			continue
		}
		state := acking
		if e.kind == nackEntry {
			state = nacking
		}
		d.tx = nil
		r.held.setState(e.target.slot, state)
		r.effects++
		r.log.free(e, r.effects)
		if r.emit(e, out); !e.sent && r.astray(e) && !r.reclaiming() {
			r.tooLate(e, out)
		}
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
func (r *Recorder) returnAcks(tx *transaction, out *session.Out) {
	for e := range r.log.of(tx) {
		if e.kind != ackEntry && e.kind != nackEntry || e.target.slot == none {
			continue
		}
		if d := r.held.at(e.target.slot); d.tx == tx && d.state == inTx {
			slot := e.target.slot
			d.tx = nil
			r.held.setState(slot, unacked)
			e.target = byName(bytes.Clone(d.id.bytes()), d.sub.id)
			if d.sub.closing && r.dialect != nil && !r.dialect.paired {
				r.owe(d, out)
				r.held.remove(slot) // the client has left its subscription, and would be shown it anew
			}
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

// errorEnds is how soon behind an ERROR that the client was shown the end of the connection belongs to it.
const errorEnds = time.Second

// errorFromBroker takes an ERROR behind the login. A healthy broker's ERROR is the client's own and ends the session if the broker closes after
// it. [STOMP 1.2 ERROR] So is one that answers a frame which no broker has seen before. Other ERRORs in a replay are tried again
// elsewhere or later, but not for ever.
func (r *Recorder) errorFromBroker(f *frame.Frame, out *session.Out) {
	_, moved := f.Get(frame.HeaderMoved)
	code := string(f.Value(frame.HeaderError))
	switch {
	case moved:
		r.leave(out, &Refusal{"moved", "the store moves to another server"})
	case code != "":
		r.leave(out, &Refusal{code, errorText(f)})
	case !r.dialect.paired && (r.errorOfOurs(f, out) || r.tryAgain(f, out)):
	case (r.phase != running || r.passing(f)) && r.logins > 1 && r.refusals < maxRefusals && !r.firstSeen(f):
		r.refusals++
		r.leave(out, &Refusal{"error", errorText(f)})
	default:
		r.passError(f, out)
	}
}

// ownDuplicateIDs reports whether the client gives SENDs of a transaction duplicate ids itself.
func (r *Recorder) ownDuplicateIDs(tx *transaction) bool {
	for e := range r.log.of(tx) {
		if e.kind == sendEntry && ownDuplicateID(r.dialect, e) {
			return true
		}
	}
	return false
}

// tryAgain deals with an ERROR to a frame that was played again: it may tell of what became of the broker and not of the frame, but not for ever.
func (r *Recorder) tryAgain(f *frame.Frame, out *session.Out) bool {
	_, e := r.asker(f)
	if e == nil || !e.doubt || e.losses >= maxLosses {
		return false
	}
	e.losses++
	r.leave(out, &Refusal{"error", errorText(f)})
	return true
}

// passing reports whether an ERROR tells of the broker's state rather than of a fault of the client.
func (r *Recorder) passing(f *frame.Frame) bool {
	for _, phrase := range r.dialect.transient {
		if bytes.Contains(f.Value("message"), []byte(phrase)) || bytes.Contains(f.Body, []byte(phrase)) {
			return true
		}
	}
	return false
}

// errorOfOurs deals with an ERROR that the client has nothing to do with: an answer to something that we asked on our own, the news that a replayed
// transaction had been committed before, or that a subscription was taken away.
func (r *Recorder) errorOfOurs(f *frame.Frame, out *session.Out) bool {
	if _, named := f.Get("subscription"); named && r.dialect.cancels {
		r.leave(out, &Refusal{"cancelled", errorText(f)})
		return true
	}
	if id, ok := f.Get("receipt-id"); ok && r.marks.pending != 0 && string(id) == "u"+strconv.FormatUint(r.marks.pending, 10) {
		r.marksAnswered("the broker does not let sessions have their queue of marks: "+errorText(f), out)
		return true
	}
	if _, named := f.Get("receipt-id"); !named && r.dialect.marks && bytes.Contains(f.Raw, []byte(marksQueue[len("/queue/"):])) {
		if r.marks.refused == "" {
			r.marksAnswered("the broker does not let sessions write to their queue of marks: "+errorText(f), out)
		}
		return true
	}
	_, e := r.asker(f)
	switch {
	case e == nil:
		return false
	case e.kind == commitEntry && e.doubt && !r.ownDuplicateIDs(e.tx) && r.dialect.duplicateCommit != "" && bytes.Contains(f.Raw, []byte(r.dialect.duplicateCommit)):
		r.settleOne(e, out)
	case (e.kind == ackEntry || e.kind == nackEntry) && e.frame.Len() == 0:
		r.settleOne(e, out)
	default:
		return false
	}
	if !r.dialect.goesOn(r.version) {
		r.leave(out, &Refusal{"error", errorText(f)})
	}
	return true
}

// firstSeen reports whether an ERROR answers a frame that was sent to no broker before this one.
func (r *Recorder) firstSeen(f *frame.Frame) bool {
	sub, e := r.asker(f)
	return sub != nil && !sub.known && !sub.doubt || e != nil && !e.doubt
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

// passError shows the client a broker's ERROR, and ends the session if the broker closes after it. A receipt id that we made becomes the
// client's again.
func (r *Recorder) passError(f *frame.Frame, out *session.Out) {
	b := append(r.scratch[:0], "ERROR\n"...)
	sub, e := r.asker(f)
	if _, named := f.Get("receipt-id"); !named {
		sub, e = r.blame(f)
		switch {
		case e != nil && e.receiptID() != nil:
			b = frame.AppendHeader(b, "receipt-id", e.receiptID())
		case sub != nil && sub.wants != nil:
			b = frame.AppendHeader(b, "receipt-id", sub.wants)
		}
	}
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
	if r.dialect == nil || !r.dialect.goesOn(r.version) || r.phase == login {
		r.end(out, "broker-error", errors.New(errorText(f)))
		return
	}
	r.erred = out.Now
	r.answerError(sub, e, out)
}

// blame finds what an ERROR without a receipt-id is about. A SEND that has its mark beside it in a transaction asks for no receipt itself, and as
// answers come in order it is the oldest that has none, unless frames stand before it that ask for none either. RabbitMQ names no receipts: the
// ERROR is about what it quotes the destination of, or about the only frame that has no answer.
func (r *Recorder) blame(f *frame.Frame) (*subscription, *entry) {
	if r.dialect == nil || !r.dialect.errorsStay {
		return nil, nil
	}
	if r.dialect.marks {
		if !r.marking() {
			return nil, nil
		}
		for e := range r.log.all() {
			if e.sent && e.kind == sendEntry && e.tx == nil {
				return nil, e
			} else if e.sent {
				break
			}
		}
		return nil, nil
	}
	for _, sub := range r.subs.list {
		if sub.pending != 0 && bytes.Contains(f.Body, sub.dest) {
			return sub, nil
		}
	}
	var only, other *entry
	open := 0
	for e := range r.log.all() {
		if !e.sent || e.receipt == 0 {
			continue
		}
		if e.kind == sendEntry && bytes.Contains(f.Body, e.destination()) {
			return nil, e
		}
		if e.kind == otherEntry && other == nil {
			other = e
		}
		only = e
		open++
	}
	if open == 1 {
		return nil, only
	}
	return nil, other
}

// answerError settles what an ERROR has answered; the connection goes on.
func (r *Recorder) answerError(sub *subscription, e *entry, out *session.Out) {
	switch {
	case sub != nil:
		sub.wants, sub.pending = nil, 0
		r.subs.remove(sub)
		r.confirmReplay(out)
	case e == nil:
	case r.marking() && e.kind == sendEntry && e.tx == nil:
		e.wants = false // its mark is settled when the transaction is
	case e.kind == unsubscribeEntry:
		e.wants = false
		r.unsubscribed(e, out)
	case e.kind == sendEntry && e.tx != nil && r.dialect.buffersTx:
		e.wants = false
		r.sentOne(e, out)
	default:
		e.wants = false // it has its answer
		switch {
		case e.effect != 0:
			if e.kind == commitEntry {
				r.returnAcks(e.tx, out)
			}
			r.settleOne(e, out)
		case e.tx == nil:
			r.log.settle(e)
			r.log.compact()
		}
	}
}
