package frame

import (
	"bytes"
	"errors"
	"fmt"
	"math"
)

// Limits bounds what a Parser accepts; a zero field means the default beside it.
type Limits struct {
	Command int // octets of the command line; 64
	Headers int // number of header lines; 1000, as ActiveMQ has it
	Block   int // octets of all header lines together, line ends included; 64 KiB
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
//
// How the octets are split over calls does not change the frames, except that a run of end-of-lines may come out as several.
// Nothing is buffered or allocated here; a caller that stops at the first error holds no more than a limit and what it read at once.
type Parser struct {
	Limits Limits
	// Version decides whether padding and a CR belong to a header; set it before the first frame behind CONNECT, or CONNECTED, is
	// parsed. CONNECT, STOMP and CONNECTED themselves are read so that it does not matter. [STOMP 1.2 Augmented BNF]
	Version Version

	// Progress inside the frame at the start of the buffer, so that octets arriving one by one are not searched again and again.
	state     parseState
	pos       int // searched up to here
	line      int // start of the header line being read
	block     int // start of the header lines
	body      int // start of the body, once the blank line was seen
	lines     int
	length    int // content-length, -1 for none
	command   Command
	versioned bool // names a version, as no CONNECT or CONNECTED of 1.0 does
	ours      bool // names a header of ours
	index     lineIndex
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
		if n = countEOL(p); n > 0 {
			*f = Frame{Command: EOL, Raw: p[:n:n]}
			return n, 0, nil
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
	// Capacities end with the slices, so that an append to one never runs over what follows in the caller's buffer.
	*f = Frame{
		Command: s.command, Raw: p[: end+1 : end+1], Block: p[s.block:s.line:s.line], Body: p[s.body:end:end],
		Name: dropCR(p[:s.block-1]), HasContentLength: s.length >= 0, Ours: s.ours, style: s.style(), start: int32(s.block),
	}
	if f.style != padded {
		f.index = s.index
	}
	s.state, s.pos = atCommand, 0
	return end + 1, 0, nil
}

func (s *Parser) readCommand(p []byte) (done bool, err error) {
	limit := or(s.Limits.Command, DefaultCommand)
	i := bytes.IndexByte(p[s.pos:], '\n')
	end := s.pos + i
	if i < 0 {
		end = len(p)
	}
	if end > limit {
		return false, fmt.Errorf("%w: command line of more than %d octets", ErrLimit, limit)
	}
	// What cannot become a command is refused at its first octet: a TLS hello has no line feed that could be waited for. A lone CR may
	// become an empty line, so it is looked at again from its start.
	name := dropCR(p[:end])
	if i < 0 && plausible(name) {
		if len(name) > 0 {
			s.pos = end
		}
		return false, nil
	}
	if s.command = lookup(name); s.command == Unknown && !plausible(name) {
		return false, fmt.Errorf("%w: this is not STOMP", ErrCommand)
	}
	s.block, s.line, s.pos, s.state = end+1, end+1, end+1, atHeaders
	s.length, s.lines, s.versioned, s.ours = -1, 0, false, false
	s.index.n, s.index.rest = 0, 0
	return true, nil
}

func (s *Parser) readHeaders(p []byte) (done bool, err error) {
	maxBlock, from := or(s.Limits.Block, DefaultBlock), s.pos
	for {
		i := bytes.IndexByte(p[s.pos:], '\n')
		end := s.pos + i
		if i < 0 {
			end = len(p)
		}
		if end-s.block > maxBlock {
			return false, fmt.Errorf("%w: %s with more than %d octets of headers", ErrLimit, s.command, maxBlock)
		}
		if s.pos = end; i < 0 {
			break
		}
		line := p[s.line:end]
		s.pos++
		// A lone CR before the LF makes a blank line in every version: no header line can consist of it.
		if done = len(line) == 0 || len(line) == 1 && line[0] == '\r'; done {
			s.body, s.state = s.pos, atBody
			break
		}
		at := s.line - s.block
		s.line = s.pos
		if err := s.readHeader(line, at); err != nil {
			return false, err
		}
	}
	// The grammar would let a NUL stand in a header, but every client and broker in use ends the frame there: to pass one on would be
	// to let the two sides see different frames. Looked for at once, as a frame without its blank line would else wait for ever.
	if bytes.IndexByte(p[from:s.pos], 0) >= 0 {
		return false, fmt.Errorf("%w: NUL among the headers of %s", ErrHeader, s.command)
	}
	return done, nil
}

// readHeader takes a header line without its line feed, which begins at this place in the block.
func (s *Parser) readHeader(line []byte, at int) error {
	if limit := or(s.Limits.Headers, DefaultHeaders); s.lines >= limit {
		return fmt.Errorf("%w: %s with more than %d headers", ErrLimit, s.command, limit)
	}
	s.lines++
	colon := max(bytes.IndexByte(line, ':'), 0)
	name := line[:colon]
	s.index.note(at, at+len(line)+1, colon)
	if s.Version == V10 {
		name = trimPadding(name)
	}
	if len(name) == 0 {
		return fmt.Errorf("%w: header %d of %s has no name or no colon", ErrHeader, s.lines, s.command)
	}
	switch name[0] {
	case 'u', ' ', '\t':
		s.ours = s.ours || bytes.HasPrefix(trimPadding(name), []byte(PairedPrefix))
		return nil
	}
	switch {
	case s.length < 0 && string(name) == "content-length":
		return s.readLength(line[colon+1:])
	case string(name) == "accept-version" || string(name) == "version":
		s.versioned = true
	}
	return nil
}

// readLength checks content-length before anyone allocates for it. A length on a command that has no body is refused unless it is
// zero: RabbitMQ and ActiveMQ do not honour it there, so frames would be cut differently on the two sides. Padding and a CR are
// taken off in every version, because both of them do so.
func (s *Parser) readLength(v []byte) error {
	limit := min(or(s.Limits.Body, DefaultBody), math.MaxInt/16) // so that neither n*10 nor a position can overflow
	v = trimPadding(v)
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

// readBody returns the position of the NUL that ends the frame, or -1.
func (s *Parser) readBody(p []byte) (end, need int, err error) {
	if s.length >= 0 {
		end = s.body + s.length
		if len(p) <= end {
			return -1, end + 1, nil
		}
		if p[end] != 0 {
			return -1, 0, fmt.Errorf("%w: %d on %s", ErrMissingNUL, s.length, s.command)
		}
		// Whether a broker honours the length of a command that we do not know is unknown too, so it must make no difference.
		if s.command == Unknown && bytes.IndexByte(p[s.body:end], 0) >= 0 {
			return -1, 0, fmt.Errorf("%w: NUL in the body of an unknown command", ErrContentLength)
		}
		return end, 0, nil
	}
	i := bytes.IndexByte(p[s.pos:], 0)
	end = s.pos + i
	if i < 0 {
		end = len(p)
	}
	if limit := or(s.Limits.Body, DefaultBody); end-s.body > limit {
		return -1, 0, fmt.Errorf("%w: %s with a body of more than %d octets", ErrLimit, s.command, limit)
	}
	if s.pos = end; i < 0 {
		return -1, len(p) + 1, nil
	}
	return end, 0, nil
}

// style says how the header lines of the frame just parsed are to be read. CONNECT comes before there is a version: one that offers
// 1.1 or later is not padded, and may end its lines as 1.2 allows.
func (s *Parser) style() lineStyle {
	switch {
	case s.command.handshake() && s.versioned:
		return optionalCR
	case s.command.handshake():
		return padded
	}
	return s.Version.style()
}
