package proxy

import (
	"context"
	"crypto/tls"
	"errors"
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
	// ErrWhichStore: the session has to be told which store is meant.
	ErrWhichStore = errors.New("the session has to be told which store is meant")
	// ErrDrained: a session was closed because the time to drain was over.
	ErrDrained = errors.New("the sidecar shuts down, and the time for sessions to end by themselves is over")
)

// Spread is the Config.Store that gives every store an even share of the sessions.
const Spread = "spread"

// Defaults of Config.
const (
	DefaultMaxConnections = 20000
	DefaultDialTimeout    = time.Second
	DefaultDrainTimeout   = 25 * time.Second
	DefaultBrokerTimeout  = 3 * time.Second
	DefaultClientTimeout  = 30 * time.Second
)

// Health is told what was seen. *health.Monitor is one. Both methods must not block.
type Health interface {
	Observe(health.Evidence)
	ProbeNow(health.Target)
}

// Config of a Proxy; Listener, View, Health, and NewRecorder or Splice are required.
type Config struct {
	// Name of the listener in logs and metrics; "" means "stomp".
	Name string
	// Listener is owned by the Proxy once New has returned without an error. It must be on a loopback address (or a Unix socket) unless AllowRemote.
	Listener    net.Listener
	AllowRemote bool
	// Group names the brokers behind the listener, as a label of metrics, in a process that has several; "" is no label.
	Group string
	// ClientTLS has clients speak TLS; it must name a certificate. nil: they do not.
	ClientTLS *tls.Config
	// NewRecorder makes the memory of one client connection; not used with Splice.
	NewRecorder func() session.Recorder
	// Splice passes octets on and remembers nothing: for protocols that are not known here, and for clients that had rather be cut off and connect
	// anew. New connections go to an active broker; when theirs is lost, marked down or a standby they are closed.
	Splice bool
	// KeepFallen leaves spliced connections to brokers that are marked down alone.
	KeepFallen bool
	// Hold is how long a client waits for a broker to splice it to; 0 means 20 s.
	Hold time.Duration
	// Store is the store that sessions want unless their own words name one: UUID or name. "" is the only one there is: where brokers know several, a
	// session is refused. Spread has each take one, so that all stores have an even share.
	Store string
	// View is the candidates as known now: the method View of a routing.Table.
	View   func() routing.View
	Health Health
	// Refresh asks discovery to look again, because a broker was lost. It must not block. May be nil.
	Refresh func()
	// Hurry has health probe faster while sessions wait for a broker, until done is called. It must not block. May be nil.
	Hurry func() (done func())
	// Sidecars is how many share the brokers, as gossip knows. nil means one.
	Sidecars func() int
	// Credentials are what a broker is to be told instead of the client's own; both empty: the client's. It must not block. May be nil.
	Credentials func(ep routing.Endpoint) (login, passcode string)
	// Relay holds the settings of relays; Dial, Event, Credentials and Store in it are the Proxy's.
	Relay relay.Config
	// Pace between attempts that led nowhere.
	Pace routing.Pace
	// MaxConnections is how many clients are served at once; one more is closed. 0 means 20,000.
	MaxConnections int
	// DialTimeout bounds one connect to one broker, TLS included, unless its endpoint has a bound of its own; 0 means 1 s.
	DialTimeout time.Duration
	// DrainTimeout bounds Shutdown when its context has no deadline; 0 means 25 s.
	DrainTimeout time.Duration
	// KeepAlive of the clients' connections. The zero value: on, first probe after 15 s of silence, then every 5 s, 3 of them.
	KeepAlive net.KeepAliveConfig
	// BrokerTimeout and ClientTimeout are how long the other machine may say nothing at all while octets wait for its acknowledgement, before the connection
	// counts as lost (Linux). A program that is slow to read is no reason: its kernel answers. 0 means 3 s and 30 s; less means never.
	BrokerTimeout, ClientTimeout time.Duration
	// Dial makes a connection to a broker, ready for its protocol: the method Connect of a Dialer; nil means that of the zero Dialer.
	Dial    func(ctx context.Context, ep routing.Endpoint) (net.Conn, error)
	Logger  *slog.Logger // nil: silent
	Metrics *metrics.Set // nil: none
}
