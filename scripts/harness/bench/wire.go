package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// bodyBytes is the size of the body of every SEND and MESSAGE.
const bodyBytes = 1 << 10

// Limits of what is read from outside.
const (
	maxHeaders = 64
	maxBody    = 1 << 20
)

// header is one that somebody here asks for.
type header int

const (
	hReceipt header = iota
	hReceiptID
	hAck
	hSubscription
	hMessageID
	hID
	hDestination
	hContentLength
	hEffect
	hCursor
	hSession
	hProbe
	hMessage
	headers
)

// named are the headers by name; those that begin with understudy- are the contract between sidecar and paired broker.
func named(key []byte) (header, bool) {
	switch string(key) {
	case "receipt":
		return hReceipt, true
	case "receipt-id":
		return hReceiptID, true
	case "ack":
		return hAck, true
	case "subscription":
		return hSubscription, true
	case "message-id":
		return hMessageID, true
	case "id":
		return hID, true
	case "destination":
		return hDestination, true
	case "content-length":
		return hContentLength, true
	case "understudy-effect":
		return hEffect, true
	case "understudy-cursor":
		return hCursor, true
	case "understudy-session":
		return hSession, true
	case "understudy-probe":
		return hProbe, true
	case "message":
		return hMessage, true
	}
	return 0, false
}

// stompFrame is one frame without its body. It is reused, so that load and peers spend the machine's time on as little as possible.
type stompFrame struct {
	command []byte
	value   [headers][]byte // empty: absent; escapes are left as they are, which is what an answer has to repeat
	body    int             // octets
}

func (f *stompFrame) has(h header) bool { return len(f.value[h]) > 0 }

// number is a header's value, 0 if it is none.
func (f *stompFrame) number(h header) uint64 {
	n, err := strconv.ParseUint(string(f.value[h]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

var errMalformed = errors.New("malformed frame")

// next reads a frame, and heart-beats before it. Every header line must fit br's buffer.
func (f *stompFrame) next(br *bufio.Reader) error {
	line, err := readLine(br)
	for err == nil && len(line) == 0 {
		line, err = readLine(br)
	}
	if err != nil {
		return err
	}
	f.command = append(f.command[:0], line...)
	for i := range f.value {
		f.value[i] = f.value[i][:0]
	}
	for range maxHeaders {
		if line, err = readLine(br); err != nil {
			return truncated(err)
		}
		if len(line) == 0 {
			return f.skipBody(br)
		}
		key, value, ok := bytes.Cut(line, []byte{':'})
		if !ok {
			return fmt.Errorf("%w: header line %q", errMalformed, line)
		}
		if h, known := named(key); known && !f.has(h) { // the first of several counts
			f.value[h] = append(f.value[h], value...)
		}
	}
	return fmt.Errorf("%w: %s has more than %d headers", errMalformed, f.command, maxHeaders)
}

func (f *stompFrame) skipBody(br *bufio.Reader) error {
	f.body = 0
	if !f.has(hContentLength) {
		for {
			part, err := br.ReadSlice(0)
			f.body += len(part)
			if err == nil {
				f.body--
				return nil
			}
			if !errors.Is(err, bufio.ErrBufferFull) || f.body > maxBody {
				return truncated(err)
			}
		}
	}
	n := f.number(hContentLength)
	if n > maxBody {
		return fmt.Errorf("%w: body of %d octets", errMalformed, n)
	}
	f.body = int(n)
	if _, err := br.Discard(f.body); err != nil {
		return truncated(err)
	}
	end, err := br.ReadByte()
	if err == nil && end != 0 {
		return fmt.Errorf("%w: no NUL behind %d octets", errMalformed, f.body)
	}
	return truncated(err)
}

func readLine(br *bufio.Reader) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		if len(line) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte{'\r'}), nil
}

func truncated(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// drained reports whether nothing of a next frame was read yet. Ends of lines between frames are heart-beats, and no reason to go on reading
// before what is to be said was said.
func drained(br *bufio.Reader) bool {
	for br.Buffered() > 0 {
		if b, err := br.Peek(1); err != nil || b[0] != '\n' && b[0] != '\r' {
			return false
		}
		_, _ = br.Discard(1)
	}
	return true
}
