package gossip

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls back, with its own locks held: nothing here blocks or calls memberlist. What is received goes to
// run's queues.
type delegate Node

var (
	_ memberlist.Delegate      = (*delegate)(nil)
	_ memberlist.EventDelegate = (*delegate)(nil)
)

// NodeMeta is empty: 512 octets are not enough for an announcement.
func (d *delegate) NodeMeta(int) []byte { return nil }

func (d *delegate) NotifyMsg(b []byte) {
	if len(b) > maxRecord+3 {
		d.cfg.Metrics.dropped("too-big")
		return
	}
	select {
	case d.packets <- bytes.Clone(b):
	default:
		d.cfg.Metrics.dropped("inbox-full")
	}
}

func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.queue.GetBroadcasts(overhead, limit)
}

// LocalState tells only of members that are alive here: else the dead would be handed round for ever.
func (d *delegate) LocalState(bool) []byte {
	live := d.members.all()
	d.mu.Lock()
	known := d.ledger
	d.mu.Unlock()
	records := make([]record, 0, len(known))
	for _, r := range known {
		if _, ok := live[r.Member]; ok {
			records = append(records, r)
		}
	}
	return encodeState(records)
}

func (d *delegate) MergeRemoteState(b []byte, _ bool) {
	if len(b) > maxState {
		d.cfg.Metrics.dropped("too-big")
		return
	}
	select {
	case d.states <- bytes.Clone(b):
	default:
		d.cfg.Metrics.dropped("inbox-full")
	}
}

func (d *delegate) NotifyJoin(m *memberlist.Node) {
	d.members.set(m.Name, m.Address())
	kick(d.membership)
}

func (d *delegate) NotifyUpdate(m *memberlist.Node) { d.NotifyJoin(m) }

func (d *delegate) NotifyLeave(m *memberlist.Node) {
	d.members.remove(m.Name)
	kick(d.membership)
}

// roster is the live members as the callbacks tell: asking memberlist hands out pointers into its own state, which it goes on changing.
type roster struct {
	mu   sync.Mutex
	addr map[string]string // member → ip:port
}

func newRoster() *roster { return &roster{addr: make(map[string]string)} }

func (r *roster) set(member, addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addr[member] = addr
}

func (r *roster) remove(member string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.addr, member)
}

func (r *roster) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.addr)
}

// all is a copy.
func (r *roster) all() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := make(map[string]string, len(r.addr))
	for m, a := range r.addr {
		c[m] = a
	}
	return c
}

// named is a broadcast that takes the place of an older one of its name.
type named struct {
	name string
	msg  []byte
}

func (b named) Name() string    { return b.name }
func (b named) Message() []byte { return b.msg }
func (b named) Finished()       {}
func (b named) Invalidates(o memberlist.Broadcast) bool {
	other, ok := o.(named)
	return ok && other.name == b.name
}

// transport is memberlist's, but what it dials ends with the node: else Close would wait for a peer that accepts and says nothing.
type transport struct {
	*memberlist.NetTransport
	dial func(addr string, timeout time.Duration) (net.Conn, error)
	wire func(to string) bool
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

// listen binds UDP and TCP to one port. The kernel chooses a free one for TCP only, so a collision on UDP is tried again.
func listen(ctx context.Context, cfg Config, logger *log.Logger) (*transport, error) {
	attempts := 1
	if cfg.BindPort == 0 {
		attempts = 10
	}
	var err error
	for range attempts {
		var t *memberlist.NetTransport
		t, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{cfg.BindAddr}, BindPort: cfg.BindPort, Logger: logger})
		if err == nil {
			return &transport{NetTransport: t, wire: cfg.wire, dial: dialUntil(ctx)}, nil
		}
	}
	return nil, fmt.Errorf("bind: %w", err)
}

func dialUntil(ctx context.Context) func(string, time.Duration) (net.Conn, error) {
	return func(addr string, timeout time.Duration) (net.Conn, error) {
		d := net.Dialer{Timeout: timeout}
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return &leased{Conn: c, release: context.AfterFunc(ctx, func() { _ = c.Close() })}, nil
	}
}

// leased is a connection that is closed when its context ends.
type leased struct {
	net.Conn
	release func() bool
}

func (l *leased) Close() error {
	l.release()
	return l.Conn.Close()
}

func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if t.wire != nil && !t.wire(a.Addr) {
		return time.Now(), nil
	}
	return t.NetTransport.WriteToAddress(b, a)
}

func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if t.wire != nil && !t.wire(a.Addr) {
		return nil, fmt.Errorf("dial %s: lost on the wire", a.Addr)
	}
	return t.dial(a.Addr, timeout)
}

// logWriter gives memberlist's log to slog: what it calls a warning or an error is a warning, the rest is for debugging.
type logWriter struct{ n *Node }

func (w logWriter) Write(p []byte) (int, error) {
	text, level := strings.TrimSpace(string(p)), slog.LevelDebug
	if rest, ok := strings.CutPrefix(text, "["); ok {
		if mark, rest, ok := strings.Cut(rest, "] "); ok {
			text = strings.TrimPrefix(rest, "memberlist: ")
			if (mark == "WARN" || mark == "ERR") && !w.n.leaving.Load() {
				level = slog.LevelWarn
			}
		}
	}
	w.n.cfg.Logger.Log(context.Background(), level, "gossip membership", "text", text)
	return len(p), nil
}

func containsKey(keys [][]byte, key []byte) bool {
	for _, k := range keys {
		if bytes.Equal(k, key) {
			return true
		}
	}
	return false
}
