package broker

import (
	"errors"
	"net"
	"time"
)

// writeLoop writes what the store has for the client, as much at once as there is. It ends when the last word is written, or the
// connection is dead; then it closes the sending side, or all of it, which frees the reader.
func (c *conn) writeLoop() {
	beat := time.NewTimer(time.Hour)
	beat.Stop() // until a heart-beat is agreed
	defer beat.Stop()
	var out []byte
	for {
		due, wrote := false, false
		select {
		case <-c.toWriter:
		case <-beat.C:
			due = true
		}
		for {
			var closing, free, dead bool
			out, closing, free, dead = c.collect(out)
			if dead {
				c.nc.Close()
				return
			}
			if len(out) == 0 && due {
				out, free = append(out, '\n'), true // a heart-beat says nothing of the store
			}
			if len(out) > 0 {
				if err := c.write(out, free); errors.Is(err, errVoid) {
					continue
				} else if err != nil {
					c.broken()
					return
				}
				due, wrote = false, true
			}
			if closing {
				if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
					_ = half.CloseWrite()
				} else {
					c.nc.Close()
				}
				return
			}
			if len(out) == 0 {
				break
			}
		}
		if wrote { // whatever else woke us does not put the heart-beat off
			c.rearm(beat)
		}
	}
}

// collect takes what the client is to be told; done is the buffer before. closing says that nothing will follow, free that it may leave whoever
// owns the store.
func (c *conn) collect(done []byte) (out []byte, closing, free, dead bool) {
	t := c.lock()
	defer t.unlock()
	p, st := &c.peer, t.store
	switch {
	case len(p.out) > 0 && t.withhold(c):
		out = done[:0]
	case st != nil && p.session != nil:
		out = st.takeOut(p, done)
		st.flush()
	default:
		out, p.out = p.out, nil
	}
	return out, p.closing && len(p.out) == 0, st == nil || st.err != nil, p.dead
}

// write writes whole frames. Unless they are free it stops as long as the store may have another owner, and does not go on if it has: errVoid says that
// nothing was written, other errors that the connection is at an end.
func (c *conn) write(out []byte, free bool) error {
	c.outlet.free = free
	for whole := len(out); len(out) > 0; {
		n, err := c.outlet.write(out)
		out = out[n:]
		if errors.Is(err, errWithheld) {
			err = c.await()
			if errors.Is(err, errVoid) && len(out) < whole {
				err = net.ErrClosed // in the middle of a frame nothing else can be said
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// await waits until the store is known to be ours, or to be lost.
func (c *conn) await() error {
	for {
		t := c.lock()
		lost, dead := t.lost, c.peer.dead
		withheld := t.withhold(c)
		t.unlock()
		switch {
		case dead:
			return net.ErrClosed
		case lost:
			return errVoid
		case !withheld:
			return nil
		}
		<-c.toWriter
	}
}

// rearm sets the timer to when the next heart-beat is due. The reader sets c.beat before anything is written; until then there is none.
func (c *conn) rearm(beat *time.Timer) {
	t := c.lock()
	every := c.beat
	up := c.peer.session != nil
	t.unlock()
	if up && every > 0 {
		// A little early: what counts is when the client sees it.
		beat.Reset(every - every/4)
	}
}

// broken ends a connection that cannot be written to.
func (c *conn) broken() {
	t := c.lock()
	c.peer.dead = true
	c.kick()
	t.unlock()
	c.nc.Close()
}

var _ interface{ CloseWrite() error } = (*net.TCPConn)(nil)
