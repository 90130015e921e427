package stomp

import (
	"bytes"
	"strconv"
	"time"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// beats are the heart-beats of both legs, each negotiated on its own: the client's with us, for the life of its connection, and ours with
// each broker. [STOMP 1.2 Heart-beating]
type beats struct {
	clientEvery time.Duration // what we must not stay silent for
	clientQuiet time.Duration // what the client promised; 0: nothing
	brokerEvery time.Duration
	brokerQuiet time.Duration

	heardClient, toldClient time.Time
	heardBroker, toldBroker time.Time
}

// A peer counts as silent after this many of its promised intervals; we beat at the inverse share of ours.
const (
	patience = 2.5
	haste    = 0.5
)

// shortestBeat is the least that is agreed with a client.
const shortestBeat = 100 * time.Millisecond

// negotiate reads the client's CONNECT header. We take what it offers and give what it asks for.
func (b *beats) negotiate(header []byte) bool {
	cx, cy, ok := parseHeartBeat(header)
	if cx > 0 {
		b.clientQuiet = max(cx, shortestBeat)
	}
	if cy > 0 {
		b.clientEvery = max(cy, shortestBeat)
	}
	return ok
}

// forClient is our side of it, for CONNECTED.
func (b *beats) forClient() string {
	return strconv.FormatInt(b.clientEvery.Milliseconds(), 10) + "," + strconv.FormatInt(b.clientQuiet.Milliseconds(), 10)
}

// agreed reads the broker's CONNECTED header; ours offered and asked for every in both directions.
func (b *beats) agreed(header []byte, every time.Duration) bool {
	sx, sy, ok := parseHeartBeat(header)
	b.brokerEvery, b.brokerQuiet = 0, 0
	if sy > 0 {
		b.brokerEvery = max(sy, every)
	}
	if sx > 0 {
		b.brokerQuiet = max(sx, every)
	}
	return ok
}

func parseHeartBeat(h []byte) (x, y time.Duration, ok bool) {
	if len(h) == 0 {
		return 0, 0, true
	}
	a, b, _ := bytes.Cut(h, []byte{','})
	n, ok1 := frame.ParseUint(bytes.TrimSpace(a))
	m, ok2 := frame.ParseUint(bytes.TrimSpace(b))
	const day = 24 * 60 * 60 * 1000
	return time.Duration(min(n, day)) * time.Millisecond, time.Duration(min(m, day)) * time.Millisecond, ok1 && ok2
}

// enter changes the phase.
func (r *Recorder) enter(p phase, out *session.Out) {
	r.phase, r.since, r.asked, r.look = p, out.Now, out.Now, time.Time{}
}

// Tick implements session.Recorder.
func (r *Recorder) Tick(out *session.Out) {
	if r.beats.heardClient.IsZero() {
		r.since, r.beats.heardClient = out.Now, out.Now // the first call: the clock starts
	}
	r.look = time.Time{}
	if r.stage != ended {
		r.tickClient(out)
		r.tickBroker(out)
		r.tickHold(out)
		r.acknowledgeAuto(out)
		r.expire(out)
		r.takeLeave(out)
	}
	r.log.rest(out.Now)
	r.schedule(out)
}

func (r *Recorder) tickClient(out *session.Out) {
	b := &r.beats
	if quiet := r.clientSilence(); quiet > 0 && silence(session.Client, &b.heardClient, out) >= quiet {
		if r.stage == greeting {
			r.fail(out, "protocol", nil, "no CONNECT within "+r.cfg.ConnectTimeout.String(), "")
			return
		}
		r.farewell.silent = true
		r.depart(out)
	}
	if r.greeted && !r.farewell.gone && b.clientEvery > 0 && out.Now.Sub(b.toldClient) >= share(b.clientEvery) {
		if b.toldClient = out.Now; out.Queued(session.Client) == 0 {
			r.appendClient(out, []byte{'\n'})
		}
	}
}

// silence is how long a leg has said nothing though it was listened to. Time in which nobody listened is taken off for good.
func silence(leg session.Leg, heard *time.Time, out *session.Out) time.Duration {
	switch since := out.Listening[leg]; {
	case since.IsZero():
		*heard = out.Now
	case since.After(*heard):
		*heard = since
	}
	return out.Now.Sub(*heard)
}

// brokerSilent reports whether the broker has been silent for too long, and leaves it if so. Whatever comes after that is not to be
// believed: it may be what an owner had sent before it was frozen, replaced and woken.
func (r *Recorder) brokerSilent(out *session.Out) bool {
	limit := times(r.beats.brokerQuiet)
	if r.phase < replaying || limit == 0 {
		return false
	}
	quiet := silence(session.Broker, &r.beats.heardBroker, out)
	if quiet < limit {
		return false
	}
	r.leave(out, &Refusal{"silent", "broker has been silent for " + quiet.Round(time.Millisecond).String()})
	return true
}

// clientSilence is how long the client may say nothing; 0: as long as it likes.
func (r *Recorder) clientSilence() time.Duration {
	switch {
	case r.stage == greeting:
		return r.cfg.ConnectTimeout
	case r.stage == talking && r.greeted:
		return times(r.beats.clientQuiet)
	}
	return 0
}

func times(d time.Duration) time.Duration { return time.Duration(float64(d) * patience) }
func share(d time.Duration) time.Duration { return time.Duration(float64(d) * haste) }

// calm is how long a session has to have run on a broker for refusals before that not to count any more.
const calm = 10 * time.Second

func (r *Recorder) tickBroker(out *session.Out) {
	b := &r.beats
	switch r.phase {
	case running:
		if out.Now.Sub(r.since) >= calm {
			r.refusals = 0
		}
	case login, replaying:
		if out.Listening[session.Broker].IsZero() {
			r.asked = out.Now // the answer may stand behind what a slow client keeps the shell from reading
		}
		if out.Now.Sub(r.asked) >= r.cfg.LoginTimeout {
			r.leave(out, &Refusal{"login-timeout", "no answer to the login within " + r.cfg.LoginTimeout.String()})
		}
	}
	if !r.brokerSilent(out) && r.phase >= replaying && b.brokerEvery > 0 && out.Now.Sub(b.toldBroker) >= share(b.brokerEvery) {
		r.appendBroker(out, []byte{'\n'})
	}
}

// tickHold ends the hold when the oldest unanswered request is too old. The clock of a request is its own: it does not start
// again when a broker comes and goes.
func (r *Recorder) tickHold(out *session.Out) {
	if r.phase == running && r.stage != leaving || r.stage == greeting || r.stage == ended {
		return
	}
	deadline, oldest := r.holdDeadline()
	if out.Now.Before(deadline) {
		return
	}
	if r.farewell.gone {
		r.end(out, "hold-timeout", nil)
		return
	}
	held := out.Now.Sub(oldest)
	text := "no broker took over within "
	if !r.greeted {
		text = "no broker could be reached within "
	}
	r.fail(out, "hold-timeout", nil, text+held.Round(100*time.Millisecond).String(), heldHeader(held.Milliseconds()))
}

// holdDeadline is when the hold ends, and since when the request it is for has been waiting.
func (r *Recorder) holdDeadline() (deadline, oldest time.Time) {
	if r.farewell.gone || r.phase == running {
		return r.farewell.at.Add(r.cfg.Hold), r.farewell.at // nobody waits for an answer; the broker is still to be told
	}
	note := func(at time.Time) {
		if oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	if !r.greeted {
		note(r.connectAt)
	}
	if r.stage == leaving {
		note(r.farewell.at)
	}
	for e := range r.log.all() {
		if e.wants {
			note(e.at)
			break
		}
	}
	for _, sub := range r.subs.list {
		if sub.wants != nil {
			note(sub.at)
		}
	}
	if !oldest.IsZero() {
		return oldest.Add(r.cfg.Hold), oldest
	}
	since := r.lostAt
	if since.IsZero() { // the first login is not complete
		since = r.connectAt
	}
	return since.Add(r.cfg.HoldIdle), since
}

// Wrote implements session.Recorder.
func (r *Recorder) Wrote(leg session.Leg, total uint64, out *session.Out) {
	if leg == session.Client && r.stage != ended {
		r.auto.arrive(total, out.Now)
		r.acknowledgeAuto(out)
		r.takeLeave(out)
		r.schedule(out)
	}
}

// acknowledgeAuto acknowledges what the kernel of an ack:auto client has had for a while. The lag is there for a client that closes or
// resets with messages unread: those must stay unacknowledged.
func (r *Recorder) acknowledgeAuto(out *session.Out) {
	lag := r.cfg.AutoAckLag
	switch {
	case r.farewell.orderly:
		lag = 0 // what a client has in its kernel when it says DISCONNECT it has had the chance to read
	case r.stage != talking:
		return
	}
	for {
		a, ok := r.auto.due(out.Now.Add(-lag))
		if !ok {
			return
		}
		if d := r.held.at(a.slot); d.serial == a.serial && d.state == unacked {
			r.acknowledge(ackEntry, a.slot, out)
		}
	}
}

// schedule works out when Tick is wanted next, and whether the client is to be read.
func (r *Recorder) schedule(out *session.Out) {
	if r.stage == ended {
		out.Wake = time.Time{}
		return
	}
	var wake time.Time
	at := func(from time.Time, d time.Duration) {
		if d > 0 {
			if t := from.Add(d); wake.IsZero() || t.Before(wake) {
				wake = t
			}
		}
	}
	b := &r.beats
	at(b.heardClient, r.clientSilence())
	if r.greeted && !r.farewell.gone {
		at(b.toldClient, share(b.clientEvery))
	}
	switch r.phase {
	case login, replaying:
		at(r.asked, r.cfg.LoginTimeout)
	}
	if r.phase >= replaying {
		at(b.heardBroker, times(b.brokerQuiet))
		at(b.toldBroker, share(b.brokerEvery))
	}
	if (r.phase != running || r.stage == leaving) && r.stage != greeting {
		// To look too early costs little, to work out the deadline with every frame much: a request that comes now has its own no sooner than
		// a hold from now.
		if r.look.IsZero() {
			r.look, _ = r.holdDeadline()
		}
		if soon := out.Now.Add(r.cfg.Hold); soon.Before(r.look) {
			r.look = soon
		}
		at(r.look, 1)
	}
	if r.phase >= replaying && r.settled() && !r.reclaim.IsZero() && !(r.unheard() && !out.Now.Before(r.reclaim)) {
		at(r.reclaim, 1)
	}
	if oldest := r.auto.oldest(); !oldest.IsZero() && r.stage == talking {
		at(oldest, r.cfg.AutoAckLag)
	}
	if since := r.log.rests(); !since.IsZero() {
		at(since, restful)
	}
	if until := r.arrivalEnds(out.Now); !until.IsZero() && r.stage == leaving {
		at(until, 1)
	}
	out.Wake = wake
	out.Arrival = r.auto.seen < len(r.auto.queue)
	out.Kept, out.Open = r.log.size+r.log.open, len(r.txs) > 0
	full := r.log.size > r.cfg.Window
	if out.Pause[session.Client] {
		full = r.log.size > r.cfg.Window*3/4
	}
	out.Pause[session.Client] = full && r.stage != leaving
}
