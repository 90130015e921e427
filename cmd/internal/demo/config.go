// Package demo shows what the sidecar is for: existing clients keep talking while their broker is killed, again and again.
//
// Run starts two broker processes on one directory, a DNS server with their SRV records, a sidecar process that finds them there, and,
// in this process, producers and competing consumers that use a STOMP client library as its author wrote it, without any fail-over
// logic. It kills the active broker only while a SEND is unconfirmed and a MESSAGE unacknowledged, restarts it as standby, and in the end
// judges: what was confirmed and not received, received twice, received out of order. Every message is written down before it is sent,
// in this process, which never dies with a broker.
//
// It does not judge performance, and it is not a test harness for other brokers.
package demo

import (
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Faults that a run can bring about.
const (
	FaultKill  = "kill"  // SIGKILL of the active broker
	FaultReset = "reset" // the sidecar's connections to it are reset while it lives
)

// Config of a run. The zero value of a field means the default in its comment, except where it says otherwise.
type Config struct {
	Binary       string        // the understudy binary; this process's own
	Producers    int           // 8; the library lets each have one unconfirmed SEND (or transaction) at a time
	Consumers    int           // 2
	Rate         int           // offered messages per second, all producers together; 2000
	Payload      int           // octets of a body, at least 20; 512, or 1024 with a backlog
	Messages     int           // to send in all; 0 = until the faults are done
	Kills        int           // faults; 0 = none
	Backlog      int           // messages that nobody consumes: after Kills faults they are put into a queue of their own, and Kills more follow; 0 = none
	Stores       int           // RunStores: stores, each with an owner of its own
	Standbys     int           // RunStores: servers that own no store
	Handovers    int           // RunStores: hand each store over and back by command that often, instead of killing servers
	MaxMemory    int64         // --max-memory of the brokers, octets; 0 = theirs
	Interval     time.Duration // from one fault being over to the next, at least; 1 s, or 200 ms with Handovers
	Ack          string        // client, client-individual, auto; client-individual
	Transactions bool          // send and acknowledge in transactions of ten
	Receipts     bool          // ask for a receipt of each SEND or COMMIT; false = do not
	Fault        string        // FaultKill, FaultReset; FaultKill
	Direct       bool          // without the sidecar: the negative control
	Seed         uint64        // of bodies, pauses and delays; used as it is
	Keep         bool          // keep the folder with journal and logs
	Verbose      bool          // show each client's silence, and what the processes log
	JSON         bool          // end with one line of JSON

	FailbackAfter   time.Duration // RunStores: --failback-after of the servers; 1 s
	StartTimeout    time.Duration // for a process to come up; 15 s
	TakeoverTimeout time.Duration // for every client to hear of the new epoch; 30 s
	DrainTimeout    time.Duration // without any delivery, before what is missing counts as lost; 10 s

	Out    io.Writer    // the timeline; required
	Logger *slog.Logger // what the client library says; required
}

func (c Config) withDefaults() Config {
	if c.Stores > 0 && c.Handovers == 0 {
		set(&c.Producers, 4) // of each store
	}
	set(&c.Producers, 8)
	set(&c.Consumers, 2)
	set(&c.Rate, 2000)
	if c.Backlog > 0 {
		set(&c.Payload, 1024)
	}
	set(&c.Payload, 512)
	if c.Handovers > 0 {
		set(&c.Interval, 200*time.Millisecond)
	}
	set(&c.Interval, time.Second)
	set(&c.FailbackAfter, time.Second)
	set(&c.Ack, "client-individual")
	set(&c.Fault, FaultKill)
	set(&c.StartTimeout, 15*time.Second)
	set(&c.TakeoverTimeout, 30*time.Second)
	set(&c.DrainTimeout, 10*time.Second)
	return c
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Limits of a run, so that a slip of the keyboard does not fill the disk or the process table.
const (
	maxClients  = 1000
	maxMessages = 10_000_000
	maxKills    = 10_000
	maxPayload  = 1 << 20
	maxBacklog  = 10_000_000
	maxServers  = 20 // of each kind
)

// FieldError says which setting of a Config is wrong, in the words of its flag.
type FieldError struct{ Flag, Value, Hint string }

func (e *FieldError) Error() string { return fmt.Sprintf("--%s %s: %s", e.Flag, e.Value, e.Hint) }

// Validate reports the first setting that cannot work, as a *FieldError.
func (c Config) Validate() error {
	c = c.withDefaults()
	for _, n := range []struct {
		flag             string
		value, low, high int
	}{
		{"producers", c.Producers, 1, maxClients}, {"consumers", c.Consumers, 1, maxClients}, {"rate", c.Rate, 1, 1_000_000},
		{"payload", c.Payload, bodyHead, maxPayload}, {"messages", c.Messages, 0, maxMessages}, {"kills", c.Kills, 0, maxKills},
		{"backlog", c.Backlog, 0, maxBacklog}, {"stores", c.Stores, 0, maxServers}, {"standby", c.Standbys, 0, maxServers}, {"handovers", c.Handovers, 0, maxKills},
	} {
		if n.value < n.low || n.value > n.high {
			return &FieldError{n.flag, fmt.Sprint(n.value), fmt.Sprintf("must be from %d to %d", n.low, n.high)}
		}
	}
	if err := c.validateStores(); err != nil {
		return err
	}
	if c.Messages == 0 && c.Kills == 0 && c.Stores == 0 {
		return &FieldError{"kills", "0", "needs --messages, or the run would have no end"}
	}
	if c.Backlog > 0 && (c.Messages > 0 || c.Kills == 0 || c.Fault != FaultKill || c.Direct) {
		return &FieldError{"backlog", fmt.Sprint(c.Backlog), "needs kills, and goes neither with --messages nor with --direct: brokers are killed first without it, then with it"}
	}
	switch c.Ack {
	case "client", "client-individual", "auto":
	default:
		return &FieldError{"ack", c.Ack, "must be client, client-individual or auto"}
	}
	if c.Fault != FaultKill && c.Fault != FaultReset {
		return &FieldError{"fault", c.Fault, "must be kill or reset"}
	}
	return nil
}

// validateStores looks at what concerns runs with several stores.
func (c Config) validateStores() error {
	switch {
	case c.Stores == 0 && c.Standbys > 0:
		return &FieldError{"standby", fmt.Sprint(c.Standbys), "needs --stores"}
	case c.Stores == 0 && c.Handovers > 0:
		return &FieldError{"handovers", fmt.Sprint(c.Handovers), "needs --stores"}
	case c.Stores == 0:
		return nil
	case c.Stores+c.Standbys < 2:
		return &FieldError{"stores", fmt.Sprint(c.Stores), "needs --standby, or there is nobody to take the only store over"}
	case c.Kills > 0:
		return &FieldError{"kills", fmt.Sprint(c.Kills), "does not go with --stores: all servers but one are killed, or none with --handovers"}
	case c.Messages > 0 || c.Backlog > 0 || c.Direct || c.Fault != FaultKill:
		return &FieldError{"stores", fmt.Sprint(c.Stores), "does not go with --messages, --backlog, --direct or --fault reset"}
	}
	return nil
}
