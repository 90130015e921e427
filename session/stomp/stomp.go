// Package stomp is the STOMP recorder: what a sidecar remembers of one STOMP 1.0, 1.1 or 1.2 client, so that the conversation can go
// on at another broker without the client noticing.
//
// Every SEND, ACK and NACK outside a transaction, every COMMIT and every ABORT is an effect with a number. Effects, and the frames of
// open transactions, stay in a log until the broker's cursor says that they are durable; subscriptions stay for as long as they last; messages
// that the client was shown and has not settled stay in a table. When a broker is lost the recorder logs in at the next one, drops
// from the log what the new cursor settles, subscribes again with claims on what the client holds, and plays the rest of the log in its order. A
// message that had gone to somebody else and comes back while the client holds it is recognised and hidden. Receipts for effects are made
// here, from the cursor.
//
// Brokers that nobody here wrote have no cursor. What they do is data (dialect.go), recognised from CONNECTED. There every effect asks for its
// own receipt, and what is in doubt is settled as the dialect allows: by duplicate ids at Artemis, by marks at ActiveMQ (marks.go), by stamps
// that the consumer's recorder tells copies by at RabbitMQ; elsewhere it ends in an ERROR that says unknown. What the client holds is its own
// again as it is delivered anew; its acknowledgements wait for that, and never name a delivery of an earlier connection.
//
// Guarantees, towards a paired broker: each effect is applied exactly once and in order; each receipt is answered at most once, and never
// before the broker called the effect durable; the client is never shown a message that it holds already; identifiers given to the
// client stay valid for the life of its connection; no frame is split between two brokers. Towards the others: a receipt is answered at most once
// and never before the broker's own; a SEND or COMMIT is played again only where a copy is recognised, or the operator asked for it.
//
// The package is pure: no I/O, no clock, no goroutines. What it does not do: sizes beyond Config's limits turn a session not resumable, or end
// it with a clear ERROR; a browser at a broker that is not paired ends with it; order at Artemis and RabbitMQ is kept only if the old
// connection's consumer is gone when the new one subscribes, for nothing says when it is.
package stomp

import (
	"crypto/rand"
	"encoding/hex"
	"time"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// Config of a recorder. The zero value works; each zero field means the default in its comment.
type Config struct {
	// Session is the id that ties a session's connections together: 32 lower-case hex digits. Empty: drawn at random.
	Session string
	// Hold is how old the oldest unanswered request of a client may grow while there is no broker; 20 s, under the receipt time-outs of
	// common client libraries.
	Hold time.Duration
	// HoldIdle is how long a client without an unanswered request is held; 5 min.
	HoldIdle time.Duration
	// Window bounds the octets kept for a replay outside transactions; beyond it the client is not read. 4 MiB.
	Window int
	// MaxTransaction bounds the octets kept of one transaction; a larger one cannot be played again. 16 MiB.
	MaxTransaction int
	// BrokerHeartBeat is what is offered to and asked of brokers; 1 s. A broker silent for two and a half of them is left.
	BrokerHeartBeat time.Duration
	// LoginTimeout bounds CONNECT to CONNECTED, and a replay to its last answer; three of BrokerHeartBeat, for a frozen broker accepts connections.
	LoginTimeout time.Duration
	// ConnectTimeout bounds accept to the client's CONNECT; 30 s, as ActiveMQ has it.
	ConnectTimeout time.Duration
	// AutoAckLag is how long a message of an ack:auto subscription must have been in the client's kernel before it is acknowledged; 2 ms.
	AutoAckLag time.Duration
	// InDoubt is what to do with a SEND or COMMIT in doubt; zero: what is safe at the broker's kind.
	InDoubt InDoubt
	// Replay is how much is played to the next broker; zero: everything.
	Replay Replay
	// BrokerAutoAck leaves ack:auto to the broker, as without a sidecar: what is on its way when a connection breaks is lost.
	BrokerAutoAck bool
	// ReclaimWait is how long, after a take-over by a broker that is not paired, redeliveries of what the client holds are waited for; 5 s: a living
	// broker may take that long to end the consumer of the connection that was lost.
	ReclaimWait time.Duration
	// Limits of client frames.
	Limits frame.Limits
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	set(&c.Hold, 20*time.Second)
	set(&c.HoldIdle, 5*time.Minute)
	set(&c.BrokerHeartBeat, time.Second)
	set(&c.LoginTimeout, 3*c.BrokerHeartBeat)
	set(&c.ConnectTimeout, 30*time.Second)
	set(&c.AutoAckLag, 2*time.Millisecond)
	set(&c.ReclaimWait, 5*time.Second)
	if c.Window == 0 {
		c.Window = 4 << 20
	}
	if c.MaxTransaction == 0 {
		c.MaxTransaction = 16 << 20
	}
	if c.Session == "" {
		var id [16]byte
		_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the process instead
		c.Session = hex.EncodeToString(id[:])
	}
	return c
}

// phase is where the broker leg stands.
type phase uint8

const (
	parked    phase = iota // no broker
	login                  // CONNECT queued, CONNECTED awaited
	replaying              // logged in; receipts of played subscriptions awaited
	running                // confirmed
)

// stage is where the client stands.
type stage uint8

const (
	greeting stage = iota // no CONNECT yet
	talking               // CONNECT seen
	leaving               // DISCONNECT or end of stream seen: drain, tell the broker, end
	ended
)

// Recorder implements session.Recorder for STOMP.
type Recorder struct {
	cfg     Config
	phase   phase
	stage   stage
	since   time.Time // when phase was entered
	version frame.Version
	dialect *dialect // nil until a broker has answered
	logins  int      // brokers that took our login

	client, broker frame.Parser
	connect        session.Buf // the client's CONNECT, octets as they came
	greeted        bool        // the client has had its CONNECTED
	farewell       farewell

	peer      session.Peer
	store     string
	epoch     uint64 // of the current connection; the highest ever accepted
	confirmed uint64 // cursor: highest effect known durable
	effects   uint64 // highest effect numbered
	receipts  uint64 // receipt ids given out on plain frames
	log       journal
	txs       map[string]*transaction
	subs      subscriptions
	held      deliveries
	auto      autoAcks
	late      memory

	// Of brokers that are not paired.
	upstream string    // session header of the current connection
	gated    bool      // something has to be settled before more is played
	again    bool      // the current connection is not the session's first
	staying  bool      // an UNSUBSCRIBE waits for what was acknowledged on its subscription
	reclaim  time.Time // until when redeliveries of what the client holds are waited for; zero: not any more
	marks    marks
	erred    time.Time // when the client was last shown an ERROR
	temps    temps
	declared map[string]bool   // destinations used on the current connection
	declares map[string][]byte // by destination: header lines of its first use

	clientQueued uint64 // octets ever queued for the client
	beats        beats
	connectAt    time.Time // when CONNECT came: it is a request too
	lostAt       time.Time // when the last confirmed connection broke; zero while running
	asked        time.Time // when the login or replay began, less the time in which nobody listened
	look         time.Time // when the end of the hold is looked at next; zero: to be worked out
	stats        stats
	refusals     int // replays in a row that ended in a broker's ERROR
	scratch      []byte
	arena        arena
}

// farewell is how the client left.
type farewell struct {
	at       time.Time
	orderly  bool   // it said DISCONNECT
	silent   bool   // it broke its word on heart-beats
	receipt  []byte // receipt id of its DISCONNECT, nil if none was wanted or it was answered
	sent     bool   // our DISCONNECT is on the current connection
	told     bool   // it was, on this or an earlier one
	awaiting uint64 // its receipt number
	gone     bool   // the client reads no more
}

type stats struct {
	lives, hidden, resent, late, rolledBack, played uint64
	silence                                         time.Duration
}

var _ session.Recorder = (*Recorder)(nil)

// New returns the recorder of one client connection.
func New(cfg Config) *Recorder {
	cfg = cfg.withDefaults()
	r := &Recorder{cfg: cfg, txs: map[string]*transaction{}}
	r.client.Limits = cfg.Limits
	// What the broker sends is bounded too, but a header block may hold the ids of many claims that were not granted.
	r.broker.Limits = frame.Limits{Block: 4 << 20, Body: cfg.Limits.Body}
	r.subs.byID = map[string]*subscription{}
	r.held.init()
	return r
}

// Feed implements session.Recorder.
func (r *Recorder) Feed(leg session.Leg, in session.Buf, out *session.Out) (took, want int) {
	parser := &r.client
	if leg == session.Broker {
		parser = &r.broker
		if r.brokerSilent(out) {
			return 0, 0
		}
		r.beats.heardBroker = out.Now
		r.expire(out)
	} else {
		r.beats.heardClient = out.Now
	}
	p := in.Bytes()
	var f frame.Frame
	for took < len(p) && r.stage != ended && (leg == session.Client || r.phase != parked && out.Move == nil) {
		n, need, err := parser.Next(p[took:], &f)
		if err != nil {
			r.malformed(leg, err, out)
			break
		}
		if n == 0 {
			want = need
			break
		}
		if f.Command == frame.Message && took+n < len(p) && p[took+n] == '\n' {
			n++ // the line feed that servers write behind the NUL belongs to it: there are clients that need it
		}
		switch whole := in.Slice(took, took+n); {
		case f.Command == frame.EOL:
		case leg == session.Client:
			r.fromClient(&f, whole, out)
		default:
			r.fromBroker(&f, whole, out)
		}
		took += n
	}
	r.schedule(out)
	return took, want
}

// malformed ends the session when the client broke the protocol, and leaves the broker when that did.
func (r *Recorder) malformed(leg session.Leg, err error, out *session.Out) {
	if leg == session.Broker {
		r.leave(out, &Refusal{code: "malformed", text: "broker sent what is not STOMP: " + err.Error()})
		return
	}
	r.fail(out, "protocol", err, "malformed frame: "+err.Error(), "")
}

// Hints implements session.Recorder.
func (r *Recorder) Hints() session.Hints {
	return session.Hints{Ready: r.stage != greeting, Store: r.store, Epoch: r.epoch}
}

// Close implements session.Recorder.
func (r *Recorder) Close() {
	r.connect.Drop()
	r.connect = session.Buf{}
	r.log.close()
	r.subs.close()
	r.arena.drop()
	r.stage = ended
}

// own copies what is kept for long, so that it does not pin the read buffer it came in.
func own(b session.Buf) session.Buf {
	p := append([]byte(nil), b.Bytes()...)
	return session.NewChunk(p, nil).Range(0, len(p))
}

// toClient queues a range for the client and counts it: auto-acknowledgement needs stream positions.
func (r *Recorder) toClient(out *session.Out, b session.Buf) {
	if r.farewell.gone {
		return
	}
	out.Ref(session.Client, b)
	r.clientQueued += uint64(b.Len())
	r.beats.toldClient = out.Now
}

// appendClient queues a copy for the client.
func (r *Recorder) appendClient(out *session.Out, p []byte) {
	if r.farewell.gone {
		return
	}
	out.Append(session.Client, p)
	r.clientQueued += uint64(len(p))
	r.beats.toldClient = out.Now
}
