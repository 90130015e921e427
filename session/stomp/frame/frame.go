// Package frame is the STOMP 1.0, 1.1 and 1.2 codec that recorder, broker and probe share, and the one place that names the
// headers which only a sidecar and its paired broker exchange (paired.go).
//
// A Parser cuts frames out of the caller's read buffer without copying or allocating: a Frame is a view, valid for as long as
// those octets are. What it hands out is what stood on the wire. Header values stay escaped until Unescape is asked for them, so
// that a frame can be forwarded octet for octet and CONNECT credentials are never decoded and encoded again: [STOMP 1.2 Value Encoding]
// exempts CONNECT and CONNECTED, so their values are taken as they are, or unescaped and escaped as V10.
//
// Guarantees: the first of repeated headers wins and all are kept; every length is checked against a named limit before anything
// is allocated for it; content-length is never added or dropped, for its presence tells ActiveMQ a BytesMessage from a
// TextMessage. The package does no I/O and knows nothing of sessions.
package frame

import (
	"bytes"
	"math"
	"strconv"
)

// Version is a negotiated protocol version. The zero value is STOMP 1.0, which is what a client speaks that names none.
type Version uint8

// The versions that exist. [STOMP 1.2 Protocol Negotiation]
const (
	V10 Version = iota
	V11
	V12
)

// String is the version as accept-version and version headers spell it.
func (v Version) String() string { return [...]string{"1.0", "1.1", "1.2"}[min(int(v), 2)] }

// ParseVersion reads one version as a header spells it.
func ParseVersion(s []byte) (Version, bool) {
	switch string(s) {
	case "1.0":
		return V10, true
	case "1.1":
		return V11, true
	case "1.2":
		return V12, true
	}
	return 0, false
}

// Command is the first line of a frame. Unknown commands are carried, not refused: the recorder forwards what it does not know.
type Command uint8

// Commands, in the order of the specification. EOL is a run of end-of-lines between frames: a heart-beat, or the line feed that many
// servers write after each NUL.
const (
	Unknown Command = iota
	EOL
	Connect
	Stomp
	Connected
	Send
	Subscribe
	Unsubscribe
	Ack
	Nack
	Begin
	Commit
	Abort
	Disconnect
	Message
	Receipt
	Error
)

var commandNames = [...]string{
	Unknown: "unknown", EOL: "EOL", Connect: "CONNECT", Stomp: "STOMP", Connected: "CONNECTED", Send: "SEND",
	Subscribe: "SUBSCRIBE", Unsubscribe: "UNSUBSCRIBE", Ack: "ACK", Nack: "NACK", Begin: "BEGIN", Commit: "COMMIT",
	Abort: "ABORT", Disconnect: "DISCONNECT", Message: "MESSAGE", Receipt: "RECEIPT", Error: "ERROR",
}

// String is the command as it stands on the wire.
func (c Command) String() string {
	if int(c) < len(commandNames) {
		return commandNames[c]
	}
	return "Command(" + strconv.Itoa(int(c)) + ")"
}

// HasBody reports whether the command may carry a body, as far as is known. [STOMP 1.2 Body]
func (c Command) HasBody() bool { return c == Send || c == Message || c == Error || c == Unknown }

// handshake reports whether the command is one of those that settle the version, and so precede it.
func (c Command) handshake() bool { return c == Connect || c == Stomp || c == Connected }

// Frame is one frame as it stood in the caller's buffer. All slices point into that buffer.
type Frame struct {
	Command Command
	// Raw is the whole frame: command, headers, body and the NUL. For EOL it is the run of end-of-lines, and of NULs without a frame.
	Raw []byte
	// Block holds the header lines with their line ends, without the blank line.
	Block []byte
	// Body is what stands between the blank line and the NUL.
	Body []byte
	// Name is the command's octets, which an Unknown command is known by.
	Name []byte
	// HasContentLength reports whether the sender gave content-length.
	HasContentLength bool
	// Ours reports whether the name of a header begins with PairedPrefix, padding aside. Of a hand-made Frame it says nothing.
	Ours bool

	style lineStyle
	start int32 // of Block in Raw; 0 in a hand-made Frame
	index lineIndex
}

// lineIndex says where the first header lines of a frame stand, so that looking up one does not look through all the others. It is small, for Frames
// live on the stacks of idle sessions' goroutines, and it is part of the Frame, for that may outlast the Parser's next one.
type lineIndex struct {
	n    int32              // lines that are indexed
	rest int32              // where the others begin in the block
	at   [maxIndexed]uint16 // where each begins in the block
	name [maxIndexed]uint8  // length of its name
}

// maxIndexed lines are indexed: brokers in use send up to a dozen with a MESSAGE.
const maxIndexed = 16

// note indexes the line at the given place in the block. Behind the first that does not fit, none is.
func (x *lineIndex) note(at, end, name int) {
	if at == int(x.rest) && x.n < maxIndexed && at <= math.MaxUint16 && name <= math.MaxUint8 {
		x.at[x.n], x.name[x.n] = uint16(at), uint8(name)
		x.n, x.rest = x.n+1, int32(end)
	}
}

// Headers yields the header lines in order: names and values as they stand on the wire, still escaped, without the line end, and in 1.0
// without padding. Every line has a colon, for the Parser refused the others; the first one ends the name.
func (f *Frame) Headers(yield func(name, value []byte) bool) {
	for p := f.Block; len(p) > 0; {
		name, value, n := cutHeader(p, f.style)
		if !yield(name, value) {
			return
		}
		p = p[n:]
	}
}

// Get returns the first value of a header as it stands on the wire, still escaped. name must need no escaping itself.
// [STOMP 1.2 Repeated Header Entries]
func (f *Frame) Get(name string) (value []byte, ok bool) {
	x := &f.index // empty where lines are padded, for there a name is not what stands before the colon
	for i := range min(x.n, maxIndexed) {
		if int(x.name[i]) != len(name) {
			continue
		}
		colon := int(x.at[i]) + len(name)
		if string(f.Block[x.at[i]:colon]) != name {
			continue
		}
		end := int(x.rest)
		if int(i)+1 < int(x.n) {
			end = int(x.at[i+1])
		}
		if value = f.Block[colon+1 : end-1]; f.style == optionalCR {
			value = dropCR(value)
		}
		return value, true
	}
	return f.scan(f.Block[x.rest:], name)
}

// scan looks for a header among lines.
func (f *Frame) scan(p []byte, name string) (value []byte, ok bool) {
	for len(p) > 0 {
		// Most lines are not the one wanted, and have no colon where it would be.
		if n := len(name); f.style == padded || n < len(p) && p[n] == ':' {
			if k, v, _ := cutHeader(p, f.style); string(k) == name {
				return v, true
			}
		}
		p = p[bytes.IndexByte(p, '\n')+1:]
	}
	return nil, false
}

// Offset is where a value that Get or Headers handed out stands in Raw. It lets a caller that keeps the frame find the value again
// without parsing.
func (f *Frame) Offset(value []byte) int {
	start := int(f.start)
	if start == 0 {
		start = bytes.IndexByte(f.Raw, '\n') + 1
	}
	return start + cap(f.Block) - cap(value)
}

// Value is Get without the second result: nil when the header is absent.
func (f *Frame) Value(name string) []byte {
	v, _ := f.Get(name)
	return v
}
