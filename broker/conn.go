package broker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// conn is the shell of one connection: a reader, which is the goroutine that serves it, and a writer. The reader parses and decodes without
// the mutex and hands whole batches to the store.
type conn struct {
	srv *Server
	nc  net.Conn
	at  atomic.Pointer[tenure] // the lobby, then what its CONNECT chose; changed by bind alone

	outlet *outlet // the writer's

	// Owned by the reader.
	parser   frame.Parser
	decoder  decoder
	buf      []byte // read and not taken: buf[start:end]
	start    int
	end      int
	requests []request
	silence  time.Duration // the longest a client may be silent; 0: for ever

	// Written by the reader before it tells the writer that the connection is up.
	beat time.Duration // how often the client hears from us; 0: no promise

	// Guarded by the tenure's mutex.
	peer peer

	toWriter chan struct{} // of one element: there is something to write, or to end
	toReader chan struct{} // of one element: what the reader waits for may have come
}

const (
	firstRead = 4 << 10  // size of a read buffer at first: most connections say little
	largeRead = 64 << 10 // and of one that says much; larger only while a larger frame is read
	batchMost = 64       // frames handled under one lock
	// controlBytes is how much a connection may have waiting beside messages before it is not read: receipts that it does not collect.
	controlBytes = 4 << 20
)

var (
	errDeaf    = errors.New("the connection ends")
	errNoHello = errors.New("no CONNECT in time")
	errSilent  = errors.New("the client's heart-beat stopped")
)

func newConn(srv *Server, nc net.Conn) *conn {
	c := &conn{srv: srv, nc: nc, toWriter: make(chan struct{}, 1), toReader: make(chan struct{}, 1), buf: make([]byte, firstRead)}
	c.peer.conn, c.outlet = c, newOutlet(nc, c.ours)
	c.at.Store(srv.lobby)
	c.parser.Limits = srv.cfg.Limits
	return c
}

// lock locks what c belongs to, and returns it.
func (c *conn) lock() *tenure {
	for {
		t := c.at.Load()
		t.lock()
		if c.at.Load() == t {
			return t
		}
		t.unlock() // it was bound meanwhile
	}
}

// bind takes c from the lobby to t, which is locked then, unless t takes nobody any more, or c is to end. While it changes hands both mutexes are held, so
// whoever has either finds c where it is. The lobby's is the second and is held for a moment only: a store that is slow keeps nobody else waiting.
func (c *conn) bind(t *tenure) bool {
	t.lock()
	lobby := c.at.Load()
	lobby.mu.Lock()
	ok := t.store != nil && t.ended == nil && !c.peer.deaf()
	if ok {
		delete(lobby.conns, c)
		t.conns[c] = struct{}{}
		t.served.Add(1)
		c.at.Store(t)
	}
	lobby.mu.Unlock()
	if !ok {
		t.unlock()
		return false
	}
	lobby.served.Done()
	return true
}

// ours is the guard's question.
func (c *conn) ours(now time.Time) bool { return c.at.Load().ours(now) }

// kick wakes whoever waits for the peer to change. It is called under the mutex and does not block.
func (c *conn) kick() {
	select {
	case c.toWriter <- struct{}{}:
	default:
	}
	if c.peer.stalled {
		select {
		case c.toReader <- struct{}{}:
		default:
		}
	}
	if c.peer.dead {
		_ = c.nc.SetDeadline(time.Unix(1, 0)) // whoever is blocked on the socket is not any more
	}
}

// serve is the life of a connection.
func (c *conn) serve() {
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.writeLoop()
	}()
	err := c.handshake()
	if err == nil {
		err = c.readLoop()
	}
	if c.goodbye(err) {
		c.linger(written)
	}
	t := c.lock()
	c.peer.dead = true
	if st := t.store; st != nil {
		st.leave(&c.peer)
		st.flush()
	}
	c.kick()
	t.unlock()
	<-written
	c.nc.Close()
}

// goodbye ends what the connection was in the store, and reports whether the client is still to be told something. A direct client that has
// only closed its side is told what it is owed. A sidecar that said DISCONNECT keeps its session to the end: its cursor moves on.
func (c *conn) goodbye(err error) (more bool) {
	t := c.lock()
	defer t.unlock()
	p, st := &c.peer, t.store
	told := p.quit || p.closing
	if st == nil || p.session == nil {
		return told
	}
	if !p.sidecar || !p.quit || p.closing {
		st.leave(p)
	}
	if !told && !p.sidecar && err == nil {
		st.when(p.last, pend{peer: p, close: true})
		told = true
	}
	st.flush()
	return told && !p.dead
}

// linger keeps the client's side open, and ignores what it says, until the client has closed, or has had time to: a connection closed with unread
// octets is reset, and so is one to which the client says something more; it could lose the last word then. Once the client's machine has
// acknowledged that word, and the client has said nothing since for a while, that is not to be expected any more. The linger time bounds it all.
func (c *conn) linger(written <-chan struct{}) {
	var last, quiet time.Time // since when the last word is due, and since when it was said and nothing more is heard
	for open := true; ; {
		t := c.lock()
		closing, dead := c.peer.closing, c.peer.dead
		t.unlock()
		now := time.Now()
		if closing && last.IsZero() {
			last = now
		}
		all := said(written)
		if all && (quiet.IsZero() || c.outlet.unacknowledged() > 0) {
			quiet = now
		}
		switch {
		case dead, all && !open, all && now.Sub(quiet) >= lingerQuiet, closing && now.Sub(last) >= c.srv.cfg.LingerTimeout:
			return
		case !open:
			select {
			case <-written:
			case <-time.After(lingerStep):
			}
			continue
		}
		_ = c.nc.SetReadDeadline(now.Add(lingerStep))
		n, err := c.nc.Read(c.buf)
		if n > 0 {
			quiet = time.Time{}
		}
		open = err == nil || errors.Is(err, os.ErrDeadlineExceeded)
	}
}

const (
	// lingerQuiet is long enough for a client to hear the last word, and for us to hear what it had said until then.
	lingerQuiet = 200 * time.Millisecond
	lingerStep  = lingerQuiet / 4
)

// said reports whether the writer has ended.
func said(written <-chan struct{}) bool {
	select {
	case <-written:
		return true
	default:
		return false
	}
}

// handshake reads the first frame and has the store answer it.
func (c *conn) handshake() error {
	t := c.lock()
	full := c.peer.closing
	t.unlock()
	if full {
		return errDeaf
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(c.srv.cfg.ConnectTimeout))
	var f frame.Frame
	for {
		n, err := c.next(&f)
		switch {
		case err != nil:
			return c.refuse(nil, malformed(err))
		case n == 0:
			if err := c.fill(); errors.Is(err, os.ErrDeadlineExceeded) {
				return c.refuse(nil, faultf("connect timeout", "%v", errNoHello))
			} else if err != nil {
				return err
			}
		case f.Command != frame.EOL:
			return c.hello(&f)
		}
	}
}

func (c *conn) hello(f *frame.Frame) error {
	h, bad := parseHello(f)
	if bad != nil {
		return c.refuse(f, bad)
	}
	var receive time.Duration
	c.beat, receive = h.beats(c.srv.cfg.HeartBeat)
	c.silence = time.Duration(float64(receive) * c.srv.cfg.HeartBeat.Grace)
	c.parser.Version = h.version
	c.decoder = decoder{version: h.version, sidecar: h.sidecar}
	if h.probe {
		return c.answerProbe(&h)
	}
	v, bad := c.srv.choose(&h)
	if bad == nil && (v.tenure == nil || !c.bind(v.tenure)) {
		bad = v.notServing()
	}
	if bad != nil {
		c.srv.refused.Inc()
		return c.refuse(nil, bad)
	}
	defer v.tenure.unlock()
	st := v.tenure.store
	st.connect(&c.peer, &h)
	st.flush()
	if c.peer.deaf() {
		return errDeaf
	}
	c.decoder.owner = c.peer.session.owner()
	return nil
}

// refuse ends the connection with an ERROR.
func (c *conn) refuse(f *frame.Frame, bad *fault) error {
	var receipt []byte
	if f != nil {
		receipt = f.Value("receipt")
	}
	t := c.lock()
	defer t.unlock()
	c.turnAway(t, receipt, bad)
	return fmt.Errorf("%w: %s", errDeaf, bad.text)
}

// turnAway is refuse under the mutex; there may be no store.
func (c *conn) turnAway(t *tenure, receipt []byte, bad *fault) {
	if st := t.store; st != nil {
		st.refuse(&c.peer, receipt, bad)
		return
	}
	c.peer.out = appendError(c.peer.out, c.peer.version, receipt, bad)
	c.peer.closing = true
	c.kick()
}

func malformed(err error) *fault {
	text := "malformed frame"
	if errors.Is(err, frame.ErrLimit) {
		text = "limit exceeded"
	}
	return faultf(text, "%v", err)
}
