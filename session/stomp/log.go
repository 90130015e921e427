package stomp

import (
	"bytes"
	"iter"
	"time"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// entryKind is what an entry plays.
type entryKind uint8

const (
	sendEntry        entryKind = iota // SEND; an effect outside a transaction
	ackEntry                          // ACK
	nackEntry                         // NACK
	beginEntry                        // BEGIN, never an effect
	commitEntry                       // COMMIT
	abortEntry                        // ABORT
	unsubscribeEntry                  // UNSUBSCRIBE, never an effect; settled by its receipt
	otherEntry                        // a frame that the broker is to judge, never an effect; settled by its receipt or an ERROR
)

// entry is one frame of the client that may have to be played again. An effect is settled by the cursor, or by its own RECEIPT where there is
// no cursor; a frame inside a transaction when that transaction's COMMIT or ABORT is; an UNSUBSCRIBE by its RECEIPT.
type entry struct {
	kind    entryKind
	done    bool
	doubt   bool   // sent on a connection that broke
	sent    bool   // sent on the current connection
	wants   bool   // the client's receipt is still to be answered
	tries   uint32 // how often it was sent
	losses  uint32 // connections that were lost with it as the oldest frame not confirmed
	idOff   int32  // the client's receipt id inside frame
	idLen   int32
	block   int32       // where the header lines begin in frame
	blank   int32       // and the line behind them
	effect  uint64      // 0: not an effect
	order   uint64      // when it was said, on the log's count
	receipt uint64      // number of the receipt asked of the broker on the current connection, for entries that the cursor does not settle
	frame   session.Buf // kept; empty for an acknowledgement that wants no receipt
	tx      *transaction
	sub     *subscription // of an unsubscribe
	target  ackTarget     // of an acknowledgement
	at      time.Time
}

// ackTarget names the message of an acknowledgement as the broker knows it. It is small, for there is one in each entry and few name a message that
// the client does not hold.
type ackTarget struct {
	slot  int32 // in the delivery table; none if the client named a message that it does not hold
	named *named
}

// named is what such a message is called.
type named struct {
	id  []byte // message-id
	sub []byte // subscription id
}

// byName is the target of an acknowledgement of a message that is not in the table.
func byName(id, sub []byte) ackTarget { return ackTarget{none, &named{id, sub}} }

// receiptID is the client's receipt id if it is still to be answered.
func (e *entry) receiptID() []byte {
	if !e.wants || e.done {
		return nil
	}
	return e.frame.Bytes()[e.idOff : e.idOff+e.idLen]
}

// setPlaces remembers where in the frame the header lines and the receipt id stand.
func (e *entry) setPlaces(f *frame.Frame) {
	e.block = int32(f.Offset(f.Block))
	e.blank = e.block + int32(len(f.Block))
	if id, ok := f.Get("receipt"); ok {
		e.wants = true
		e.idOff, e.idLen = int32(f.Offset(id)), int32(len(id))
	}
}

// destination of a SEND.
func (e *entry) destination() []byte {
	raw := e.frame.Bytes()
	return headerOf(raw[e.block:e.blank], "destination")
}

// transaction is one of the client's, from its BEGIN until the broker has settled its COMMIT or ABORT.
type transaction struct {
	id         string
	size       int
	first      uint64 // position of its BEGIN in the log
	charged    int    // octets counted towards the window
	unplayable bool   // grew beyond what is kept
	ended      bool   // COMMIT or ABORT was said
	open       int    // of one that is played as single frames: SENDs not confirmed
	lost       bool   // was open when its broker was lost, and is not to be played again: its COMMIT ends as rolled back
	counted    bool   // open has been worked out
}

// journal is the recorder's log of entries in the order in which the client spoke. Positions count entries ever appended.
type journal struct {
	entries []entry
	base    uint64    // position of entries[0]
	next    uint64    // position of the first effect that may not be settled
	asked   uint64    // position from which the next answered receipt is looked for
	head    int       // entries before this one are settled
	done    int       // settled entries still in the slice
	peak    int       // the longest that entries was since its memory was last weighed
	drops   int       // how often entries were dropped since then
	used    time.Time // when the last entry was made
	live    int       // effects that are not settled
	size    int       // octets charged to the window
	open    int       // octets kept of open transactions
	count   uint64    // of what the client said
}

// The memory of a log is kept as long as it is used, for a log that fills the window again and again must not be made anew each time.
const (
	// weighEvery is after how many times that entries were dropped memory of which not even a quarter was used is given back.
	weighEvery = 64
	// restful is how long a log has to be empty and unused before its memory is given back.
	restful = time.Second
	// idleEntries may be kept even so.
	idleEntries = 4
)

// Each entry is charged this much besides its octets.
const entryCost = 64

// tick counts something that the client said and that has a place in the order of a replay.
func (l *journal) tick() uint64 { l.count++; return l.count }

func (l *journal) add(e entry) *entry {
	e.order, l.used = l.tick(), e.at
	l.entries = append(l.entries, e)
	if e.effect != 0 {
		l.live++
	}
	if e.tx == nil {
		l.size += entryCost + e.frame.Len()
	}
	return &l.entries[len(l.entries)-1]
}

// charge counts a transaction towards the window once its end was sent: from then on only the broker keeps it open.
func (l *journal) charge(t *transaction) {
	l.size += t.size
	l.open -= t.size
	t.charged = t.size
}

// end is the position behind the last entry.
func (l *journal) end() uint64 { return l.base + uint64(len(l.entries)) }

// all yields the entries that are not settled.
func (l *journal) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for i, n := l.head, len(l.entries); i < n; i++ {
			if e := &l.entries[i]; !e.done && !yield(e) {
				return
			}
		}
	}
}

// settle marks an entry done and lets its octets go.
func (l *journal) settle(e *entry) {
	if e.done {
		return
	}
	if e.effect != 0 {
		l.live--
	}
	if e.tx == nil {
		l.size -= entryCost + e.frame.Len()
	}
	e.frame.Drop()
	e.frame = session.Buf{}
	e.tx, e.sub, e.target = nil, nil, ackTarget{slot: -1}
	e.done = true
	l.done++
}

// of yields the entries of a transaction that are not settled, from its BEGIN to its COMMIT or ABORT, if that was said.
func (l *journal) of(t *transaction) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for i := int(t.first - l.base); i < len(l.entries); i++ {
			e := &l.entries[i]
			if e.tx != t || e.done {
				continue
			}
			last := e.effect != 0
			if !yield(e) || last {
				return
			}
		}
	}
}

// release lets the SENDs of a transaction go that became too large to keep. One whose receipt is owed stays until that is answered.
func (l *journal) release(t *transaction) {
	l.open -= t.size
	t.size, t.unplayable = 0, true
	for e := range l.of(t) {
		if e.kind == sendEntry && !e.wants && e.sent {
			l.settle(e)
		}
	}
}

// free makes an effect of its own of a frame that was part of a transaction.
func (l *journal) free(e *entry, effect uint64) {
	e.tx, e.effect = nil, effect
	l.size += entryCost + e.frame.Len()
	l.live++
}

// compact drops settled entries, at the head at once, further back when they are the majority: an open transaction at the head must
// not make the log grow without bound. What it costs is paid for by the entries that were settled since: the head is remembered, and never
// fewer are dropped than moved.
func (l *journal) compact() {
	for l.head < len(l.entries) && l.entries[l.head].done {
		l.head++
	}
	l.peak = max(l.peak, len(l.entries))
	switch n := l.head; {
	case n == len(l.entries):
		l.base += uint64(n) // nothing to clear: a settled entry points to nothing
		l.entries, l.done, l.head = l.entries[:0], 0, 0
	case n > 32 && n > len(l.entries)/2:
		l.base += uint64(n)
		l.done -= n
		m := copy(l.entries, l.entries[n:])
		clear(l.entries[n:])
		l.entries, l.head = l.entries[:m], 0
	case l.done > 64 && l.done > len(l.entries)/2:
		l.squeeze()
	default:
		return
	}
	l.weigh()
}

// weigh gives back memory that the log has had no use for in a while.
func (l *journal) weigh() {
	if l.drops++; l.drops < weighEvery {
		return
	}
	if l.peak < cap(l.entries)/4 {
		l.entries = append(make([]entry, 0, 2*l.peak), l.entries...)
	}
	l.drops, l.peak = 0, len(l.entries)
}

// rests is since when the log has kept memory for nothing; zero if it does not.
func (l *journal) rests() time.Time {
	if len(l.entries) > 0 || cap(l.entries) <= idleEntries {
		return time.Time{}
	}
	return l.used
}

// rest gives back the memory of a log that has been empty for a while.
func (l *journal) rest(now time.Time) {
	if since := l.rests(); !since.IsZero() && now.Sub(since) >= restful {
		l.entries, l.drops, l.peak = nil, 0, 0
	}
}

// squeeze removes settled entries from the middle. Positions change, so transactions are given theirs anew.
func (l *journal) squeeze() {
	kept := l.entries[:0]
	l.next, l.asked = l.base, l.base
	for i := range l.entries {
		if e := &l.entries[i]; !e.done {
			if e.kind == beginEntry && e.tx != nil {
				e.tx.first = l.base + uint64(len(kept))
			}
			kept = append(kept, *e)
		}
	}
	clear(l.entries[len(kept):])
	l.entries, l.done, l.head = kept, 0, 0
}

// confirm settles the effects up to cursor, oldest first, after telling each.
func (l *journal) confirm(cursor uint64, each func(*entry)) {
	i := int(max(l.next, l.base) - l.base)
	for ; i < len(l.entries); i++ {
		e := &l.entries[i]
		if e.effect > cursor {
			break
		}
		if e.effect != 0 && !e.done {
			each(e)
			l.settle(e)
		}
	}
	l.next = l.base + uint64(i)
}

// answered finds the entry whose receipt on the current connection has this number. Numbers rise along the log, and answers mostly
// come in that order.
func (l *journal) answered(receipt uint64) *entry {
	from := int(max(l.asked, l.base) - l.base)
	for i := range l.entries {
		at := (from + i) % len(l.entries)
		if e := &l.entries[at]; e.receipt == receipt && !e.done {
			l.asked = l.base + uint64(at) + 1
			return e
		}
	}
	return nil
}

func (l *journal) close() {
	for i := range l.entries {
		l.settle(&l.entries[i])
	}
	*l = journal{count: l.count}
}

// afterCommand is where the header lines of a raw frame begin.
func afterCommand(raw []byte) int { return bytes.IndexByte(raw, '\n') + 1 }
