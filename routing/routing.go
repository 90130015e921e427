// Package routing decides where a session goes. Choose orders candidates by what is known of them: who serves the store that the
// session follows, who is alive, whose turn it is (RFC 2782). Pace says how long to wait before the next attempt. Walk keeps one session's
// attempts apart, so that it neither hammers one target nor overlooks another. These three are pure. Table joins what the
// sources of discovery say with the verdicts of health, and is safe for concurrent use.
//
// A target may serve several stores, and stand for others: what counts for a session is its own. A session that names none has no choice where
// several are known; Share picks one for a session that takes its part of all of them.
//
// Routing knows no protocol and dials nothing. It excludes a target for one reason only: it serves the store of the session at an epoch
// that is known to be over. Every other target is somewhere in the order, because a verdict may be stale.
package routing

import (
	"cmp"
	"errors"
	"math"
	"net"
	"time"

	"github.com/understudy-mq/understudy/health"
)

// Why there is nowhere to go. The first two pass: wait for a change of the Table.
var (
	// ErrNoCandidates: no source of discovery knows a target.
	ErrNoCandidates = errors.New("no broker is known: no source of discovery has named one yet")
	// ErrOnlyStale: every target known serves the store at an epoch that is over.
	ErrOnlyStale = errors.New("every broker known serves the store at an epoch that is over")
	// ErrWhichStore: the session names no store and brokers know several, or it names one and several have that name (*Namesakes). It stands until
	// somebody decides.
	ErrWhichStore = errors.New("which store is meant cannot be known")
)

// NoTier is the tier of an endpoint whose source knows none: behind everything that an operator ranked.
const NoTier = math.MaxUint16 + 1

// Endpoint is what one source says of one target.
type Endpoint struct {
	Target health.Target
	Name   string // host:port by name that Target is an address of; "" if there is none. Addresses of one name share one weight
	Tier   int    // SRV priority, lower is tried first; NoTier if unknown
	Weight uint16 // share inside the tier; 0 is hardly ever first where others have more (RFC 2782)
	Store  string // UUID or name of the store it serves, if the source knows

	Protocol       string        // what is spoken there: "" is STOMP, tcp is what only its clients know
	TLS            bool          // it is spoken inside TLS
	ServerName     string        // name or address that its certificate must be for; "" is Host
	ConnectTimeout time.Duration // bounds a connect to it, TLS included; 0 is the dialler's own
}

// Host is the name or address that stands for the broker to a user: that of Name if there is one, for Target then is only an address of it.
func (e Endpoint) Host() string {
	from := cmp.Or(e.Name, string(e.Target))
	host, _, err := net.SplitHostPort(from)
	if err != nil {
		return from
	}
	return host
}

// Candidate is a target with all that is known of it.
type Candidate struct {
	Endpoint
	Sources []string       // which sources named it, sorted
	Verdict health.Verdict // the zero State is Unknown
}

// Wants is what a session asks of a target.
type Wants struct {
	Store string // UUID or name of the store that it follows; "" is any
	// Epochs is the highest epoch that was seen in a login, by store UUID. It is only read. What gossip says does not belong here.
	Epochs map[string]uint64
}

// Choice is an order to try.
type Choice struct {
	Targets []Ranked
	// Stale are targets left out because their epoch is over. Their verdict may lag behind: have them probed.
	Stale []health.Target
}

// Ranked is a candidate and why it is where it is.
type Ranked struct {
	Candidate
	Rank Rank
	// Store is the one that the session wants, as the target was seen to have it; zero if it was not seen to know it. Where the session wants none in
	// particular it is the one that the target serves, if that is one.
	Store health.Served
}

// Rank is how much a candidate promises, best first.
type Rank uint8

// Ranks. The order of the constants is the order of trying.
const (
	Serves   Rank = iota // active for the store wanted, or active where any store will do
	Active               // active, its store is not known
	Likely               // nothing speaks against it: unknown, suspect, or outbid by a higher epoch elsewhere
	Waiting              // standby, for the store wanted at least: it may take over at any moment
	Elsewise             // it was not seen to know the store wanted, and knows others: it may take ours as well
	Draining             // about to leave
	Dead                 // down
)

// String is the rank's word in logs.
func (r Rank) String() string {
	names := [...]string{"serves", "active", "likely", "standby", "other-store", "draining", "down"}
	if int(r) < len(names) {
		return names[r]
	}
	return "invalid"
}

// Doubtful says that an attempt is more of a probe than a move: few sessions at a time should try.
func (r Rank) Doubtful() bool { return r > Active }
