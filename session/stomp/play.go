package stomp

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// toBroker queues a range for the broker.
func (r *Recorder) toBroker(out *session.Out, b session.Buf) {
	out.Ref(session.Broker, b)
	r.beats.toldBroker = out.Now
}

// appendBroker queues a copy for the broker.
func (r *Recorder) appendBroker(out *session.Out, p []byte) {
	out.Append(session.Broker, p)
	r.beats.toldBroker = out.Now
}

// turn says whether an entry may go to the broker now.
type turn uint8

const (
	goes  turn = iota
	stays      // not now; what comes behind it may go
	waits      // not now, and nothing behind it
)

// emit sends an entry to the current broker, if there is one that has logged us in and it is its turn.
func (r *Recorder) emit(e *entry, out *session.Out) {
	// A plain acknowledgement passes what has to wait: it has no place in an order, and its subscription may end before its turn comes.
	if r.phase < replaying || r.gated && !r.passes(e) {
		return
	}
	switch r.turn(e) {
	case goes:
		if r.marking() && r.marks.state == marksOff && (e.kind == sendEntry && e.tx == nil || e.kind == commitEntry) {
			r.subscribeMarks(out)
			return
		}
		if e.kind == unsubscribeEntry && !r.dialect.paired {
			e.sub.ended = true
			if r.unbind(e.sub); r.dialect.acksOutsideTx {
				r.freeAcks(nil, e.sub, out) // behind it they would name nothing
			}
		}
		r.write(e, out)
	case stays:
		if e.kind == unsubscribeEntry && e.receiptID() != nil && r.inOpenTx(e.sub) {
			r.receipt(out, e.receiptID()) // nothing more is shown; the client may wait for this before it ends the transaction
			e.wants = false
		}
	case waits:
		if e.kind == commitEntry && !r.reclaiming() {
			r.giveBack(e, out) // what it acknowledges will not come back
			return
		}
		r.gated = true
	}
}

// passes reports whether an entry may go though others wait. An end of a transaction that waits may be what gave its message back to the client.
func (r *Recorder) passes(e *entry) bool {
	if e.tx != nil || e.kind != ackEntry && e.kind != nackEntry || !r.settled() || r.dialect.paired || r.dialect.ownAckModes {
		return false
	}
	for other := range r.log.all() {
		if other.order >= e.order {
			break
		}
		if !other.sent && (other.kind == abortEntry || other.kind == commitEntry) && r.gaveBack(other.tx, e) {
			return false
		}
	}
	return true
}

// gaveBack reports whether a transaction that has ended had acknowledged the message that e acknowledges.
func (r *Recorder) gaveBack(tx *transaction, e *entry) bool {
	for inner := range r.log.of(tx) {
		if (inner.kind == ackEntry || inner.kind == nackEntry) && inner.target.slot == none && e.target.slot != none &&
			bytes.Equal(r.targetID(inner), r.held.at(e.target.slot).id.bytes()) {
			return true
		}
	}
	return false
}

// turn of an entry. A paired broker takes everything in the client's order.
func (r *Recorder) turn(e *entry) turn {
	d, tx := r.dialect, e.tx
	switch {
	case r.stage == leaving && tx != nil && !tx.ended:
		return stays // an open transaction of a client that has left is not wanted any more
	case tx != nil && tx.lost:
		return stays
	case d.paired:
		return goes
	case tx != nil && d.buffersTx && e.kind != commitEntry:
		return stays // it goes with its COMMIT
	case e.kind == ackEntry || e.kind == nackEntry:
		if tx != nil && (d.acksOutsideTx || e.target.slot == none) || r.astray(e) {
			return stays
		}
	case e.kind == unsubscribeEntry:
		if r.reclaiming() && r.awaitsReturn(e.sub) || d.acksOutsideTx && r.inOpenTx(e.sub) {
			r.staying = true
			return stays // what was acknowledged on it has to come back first, or to be committed or not
		}
	case e.kind == commitEntry && !d.acksOutsideTx:
		for inner := range r.log.of(tx) {
			if !inner.sent && r.astray(inner) {
				return waits
			}
		}
	}
	return goes
}

// astray reports whether an acknowledgement is for a message that the current broker has not delivered to us.
func (r *Recorder) astray(e *entry) bool {
	return (e.kind == ackEntry || e.kind == nackEntry) && e.target.slot != none && r.held.at(e.target.slot).gone
}

// awaitsReturn reports whether the client acknowledged a message of sub that the current broker has not delivered to us yet.
func (r *Recorder) awaitsReturn(sub *subscription) bool {
	for _, d := range r.held.of(sub) {
		if d.gone && d.state != unacked {
			return true
		}
	}
	return false
}

// inOpenTx reports whether an open transaction acknowledges a message of sub.
func (r *Recorder) inOpenTx(sub *subscription) bool {
	for _, d := range r.held.of(sub) {
		if d.state == inTx && !d.tx.ended {
			return true
		}
	}
	return false
}

// write sends an entry. What we add stands right behind the command; the rest follows as it came, but for what it replaces.
func (r *Recorder) write(e *entry, out *session.Out) {
	if e.kind == commitEntry && r.dialect.buffersTx {
		for inner := range r.log.of(e.tx) {
			if inner.kind == sendEntry && !inner.sent {
				r.write(inner, out)
			}
		}
		e.sent = true
		return
	}
	b := r.scratch[:0]
	single := "" // transaction of our own around a SEND and its mark
	if !r.dialect.paired && r.marking() && e.effect != 0 {
		switch {
		case e.kind == sendEntry:
			single = "understudy-" + strconv.FormatUint(e.order, 10)
			b = append(frame.AppendHeader(append(b, "BEGIN\n"...), "transaction", single), '\n', 0)
		case e.kind == commitEntry:
			b = r.markOf(b, e, e.tx.id)
		}
	}
	switch e.kind {
	case ackEntry:
		b = append(b, "ACK\n"...)
	case nackEntry:
		b = append(b, "NACK\n"...)
	default:
		raw := e.frame.Bytes()
		b = append(b, raw[:e.block]...)
	}
	switch {
	case r.dialect.paired && e.effect != 0:
		b = frame.AppendUint(b, frame.HeaderEffect, e.effect)
	case single != "":
		b = frame.AppendHeader(b, "transaction", single)
	case e.effect != 0 || e.wants || e.kind == unsubscribeEntry || e.kind == otherEntry || e.tx != nil && r.dialect.buffersTx:
		r.receipts++
		e.receipt = r.receipts
		b = appendReceipt(b, e.receipt)
	}
	switch {
	case e.kind == ackEntry || e.kind == nackEntry:
		b = r.appendTarget(b, e)
		r.appendBroker(out, b)
	case r.dialect.paired:
		if e.kind == unsubscribeEntry && !e.sub.given {
			b = frame.AppendHeader(b, "id", e.sub.id)
		}
		r.appendBroker(out, b)
		r.toBroker(out, e.frame.Slice(int(e.block), e.frame.Len()))
	default:
		b = r.writeTo(b, e, out)
	}
	if single != "" {
		r.receipts++
		e.receipt = r.receipts
		b = appendReceipt(append(r.markOf(b[:0], e, single), "COMMIT\n"...), e.receipt)
		b = append(frame.AppendHeader(b, "transaction", single), '\n', 0)
		r.appendBroker(out, b)
	}
	r.scratch = b
	e.sent = true
	if e.tx != nil && e.tx.unplayable && !e.wants && e.effect == 0 {
		e.frame.Drop()
		e.frame = session.Buf{}
	}
}

// writeTo writes the rest of a frame for a broker that is not paired: headers that are replaced or for us alone are left out.
func (r *Recorder) writeTo(b []byte, e *entry, out *session.Out) []byte {
	d, raw, leave := r.dialect, e.frame.Bytes(), dropReceipt // what the client asks for is answered from what we ask for
	switch e.kind {
	case sendEntry:
		e.tries++
		if d.buffersTx {
			leave |= dropTransaction
		}
		if d.stamps || r.cfg.InDoubt == InDoubtResend && d.duplicateID == "" {
			b = frame.AppendStamp(b, r.cfg.Session, e.order, e.tries)
		}
		if d.duplicateID != "" && !ownDuplicateID(d, e) {
			b = append(append(b, d.duplicateID...), ':')
			b = append(append(b, r.cfg.Session...), '.')
			b = append(strconv.AppendUint(b, e.order, 10), '\n')
		}
		b, leave = r.destinations(b, e, leave, out)
	case unsubscribeEntry:
		if !e.sub.given {
			b = frame.AppendHeader(b, "id", e.sub.id)
		}
	}
	b, rest := appendLines(b, raw, leave)
	r.appendBroker(out, b)
	r.toBroker(out, e.frame.Slice(rest, len(raw)))
	return b
}

// ownDuplicateID reports whether the client gives a SEND a duplicate id itself.
func ownDuplicateID(d *dialect, e *entry) bool {
	block := e.frame.Bytes()[e.block:e.blank]
	return bytes.Contains(block, []byte(d.duplicateID)) && headerOf(block, d.duplicateID) != nil
}

func appendReceipt(b []byte, n uint64) []byte {
	b = append(b, "receipt:u"...)
	return append(strconv.AppendUint(b, n, 10), '\n')
}

// appendTarget writes the rest of an acknowledgement. A paired broker takes the message by its id and subscription in every version, so
// that nothing has to wait for a redelivery; others by the name that they gave it last. [STOMP 1.2 ACK; 1.1 ACK; 1.0 ACK]
func (r *Recorder) appendTarget(b []byte, e *entry) []byte {
	name := r.targetID(e)
	var sub []byte
	if e.target.slot == none {
		sub = e.target.named.sub
	} else {
		d := r.held.at(e.target.slot)
		sub = d.sub.id
		if !r.dialect.paired {
			if name = d.upstream(); d.via != nil {
				sub = d.via.id
			}
		}
	}
	if len(sub) == 0 {
		sub = []byte("-")
	}
	if r.version == frame.V12 && !r.dialect.paired {
		b = frame.AppendHeader(b, "id", name)
	} else {
		b = frame.AppendHeader(b, "subscription", sub)
		b = frame.AppendHeader(b, "message-id", name)
	}
	if e.tx != nil && !r.dialect.acksOutsideTx {
		b = frame.AppendHeader(b, "transaction", e.tx.id)
	}
	if e.kind == nackEntry && !r.dialect.paired && e.frame.Len() > 0 { // such as requeue:false
		b, _ = appendLines(b, e.frame.Bytes(), dropReceipt|dropTransaction|dropID|dropMessageID)
	}
	return append(b, '\n', 0)
}

// targetID is the message that an acknowledgement names.
func (r *Recorder) targetID(e *entry) []byte {
	if e.target.slot != none {
		return r.held.at(e.target.slot).id.bytes()
	}
	return e.target.named.id
}

// Up implements session.Recorder: log in. The client's credentials follow as they came, they are never decoded. The version, once the
// client was told one, is the only one offered.
func (r *Recorder) Up(p session.Peer, out *session.Out) {
	r.peer = p
	r.enter(login, out)
	r.broker = frame.Parser{Limits: r.broker.Limits, Version: r.version}
	r.receipts, r.gated = 0, false
	raw := r.connect.Bytes()
	b := append(r.scratch[:0], raw[:afterCommand(raw)]...)
	leave := dropHeartBeat
	if !r.verbatim() && (r.dialect == nil || r.dialect.paired) {
		b = frame.AppendHeader(b, frame.HeaderSession, r.cfg.Session)
		b = frame.AppendUint(b, frame.HeaderAttempt, p.Attempt)
		b = frame.AppendUint(b, frame.HeaderHold, uint64(max(r.cfg.Hold, r.cfg.HoldIdle).Milliseconds()))
		b = frame.AppendUint(b, frame.HeaderCursor, r.confirmed)
		if store := cmp.Or(r.store, p.Store); store != "" {
			b = frame.AppendHeader(b, frame.HeaderStore, store)
		}
	}
	beat := strconv.FormatInt(r.cfg.BrokerHeartBeat.Milliseconds(), 10)
	b = frame.AppendHeader(b, "heart-beat", beat+","+beat)
	if r.greeted {
		b = frame.AppendHeader(b, "accept-version", r.version.String())
		leave |= dropAcceptVersion
	}
	if p.Login != "" || p.Passcode != "" {
		b = frame.AppendHeader(b, "login", p.Login)
		b = frame.AppendHeader(b, "passcode", p.Passcode)
		leave |= dropCredentials
	}
	b, rest := appendLines(b, raw, leave)
	r.scratch = b
	r.appendBroker(out, b)
	r.toBroker(out, r.connect.Slice(rest, len(raw)))
	r.beats.heardBroker = out.Now
	r.schedule(out)
}

// connected takes the broker's CONNECTED: settle what its cursor settles, then play.
func (r *Recorder) connected(f *frame.Frame, out *session.Out) {
	v := frame.V10
	if s, ok := f.Get("version"); ok {
		if v, ok = frame.ParseVersion(s); !ok {
			r.leave(out, &Refusal{"version", "broker speaks an unknown version"})
			return
		}
	}
	if r.greeted && v != r.version {
		r.leave(out, &Refusal{"version", "broker speaks " + v.String() + ", the client was promised " + r.version.String()})
		return
	}
	if !r.beats.agreed(f.Value("heart-beat"), r.cfg.BrokerHeartBeat) {
		r.leave(out, &Refusal{"malformed", "broker sent a malformed heart-beat header"})
		return
	}
	epoch, paired := frame.ParseUint(f.Value(frame.HeaderEpoch))
	kind := &pairedBroker
	if !paired {
		kind = recogniseBroker(f)
	}
	if r.dialect != nil && kind != r.dialect {
		r.leave(out, &Refusal{frame.CodeWrongStore, "broker is of another kind than the one before: " + kind.name + ", not " + r.dialect.name})
		return
	}
	r.version, r.client.Version, r.broker.Version = v, v, v
	r.dialect = kind
	r.logins++
	switch {
	case r.verbatim():
		r.relayVerbatim(f, out)
		return
	case !paired:
		r.carryOn(f, out)
		return
	}
	cursor, _ := frame.ParseUint(f.Value(frame.HeaderCursor))
	store := string(f.Value(frame.HeaderStore))
	switch {
	case r.store != "" && store != r.store:
		r.leave(out, &Refusal{frame.CodeWrongStore, "broker serves store " + store + ", this session is at home in " + r.store})
		return
	case epoch < r.epoch:
		r.leave(out, &Refusal{"epoch", fmt.Sprintf("broker is at epoch %d, %d was seen: it has lost its store", epoch, r.epoch)})
		return
	case cursor < r.confirmed && r.farewell.told:
		r.goodbye(out)
		return
	case cursor < r.confirmed || cursor > r.effects:
		r.fail(out, frame.CodeLostState, nil, fmt.Sprintf("the broker knows effect %d of this session, %d of %d were confirmed: data is lost",
			cursor, r.confirmed, r.effects), "")
		return
	}
	r.store, r.epoch = store, epoch
	r.greetClient(f, out)
	r.enter(replaying, out)
	r.settle(cursor, f.Value(frame.HeaderRolledBack), out)
	r.replay(out)
	r.confirmReplay(out)
}

// greetClient answers the client's CONNECT, once. It gets the first broker's words, less what is ours, with its own heart-beat.
func (r *Recorder) greetClient(f *frame.Frame, out *session.Out) {
	if r.greeted {
		return
	}
	r.greeted = true
	r.beats.heardClient = out.Now // before it is told the intervals a client cannot keep them
	b := append(r.scratch[:0], "CONNECTED\n"...)
	for name, value := range f.Headers {
		if !bytes.HasPrefix(name, []byte(frame.PairedPrefix)) && string(name) != "heart-beat" && string(name) != "content-length" {
			b = frame.AppendHeader(b, string(name), value)
		}
	}
	b = append(b, "heart-beat:"...)
	b = append(b, r.beats.forClient()...)
	b = append(b, "\n\n\x00"...)
	r.scratch = b
	r.appendClient(out, b)
}

// replay plays subscriptions and log, merged into the order in which the client spoke, as far as it may go now.
func (r *Recorder) replay(out *session.Out) {
	for t := range r.unplayables {
		if t.ended {
			r.unknown(out)
			return
		}
		r.fail(out, "not-resumable", nil, "transaction "+clean(t.id)+" was too large to be kept and is rolled back", "")
		return
	}
	if !r.allowed(out) {
		return
	}
	r.pump(out)
	r.takeLeave(out)
}

// pump plays what has not been played on the current connection, until something has to wait.
func (r *Recorder) pump(out *session.Out) {
	r.gated, r.staying = false, false
	r.inOrder(func(sub *subscription) {
		if !sub.sent && !r.gated {
			r.playSubscribe(sub, out)
		}
	}, func(e *entry) {
		if e.sent {
			return
		}
		again := e.doubt
		if r.emit(e, out); !e.sent {
			return
		}
		if again && e.effect != 0 {
			r.stats.resent++
		}
		r.stats.played++
	})
}

// endDoubtful reports whether the COMMIT or ABORT of a transaction was sent on a connection that broke.
func (r *Recorder) endDoubtful(tx *transaction) bool {
	for e := range r.log.of(tx) {
		if e.effect != 0 {
			return e.doubt
		}
	}
	return false
}

// allowed applies the operator's choice of how much is played again. What no broker has seen before may always be said.
func (r *Recorder) allowed(out *session.Out) bool {
	if r.cfg.Replay == ReplayTx {
		return true
	}
	for e := range r.log.all() {
		switch {
		case !e.doubt:
		case e.tx == nil && e.kind == sendEntry && r.cfg.Replay >= ReplaySession:
			r.fail(out, "not-resumable", nil, "a SEND was not confirmed when its broker was lost, and is not to be sent again", "")
			return false
		case e.tx != nil && (!e.tx.ended || e.effect == 0 && !r.endDoubtful(e.tx)):
			e.tx.lost = true
		case e.tx != nil:
			r.fail(out, "in-doubt", nil, "the end of transaction "+clean(e.tx.id)+" was not confirmed when its broker was lost", "")
			return false
		}
	}
	return true
}

// inOrder goes through subscriptions and log as the client spoke.
func (r *Recorder) inOrder(subscribe func(*subscription), say func(*entry)) {
	subs := r.subs.list
	for e := range r.log.all() {
		for ; len(subs) > 0 && subs[0].order < e.order; subs = subs[1:] {
			subscribe(subs[0])
		}
		say(e)
	}
	for _, sub := range subs {
		subscribe(sub)
	}
}

// unplayables yields transactions that were begun on an earlier connection and cannot be played again.
func (r *Recorder) unplayables(yield func(*transaction) bool) {
	for e := range r.log.all() {
		if e.kind == beginEntry && e.tx.unplayable && e.doubt && !e.sent && !yield(e.tx) {
			return
		}
	}
}

// confirmReplay goes live when every played subscription was answered.
func (r *Recorder) confirmReplay(out *session.Out) {
	if r.phase != replaying || r.stage == ended {
		return
	}
	for _, sub := range r.subs.list {
		if sub.pending != 0 {
			return
		}
	}
	if !r.settled() {
		return
	}
	r.enter(running, out)
	if r.stats.lives++; r.stats.lives > 1 && !r.lostAt.IsZero() {
		r.stats.silence = out.Now.Sub(r.lostAt)
	}
	r.lostAt = time.Time{}
	out.Live = true
}

// Down implements session.Recorder.
func (r *Recorder) Down(why error, out *session.Out) {
	if r.lostAt.IsZero() {
		r.lostAt = out.Now
	}
	poison := r.suspect(why)
	named := r.dialect != nil && !r.dialect.paired // acknowledgements name deliveries of one connection
	for e := range r.log.all() {
		if named && (e.kind == ackEntry || e.kind == nackEntry) && e.tx == nil && e.target.slot == none {
			r.log.settle(e) // should the message come back it is known again
			continue
		}
		e.doubt = e.doubt || e.sent
		e.sent, e.receipt = false, 0
	}
	for _, sub := range r.subs.list {
		sub.doubt = sub.doubt || sub.sent
		sub.sent, sub.ended, sub.pending = false, false, 0
		sub.discard()
	}
	if named {
		r.log.compact()
		r.lose()
	}
	r.log.asked = r.log.base
	r.farewell.sent = false
	judged := r.phase == running && !r.erred.IsZero() && out.Now.Sub(r.erred) < errorEnds
	r.enter(parked, out)
	switch {
	case r.stage == ended:
	case r.verbatim() && r.dialect != nil && (r.farewell.told || r.stage == leaving):
		r.end(out, "client-closed", nil)
	case r.verbatim() && r.dialect != nil:
		r.fail(out, "not-resumable", why, "the broker is gone, and sessions are not to be carried on (--replay=none)", "")
	case judged:
		r.end(out, "broker-error", why) // it has had the broker's ERROR
	case poison:
		r.fail(out, "poison-frame", why, "brokers were lost again and again as they were given the first of the frames listed here; it is not given to another", "")
	}
	r.schedule(out)
}

// maxLosses is how many connections may be lost with the same frame as the oldest that the broker had not confirmed. Fewer would end sessions for
// a network that flaps.
const maxLosses = 5

// suspect notes that a broker was lost with a frame unconfirmed, and reports whether that frame is not to be played again: it might be what ends
// them. Connections that were left for a reason of ours tell nothing.
func (r *Recorder) suspect(why error) bool {
	var refusal *Refusal
	if r.phase < replaying || r.dialect == nil || errors.As(why, &refusal) {
		return false
	}
	for e := range r.log.all() {
		if e.sent && (e.effect != 0 || e.tx != nil && r.dialect.buffersTx) {
			e.losses++
			return int(e.losses) >= max(maxLosses, r.dialect.maxLosses)
		}
	}
	return false
}

// verbatim reports whether the session is only passed on, and ends with its broker.
func (r *Recorder) verbatim() bool { return r.cfg.Replay == ReplayNone }

// relayVerbatim passes on what was pipelined, and from then on everything.
func (r *Recorder) relayVerbatim(f *frame.Frame, out *session.Out) {
	r.greetClient(f, out)
	r.enter(replaying, out)
	r.inOrder(func(sub *subscription) { r.toBroker(out, sub.frame) }, func(e *entry) { r.toBroker(out, e.frame) })
	r.subs.close()
	r.log.close()
	clear(r.txs)
	r.enter(running, out)
	switch {
	case r.farewell.orderly: // its DISCONNECT was read already
		b := []byte("DISCONNECT\n")
		if r.farewell.receipt != nil {
			b = frame.AppendHeader(b, "receipt", r.farewell.receipt)
		}
		r.appendBroker(out, append(b, '\n', 0))
		r.farewell.told, r.stage = true, talking
	case r.stage == leaving:
		r.end(out, "client-closed", nil)
	}
	r.stats.lives++
	out.Live = true
}
