package stomp

import "bytes"

// drops is a set of header lines to leave out of a frame. Repeated headers are not relied on to override: brokers that keep headers in a
// map take the last one in 1.0. [STOMP 1.2 Repeated Header Entries]
type drops uint16

const (
	dropReceipt drops = 1 << iota
	dropTransaction
	dropAck
	dropID
	dropHeartBeat
	dropAcceptVersion
	dropCredentials
	dropDestination
	dropReplyTo
	dropMessageID
	dropPrefetch
)

func (d drops) has(name []byte) bool {
	var want drops
	switch string(name) {
	case "receipt":
		want = dropReceipt
	case "transaction":
		want = dropTransaction
	case "ack":
		want = dropAck
	case "id":
		want = dropID
	case "heart-beat":
		want = dropHeartBeat
	case "accept-version":
		want = dropAcceptVersion
	case "login", "passcode":
		want = dropCredentials
	case "destination":
		want = dropDestination
	case "reply-to":
		want = dropReplyTo
	case "message-id", "subscription":
		want = dropMessageID
	case "prefetch-count":
		want = dropPrefetch
	}
	return d&want != 0
}

// appendLines appends the header lines of a whole frame but for those in leave; rest is where the blank line stands.
func appendLines(b, raw []byte, leave drops) (_ []byte, rest int) {
	at := afterCommand(raw)
	for {
		line := raw[at : at+bytes.IndexByte(raw[at:], '\n')+1]
		if len(line) == 1 || len(line) == 2 && line[0] == '\r' {
			return b, at
		}
		if leave == 0 || !leave.has(nameOf(line)) {
			b = append(b, line...)
		}
		at += len(line)
	}
}

// nameOf is the name in a header line, without the padding that 1.0 allows.
func nameOf(line []byte) []byte {
	return bytes.TrimSpace(line[:max(bytes.IndexByte(line, ':'), 0)])
}

// headerEnd is where the blank line of a whole frame stands.
func headerEnd(raw []byte) int {
	at := afterCommand(raw)
	for {
		n := bytes.IndexByte(raw[at:], '\n') + 1
		if n == 1 || n == 2 && raw[at] == '\r' {
			return at
		}
		at += n
	}
}
