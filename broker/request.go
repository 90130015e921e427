package broker

import (
	"bytes"
	"errors"

	"github.com/understudy-mq/understudy/broker/selector"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// request is a client's frame, decoded outside the store's lock. Slices point into the read buffer or were unescaped from it: they are
// valid until the batch was handled.
type request struct {
	command   frame.Command
	name      []byte // of an unknown command
	receipt   []byte // as it stood on the wire, to be echoed; nil if none was asked for
	effect    uint64 // 0: none was given
	tx        []byte // nil: outside
	dest      []byte
	id        []byte // of a subscription
	msg       msgID  // of an ACK
	ack       ackID
	byAck     bool // ACK names ack, not msg
	mode      ackMode
	prefetch  int
	claims    []claim
	selector  *selector.Selector
	temps     [][]byte // temporary queues that it uses, by the client's names
	browser   bool
	after     browsed  // what a browser was shown up to
	durable   []byte   // name of a durable subscription, nil: none
	message   *message // of a SEND
	transient bool
	fault     *fault
}

// ackID is the text of an ack header: epoch.connection.subscription.delivery.
type ackID struct{ epoch, conn, sub, n uint64 }

// Limits of what is kept for a client by name.
const (
	maxName   = 1024      // octets of a destination, a subscription or transaction id
	maxClaims = 1 << 17   // in one SUBSCRIBE
	maxHold   = 24 * 3600 // seconds, the longest HeaderHold
)

var errName = errors.New("more than 1024 octets")

// decoder turns frames into requests. It belongs to one connection's reader.
type decoder struct {
	version frame.Version
	sidecar bool
	owner   string // of the client's temporary queues
	lines   []byte // scratch
	plain   []byte // scratch
}

// decode never fails: what is wrong with the frame is in the request's fault, so that everything before it is handled first.
func (d *decoder) decode(f *frame.Frame) (r request) {
	r.command, r.name = f.Command, f.Name
	var err error
	if f.Command == frame.Send {
		err = d.send(f, &r)
	} else {
		err = d.other(f, &r)
	}
	if err != nil && r.fault == nil {
		r.fault = faultf("malformed "+f.Command.String(), "%v", err)
	}
	return r
}

// send decodes the frame that matters for speed: one pass over the headers, one copy of what is kept.
func (d *decoder) send(f *frame.Frame, r *request) error {
	d.lines = d.lines[:0]
	length, prio, expires := false, int8(0), (*deadline)(nil)
	for name, value := range f.Headers {
		switch string(name) {
		case "destination":
			if r.dest == nil {
				if err := d.destination(value, r); err != nil {
					return err
				}
			}
		case "reply-to":
			if err := d.replyTo(value, r); err != nil {
				return err
			}
		case "receipt":
			first(&r.receipt, value)
		case "transaction":
			if r.tx == nil {
				if err := d.name(value, &r.tx); err != nil {
					return err
				}
			}
		case "content-length":
			// The first has cut the frame; a second one could only mislead somebody.
			if !length {
				d.lines = frame.AppendUint(d.lines, "content-length", uint64(len(f.Body)))
				length = true
			}
		case "message-id", "subscription", "ack", "redelivered":
		case "expires":
			if expires == nil {
				expires = deadlineOf(d.trim(value))
			}
			if err := d.keep(name, value); err != nil {
				return err
			}
		case "priority":
			if prio == 0 {
				prio = prioOf(d.trim(value))
			}
			if err := d.keep(name, value); err != nil {
				return err
			}
		case frame.HeaderEffect:
			if err := d.effect(value, r); err != nil {
				return err
			}
		default:
			if string(name) == "persistent" && string(d.trim(value)) == "false" {
				r.transient = true
			}
			if err := d.keep(name, value); err != nil {
				return err
			}
		}
	}
	if len(r.dest) == 0 {
		return errors.New("SEND has no destination")
	}
	data := make([]byte, len(d.lines)+len(f.Body))
	copy(data[copy(data, d.lines):], f.Body)
	r.message = &message{data: data, split: int32(len(d.lines)), transient: r.transient, prio: prio, deadline: expires}
	return nil
}

// keep adds a header of the sender's to what consumers see, in 1.2 encoding.
func (d *decoder) keep(name, value []byte) error {
	if bytes.HasPrefix(name, []byte(frame.PairedPrefix)) {
		return nil
	}
	simple := bytes.IndexByte(name, '\\') < 0 && bytes.IndexByte(value, '\\') < 0 && bytes.IndexByte(value, ':') < 0 &&
		bytes.IndexByte(value, '\r') < 0 && bytes.IndexByte(name, '\r') < 0
	if simple {
		d.lines = frame.AppendHeader(append(d.lines, name...), "", d.trim(value))
		return nil
	}
	var err error
	for i, part := range [2][]byte{name, d.trim(value)} {
		if d.plain, err = frame.Unescape(d.plain[:0], part, d.version); err != nil {
			return err
		}
		d.lines = frame.Escape(d.lines, d.plain, frame.V12)
		d.lines = append(d.lines, ":\n"[i])
	}
	return nil
}

// trim removes the padding that 1.0 allows around a value; later versions forbid to touch it. [STOMP 1.2 Changes]
func (d *decoder) trim(v []byte) []byte {
	if d.version == frame.V10 {
		return bytes.Trim(v, " \t\r")
	}
	return v
}

// text decodes a value; without escapes it stays where it is.
func (d *decoder) text(v []byte) ([]byte, error) {
	v = d.trim(v)
	if d.version == frame.V10 || bytes.IndexByte(v, '\\') < 0 {
		return v, nil
	}
	return frame.Unescape(nil, v, d.version)
}

// name decodes a value that is kept by the store.
func (d *decoder) name(v []byte, into *[]byte) (err error) {
	*into, err = d.text(v)
	if err == nil && len(*into) > maxName {
		err = errName
	}
	return err
}

func (d *decoder) destination(v []byte, r *request) error {
	err := d.name(v, &r.dest)
	if err == nil {
		r.dest, err = d.temporary(r.dest, r)
	}
	return err
}

func (d *decoder) effect(v []byte, r *request) error {
	if !d.sidecar || r.effect != 0 {
		return nil
	}
	n, ok := frame.ParseUint(v)
	if !ok || n == 0 {
		return errors.New("the effect is not a number from 1")
	}
	r.effect = n
	return nil
}

// other decodes every frame but SEND.
func (d *decoder) other(f *frame.Frame, r *request) error {
	var mode, prefetch, claims, id, msg, sub, selects []byte
	for name, value := range f.Headers {
		switch string(name) {
		case "receipt":
			first(&r.receipt, value)
		case "destination":
			first(&r.dest, value)
		case "transaction":
			first(&r.tx, value)
		case "id":
			first(&id, value)
		case "subscription":
			first(&sub, value)
		case "message-id":
			first(&msg, value)
		case "ack":
			first(&mode, value)
		case "activemq.prefetchSize", "prefetch-count":
			first(&prefetch, value)
		case "selector":
			first(&selects, value)
		case "durable-subscription-name", "durable-subscriber-name", "activemq.subscriptionName":
			first(&r.durable, value)
		case "browser":
			r.browser = string(d.trim(value)) == "true"
		case frame.HeaderBrowseAfter:
			var ok bool
			if r.after, ok = parseBrowsed(value); d.sidecar && !ok {
				return errors.New("the place of a browser is not priority.sequence")
			}
		case frame.HeaderClaims:
			first(&claims, value)
		case frame.HeaderEffect:
			if err := d.effect(value, r); err != nil {
				return err
			}
		}
	}
	if r.dest != nil {
		if err := d.destination(r.dest, r); err != nil {
			return err
		}
	}
	for _, v := range []*[]byte{&r.tx, &id, &sub, &r.durable} {
		if *v != nil {
			if err := d.name(*v, v); err != nil {
				return err
			}
		}
	}
	if len(r.durable) == 0 {
		r.durable = nil
	}
	switch f.Command {
	case frame.Subscribe:
		r.id = id
		if err := d.selector(r, selects); err != nil {
			return err
		}
		return d.subscribe(r, mode, prefetch, claims)
	case frame.Unsubscribe:
		r.id = id
		if id == nil && r.durable == nil && (d.version != frame.V10 || r.dest == nil) {
			return errors.New("UNSUBSCRIBE has no id")
		}
	case frame.Ack, frame.Nack:
		return d.acknowledge(r, id, msg, sub)
	case frame.Begin, frame.Commit, frame.Abort:
		if len(r.tx) == 0 {
			return errors.New(f.Command.String() + " has no transaction")
		}
	}
	return nil
}

// selector parses one; an empty text selects everything, as a missing header does.
func (d *decoder) selector(r *request, v []byte) error {
	text, err := d.text(v)
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		return err
	}
	if r.selector, err = selector.Parse(string(text)); err != nil {
		r.fault = faultf("invalid selector", "the selector is wrong at %v", err)
	}
	return nil
}

func first(into *[]byte, v []byte) {
	if *into == nil {
		*into = v
	}
}

func (d *decoder) subscribe(r *request, mode, prefetch, claims []byte) error {
	if len(r.dest) == 0 {
		return errors.New("SUBSCRIBE has no destination")
	}
	if bytes.ContainsAny(r.dest, "*>") {
		r.fault = faultf("not supported", "this broker has no wildcards: SUBSCRIBE to one destination")
		return nil
	}
	if r.id == nil && (d.version != frame.V10 || d.sidecar) {
		return errors.New("SUBSCRIBE has no id")
	}
	switch string(d.trim(mode)) {
	case "", "auto":
		r.mode = ackAuto
	case "client":
		r.mode = ackClient
	case "client-individual":
		r.mode = ackEach
	default:
		return errors.New("ack is none of auto, client, client-individual")
	}
	if prefetch != nil {
		n, ok := frame.ParseUint(d.trim(prefetch))
		if !ok {
			return errors.New("the prefetch is not a number")
		}
		r.prefetch = int(min(n, 1<<30))
	}
	if !d.sidecar || len(claims) == 0 {
		return nil
	}
	plain, err := d.text(claims)
	if err != nil {
		return err
	}
	r.claims, err = parseClaims(plain)
	return err
}

// acknowledge decodes what an ACK or NACK refers to: a sidecar says message-id and subscription in every version, a client what its
// version has. [STOMP 1.2 ACK]
func (d *decoder) acknowledge(r *request, id, msg, sub []byte) error {
	if d.version == frame.V12 && !d.sidecar {
		var ok bool
		r.byAck = true
		if r.ack, ok = parseAckID(id); !ok {
			r.fault = faultf("unknown acknowledgement", "%s has no id, or one that this broker never gave out", r.command)
		}
		return nil
	}
	if d.version == frame.V10 && !d.sidecar && r.command == frame.Nack {
		return errors.New("STOMP 1.0 has no NACK")
	}
	if sub == nil && (d.version != frame.V10 || d.sidecar) {
		return errors.New(r.command.String() + " has no subscription")
	}
	plain, err := d.text(msg)
	if err != nil {
		return err
	}
	var ok bool
	r.id = sub
	if r.msg, ok = parseMsgID(plain); !ok && d.sidecar {
		// Its client acknowledged something that never was a delivery: the effect counts, and changes nothing.
		r.msg = msgID{index: nowhere}
	} else if !ok {
		r.fault = faultf("unknown acknowledgement", "%s has no message-id, or one that this broker never gave out", r.command)
	}
	return nil
}

func parseAckID(b []byte) (a ackID, ok bool) {
	for i, into := range [...]*uint64{&a.epoch, &a.conn, &a.sub, &a.n} {
		part, rest, more := bytes.Cut(b, []byte{'.'})
		if *into, ok = frame.ParseUint(part); !ok || more != (i < 3) {
			return a, false
		}
		b = rest
	}
	return a, true
}

// parseClaims reads HeaderClaims: message-id=epoch.ordinal, separated by commas.
func parseClaims(b []byte) ([]claim, error) {
	n := bytes.Count(b, []byte{','}) + 1
	if n > maxClaims {
		return nil, errors.New("too many claims")
	}
	claims := make([]claim, 0, n)
	for one := range bytes.SplitSeq(b, []byte{','}) {
		id, right, _ := bytes.Cut(one, []byte{'='})
		epoch, ordinal, _ := bytes.Cut(right, []byte{'.'})
		var c claim
		var ok1, ok2, ok3 bool
		c.id, ok1 = parseMsgID(id)
		c.basis.epoch, ok2 = frame.ParseUint(epoch)
		c.basis.ordinal, ok3 = frame.ParseUint(ordinal)
		if !ok1 || !ok2 || !ok3 {
			return nil, errors.New("a claim is not message-id=epoch.ordinal")
		}
		claims = append(claims, c)
	}
	return claims, nil
}
