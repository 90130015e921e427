// Package relay is the one shell around every recorder: it owns a client connection from accept to close, with its goroutines,
// buffers, deadlines and back-pressure, and reaches brokers through a func that it is handed.
//
// Two goroutines serve a session: one reads the client, one finds brokers and reads them. After a long wait each leaves what comes next to a fresh
// one, because a stack that has grown does not shrink below 4 KiB, and most sessions are idle. Whoever read a leg feeds the recorder under
// the connection's mutex, lets the mutex go and writes what came out for the other leg itself; octets for the leg it reads from are written by a
// goroutine that lives only as long as there is something to write, so that two full sockets never wait for each other. At most one
// goroutine writes a leg at a time, in the order in which the recorder queued.
//
// Guarantees: calls of the recorder are serial; what is forwarded is copied once, from the kernel into a pooled chunk; an idle session holds
// no buffer, and one with TLS half a KiB. The package knows no protocol and no policy: where to go and how long to wait is the Dialer's.
package relay

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/understudy-mq/understudy/session"
)

// Dialer reaches a broker for a session. It blocks until it has a connection; it paces itself (Try.Failures says how often in a row this
// session was turned away) and waits for as long as there is no broker to go to. Its only errors are ctx's, or one that ends the session: the
// client is told, in its protocol.
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
	Lost                     // was live, now gone: Err says why. Not told of a leg that goes with its session
	Refused                  // gone before it was live: Err says why. Likewise
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
	// Credentials are what the broker that was dialled last is to be told instead of the client's own; both empty: the client's. It must not block.
	// May be nil.
	Credentials func() (login, passcode string)
	// Store is the store that the broker dialled last is to be asked for: session.Peer.Store. It must not block. May be nil.
	Store func() string
	// Budget is what this session may keep together with others; nil is no bound.
	Budget *Budget
	// ChunkBytes is the size of read buffers; 0 means 32 KiB.
	ChunkBytes int
	// LingerTimeout bounds writing the last octets to a client and waiting for its close; 0 means 5 s.
	LingerTimeout time.Duration
}

// EndError is why a session ended, when it was not an orderly end.
type EndError struct {
	Code  string // session.Fault's
	Cause error
}

// Error implements error.
func (e *EndError) Error() string {
	if e.Cause != nil {
		return "session ended: " + e.Code + ": " + e.Cause.Error()
	}
	return "session ended: " + e.Code
}

// Unwrap returns the cause.
func (e *EndError) Unwrap() error { return e.Cause }

// orderly is the Fault code of a session that its client ended.
const orderly = "client-closed"

// Conn is one relayed client connection.
type Conn struct {
	cfg     Config
	pool    *chunkPool
	wg      sync.WaitGroup // goroutines that end waits for
	readers [2]func()      // what the reader of each leg does, made once so that to start one allocates nothing
	ended   func(error)    // Start's
	stop    func() bool    // ends the watch on Start's context

	// Owned by the reader of the broker.
	try  Try
	name string // of the peer

	mu          sync.Mutex
	cancel      context.CancelFunc // of the dial under way
	rec         session.Recorder
	out         session.Out
	legs        [2]leg
	changed     sync.Cond // pause, writers idle, ready, end
	timer       *time.Timer
	armed       time.Time // when timer fires; zero: not armed
	fault       *session.Fault
	sealed      bool          // the session is being taken down: no goroutine may be started, no octet queued
	closed      bool          // the recorder is closed: nothing may call it
	hungUp      bool          // the paused client has closed: what it had sent is read to its end
	arrivalWait time.Duration // until the client's socket is looked at again
	interrupted bool          // the write to the client was taken from the broker's reader
	kept        int           // what Budget knows of
	overdraft   bool          // the client is not read because of Budget
	moving      error         // why the current broker connection is being left
	live        bool
}

// New makes a Conn that owns client and rec; Serve must be called.
func New(client net.Conn, rec session.Recorder, cfg Config) *Conn {
	if cfg.ChunkBytes == 0 {
		cfg.ChunkBytes = 32 << 10
	}
	if cfg.LingerTimeout == 0 {
		cfg.LingerTimeout = 5 * time.Second
	}
	c := &Conn{cfg: cfg, pool: poolOf(cfg.ChunkBytes), rec: rec}
	c.changed.L = &c.mu
	c.legs[session.Client].conn = client
	c.legs[session.Client].raw, c.legs[session.Client].secure = socketOf(client), secure(client)
	c.legs[session.Client].in.init(c.pool, &c.mu, client)
	return c
}

// Serve relays until the session ends or ctx is cancelled, then closes everything. It returns nil for an orderly end.
func (c *Conn) Serve(ctx context.Context) error {
	result := make(chan error, 1)
	c.Start(ctx, func(err error) { result <- err })
	return <-result
}

// Start is Serve for a caller who does not want to wait: ended is told what Serve would have returned, from a goroutine that it may keep.
func (c *Conn) Start(ctx context.Context, ended func(error)) {
	c.ended = ended
	c.readers = [2]func(){session.Client: c.readClient, session.Broker: func() { c.followBroker(ctx) }}
	c.timer = time.AfterFunc(time.Hour, c.tick)
	c.timer.Stop()
	c.wg.Add(len(c.readers)) // before anything can end the session
	stop := context.AfterFunc(ctx, func() { c.finish(&session.Fault{Code: "shutdown", Cause: context.Cause(ctx)}) })
	c.mu.Lock()
	c.stop = stop
	c.mu.Unlock()
	c.step(neither, func(out *session.Out) { c.rec.Tick(out) })
	for _, read := range c.readers {
		go read()
	}
}

// end is the goroutine that takes down a session whose fault is set.
func (c *Conn) end() {
	c.mu.Lock()
	event := c.describe(Ended, "", nil, time.Now())
	c.mu.Unlock()
	c.close()
	if f := c.fault; f.Code != orderly {
		event.Err = &EndError{f.Code, f.Cause}
	}
	event.At = time.Now()
	c.tell(event)
	c.ended(event.Err)
}

// Report asks the recorder.
func (c *Conn) Report() (r session.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rec.Report(&r)
	return r
}

// Sever breaks the broker leg on purpose, as a fault would: the session parks and dials again.
func (c *Conn) Sever(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandon(why)
}

// errClosed is what a leg reports that was closed by the other side in order.
var errClosed = errors.New("connection closed by the broker")

// finish ends the session from outside the recorder.
func (c *Conn) finish(f *session.Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setFault(f)
}

func (c *Conn) setFault(f *session.Fault) {
	if c.fault == nil {
		c.fault = f
		if c.cancel != nil {
			c.cancel()
		}
		c.changed.Broadcast()
		go c.end()
	}
}

// close takes the session down: what is queued for the client leaves first, and the client is given the time to read it, because a
// reset would throw an unread ERROR away.
func (c *Conn) close() {
	client := c.legs[session.Client].conn
	deadline := time.Now().Add(c.cfg.LingerTimeout)
	_ = client.SetWriteDeadline(deadline)
	c.mu.Lock()
	if broker := &c.legs[session.Broker]; broker.conn != nil && c.fault.Code == orderly {
		_ = broker.conn.SetWriteDeadline(deadline)
		for broker.writing && c.moving == nil {
			c.changed.Wait()
		}
	}
	c.abandon(errClosed)
	for c.legs[session.Client].writing {
		c.changed.Wait()
	}
	c.sealed = true
	_ = client.SetReadDeadline(deadline)
	c.mu.Unlock()
	if !CloseWrite(client) { // else readClient goes on, discarding, until the client has closed too
		_ = client.Close()
	}
	c.wg.Wait()
	_ = client.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer.Stop()
	c.stop()
	c.closed = true
	for i := range c.legs {
		c.legs[i].in.release()
	}
	if broker := c.legs[session.Broker].conn; broker != nil {
		_ = broker.Close()
	}
	c.cfg.Budget.add(-c.kept)
	c.out.Close()
	c.rec.Close()
}

// describe makes an Event. It and tell are apart from their callers because an Event is large, and would be part of the stack of every goroutine
// that waits below them. It is called under the mutex.
//
//go:noinline
func (c *Conn) describe(kind EventKind, peer string, err error, at time.Time) *Event {
	e := &Event{Kind: kind, Peer: peer, Err: err, At: at}
	c.rec.Report(&e.Report)
	return e
}

//go:noinline
func (c *Conn) tell(e *Event) {
	if c.cfg.Event != nil {
		c.cfg.Event(*e)
	}
}
