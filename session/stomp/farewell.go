package stomp

import (
	"bytes"
	"errors"
	"strconv"
	"time"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// disconnect takes the client's DISCONNECT: everything it sent is settled first, then the broker is told to close the session for
// good, then the client's receipt is answered. [STOMP 1.2 DISCONNECT]
func (r *Recorder) disconnect(f *frame.Frame, out *session.Out) {
	r.farewell.receipt = bytes.Clone(f.Value("receipt"))
	r.stage, r.farewell.at, r.farewell.orderly = leaving, out.Now, true
	r.acknowledgeAuto(out)
	for _, sub := range r.subs.list {
		sub.discard()
	}
	// With nothing in doubt and no broker there is nothing to wait for: the client is answered, the broker is told when there is one.
	if r.phase == parked && !r.owes() {
		r.answerFarewell(out)
	}
	r.takeLeave(out)
}

// ClientEOF implements session.Recorder. Whole frames that the client had sent still count, as they would have at a broker; its
// unacknowledged messages go back when the session is closed there.
func (r *Recorder) ClientEOF(half bool, out *session.Out) {
	if !half {
		r.farewell.gone = true
	}
	r.depart(out)
	r.schedule(out)
}

// depart is an end of the client without DISCONNECT.
func (r *Recorder) depart(out *session.Out) {
	switch r.stage {
	case greeting:
		r.end(out, "client-closed", nil)
	case talking:
		r.stage, r.farewell.at = leaving, out.Now
		if r.verbatim() && r.dialect != nil || !r.greeted && r.log.live == 0 {
			r.end(out, "client-closed", nil) // no broker knows of it, or none that keeps sessions
			return
		}
		r.takeLeave(out)
	}
}

// owes reports whether anything the client asked for is still open.
func (r *Recorder) owes() bool {
	for e := range r.log.all() {
		if e.effect != 0 || e.wants {
			return true
		}
	}
	for _, sub := range r.subs.list {
		if sub.wants != nil {
			return true
		}
	}
	return false
}

// takeLeave sends our DISCONNECT once nothing of a leaving client is unsettled.
func (r *Recorder) takeLeave(out *session.Out) {
	if r.stage != leaving || r.verbatim() || r.phase < replaying || !r.settled() || r.log.live > 0 || r.farewell.sent || r.awaitsArrival(out.Now) {
		return
	}
	if r.marks.state == marksOn {
		r.ackMarks(len(r.marks.unacked), out) // the broker is to keep nothing of ours
	}
	r.receipts++
	r.farewell.sent, r.farewell.told, r.farewell.awaiting = true, true, r.receipts
	b := append(r.scratch[:0], "DISCONNECT\nreceipt:u"...)
	b = strconv.AppendUint(b, r.receipts, 10)
	b = append(b, "\n\n\x00"...)
	r.scratch = b
	r.appendBroker(out, b)
}

// arrivalGrace is how long a DISCONNECT waits for the client's kernel to have the last messages of ack:auto subscriptions.
const arrivalGrace = 100 * time.Millisecond

// awaitsArrival reports whether messages of ack:auto subscriptions are still under way to a client that said DISCONNECT, or marks to us.
func (r *Recorder) awaitsArrival(now time.Time) bool { return !r.arrivalEnds(now).IsZero() }

// arrivalEnds is until when that is waited for; zero if it is not.
func (r *Recorder) arrivalEnds(now time.Time) (until time.Time) {
	if r.farewell.orderly && !r.farewell.gone && r.auto.head < len(r.auto.queue) {
		until = r.farewell.at.Add(arrivalGrace)
	}
	if t := r.marks.at.Add(arrivalGrace); r.marks.state == marksOn && r.marks.seen < r.marks.sent && t.After(until) {
		until = t
	}
	if !until.After(now) {
		return time.Time{}
	}
	return until
}

// goodbye takes the broker's answer to our DISCONNECT.
func (r *Recorder) goodbye(out *session.Out) {
	r.answerFarewell(out)
	if r.farewell.silent {
		r.end(out, "client-silent", errors.New("the client's heart-beat stopped"))
		return
	}
	r.end(out, "client-closed", nil)
}

func (r *Recorder) answerFarewell(out *session.Out) {
	r.answerOwed(r.log.all(), out)
	if r.farewell.receipt != nil {
		r.receipt(out, r.farewell.receipt)
		r.farewell.receipt = nil
	}
}
