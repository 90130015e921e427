package broker

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/broker/selector"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

func newParser() frame.Parser { return frame.Parser{Version: frame.V12} }

func mustSession(t string) sessionID {
	id, ok := parseSessionID([]byte(t))
	if !ok {
		panic(t)
	}
	return id
}

func TestRingIsAQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r ring[int]
		var model []int
		for i := range rapid.IntRange(0, 3000).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "what") > 0 {
				r.push(i)
				model = append(model, i)
			} else if len(model) > 0 {
				if got := r.pop(); got != model[0] {
					t.Fatalf("got %d, want %d", got, model[0])
				}
				model = model[1:]
			}
		}
		var all []int
		r.each(func(v int) { all = append(all, v) })
		if r.len() != len(model) || !slices.Equal(all, model) {
			t.Fatalf("got %v, want %v", all, model)
		}
	})
}

func TestMessageIDs(t *testing.T) {
	s := mustSession(sessionX)
	for _, test := range []struct {
		id        msgID
		v10, wire string
	}{
		{msgID{s.hi, s.lo, 7, outsideTx}, sessionX + ":7", sessionX + `\c7`},
		{msgID{s.hi, s.lo, 7, 0}, sessionX + ":7:0", sessionX + `\c7\c0`},
		{msgID{s.hi, s.lo, 1<<64 - 1, 1<<31 - 1}, sessionX + ":18446744073709551615:2147483647", sessionX + `\c18446744073709551615\c2147483647`},
		{msgID{3, 4, 5, fromDirect}, "3-4-5", "3-4-5"},
	} {
		if got := string(test.id.append(nil, frame.V10)); got != test.v10 {
			t.Errorf("got %s, want %s", got, test.v10)
		}
		if got := string(test.id.append(nil, frame.V12)); got != test.wire {
			t.Errorf("got %s, want %s", got, test.wire)
		}
		if got, ok := parseMsgID([]byte(test.v10)); !ok || got != test.id {
			t.Errorf("%s was read as %v %v", test.v10, got, ok)
		}
	}
	for _, bad := range []string{"", "-", "1-2", "1-2-3-4", "1-2-x", sessionX, sessionX + ":", sessionX + ":1:", sessionX + ":1:2:3", sessionX + ":1:2147483648",
		strings.ToUpper(sessionX) + ":1", sessionX + ":-1", sessionX + "-1"} {
		if got, ok := parseMsgID([]byte(bad)); ok {
			t.Errorf("%s was read as %v", bad, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sessionX + ":7:0=3.4,3-4-5=1.1")
	f.Add("1.2.3.4")
	f.Fuzz(func(t *testing.T, in string) {
		if id, ok := parseMsgID([]byte(in)); ok {
			if again, ok := parseMsgID(id.append(nil, frame.V10)); !ok || again != id {
				t.Fatalf("%q was read as %v, then as %v", in, id, again)
			}
		}
		if claims, err := parseClaims([]byte(in)); err == nil && len(claims) != strings.Count(in, ",")+1 {
			t.Fatalf("%q has %d claims", in, len(claims))
		}
		parseAckID([]byte(in))
	})
}

// FuzzDecode checks that whatever a client writes becomes a request, and that what is kept of a SEND can be shown to every version.
func FuzzDecode(f *testing.F) {
	f.Add(text("SEND", "destination:/queue/a", `k\c:v\n\\`, "=body"), byte(2), true)
	f.Add(text("SEND", "destination:/queue/a", "k:a:b", "content-length:4", "=body"), byte(1), false)
	f.Add(text("SUBSCRIBE", "id:1", "destination:/queue/a", "understudy-claims:"+sessionX+`\c1=1.1`), byte(2), true)
	f.Add(text("ACK", "id:1.2.3.4"), byte(2), false)
	f.Add(text("ACK", "subscription:1", "message-id:1-2-3"), byte(0), false)
	f.Fuzz(func(t *testing.T, octets string, version byte, sidecar bool) {
		v := frame.Version(version % 3)
		parser := frame.Parser{Version: v, Limits: frame.Limits{Body: 1 << 10, Block: 4 << 10}}
		var fr frame.Frame
		n, _, err := parser.Next([]byte(octets), &fr)
		if n == 0 || err != nil || fr.Command == frame.EOL {
			return
		}
		_, _ = parseHello(&fr)
		d := decoder{version: v, sidecar: sidecar}
		r := d.decode(&fr)
		if r.message == nil {
			return
		}
		m := r.message
		lines, body := m.data[:m.split], m.data[m.split:]
		if !bytes.Equal(body, fr.Body) {
			t.Fatalf("body %q became %q", fr.Body, body)
		}
		for to := frame.V10; to <= frame.V12; to++ {
			out := append([]byte("MESSAGE\n"), appendLines(nil, lines, to)...)
			out = append(append(out, '\n'), body...)
			out = append(out, 0)
			parser := frame.Parser{Version: to}
			var shown frame.Frame
			if n, _, err := parser.Next(out, &shown); err != nil || n != len(out) {
				t.Fatalf("%q was kept as %q and is shown in %s as %q: %v", octets, lines, to, out, err)
			}
			if to == frame.V10 {
				continue
			}
			for _, value := range shown.Headers {
				if _, err := frame.Unescape(nil, value, to); err != nil {
					t.Fatalf("%q was kept as %q and is shown in %s as %q: %v", octets, lines, to, out, err)
				}
			}
		}
	})
}

func testDurable() *durable {
	sel, err := selector.Parse("a = 1")
	if err != nil {
		panic(err)
	}
	return &durable{durableKey: durableKey{"c", "n"}, number: 1, dest: "/topic/t", selector: sel}
}

// testBacklog is a session's subscription to a topic with a number in the journal, and a message for it.
func testBacklog(pl *pool) (*subscription, *message) {
	q := pl.newQueue("/topic/t")
	q.number = 9
	sub := &subscription{id: "n", dest: q.name, session: &session{id: mustSession(sessionX)}, queue: q, topic: &topic{}}
	return sub, &message{id: msgID{n: 1, hi: 3, lo: 7, index: fromDirect}, data: []byte("a:b\nbody"), split: 4, dest: &q.destination}
}

// FuzzRecover feeds recovery with records that nobody wrote: it may refuse them, not more.
func FuzzRecover(f *testing.F) {
	o := origin{kind: bySession, session: mustSession(sessionX), effect: 3}
	m := &message{id: msgID{index: outsideTx}, data: []byte("a:b\nbody"), split: 4, lsn: 1, home: journal.Position{Segment: 1}, queue: newPool().newQueue("/queue/a")}
	sub := &subscription{id: "s", dest: "/queue/a", mode: ackEach, prefetch: 5}
	c := &session{id: o.session, attempt: 2, accepted: 3, hold: time.Second, rolled: []uint64{2}, subs: map[string]*subscription{"s": sub},
		temps: map[string]*queue{"t": nil}}
	commit, _ := appendCommit(nil, nil, o, []txSend{{msg: m, dest: "/queue/a"}}, []*message{m}, recCommit)
	d := testDurable()
	topics, _ := appendCommit(nil, nil, o, []txSend{{msg: m, dest: d.dest, targets: []*durable{d, d}}}, nil, recCommitTopics)
	sub.floor, sub.queue = &floors{3: place{2, 1}}, m.queue
	m.queue.count = 1
	moved := &brought{lsn: 1, id: m.id, lines: m.data[:4], body: m.data[4:]}
	copies := []resident{{copied: copied{in: queueName{name: []byte("/queue/a")}}}, {copied: copied{in: queueName{number: d.number}, index: 1}}}
	kept, news := testBacklog(newPool())
	c.subs[kept.id] = kept
	head := appendDurable(appendErase(append(appendBacklogs(appendSnapshot(nil, c), c), itemDurable), d), d)
	acks, _ := appendAcks(appendOrigin(nil, o), nil, []*message{m})
	for kind, payload := range map[byte][]byte{
		recSend: appendSend(nil, o, []byte("/queue/a"), m), recAck: acks, recCommit: commit, recCursor: appendCursor(nil, o, true),
		recSubscribe: appendSubscribe(nil, c, sub), recClose: appendSessionID(nil, c.id), recSession: appendSession(nil, c),
		recUnsubscribe: appendText(appendSessionID(nil, c.id), "s"), recHead: append([]byte{0, 1}, head...),
		recDurable: appendDurable(nil, d), recErase: appendErase(nil, d), recPublish: appendPublish(nil, o, []byte(d.dest), []*durable{d}, m), recCommitTopics: topics, recTemporary: appendText(appendSessionID(nil, c.id), "t"), recMove: appendMove(nil, m, "/queue/DLQ", m),
		recRelocate: appendRelocate(nil, moved, 1, copies), recForward: appendForward(nil, []mention{{copies[0].in, m.place(), 1}, {copies[1].in, m.place(), 2}}),
		recBacklog: appendBacklog(nil, kept), recBequest: appendBequest(nil, news, []*subscription{kept, kept}),
	} {
		f.Add(kind, payload)
	}
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		s, _ := benchStore()
		rc := newRecovery(s)
		for lsn := range journal.LSN(2) {
			_, _ = rc.visit(journal.Record{Position: journal.Position{LSN: lsn + 1, Segment: 1}, Epoch: 1, Size: len(payload), Type: kind, Payload: payload})
		}
		rc.finish()
	})
}

// Every record that the store writes is read back whole; a shortened or lengthened one is an error.
func TestRecordsOfTheWrongLengthAreRefused(t *testing.T) {
	o := origin{kind: bySession, session: mustSession(sessionX), effect: 300}
	m := &message{id: msgID{n: 1, index: fromDirect}, data: []byte("a:b\nbody"), split: 4, lsn: 200, home: journal.Position{Segment: 1}, index: 3, queue: newPool().newQueue("/queue/a")}
	acks, _ := appendAcks(appendOrigin(nil, o), nil, []*message{m})
	commit, _ := appendCommit(nil, nil, o, []txSend{{msg: m, dest: "/queue/a"}}, []*message{m}, recCommit)
	d := testDurable()
	topics, _ := appendCommit(nil, nil, o, []txSend{{msg: m, dest: d.dest, targets: []*durable{d, d}}}, []*message{m}, recCommitTopics)
	sub := &subscription{id: "s", dest: "/queue/ab", mode: ackEach, prefetch: 300, durable: d}
	kept, _ := testBacklog(newPool())
	for kind, payload := range map[byte][]byte{
		recAck: acks, recCommit: commit, recCursor: appendCursor(nil, o, true), recClose: appendSessionID(nil, o.session),
		recUnsubscribe: appendText(appendSessionID(nil, o.session), "s"), recDurable: appendDurable(nil, d), recErase: appendErase(nil, d), recCommitTopics: topics,
		recTemporary: appendText(appendSessionID(nil, o.session), "t"),
		recSubscribe: appendSubscribe(nil, &session{id: o.session}, sub), recForward: acks[len(appendOrigin(nil, o)):], recBacklog: appendBacklog(nil, kept),
	} {
		visit := func(p []byte) error {
			s, _ := benchStore()
			_, err := newRecovery(s).visit(journal.Record{Position: journal.Position{LSN: 1}, Type: kind, Payload: p})
			return err
		}
		if err := visit(payload); err != nil {
			t.Errorf("type %d: %v", kind, err)
		}
		for n := range payload {
			if visit(payload[:n]) == nil {
				t.Errorf("type %d: %d of %d octets were taken for a record", kind, n, len(payload))
			}
		}
		if visit(append(slices.Clone(payload), 0)) == nil {
			t.Errorf("type %d: trailing octets were taken", kind)
		}
	}
	s, _ := benchStore()
	if _, err := newRecovery(s).visit(journal.Record{Position: journal.Position{LSN: 1}, Type: 99}); err == nil {
		t.Error("an unknown type was taken")
	}
}

func TestSnapshotIsReadBack(t *testing.T) {
	want := &session{id: mustSession(sessionX), attempt: 3, accepted: 500, hold: 20 * time.Second, closed: true, rolled: []uint64{7, 400},
		temps: map[string]*queue{"t": nil},
		subs:  map[string]*subscription{"s": {id: "s", dest: "/queue/a", mode: ackClient, prefetch: 300}}}
	s, _ := benchStore()
	rc := newRecovery(s)
	if _, err := rc.visit(journal.Record{Position: journal.Position{LSN: 1}, Type: recHead, Payload: append([]byte{0, 1}, appendSnapshot(nil, want)...)}); err != nil {
		t.Fatal(err)
	}
	got := s.sessions[want.id]
	if got.attempt != 3 || got.accepted != 500 || got.hold != want.hold || !got.closed || !got.recorded || !slices.Equal(got.rolled, want.rolled) || !maps.Equal(got.temps, want.temps) {
		t.Fatalf("got %+v", got)
	}
	if sub := got.subs["s"]; sub == nil || sub.dest != "/queue/a" || sub.mode != ackClient || sub.prefetch != 300 || sub.session != got {
		t.Fatalf("got %+v", sub)
	}
}

// A snapshot replaces what is known only when its last part was read.
func TestHeadIsAllOrNothing(t *testing.T) {
	old, fresh := mustSession(sessionX), mustSession(sessionY)
	payload := appendSnapshot(nil, &session{id: fresh, accepted: 9})
	s, _ := benchStore()
	rc := newRecovery(s)
	rc.applied(origin{kind: bySession, session: old, effect: 5})
	for i, part := range [][]byte{append([]byte{0, 2}, payload...), {1, 2}} {
		if s.sessions[old] == nil {
			t.Fatalf("after %d of 2 parts the old sessions are forgotten", i)
		}
		if _, err := rc.visit(journal.Record{Position: journal.Position{LSN: journal.LSN(i + 2)}, Type: recHead, Payload: part}); err != nil {
			t.Fatal(err)
		}
	}
	if s.sessions[old] != nil || s.sessions[fresh].accepted != 9 {
		t.Fatalf("got %v", s.sessions)
	}
	// Parts whose first was given up by a repair change nothing.
	for i, part := range [][]byte{{1, 3}, {2, 3}} {
		if _, err := rc.visit(journal.Record{Position: journal.Position{LSN: journal.LSN(9 + i)}, Type: recHead, Payload: part}); err != nil {
			t.Fatal(err)
		}
	}
	if s.sessions[fresh].accepted != 9 {
		t.Fatal("a snapshot that is not whole was taken")
	}
}
