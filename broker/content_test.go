package broker

import (
	"bytes"
	"testing"

	"github.com/understudy-mq/understudy/broker/journal"
)

// Whatever record brought a message, its octets are found in it, and never those of another one.
func TestContentOfRecords(t *testing.T) {
	o := origin{kind: bySession, session: mustSession(sessionX), effect: 3}
	m := func(index int32, data string) *message {
		return &message{id: msgID{o.session.hi, o.session.lo, 3, index}, data: []byte("a:b\n" + data), split: 4, lsn: 9, queue: newPool().newQueue("/queue/a")}
	}
	d := testDurable()
	one, zero, two := m(outsideTx, "one"), m(0, "zero"), m(1, "two")
	commit, _ := appendCommit(nil, nil, o, []txSend{{msg: zero, dest: "/queue/a"}, {msg: two, dest: "/queue/b"}}, []*message{one}, recCommit)
	topics, _ := appendCommit(nil, nil, o, []txSend{{msg: zero, dest: d.dest, targets: []*durable{d, d}}, {msg: two, dest: "/queue/b"}}, nil, recCommitTopics)
	for _, test := range []struct {
		name    string
		kind    byte
		payload []byte
		want    []*message // by index
	}{
		{"send", recSend, appendSend(nil, o, []byte("/queue/a"), one), []*message{one}},
		{"publish", recPublish, appendPublish(nil, o, []byte(d.dest), []*durable{d, d, d}, one), []*message{one, one, one}},
		{"commit", recCommit, commit, []*message{zero, two}},
		{"commit with topics", recCommitTopics, topics, []*message{zero, zero, two}},
		{"move", recMove, appendMove(nil, zero, "/queue/DLQ", one), []*message{one}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var dg digest
			r := journal.Record{Position: journal.Position{LSN: 20}, Epoch: 1, Type: test.kind, Payload: test.payload, Size: len(test.payload)}
			if err := dg.read(&r); err != nil {
				t.Fatal(err)
			}
			for i, want := range test.want {
				got, err := dg.content(placeOf(20, uint32(i)))
				if err != nil || got.id != want.id || !bytes.Equal(got.data, want.data) || got.split != want.split {
					t.Errorf("message %d: got %+v %v, want %+v", i, got, err, want)
				}
			}
			for _, pos := range []uint64{placeOf(20, uint32(len(test.want))), placeOf(19, 0), placeOf(21, 0)} {
				if got, err := dg.content(pos); err == nil {
					t.Errorf("message at %d: got %+v", pos, got)
				}
			}
		})
	}
}
