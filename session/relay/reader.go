package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/understudy-mq/understudy/session"
)

// readClient reads the client from accept to its end.
func (c *Conn) readClient() {
	defer c.wg.Done()
	for c.awaitReadable(session.Client) {
		err, rested := c.readOnce(session.Client, session.Broker)
		if err != nil {
			c.clientEOF(err)
			return
		}
		if rested {
			c.startReader(session.Client)
			return
		}
	}
	_ = discard(c.legs[session.Client].conn)
}

func (c *Conn) clientEOF(err error) {
	c.step(session.Broker, func(out *session.Out) {
		if c.fault == nil {
			c.rec.ClientEOF(errors.Is(err, io.EOF), out)
		}
	})
}

// A reader that waited this long belongs to a session with little to do. What the next costs, less than a microsecond, does not matter to it; the
// stack that it saves is most of what it holds.
const restful = 100 * time.Millisecond

// startReader has a fresh goroutine go on reading a leg. The caller is its reader, and returns.
func (c *Conn) startReader(l session.Leg) {
	c.wg.Add(1)
	go c.readers[l]()
}

// awaitReadable waits while the recorder does not want a leg read; false means the session is over.
func (c *Conn) awaitReadable(l session.Leg) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.fault == nil && !(l == session.Client && c.hungUp) {
		if l == session.Client {
			c.overdraw(c.overdrawn())
		}
		if !c.out.Pause[l] && !(l == session.Client && c.overdraft) {
			break
		}
		c.changed.Wait()
	}
	if l == session.Client {
		c.overdraw(false)
	}
	c.legs[l].since = time.Now()
	return c.fault == nil
}

// readOnce reads what is there and feeds it. rested reports that it had to wait so long that its stack should be given up.
func (c *Conn) readOnce(l, natural session.Leg) (err error, rested bool) {
	in := &c.legs[l].in
	if err = in.fill(); err != nil && errors.Is(err, os.ErrDeadlineExceeded) && c.unpoke(l) {
		return nil, true
	}
	c.step(natural, func(out *session.Out) {
		rested = out.Now.Sub(c.legs[l].since) >= restful
		c.legs[l].since, c.legs[l].busy, c.legs[l].deep = time.Time{}, out.Now, !rested
		if c.fault == nil && in.have() > 0 && (l == session.Client || c.moving == nil) {
			took, want := c.rec.Feed(l, in.unread(), out)
			in.took(took, want)
		}
	})
	return err, rested
}

// unpoke reports whether a read ended because of Trim, and lets the next one wait again.
func (c *Conn) unpoke(l session.Leg) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	leg := &c.legs[l]
	poked := leg.poked
	leg.poked = false
	if poked && !(c.sealed && l == session.Client) && leg.conn != nil { // close has set another one
		_ = leg.conn.SetReadDeadline(time.Time{})
	}
	return poked
}

// Trim lets memory go that a session needs only while it is used. It is called now and then, by anybody; a session that is in use keeps everything.
func (c *Conn) Trim(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault != nil || c.closed {
		return
	}
	quiet := true
	for l := range c.legs {
		leg := &c.legs[l]
		waits := leg.conn != nil && !leg.since.IsZero() && now.Sub(leg.since) >= restful
		if !waits || leg.writing || leg.poked {
			quiet = false
			continue
		}
		leg.in.surrender()
		if cap(leg.bufs) > 1 {
			leg.vec = vec{}
		}
		if leg.deep && leg.in.raw != nil {
			leg.deep, leg.poked = false, true
			_ = leg.conn.SetReadDeadline(time.Unix(1, 0))
		}
	}
	if quiet {
		c.out.Trim()
	}
}

// discard reads a client that has nothing more to say, until it closes or the deadline passes.
func discard(conn net.Conn) error {
	var sink [512]byte
	for {
		if _, err := conn.Read(sink[:]); err != nil {
			return err
		}
	}
}

// followBroker finds a broker, reads it until it is lost, finds the next one. Its place in this loop is the state of the broker leg; one that was
// started in the place of another finds the peer's name set, and goes on reading.
func (c *Conn) followBroker(ctx context.Context) {
	defer c.wg.Done()
	for c.name != "" || c.reach(ctx) {
		err, rested := c.readBroker()
		if rested {
			c.startReader(session.Broker)
			return
		}
		if !c.left(err) {
			return
		}
	}
}

// reach connects to the next broker; false means that the session is over.
func (c *Conn) reach(ctx context.Context) bool {
	if !c.awaitHints(&c.try) {
		return false
	}
	c.try.Attempt++
	conn, err := c.dial(ctx)
	if err != nil {
		if ctx.Err() != nil {
			c.finish(&session.Fault{Code: "shutdown", Cause: context.Cause(ctx)})
			return false
		}
		c.step(neither, func(out *session.Out) {
			if c.fault == nil {
				c.rec.Nowhere(err, out)
			}
		})
		c.finish(&session.Fault{Code: "dial", Cause: err}) // unless the recorder has ended it
		return false
	}
	name := conn.RemoteAddr().String()
	if !c.up(conn, name, c.try.Attempt) {
		_ = conn.Close()
		return false
	}
	c.name = name
	c.report(Dialled, nil)
	return true
}

// dial calls Dial with a context that ends with the session.
func (c *Conn) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	if c.cancel = cancel; c.fault != nil {
		cancel()
	}
	c.mu.Unlock()
	conn, err := c.cfg.Dial(ctx, c.try)
	c.mu.Lock()
	c.cancel = nil
	c.mu.Unlock()
	return conn, err
}

// left deals with the end of a broker connection; false means that it ended with the session, which sees to it.
func (c *Conn) left(err error) bool {
	why, live := c.down(err)
	if why == nil {
		return false
	}
	kind := Refused
	if c.try.Failures++; live {
		kind, c.try.Failures = Lost, 0
	}
	c.report(kind, why)
	c.try.Last, c.try.Err, c.name = c.name, why, ""
	return true
}

// report tells what has become of the broker connection.
func (c *Conn) report(kind EventKind, err error) {
	c.mu.Lock()
	event := c.describe(kind, c.name, err, time.Now())
	c.mu.Unlock()
	c.tell(event)
}

// awaitHints waits until the client has said enough to be routed; false means the session is over.
func (c *Conn) awaitHints(t *Try) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.fault == nil {
		if t.Hints = c.rec.Hints(); t.Hints.Ready {
			return true
		}
		c.changed.Wait()
	}
	return false
}

func (c *Conn) up(conn net.Conn, name string, attempt uint64) bool {
	ok := false
	peer := session.Peer{Name: name, Attempt: attempt}
	if c.cfg.Credentials != nil {
		peer.Login, peer.Passcode = c.cfg.Credentials()
	}
	if c.cfg.Store != nil {
		peer.Store = c.cfg.Store()
	}
	c.step(neither, func(out *session.Out) {
		if c.fault != nil {
			return
		}
		ok = true
		leg := &c.legs[session.Broker]
		leg.conn, leg.name, leg.raw, leg.written, leg.arrived, leg.gone, leg.poked = conn, name, socketOf(conn), 0, 0, false, false
		leg.in.release()
		leg.in.init(c.pool, &c.mu, conn)
		c.moving, c.live, leg.since = nil, false, out.Now
		c.rec.Up(peer, out)
	})
	return ok
}

func (c *Conn) readBroker() (err error, rested bool) {
	for c.awaitReadable(session.Broker) {
		if err, rested := c.readOnce(session.Broker, session.Client); err != nil || rested {
			return err, rested
		}
	}
	return errClosed, false
}

// down reports the loss of the broker connection: the reason for which it was left, if it was, else how it ended; nil if it went with the
// session.
func (c *Conn) down(err error) (why error, live bool) {
	if errors.Is(err, io.EOF) {
		err = errClosed
	}
	c.step(neither, func(out *session.Out) {
		leg := &c.legs[session.Broker]
		if c.moving != nil {
			err = c.moving
		}
		if c.fault != nil && c.moving == nil {
			err = nil
			return // close sees to it, once what is queued was written
		}
		c.hangUp(leg.conn)
		leg.conn = nil
		out.Discard(session.Broker)
		live, c.live = c.live, false
		if c.fault == nil {
			c.rec.Down(err, out)
		} else {
			err = nil
		}
	})
	return err, live
}
