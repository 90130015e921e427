// Package health decides what is alive: evidence in, verdicts out.
package health

import "time"

// Target identifies a broker endpoint: host:port as it is dialled.
type Target string

// Kind is what sort of evidence somebody brings, strongest first.
type Kind uint8

// Kinds of evidence.
const (
	ConnLost      Kind = iota // a live session's connection broke, or its heart-beat stopped
	ConnLive                  // a session logged in here: this endpoint is active
	DialFailed                // TCP connect was refused or timed out
	ProbeActive               // a probe's STOMP handshake was answered by an active broker
	ProbeStandby              // answered, but it does not own a store now
	ProbeFailed               // no TCP, no answer in time, or nonsense
	GossipActive              // the broker (or its agent) announces that it is active
	GossipStandby             //
	GossipLeft                // it announces that it leaves, or the membership lost it
)

// Evidence is one observation of one target.
type Evidence struct {
	Target   Target
	Kind     Kind
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

// Verdict is what the evidence amounts to for one target.
type Verdict struct {
	Target   Target
	State    State
	Store    string
	Epoch    uint64
	Draining bool
	Since    time.Time
	Because  Evidence // the observation that made it
}
