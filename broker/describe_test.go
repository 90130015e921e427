package broker

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/understudy-mq/understudy/broker/journal"
)

// everyRecord is one of each type, as the store writes them, of a message whose header and body are secret.
func everyRecord() map[byte][]byte {
	const secret = "authorization:secret\nsecret"
	o := origin{kind: bySession, session: mustSession(sessionX), effect: 300}
	direct := origin{kind: byDirect, conn: 7}
	pool := newPool()
	m := &message{id: msgID{n: 1, hi: 3, lo: 7, index: fromDirect}, data: []byte(secret), split: 21, lsn: 200, home: journal.Position{Segment: 1}, index: 3, queue: pool.newQueue("/queue/orders")}
	d := testDurable()
	other := &message{id: m.id, data: m.data, split: m.split, lsn: 201, home: m.home, queue: pool.newQueue(d.dest)}
	other.queue.number = d.number
	acks, _ := appendAcks(appendOrigin(nil, o), nil, []*message{m, other})
	commit, _ := appendCommit(nil, nil, o, []txSend{{msg: m, dest: "/queue/orders"}, {msg: m, dest: "/queue/bills"}}, []*message{m}, recCommit)
	topics, _ := appendCommit(nil, nil, o, []txSend{{msg: m, dest: d.dest, targets: []*durable{d}}}, nil, recCommitTopics)
	sub := &subscription{id: "s", dest: "/queue/orders", mode: ackEach, prefetch: 300, durable: d}
	c := &session{id: o.session, subs: map[string]*subscription{"s": sub}}
	kept, news := testBacklog(pool)
	news.data, news.split = m.data, m.split
	return map[byte][]byte{
		recSend: appendSend(nil, direct, []byte("/queue/orders"), m), recAck: acks, recCommit: commit, recCommitTopics: topics, recCursor: appendCursor(nil, o, true),
		recClose: appendSessionID(nil, o.session), recUnsubscribe: appendText(appendSessionID(nil, o.session), "s"), recDurable: appendDurable(nil, d),
		recErase: appendErase(nil, d), recTemporary: appendText(appendSessionID(nil, o.session), "t"), recSubscribe: appendSubscribe(nil, c, sub),
		recForward: acks[len(appendOrigin(nil, o)):], recSession: appendSession(nil, c), recHead: append([]byte{0, 1}, appendSnapshot(nil, c)...),
		recPublish: appendPublish(nil, o, []byte(d.dest), []*durable{d}, m), recMove: appendMove(nil, m, "/queue/DLQ", m),
		recRelocate: relocated(m), recBacklog: appendBacklog(nil, kept), recBequest: appendBequest(nil, news, []*subscription{kept, kept}),
	}
}

// relocated is a relocate record of m, by its layout.
func relocated(m *message) []byte {
	b := appendID([]byte{200, 1, 1}, m.id)
	b = append(appendQueue(append(b, 1), m.queue), 3)
	return append(appendText(b, m.data[:m.split]), m.data[m.split:]...)
}

func described(kind byte, payload []byte) journal.Record {
	return journal.Record{Position: journal.Position{LSN: 5, Segment: 2, Offset: 4096}, Epoch: 3, Type: kind, Size: len(payload), Payload: payload}
}

func TestDescribe(t *testing.T) {
	records := everyRecord()
	for kind, name := range recordNames {
		payload, there := records[kind]
		if !there {
			t.Errorf("no example of %s", name)
			continue
		}
		d := Describe(described(kind, payload), false)
		if d.Type != name || d.Err != "" || d.Size != len(payload) || d.LSN != 5 || d.Segment != 2 || d.Offset != 4096 || d.Epoch != 3 {
			t.Errorf("%s: %+v", name, d)
		}
		text, err := json.Marshal(d)
		if err != nil || strings.Contains(string(text), "secret") {
			t.Errorf("%s: %s %v", name, text, err)
		}
		if len(d.Messages)+len(d.Ends) == 0 && d.About == "" {
			t.Errorf("%s: nothing is said", name)
		}
		for _, m := range d.Messages {
			if m.Headers != 21 || m.Body != 6 || !strings.Contains(m.ID, "-7-") && !strings.Contains(m.ID, sessionX) {
				t.Errorf("%s: %+v", name, m)
			}
		}
		for n := range payload { // the front of one, as an index may have it
			Describe(described(kind, payload[:n]), true)
		}
	}
	d := Describe(described(recSend, records[recSend]), true)
	if len(d.Messages) != 1 || string(d.Messages[0].Content) != "secret" || d.Messages[0].Lines != "authorization:secret\n" || d.By != "connection 7" {
		t.Errorf("%+v", d)
	}
	if d := Describe(described(99, nil), false); d.Err == "" {
		t.Errorf("%+v", d)
	}
}

func TestConcerns(t *testing.T) {
	records := everyRecord()
	const sessions = "subscriptions and cursors of sessions"
	for kind, want := range map[byte][]string{
		recSend: {"/queue/orders"}, recCommit: {"/queue/orders", "/queue/bills"}, recMove: {"/queue/DLQ", "/queue/orders"}, recRelocate: {"/queue/orders"},
		recPublish: {testDurable().dest}, recBequest: {testDurable().dest, numberedQueueName + "9"}, recBacklog: {sessions}, recHead: {sessions}, recSubscribe: {sessions}, recCursor: {sessions},
	} {
		if got := Concerns(described(kind, records[kind])); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", recordNames[kind], got, want)
		}
	}
	got := Concerns(described(recAck, records[recAck]))
	if len(got) != 2 || got[0] != "/queue/orders" || !strings.HasPrefix(got[1], numberedQueueName) {
		t.Errorf("ack: %q", got)
	}
	front := records[recSend][:20] // origin and destination: the rest may be gone
	if got := Concerns(described(recSend, front)); !slices.Equal(got, []string{"/queue/orders"}) {
		t.Errorf("front: %q", got)
	}
	garbage := slices.Concat([]byte{0, 8}, []byte("/q\x00\xffeue"), make([]byte, 30))
	if got := Concerns(described(recSend, garbage)); len(got) > 0 {
		t.Errorf("garbage: %q", got)
	}
}

// FuzzDescribe takes anything: what recovery accepts is described without complaint, and nothing is shown that was not asked for.
func FuzzDescribe(f *testing.F) {
	for kind, payload := range everyRecord() {
		f.Add(kind, payload)
		f.Add(kind, payload[:len(payload)/2])
	}
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		r := described(kind, payload)
		d := Describe(r, false)
		for _, m := range d.Messages {
			if m.Lines != "" || m.Content != nil {
				t.Fatalf("%+v", m)
			}
		}
		Concerns(r)
		if kind >= 128 || kind == recCursor { // recovery does not look at the flags of a cursor that is nobody's
			return
		}
		s, _ := benchStore()
		_, err := newRecovery(s).visit(r)
		if err == nil && d.Err != "" || err != nil && d.Err == "" && kind != recHead && kind != recDurable && kind != recSubscribe {
			t.Fatalf("type %d: recovery says %v, the description %+v", kind, err, d)
		}
	})
}
