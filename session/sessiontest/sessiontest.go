// Package sessiontest proves recorders: a simulator in which a session.Recorder stands between a model of a client and a model of a
// broker, in virtual time, on one goroutine, with every choice drawn from one seed. The same seed gives the same run, octet for octet.
//
// The general part knows octets, connections and time, and no protocol: World moves octets in pieces of any size, breaks connections
// where a Fault says, and drives the recorder as its contract allows, at its most hostile: reports that lag, chunks that are poisoned the
// moment nobody holds them, reads that end anywhere. Client and Broker are what a protocol brings, together with its judgement of what
// the two of them saw. Shrink makes a failing run small enough to read.
//
// The files stomp_*.go bring STOMP: a client that follows a Script, the broker side of the paired protocol with its journal, and the
// verdicts (lost, duplicated, reordered, phantom, ghost, resurrected, …). The files vendor*.go bring brokers that are not paired, each with
// what was observed of it, and what a sidecar can promise there. Matrix says which cuts a run has struck; Mutation puts defects into
// the models and Falsity into the recorder, to prove that the verdicts can fail. The package does no I/O and proves nothing about the shell
// that runs in production; it is for tests only.
package sessiontest

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Client models the program behind the client leg. World calls it; it answers with octets and wishes.
type Client interface {
	// Step lets the program act once; what it writes it appends to dst.
	Step(dst []byte) []byte
	// Wake is when the program wants its next Step; ok is false while it only waits for octets.
	Wake() (at time.Duration, ok bool)
	// Reading is false while the program leaves alone what arrives; it has a Wake then.
	Reading() bool
	// Taken hands over octets that reached the program's kernel.
	Taken(p []byte)
	// Leaving says what the program has done to its end of the connection. It never goes back.
	Leaving() Leave
	// Closed tells that the sidecar closed the connection.
	Closed()
	// Waiting says what the program still waits for; "" when its conversation is over.
	Waiting() string
}

// Leave is what a program did to its end of the connection.
type Leave uint8

// Ways to leave, each more final than the one before.
const (
	Stay  Leave = iota
	Half        // it will write no more, and reads on
	Gone        // it closed: what is still on its way to it is lost
	Abort       // it reset the connection: what it wrote and nobody read is lost too
)

// Broker models the servers behind the broker leg. A link is one connection, numbered from 1 in the order of the dials.
type Broker interface {
	Accept(link int)
	// Read hands over octets that reached the server's program.
	Read(link int, p []byte)
	// Lost tells that the server learned of the end of a link.
	Lost(link int)
	// Wake is when the server wants its next Step; ok is false while it only waits.
	Wake() (at time.Duration, ok bool)
	// Step lets the server do one thing of its own: sync a batch, dispatch a message, let a window run out.
	Step()
	// Crash ends the server at once and starts its successor on what was durable, and on the given per cent of what was not yet.
	Crash(keep int)
	// Handover lets the server tell its sessions that the store moves, and starts the successor.
	Handover()
	// Refuse makes the next n links end in a refusal.
	Refuse(n int)
	// Settled reports that nothing is pending but time-outs.
	Settled() bool
}

// Violation is one broken promise.
type Violation struct {
	Kind string // one word: lost, duplicated, …
	Text string
	At   time.Duration
}

func (v Violation) String() string { return fmt.Sprintf("%s at %v: %s", v.Kind, v.At, v.Text) }

// FaultKind is what happens to a link.
type FaultKind uint8

// Faults.
const (
	Reset    FaultKind = iota // the connection breaks, the server lives
	Crash                     // the server dies; the next one has what was durable
	Stall                     // octets stop moving, and nobody is told
	Handover                  // the server says that its store moves
	Freeze                    // the server stops, its successor takes over, and after Notice what it had sent arrives all the same
)

func (k FaultKind) String() string {
	return [...]string{"reset", "crash", "stall", "handover", "freeze"}[k]
}

// Fault strikes one link at an octet.
type Fault struct {
	Link     int  // which link, from 1
	Down     bool // count what the shell read from the broker; else what the broker read from the shell
	Octet    int  // it strikes when so many octets have passed
	Kind     FaultKind
	KeepUp   int           // per cent of the octets under way to the server that a broken link still delivers
	KeepDown int           // per cent of the octets under way to the shell that it still reads before the end
	Durable  int           // Crash: per cent of what was not durable that survives
	Notice   time.Duration // how much later the server learns that the link is gone
	Downtime time.Duration // no dial succeeds before
	Refuse   int           // so many dials are refused afterwards
	Leave    bool          // the client leaves while there is no broker
}

func (f Fault) String() string {
	way := "to the broker"
	if f.Down {
		way = "from the broker"
	}
	return fmt.Sprintf("%s of link %d at octet %d %s (keep %d%%/%d%%, durable %d%%, notice %v, downtime %v, refuse %d, leave %v)",
		f.Kind, f.Link, f.Octet, way, f.KeepUp, f.KeepDown, f.Durable, f.Notice, f.Downtime, f.Refuse, f.Leave)
}

// Rand is the one source of choice in a run.
type Rand struct{ rand.Rand }

// NewRand seeds a Rand.
func NewRand(seed uint64) *Rand { return &Rand{*rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))} }

// Chance is true in percent of the cases.
func (r *Rand) Chance(percent int) bool { return r.IntN(100) < percent }

// Between is uniform in [lo, hi].
func (r *Rand) Between(lo, hi int) int { return lo + r.IntN(hi-lo+1) }

// Span is uniform in [lo, hi], to the microsecond.
func (r *Rand) Span(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(r.Int64N(int64((hi-lo)/time.Microsecond)+1))*time.Microsecond
}

// Piece is how much of n octets moves at once: mostly all, else any part.
func (r *Rand) Piece(n int) int {
	if n <= 1 || r.Uint32()&3 != 0 {
		return n
	}
	return 1 + r.IntN(n)
}
