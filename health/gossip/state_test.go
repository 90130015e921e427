package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/understudy-mq/understudy/health"
)

// quiet gives a node without a network: its bookkeeping is driven by hand.
func quiet(t *testing.T) *Node {
	t.Helper()
	cfg, err := Config{Name: "us", Kind: Sidecar}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{cfg: cfg, member: "us~1", members: newRoster(), notes: make(map[string]*note), changed: make(chan struct{}),
		dirty: make(chan struct{}, 1), membership: make(chan struct{}, 1), suspected: make(map[health.Target]time.Time),
		packets: make(chan []byte, packetQueue), states: make(chan []byte, stateQueue), outbox: make(chan outbound, outQueue)}
	n.own = Announcement{Node: "us", Member: "us~1", Kind: Sidecar, Incarnation: 100, Sequence: 1}
	n.members.set("us~1", "127.0.0.1:1")
	n.learn([]record{newRecord(n.own)}, time.Unix(0, 0))
	return n
}

func said(node, member string, incarnation, sequence uint64) record {
	return newRecord(Announcement{Node: node, Member: member, Kind: Broker, Incarnation: incarnation, Sequence: sequence})
}

func (n *Node) is(t *testing.T, node string, want Presence) {
	t.Helper()
	v, _ := n.Snapshot()
	if p, ok := v.peer(node); !ok || p.Presence != want {
		t.Errorf("%s is %v (known %v), want %v", node, p.Presence, ok, want)
	}
}

func TestPresence(t *testing.T) {
	n := quiet(t)
	clock := time.Unix(1000, 0)
	step := func(d time.Duration, r ...record) {
		clock = clock.Add(d)
		n.learn(r, clock)
		n.look(clock)
	}
	step(0, said("b", "b~1", 1, 1))
	n.is(t, "b", Alive) // heard before the membership knew it
	step(grace)
	n.is(t, "b", Lost) // it never came
	(*delegate)(n).NotifyJoin(&memberlist.Node{Name: "b~1", Addr: []byte{127, 0, 0, 1}, Port: 2})
	step(0)
	n.is(t, "b", Alive)
	(*delegate)(n).NotifyLeave(&memberlist.Node{Name: "b~1"})
	step(0)
	n.is(t, "b", Lost)
	step(0, said("b", "b~1", 1, 2))
	n.is(t, "b", Lost) // an echo of the dead
	step(0, said("b", "b~2", 2, 1))
	n.is(t, "b", Alive) // a new life
	(*delegate)(n).NotifyJoin(&memberlist.Node{Name: "b~2", Addr: []byte{127, 0, 0, 1}, Port: 3})
	step(time.Hour)
	n.is(t, "b", Alive)
	last := said("b", "b~2", 2, 2).Announcement
	last.Leaving = true
	step(0, newRecord(last))
	n.is(t, "b", Left)
	(*delegate)(n).NotifyLeave(&memberlist.Node{Name: "b~2"})
	step(forgetAfter)
	n.is(t, "b", Left)
	_, changed := n.Snapshot()
	step(1)
	if v, _ := n.Snapshot(); len(v.Peers) != 1 || len(n.notes) != 1 {
		t.Errorf("not forgotten: %+v", v)
	}
	select {
	case <-changed:
	default:
		t.Error("forgetting is not announced")
	}
	step(time.Hour)
	n.is(t, "us", Alive)

	step(0, said("c", "c~1", 1, 1))
	(*delegate)(n).NotifyJoin(&memberlist.Node{Name: "c~1", Addr: []byte{127, 0, 0, 1}, Port: 4})
	step(0)
	(*delegate)(n).NotifyLeave(&memberlist.Node{Name: "c~1"})
	step(0)
	n.is(t, "c", Lost) // at once: grace is for those who were never members
}

// Two nodes of one name, or a clock that went back: our present word counts, and there is no storm.
func TestOwnNameIsDefended(t *testing.T) {
	n := quiet(t)
	clock := time.Unix(1000, 0)
	n.learn([]record{said("us", "us~0", 50, 9)}, clock)
	if n.own.Incarnation != 100 || len(n.dirty) != 0 {
		t.Errorf("an echo of a former life is answered: %+v", n.own)
	}
	n.learn([]record{said("us", "us~0", 200, 9)}, clock)
	if n.own.Incarnation != 201 || len(n.dirty) != 1 || n.ledger["us"].Member != "us~1" || n.ledger["us"].Incarnation != 201 {
		t.Errorf("a later word under our name is not refuted: %+v", n.own)
	}
	n.learn([]record{said("us", "us~0", 300, 9)}, clock.Add(refuteGap-1))
	if n.own.Incarnation != 201 || n.ledger["us"].Member != "us~1" {
		t.Errorf("refuted too often, or lost: %+v", n.own)
	}
	n.learn([]record{said("us", "us~0", 301, 9)}, clock.Add(refuteGap))
	if n.own.Incarnation != 302 {
		t.Errorf("not refuted any more: %+v", n.own)
	}
	n.learn([]record{said("us", "us~0", maxIncarnation-1, 9)}, clock.Add(time.Hour))
	if n.own.Incarnation >= maxIncarnation {
		t.Errorf("an incarnation that nobody accepts: %d", n.own.Incarnation)
	}
}

func TestNodesAreBounded(t *testing.T) {
	n := quiet(t)
	now := time.Unix(1000, 0)
	var many []record
	for i := range maxNodes + 50 {
		many = append(many, said(fmt.Sprint("n", i), "m", 1, 1))
	}
	n.learn(many, now)
	n.learn([]record{said("late", "m", 1, 1), said("n0", "m", 1, 2)}, now)
	if len(n.ledger) != maxNodes || len(n.notes) != maxNodes || n.ledger["n0"].Sequence != 2 {
		t.Errorf("%d nodes, %d notes, known one at %d", len(n.ledger), len(n.notes), n.ledger["n0"].Sequence)
	}
	n.look(now.Add(2 * grace))
	n.look(now.Add(2*grace + forgetAfter + 1))
	if len(n.ledger) != 1 {
		t.Errorf("%d nodes that never lived are remembered", len(n.ledger))
	}
}

// The dead are not handed on: else they would go round for ever.
func TestLocalStateTellsOnlyOfTheLiving(t *testing.T) {
	n := quiet(t)
	n.members.set("b~1", "127.0.0.1:2")
	n.learn([]record{said("b", "b~1", 1, 1), said("c", "c~1", 1, 1)}, time.Unix(1000, 0))
	m, err := decode((*delegate)(n).LocalState(false))
	if err != nil || len(m.records) != 2 {
		t.Fatalf("%+v, %v", m.records, err)
	}
	for _, r := range m.records {
		if r.Node == "c" {
			t.Error("c is not a member, and told of")
		}
	}
}

// memberlist calls back with its locks held: a full queue drops, and nothing blocks.
func TestCallbacksNeverBlock(t *testing.T) {
	n := quiet(t)
	msg := encodeAnnouncement(said("b", "b~1", 1, 1))
	for range 2 * packetQueue {
		(*delegate)(n).NotifyMsg(msg)
		(*delegate)(n).MergeRemoteState(msg, false)
		(*delegate)(n).NotifyJoin(&memberlist.Node{Name: "b~1"})
		n.Suspect(health.Target(fmt.Sprint(len(n.suspected))))
	}
	(*delegate)(n).NotifyMsg(make([]byte, maxRecord+4))
	(*delegate)(n).MergeRemoteState(make([]byte, maxState+1), false)
	if len(n.packets) != packetQueue || len(n.states) != stateQueue || len(n.outbox) != outQueue {
		t.Errorf("%d packets, %d states, %d suspicions", len(n.packets), len(n.states), len(n.outbox))
	}
	clear(msg)
	if _, err := decode(<-n.packets); err != nil {
		t.Error("the queue keeps memberlist's own buffer")
	}
}

// The largest state that is sent is one that is accepted.
func TestStateIsBounded(t *testing.T) {
	a := Announcement{Node: "a", Member: "m"}
	for range maxStores {
		a.Stores = append(a.Stores, Store{UUID: strings.Repeat("u", maxString), Name: strings.Repeat("n", maxString)})
	}
	for range maxEndpoints {
		a.Endpoints = append(a.Endpoints, strings.Repeat("e", maxString))
	}
	r := newRecord(a)
	if a.validate() != nil || len(r.raw) > maxRecord {
		t.Fatalf("the largest announcement has %d octets, the limit is %d", len(r.raw), maxRecord)
	}
	b := encodeState(make([]record, 0))
	if _, err := decode(b); err != nil {
		t.Error(err)
	}
	all := make([]record, maxNodes)
	for i := range all {
		all[i] = r
	}
	b = encodeState(all)
	if m, err := decode(b); err != nil || len(b) > maxState || len(m.records) < maxState/len(r.raw)-2 {
		t.Errorf("%d octets, %d records, %v", len(b), len(m.records), err)
	}
}

func TestMembershipLog(t *testing.T) {
	for line, want := range map[string]string{
		"[DEBUG] memberlist: Stream connection from=1\n": "level=DEBUG msg=\"gossip membership\" text=\"Stream connection from=1\"",
		"[INFO] memberlist: Suspect b has failed\n":      "level=DEBUG msg=\"gossip membership\" text=\"Suspect b has failed\"",
		"[WARN] memberlist: Refuting\n":                  "level=WARN msg=\"gossip membership\" text=Refuting",
		"[ERR] memberlist: Push/Pull failed\n":           "level=WARN msg=\"gossip membership\" text=\"Push/Pull failed\"",
		"no level\n":                                     "level=DEBUG msg=\"gossip membership\" text=\"no level\"",
	} {
		var out bytes.Buffer
		n := quiet(t)
		n.cfg.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		if k, err := (logWriter{n}).Write([]byte(line)); k != len(line) || err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%q is logged as %q", line, out.String())
		}
	}
}
