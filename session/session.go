// Package session is the contract of a recorded conversation. A Recorder is a protocol's memory of one client connection: a pure
// state machine that eats octets from either side, emits octets to either side, and can be asked at any moment to play itself to a
// new broker. One shell (session/relay) drives every recorder.
//
// A recorder does no I/O, starts no goroutine, takes no lock, reads no clock and never blocks, so that it can be proved in a
// simulator with a cut at every octet. Time comes in through Out.Now, and goes out as a wish through Out.Wake.
//
// Octets travel in a Buf: a range of a pooled, reference-counted, immutable Chunk. What a recorder wants to hold on to it Keeps and
// later Drops; tests assert that nothing is left over.
package session

import "time"

// Leg is one side of the relayed connection.
type Leg uint8

// The two legs.
const (
	Client Leg = iota
	Broker
)

// String is the leg's name in logs.
func (l Leg) String() string { return [...]string{"client", "broker"}[l&1] }

// Recorder is one protocol's memory of one client connection. The shell makes every call under the connection's mutex, so calls are
// serial. After Out.End was set only Wrote and Close are called.
type Recorder interface {
	// Feed hands over what was read from a leg and not taken yet. took is how many octets of it were consumed (whole frames); want, if
	// not zero, is how many octets from the first untaken one must be there before it makes sense to call again. in is borrowed until
	// Feed returns; Keep makes a range of it the recorder's until Drop.
	Feed(leg Leg, in Buf, out *Out) (took, want int)
	// Wrote reports how many octets queued for a leg have left, in total since the leg came up: for Client, how many the client's
	// kernel has acknowledged, as far as the platform can tell; for Broker, how many our kernel took.
	Wrote(leg Leg, total uint64, out *Out)
	// Up reports a connection to a broker: queue the login, and the replay as answers allow.
	Up(p Peer, out *Out)
	// Down reports that the broker connection is gone. All it was sent is in doubt. What is still queued for it is void.
	Down(why error, out *Out)
	// Nowhere reports that there is no broker that the session may go to, and will be none: it ends, and the client is told why.
	Nowhere(why error, out *Out)
	// ClientEOF reports that the client will send no more; half is true if it may still read. It is the client's last word, not an error.
	ClientEOF(half bool, out *Out)
	// Tick is called at or after Out.Wake.
	Tick(out *Out)
	// Hints is what routing may know once the first client frame was read.
	Hints() Hints
	// Report fills r for metrics, the status page and logs.
	Report(r *Report)
	// Close drops every Buf. It is the last call.
	Close()
}

// Peer is a broker that was dialled. The recorder learns the store and the epoch itself, in the protocol.
type Peer struct {
	Name    string // for error texts and logs: host:port
	Attempt uint64 // rises with every dial of this session, from 1
	// Login and Passcode are what this broker is to be told instead of the client's own credentials; both empty: the client's.
	Login, Passcode string
	// Store is what to ask for, UUID or name, unless the session is at home in one already; "": none in particular.
	Store string
}

// Hints are known from the first client frame.
type Hints struct {
	Ready bool   // the client has said enough to be routed
	Store string // store that the client's own words name, or that is followed: UUID or name; "" means none
	Epoch uint64 // the highest epoch seen in CONNECTED for Store
}

// Fault ends a session. The shell writes what is queued for the client, then closes.
type Fault struct {
	Code  string // one word for metrics and logs: client-closed, hold-timeout, protocol, broker-error, …
	Cause error  // nil for an orderly end
}

// Report is a snapshot of one session.
type Report struct {
	State          string    // park, login, replay, run, drain, end
	NotResumable   string    // why the session would end with its broker; "" if it would not
	Broker         string    // name of the current peer
	Store          string    // UUID
	Epoch          uint64    //
	Since          time.Time // when State was entered
	WindowBytes    int       // octets kept for a replay
	Unconfirmed    int       // effects the broker has not confirmed
	Unacked        int       // messages the client holds
	Subscriptions  int       //
	Transactions   int       // open ones
	InDoubt        int       // effects that were sent on a connection that broke, and are not settled yet
	Takeovers      uint64    // replays confirmed after the first login
	Hidden         uint64    // redeliveries the client was spared: claims that were granted, and messages recognised as held
	Resent         uint64    // effects played again
	LateAcks       uint64    // acknowledgements of messages that had gone elsewhere
	RolledBack     uint64    // commits that ended as rolled back
	LastSilence    time.Duration
	ReplayedFrames uint64
}
