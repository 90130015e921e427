package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/understudy-mq/understudy/session"
)

// readClient reads the client from accept to its end.
func (c *Conn) readClient() {
	leg := &c.legs[session.Client]
	for {
		if !c.awaitReadable(session.Client) {
			_ = discard(leg.conn)
			return
		}
		err := c.readOnce(session.Client, session.Broker)
		if err != nil {
			c.step(session.Broker, func(out *session.Out) {
				if c.fault == nil {
					c.rec.ClientEOF(errors.Is(err, io.EOF), out)
				}
			})
			return
		}
	}
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

// readOnce reads what is there and feeds it.
func (c *Conn) readOnce(l, natural session.Leg) error {
	in := &c.legs[l].in
	err := in.fill()
	c.step(natural, func(out *session.Out) {
		c.legs[l].since, c.legs[l].busy = time.Time{}, out.Now
		if c.fault == nil && in.have() > 0 && (l == session.Client || c.moving == nil) {
			took, want := c.rec.Feed(l, in.unread(), out)
			in.took(took, want)
		}
	})
	return err
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

// followBroker finds a broker, reads it until it is lost, finds the next one. Its place in this loop is the state of the broker leg.
func (c *Conn) followBroker(ctx context.Context) {
	var t Try
	for c.awaitHints(&t) {
		t.Attempt++
		conn, err := c.cfg.Dial(ctx, t)
		if err != nil {
			f := &session.Fault{Code: "dial", Cause: err}
			if ctx.Err() != nil {
				f = &session.Fault{Code: "shutdown", Cause: context.Cause(ctx)}
			}
			c.finish(f)
			return
		}
		name := conn.RemoteAddr().String()
		if !c.up(conn, name, t.Attempt) {
			_ = conn.Close()
			return
		}
		c.event(Event{Kind: Dialled, Peer: name, At: time.Now(), Report: c.Report()})
		err = c.readBroker()
		t.Last = name
		live := false
		if t.Err, live = c.down(err); t.Err == nil {
			return // the session ended, and left the broker itself
		}
		kind := Refused
		if t.Failures++; live {
			kind, t.Failures = Lost, 0
		}
		c.event(Event{Kind: kind, Peer: name, Err: t.Err, At: time.Now(), Report: c.Report()})
	}
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
	c.step(neither, func(out *session.Out) {
		if c.fault != nil {
			return
		}
		ok = true
		leg := &c.legs[session.Broker]
		leg.conn, leg.name, leg.raw, leg.written, leg.arrived, leg.gone = conn, name, socketOf(conn), 0, 0, false
		leg.in.release()
		leg.in.init(c.pool, &c.mu, conn)
		c.moving, c.live, leg.since = nil, false, out.Now
		c.rec.Up(peer, out)
	})
	return ok
}

func (c *Conn) readBroker() error {
	for c.awaitReadable(session.Broker) {
		if err := c.readOnce(session.Broker, session.Client); err != nil {
			return err
		}
	}
	return errClosed
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
