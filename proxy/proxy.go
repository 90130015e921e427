// Package proxy is the listener of a sidecar: it accepts clients, hands each to a relay with a fresh recorder, and brings relays to brokers.
// It chooses a broker by routing's policy, paces the attempts, and waits, for as long as the session wishes, where there is no broker to
// go to. What happens to connections it tells to health, as evidence; what happens to sessions it counts and logs. Shutdown drains.
//
// It knows no protocol: of a recorder's errors it reads only a code, through the method Code() string.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/routing"
	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/relay"
)

// Errors of a Proxy.
var (
	// ErrClosed: Serve ended because of Shutdown.
	ErrClosed = errors.New("the listener was shut down")
	// ErrRemote: the listener is reachable from other machines.
	ErrRemote = errors.New("the listener is not on a loopback address: clients' passwords would cross the network unprotected; allow remote clients if that is meant")
	// ErrDrained: a session was closed because the time to drain was over.
	ErrDrained = errors.New("the sidecar shuts down, and the time for sessions to end by themselves is over")
)

// Defaults of Config.
const (
	DefaultMaxConnections = 20000
	DefaultDialTimeout    = time.Second
	DefaultDrainTimeout   = 25 * time.Second
)

// Health is told what was seen. *health.Monitor is one. Both methods must not block.
type Health interface {
	Observe(health.Evidence)
	ProbeNow(health.Target)
}

// Config of a Proxy; Listener, NewRecorder, View and Health are required.
type Config struct {
	// Name of the listener in logs and metrics; "" means "stomp".
	Name string
	// Listener is owned by the Proxy once New has returned without an error. It must be on a loopback address (or a Unix socket) unless AllowRemote.
	Listener    net.Listener
	AllowRemote bool
	// NewRecorder makes the memory of one client connection.
	NewRecorder func() session.Recorder
	// View is the candidates as known now: the method View of a routing.Table.
	View   func() routing.View
	Health Health
	// Refresh asks discovery to look again, because a broker was lost. It must not block. May be nil.
	Refresh func()
	// Sidecars is how many share the brokers, as gossip knows. nil means one.
	Sidecars func() int
	// Relay holds the settings of relays; Dial, Event and Logger in it are the Proxy's.
	Relay relay.Config
	// Pace between attempts that led nowhere.
	Pace routing.Pace
	// MaxConnections is how many clients are served at once; one more is closed. 0 means 20,000.
	MaxConnections int
	// DialTimeout bounds one TCP connect to one broker; 0 means 1 s.
	DialTimeout time.Duration
	// DrainTimeout bounds Shutdown when its context has no deadline; 0 means 25 s.
	DrainTimeout time.Duration
	// KeepAlive of both legs. The zero value: on, probes after 15 s of silence, every 5 s, 3 of them.
	KeepAlive net.KeepAliveConfig
	// UserTimeout is TCP_USER_TIMEOUT of the broker leg (Linux): how long octets may stay unacknowledged. 0 means off, because Linux applies
	// it to a peer that answers but has no room as well, and a broker that holds producers back is not dead; heart-beats tell the difference.
	UserTimeout time.Duration
	// Dial makes a TCP connection to a broker; nil means a net.Dialer with the settings above.
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
	Logger  *slog.Logger // nil: silent
	Metrics *metrics.Set // nil: none
}

// SessionStatus is one session, for a status page.
type SessionStatus struct {
	ID      uint64 // from 1, in order of accept
	Client  string // address
	Since   time.Time
	Waiting string // why there is no broker for it now; "" if there is one, or it is on its way
	Report  session.Report
}

// Proxy serves one listener.
type Proxy struct{ cfg Config }

// New validates cfg.
func New(cfg Config) (*Proxy, error) { return nil, fmt.Errorf("proxy: %w", errors.ErrUnsupported) }

// Serve accepts clients until Shutdown, and then returns ErrClosed; any other error is the listener's.
func (p *Proxy) Serve() error { return errors.ErrUnsupported }

// Addr is the listener's address.
func (p *Proxy) Addr() net.Addr { return p.cfg.Listener.Addr() }

// Shutdown stops accepting, waits for sessions to end by themselves until ctx is done, then closes the rest. It returns nil if none had
// to be closed. It may be called more than once.
func (p *Proxy) Shutdown(ctx context.Context) error { return errors.ErrUnsupported }

// Sessions is a snapshot, by ID.
func (p *Proxy) Sessions() []SessionStatus { return nil }

// Sever breaks the broker leg of every session on purpose, as a fault would, and returns how many it asked.
func (p *Proxy) Sever(why error) int { return 0 }
