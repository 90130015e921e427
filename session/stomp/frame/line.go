package frame

import "bytes"

// lineStyle is what may stand in a header line beside its name and its value.
type lineStyle uint8

const (
	// padded: blanks around name and value, and a CR before the LF. STOMP 1.0 left both open, its examples are padded, and its servers
	// take off either. It is also how a hand-made Frame is read.
	padded lineStyle = iota
	// exact: only the LF ends a line; a CR belongs to the value. [STOMP 1.1 Augmented BNF]
	exact
	// optionalCR: a CR before the LF belongs to the line end; blanks belong to the value. [STOMP 1.2 Augmented BNF]
	optionalCR
)

func (v Version) style() lineStyle { return [...]lineStyle{padded, exact, optionalCR}[min(int(v), 2)] }

// countEOL counts the end-of-lines at the start of p. A CR is taken only with its LF; stray NULs between frames are tolerated, as
// ActiveMQ and RabbitMQ do.
func countEOL(p []byte) int {
	n := 0
	for n < len(p) {
		switch {
		case p[n] == '\n' || p[n] == 0:
			n++
		case p[n] == '\r' && n+1 < len(p) && p[n+1] == '\n':
			n += 2
		default:
			return n
		}
	}
	return n
}

// dropCR takes off one CR at the end.
func dropCR(p []byte) []byte {
	if n := len(p); n > 0 && p[n-1] == '\r' {
		return p[:n-1]
	}
	return p
}

// trimPadding takes off one CR at the end, then blanks and tabs at both ends.
func trimPadding(p []byte) []byte {
	p = dropCR(p)
	for len(p) > 0 && blank(p[0]) {
		p = p[1:]
	}
	for len(p) > 0 && blank(p[len(p)-1]) {
		p = p[:len(p)-1]
	}
	return p
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// cutHeader splits the first line of p, which holds a line feed and before it a colon.
func cutHeader(p []byte, style lineStyle) (name, value []byte, n int) {
	n = bytes.IndexByte(p, '\n') + 1
	line := p[:n-1]
	colon := bytes.IndexByte(line, ':')
	name, value = line[:colon], line[colon+1:]
	switch style {
	case padded:
		name, value = trimPadding(name), trimPadding(value)
	case optionalCR:
		value = dropCR(value)
	}
	return name, value, n
}

func lookup(name []byte) Command {
	switch string(name) {
	case "SEND":
		return Send
	case "MESSAGE":
		return Message
	case "ACK":
		return Ack
	case "RECEIPT":
		return Receipt
	case "NACK":
		return Nack
	case "BEGIN":
		return Begin
	case "COMMIT":
		return Commit
	case "ABORT":
		return Abort
	case "SUBSCRIBE":
		return Subscribe
	case "UNSUBSCRIBE":
		return Unsubscribe
	case "CONNECT":
		return Connect
	case "STOMP":
		return Stomp
	case "CONNECTED":
		return Connected
	case "DISCONNECT":
		return Disconnect
	case "ERROR":
		return Error
	}
	return Unknown
}

// plausible reports whether name could be, or become, the command of some STOMP dialect; anything else on the port is not STOMP.
func plausible(name []byte) bool {
	for _, c := range name {
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func or(v, def int) int {
	if v == 0 {
		return def
	}
	return v
}
