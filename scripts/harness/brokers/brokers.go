package brokers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Cluster is a group of running brokers that share their data. Its methods may be called from several goroutines.
type Cluster interface {
	// Kind is the name that it was started by.
	Kind() string
	// Version names the software, such as "RabbitMQ 3.10.8"; empty where only CONNECTED tells.
	Version() string
	// Nodes are the brokers; their number and order never change.
	Nodes() []Node
	// Login is what CONNECT has to say.
	Login() (user, pass string)
	// Vhost is the host header of CONNECT; empty where any will do.
	Vhost() string
	// Active waits until a node answers CONNECTED and returns its index: the owner where one store is shared, any live node of a cluster.
	Active(ctx context.Context) (int, error)
	// Queue returns the destination of a queue that survives every fault of the kind, and what SEND and SUBSCRIBE have to say in
	// addition to make it so.
	Queue(name string) (destination string, send, subscribe map[string]string)
	// Close kills every process and removes the directory, unless it was given. It is idempotent.
	Close() error
}

// Node is one broker. Calls for the same node must not overlap; different nodes are independent.
type Node interface {
	Name() string
	// Addr is the host:port for STOMP. It stays over restarts.
	Addr() string
	// PID is the broker's own process, or 0 when there is none.
	PID() int
	// Kill ends it with SIGKILL, frozen or not, and returns when it is gone.
	Kill() error
	// Stop ends it with SIGTERM and returns when it is gone; when ctx ends first it is killed and an error returned.
	Stop(ctx context.Context) error
	// Freeze stops it with SIGSTOP: its sockets stay open and nothing is answered. Thaw lets it go on. What follows differs: the owner of a
	// KahaDB or Artemis store keeps it, one of a lease (activemq-jdbc) loses it after a second and stands by once thawed, paired ends a
	// frozen owner (Running says false then), and a node of RabbitMQ that was frozen for longer than 5 s is cut off from its cluster until
	// it is started anew.
	Freeze() error
	Thaw() error
	// Start starts it again after Kill or Stop, or after it ended by itself, and waits until it serves or stands by. Where a node cannot
	// come up alone (RabbitMQ after all were killed) start them concurrently.
	Start(ctx context.Context) error
	// Running says whether there is a process, frozen or not.
	Running() bool
	// Log is the end of what it logged, over all its starts.
	Log() string
}

// Options of a cluster. The zero value is useful for every kind but "paired".
type Options struct {
	// Dir is a directory for everything that the cluster writes; it is kept. Empty: a new one that Close removes.
	Dir string
	// Understudy is the path of our own binary; required for the kind "paired".
	Understudy string
	// Args are further arguments of "understudy broker", for the kind "paired".
	Args []string
	// Nodes is the number of nodes; 0 means what the kind is made for, which is two, or three for RabbitMQ.
	Nodes int
	// Full gives brokers what their makers' own start scripts and samples do: heap, collector, compiler, threads and limits. For measurements: without
	// it they are kept small, so that several fit a test machine.
	Full bool
	// Logf gets a line for what happens to the processes; nil for none.
	Logf func(format string, args ...any)
}

// ErrMissing is what the errors of Missing and Start match when software has to be installed first.
var ErrMissing = errors.New("not installed")

// kind is what one sort of cluster brings: everything else is common.
type kind struct {
	about   string
	nodes   int             // default
	missing func() []string // what is not installed; empty when all is there
	build   func(ctx context.Context, c *cluster) error
	user    string
	pass    string
	vhost   string
	queue   func(name string) (destination string, send, subscribe map[string]string)
}

// kinds is filled here and nowhere else.
func kinds() map[string]kind {
	return map[string]kind{
		"activemq": activemq(), "activemq-jdbc": activemqJDBC(), "artemis": artemis(), "paired": paired(), "rabbitmq": rabbitmq(),
	}
}

// Kinds are the names that Start knows, sorted.
func Kinds() []string { return slices.Sorted(maps.Keys(kinds())) }

// About says in a line what a kind is.
func About(name string) string { return kinds()[name].about }

// Missing is nil when the software of a kind is installed; else its error says how to install it.
func Missing(name string) error {
	k, known := kinds()[name]
	if !known {
		return unknownKind(name)
	}
	if lacks := k.missing(); len(lacks) > 0 {
		return fmt.Errorf("brokers of kind %s: %w: %s; run scripts/install-brokers %s", name, ErrMissing, strings.Join(lacks, ", "), name)
	}
	return nil
}

func unknownKind(name string) error {
	return fmt.Errorf("unknown kind of broker %q: it must be one of %s", name, strings.Join(Kinds(), ", "))
}

// Start starts a cluster and waits until one node serves and every other one serves or stands by. The caller closes it. On an error
// nothing is left running.
func Start(ctx context.Context, name string, opt Options) (Cluster, error) {
	if err := Missing(name); err != nil {
		return nil, err
	}
	k := kinds()[name]
	c := &cluster{name: name, kind: k, opt: opt, dir: opt.Dir, procs: newNursery()}
	if c.opt.Logf == nil {
		c.opt.Logf = func(string, ...any) {}
	}
	if c.opt.Nodes == 0 {
		c.opt.Nodes = k.nodes
	}
	if c.dir == "" {
		dir, err := os.MkdirTemp("", "brokers-"+name+"-")
		if err != nil {
			return nil, fmt.Errorf("start brokers of kind %s: %w", name, err)
		}
		c.dir, c.ownDir = dir, true
	}
	if err := k.build(ctx, c); err != nil {
		return nil, errors.Join(fmt.Errorf("start brokers of kind %s: %w", name, err), c.Close())
	}
	return c, nil
}
