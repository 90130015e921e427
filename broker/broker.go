// Package broker is the paired STOMP broker: a STOMP 1.0, 1.1 and 1.2 server over a file journal, which knows sidecars and can
// therefore make exact what other brokers can only approximate.
//
// A store is a directory with a journal; it has an owner, and one server at a time that serves it. A Server is one process, with any number of stores that it
// owns or stands for. For each it has a keeper, which stands by until it is its turn, recovers, serves, hands the store over, and stands by again. What
// goes wrong with one store is no other's business. While a store is stood for, its clients are answered at once: the listener is open all the time.
//
// A connection begins in the lobby, where nothing waits for any store, and is bound by its CONNECT, for life. A store is handed over at a barrier: nothing
// more is read, what was read is synced and answered, clients are told to look elsewhere, and the journal's lock is free before they have left. It
// is handed over when somebody says so (Server.HandOver), when its owner is back, and when the server ends.
//
// Guarantees: RECEIPT means that the journal was synced and the store is still ours. A COMMIT is one journal record. A message is
// dispatched only when it is durable, in the order of its queue, and one that was given back returns to its old place. Message and
// acknowledgement ids are unique over the life of the store. What a sidecar session has had applied is in the record of the effect
// itself, so that it can be neither lost nor repeated (see session/stomp/frame, paired.go, for the contract).
//
// Messages live in the journal. Of a backlog that is larger than its share of memory only an index is kept there; the octets are read again, and their
// checksums checked again, when somebody comes to them.
//
// Everything that decides is in store and what it consists of: pure state under one mutex, with time passed in and octets handed
// out. server, lobby, keeper, tenure, conn and writer are the shell around it: sockets, goroutines, deadlines.
//
// Not here: wildcards and users. A SUBSCRIBE that asks for the first is refused, for to ignore it would deliver the wrong
// messages.
package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// StoreConfig is a store that a server serves, or stands for.
type StoreConfig struct {
	// Name is what a sidecar may call the store beside its UUID.
	Name string
	// Dir holds the store's journal. Servers that share it share the store.
	Dir string
	// Own: this server is an owner of the store. It makes the directory if it does not exist, takes the store before all others, and gets it back when it
	// was away.
	Own bool
}

// Config of a Server. Listener is required, and Stores or StandForAll; each other field's zero value means the default in its comment.
type Config struct {
	// Stores are what this server owns and what it stands for.
	Stores []StoreConfig
	// StandForAll is a directory that is looked at again and again: this server stands for every store in a sub-directory of it. "" is none.
	StandForAll string
	// Failback says when a store that this server serves and does not own goes back to its owner; by itself.
	Failback Failback
	// FailbackAfter is how long an owner must have shown life without a break before its store goes back to it by itself; 30 s.
	FailbackAfter time.Duration
	// Endpoint is the host:port under which sidecars reach this server, for others to know; the listener's address.
	Endpoint string
	// Admin is the URL of this server's admin listener, for others to know; "" is none.
	Admin string
	// Name is this server's name in LOCK, logs and ERROR texts; the listener's address.
	Name string
	// Listener is bound already and becomes the Server's when Run is called.
	Listener net.Listener
	// Version goes into the server header of CONNECTED; "devel".
	Version string

	// Takeover says what may be done about an owner that holds the lock and shows no life; strict.
	Takeover journal.Takeover
	// TakeoverAfter is how long an owner's heart-beat may stand still before Takeover acts; 1 s, of a lease 10 s.
	TakeoverAfter time.Duration
	// Rank puts this candidate behind those of a lower one that serve as many stores; 0.
	Rank int
	// Cold keeps a candidate that is one of the first two from following the owner's log. Following costs memory for the store's index and the processor's
	// time for each record; without it a take-over reads the whole log.
	Cold bool
	// ReclaimWindow is how long the messages of a sidecar session that went away wait for it; 2 s. While other sessions are still
	// coming back it stretches, to five times that at most.
	ReclaimWindow time.Duration

	// DeadLetters is the queue for durable messages that have expired; /queue/DLQ.
	DeadLetters string

	HeartBeat      HeartBeat
	ConnectTimeout time.Duration // from accept to a whole CONNECT; 10 s
	LingerTimeout  time.Duration // for a client to read the last frame before the connection closes; 2 s
	FullTimeout    time.Duration // how long a SEND or COMMIT waits for memory or for space on the disk before it is refused; 5 s

	// Limits of frames. Body defaults to what fits a journal record, the rest as package frame has it.
	Limits           frame.Limits
	Prefetch         int // messages a subscription may hold unacknowledged when its client names no number; 1000
	MaxPrefetch      int // and at most; 65536
	MaxConnections   int // 20000
	MaxSubscriptions int // of one connection; 1000
	MaxSessions      int // of sidecars, absent ones included; 100000
	MaxQueues        int // that hold something or are listened to; 100000
	MaxTemporary     int // temporary queues of one connection; 1000
	MaxDurables      int // durable subscriptions; 10000
	MaxTransactions  int // open ones of one connection; 1000
	MaxRecord        int // octets of a journal record, which bounds messages and transactions; 16 MiB
	// MaxMemory bounds the octets that messages take in memory, with what is left of those that are out: about 44 of each. From three quarters
	// of it on durable messages go out; a SEND waits when what cannot go out exceeds it. The process needs up to twice as much; 96 MiB.
	MaxMemory  int64
	MaxPending int64 // octets of one connection that are not durable yet before it is no longer read; 4 MiB
	MaxOut     int   // octets waiting for one connection's writer before it is dispatched nothing more; 256 KiB
	// MaxBacklog is how many octets of topic messages are kept for one slow subscription, or one of a sidecar session that is away, before newer ones
	// are dropped; 4 MiB. Those of absent sessions together take a quarter of MaxMemory at most, all of them half.
	MaxBacklog   int
	SegmentBytes int64 // of the journal; its default

	warmPatience time.Duration // with a candidate's copy of the log before it gets the store without one; 10 s

	Logger  *slog.Logger // discards
	Metrics *metricSet   // a *metrics.Set; a set of its own
	// Changed is called after each change of a store's role, from the goroutine that made it: one call at a time, without any lock that Status or HandOver
	// needs. The take-over of a store waits for it. May be nil.
	Changed func(Status)
}

// Failback says when a store that somebody else serves goes back to its owner.
type Failback uint8

// Ways back.
const (
	FailbackAuto   Failback = iota // once the owner has been there for FailbackAfter
	FailbackManual                 // when an operator says so
)

// HeartBeat bounds what is negotiated. A client gets the intervals it asks for, both ways, as far as Min allows. [STOMP 1.2 Heart-beating]
type HeartBeat struct {
	Min   time.Duration // shortest interval; 100 ms
	Grace float64       // how many intervals a client may be silent; 2.5
}

// Role is what a Server does for a store now.
type Role string

// Roles, in the order of a life.
const (
	Standby    Role = "standby"
	Recovering Role = "recovering"
	Active     Role = "active"
	Stopped    Role = "stopped"
	// Unreachable: the store's directory is not there, or cannot be read or written; it is tried again.
	Unreachable Role = "unreachable"
	// Failed: the store could not be kept. It is tried again at StoreStatus.Again, or not at all if that is zero.
	Failed Role = "failed"
)

// Status is a snapshot of a Server.
type Status struct {
	Node        string        // Config.Name
	Addr        string        // the listener's
	Connections int           // in the lobby too
	Stores      []StoreStatus // in the order of Config.Stores, then those that were found
	Err         error         // what ended the server, nil for an orderly end
}

// StoreStatus is a server's share in one store.
type StoreStatus struct {
	StoreConfig
	Role  Role
	Since time.Time     // when Role was entered
	UUID  string        // "" until recovered
	Epoch uint64        // 0 until recovered
	Owner journal.Owner // standby: what is known of who serves the store
	Copy  journal.Copy  // standby: how far the warm copy is
	// Candidates stand for the store, in the order in which they would take it over; of a standby it includes this server.
	Candidates  []journal.Candidate
	Takeovers   uint64        // how often this server began to serve the store
	Handovers   uint64        // how often it let go of it in good order
	Trouble     error         // what ended this server's last share in it, if it has none now
	Again       time.Time     // when it tries again, after that
	Connections int           // bound to the store
	Sessions    int           // of sidecars: connected or expected back
	Absent      int           // of those: expected back
	AbsentSince time.Time     // when the first of them left
	MaxMemory   int64         // this store's share of Config.MaxMemory
	Queues      int           //
	Messages    int           // in queues, held ones included
	Out         int           // of those: in the journal only
	Bytes       int64         // octets that messages take in memory, and what is left of those that are out
	Damaged     int           // queues that stopped because a message of theirs cannot be read
	DiskFull    bool          // no further journal segment can be made: what producers bring is held back, or will soon be
	MemoryFull  bool          // what producers bring is held back until messages are consumed
	Recovery    time.Duration // from having the lock to serving
	Recovered   int           // journal records it read
	Copied      int           // of those: while it stood by
	Err         error         // what ended this server's share in it, nil for an orderly end
}

// Errors.
var (
	ErrConfig = errors.New("bad broker configuration")
	errFull   = errors.New("the store's memory is full")
)

func (c *Config) validate() error {
	switch {
	case len(c.Stores) == 0 && c.StandForAll == "":
		return fmt.Errorf("%w: no store", ErrConfig)
	case c.Listener == nil:
		return fmt.Errorf("%w: no listener", ErrConfig)
	}
	if err := validStores(c.Stores); err != nil {
		return err
	}
	for name, v := range map[string]int64{
		"FailbackAfter": int64(c.FailbackAfter), "TakeoverAfter": int64(c.TakeoverAfter), "Rank": int64(c.Rank), "ReclaimWindow": int64(c.ReclaimWindow), "HeartBeat.Min": int64(c.HeartBeat.Min),
		"HeartBeat.Grace": int64(c.HeartBeat.Grace), "ConnectTimeout": int64(c.ConnectTimeout), "LingerTimeout": int64(c.LingerTimeout),
		"FullTimeout": int64(c.FullTimeout), "Limits.Command": int64(c.Limits.Command), "Limits.Headers": int64(c.Limits.Headers),
		"Limits.Block": int64(c.Limits.Block), "Limits.Body": int64(c.Limits.Body), "Prefetch": int64(c.Prefetch), "MaxPrefetch": int64(c.MaxPrefetch),
		"MaxConnections": int64(c.MaxConnections), "MaxSubscriptions": int64(c.MaxSubscriptions), "MaxSessions": int64(c.MaxSessions), "MaxQueues": int64(c.MaxQueues),
		"MaxTransactions": int64(c.MaxTransactions), "MaxDurables": int64(c.MaxDurables), "MaxTemporary": int64(c.MaxTemporary),
		"MaxRecord": int64(c.MaxRecord), "MaxMemory": c.MaxMemory, "MaxPending": c.MaxPending, "MaxOut": int64(c.MaxOut),
		"MaxBacklog": int64(c.MaxBacklog), "SegmentBytes": c.SegmentBytes,
	} {
		if v < 0 {
			return fmt.Errorf("%w: %s is negative", ErrConfig, name)
		}
	}
	return nil
}

func validStores(stores []StoreConfig) error {
	names, dirs := map[string]bool{}, map[string]bool{}
	for _, s := range stores {
		dir := filepath.Clean(s.Dir)
		switch {
		case s.Dir == "":
			return fmt.Errorf("%w: store %q has no directory", ErrConfig, s.Name)
		case !frame.ValidStoreName(s.Name):
			return fmt.Errorf("%w: %q is no name of a store: it has 1 to %d letters, digits, dots, underscores and dashes", ErrConfig, s.Name, frame.MaxStoreName)
		case names[s.Name], dirs[dir]:
			return fmt.Errorf("%w: store %s in %s is given twice", ErrConfig, s.Name, s.Dir)
		}
		names[s.Name], dirs[dir] = true, true
	}
	return nil
}

// withDefaults returns c with every zero field set to its default.
func (c Config) withDefaults() Config {
	def(&c.Name, c.Listener.Addr().String())
	def(&c.Version, "devel")
	def(&c.FailbackAfter, 30*time.Second)
	def(&c.Endpoint, c.Listener.Addr().String())
	if c.Takeover == journal.Lease {
		def(&c.TakeoverAfter, 10*time.Second)
	}
	def(&c.TakeoverAfter, time.Second)
	def(&c.ReclaimWindow, 2*time.Second)
	def(&c.HeartBeat.Min, 100*time.Millisecond)
	def(&c.HeartBeat.Grace, 2.5)
	def(&c.ConnectTimeout, 10*time.Second)
	def(&c.LingerTimeout, 2*time.Second)
	def(&c.FullTimeout, 5*time.Second)
	def(&c.Prefetch, 1000)
	def(&c.MaxPrefetch, 65536)
	def(&c.MaxConnections, 20000)
	def(&c.MaxSubscriptions, 1000)
	def(&c.MaxSessions, 100000)
	def(&c.MaxQueues, 100000)
	def(&c.DeadLetters, "/queue/DLQ")
	def(&c.MaxTemporary, 1000)
	def(&c.MaxDurables, 10000)
	def(&c.MaxTransactions, 1000)
	def(&c.MaxRecord, 16<<20)
	def(&c.MaxMemory, 96<<20)
	def(&c.MaxPending, 4<<20)
	def(&c.MaxOut, 256<<10)
	def(&c.MaxBacklog, 4<<20)
	def(&c.Limits.Block, frame.DefaultBlock)
	def(&c.Limits.Body, max(c.MaxRecord-2*c.Limits.Block-recordOverhead, 1))
	def(&c.warmPatience, 10*time.Second)
	def(&c.Logger, slog.New(slog.DiscardHandler))
	if c.Metrics == nil {
		c.Metrics = newMetricSet()
	}
	return c
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
