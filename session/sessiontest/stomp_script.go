package sessiontest

import (
	"fmt"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// OpKind is what a client does in one step.
type OpKind uint8

// Operations. One that makes no sense where it stands (an ACK on a subscription that does not exist) is skipped, so that any part of a
// script is a script.
const (
	OpSubscribe OpKind = iota
	OpUnsubscribe
	OpSend
	OpAck
	OpNack
	OpBegin
	OpCommit
	OpAbort
	OpIdle
	OpReceipts // wait for all receipts
	OpDeaf     // leave alone what arrives, for a while
	OpRequest  // SEND with reply-to: a temporary queue
	OpBrowse   // look through a queue
)

var opNames = [...]string{"subscribe", "unsubscribe", "send", "ack", "nack", "begin", "commit", "abort", "idle", "receipts", "deaf", "request", "browse"}

// AckMode is a subscription's.
type AckMode uint8

// Modes. [STOMP 1.2 SUBSCRIBE ack Header]
const (
	Auto AckMode = iota
	Cumulative
	Individual
)

func (m AckMode) String() string { return [...]string{"auto", "client", "client-individual"}[m] }

// Op is one operation of a client.
type Op struct {
	Kind     OpKind
	Sub      int           // slot of the subscription
	Dest     int           // queue: SUBSCRIBE, SEND
	Tx       int           // transaction; 0 is none
	Mode     AckMode       // SUBSCRIBE
	Prefetch int           // SUBSCRIBE; 0 asks for none
	Lane     int           // SUBSCRIBE: 1 or 2 selects half of the messages; 0 takes all
	Fleeting bool          // SEND: without persistent:true
	Receipt  bool          //
	Size     int           // octets of a SEND's body, about
	Pick     int           // which of the held messages an ACK or NACK names, modulo their number
	Wait     time.Duration // before the operation; for ACK and NACK also how long to wait for a message
}

func (o Op) String() string {
	s := opNames[o.Kind]
	switch o.Kind {
	case OpSubscribe:
		s += fmt.Sprintf(" slot %d queue %d %v prefetch %d", o.Sub, o.Dest, o.Mode, o.Prefetch)
	case OpUnsubscribe:
		s += fmt.Sprintf(" slot %d", o.Sub)
	case OpSend:
		s += fmt.Sprintf(" queue %d size %d", o.Dest, o.Size)
	case OpAck, OpNack:
		s += fmt.Sprintf(" slot %d pick %d", o.Sub, o.Pick)
	}
	if o.Tx != 0 {
		s += fmt.Sprintf(" tx %d", o.Tx)
	}
	if o.Receipt {
		s += " receipt"
	}
	if o.Wait != 0 {
		s += fmt.Sprintf(" wait %v", o.Wait)
	}
	return s
}

// Ending is how a client ends its conversation.
type Ending uint8

// Endings.
const (
	EndDrained Ending = iota // acknowledge what comes until nothing comes, then DISCONNECT with a receipt, and wait for it
	EndHasty                 // DISCONNECT with a receipt right behind the last operation, and wait for it
	EndHalf                  // the same, with the writing side closed behind it
	EndClose                 // close without a word
	EndAbort                 // reset without a word
)

func (e Ending) String() string {
	return [...]string{"drained", "hasty", "half", "close", "abort"}[e]
}

// Queue is a destination of a Script.
type Queue struct {
	Loaded  int  // messages of another producer that are there at the beginning
	Trickle int  // and those that arrive later
	Topic   bool // consumed by a durable subscription only
	Rival   bool // another consumer, without a sidecar
	Droppy  bool // the rival loses its connection now and then
	Answers bool // the rival replies to requests
	Paired  bool // the rival has a sidecar: after a crash it comes back and claims what it held
}

// Script is one client's conversation, and the world it finds.
type Script struct {
	Version   frame.Version
	HeartBeat time.Duration // asked for and offered; 0 is none
	Nameless  bool          // STOMP 1.0: subscriptions have no id
	Pipelined bool          // the client does not wait for CONNECTED
	Ops       []Op
	End       Ending
	Queues    []Queue
	Window    int           // of the recorder, octets; 0 means its default
	Hold      time.Duration // of the recorder
	Reclaim   time.Duration // the broker's window
	Forgets   bool          // the broker keeps nothing of a session that was closed
	Prompt    bool          // the broker answers CONNECT before everything that it accepted is durable
	Waits     bool          // the broker decides claims only when every absent session has made its own
	TxFrees   bool          // an acknowledgement in an open transaction no longer counts against the prefetch
	Plain     bool          // the other end of the link has no sidecar: for recorders that only pass octets on
	Kind      Kind          // the make of the broker
	ClientID  string        // the client gives it with CONNECT
	Steals    bool          // ActiveMQ: allowLinkStealing
	Early     bool          // ActiveMQ: dispatch may precede storage
	Page      int           // ActiveMQ: how many messages of a cold queue a browser pages in; 0 is all
	Fault     Mutation      // what is wrong with this broker, to prove the verdicts

	matrix *Matrix
}

// IdleHold is how many times longer than Script.Hold the recorder is to hold a client to which nothing is owed.
const IdleHold = 3

// SilenceLimit is how long a broker may be silent before the recorder is to leave it, unread.
const SilenceLimit = 2500 * time.Millisecond

// NumQueues is how many destinations a random Script uses; the last has no consumer.
const NumQueues = 3

// RandomScript draws a conversation of about n operations.
func RandomScript(r *Rand, n int) Script {
	s := Script{
		Version: frame.Version(r.Between(0, 2)), Pipelined: r.Chance(20), Hold: 20 * time.Second, Reclaim: 2 * time.Second,
		Forgets: r.Chance(50), TxFrees: r.Chance(50), Prompt: r.Chance(30), Waits: r.Chance(50), Queues: make([]Queue, NumQueues),
	}
	s.Nameless = s.Version == frame.V10 && r.Chance(50)
	if r.Chance(60) {
		s.HeartBeat = r.Span(200*time.Millisecond, 5*time.Second)
	}
	if r.Chance(30) {
		s.Window = r.Between(600, 20_000)
	}
	for i := range s.Queues[:NumQueues-1] {
		s.Queues[i] = Queue{Loaded: r.Between(0, n/8), Trickle: r.Between(0, n/8), Rival: r.Chance(40), Droppy: r.Chance(30), Paired: r.Chance(50)}
	}
	g := opGen{Rand: r, script: &s, sendOnly: r.Chance(10)}
	for len(s.Ops) < n {
		g.next()
	}
	s.End = [...]Ending{EndDrained, EndDrained, EndDrained, EndDrained, EndDrained, EndHasty, EndHasty, EndHalf, EndClose, EndAbort}[r.IntN(10)]
	return s
}

// opGen draws operations that mostly make sense one after the other.
type opGen struct {
	*Rand
	script   *Script
	sendOnly bool
	subs     [2]bool
	open     []int
	txs      int
}

func (g *opGen) add(o Op) {
	if g.Chance(25) {
		o.Wait = g.Span(0, 4*time.Millisecond)
	}
	g.script.Ops = append(g.script.Ops, o)
}

func (g *opGen) next() {
	slot, receipt := g.IntN(2), g.Chance(40)
	switch p := g.IntN(100); {
	case !g.subs[slot] && p < 20 && !g.sendOnly:
		g.subs[slot] = true
		mode := Individual
		if v := g.IntN(3); v == 0 || g.script.Version == frame.V10 {
			mode = Cumulative
		}
		if g.Chance(25) {
			mode = Auto
		}
		g.add(Op{Kind: OpSubscribe, Sub: slot, Dest: g.IntN(NumQueues - 1), Mode: mode, Prefetch: [...]int{0, 0, 1, 2, 7}[g.IntN(5)], Receipt: receipt})
	case g.subs[slot] && p < 2:
		g.subs[slot] = false
		g.add(Op{Kind: OpUnsubscribe, Sub: slot, Receipt: receipt})
	case p < 6 && len(g.open) < 2:
		g.txs++
		g.open = append(g.open, g.txs)
		g.add(Op{Kind: OpBegin, Tx: g.txs, Receipt: receipt})
	case p < 12 && len(g.open) > 0:
		i := g.IntN(len(g.open))
		kind := OpCommit
		if g.Chance(25) {
			kind = OpAbort
		}
		g.add(Op{Kind: kind, Tx: g.open[i], Receipt: receipt})
		g.open = append(g.open[:i], g.open[i+1:]...)
	case p < 45 && g.subs[slot]:
		o := Op{Kind: OpAck, Sub: slot, Pick: g.IntN(8), Receipt: receipt, Tx: g.tx(), Wait: g.Span(0, 20*time.Millisecond)}
		if g.Chance(10) && g.script.Version != frame.V10 {
			o.Kind = OpNack
		}
		g.script.Ops = append(g.script.Ops, o)
	case p < 48:
		g.add(Op{Kind: OpIdle, Wait: g.Span(0, 300*time.Millisecond)})
	case p < 49:
		g.add(Op{Kind: [...]OpKind{OpReceipts, OpDeaf}[g.IntN(2)], Wait: g.Span(0, 3*time.Second)})
	default:
		size := g.Between(4, 40)
		if g.Chance(4) {
			size = g.Between(500, 6000)
		}
		g.add(Op{Kind: OpSend, Dest: g.IntN(NumQueues), Tx: g.tx(), Receipt: receipt, Size: size})
	}
}

// tx is an open transaction, or none.
func (g *opGen) tx() int {
	if len(g.open) > 0 && g.Chance(50) {
		return g.open[g.IntN(len(g.open))]
	}
	return 0
}

// RandomFaults draws n faults for a conversation in which about octets pass each way.
func RandomFaults(r *Rand, n, octets int) []Fault {
	faults := make([]Fault, n)
	for i := range faults {
		f := Fault{Link: i + 1, Down: r.Chance(50), Octet: r.IntN(max(octets/(n+1), 1)), Notice: r.Span(0, 300*time.Millisecond)}
		if i > 0 && r.Chance(40) {
			f.Octet = r.IntN(600) // during login or replay
		}
		f.Kind = [...]FaultKind{Reset, Reset, Reset, Crash, Crash, Crash, Crash, Stall, Handover}[r.IntN(9)]
		f.KeepUp, f.KeepDown, f.Durable = percent(r), percent(r), percent(r)
		switch p := r.IntN(100); {
		case p < 60:
			f.Downtime = r.Span(0, 50*time.Millisecond)
		case p < 90:
			f.Downtime = r.Span(0, 1500*time.Millisecond)
		case p < 99:
			f.Downtime = r.Span(time.Second, 8*time.Second)
		default:
			f.Downtime = r.Span(10*time.Second, 60*time.Second)
		}
		if r.Chance(20) {
			f.Refuse = r.Between(1, 3)
		}
		f.Leave = i == n-1 && r.Chance(5)
		faults[i] = f
	}
	return faults
}

func percent(r *Rand) int { return [...]int{0, 100, r.IntN(101)}[r.IntN(3)] }
