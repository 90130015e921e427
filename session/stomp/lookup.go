package stomp

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// lookup asks a broker whose message-ids are predictable what became of the SENDs and COMMITs that an earlier connection left in doubt: it browses
// their queues for the ids. Found means done, and so is everything that was sent before it on the same connection, for the broker
// works through a connection in order. Not found means unknown: the message may never have come, or have been consumed.
type lookup struct {
	asks   []*ask
	rounds int
	found  map[string]bool // message-ids
}

// ask is the part of a lookup that concerns one queue.
type ask struct {
	dest []byte
	ids  []string
	sub  string // id of the browser that is running
	done bool
}

const (
	// lookupRounds is how often a queue is browsed. A cold one shows 200 messages more each time. [ActiveMQ, maxPageSize]
	lookupRounds = 10
	// maxAsked bounds the ids in one selector; the latest are asked for, since a found one settles those before it.
	maxAsked = 100
	// lookupPrefix begins the ids of our browsers.
	lookupPrefix = "understudy-lookup-"
)

// about adds what is in doubt of an entry. For a COMMIT those are the transaction's SENDs.
func (l *lookup) about(r *Recorder, e *entry) {
	if e.kind == commitEntry {
		for inner := range r.log.of(e.tx) {
			if inner.kind == sendEntry {
				l.aboutSend(r, inner)
			}
		}
		return
	}
	l.aboutSend(r, e)
}

func (l *lookup) aboutSend(r *Recorder, e *entry) {
	raw := e.frame.Bytes()
	dest := headerOf(raw[afterCommand(raw):headerEnd(raw)], "destination")
	if isTopic(dest) || bytes.HasPrefix(dest, []byte("/temp-")) || bytes.HasPrefix(dest, []byte("/remote-temp-")) || bytes.ContainsAny(dest, ",*>") {
		return
	}
	var to *ask
	for _, a := range l.asks {
		if bytes.Equal(a.dest, dest) {
			to = a
		}
	}
	for _, was := range e.was {
		if !strings.HasPrefix(was.session, "ID:") {
			continue // with a client-id the session header tells nothing
		}
		if to == nil {
			to = &ask{dest: bytes.Clone(dest)}
			l.asks = append(l.asks, to)
		}
		if to.ids = append(to.ids, was.messageID()); len(to.ids) > maxAsked {
			to.ids = to.ids[1:]
		}
	}
}

// messageID is the id that the broker gave the SEND. [ActiveMQ: producer -1:1 of the connection]
func (s sentAs) messageID() string { return s.session + ":-1:1:" + strconv.FormatUint(s.nth, 10) }

// ask starts a round of browsing in the queues that are not done.
func (r *Recorder) ask(out *session.Out) {
	l := r.lookup
	r.gated = true
	l.rounds++
	for i, a := range l.asks {
		if a.done {
			continue
		}
		a.sub = lookupPrefix + strconv.Itoa(l.rounds) + "-" + strconv.Itoa(i)
		selector := "JMSMessageID IN ('" + strings.Join(a.ids, "','") + "')"
		b := append(r.scratch[:0], "SUBSCRIBE\n"...)
		b = frame.AppendHeader(b, "id", a.sub)
		b = frame.AppendHeader(b, "destination", a.dest)
		b = append(b, "browser:true\nack:auto\n"...)
		b = frame.AppendHeader(b, "selector", frame.Escape(nil, []byte(selector), r.version))
		r.scratch = append(b, '\n', 0)
		r.appendBroker(out, r.scratch)
	}
}

// looked takes what one of our browsers shows.
func (r *Recorder) looked(f *frame.Frame, out *session.Out) {
	l := r.lookup
	if l == nil {
		return
	}
	var at *ask
	for _, a := range l.asks {
		if a.sub == string(f.Value("subscription")) {
			at = a
		}
	}
	if at == nil {
		return // of an earlier round
	}
	if _, ends := f.Get("browser"); !ends {
		if l.found == nil {
			l.found = map[string]bool{}
		}
		id, err := frame.Unescape(nil, f.Value("message-id"), r.version)
		if err == nil {
			l.found[string(id)] = true
		}
		return
	}
	r.asked = out.Now
	b := append(r.scratch[:0], "UNSUBSCRIBE\n"...)
	b = frame.AppendHeader(b, "id", at.sub)
	r.scratch = append(b, '\n', 0)
	r.appendBroker(out, r.scratch)
	at.sub = ""
	// The last id settles all; as long as it is missing another look may help.
	at.done = l.found[at.ids[len(at.ids)-1]] || l.rounds >= lookupRounds
	for _, a := range l.asks {
		if a.sub != "" {
			return
		}
	}
	for _, a := range l.asks {
		if !a.done {
			r.ask(out)
			return
		}
	}
	if r.judge(out) {
		r.replay(out)
		r.confirmReplay(out)
	}
}

// judge applies what was found; false means that it ended the session.
func (r *Recorder) judge(out *session.Out) bool {
	l := r.lookup
	r.lookup = nil
	last := map[string]uint64{} // by connection: order of the latest SEND that was found
	for e := range r.log.all() {
		for _, was := range e.was {
			if l.found[was.messageID()] {
				last[was.session] = e.order
			}
		}
	}
	settled := func(e *entry) bool {
		for _, was := range e.was {
			if e.order <= last[was.session] {
				return true
			}
		}
		return false
	}
	for e := range r.log.all() {
		if !r.doubtful(e) {
			continue
		}
		done, acks := e.kind == sendEntry && settled(e), false
		if e.kind == commitEntry {
			for inner := range r.log.of(e.tx) {
				for _, was := range inner.was {
					done = done || l.found[was.messageID()] || e.order <= last[was.session]
				}
				acks = acks || inner.kind == ackEntry || inner.kind == nackEntry
			}
		}
		switch {
		case done:
			r.conclude(e, false, out)
			r.log.settle(e)
		case acks:
			e.tx.undecided = true
		case r.inDoubt() != InDoubtResend:
			r.unknown(out)
			return false
		}
	}
	r.log.compact()
	return true
}
