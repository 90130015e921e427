package journal

import "fmt"

// batch is what one write puts into one segment.
type batch struct {
	id      Segment
	seed    uint32
	off     int64 // of buf in the segment; 0 in the first batch, which holds the segment's header too
	room    int64 // in the first batch: octets that the file must have
	buf     []byte
	first   LSN
	last    LSN
	records int
	tail    int // of the last record in buf
	tailLen int // without padding
}

// Append copies e into the batch that is being filled and returns at once; Durable will say when it counts. Calls are serial: the caller holds
// its own lock, so that LSN order is the order of its decisions. The only errors are ErrTooBig, ErrFull, ErrBehind, ErrClosed and what Failed was told.
func (j *Journal) Append(e Entry) (Position, error) {
	if e.Type == 0 || e.Type >= typeManifest {
		panic(fmt.Sprintf("journal: type %d of an appended record is not in 1..127", e.Type))
	}
	if len(e.Payload) > j.opt.MaxRecord {
		return Position{}, fmt.Errorf("%w: %d octets, at most %d are allowed", ErrTooBig, len(e.Payload), j.opt.MaxRecord)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return Position{}, j.err
	}
	if err := j.stuck(); err != nil {
		return Position{}, err
	}
	var flags byte
	roll := j.mustRoll(len(e.Payload))
	if err := j.admit(&e, roll); err != nil {
		return Position{}, err
	}
	if roll {
		head, err := j.head()
		if err == nil {
			err = j.admit(&e, roll) // the file may have been thrown away meanwhile
		}
		if err != nil {
			return Position{}, err
		}
		j.roll(head)
		flags, j.cur.headEnd = flagOpens, j.cur.next
	}
	at := Position{Segment: j.cur.id, Offset: j.cur.off}
	at.LSN = j.put(e.Type, flags, e.Payload, e.Front)
	j.ledger.note(j.cur.id, len(e.Payload), e.Account)
	j.work.Signal()
	return at, nil
}

// mustRoll says whether the current segment has no room left for size octets of payload. A segment takes at least one record after its head,
// however large. Some room at the end is left for drop records: without it, dead segments would stay until somebody appends again, which with
// a full disk is for ever.
func (j *Journal) mustRoll(size int) bool {
	return j.cur.off+int64(recordSize(size)) > j.cur.limit-dropRoom && j.cur.next-1 > j.cur.headEnd
}

// head asks the caller for the head of a new segment. The lock is let go meanwhile: the caller's code must not run under it. Appends are
// serial, so only the commit goroutine can put something in between, and that still belongs to the old segment.
func (j *Journal) head() ([]Entry, error) {
	list := func() []Entry {
		j.mu.Unlock()
		defer j.mu.Lock()
		return j.opt.Head()
	}()
	if j.err != nil {
		return nil, j.err
	}
	for i, e := range list {
		if e.Type == 0 || e.Type >= typeManifest {
			panic(fmt.Sprintf("journal: type %d of a head record is not in 1..127", e.Type))
		}
		if len(e.Payload) > maxPayload {
			return nil, fmt.Errorf("%w: entry %d of the segment's head has %d octets", ErrTooBig, i, len(e.Payload))
		}
	}
	return list, nil
}

// roll seals the current segment and begins the next with its header, the manifest and the caller's head. The record that follows closes the
// opening group; all of it is one batch, and until that is whole on disk the segment was never begun.
func (j *Journal) roll(head []Entry) {
	old := j.ledger.list[len(j.ledger.list)-1]
	j.ledger.seal(j.cur.next-1, j.cur.off, j.cur.size)
	if u := j.indexed.seal(j.store, old.sealed, old.start); u != nil && len(j.jan.unwritten) < indexWaiting {
		j.jan.unwritten = append(j.jan.unwritten, u)
	}
	gone := j.ledger.dead() // the new head replaces what was in theirs, and says so by leaving them out of its manifest
	j.ledger.remove(gone)
	j.sealFill()
	j.begin(place{j.epoch, old.id + 1}, old.sealed, head)
	j.unlinkAfter(j.cur.next, gone) // the record that closes the opening group
}

// begin starts the segment at p behind prev.
func (j *Journal) begin(p place, prev sealed, head []Entry) {
	manifest := appendManifest(nil, j.ledger.manifest())
	j.ledger.begin(p, j.cur.next)
	j.cur = tip{id: p.id, seed: seed(p.id, p.epoch), next: j.cur.next}
	j.indexed.begin(j.opt.SegmentBytes / indexShare)
	b := j.newBatch(0)
	b.buf = b.buf[:segmentHeader]
	putOpening(b.buf, opening{store: j.store, place: p, first: j.cur.next, prev: prev})
	j.cur.off = segmentHeader
	j.cur.headEnd = ^LSN(0) // open: nothing closes the group yet
	j.put(typeManifest, 0, manifest, 0)
	for _, e := range head {
		j.put(e.Type, 0, e.Payload, e.Front)
		j.ledger.note(p.id, len(e.Payload), e.Account)
	}
	j.ledger.opened(j.cur.off)
	j.cur.limit = max(j.opt.SegmentBytes, 2*j.cur.off)
	j.cur.size, b.room = j.cur.limit, j.cur.limit
	j.chores.Signal() // another file is wanted
}

// put encodes a record at the tip. The durable LSN of each record is the end of the batch before its own: batches are written one after the other, so it is
// true when the record reaches the disk, and it is the strongest that can be said.
func (j *Journal) put(typ, flags byte, payload []byte, front int) LSN {
	size := recordSize(len(payload))
	b := j.fill
	if b != nil && len(b.buf)+size > maxBatch && j.cur.headEnd < j.cur.next {
		j.sealFill()
		b = nil
	}
	if b == nil {
		b = j.newBatch(j.cur.off)
	}
	b.tail, b.tailLen = len(b.buf), recordHeader+len(payload)
	lsn := j.cur.next
	b.grow(size)
	b.buf = appendRecord(b.buf, b.seed, head{typ: typ, flags: flags, epoch: j.epoch, lsn: lsn, durable: b.first - 1}, payload)
	b.last = lsn
	b.records++
	j.indexed.add(typ, payload, front)
	j.cur.next++
	j.cur.off += int64(size)
	j.pending.Add(int64(size))
	return lsn
}

func (j *Journal) newBatch(off int64) *batch {
	var b *batch
	if n := len(j.free); n > 0 {
		b, j.free = j.free[n-1], j.free[:n-1]
	} else {
		b = &batch{buf: make([]byte, 0, firstBatch)}
	}
	*b = batch{id: j.cur.id, seed: j.cur.seed, off: off, buf: b.buf[:0], first: j.cur.next}
	j.fill = b
	return b
}

func (j *Journal) sealFill() {
	if j.fill != nil {
		j.full = append(j.full, j.fill)
		j.fill = nil
	}
}

// grow makes room for size octets more, up to the size of the largest batch, beyond which a buffer is not kept. It begins small: to get the memory of a
// large one takes milliseconds, of which the first batch of a take-over has none to spare, and a store without much to do never needs it.
func (b *batch) grow(size int) {
	if n := len(b.buf) + size; n > cap(b.buf) && n <= maxBatch {
		b.buf = append(make([]byte, 0, min(max(4*cap(b.buf), n), maxBatch)), b.buf...)
	}
}

// recycle keeps two buffers: one is written while the other fills.
func (j *Journal) recycle(b *batch) {
	if len(j.free) < 2 && cap(b.buf) <= maxBatch {
		j.free = append(j.free, b)
	}
}

// finish marks the last record, once nothing can be added.
func (b *batch) finish() {
	setFlags(b.buf[b.tail:b.tail+b.tailLen], b.seed, flagBatchEnd)
}
