package interop

import (
	"strconv"
	"strings"
	"time"
)

// Evidence is what is known of a cell when it is over.
type Evidence struct {
	Run      string
	Size     int       // octets of a body
	Numbered bool      // a receipt's name is the message's number
	Fault    time.Time // when it struck; zero: none did
	Producer []Event
	Consumer []Event
	// Left are deliveries to whoever emptied the queue afterwards, in order.
	Left []Event
}

// Counts are what the lines of a cell come to.
type Counts struct {
	Sent      int `json:"sent"`
	Confirmed int `json:"confirmed"`
	// Received are messages, each counted once, that reached the cell's consumer or whoever emptied the queue afterwards.
	Received int `json:"received"`
	// Lost are confirmed messages that were not received.
	Lost int `json:"lost"`
	// Duplicated are deliveries beyond the first of each message.
	Duplicated int `json:"duplicated"`
	// Reordered are first deliveries behind a later message.
	Reordered int `json:"reordered"`
	// InDoubt were sent, and their sender heard neither that they are stored nor that this is unknown.
	InDoubt int `json:"in_doubt"`
	// ToldUnknown are those that an ERROR named as being in doubt, as far as the library lets its headers through.
	ToldUnknown int `json:"told_unknown"`
	// Denied were delivered although an ERROR said what is in doubt and did not list them; counted where receipts are named by the number.
	Denied int `json:"denied"`
	// Stranded are confirmed messages that the consumer did not get and that lay in the queue afterwards.
	Stranded int `json:"stranded"`
	// Altered are deliveries of what nobody sent, or of a body of another length.
	Altered int `json:"altered"`
	// SilenceMS is the longest time after the fault without a receipt or without a message, in milliseconds, while the producer had messages
	// to send; nil when either never came again, or a client did not end in good order.
	SilenceMS *int64 `json:"silence_ms"`
	// InAir are SENDs without a receipt when the fault struck, and Unacked deliveries without an ACK: a fault that finds nothing proves little.
	InAir   int `json:"in_air"`
	Unacked int `json:"unacked"`
	// Errors are what the clients noticed.
	Errors []string `json:"errors"`
	// Told says that every error was an ERROR of the sidecar that names what is in doubt.
	Told bool `json:"-"`
	// listed are the receipts that the producer's ERROR named; nil where their names do not tell the message.
	listed map[string]bool
	// Ended says that both clients ended in good order.
	Ended bool `json:"-"`
}

// fate is what is known of one message.
type fate struct {
	sent, confirmed, firstDelivered, acked time.Time
	wasSent, wasConfirmed                  bool
	deliveries, ofConsumer                 int
}

// Check counts. It knows nothing of brokers, libraries or promises.
func Check(e Evidence) Counts {
	var c Counts
	fates := map[int]*fate{}
	of := func(seq int) *fate {
		f := fates[seq]
		if f == nil {
			f = &fate{}
			fates[seq] = f
		}
		return f
	}
	for _, p := range e.Producer {
		switch f := of(p.Seq); p.Kind {
		case 'S':
			f.wasSent, f.sent = true, p.At
		case 'C':
			f.wasConfirmed, f.confirmed = true, p.At
		}
	}
	highest := 0
	deliver := func(d Event, byConsumer bool) {
		f := fates[d.Seq]
		if f == nil || !f.wasSent || d.Run != e.Run || d.Size != e.Size {
			c.Altered++
			return
		}
		if byConsumer {
			f.ofConsumer++
		}
		if f.deliveries++; f.deliveries > 1 {
			c.Duplicated++
			return
		}
		f.firstDelivered = d.At
		if d.Seq < highest {
			c.Reordered++
			return
		}
		highest = d.Seq
	}
	for _, d := range e.Consumer {
		switch d.Kind {
		case 'M':
			deliver(d, true)
		case 'A':
			of(d.Seq).acked = d.At
		}
	}
	for _, d := range e.Left {
		deliver(d, false)
	}
	c.count(fates, e.Fault)
	c.complaints(e)
	c.InDoubt = c.Sent - c.Confirmed
	if c.Told {
		// The ERROR settles all: what it does not list was never taken. It may have crossed a SEND on its way, so that is no contradiction.
		c.InDoubt = 0
	}
	for seq, f := range fates {
		if listed := c.listed; listed != nil && !listed[strconv.Itoa(seq)] && f.wasSent && !f.wasConfirmed && f.deliveries > 0 {
			c.Denied++
		}
	}
	if c.Ended { // who broke never heard anything again
		c.SilenceMS = silence(e)
	}
	return c
}

// count adds up what is known of each message.
func (c *Counts) count(fates map[int]*fate, fault time.Time) {
	before := func(t time.Time) bool { return !t.IsZero() && t.Before(fault) }
	for _, f := range fates {
		if f.wasSent {
			c.Sent++
		}
		if f.wasConfirmed {
			c.Confirmed++
		}
		if f.deliveries > 0 {
			c.Received++
		}
		if f.wasConfirmed && f.deliveries == 0 {
			c.Lost++
		}
		if f.wasConfirmed && f.deliveries > 0 && f.ofConsumer == 0 {
			c.Stranded++
		}
		if before(f.sent) && !before(f.confirmed) {
			c.InAir++
		}
		if before(f.firstDelivered) && f.ofConsumer > 0 && !before(f.acked) {
			c.Unacked++
		}
	}
}

// Headers and words by which the sidecar says that an outcome is unknown.
const (
	headerCode      = "error-code"
	headerReceipts  = "in-doubt-receipts"
	codeInDoubt     = "in-doubt"
	codeHoldTimeout = "hold-timeout"
)

// complaints reads what the clients noticed, and how they ended.
func (c *Counts) complaints(e Evidence) {
	c.Errors, c.Told, c.Ended = []string{}, true, true
	for i, log := range [][]Event{e.Producer, e.Consumer} {
		ended := false
		for _, ev := range log {
			switch ev.Kind {
			case 'B':
				ended = true
			case 'E':
				line, _, _ := strings.Cut(ev.Error.Message, "\n") // ActiveMQ sends the stack trace
				c.Errors = append(c.Errors, line)
				c.Told = c.Told && ev.Error.unknown()
				if ids := ev.Error.Headers[headerReceipts]; ids != "" && i == 0 { // a consumer's receipts are of ACKs
					c.ToldUnknown += 1 + strings.Count(ids, ",")
					if e.Numbered {
						c.listed = map[string]bool{}
						for _, id := range strings.Split(ids, ",") {
							c.listed[id] = true
						}
					}
				}
			}
		}
		c.Ended = c.Ended && ended
	}
	c.Told = c.Told && len(c.Errors) > 0
}

// unknown reports whether the complaint is the sidecar's word that an outcome is unknown. Libraries that hide the headers of an ERROR show
// its message, which says it too.
func (c Complaint) unknown() bool {
	if code := c.Headers[headerCode]; code != "" {
		return code == codeInDoubt
	}
	return strings.Contains(c.Message, "outcome unknown")
}

// silence is the longest pause after the fault, of receipts and of messages, up to when the producer had nothing more to send.
func silence(e Evidence) *int64 {
	if e.Fault.IsZero() {
		return nil
	}
	var end time.Time
	for _, p := range e.Producer {
		if p.Kind == 'S' || p.Kind == 'C' {
			end = p.At
		}
	}
	receipts, ok := longest(e.Producer, 'C', e.Fault, end)
	messages, too := longest(e.Consumer, 'M', e.Fault, end)
	if !ok || !too {
		return nil
	}
	ms := max(receipts, messages).Milliseconds()
	return &ms
}

// longest is the longest pause between events of a kind from a moment until end, or until the first event after it; false when none came.
func longest(log []Event, kind byte, from, end time.Time) (time.Duration, bool) {
	last, pause, came := from, time.Duration(0), false
	for _, ev := range log {
		if ev.Kind != kind || !ev.At.After(from) {
			continue
		}
		came = true
		pause = max(pause, ev.At.Sub(last))
		last = ev.At
		if !ev.At.Before(end) {
			return pause, true
		}
	}
	return max(pause, end.Sub(last)), came
}
