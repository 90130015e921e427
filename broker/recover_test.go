package broker

import (
	"fmt"
	"slices"
	"testing"

	"github.com/understudy-mq/understudy/broker/journal"
)

// folding is a recovery of records that a test makes up.
type folding struct {
	t   *testing.T
	s   *store
	rc  *recovery
	seg journal.Segment
}

func newFolding(t *testing.T) *folding {
	s, _ := benchStore()
	return &folding{t: t, s: s, rc: newRecovery(s), seg: 1}
}

// visit folds a record of segment seg.
func (f *folding) visit(lsn journal.LSN, seg journal.Segment, kind byte, payload []byte) journal.Account {
	f.t.Helper()
	at := journal.Position{LSN: lsn, Segment: seg, Offset: int64(lsn) * 4096}
	a, err := f.rc.visit(journal.Record{Position: at, Epoch: 1, Size: len(payload), Type: kind, Payload: payload})
	if err != nil {
		f.t.Fatal(err)
	}
	return journal.Account{Live: a.Live, Bytes: a.Bytes, Ends: slices.Clone(a.Ends), Again: slices.Clone(a.Again)}
}

// A client acknowledged a message whose segment is gone. An earlier one of the queue is there, relocated: it must not come to that client after the later one.
func TestWhatIsAcknowledgedWasSeenThoughItIsGone(t *testing.T) {
	in := queueName{name: []byte("/queue/a")}
	for _, ackFirst := range []bool{false, true} {
		f := newFolding(t)
		c := &session{id: mustSession(sessionX), accepted: 3}
		sub := &subscription{id: "s", dest: "/queue/a", mode: ackEach, prefetch: 5, session: c, queue: &queue{count: 1}}
		c.subs = map[string]*subscription{"s": sub}
		x := makeUp(9, 0, in)
		x.m.home.Segment = 1
		ack, _ := appendAcks(appendOrigin(nil, origin{kind: bySession, session: c.id, effect: 4}), nil, []*message{x.m})
		f.visit(12, 2, recHead, appendSnapshot([]byte{0, 1}, c))
		if ackFirst {
			f.visit(13, 2, recAck, ack)
		}
		f.visit(14, 2, recRelocate, makeUp(5, 0, in).relocate(1))
		if !ackFirst {
			f.visit(15, 2, recAck, ack)
		}
		f.rc.finish()
		if got := f.s.sessions[c.id].subs["s"]; got.seen(3) != (place{9, 0}) {
			t.Errorf("acknowledged first %v: its client acknowledged 9, recovery says it saw %v", ackFirst, got.seen(3))
		}
	}
}

// madeUp is a message of a direct client and the records that it may leave.
type madeUp struct {
	m  *message
	in queueName
}

func makeUp(lsn journal.LSN, index uint32, in queueName) madeUp {
	m := &message{id: msgID{1, 1, uint64(lsn), fromDirect}, data: fmt.Appendf(nil, "priority:7\nbody %d", lsn), split: 11, lsn: lsn, index: index}
	m.queue = newPool().newQueue(string(in.name))
	m.queue.number = in.number
	return madeUp{m, in}
}

func (x madeUp) send() []byte {
	return appendSend(nil, origin{kind: byDirect, conn: 1}, x.in.name, x.m)
}

func (x madeUp) relocate(from journal.Segment) []byte {
	b := &brought{lsn: x.m.lsn, id: x.m.id, lines: x.m.data[:x.m.split], body: x.m.data[x.m.split:]}
	return appendRelocate(nil, b, from, []resident{{copied: copied{x.in, x.m.index}}})
}

func (x madeUp) forward(of journal.Segment) []byte {
	return appendForward(nil, []mention{{x.in, x.m.place(), of}})
}

func (x madeUp) ack(home journal.Segment) []byte {
	x.m.home.Segment = home
	b, _ := appendAcks(appendOrigin(nil, origin{}), nil, []*message{x.m})
	return b
}

// What becomes of one message whose records are in segments 1 to 5, whichever of these went before the crash. Its first record is in segment 1, those that
// relocated it are in 2 and 3, then come its acknowledgement, and what told again that it left 1, and that it ended.
func TestRelocatedMessageIsOne(t *testing.T) {
	in := queueName{name: []byte("/queue/a")}
	x := makeUp(10, 0, in)
	const octets = 18 + storedOverhead
	type visit struct {
		lsn     journal.LSN
		seg     journal.Segment
		kind    byte
		payload []byte
		want    journal.Account
	}
	born := visit{10, 1, recSend, x.send(), journal.Account{Live: 1, Bytes: octets}}
	second := func(want journal.Account) visit { return visit{20, 2, recRelocate, x.relocate(1), want} }
	third := func(want journal.Account) visit { return visit{30, 3, recRelocate, x.relocate(2), want} }
	left := func(want journal.Account) visit { return visit{31, 3, recForward, x.forward(1), want} }
	acked := func(want journal.Account) visit { return visit{40, 4, recAck, x.ack(3), want} }
	told := func(want journal.Account) visit { return visit{50, 5, recForward, x.forward(3), want} }
	moved := func(from journal.Segment) journal.Account {
		return journal.Account{Live: 1, Bytes: octets, Ends: []journal.Ending{{Segment: from, Bytes: octets}}}
	}
	came := func(from journal.Segment) journal.Account {
		return journal.Account{Live: 1, Bytes: octets, Again: []journal.Segment{from}}
	}
	ends := func(seg journal.Segment) journal.Account {
		return journal.Account{Ends: []journal.Ending{{Segment: seg, Bytes: octets}}}
	}
	again := func(seg journal.Segment) journal.Account { return journal.Account{Again: []journal.Segment{seg}} }
	for name, test := range map[string]struct {
		visits []visit
		home   journal.Segment // 0: it has ended
	}{
		"not relocated":                        {[]visit{born}, 1},
		"relocated":                            {[]visit{born, second(moved(1))}, 2},
		"the first record is gone":             {[]visit{second(came(1))}, 2},
		"relocated twice":                      {[]visit{born, second(moved(1)), third(moved(2)), left(again(1))}, 3},
		"the second record is gone":            {[]visit{born, third(moved(1)), left(again(1))}, 3},
		"both are gone":                        {[]visit{third(came(2)), left(again(1))}, 3},
		"left first":                           {[]visit{born, left(ends(1))}, 0},
		"acknowledged":                         {[]visit{born, second(moved(1)), third(moved(2)), acked(ends(3))}, 0},
		"acknowledged, and the second is gone": {[]visit{born, third(moved(1)), left(again(1)), acked(ends(3))}, 0},
		"acknowledged and told":                {[]visit{third(came(2)), acked(ends(3)), told(again(3))}, 0},
		"told":                                 {[]visit{third(came(2)), told(ends(3))}, 0},
		"all but the end is gone":              {[]visit{acked(again(3)), told(again(3))}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFolding(t)
			for _, v := range test.visits {
				got := f.visit(v.lsn, v.seg, v.kind, v.payload)
				if got.Live != v.want.Live || got.Bytes != v.want.Bytes || !slices.Equal(got.Ends, v.want.Ends) || !slices.Equal(got.Again, v.want.Again) {
					t.Errorf("record %d: got %+v, want %+v", v.lsn, got, v.want)
				}
			}
			f.rc.finish()
			l, pos, end := f.s.alive(in, 3, place{10, 0})
			if test.home == 0 {
				if l != nil || f.s.messages != 0 {
					t.Fatalf("it lives in %+v", end)
				}
				return
			}
			if l == nil || end.Segment != test.home || pos != placeOf(10, 0) || f.s.messages != 1 {
				t.Fatalf("got %+v at %d, %d messages", end, pos, f.s.messages)
			}
		})
	}
}

// Relocated messages have the places that they had, whatever came behind them, in queues and in durable subscriptions.
func TestRelocatedMessagesKeepTheirPlaces(t *testing.T) {
	d := testDurable()
	for _, in := range []queueName{{name: []byte("/queue/a")}, {name: []byte(d.dest), number: d.number}} {
		f := newFolding(t)
		f.visit(1, 1, recDurable, appendDurable(nil, d))
		for lsn := journal.LSN(1000); lsn < 2000; lsn++ {
			x := makeUp(lsn, 0, in)
			if in.number == 0 {
				f.visit(lsn, 5, recSend, x.send())
			} else {
				f.visit(lsn, 5, recPublish, appendPublish(nil, origin{kind: byDirect, conn: 1}, in.name, []*durable{d}, x.m))
			}
		}
		for i, lsn := range []journal.LSN{300, 100, 900, 101} { // as segments of all ages are emptied
			f.visit(3000+journal.LSN(i), 6, recRelocate, makeUp(lsn, 0, in).relocate(1))
		}
		f.rc.finish()
		q := f.s.queues[string(in.name)]
		if in.number > 0 {
			q = f.s.durables[in.number].queue
		}
		var got []journal.LSN
		q.each(func(s slot) { got = append(got, s.entry().lsn()) })
		if !slices.IsSorted(got) || len(got) != 1004 || !slices.Equal(got[:4], []journal.LSN{100, 101, 300, 900}) {
			t.Fatalf("%s: got %d places, the first are %v", in.name, len(got), got[:min(len(got), 8)])
		}
		if q.count != 1004 || f.s.messages != 1004 || q.places != placeOf(1999, 0) {
			t.Fatalf("%d messages, the last at %d", q.count, q.places)
		}
	}
}

// A standby folds for as long as another owner writes: what it has follows what is alive, in messages, queues, and what clients have seen.
func TestFoldForgetsWhatIsGone(t *testing.T) {
	f := newFolding(t)
	lsn := journal.LSN(0)
	const n = 20000
	for i := range uint64(n) {
		lsn += 2
		id := sessionID{1, i % 100}
		name := fmt.Appendf(nil, "/queue/%d", i)
		x := makeUp(lsn, 0, queueName{name: name})
		f.visit(lsn, 1, recSend, x.send())
		b, _ := appendAcks(appendOrigin(nil, origin{kind: bySession, session: id, effect: i + 1}), nil, []*message{x.m})
		f.visit(lsn+1, 1, recAck, b)
		if i%1000 == 999 { // a segment begins
			part := appendSnapshot([]byte{0, 1}, &session{id: id, accepted: i})
			f.visit(lsn+2, 1, recHead, part)
			lsn++
		}
	}
	seen := 0
	for _, of := range f.rc.seen {
		seen += len(of)
	}
	if len(f.s.queues) > 2048 || len(f.s.sessions) > 100 || seen > 1000 || f.s.messages != 0 || f.s.memory != 0 {
		t.Fatalf("after %d messages there are %d queues, %d sessions, %d floors, %d messages, %d octets", n, len(f.s.queues), len(f.s.sessions), seen, f.s.messages, f.s.memory)
	}
	again := newRecovery(f.s)
	if again.finish(); len(f.s.queues) > 0 || len(f.s.sessions) > 0 {
		t.Fatal("a recovery that begins again has something")
	}
}

// What a head says that a client has seen is there when the acknowledgements which said so are gone.
func TestFloorsAreInTheHead(t *testing.T) {
	f := newFolding(t)
	in := queueName{name: []byte("/queue/a")}
	f.visit(5, 1, recSend, makeUp(5, 0, in).send())
	c := &session{id: mustSession(sessionX), accepted: 3}
	sub := &subscription{id: "s", dest: "/queue/a", mode: ackEach, prefetch: 5, session: c, queue: &queue{count: 1}}
	sub.floor = &floors{7: place{9, 2}}
	c.subs = map[string]*subscription{"s": sub}
	f.visit(12, 2, recHead, appendSnapshot([]byte{0, 1}, c))
	f.rc.finish()
	got := f.s.sessions[c.id].subs["s"]
	if got.seen(3) != (place{9, 2}) || got.seen(0) != (place{}) || !got.gate {
		t.Fatalf("got %+v", got)
	}
}

// The same, if the message for which it matters was relocated to behind the head, whatever queues come and go in between.
func TestFloorsAreInTheHeadOfTheSegmentRelocatedTo(t *testing.T) {
	d := testDurable()
	for _, in := range []queueName{{name: []byte("/queue/a")}, {name: []byte(d.dest), number: d.number}} {
		f := newFolding(t)
		c := &session{id: mustSession(sessionX), accepted: 3}
		sub := &subscription{id: "s", dest: string(in.name), mode: ackEach, prefetch: 5, session: c, queue: &queue{count: 1}, floor: &floors{7: place{9, 2}}}
		if in.number > 0 {
			sub.durable = d
		}
		c.subs = map[string]*subscription{"s": sub}
		f.visit(12, 2, recHead, appendDurable(appendErase(append(appendSnapshot([]byte{0, 1}, c), itemDurable), d), d))
		for lsn := journal.LSN(100); lsn < 5000; lsn += 2 {
			x := makeUp(lsn, 0, queueName{name: fmt.Appendf(nil, "/queue/%d", lsn)})
			f.visit(lsn, 2, recSend, x.send())
			f.visit(lsn+1, 2, recAck, x.ack(2))
		}
		f.visit(5000, 2, recRelocate, makeUp(5, 0, in).relocate(1))
		f.rc.finish()
		if got := f.s.sessions[c.id].subs["s"]; got.seen(3) != (place{9, 2}) || !got.gate {
			t.Errorf("%s: got %v: its client may be given message 5 behind message 9", in.name, got.seen(3))
		}
	}
}
