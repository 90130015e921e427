package sessiontest_test

import (
	"fmt"
	"testing"
	"time"

	. "github.com/understudy-mq/understudy/session/sessiontest"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// queues of the short conversations: one with messages, one without, one that nobody consumes.
func queues(loaded int) []Queue { return []Queue{{Loaded: loaded}, {}, {}} }

func ack(slot, pick, tx int) Op {
	return Op{Kind: OpAck, Sub: slot, Pick: pick, Tx: tx, Wait: 200 * time.Millisecond}
}

func with(o Op) Op { o.Receipt = true; return o }

// short has one conversation for each row of what is promised.
var short = []struct {
	name   string
	loaded int
	ops    []Op
}{
	{"connect", 0, nil},
	{"send", 0, []Op{{Kind: OpSend, Dest: 2, Size: 9}, {Kind: OpSend, Dest: 2, Size: 9}}},
	{"send with receipts", 0, []Op{{Kind: OpSend, Dest: 2, Size: 9, Receipt: true}, {Kind: OpReceipts}, {Kind: OpSend, Dest: 2, Size: 9, Receipt: true}}},
	{"client-individual", 2, []Op{{Kind: OpSubscribe, Mode: Individual, Receipt: true}, ack(0, 1, 0), ack(0, 0, 0)}},
	{"client", 3, []Op{{Kind: OpSubscribe, Mode: Cumulative}, {Kind: OpIdle, Wait: 10 * time.Millisecond}, with(ack(0, 1, 0)), ack(0, 0, 0)}},
	{"prefetch 1", 2, []Op{{Kind: OpSubscribe, Mode: Individual, Prefetch: 1}, with(ack(0, 0, 0)), ack(0, 0, 0)}},
	{"auto", 2, []Op{{Kind: OpSubscribe, Mode: Auto}, {Kind: OpIdle, Wait: 20 * time.Millisecond}}},
	{"nack", 1, []Op{{Kind: OpSubscribe, Mode: Individual}, {Kind: OpNack, Receipt: true, Wait: 200 * time.Millisecond}, ack(0, 0, 0)}},
	{"commit", 1, []Op{
		{Kind: OpSubscribe, Mode: Individual}, {Kind: OpBegin, Tx: 1}, {Kind: OpSend, Dest: 2, Size: 9, Tx: 1}, ack(0, 0, 1),
		{Kind: OpSend, Dest: 2, Size: 9}, {Kind: OpCommit, Tx: 1, Receipt: true},
	}},
	{"abort", 1, []Op{
		{Kind: OpSubscribe, Mode: Individual}, {Kind: OpBegin, Tx: 1, Receipt: true}, {Kind: OpSend, Dest: 2, Size: 9, Tx: 1}, ack(0, 0, 1),
		{Kind: OpAbort, Tx: 1, Receipt: true}, ack(0, 0, 0),
	}},
	{"unsubscribe", 2, []Op{
		{Kind: OpSubscribe, Mode: Individual}, ack(0, 0, 0), {Kind: OpUnsubscribe, Receipt: true}, {Kind: OpReceipts}, {Kind: OpSubscribe, Mode: Individual}, ack(0, 0, 0),
	}},
	{"consume and produce", 2, []Op{
		{Kind: OpSubscribe, Mode: Cumulative}, ack(0, 0, 0), {Kind: OpSend, Dest: 1, Size: 20, Receipt: true}, ack(0, 0, 0), {Kind: OpSend, Dest: 1, Size: 20},
	}},
	{"two transactions", 0, []Op{
		{Kind: OpBegin, Tx: 1}, {Kind: OpBegin, Tx: 2}, {Kind: OpSend, Dest: 2, Size: 9, Tx: 1}, {Kind: OpSend, Dest: 2, Size: 9, Tx: 2},
		{Kind: OpCommit, Tx: 2}, {Kind: OpSend, Dest: 2, Size: 9}, {Kind: OpCommit, Tx: 1, Receipt: true},
	}},
}

// ways are the faults that strike at each octet.
var ways = []Fault{
	{Kind: Reset, KeepUp: 100, KeepDown: 100, Notice: 30 * time.Millisecond},
	{Kind: Reset, Notice: time.Second, Downtime: 30 * time.Millisecond},
	{Kind: Crash, Durable: 100},
	{Kind: Crash, Durable: 0, KeepDown: 100},
	{Kind: Crash, Durable: 50, Refuse: 1},
}

// brief asks for a sample of the cuts.
func brief() bool { return testing.Short() || raced }

// TestEveryOctet breaks each short conversation at every octet of either direction, in every way.
func TestEveryOctet(t *testing.T) {
	cuts, struck := 0, 0
	for i, s := range short {
		for v, end := range []Ending{EndDrained, EndHasty} {
			c := Case{Seed: uint64(i), Script: Script{
				Version: frame.Version((i + v) % 3), Ops: s.ops, End: end, Queues: queues(s.loaded), Hold: 20 * time.Second, Reclaim: 2 * time.Second,
				Forgets: i%2 == 0,
			}}
			if s.name == "nack" {
				c.Script.Version = frame.V12
			}
			plain := RunSTOMP(c, recorder, false)
			if len(plain.Violations) > 0 {
				t.Errorf("%s, no fault: %v\n%s", s.name, plain.Violations[0], RunSTOMP(c, recorder, true).Transcript)
				continue
			}
			for w, way := range ways {
				if end == EndHasty && w > 2 || brief() && (w+i)%len(ways) != 0 {
					continue
				}
				n, k := everyOctet(t, s.name, c, way, plain)
				cuts, struck = cuts+n, struck+k
			}
		}
	}
	t.Logf("%d conversations, %d cut points, %d faults struck", len(short), cuts, struck)
}

func everyOctet(t *testing.T, name string, c Case, way Fault, plain Result) (cuts, struck int) {
	way.Link = 1
	for _, down := range []bool{false, true} {
		last := plain.Up
		if down {
			last = plain.Down
		}
		for way.Down, way.Octet = down, 0; way.Octet <= last; way.Octet += stride {
			cuts++
			c.Faults = []Fault{way}
			r := RunSTOMP(c, recorder, false)
			struck += r.Struck
			if len(r.Violations) > 0 {
				t.Error(report(fmt.Sprintf("%s, %v", name, way), c, r))
				return cuts, struck
			}
		}
	}
	return cuts, struck
}

// report shows a failed case as small as it can be made.
func report(what string, c Case, r Result) string {
	small := c.Shrink(recorder, 1500)
	return fmt.Sprintf("%s: %v\n%v\n%s", what, r.Violations[0], small, RunSTOMP(small, recorder, true).Transcript)
}

// TestTwice breaks each short conversation somewhere, and then the second connection at every octet: the cuts are in the login and in the replay.
func TestTwice(t *testing.T) {
	cuts, twice := 0, 0
	for i, s := range short {
		c := Case{Seed: uint64(i), Script: Script{
			Version: frame.V12, Ops: s.ops, End: EndDrained, Queues: queues(s.loaded), Hold: 20 * time.Second, Reclaim: 2 * time.Second, Prompt: i%2 == 0,
		}}
		c.Script.Queues[0].Rival = i%3 == 0
		plain := RunSTOMP(c, recorder, false)
		r := NewRand(uint64(i))
		for w, way := range ways {
			if (w+i)%len(ways) > 1 || brief() && (w+i)%len(ways) > 0 {
				continue
			}
			for octet := 0; octet < 1200; octet += stride {
				before := ways[r.IntN(len(ways))]
				before.Link, before.Down, before.Octet = 1, r.Chance(50), r.IntN(plain.Up)
				way.Link, way.Down, way.Octet = 2, octet%2 == 0, octet/2
				if before.Down {
					before.Octet = r.IntN(plain.Down)
				}
				cuts++
				c.Faults = []Fault{before, way}
				res := RunSTOMP(c, recorder, false)
				if res.Struck == 2 {
					twice++
				}
				if len(res.Violations) > 0 {
					t.Error(report(s.name+", twice", c, res))
					break
				}
			}
		}
	}
	t.Logf("%d runs, %d of them broken twice", cuts, twice)
}

// TestLeaving breaks each short conversation at every seventh octet, and lets the client leave while there is no broker: the session must be closed, and
// nothing that was confirmed lost.
func TestLeaving(t *testing.T) {
	runs := 0
	for i, s := range short {
		c := Case{Seed: uint64(i), Script: Script{
			Version: frame.V11, Ops: s.ops, End: EndDrained, Queues: queues(s.loaded), Hold: 20 * time.Second, Reclaim: 2 * time.Second, Forgets: i%2 == 0,
		}}
		plain := RunSTOMP(c, recorder, false)
		for _, kind := range []FaultKind{Reset, Crash, Stall} {
			for octet := 0; octet < plain.Up+plain.Down; octet += 7 * stride {
				f := Fault{Kind: kind, Link: 1, Octet: octet, Downtime: 400 * time.Millisecond, Durable: 50, Leave: true}
				if octet >= plain.Up {
					f.Down, f.Octet = true, octet-plain.Up
				}
				runs++
				c.Faults = []Fault{f}
				if r := RunSTOMP(c, recorder, false); len(r.Violations) > 0 {
					t.Error(report(s.name+", leaving", c, r))
					break
				}
			}
		}
	}
	t.Logf("%d runs", runs)
}
