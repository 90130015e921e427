// Package relay is the one shell around every recorder: it owns a client connection from accept to close, with its goroutines,
// buffers, deadlines and back-pressure, and reaches brokers through a func that it is handed.
package relay

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/understudy-mq/understudy/session"
)

// Dialer reaches a broker for a session. It blocks until it has a connection; it paces itself (Try.Failures says how often in a row this
// session was turned away) and waits for as long as there is no broker to go to. Its only errors are ctx's, or one that ends the session.
type Dialer func(ctx context.Context, t Try) (net.Conn, error)

// Try is what a Dialer may want to know of the session that asks.
type Try struct {
	Hints    session.Hints
	Attempt  uint64 // the number of this dial, from 1
	Failures int    // dials in a row since the session last was live
	Last     string // name (host:port) of the peer before, "" at first
	Err      error  // why that one was left
}

// EventKind says what happened to a session's broker leg.
type EventKind uint8

// What happens to a leg, in its order.
const (
	Dialled EventKind = iota // connection made, login queued
	Live                     // replay confirmed
	Lost                     // was live, now gone: Err says why
	Refused                  // gone before it was live: Err says why
	Ended                    // the session is over: Err says why, nil for an orderly end
)

// Event is evidence for health and a line for the log.
type Event struct {
	Kind   EventKind
	Peer   string // host:port as the connection's RemoteAddr says
	Err    error
	At     time.Time
	Report session.Report // as it is after the event
}

// Config of a relayed connection; Dial is required.
type Config struct {
	Dial Dialer
	// Event is called for each event, without locks, from the goroutine that saw it; it must not block. May be nil.
	Event func(Event)
	// ChunkBytes is the size of read buffers; 0 means 32 KiB.
	ChunkBytes int
	// MaxFrameBytes bounds a single frame, and so what is buffered for one that is not whole yet; 0 means 16 MiB and the recorder's own limits.
	MaxFrameBytes int
	// LingerTimeout bounds writing the last octets to a client; 0 means 5 s.
	LingerTimeout time.Duration
	Logger        *slog.Logger
}

// Conn is one relayed client connection.
type Conn struct{}

// New makes a Conn that owns client and rec; Serve must be called.
func New(client net.Conn, rec session.Recorder, cfg Config) *Conn { panic("being written") }

// Serve relays until the session ends or ctx is cancelled, then closes everything. It returns nil for an orderly end.
func (c *Conn) Serve(ctx context.Context) error { return errors.ErrUnsupported }

// Report asks the recorder.
func (c *Conn) Report() session.Report { return session.Report{} }

// Sever breaks the broker leg on purpose, as a fault would: the session parks and dials again.
func (c *Conn) Sever(why error) {}
