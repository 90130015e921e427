package stomp

import (
	"bytes"
	"strconv"
	"time"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// marks make a cursor of a broker that has transactions but knows neither us nor duplicates. Every SEND goes in a transaction of its own, every
// COMMIT of the client is preceded, by a mark: a message with the entry's place in the log, to a queue that only this session uses. So whatever
// was stored has left its mark, and nobody but us takes marks away. The session reads its marks as they come and acknowledges all but the latest.
//
// A mark may come before it is stored, so only what stands below a confirmed one is acknowledged.
//
// After a break the next connection subscribes as an exclusive consumer and sends a fence, so that there is something to come. Whatever comes
// says that the broker has removed the consumer of the old connection, which it does behind everything that it had read there: no mark
// is added by anybody else any more. So a second fence is sent, and comes behind all marks. What stands in the latest of them is done, the
// rest is not and never will be. [ActiveMQ: a connection's frames are worked through one after the other; exclusive consumers; a queue is
// first in, first out] Sessions that only consume have the queue for its fence: as long as the consumers of the old connection live they are dealt
// messages, which would come to the client late and out of order.
type marks struct {
	state   marksState
	pending uint64    // number of the receipt of the SUBSCRIBE
	refused string    // the broker's words if it does not let us have the queue
	used    bool      // something was marked by this session
	seen    uint64    // the latest mark that has come on this connection
	sent    uint64    // the latest written
	stored  uint64    // the latest that the broker has confirmed; one that has come need not be stored yet
	at      time.Time // when that was
	unacked []came    // what has come and was not acknowledged, as it came
}

// came is a message of the queue of marks.
type came struct {
	mark uint64 // 0: a fence
	name []byte
}

type marksState uint8

const (
	marksOff  marksState = iota // not subscribed on this connection
	marksAsk                    // SUBSCRIBE sent
	marksOn                     // subscribed
	marksWait                   // subscribed, a fence sent
	marksEnd                    // the old connection is gone, the second fence is sent and neither stored nor come yet
	marksLast                   // one of the two
)

const (
	marksID    = "understudy-marks" // of our subscription
	marksQueue = "/queue/understudy.marks."
	headerMark = "understudy-mark"
	fencePart  = "fence-"
	endPart    = "end-"
	// maxMarks is how many marks may have come before those below the latest that is stored are acknowledged.
	maxMarks = 16
)

// marking reports whether what the client does is marked.
func (r *Recorder) marking() bool {
	return r.dialect.marks && r.inDoubt() == InDoubtLookup && r.marks.refused == ""
}

// subscribeMarks asks for the queue of marks. What is to be marked waits for the answer.
func (r *Recorder) subscribeMarks(out *session.Out) {
	m := &r.marks
	r.receipts++
	m.state, m.pending, m.unacked, m.seen = marksAsk, r.receipts, nil, 0
	b := appendReceipt(append(r.scratch[:0], "SUBSCRIBE\n"...), m.pending)
	b = frame.AppendHeader(b, "id", marksID)
	b = frame.AppendHeader(b, "destination", marksQueue+r.cfg.Session)
	// All marks have to come, else the fence behind them does not. There are never as many as this.
	r.scratch = append(b, "ack:client\nactivemq.exclusive:true\nactivemq.prefetchSize:1000000\n\n\x00"...)
	r.appendBroker(out, r.scratch)
	r.gated = true
}

// marksAnswered takes the answer to the SUBSCRIBE, or to the second fence; why is what the broker said if it refused.
func (r *Recorder) marksAnswered(why string, out *session.Out) {
	m := &r.marks
	m.pending = 0
	if m.state != marksAsk && why == "" {
		r.marksEnded(out)
		return
	}
	m.refused = why
	switch {
	case why != "" && !r.weigh(out):
		return
	case why == "" && m.used:
		m.state = marksWait
		r.scratch = r.appendMark(r.scratch[:0], "", fencePart+strconv.FormatUint(r.peer.Attempt, 10))
		r.appendBroker(out, r.scratch)
		return
	}
	m.state, m.used = marksOn, why == ""
	r.goOn(out)
}

// sendEnd sends the second fence. It has to be stored as well as to come, for what comes may not be stored yet; what is stored before it then is.
func (r *Recorder) sendEnd(out *session.Out) {
	m := &r.marks
	r.receipts++
	m.state, m.pending = marksEnd, r.receipts
	b := appendReceipt(append(r.scratch[:0], "SEND\n"...), m.pending)
	mark := r.appendMark(nil, "", endPart+strconv.FormatUint(r.peer.Attempt, 10))
	r.scratch = append(b, mark[len("SEND\n"):]...)
	r.appendBroker(out, r.scratch)
}

// marksEnded takes one of the two signs that the second fence has passed.
func (r *Recorder) marksEnded(out *session.Out) {
	if r.marks.state == marksEnd {
		r.marks.state = marksLast
		return
	}
	r.marks.state = marksOn
	r.settleMarked(out)
	r.dropMarks(out)
	r.goOn(out)
}

// goOn plays what had to wait. From here on redeliveries can be expected.
func (r *Recorder) goOn(out *session.Out) {
	if r.again {
		r.again, r.reclaim = false, out.Now.Add(r.cfg.ReclaimWait)
	}
	r.replay(out)
	r.confirmReplay(out)
}

// appendMark writes a message to the queue of marks.
func (r *Recorder) appendMark(b []byte, tx, mark string) []byte {
	b = frame.AppendHeader(append(b, "SEND\n"...), "destination", marksQueue+r.cfg.Session)
	b = frame.AppendHeader(append(b, "persistent:true\n"...), headerMark, mark)
	if tx != "" {
		b = frame.AppendHeader(b, "transaction", tx)
	}
	return append(b, '\n', 0)
}

// markOf writes the mark of an effect.
func (r *Recorder) markOf(b []byte, e *entry, tx string) []byte {
	r.marks.sent = e.order
	return r.appendMark(b, tx, strconv.FormatUint(e.order, 10))
}

// marked takes a message of the queue of marks.
func (r *Recorder) marked(f *frame.Frame, out *session.Out) {
	m := &r.marks
	_, name := r.identify(f)
	value := f.Value(headerMark)
	n, _ := frame.ParseUint(value)
	m.seen = max(m.seen, n)
	m.unacked = append(m.unacked, came{n, bytes.Clone(name)})
	r.dropMarks(out)
	if m.state == marksWait {
		r.sendEnd(out)
	}
	end, ok := bytes.CutPrefix(value, []byte(endPart))
	if n, number := frame.ParseUint(end); ok && number && n == r.peer.Attempt && m.state != marksOn {
		r.marksEnded(out)
	}
	r.takeLeave(out)
}

// markStored notes that an effect was confirmed, and so its mark is stored.
func (r *Recorder) markStored(e *entry, out *session.Out) {
	if r.marks.state == marksOn && (e.kind == sendEntry || e.kind == commitEntry) {
		r.marks.stored, r.marks.at = max(r.marks.stored, e.order), out.Now
		r.dropMarks(out)
	}
}

// dropMarks acknowledges marks when enough of them have come. The latest that is stored must stay.
func (r *Recorder) dropMarks(out *session.Out) {
	m := &r.marks
	if len(m.unacked) < maxMarks || m.state != marksOn {
		return
	}
	n := 0
	for n < len(m.unacked) && m.unacked[n].mark < m.stored {
		n++
	}
	if n >= maxMarks/2 {
		r.ackMarks(n, out)
	}
}

// ackMarks acknowledges the first n that have come, all at once.
func (r *Recorder) ackMarks(n int, out *session.Out) {
	m := &r.marks
	if n == 0 {
		return
	}
	b, name := append(r.scratch[:0], "ACK\n"...), m.unacked[n-1].name
	if r.version == frame.V12 {
		b = frame.AppendHeader(b, "id", name)
	} else {
		b = frame.AppendHeader(b, "subscription", marksID)
		b = frame.AppendHeader(b, "message-id", name)
	}
	r.scratch = append(b, '\n', 0)
	r.appendBroker(out, r.scratch)
	m.unacked = append(m.unacked[:0], m.unacked[n:]...)
}

// settleMarked settles what the marks say is done.
func (r *Recorder) settleMarked(out *session.Out) {
	for e := range r.log.all() {
		if r.doubtful(e) && e.order <= r.marks.seen {
			r.conclude(e, false, out)
			r.log.settle(e)
		}
	}
	r.log.compact()
}
