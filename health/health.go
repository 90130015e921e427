// Package health decides what is alive: evidence in, verdicts out.
//
// Evidence is one observation of one broker endpoint: a session's own connection, a dial, a probe's handshake, or what gossip says. The
// Detector weighs it; it is a pure state machine that takes its time from the evidence. The Monitor is the shell around it: it probes
// each target at an interval with a func that it is handed, takes evidence from outside, and publishes verdicts together with a channel
// that is closed at the next change.
//
// What it guarantees: the stronger evidence wins, and a live connection's own error counts at once; gossip alone never makes a target
// Active or Down; a target that logs clients in at an epoch lower than the highest seen in CONNECTED for the same store is never
// Active; every verdict carries the observation that made it. It does not know protocols, routes or sessions: what a probe says to a
// broker, and what follows from a verdict, is decided elsewhere.
package health

import "time"

// Target identifies a broker endpoint: host:port as it is dialled.
type Target string

// Kind is what sort of evidence somebody brings, strongest first.
type Kind uint8

// Kinds of evidence.
const (
	ConnLost        Kind = iota // a live session's connection broke, or its heart-beat stopped
	ConnLive                    // a session logged in here: this endpoint is active
	DialFailed                  // TCP connect was refused or timed out
	TLSFailed                   // TCP was accepted, and the TLS handshake failed: a certificate that is not trusted, or no TLS at all
	HandshakeFailed             // a session's login was not answered in time, or its connection broke before it was live
	ProbeActive                 // a probe's STOMP handshake was answered by an active broker
	ProbeStandby                // answered, but it does not own a store now
	ProbeFailed                 // no TCP, no answer in time, or nonsense
	GossipActive                // the broker (or its agent) announces that it is active
	GossipStandby               //
	GossipLeft                  // it announces that it leaves, or the membership lost it
)

var kindNames = [...]string{
	"conn-lost", "conn-live", "dial-failed", "tls-failed", "handshake-failed", "probe-active", "probe-standby", "probe-failed",
	"gossip-active", "gossip-standby", "gossip-left",
}

// String is the kind's name in logs and metrics.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "invalid"
}

// Gossip reports whether evidence of this kind is hearsay, which never decides alone.
func (k Kind) Gossip() bool { return k >= GossipActive }

// connected reports whether evidence of this kind comes from a CONNECTED frame, and so binds the epoch it names.
func (k Kind) connected() bool { return k == ConnLive || k == ProbeActive }

// Evidence is one observation of one target.
type Evidence struct {
	Target Target
	Kind   Kind
	// At is when the observation began, for gossip when it was heard. Evidence that began before what the verdict rests on is out of
	// date and changes no state. Zero means now.
	At       time.Time
	Store    string // UUID, if known
	Epoch    uint64 // if known
	Draining bool
	Detail   string // for the log: the error's text, the probe's answer
}

// State is a verdict in one word.
type State uint8

// States.
const (
	Unknown State = iota
	Active
	Standby
	Suspect // contradicting or single evidence: probe now
	Down
)

var stateNames = [...]string{"unknown", "active", "standby", "suspect", "down"}

// String is the state's name in logs and metrics.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "invalid"
}

// Values of Verdict.Reason: why the state is not what the observation alone would make it.
const (
	ReasonStaleEpoch = "stale-epoch" // it logs clients in, but a higher epoch of its store was seen in CONNECTED: it has lost the store
	ReasonFlapping   = "flapping"    // it answers as active, but was lost too often lately: it has to prove itself first
	ReasonRising     = "rising"      // it answers as active, but not yet often enough in a row
	ReasonGossip     = "gossip"      // hearsay contradicts what was seen: the next probe decides
)

// Verdict is what the evidence amounts to for one target.
type Verdict struct {
	Target   Target
	State    State
	Store    string // UUID, as far as it is known
	Epoch    uint64 // as seen in CONNECTED; never a gossiped one
	Draining bool
	Since    time.Time // when State was entered
	Because  Evidence  // the observation that made it; of another target where that one proved this one stale
	Reason   string    // one of the Reason constants, or ""
}
