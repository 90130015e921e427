package stomp

import (
	"bytes"
	"strconv"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// temps are the temporary queues of a session whose names the broker ties to a connection.
type temps struct {
	names map[string]*temp // by the client's name: /temp-queue/foo
	made  int              // on the current connection
}

// temp is one of them.
type temp struct {
	local  []byte // the client's name
	global []byte // what everybody else, and every later connection, calls it
	since  uint64 // attempt of the connection that made it: there it is known by its local name
	sub    []byte // id of our subscription to the queue that stands in for it
}

const (
	tempPrefix   = "/temp-queue/"
	remotePrefix = "/remote-temp-queue/"
	// maxTemps bounds the temporary queues that are remembered of one session.
	maxTemps = 1000
	// maxDeclares bounds the destinations whose declare headers are remembered of one session.
	maxDeclares = 1000
)

// destinations writes the destination and reply-to of a SEND, if the dialect wants something done about them, and what declares its queue.
func (r *Recorder) destinations(b []byte, e *entry, leave drops, out *session.Out) ([]byte, drops) {
	d, raw := r.dialect, e.frame.Bytes()
	block := raw[e.block:e.blank]
	if d.declares {
		b = r.declare(b, block)
	}
	if d.tempQueues == tempGlobal || !bytes.Contains(block, []byte(tempPrefix)) {
		return b, leave
	}
	for line := range bytes.Lines(block) {
		var mark drops
		switch name := string(nameOf(line)); {
		case name == "destination" && d.tempQueues == tempRemote:
			mark = dropDestination
		case name == "reply-to":
			mark = dropReplyTo
		default:
			continue
		}
		value := bytes.TrimSpace(line[bytes.IndexByte(line, ':')+1:])
		if leave&mark != 0 || !bytes.HasPrefix(value, []byte(tempPrefix)) {
			continue
		}
		if to := r.tempName(value, out); !bytes.Equal(to, value) {
			b = append(append(append(b, nameOf(line)...), ':'), to...)
			b = append(b, '\n')
			leave |= mark
		}
	}
	return b, leave
}

// tempName is what the current broker is to be told for a temporary queue of the client.
func (r *Recorder) tempName(local []byte, out *session.Out) []byte {
	t := r.temps.names[string(local)]
	if t == nil {
		if len(r.temps.names) >= maxTemps {
			return local
		}
		t = &temp{local: bytes.Clone(local), since: r.peer.Attempt}
		switch r.dialect.tempQueues {
		case tempRemote:
			r.temps.made++
			t.global = frame.Escape(nil, []byte(remotePrefix+r.upstream+":"+strconv.Itoa(r.temps.made)), r.version)
			if !bytes.HasPrefix([]byte(r.upstream), []byte("ID:")) {
				t.global = t.local // with a client-id nobody can say; it ends with its connection
			}
		case tempReply:
			t.global = []byte("/reply-queue/" + r.replyQueue(local)) // a SEND to such a name declares nothing
			t.sub = strconv.AppendInt([]byte("understudy-reply-"), int64(len(r.temps.names)), 10)
		}
		if r.temps.names == nil {
			r.temps.names = map[string]*temp{}
		}
		r.temps.names[string(t.local)] = t
		if r.dialect.tempQueues == tempReply {
			r.subscribeReplies(t, out)
		}
	}
	if r.dialect.tempQueues == tempRemote && t.since == r.peer.Attempt {
		return local
	}
	return t.global
}

const hexDigits = "0123456789abcdef"

// replyQueue names the queue that stands in for a temporary one.
func (r *Recorder) replyQueue(local []byte) string {
	name := []byte("understudy." + r.cfg.Session + ".")
	for _, c := range local[len(tempPrefix):] {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' {
			name = append(name, c)
		} else {
			name = append(name, '~', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return string(name)
}

// subscribeReplies makes the queue and its subscription. Ids like the one that the client will see are the broker's own. The queue goes by itself when nobody has used it
// for twice as long as a client may be held.
func (r *Recorder) subscribeReplies(t *temp, out *session.Out) {
	b := []byte("SUBSCRIBE\n")
	b = frame.AppendHeader(b, "id", t.sub)
	b = frame.AppendHeader(b, "destination", "/queue/"+r.replyQueue(t.local))
	b = append(b, "ack:auto\ndurable:true\nauto-delete:false\nexclusive:false\n"...)
	b = frame.AppendUint(b, "x-expires", uint64(2*max(r.cfg.Hold, r.cfg.HoldIdle).Milliseconds()))
	b = append(b, '\n', 0)
	sub := &subscription{id: t.sub, given: true, dest: t.local, mode: auto, tracked: true, at: out.Now, first: none, last: none, scope: t.sub,
		frame: session.NewChunk(b, nil).Range(0, len(b)), internal: true}
	sub.order = r.log.tick()
	r.subs.list = append(r.subs.list, sub)
	r.subs.byID[string(sub.id)] = sub
	scratch := r.scratch
	r.scratch = nil // its octets are in use by whoever is writing the SEND
	r.playSubscribe(sub, out)
	r.scratch = scratch
}

// appendLocal writes a header line of a MESSAGE with the client's own name for a temporary queue.
func (r *Recorder) appendLocal(b, line []byte) []byte {
	name, remote := "destination", true
	switch d := r.dialect; {
	case len(r.temps.names) == 0:
		return append(b, line...)
	case d.tempQueues == tempRemote && bytes.HasPrefix(line, []byte("destination:"+remotePrefix)):
	case d.tempQueues == tempReply && bytes.HasPrefix(line, []byte("subscription:understudy-reply-")):
		name, remote = "subscription", false
	default:
		return append(b, line...)
	}
	value := bytes.TrimSpace(line[len(name)+1:])
	for _, t := range r.temps.names {
		if remote && bytes.Equal(value, t.global) || !remote && bytes.Equal(value, t.sub) {
			return frame.AppendHeader(b, name, t.local)
		}
	}
	return append(b, line...)
}

// declare remembers the header lines by which a destination was first declared, and writes them where its first use on a connection lacks them: a
// queue that is declared otherwise than it is ends the connection. [RabbitMQ: PRECONDITION_FAILED - inequivalent arg]
func (r *Recorder) declare(b, block []byte) []byte {
	dest := headerOf(block, "destination")
	if dest == nil || r.declared[string(dest)] {
		return b
	}
	if len(r.declared) < maxDeclares {
		if r.declared == nil {
			r.declared = map[string]bool{}
		}
		r.declared[string(dest)] = true
	}
	var lines []byte
	for line := range bytes.Lines(block) {
		if declares(nameOf(line)) {
			lines = append(lines, line...)
		}
	}
	known, ok := r.declares[string(dest)]
	switch {
	case ok && len(lines) == 0:
		return append(b, known...)
	case !ok && len(r.declares) < maxDeclares:
		if r.declares == nil {
			r.declares = map[string][]byte{}
		}
		r.declares[string(dest)] = lines
	}
	return b
}

// headerOf finds the first value of a header in a header block, without padding.
func headerOf(block []byte, name string) []byte {
	for line := range bytes.Lines(block) {
		if string(nameOf(line)) == name {
			return bytes.TrimSpace(line[bytes.IndexByte(line, ':')+1:])
		}
	}
	return nil
}

// declares reports whether a header is an argument of a queue's declaration. [RabbitMQ 3.10 STOMP plugin]
func declares(name []byte) bool {
	switch string(name) {
	case "durable", "auto-delete", "exclusive", "x-queue-type", "x-dead-letter-exchange", "x-dead-letter-routing-key", "x-expires", "x-message-ttl",
		"x-max-length", "x-max-length-bytes", "x-overflow", "x-max-priority", "x-max-age", "x-stream-max-segment-size-bytes", "x-queue-name":
		return true
	}
	return false
}
