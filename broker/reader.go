package broker

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// readLoop handles frames until the connection ends.
func (c *conn) readLoop() error {
	for {
		more, err := c.batch()
		if err := c.apply(); err != nil {
			return err
		}
		if err != nil {
			return c.refuse(nil, malformed(err))
		}
		if more {
			continue
		}
		var deadline time.Time
		if c.silence > 0 {
			deadline = time.Now().Add(c.silence)
		}
		_ = c.nc.SetReadDeadline(deadline)
		// Whoever ends the connection says so first and moves the deadline then: either it is seen here, or it cuts the read short.
		if c.deaf() {
			return errDeaf
		}
		if err := c.fill(); err != nil {
			return c.ended(err)
		}
	}
}

func (c *conn) deaf() bool {
	t := c.lock()
	defer t.unlock()
	return c.peer.deaf()
}

// ended tells an orderly end of input (nil) from others.
func (c *conn) ended(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		if c.deaf() {
			return errDeaf
		}
		c.srv.cfg.Logger.Info("connection dropped", "remote", c.nc.RemoteAddr().String(), "error", errSilent)
		return errSilent
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}

// batch decodes frames that were read, as many as are handled at once. It reports whether there may be more.
func (c *conn) batch() (more bool, err error) {
	clear(c.requests)
	c.requests = c.requests[:0]
	var f frame.Frame
	for len(c.requests) < batchMost {
		n, err := c.next(&f)
		if n == 0 || err != nil {
			return false, err
		}
		if f.Command != frame.EOL {
			c.requests = append(c.requests, c.decoder.decode(&f))
		}
	}
	return true, nil
}

// next cuts one frame out of the read buffer; it is valid until fill is called.
func (c *conn) next(f *frame.Frame) (n int, err error) {
	if c.start == c.end {
		return 0, nil
	}
	n, _, err = c.parser.Next(c.buf[c.start:c.end], f)
	c.start += n
	return n, err
}

// fill reads more. The buffer grows with what has arrived, never with what was announced.
func (c *conn) fill() error {
	if c.start > 0 {
		c.end = copy(c.buf, c.buf[c.start:c.end])
		c.start = 0
	}
	switch {
	case c.end == len(c.buf):
		grown := make([]byte, 2*len(c.buf))
		copy(grown, c.buf)
		c.buf = grown
	case c.end == 0 && len(c.buf) > largeRead:
		c.buf = make([]byte, largeRead)
	}
	n, err := c.nc.Read(c.buf[c.end:])
	c.end += n
	if n > 0 {
		if c.end == len(c.buf) && c.end < largeRead {
			grown := make([]byte, largeRead)
			copy(grown, c.buf)
			c.buf = grown
		}
		return nil
	}
	return err
}

// apply hands the batch to the store and then waits, if it must, until more may be read.
func (c *conn) apply() error {
	for i := 0; i < len(c.requests); {
		t := c.lock()
		st, p := t.store, &c.peer
		for i < len(c.requests) && st.accept(p, &c.requests[i]) {
			i++
		}
		st.flush()
		deaf, full := p.deaf(), i < len(c.requests)
		p.stalled = full || c.overloaded()
		stalled := p.stalled
		t.unlock()
		if deaf {
			return errDeaf
		}
		if stalled {
			if err := c.wait(full, i); err != nil {
				return err
			}
		}
	}
	clear(c.requests) // a client that says nothing more keeps no messages in memory
	return nil
}

// overloaded reports, under the mutex, whether the client is ahead of the disk, or behind with reading.
func (c *conn) overloaded() bool {
	return c.peer.pending > c.srv.cfg.MaxPending || len(c.peer.out) > c.srv.cfg.MaxOut+controlBytes
}

// wait holds the reader back. For room it waits a limited time, for a slow disk, be it in writing or in making files, and the client's own reading as long as it
// takes: the one ends with the journal, the other with the connection.
func (c *conn) wait(full bool, i int) error {
	var timeout <-chan time.Time
	if full {
		timeout = time.After(c.srv.cfg.FullTimeout)
	}
	for {
		late := false
		select {
		case <-c.toReader:
		case <-timeout:
			late = true
		}
		t := c.lock()
		st, p := t.store, &c.peer
		ready := !c.overloaded() && (!full || st.fits(p, &c.requests[i]))
		if late && !ready && !p.deaf() {
			if r := &c.requests[i]; st.diskSlow && st.unstorable(p, r) {
				timeout = time.After(c.srv.cfg.FullTimeout)
			} else {
				st.refuse(p, r.receipt, st.overflow(p, r))
			}
		}
		deaf := p.deaf()
		p.stalled = !ready && !deaf
		t.unlock()
		switch {
		case deaf:
			return errDeaf
		case ready:
			return nil
		}
	}
}
