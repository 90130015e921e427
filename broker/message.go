package broker

import (
	"bytes"
	"encoding/hex"
	"strconv"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// msgID is the identity of a message over the life of the store. Its text is session:effect or session:effect:index for what came
// through a sidecar, epoch-connection-count for what a client sent directly.
type msgID struct {
	hi, lo uint64 // the session; or the epoch and the connection
	n      uint64 // the effect; or how many the connection had sent
	index  int32  // position among the SENDs of a session's transaction, or one of the two below
}

const (
	outsideTx  = -1 // sent by a session outside a transaction
	fromDirect = -2 // sent by a direct client
	nowhere    = -3 // no message's
)

// append writes the id as a header value of version v.
func (id msgID) append(dst []byte, v frame.Version) []byte {
	if id.index == fromDirect {
		dst = strconv.AppendUint(dst, id.hi, 10)
		dst = append(dst, '-')
		dst = strconv.AppendUint(dst, id.lo, 10)
		dst = append(dst, '-')
		return strconv.AppendUint(dst, id.n, 10)
	}
	colon := `\c`
	if v == frame.V10 {
		colon = ":"
	}
	dst = sessionID{id.hi, id.lo}.append(dst)
	dst = append(dst, colon...)
	dst = strconv.AppendUint(dst, id.n, 10)
	if id.index >= 0 {
		dst = append(dst, colon...)
		dst = strconv.AppendInt(dst, int64(id.index), 10)
	}
	return dst
}

// parseMsgID reads an unescaped id.
func parseMsgID(b []byte) (id msgID, ok bool) {
	if len(b) > sessionText && b[sessionText] == ':' {
		s, ok := parseSessionID(b[:sessionText])
		id = msgID{hi: s.hi, lo: s.lo, index: outsideTx}
		effect, index, inTx := bytes.Cut(b[sessionText+1:], []byte{':'})
		n, ok2 := frame.ParseUint(effect)
		id.n = n
		if inTx {
			i, ok3 := frame.ParseUint(index)
			ok2 = ok2 && ok3 && i < 1<<31
			id.index = int32(i)
		}
		return id, ok && ok2
	}
	epoch, rest, _ := bytes.Cut(b, []byte{'-'})
	conn, count, _ := bytes.Cut(rest, []byte{'-'})
	hi, ok1 := frame.ParseUint(epoch)
	lo, ok2 := frame.ParseUint(conn)
	n, ok3 := frame.ParseUint(count)
	return msgID{hi, lo, n, fromDirect}, ok1 && ok2 && ok3
}

// sessionID is the 128-bit id of a client's connection to its sidecar.
type sessionID struct{ hi, lo uint64 }

const sessionText = 32

func (id sessionID) append(dst []byte) []byte {
	b := id.octets()
	return hex.AppendEncode(dst, b[:])
}

func (id sessionID) String() string { return string(id.append(nil)) }

func (id sessionID) octets() (b [16]byte) {
	for i := range 8 {
		b[i], b[8+i] = byte(id.hi>>(56-8*i)), byte(id.lo>>(56-8*i))
	}
	return b
}

func sessionOf(b []byte) (id sessionID) {
	for i := range 8 {
		id.hi, id.lo = id.hi<<8|uint64(b[i]), id.lo<<8|uint64(b[8+i])
	}
	return id
}

// parseSessionID reads 32 lower-case hex digits; upper case is refused, for then two texts would name one session.
func parseSessionID(t []byte) (sessionID, bool) {
	var b [16]byte
	if len(t) != sessionText || bytes.ContainsAny(t, "ABCDEF") {
		return sessionID{}, false
	}
	if _, err := hex.Decode(b[:], t); err != nil {
		return sessionID{}, false
	}
	return sessionOf(b[:]), true
}

// destination is what messages carry of a queue or a topic: its name, and the header line that says so in each version.
type destination struct {
	name string
	line [3]string
}

func newDestination(name string) destination {
	d := destination{name: name}
	for v := frame.V10; v <= frame.V12; v++ {
		d.line[v] = "destination:" + string(frame.Escape(nil, []byte(name), v)) + "\n"
	}
	return d
}

// message is one message in memory. Its headers are kept as lines in 1.2 encoding, so that a consumer of that version gets a copy and
// the others a transcoding.
type message struct {
	id       msgID
	dest     *destination
	queue    *queue    // nil for a topic's
	page     *page     // of the queue's lane
	deadline *deadline // nil: it does not expire
	hold     *hold     // while a subscription has it
	common   *common   // of a copy of what was published; nil otherwise
	data     []byte    // header lines, then the body; nil if it is away
	lsn      journal.LSN
	home     journal.Position // of the record that has it
	pos      uint64           // place in the queue
	// notBefore is the record of the effect that gave the message back, if a sidecar did: dispatched any earlier, a crash could leave the
	// message in its client's hands twice, refused and not refused.
	notBefore journal.LSN
	split     int32  // where in data the body begins
	length    uint32 // of data, while it is away
	prio      int8   // how far above the usual priority
	index     uint32 // which message of its record
	// ordinal counts the deliveries in this epoch.
	ordinal     uint32
	state       msgState
	transient   bool // not in the journal; lsn, if any, is that of the effect which sent it
	recovered   bool // was there before this epoch
	redelivered bool
	unmet       bool // the queue has not come to it yet
	away        bool // its octets are in the journal only
	returned    bool // was given back: somebody may have a note of it
	inBack      bool // the queue's heap of returned messages has it
}

type msgState uint8

const (
	ready msgState = iota // waits in its queue
	held                  // a subscription has it
	done                  // acknowledged
)

// place is where a message stands among those of the journal.
type place struct {
	lsn   journal.LSN
	index uint32
}

func (a place) before(b place) bool { return a.lsn < b.lsn || a.lsn == b.lsn && a.index < b.index }

func (m *message) place() place { return place{m.lsn, m.index} }

// before is the order of a queue: the higher priority first, then the place.
func (m *message) before(o *message) bool {
	return m.prio > o.prio || m.prio == o.prio && m.pos < o.pos
}

// Priorities of messages, as clients give them. [Jakarta Messaging 3.1, 3.4.9]
const (
	usualPriority   = 4
	highestPriority = 9
	priorities      = highestPriority + 1
)

// prioOf reads a priority header, as what it is above the usual one. What is no number is no priority.
func prioOf(v []byte) int8 {
	n, ok := frame.ParseUint(v)
	if !ok {
		return 0
	}
	return int8(min(n, highestPriority)) - usualPriority
}

func (m *message) priority() int { return int(m.prio) + usualPriority }

// storedOverhead is about what a message's record has beside its octets.
const storedOverhead = 64

// messageOverhead is what a message costs in memory beside its octets.
const messageOverhead = 192

// octets is how long the header lines and the body are together.
func (m *message) octets() int {
	if m.away {
		return int(m.length)
	}
	return len(m.data)
}

// stored is what a message counts for in the segment that has it.
func (m *message) stored() int64 { return int64(m.octets()) + storedOverhead }

// ending is what it means for its segment that the message goes.
func (m *message) ending() journal.Ending {
	return journal.Ending{Segment: m.home.Segment, Bytes: m.stored()}
}

// size is what the message alone takes of memory.
func (m *message) size() int64 {
	if m.common != nil {
		return messageOverhead
	}
	return int64(len(m.data)) + messageOverhead
}

// appendMessage writes m as the MESSAGE that sub's connection is to see. ack is the number in the ack header.
func appendMessage(b []byte, p *peer, sub *subscription, m *message, ordinal uint32, ack uint64) []byte {
	b = append(b, "MESSAGE\n"...)
	if p.sidecar && ordinal > 1 {
		b = frame.AppendUint(b, frame.HeaderDelivery, uint64(ordinal))
	}
	if p.sidecar && sub.browse != nil {
		b = appendBrowsed(b, m)
	}
	b = append(b, sub.line...)
	b = append(b, "message-id:"...)
	b = append(m.id.append(b, p.version), '\n')
	b = append(b, m.dest.line[p.version]...)
	if sub.mode != ackAuto {
		b = append(b, sub.ackLine...)
		b = append(strconv.AppendUint(b, ack, 10), '\n')
	}
	if m.redelivered || ordinal > 1 {
		b = append(b, "redelivered:true\n"...)
	}
	b = appendLines(b, m.data[:m.split], p.version)
	b = append(b, '\n')
	b = append(b, m.data[m.split:]...)
	return append(b, 0, '\n') // the line feed is for clients that expect it, as PHP's does
}

// appendLines transcodes header lines from 1.2 to v.
func appendLines(dst, lines []byte, v frame.Version) []byte {
	if v == frame.V12 || bytes.IndexByte(lines, '\\') < 0 {
		return append(dst, lines...)
	}
	var scratch []byte
	for len(lines) > 0 {
		end := bytes.IndexByte(lines, '\n')
		colon := bytes.IndexByte(lines[:end], ':')
		start := len(dst)
		for i, part := range [2][]byte{lines[:colon], lines[colon+1 : end]} {
			scratch, _ = frame.Unescape(scratch[:0], part, frame.V12) // it was valid when it was stored
			dst = frame.Escape(dst, scratch, v)
			dst = append(dst, ":\n"[i])
		}
		if name, _, _ := bytes.Cut(dst[start:], []byte{':'}); v == frame.V10 && len(bytes.Trim(name, " \t\r")) == 0 {
			dst = dst[:start] // 1.0 has no escapes: a name that begins with a colon is none there
		}
		lines = lines[end+1:]
	}
	return dst
}
