package frame

import (
	"bytes"
	"errors"
	"fmt"
)

// Limits bounds what a Parser accepts; a zero field means the default beside it.
type Limits struct {
	Command int // octets of the command line; 64
	Headers int // number of header lines; 1000, as ActiveMQ has it
	Block   int // octets of all header lines together; 64 KiB
	Body    int // octets of the body; 100 MiB, as ActiveMQ has it
}

// Default limits.
const (
	DefaultCommand = 64
	DefaultHeaders = 1000
	DefaultBlock   = 64 << 10
	DefaultBody    = 100 << 20
)

// Errors of Parser.Next. Each is wrapped with the offending figure; none quotes a header value, for it could be a passcode.
var (
	ErrCommand       = errors.New("malformed command line")
	ErrHeader        = errors.New("malformed header line")
	ErrContentLength = errors.New("malformed content-length")
	ErrMissingNUL    = errors.New("no NUL after content-length octets")
	ErrLimit         = errors.New("limit exceeded")
)

// Parser cuts frames out of a byte stream. The zero value parses with the default limits; a Parser serves one direction of one
// connection. After an error it must not be used again: there is no way back into step with the stream.
type Parser struct {
	Limits  Limits
	Version Version // set it when negotiated; it decides whether a CR belongs to the line end [STOMP 1.2 Augmented BNF]

	// Progress inside the frame at the start of the buffer, so that octets arriving one by one are not searched again and again.
	state   parseState
	pos     int // searched up to here
	block   int // start of the header lines
	body    int // start of the body, once the blank line was seen
	lines   int
	length  int // content-length, -1 for none
	command Command
}

type parseState uint8

const (
	atCommand parseState = iota
	atHeaders
	atBody
)

// Next parses what stands at the start of p. On success n is the number of octets consumed and f is filled in, pointing into p. If p
// holds no whole frame n is 0 and need says how many octets from the start of p are needed at least; the next call must be given
// the same octets with more behind them (they may have been moved). [STOMP 1.2 Augmented BNF]
func (s *Parser) Next(p []byte, f *Frame) (n, need int, err error) {
	if s.state == atCommand {
		if s.pos == 0 {
			if n = countEOL(p); n > 0 {
				*f = Frame{Command: EOL, Raw: p[:n], version: s.Version}
				return n, 0, nil
			}
		}
		if done, err := s.readCommand(p); err != nil || !done {
			return 0, len(p) + 1, err
		}
	}
	if s.state == atHeaders {
		if done, err := s.readHeaders(p); err != nil || !done {
			return 0, len(p) + 1, err
		}
	}
	end, need, err := s.readBody(p)
	if end < 0 {
		return 0, need, err
	}
	line := p[:s.block]
	*f = Frame{
		Command: s.command, Raw: p[:end+1], Block: p[s.block : s.body-blankLen(p[:s.body])], Body: p[s.body:end],
		Name: trimEOL(line), HasContentLength: s.length >= 0, version: s.Version,
	}
	s.reset()
	return end + 1, 0, nil
}

func (s *Parser) reset() {
	s.state, s.pos, s.block, s.body, s.lines, s.length = atCommand, 0, 0, 0, 0, -1
}

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

func (s *Parser) readCommand(p []byte) (done bool, err error) {
	limit := or(s.Limits.Command, DefaultCommand)
	i := bytes.IndexByte(p[s.pos:], '\n')
	if i < 0 {
		if len(p) > limit {
			return false, fmt.Errorf("%w: command line of more than %d octets", ErrLimit, limit)
		}
		s.pos = len(p)
		return false, nil
	}
	end := s.pos + i
	if end > limit {
		return false, fmt.Errorf("%w: command line of more than %d octets", ErrLimit, limit)
	}
	name := trimEOL(p[:end+1])
	if s.command = lookup(name); s.command == Unknown && !plausible(name) {
		return false, fmt.Errorf("%w: this is not STOMP", ErrCommand)
	}
	s.block, s.pos, s.state, s.length, s.lines = end+1, end+1, atHeaders, -1, 0
	return true, nil
}

func (s *Parser) readHeaders(p []byte) (done bool, err error) {
	maxBlock, maxLines := or(s.Limits.Block, DefaultBlock), or(s.Limits.Headers, DefaultHeaders)
	for {
		i := bytes.IndexByte(p[s.pos:], '\n')
		if s.pos+max(i, 0)-s.block > maxBlock || i < 0 && len(p)-s.block > maxBlock {
			return false, fmt.Errorf("%w: %s with more than %d octets of headers", ErrLimit, s.command, maxBlock)
		}
		if i < 0 {
			return false, nil
		}
		line := p[s.pos : s.pos+i]
		s.pos += i + 1
		// A lone CR before the LF ends the blank line in every version: no header line can consist of it.
		if len(line) == 0 || len(line) == 1 && line[0] == '\r' {
			s.body, s.state = s.pos, atBody
			return true, nil
		}
		if s.lines++; s.lines > maxLines {
			return false, fmt.Errorf("%w: %s with more than %d headers", ErrLimit, s.command, maxLines)
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 || bytes.IndexByte(line, 0) >= 0 {
			return false, fmt.Errorf("%w: header %d of %s has no name, no colon, or a NUL", ErrHeader, s.lines, s.command)
		}
		if s.length < 0 && string(line[:colon]) == "content-length" {
			if err := s.readLength(line[colon+1:]); err != nil {
				return false, err
			}
		}
	}
}

// readLength checks content-length before anyone allocates for it. A length on a command that has no body is refused unless it is
// zero: RabbitMQ and ActiveMQ do not honour it there, so frames would be cut differently on the two sides.
func (s *Parser) readLength(v []byte) error {
	limit := or(s.Limits.Body, DefaultBody)
	v = bytes.Trim(v, " \r")
	if len(v) == 0 {
		return fmt.Errorf("%w: empty, on %s", ErrContentLength, s.command)
	}
	n := 0
	for _, c := range v {
		if c < '0' || c > '9' {
			return fmt.Errorf("%w: not a number, on %s", ErrContentLength, s.command)
		}
		if n = n*10 + int(c-'0'); n > limit {
			return fmt.Errorf("%w: %s with a body of more than %d octets", ErrLimit, s.command, limit)
		}
	}
	if n > 0 && !s.command.HasBody() {
		return fmt.Errorf("%w: %d on %s, which has no body", ErrContentLength, n, s.command)
	}
	s.length = n
	return nil
}

func (s *Parser) readBody(p []byte) (end, need int, err error) {
	if s.length >= 0 {
		end = s.body + s.length
		if len(p) <= end {
			return -1, end + 1, nil
		}
		if p[end] != 0 {
			return -1, 0, fmt.Errorf("%w: %d on %s", ErrMissingNUL, s.length, s.command)
		}
		return end, 0, nil
	}
	i := bytes.IndexByte(p[s.pos:], 0)
	if limit := or(s.Limits.Body, DefaultBody); s.pos+max(i, 0)-s.body > limit || i < 0 && len(p)-s.body > limit {
		return -1, 0, fmt.Errorf("%w: %s with a body of more than %d octets", ErrLimit, s.command, limit)
	}
	if i < 0 {
		s.pos = len(p)
		return -1, len(p) + 1, nil
	}
	return s.pos + i, 0, nil
}

func blankLen(p []byte) int {
	if len(p) >= 2 && p[len(p)-2] == '\r' {
		return 2
	}
	return 1
}

func trimEOL(line []byte) []byte {
	line = bytes.TrimSuffix(line, []byte{'\n'})
	return bytes.TrimSuffix(line, []byte{'\r'})
}

// cutHeader splits the first line of p. A CR belongs to the value before 1.2, to the line end from 1.2 on.
func cutHeader(p []byte, v Version) (name, value []byte, n int) {
	n = bytes.IndexByte(p, '\n') + 1
	line := p[:n-1]
	if v == V12 && len(line) > 0 && line[len(line)-1] == '\r' {
		line = line[:len(line)-1]
	}
	colon := bytes.IndexByte(line, ':')
	return line[:colon], line[colon+1:], n
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

// plausible reports whether name could be the command of some STOMP dialect; anything else on the port is not STOMP.
func plausible(name []byte) bool {
	if len(name) == 0 {
		return false
	}
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
