package stomp

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// Refusal is why a broker was left before, or instead of, being run on. The session goes on at the next one.
type Refusal struct{ code, text string }

// Error is the broker's own words where it had any.
func (e *Refusal) Error() string { return e.text }

// Code is one of the frame.Code constants, or a word of the recorder's own: epoch, login-timeout, silent, malformed, error, closed.
func (e *Refusal) Code() string { return e.code }

// leave asks the shell to drop this broker connection and dial again.
func (r *Recorder) leave(out *session.Out, why *Refusal) {
	if out.Move == nil {
		out.Move = why
	}
}

// Headers of the ERROR that ends a session which could not be carried on. Values are comma-separated ids as the client gave them.
const (
	errorCode         = "error-code"            // hold-timeout, in-doubt, not-resumable, poison-frame, lost-state, which-store, protocol, …
	errorReceipts     = "in-doubt-receipts"     // receipt ids that were asked for and not answered
	errorTransactions = "in-doubt-transactions" // transactions whose COMMIT was not answered
	errorAcks         = "in-doubt-acks"         // message ids whose ACK or NACK was not confirmed
	errorHeld         = "held-ms"               // how long the client was held
)

// Each list in an ERROR is cut after so many ids; the body says how many there are in all.
const maxListed = 100

// doubt is what an ERROR tells of the frames that no broker has confirmed. Its lines are one frame each: the command, then name=value pairs, the
// first of them the outcome: unknown if a broker may have had the frame, unsent if none has.
type doubt struct {
	receipts, transactions, acks, lines []string
	effects, unsent                     int
}

func (r *Recorder) inDoubtNow() (d doubt) {
	// These few first, for a list may be cut.
	if r.farewell.receipt != nil {
		d.receipts = append(d.receipts, string(r.farewell.receipt))
	}
	for _, sub := range r.subs.list {
		if sub.wants != nil {
			d.receipts = append(d.receipts, string(sub.wants))
		}
	}
	for e := range r.log.all() {
		id := e.receiptID()
		if len(id) > 0 {
			d.receipts = append(d.receipts, string(id))
		}
		if e.effect == 0 {
			continue
		}
		d.effects++
		outcome := "unknown"
		if !e.sent && !e.doubt {
			outcome = "unsent"
			d.unsent++
		}
		var b strings.Builder
		b.WriteString([...]string{"SEND", "ACK", "NACK", "BEGIN", "COMMIT", "ABORT", "UNSUBSCRIBE", "other"}[e.kind] + " outcome=" + outcome)
		if len(id) > 0 {
			b.WriteString(" receipt=" + string(id))
		}
		switch e.kind {
		case sendEntry:
			b.WriteString(" destination=" + string(e.destination()))
			if name := r.sentID(e); name != "" {
				b.WriteString(" message-id=" + name)
			}
		case ackEntry, nackEntry:
			d.acks = append(d.acks, string(r.targetID(e)))
			b.WriteString(" message-id=" + string(r.targetID(e)))
		case commitEntry, abortEntry:
			if e.kind == commitEntry {
				d.transactions = append(d.transactions, e.tx.id)
			}
			b.WriteString(" transaction=" + e.tx.id)
		}
		if len(d.lines) < maxListed {
			d.lines = append(d.lines, b.String())
		}
	}
	return d
}

// sentID is the message-id that the broker gave a SEND, or would have given it, where that can be known.
func (r *Recorder) sentID(e *entry) string {
	switch {
	case r.dialect == nil:
	case r.dialect.paired:
		return r.cfg.Session + ":" + strconv.FormatUint(e.effect, 10)
	}
	return ""
}

// reject ends the session for a frame that makes no sense.
func (r *Recorder) reject(out *session.Out, f *frame.Frame, message string) {
	extra := ""
	if id, ok := f.Get("receipt"); ok {
		extra = "receipt-id:" + string(id) + "\n"
	}
	r.fail(out, "protocol", nil, message, extra)
}

// fail ends the session with an ERROR to the client that names what is in doubt. [STOMP 1.2 ERROR]: the server closes after it.
func (r *Recorder) fail(out *session.Out, code string, cause error, message, extra string) {
	if r.stage == ended {
		return
	}
	d := r.inDoubtNow()
	var b strings.Builder
	b.WriteString("ERROR\nmessage:" + r.headerText(message) + "\n" + errorCode + ":" + code + "\n")
	list := func(name string, ids []string) {
		if len(ids) > 0 {
			b.WriteString(name + ":" + strings.Join(ids[:min(len(ids), maxListed)], ",") + "\n")
		}
	}
	list(errorReceipts, d.receipts)
	list(errorTransactions, d.transactions)
	list(errorAcks, d.acks)
	b.WriteString(extra + "content-type:text/plain\n\n" + message + ".\n")
	if d.effects > 0 {
		fmt.Fprintf(&b, "Frames that no broker has confirmed: %d, of which no broker had: %d. In doubt: receipts %d, transactions %d, acknowledgements %d.\n",
			d.effects, d.unsent, len(d.receipts), len(d.transactions), len(d.acks))
		b.WriteString(strings.ReplaceAll(strings.Join(d.lines, "\n"), "\x00", "") + "\n")
	}
	b.WriteByte(0)
	r.appendClient(out, []byte(b.String()))
	if cause == nil {
		cause = errors.New(message)
	}
	r.end(out, code, cause)
}

// headerText makes a text of ours a header value. Before CONNECTED there are no escapes: an ERROR to a failed CONNECT is in 1.0.
func (r *Recorder) headerText(s string) string {
	if r.greeted && r.version > frame.V10 {
		return string(frame.Escape(nil, []byte(s), r.version))
	}
	return strings.NewReplacer("\n", " ", "\r", " ", "\x00", " ").Replace(s)
}

// Nowhere implements session.Recorder.
func (r *Recorder) Nowhere(why error, out *session.Out) {
	code := "no-broker"
	if coded := interface{ Code() string }(nil); errors.As(why, &coded) {
		code = coded.Code()
	}
	r.fail(out, code, why, why.Error(), "")
}

// end ends the session; what is queued for the client still leaves.
func (r *Recorder) end(out *session.Out, code string, cause error) {
	if r.stage != ended {
		r.stage = ended
		out.End = &session.Fault{Code: code, Cause: cause}
	}
}

// clean makes a text safe as a header value in every version, without escapes.
func clean(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\r' || c == 0:
			return ' '
		case c == ':':
			return '='
		case c == '\\':
			return '/'
		}
		return c
	}, s)
}

func heldHeader(ms int64) string { return errorHeld + ":" + strconv.FormatInt(ms, 10) + "\n" }

// errorText is what an ERROR frame says, for logs: its message header, cut.
func errorText(f *frame.Frame) string {
	m := f.Value("message")
	if len(m) == 0 {
		m = f.Body
	}
	return string(m[:min(len(m), 300)])
}
