package broker

import (
	"fmt"
	"strconv"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// peer is a connection as the store sees it.
type peer struct {
	conn    *conn // the shell; nil where the store is tested by itself
	number  uint64
	epoch   uint64
	version frame.Version
	sidecar bool
	session *session
	subs    map[uint64]*subscription // by number
	numbers uint64                   // of subscriptions

	out      []byte // waits for the writer
	welcomed bool   // has been sent CONNECTED
	starved  bool   // a subscription was refused credit because out was full
	stalled  bool   // the reader waits
	touched  bool   // is in store.wake
	withheld bool   // is in Server.withheld
	untaken  bool   // the frame that was handled did not fit
	stuck    bool   // so nothing of p is tried before there is space on the disk
	unstored bool   // is in store.unstored
	quit     bool   // has said DISCONNECT: nothing more is taken from it
	closing  bool   // nothing more is said to it; it ends when out is written
	dead     bool   // ends at once

	txs     map[string]*transaction
	sends   uint64 // numbers messages
	acks    uint64 // numbers deliveries
	pending int64  // octets journaled and not durable
	last    journal.LSN
	maxOut  int
}

// room reports whether p may be dispatched to. What does not fit waits in its queue, where others can have it.
func (p *peer) room() bool {
	switch {
	case p == nil || p.quit || p.closing || p.dead:
		return false
	case len(p.out) >= p.maxOut:
		p.starved = true
		return false
	}
	return true
}

// deaf reports whether nothing that p says may take effect any more.
func (p *peer) deaf() bool { return p.quit || p.closing || p.dead }

// touch notes that p has something to do.
func (s *store) touch(p *peer) {
	if !p.touched {
		p.touched = true
		s.wake = append(s.wake, p)
	}
}

// Buffers for connections that have something to say; those that do not hold none.
const (
	outBytes   = 16 << 10 // first size
	keptBytes  = 1 << 20  // larger ones are not kept
	keptNumber = 64
)

// grow gives p an output buffer if it has none.
func (s *store) grow(p *peer) {
	if p.out != nil {
		return
	}
	if n := len(s.buffers); n > 0 {
		p.out, s.buffers = s.buffers[n-1], s.buffers[:n-1]
		return
	}
	p.out = make([]byte, 0, outBytes)
}

// takeOut hands what p is to be told to the writer, and lets the subscriptions go on that had no room. done is the buffer before.
func (s *store) takeOut(p *peer, done []byte) []byte {
	if cap(done) >= outBytes && cap(done) <= keptBytes && len(s.buffers) < keptNumber {
		s.buffers = append(s.buffers, done[:0])
	}
	out := p.out
	p.out = nil
	if p.starved {
		p.starved, s.looks = false, 0
		for _, sub := range p.session.subs {
			s.drain(sub)
			s.offer(sub)
		}
	}
	if p.stalled && len(out) > 0 { // the reader may have waited for that; else the writer would wake itself for ever
		s.touch(p)
	}
	return out
}

// finish ends p once everything said to it is written.
func (s *store) finish(p *peer) {
	p.closing = true
	s.touch(p)
}

// fault is what is wrong with a frame or a connection, in the words of an ERROR.
type fault struct {
	text   string // the message header: short
	detail string // the body
	code   string // HeaderError: what the sidecar has to deal with
	header string // one more header line, wire form
}

func faultf(text, format string, args ...any) *fault {
	return &fault{text: text, detail: fmt.Sprintf(format, args...)}
}

// refuse answers a frame with ERROR and ends the connection: what is pipelined behind it is ignored. [STOMP 1.2 ERROR]
func (s *store) refuse(p *peer, receipt []byte, f *fault) {
	if p.closing {
		return
	}
	s.grow(p)
	p.out = appendError(p.out, p.version, receipt, f)
	s.count.errors.Inc()
	s.slog.Debug("connection refused", "connection", p.number, "error", f.text, "detail", f.detail)
	s.finish(p)
}

// appendError writes an ERROR frame. receipt is in wire form, or nil.
func appendError(b []byte, v frame.Version, receipt []byte, f *fault) []byte {
	b = append(b, "ERROR\n"...)
	if f.code != "" {
		b = frame.AppendHeader(b, frame.HeaderError, f.code)
	}
	if receipt != nil {
		b = frame.AppendHeader(b, "receipt-id", receipt)
	}
	b = append(b, f.header...)
	b = append(b, "message:"...)
	b = append(frame.Escape(b, []byte(f.text), v), '\n')
	b = append(b, "content-type:text/plain\n"...)
	b = append(b, "content-length:"...)
	b = strconv.AppendInt(b, int64(len(f.detail)), 10)
	b = append(b, "\n\n"...)
	b = append(b, f.detail...)
	return append(b, 0, '\n')
}
