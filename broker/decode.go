package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

var errRecord = errors.New("record does not have the layout of its type")

// reader takes a payload apart. After the first mistake everything is zero and err is set.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() { r.b, r.err = nil, errRecord }

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads the number of elements that follow, each of at least size octets.
func (r *reader) count(size int) int {
	n := r.uint()
	if n > uint64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) octet() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail()
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

// text is borrowed from the payload.
func (r *reader) text() []byte { return r.take(r.count(1)) }

func (r *reader) session() (id sessionID) {
	if b := r.take(16); b != nil {
		id = sessionOf(b)
	}
	return id
}

// mention reads what names a message of a queue.
func (r *reader) mention() (at place, home journal.Segment) {
	at.lsn, at.index = journal.LSN(r.uint()), uint32(r.uint())
	return at, journal.Segment(r.uint())
}

func (r *reader) id() msgID {
	return msgID{r.uint(), r.uint(), r.uint(), int32(uint32(r.uint()))}
}

func (r *reader) origin() (o origin) {
	switch o.kind = r.octet(); o.kind {
	case byNobody:
	case bySession:
		o.session = r.session()
		o.effect = r.uint()
	case byDirect:
		o.conn = r.uint()
	default:
		r.fail()
	}
	return o
}

func (r *reader) millis() time.Duration {
	return time.Duration(min(r.uint(), maxHold*1000)) * time.Millisecond
}

// end reports what was wrong with the payload: trailing octets are, too.
func (r *reader) end(kind byte) error {
	if r.err == nil && len(r.b) > 0 {
		r.fail()
	}
	if r.err != nil {
		return fmt.Errorf("read record of type %d: %w", kind, r.err)
	}
	return nil
}
