// Package health decides what is alive: evidence in, verdicts out.
//
// Evidence is one observation of one broker endpoint: a session's own connection, a dial, a probe's handshake, or what gossip says. The
// Detector weighs it; it is a pure state machine that takes its time from the evidence. The Monitor is the shell around it: it probes
// each target at an interval with a func that it is handed, takes evidence from outside, and publishes verdicts together with a channel
// that is closed at the next change.
//
// A target may serve several stores, each at an epoch of its own, and know others. A probe tells of all of them; a session tells of its own, and
// nothing of the others. A target is Active as long as it serves one.
//
// What it guarantees: the stronger evidence wins, and a live connection's own error counts at once; gossip alone never makes a target
// Active or Down; a store whose epoch at a target is lower than the highest seen in CONNECTED for it counts there as stale, which says nothing
// of the target's other stores, and a target that has none but such is never Active; every verdict carries the observation that made it. It
// does not know protocols, routes or sessions: what a probe says to a broker, and what follows from a verdict, is decided elsewhere.
package health

import (
	"slices"
	"time"
)

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
	ProbeStandby                // answered, but it serves no store now
	NotServed                   // a session was told that its store is not served here now, or no more; of other stores it says nothing
	ProbeFailed                 // no TCP, no answer in time, or nonsense
	GossipActive                // the broker (or its agent) announces that it is active
	GossipStandby               //
	GossipLeft                  // it announces that it leaves, or the membership lost it
)

var kindNames = [...]string{
	"conn-lost", "conn-live", "dial-failed", "tls-failed", "handshake-failed", "probe-active", "probe-standby", "not-served", "probe-failed",
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

// Served is one store that a target knows.
type Served struct {
	UUID string
	Name string // "" if it is not known, or has none
	// Epoch at which the target serves the store, as seen in CONNECTED; 0: it knows the store, and does not serve it now.
	Epoch uint64
	// Stale: a higher epoch was seen elsewhere, so that the target has lost the store, whether it knows that or not. Not used in Evidence.
	Stale bool
}

// Live reports whether the store is served, as far as is known.
func (s Served) Live() bool { return s.Epoch > 0 && !s.Stale }

// Is reports whether the store is the one that want names: by UUID or by name.
func (s Served) Is(want string) bool { return want != "" && (s.UUID == want || s.Name == want) }

// Evidence is one observation of one target.
type Evidence struct {
	Target Target
	Kind   Kind
	// At is when the observation began, for gossip when it was heard. Evidence that began before what the verdict rests on is out of
	// date and changes no state. Zero means now.
	At time.Time
	// Stores is shared: it is never changed. Of a probe: all that the target knows. Of ConnLive, NotServed and HandshakeFailed: the one that the session
	// is about, perhaps by name alone; none at all if the broker's kind has no stores, or the session wants none in particular. Of gossip: those
	// that are said to be served.
	Stores   []Served
	Draining bool
	Detail   string // for the log: the error's text, the probe's answer
}

func (e *Evidence) equal(o *Evidence) bool {
	return e.Target == o.Target && e.Kind == o.Kind && e.At.Equal(o.At) && e.Draining == o.Draining && e.Detail == o.Detail && slices.Equal(e.Stores, o.Stores)
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
	ReasonStaleEpoch = "stale-epoch" // it logs clients in, but of all that it serves a higher epoch was seen in CONNECTED: it has lost its stores
	ReasonFlapping   = "flapping"    // it answers as active, but was lost too often lately: it has to prove itself first
	ReasonRising     = "rising"      // it answers as active, but not yet often enough in a row
	ReasonGossip     = "gossip"      // hearsay contradicts what was seen: the next probe decides
)

// Verdict is what the evidence amounts to for one target.
type Verdict struct {
	Target Target
	State  State
	// Stores are those that the target serves or knows, by UUID, as was seen last; never a gossiped epoch. Of a target that is Down they are history.
	// The slice is shared: read only.
	Stores   []Served
	Draining bool
	Since    time.Time // when State was entered
	Because  Evidence  // the observation that made it; of another target where that one proved this one stale
	Reason   string    // one of the Reason constants, or ""
}

// Find is the store that want names, by UUID or else by name.
func (v *Verdict) Find(want string) (Served, bool) {
	var found Served
	for _, s := range v.Stores {
		if s.UUID == want && want != "" {
			return s, true
		}
		if s.Is(want) && !found.Live() {
			found = s // of two of one name the one that is served
		}
	}
	return found, found.UUID != ""
}

// Equal reports whether both say the same.
func (v Verdict) Equal(o Verdict) bool {
	return v.Target == o.Target && v.State == o.State && v.Draining == o.Draining && v.Since.Equal(o.Since) && v.Reason == o.Reason &&
		slices.Equal(v.Stores, o.Stores) && v.Because.equal(&o.Because)
}
