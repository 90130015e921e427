package interop

import (
	"fmt"
	"time"
)

// Fault is what strikes in the middle of a cell.
type Fault string

// The faults. Kill, freeze and stop hit the broker that serves; reset hits every connection to the brokers, which live on.
const (
	Kill   Fault = "kill"   // SIGKILL
	Freeze Fault = "freeze" // SIGSTOP; ended by Promise.Thaw or at the end of the round
	Stop   Fault = "stop"   // SIGTERM
	Reset  Fault = "reset"  // RST on both sides, what was on its way is gone
	None   Fault = "none"   // nothing breaks: shows that the programs and the count are right
)

// Faults are those of the table, in its order.
func Faults() []Fault { return []Fault{Kill, Freeze, Stop, Reset} }

// Promise is what clients behind a sidecar may rely on at one kind of broker, for persistent messages that are sent with a receipt and
// acknowledged one by one. Whatever the kind, nothing confirmed is lost or left behind, nothing comes twice, and no client notices.
type Promise struct {
	// Text is what the table says.
	Text string
	// Why is the property of the broker that the promise rests on.
	Why string
	// Late: the consumer of a connection that was lost lives on at a broker that does, and is dealt messages until the broker ends it. Those
	// come to the client later, out of their order. Nothing in the protocol tells when that is over.
	Late bool
	// Thaw is how long a frozen broker stays frozen where no other can take its place meanwhile, because it keeps its lock: it must be well
	// within the sidecar's --hold-timeout of 20 s. 0: it is never thawed but killed at the end of the round. Who wakes after another has taken
	// its place is a test of the brokers' own fencing, and spoils the rounds that follow.
	Thaw time.Duration
}

// promises is the table: one row for each kind of broker.
var promises = map[string]Promise{
	"paired": {
		Text: "exactly once, in order, unnoticed",
		Why:  "the broker journals each effect with its number, and the cursor settles what was in flight",
	},
	"artemis": {
		Text: "exactly once, in order (but after reset and freeze), unnoticed",
		Late: true,
		Why:  "a repeated _AMQ_DUPL_ID is dropped by the broker, and receipts are given after the journal's sync",
		Thaw: 6 * time.Second, // a frozen primary keeps the lock of the shared store
	},
	"activemq": {
		Text: "exactly once, in order, unnoticed",
		Why:  "a mark stored beside each SEND says afterwards what was stored, and an exclusive consumer fences the old connection off",
		Thaw: 6 * time.Second, // a frozen master keeps the lock of the shared store
	},
	"activemq-jdbc": {
		Text: "exactly once, in order, unnoticed",
		Why:  "as with a shared directory; the lock is a lease, which a frozen master loses",
	},
	"rabbitmq": {
		Text: "exactly once at the one consuming sidecar, first deliveries in order (but after reset and freeze), unnoticed",
		Late: true,
		Why:  "the broker drops no copies: SENDs are stamped, and the consuming sidecar drops what it has shown before",
	},
}

// PromiseOf returns what holds at a kind of broker.
func PromiseOf(kind string) (Promise, error) {
	p, known := promises[kind]
	if !known {
		return p, fmt.Errorf("nothing is promised for brokers of kind %q: add it to the table in promise.go, with its reason", kind)
	}
	return p, nil
}

// Broken lists in words what a cell did not keep; empty means that the promise was kept. planned is how many messages the producer was told
// to send.
func (p Promise) Broken(fault Fault, c Counts, planned int) []string {
	var broken []string
	zero := func(n int, format string) {
		if n != 0 {
			broken = append(broken, fmt.Sprintf(format, n))
		}
	}
	zero(c.Lost, "%d confirmed messages were lost")
	zero(c.Stranded, "%d confirmed messages stayed in the queue")
	zero(c.Duplicated, "%d deliveries were duplicates")
	if !p.Late || fault != Reset && fault != Freeze {
		zero(c.Reordered, "%d first deliveries were out of order")
	}
	zero(c.Altered, "%d deliveries were altered")
	zero(c.Denied, "%d messages were delivered that the list of what is in doubt left out")
	zero(c.InDoubt, "of %d messages the sender heard nothing")
	if len(c.Errors) > 0 {
		broken = append(broken, fmt.Sprintf("a client noticed: %s", c.Errors[0]))
	}
	if len(c.Errors) == 0 && !c.Ended {
		broken = append(broken, "a client did not come to its end")
	}
	if len(c.Errors) == 0 && c.Sent != planned {
		broken = append(broken, fmt.Sprintf("%d of %d messages were sent", c.Sent, planned))
	}
	return broken
}
