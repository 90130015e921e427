package sessiontest

import (
	"fmt"
	"strings"
	"time"

	"github.com/understudy-mq/understudy/session"
)

// Case is one run over STOMP, whole: the same Case always runs the same.
type Case struct {
	Seed   uint64
	Script Script
	Faults []Fault
	Count  bool // which cells of the matrix are struck
}

// Result is what a run brought.
type Result struct {
	Violations []Violation
	Struck     int    // faults that happened
	Links      int    // connections to brokers
	Frames     int    // that the client wrote and was sent, without heart-beats
	Up, Down   int    // octets that the broker was sent and that it sent
	Transcript string // when asked for
	Rolled     int    // transactions that were rolled back
	Ended      string // code of the recorder's Fault
	Drained    bool   // DISCONNECT was answered
	Virtual    time.Duration
	Matrix     *Matrix // cells that were struck
}

// Factory makes the recorder under test for a script. id is 32 hex digits for the session, the same for the same seed.
type Factory func(s *Script, id string) session.Recorder

// RandomCase draws a conversation of about ops operations with n faults.
func RandomCase(seed uint64, ops, n int) Case {
	r := NewRand(seed)
	c := Case{Seed: seed, Script: RandomScript(r, ops)}
	c.Faults = RandomFaults(r, n, ops*120)
	return c
}

// RunSTOMP plays a case.
func RunSTOMP(c Case, make Factory, trace bool) Result {
	w := NewWorld(c.Seed, c.Faults, trace)
	script := c.Script
	if c.Count {
		w.matrix = new(Matrix)
		script.matrix = w.matrix
	}
	script.TxFrees = script.TxFrees && !script.Plain
	w.shell.loses, w.shell.releases = script.Fault == DropsOctet, script.Fault == ReleasesEarly
	book := newLedger(w, &script)
	broker := newServer(w, &script, book)
	client := newStompClient(w, &script, book, broker)
	id := fmt.Sprintf("%016x%016x", c.Seed, w.Rand.Uint64())
	w.Run(make(&script, id), client, broker)
	if len(w.Failures) == 0 {
		judgeEnd(w, &script, book, broker, client)
	}
	return Result{
		Violations: w.Failures, Struck: w.Struck, Links: w.Links, Frames: client.frames + client.wrote, Up: w.Moved[session.Broker][0],
		Down: w.Moved[session.Broker][1], Transcript: strings.Join(w.Log, "\n"), Rolled: book.rolled, Ended: w.EndCode,
		Drained: client.drained, Virtual: w.now, Matrix: w.matrix,
	}
}

func newServer(w *World, script *Script, book *ledger) server {
	if script.Kind == Paired {
		return newStompBroker(w, script, book)
	}
	return newVendor(w, script, book)
}

// judgeEnd looks at what is left when everything has come to rest.
func judgeEnd(w *World, script *Script, book *ledger, broker server, client *stompClient) {
	closed := script.End == EndClose && client.pc == len(script.Ops) && client.failure == "" && w.EndCode == "client-closed"
	if closed && script.Kind != Paired {
		client.excuseCommits()
	}
	for _, it := range book.suspects {
		if it.acked {
			w.Fail("stolen", "%s was given to another consumer, and the client has acknowledged it", it.key())
		}
	}
	book.final(client.drained || closed, broker.stored())
	// Behind a broker that is not paired a session that leaves does not wait for its redeliveries for ever.
	if patient := script.Kind == Paired || w.now-client.byeAt < 2*time.Second; client.drained && patient {
		book.unacked(broker.left())
	}
	paired, ok := broker.(*stompBroker)
	if !ok {
		client.atomic()
		if v := broker.(*vendor); client.drained && v.litter() > 0 {
			w.Fail("litter", "the session has ended in good order and left %d messages in queues of the sidecar's own", v.litter())
		}
		return
	}
	for _, x := range paired.sessions {
		// One that never got beyond CONNECT holds nothing, and may be left to run out.
		used := x.accepted > 0 || len(x.subs) > 0
		if used && !x.closed && client.failure == "" && !client.excused() {
			w.Fail("unclosed", "the client is gone and its session was not closed at the broker (the recorder ended with %q)", w.EndCode)
		}
	}
}

// Shrink looks for a smaller case that breaks the same promise: fewer operations, fewer and simpler faults. It runs at most tries cases.
func (c Case) Shrink(make Factory, tries int) Case {
	kind := ""
	if v := RunSTOMP(c, make, false).Violations; len(v) > 0 {
		kind = v[0].Kind
	}
	fails := func(x Case) bool {
		if tries--; tries < 0 {
			return false
		}
		v := RunSTOMP(x, make, false).Violations
		return len(v) > 0 && v[0].Kind == kind
	}
	for again := true; again && tries > 0; {
		again = false
		again = shrinkList(len(c.Script.Ops), func(i, n int) bool {
			x := c
			x.Script.Ops = without(c.Script.Ops, i, n)
			if fails(x) {
				c = x
				return true
			}
			return false
		}) || again
		again = shrinkList(len(c.Faults), func(i, n int) bool {
			x := c
			x.Faults = without(c.Faults, i, n)
			if fails(x) {
				c = x
				return true
			}
			return false
		}) || again
		for _, simpler := range simplifications {
			x := c
			x.Script.Queues = append([]Queue(nil), c.Script.Queues...)
			x.Faults = append([]Fault(nil), c.Faults...)
			if simpler(&x) && fails(x) {
				c, again = x, true
			}
		}
	}
	return c
}

// simplifications each make a case simpler, and report whether they did.
var simplifications = []func(*Case) bool{
	func(c *Case) bool { was := c.Script.Pipelined; c.Script.Pipelined = false; return was },
	func(c *Case) bool { was := c.Script.HeartBeat > 0; c.Script.HeartBeat = 0; return was },
	func(c *Case) bool { was := c.Script.Window > 0; c.Script.Window = 0; return was },
	func(c *Case) bool { return halve(c, func(q *Queue) *int { return &q.Loaded }) },
	func(c *Case) bool { return halve(c, func(q *Queue) *int { return &q.Trickle }) },
	func(c *Case) bool {
		was := false
		for i := range c.Script.Queues {
			was = was || c.Script.Queues[i].Rival
			c.Script.Queues[i].Rival = false
		}
		return was
	},
	func(c *Case) bool {
		was := false
		for i := range c.Faults {
			was = was || c.Faults[i].Refuse > 0
			c.Faults[i].Refuse = 0
		}
		return was
	},
	func(c *Case) bool {
		was := false
		for i := range c.Faults {
			was = was || c.Faults[i].Downtime > 0
			c.Faults[i].Downtime = 0
		}
		return was
	},
}

func halve(c *Case, field func(*Queue) *int) bool {
	was := false
	for i := range c.Script.Queues {
		p := field(&c.Script.Queues[i])
		was = was || *p > 0
		*p /= 2
	}
	return was
}

// shrinkList tries to leave out parts of a list of n elements, large ones first; drop(i, k) leaves out k elements from i on if that
// still fails.
func shrinkList(n int, drop func(i, k int) bool) bool {
	any := false
	for k := max(n/2, 1); n > 0; k /= 2 {
		for i := 0; i+k <= n; {
			if drop(i, k) {
				n -= k
				any = true
			} else {
				i += k
			}
		}
		if k <= 1 {
			break
		}
	}
	return any
}

func without[T any](list []T, i, n int) []T {
	return append(append([]T(nil), list[:i]...), list[i+n:]...)
}

// String is the case as a report shows it.
func (c Case) String() string {
	var s strings.Builder
	q := c.Script
	fmt.Fprintf(&s, "seed %d: %v, STOMP %s, heart-beat %v, pipelined %v, window %d, hold %v, reclaim %v, ends %v, broker forgets %v %v\n", c.Seed, q.Kind, q.Version,
		q.HeartBeat, q.Pipelined, q.Window, q.Hold, q.Reclaim, q.End, q.Forgets, q.Fault)
	for i, x := range q.Queues {
		fmt.Fprintf(&s, "queue %d: %d loaded, %d later, rival %v\n", i, x.Loaded, x.Trickle, x.Rival)
	}
	for _, f := range c.Faults {
		fmt.Fprintf(&s, "fault: %v\n", f)
	}
	for i, o := range q.Ops {
		fmt.Fprintf(&s, "op %d: %v\n", i, o)
	}
	return s.String()
}
