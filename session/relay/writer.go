package relay

import (
	"errors"
	"net"
	"os"
	"time"

	"github.com/understudy-mq/understudy/session"
)

// vec is a writer's: what it took from the queue, and the same as the system call wants it.
type vec struct {
	bufs []session.Buf
	iov  [][]byte
	nb   net.Buffers
	rest bool // bufs is what an interrupted write left
}

// drain writes what is queued for a leg until nothing is left. The caller has set writing.
func (c *Conn) drain(l session.Leg) {
	leg := &c.legs[l]
	for {
		c.mu.Lock()
		conn := leg.conn
		if conn == nil || leg.gone || c.closed {
			c.out.Discard(l)
		}
		if !leg.rest {
			leg.bufs = c.out.Take(l, leg.bufs[:0])
		}
		leg.rest = false
		if len(leg.bufs) == 0 {
			leg.writing, leg.inline = false, false
			leg.shrink()
			c.changed.Broadcast()
			c.mu.Unlock()
			return
		}
		c.changed.Broadcast() // there is room in the queue
		c.mu.Unlock()
		n, err := leg.write(conn)
		if c.wrote(l, conn, n, err) {
			c.startDrain(l)
			return
		}
	}
}

// Slices that grew beyond this for a burst are not kept.
const keptBufs = 4 << 10

func (v *vec) shrink() {
	if cap(v.bufs) > keptBufs {
		*v = vec{}
	}
}

// write hands all taken ranges to the kernel, in one system call or one TLS record where the connection can.
func (v *vec) write(conn net.Conn) (int64, error) {
	if len(v.bufs) == 1 {
		n, err := conn.Write(v.bufs[0].Bytes())
		return int64(n), err
	}
	if secure(conn) {
		return v.gather(conn)
	}
	v.iov = v.iov[:0]
	for _, b := range v.bufs {
		v.iov = append(v.iov, b.Bytes())
	}
	v.nb = v.iov
	return v.nb.WriteTo(conn)
}

// resume keeps what an interrupted write to the client left. It is called under the mutex.
func (c *Conn) resume(leg *leg, n int64) {
	var deadline time.Time
	if c.fault != nil {
		deadline = time.Now().Add(c.cfg.LingerTimeout)
	}
	_ = leg.conn.SetWriteDeadline(deadline)
	leg.written += uint64(n)
	left := leg.bufs[:0]
	for _, b := range leg.bufs {
		done := min(n, int64(b.Len()))
		if n -= done; done == int64(b.Len()) {
			b.Drop()
			continue
		}
		left = append(left, b.Slice(int(done), b.Len()))
	}
	clear(leg.bufs[len(left):])
	leg.bufs, leg.rest, leg.inline, c.interrupted = left, true, false, false
}

// wrote drops what was written and tells the recorder. A failure towards the broker ends that connection, whose reader reports it; one
// towards the client is the client's end. again reports that the write was interrupted: somebody else is to go on with it.
func (c *Conn) wrote(l session.Leg, conn net.Conn, n int64, err error) (again bool) {
	c.step(neither, func(out *session.Out) {
		leg := &c.legs[l]
		if again = l == session.Client && c.interrupted && errors.Is(err, os.ErrDeadlineExceeded); again {
			c.resume(leg, n)
			return
		}
		for i := range leg.bufs {
			leg.bufs[i].Drop()
		}
		clear(leg.bufs)
		clear(leg.iov)
		if leg.conn != conn {
			return // the leg was replaced meanwhile
		}
		leg.written += uint64(n)
		if l == session.Broker {
			if err != nil {
				c.abandon(err)
			} else if c.fault == nil {
				c.rec.Wrote(l, leg.written, out)
			}
			return
		}
		if err != nil {
			leg.gone, c.hungUp = true, true // its reader finds the end, behind what the client had sent
			return
		}
		if c.interrupted && c.fault == nil { // too late: it was written
			c.interrupted = false
			_ = conn.SetWriteDeadline(time.Time{})
		}
		if c.fault == nil {
			c.observeArrival(out)
		}
	})
	return again
}
