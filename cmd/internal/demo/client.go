package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/go-stomp/stomp/v3"
)

// What the demo's clients ask of their library; everything else is as its author left it.
const (
	destination = "/queue/understudy.demo"
	dialTimeout = 5 * time.Second
)

// ending is how a client's connection ended although the client still wanted it.
type ending struct {
	client string
	at     time.Time
	err    error
}

// client is what producers and consumers have in common: a name, an index among all clients, and one connection for the whole run. There is
// no fail-over logic in it: when the connection or a call fails, the client is broken, says so, and does no more.
type client struct {
	name  string
	index int
	crew  *crew

	mu      sync.Mutex
	leaving bool
	left    chan struct{} // closed by abandon
	broken  *ending
	raw     net.Conn
	conn    *stomp.Conn
}

// connect logs in, with the library's defaults: its heart-beat is a minute, and so is, less a few seconds, its patience with a COMMIT.
func (c *client) connect(ctx context.Context, addr string) error {
	d := net.Dialer{Timeout: dialTimeout}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	c.mu.Lock()
	c.raw, c.left = raw, make(chan struct{})
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, c.crew.cfg.StartTimeout)
	defer cancel()
	conn, err := stomp.ConnectWithContext(ctx, &watched{Conn: raw, client: c}, stomp.ConnOpt.Logger(quiet{c.crew.cfg.Logger}))
	if err != nil {
		raw.Close()
		return fmt.Errorf("%s: connect to %s: %w", c.name, addr, err)
	}
	c.conn = conn
	return nil
}

// abandon breaks the connection from under the library: while a Send of it waits for a receipt, its own ways to disconnect wait too. Nobody
// must wait for the library after this, for when its connection breaks it may stop where it stands.
func (c *client) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	abandoned := c.raw == nil || c.leaving && isClosed(c.left)
	c.leaving = true
	if !abandoned {
		close(c.left)
		c.raw.Close()
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// fail writes down that the client is broken; the first reason counts, the others follow from it.
func (c *client) fail(err error) {
	c.mu.Lock()
	first := c.broken == nil && !c.leaving
	if first {
		c.broken = &ending{c.name, time.Now(), err}
	}
	c.mu.Unlock()
	if first {
		c.crew.clientBroke(c.name, err)
	}
}

// isBroken returns how the client broke, or nil.
func (c *client) isBroken() *ending {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken
}

// leave disconnects as the library does it: DISCONNECT, its receipt, close.
func (c *client) leave() error {
	c.mu.Lock()
	c.leaving = true
	c.mu.Unlock()
	if err := c.conn.Disconnect(); err != nil {
		c.abandon()
		return fmt.Errorf("%s: disconnect: %w", c.name, err)
	}
	return nil
}

// watched is the client's TCP connection; it notices when that ends before the client leaves.
type watched struct {
	net.Conn
	client *client
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.client.fail(fmt.Errorf("connection ended: %w", err))
	}
	return n, err
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if err != nil {
		w.client.fail(fmt.Errorf("connection ended: %w", err))
	}
	return n, err
}

func (w *watched) Close() error {
	w.client.fail(errors.New("the client library closed the connection"))
	return w.Conn.Close()
}

// quiet sends the library's own log to ours.
type quiet struct{ log *slog.Logger }

func (q quiet) Debugf(f string, v ...any)   { q.log.Debug(fmt.Sprintf(f, v...)) }
func (q quiet) Infof(f string, v ...any)    { q.log.Info(fmt.Sprintf(f, v...)) }
func (q quiet) Warningf(f string, v ...any) { q.log.Warn(fmt.Sprintf(f, v...)) }
func (q quiet) Errorf(f string, v ...any)   { q.log.Error(fmt.Sprintf(f, v...)) }
func (q quiet) Debug(m string)              { q.log.Debug(m) }
func (q quiet) Info(m string)               { q.log.Info(m) }
func (q quiet) Warning(m string)            { q.log.Warn(m) }
func (q quiet) Error(m string)              { q.log.Error(m) }
