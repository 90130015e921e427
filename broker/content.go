package broker

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// content is what a record has of a message and an entry has not.
type content struct {
	id      msgID
	data    []byte // header lines, then the body
	split   int32
	expires time.Time // zero: never
}

// errElsewhere is the error of a record that is sound and has another message than the one that should be there.
var errElsewhere = errors.New("the record there has another message")

// contentOf reads the message in a place from the record that has it. The octets are copied.
func contentOf(r *journal.Record, pos uint64) (c content, err error) {
	e := entry{pos: pos}
	rd := reader{b: r.Payload}
	var lines, body []byte
	found := true
	switch r.Type {
	case recSend, recPublish:
		o := rd.origin()
		rd.text()
		c.id = o.messageOf(r.Epoch, rd.uint(), false)
		if found = r.LSN == e.lsn(); r.Type == recPublish {
			n := rd.count(1)
			for range n {
				rd.uint()
			}
			found = found && e.index() < uint32(n)
		} else {
			found = found && e.index() == 0
		}
		lines, body = rd.text(), rd.b
	case recCommit, recCommitTopics:
		lines, body, c.id, found = sentInTx(&rd, r, e.index())
		found = found && r.LSN == e.lsn()
	case recMove:
		skipQueue(&rd)
		rd.mention()
		rd.text()
		c.id = rd.id()
		lines, body = rd.text(), rd.b
		found = r.LSN == e.lsn() && e.index() == 0
	case recRelocate:
		found = journal.LSN(rd.uint()) == e.lsn()
		rd.uint()
		c.id = rd.id()
		has := false
		for range rd.count(2) {
			skipQueue(&rd)
			has = uint32(rd.uint()) == e.index() || has
		}
		found = found && has
		lines, body = rd.text(), rd.b
	default:
		found = false
	}
	if rd.err != nil {
		return c, rd.end(r.Type)
	}
	if !found {
		return c, errElsewhere
	}
	c.data, c.split = slices.Concat(lines, body), int32(len(lines))
	c.expires = expiresOf(lines)
	return c, nil
}

// sentInTx finds a message of a COMMIT.
func sentInTx(rd *reader, r *journal.Record, index uint32) (lines, body []byte, id msgID, found bool) {
	o := rd.origin()
	at := uint32(0)
	for range rd.count(4) {
		number := rd.uint()
		rd.text()
		n := 0
		if r.Type == recCommitTopics {
			n = rd.count(1)
			for range n {
				rd.uint()
			}
		}
		lines, body = rd.text(), rd.text()
		if at += uint32(max(1, n)); index < at {
			return lines, body, o.messageOf(r.Epoch, number, true), true
		}
	}
	return nil, nil, id, false
}

func skipQueue(rd *reader) {
	if len(rd.text()) == 0 {
		rd.uint()
	}
}

// expiresOf reads when a message expires from its header lines: the first line that says so counts.
func expiresOf(lines []byte) time.Time {
	for len(lines) > 0 {
		line, rest, _ := bytes.Cut(lines, []byte{'\n'})
		lines = rest
		if v, ok := bytes.CutPrefix(line, []byte("expires:")); ok {
			if d := deadlineOf(v); d != nil {
				return d.at
			}
		}
	}
	return time.Time{}
}

// source is where records are read again: the journal.
type source interface {
	Read(at journal.Position, buf []byte) (journal.Record, error)
}

// fetch reads what an errand is for, in the order in which it lies. hash is the pool's. It needs no mutex.
func (e *errand) fetch(from source, hash func(msgID) uint64, buf []byte) {
	order := make([]*reading, len(e.reads))
	for i := range e.reads {
		order[i] = &e.reads[i]
	}
	slices.SortFunc(order, func(a, b *reading) int {
		return cmp.Or(cmp.Compare(a.at.Segment, b.at.Segment), cmp.Compare(a.at.Offset, b.at.Offset))
	})
	var r journal.Record
	var err error
	for i, want := range order {
		if i == 0 || want.at != order[i-1].at { // a record may have several
			r, err = from.Read(want.at, buf)
		}
		if want.err = err; err != nil {
			continue
		}
		want.content, want.err = contentOf(&r, want.pos)
		if want.err == nil && want.hash != 0 && hash(want.id) != want.hash {
			want.err = errElsewhere
		}
		if want.err != nil {
			want.err = fmt.Errorf("record %d: %w", r.LSN, want.err)
		}
	}
}
