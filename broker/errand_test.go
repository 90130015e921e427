package broker

import (
	"errors"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// moody is a journal that cannot be read for a while, and whose segment 1 is gone.
type moody struct {
	fails   int
	reads   int
	payload []byte
}

func (j *moody) Read(at journal.Position, _ []byte) (journal.Record, error) {
	j.reads++
	if at.Segment == 1 || j.fails > 0 {
		j.fails--
		return journal.Record{}, errors.New("not now")
	}
	at.LSN = 20
	return journal.Record{Position: at, Epoch: 1, Type: recSend, Payload: j.payload, Size: len(j.payload)}, nil
}

// A page is read again where its messages are now, at once, and after a moment if the error may pass; if it stays the queue stops.
func TestPageIsReadAgain(t *testing.T) {
	for _, test := range []struct {
		name     string
		moved    bool
		fails    int
		attempts int
		pauses   int
		damaged  bool
	}{
		{"sound", false, 0, 1, 0, false},
		{"its segment was emptied meanwhile", true, 0, 2, 0, false},
		{"an error that passes", false, readTries - 1, readTries, readTries - 1, false},
		{"an error that stays", false, 100, readTries, readTries - 1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, _ := benchStore()
			s.through = 100
			q := s.queue([]byte("/queue/a"))
			id := msgID{1, 7, 1, fromDirect}
			from := &moody{fails: test.fails, payload: appendSend(nil, origin{kind: byDirect, conn: 7}, []byte("/queue/a"), &message{id: id, data: []byte("a:b\nx"), split: 4})}
			at := journal.Position{Segment: 2, Offset: 8}
			if test.moved {
				at.Segment = 1
			}
			q.lane(0).pushOut(s.newEntry(id, 20, 0, at, 5, 0), time.Time{})
			s.want(q.lane(0).pages[0], nil)
			attempts, pauses := 0, 0
			for list := s.take(1); len(list) > 0; list = s.take(1) {
				list[0].fetch(from, s.hash, nil)
				if attempts++; test.moved && attempts == 1 {
					q.lane(0).rehome(placeOf(20, 0), journal.Position{LSN: 30, Segment: 2, Offset: 8})
				}
				if s.handIn(list[0]) {
					pauses++
				}
			}
			if attempts != test.attempts || pauses != test.pauses || (q.damage != nil) != test.damaged {
				t.Fatalf("read %d times with %d pauses, damage %v; want %+v", attempts, pauses, q.damage, test)
			}
			if m := q.first(); !test.damaged && (m == nil || m.id != id || string(m.data) != "a:b\nx") {
				t.Fatalf("got %+v", m)
			}
		})
	}
}
