package stomp

import (
	"bytes"
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

// emit sends an entry to the current broker, if there is one that has logged us in. What we add stands right behind the command,
// because the first of repeated headers wins; the client's octets follow as they came.
func (r *Recorder) emit(e *entry, out *session.Out) {
	if r.phase < replaying {
		return
	}
	if r.foreign {
		r.toBroker(out, e.frame)
		return
	}
	b := r.scratch[:0]
	switch e.kind {
	case ackEntry:
		b = append(b, "ACK\n"...)
	case nackEntry:
		b = append(b, "NACK\n"...)
	default:
		raw := e.frame.Bytes()
		b = append(b, raw[:afterCommand(raw)]...)
	}
	switch {
	case e.effect != 0:
		b = frame.AppendUint(b, frame.HeaderEffect, e.effect)
	case e.wants || e.kind == unsubscribeEntry:
		r.receipts++
		e.receipt = r.receipts
		b = append(b, "receipt:u"...)
		b = strconv.AppendUint(b, e.receipt, 10)
		b = append(b, '\n')
	}
	switch e.kind {
	case ackEntry, nackEntry:
		b = r.appendTarget(b, e)
		r.appendBroker(out, b)
	case unsubscribeEntry:
		if !e.sub.given {
			b = frame.AppendHeader(b, "id", e.sub.id)
		}
		fallthrough
	default:
		r.appendBroker(out, b)
		r.toBroker(out, e.frame.Slice(afterCommand(e.frame.Bytes()), e.frame.Len()))
	}
	r.scratch = b
	e.sent = true
	if e.tx != nil && e.tx.unplayable && !e.wants && e.effect == 0 {
		e.frame.Drop()
		e.frame = session.Buf{}
	}
}

// appendTarget writes the rest of an acknowledgement. A paired broker takes the message by its id and subscription in every version, so
// that nothing has to wait for a redelivery.
func (r *Recorder) appendTarget(b []byte, e *entry) []byte {
	sub := e.target.sub
	if e.target.slot != none {
		sub = r.held.at(e.target.slot).sub.id
	}
	if len(sub) == 0 {
		sub = []byte("-")
	}
	b = frame.AppendHeader(b, "subscription", sub)
	b = frame.AppendHeader(b, "message-id", r.targetID(e))
	if e.tx != nil {
		b = frame.AppendHeader(b, "transaction", e.tx.id)
	}
	return append(b, '\n', 0)
}

// targetID is the message that an acknowledgement names.
func (r *Recorder) targetID(e *entry) []byte {
	if e.target.slot != none {
		return r.held.at(e.target.slot).id.bytes()
	}
	return e.target.id
}

// Up implements session.Recorder: log in. The client's CONNECT octets follow verbatim, credentials are never decoded. The version, once the
// client was told one, is the only one offered.
func (r *Recorder) Up(p session.Peer, out *session.Out) {
	r.peer = p
	r.enter(login, out)
	r.broker = frame.Parser{Limits: r.broker.Limits, Version: r.version}
	r.receipts = 0
	raw := r.connect.Bytes()
	b := append(r.scratch[:0], raw[:afterCommand(raw)]...)
	b = frame.AppendHeader(b, frame.HeaderSession, r.cfg.Session)
	b = frame.AppendUint(b, frame.HeaderAttempt, p.Attempt)
	b = frame.AppendUint(b, frame.HeaderHold, uint64(max(r.cfg.Hold, r.cfg.HoldIdle).Milliseconds()))
	b = frame.AppendUint(b, frame.HeaderCursor, r.confirmed)
	if store := r.Hints().Store; store != "" {
		b = frame.AppendHeader(b, frame.HeaderStore, store)
	}
	if r.greeted {
		b = frame.AppendHeader(b, "accept-version", r.version.String())
	}
	beat := strconv.FormatInt(r.cfg.BrokerHeartBeat.Milliseconds(), 10)
	b = frame.AppendHeader(b, "heart-beat", beat+","+beat)
	r.scratch = b
	r.appendBroker(out, b)
	r.toBroker(out, r.connect.Slice(afterCommand(raw), r.connect.Len()))
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
	if paired != (r.store != "") && r.greeted {
		r.leave(out, &Refusal{frame.CodeWrongStore, "broker is of another kind than the one before"})
		return
	}
	r.version, r.client.Version, r.broker.Version = v, v, v
	if !paired {
		r.relayForeign(f, out)
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

// replay plays subscriptions and log, merged into the order in which the client spoke.
func (r *Recorder) replay(out *session.Out) {
	for t := range r.unplayables {
		r.fail(out, "not-resumable", nil, "transaction "+clean(t.id)+" was too large to be kept and is rolled back", "")
		return
	}
	r.inOrder(func(sub *subscription) { r.playSubscribe(sub, out) }, func(e *entry) {
		if r.stage == leaving && e.tx != nil && r.txs[e.tx.id] == e.tx {
			return // an open transaction of a client that has left is not wanted any more
		}
		if e.doubt && e.effect != 0 {
			r.stats.resent++
		}
		r.stats.played++
		r.emit(e, out)
	})
	r.takeLeave(out)
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
		if e.kind == beginEntry && e.tx.unplayable && !yield(e.tx) {
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
	r.enter(running, out)
	if r.stats.lives++; r.stats.lives > 1 && !r.lostAt.IsZero() {
		r.stats.silence = out.Now.Sub(r.lostAt)
	}
	r.lostAt, r.refusals = time.Time{}, 0
	out.Live = true
}

// Down implements session.Recorder.
func (r *Recorder) Down(why error, out *session.Out) {
	if r.lostAt.IsZero() {
		r.lostAt = out.Now
	}
	for e := range r.log.all() {
		e.doubt = e.doubt || e.sent
		e.sent, e.receipt = false, 0
	}
	for _, sub := range r.subs.list {
		sub.pending = 0
		sub.discard()
	}
	r.log.asked = r.log.base
	r.farewell.sent = false
	r.enter(parked, out)
	switch {
	case r.stage == ended:
	case r.foreign && (r.farewell.told || r.stage == leaving):
		r.end(out, "client-closed", nil)
	case r.foreign:
		r.fail(out, "not-resumable", why, "the broker is gone and is not one that a session can be carried on at", "")
	}
	r.schedule(out)
}

// relayForeign goes on with a broker that is not paired: octets pass as they are, and the session ends with the broker.
func (r *Recorder) relayForeign(f *frame.Frame, out *session.Out) {
	r.foreign = true
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
