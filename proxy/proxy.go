// Package proxy is the listener of a sidecar: it accepts clients, hands each to a relay with a fresh recorder, and brings relays to brokers.
// It chooses a broker by routing's policy, paces the attempts, and waits, for as long as the session wishes, where there is no broker to
// go to. What happens to connections it tells to health, as evidence; what happens to sessions it counts and logs. Shutdown drains.
//
// Listeners whose sessions are not to be remembered pass octets on instead (Splice). Both legs may be TLS; a Dialer makes the one to brokers.
//
// It knows no protocol: of a recorder's errors it reads only a code, through the method Code() string.
package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/relay"
)

// relayed is a relay.Conn, as far as the Proxy needs it.
type relayed interface {
	// Start serves the client, and tells ended how that ended; it may block until then.
	Start(ctx context.Context, ended func(error))
	Report() session.Report
	Sever(why error)
	// Trim lets memory go that is of no use while the session is idle.
	Trim(now time.Time)
}

// Proxy serves one listener. Make it with New.
type Proxy struct {
	cfg      Config
	newRelay func(net.Conn, session.Recorder, relay.Config) relayed // nil: relay.New

	ctx    context.Context // of every session; its cause is why they are closed
	cancel context.CancelCauseFunc
	joined sync.WaitGroup // accept loops and sessions

	epochs  epochs
	scouts  scouts
	gates   gates
	waiting waiting
	homes   homes
	vigil   vigil
	metrics *proxyMetrics
	warned  throttle

	accepted atomic.Uint64

	mu      sync.Mutex
	closing bool
	links   map[uint64]*link
	empty   chan struct{} // closed when closing and no link is left
}

// New validates cfg.
func New(cfg Config) (*Proxy, error) {
	switch {
	case cfg.Listener == nil, cfg.NewRecorder == nil && !cfg.Splice, cfg.View == nil, cfg.Health == nil:
		return nil, errors.New("make proxy: Listener, View, Health, and NewRecorder or Splice are required")
	case cfg.MaxConnections < 0, cfg.DialTimeout < 0, cfg.DrainTimeout < 0, cfg.Hold < 0:
		return nil, errors.New("make proxy: limits and time-outs must not be negative")
	case !cfg.AllowRemote && !loopback(cfg.Listener.Addr()):
		return nil, fmt.Errorf("listen on %s: %w", cfg.Listener.Addr(), ErrRemote)
	}
	cfg.Name = cmp.Or(cfg.Name, "stomp")
	cfg.MaxConnections = cmp.Or(cfg.MaxConnections, DefaultMaxConnections)
	cfg.DialTimeout = cmp.Or(cfg.DialTimeout, DefaultDialTimeout)
	cfg.DrainTimeout = cmp.Or(cfg.DrainTimeout, DefaultDrainTimeout)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)).With("listener", cfg.Name)
	if cfg.Group != "" {
		cfg.Logger = cfg.Logger.With("group", cfg.Group)
	}
	cfg.Hold = cmp.Or(cfg.Hold, DefaultHold)
	cfg.BrokerTimeout = cmp.Or(cfg.BrokerTimeout, DefaultBrokerTimeout)
	cfg.ClientTimeout = cmp.Or(cfg.ClientTimeout, DefaultClientTimeout)
	cfg.KeepAlive = keepAlive(cfg.KeepAlive)
	if cfg.Dial == nil {
		cfg.Dial = new(Dialer).Connect
	}
	if cfg.Sidecars == nil {
		cfg.Sidecars = func() int { return 1 }
	}
	if cfg.Refresh == nil {
		cfg.Refresh = func() {}
	}
	p := &Proxy{cfg: cfg, links: make(map[uint64]*link), empty: make(chan struct{})}
	p.newRelay = func(c net.Conn, rec session.Recorder, cfg relay.Config) relayed { return relay.New(c, rec, cfg) }
	p.waiting.hurry = cfg.Hurry
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	p.metrics = newProxyMetrics(cfg.Metrics, cfg.Name, cfg.Group, p)
	return p, nil
}

func loopback(a net.Addr) bool {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}

// Addr is the listener's address.
func (p *Proxy) Addr() net.Addr { return p.cfg.Listener.Addr() }

// Serve accepts clients until Shutdown, and then returns ErrClosed; any other error is the listener's. It only accepts: whatever may
// block is done by the session's own goroutine.
func (p *Proxy) Serve() error {
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		return ErrClosed
	}
	p.joined.Add(1)
	defer p.joined.Done()
	p.joined.Go(p.tend)
	p.joined.Go(p.watchStores)
	if p.cfg.Splice && !p.cfg.KeepFallen {
		p.joined.Go(p.cut)
	}
	p.mu.Unlock()
	p.cfg.Logger.Info("listening for clients", "addr", p.Addr().String())
	var backoff time.Duration
	for {
		conn, err := p.cfg.Listener.Accept()
		switch {
		case err == nil:
			backoff = 0
			p.admit(conn)
		case p.isClosing():
			return ErrClosed
		case !passing(err):
			return fmt.Errorf("accept on %s: %w", p.Addr(), err)
		default:
			backoff = min(max(2*backoff, 5*time.Millisecond), time.Second)
			p.metrics.acceptErrors.Inc()
			if p.warned.allow(time.Now()) {
				p.cfg.Logger.Warn("cannot accept clients just now", "err", err, "retry_in", backoff)
			}
			select {
			case <-time.After(backoff):
			case <-p.ctx.Done():
			}
		}
	}
}

// passing: what a busy machine recovers from, and a client that left before it was accepted.
func passing(err error) bool {
	for _, e := range [...]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func (p *Proxy) isClosing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closing
}

// admit starts a session, or closes conn because there is no room for one.
func (p *Proxy) admit(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || len(p.links) >= p.cfg.MaxConnections {
		conn.Close()
		if p.closing {
			p.metrics.refused("closing")
			return
		}
		p.metrics.refused("limit")
		if p.warned.allow(time.Now()) {
			p.cfg.Logger.Warn("client refused: too many connections", "client", conn.RemoteAddr().String(), "limit", p.cfg.MaxConnections)
		}
		return
	}
	l := &link{p: p, id: p.accepted.Add(1), client: conn.RemoteAddr().String(), conns: [2]net.Conn{session.Client: conn}, since: time.Now(), rnd: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
	p.links[l.id] = l
	p.metrics.clients.Inc()
	p.joined.Add(1)
	go p.serve(l, conn)
}

// serve makes a session of what was accepted. It does not stay with it: one more goroutine for each would be a sixth of an idle session.
func (p *Proxy) serve(l *link, conn net.Conn) {
	ended := func(err error) {
		l.end(err)
		p.forget(l)
		p.joined.Done()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		// An error here would be the connection's own, which the relay will see as well.
		_ = tcp.SetKeepAliveConfig(p.cfg.KeepAlive)
	}
	if p.cfg.ClientTLS != nil {
		secured := tls.Server(conn, p.cfg.ClientTLS)
		if err := p.handshake(secured); err != nil {
			conn.Close()
			p.metrics.refused("tls")
			ended(&relay.EndError{Code: codeTLS, Cause: err})
			return
		}
		conn = secured
	}
	if p.cfg.Splice {
		r := newSpliced(l, conn)
		l.setRelay(r)
		r.Start(p.ctx, ended)
		return
	}
	cfg := p.cfg.Relay
	cfg.Dial, cfg.Event, cfg.Credentials, cfg.Store = l.dial, l.event, l.credentials, l.wanted
	r := p.newRelay(conn, p.cfg.NewRecorder(), cfg)
	l.setRelay(r)
	r.Start(p.ctx, ended)
}

// clientHandshake bounds TLS with a client, who might else hold a place by saying nothing.
const clientHandshake = 10 * time.Second

func (p *Proxy) handshake(conn *tls.Conn) error {
	ctx, cancel := context.WithTimeoutCause(p.ctx, clientHandshake, errors.New("no word from the client in time"))
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake with the client: %w", cause(ctx, err))
	}
	return nil
}

func (p *Proxy) forget(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l.id)
	if p.closing && len(p.links) == 0 {
		close(p.empty)
	}
}

// all are the sessions at this moment, by id.
func (p *Proxy) all() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	links := slices.Collect(maps.Values(p.links))
	slices.SortFunc(links, func(a, b *link) int { return cmp.Compare(a.id, b.id) })
	return links
}
