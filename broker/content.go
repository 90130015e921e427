package broker

import (
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

// content copies the message in a place from the record that was read. Most records number what they bring from 0 on, so that a place says where it is in
// them: one may hold half a million copies, and is asked for each.
func (d *digest) content(pos uint64) (c content, err error) {
	want := entry{pos: pos}
	at := int(want.index())
	if at >= len(d.copies) || d.copies[at].index != want.index() {
		at = slices.IndexFunc(d.copies, func(x copied) bool { return x.index == want.index() })
	}
	for i := range d.brings {
		b := &d.brings[i]
		if at >= b.copies {
			at -= b.copies
			continue
		}
		if at < 0 || b.lsn != want.lsn() {
			break
		}
		c = content{id: b.id, data: slices.Concat(b.lines, b.body), split: int32(len(b.lines))}
		_, c.expires = standing(b.lines)
		return c, nil
	}
	return c, errElsewhere
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
	var d digest
	var r journal.Record
	var err error
	for i, want := range order {
		if i == 0 || want.at != order[i-1].at { // a record may have several
			if r, err = from.Read(want.at, buf); err == nil {
				err = d.read(&r)
			}
		}
		if want.err = err; err != nil {
			continue
		}
		if want.content, want.err = d.content(want.pos); want.err == nil && want.hash != 0 && hash(want.id) != want.hash {
			want.err = errElsewhere
		}
		if want.err != nil {
			want.err = fmt.Errorf("record %d: %w", r.LSN, want.err)
		}
	}
}
