package broker

import (
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
		due := false
		select {
		case <-c.toWriter:
		case <-beat.C:
			due = true
		}
		for {
			c.srv.lock()
			p := &c.peer
			if st := c.srv.store; st != nil && p.session != nil {
				out = st.takeOut(p, out)
				st.flush()
			} else {
				out, p.out = p.out, nil
			}
			closing, dead := p.closing && len(p.out) == 0, p.dead
			c.srv.unlock()
			if dead {
				c.nc.Close()
				return
			}
			if len(out) == 0 && due {
				out = append(out, '\n')
			}
			if len(out) > 0 {
				if _, err := c.nc.Write(out); err != nil {
					c.broken()
					return
				}
				due = false
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
		c.rearm(beat)
	}
}

// rearm sets the timer to when the next heart-beat is due. The reader sets c.beat before anything is written; until then there is none.
func (c *conn) rearm(beat *time.Timer) {
	c.srv.lock()
	every := c.beat
	up := c.peer.session != nil
	c.srv.unlock()
	if up && every > 0 {
		// A little early: what counts is when the client sees it.
		beat.Reset(every - every/4)
	}
}

// broken ends a connection that cannot be written to.
func (c *conn) broken() {
	c.srv.lock()
	c.peer.dead = true
	c.kick()
	c.srv.unlock()
	c.nc.Close()
}

var _ interface{ CloseWrite() error } = (*net.TCPConn)(nil)
