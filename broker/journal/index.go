package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strings"
)

// An index tells what recovery needs of a sealed segment: its records without what is behind their fronts. It is derived: made of what was appended,
// written beside the segment when that is durable, never synced. Recovery takes it for the segment if it is whole and names the segment's very end, as the
// list of segments has it, and reads the segment itself otherwise. So an index can be missing, torn or deleted at any time. What is in a
// segment up to a given end never changes, and only its own writer makes its index, once; so an index that is whole and agrees is right. (A repair, which
// does change segments, deletes it first.) What it does not show is damage behind the fronts: that is found when the record is read.

const (
	indexVersion = 1
	indexHeader  = 88
	indexShare   = 4        // an index that would take more than this part of its segment, as 1/n, is not worth its memory
	indexChunk   = 64 << 10 // in which it is collected
	indexSpare   = 16       // chunks that are kept for reuse
	indexWaiting = 2        // indexes that wait for the janitor; more are given up
	maxIndex     = maxPayload
)

var indexMagic = [8]byte{'U', 'S', 'J', 'I', 'N', 'D', 'E', 'X'}

var errNoIndex = errors.New("there is no usable index")

func (p place) indexName() string { return strings.TrimSuffix(p.name(), ".log") + ".idx" }

// parseIndexName is the inverse of indexName.
func parseIndexName(name string) (place, bool) {
	base, ok := strings.CutSuffix(name, ".idx")
	p, ok2 := parsePlace(base + ".log")
	return p, ok && ok2
}

// indexed collects the index of the segment that is appended to. Journal.mu guards it.
type indexed struct {
	chunks [][]byte
	size   int64
	limit  int64
	over   bool     // it would be too large
	free   [][]byte // for reuse
}

func (x *indexed) begin(limit int64) {
	x.drop(x.chunks)
	x.chunks, x.size, x.limit, x.over = nil, 0, limit, false
}

// drop takes chunks back, a few of them.
func (x *indexed) drop(chunks [][]byte) {
	for _, c := range chunks {
		if len(x.free) < indexSpare {
			x.free = append(x.free, c[:0])
		}
	}
}

// add books a record. Only as much of its payload is kept as recovery needs: front octets, or all of it if that is 0.
func (x *indexed) add(typ byte, payload []byte, front int) {
	if front <= 0 || front > len(payload) {
		front = len(payload)
	}
	if typ >= typeManifest {
		front = 0
	}
	need := 1 + 2*binary.MaxVarintLen32 + front
	if x.over = x.over || x.size+int64(need) > x.limit; x.over {
		x.drop(x.chunks)
		x.chunks = nil
		return
	}
	n := len(x.chunks)
	if n == 0 || cap(x.chunks[n-1])-len(x.chunks[n-1]) < need {
		x.chunks = append(x.chunks, x.chunk(need))
		n++
	}
	c := x.chunks[n-1]
	before := len(c)
	c = append(c, typ)
	c = binary.AppendUvarint(c, uint64(len(payload)))
	c = binary.AppendUvarint(c, uint64(front))
	c = append(c, payload[:front]...)
	x.chunks[n-1] = c
	x.size += int64(len(c) - before)
}

func (x *indexed) chunk(need int) []byte {
	if n := len(x.free); n > 0 && need <= cap(x.free[n-1]) {
		c := x.free[n-1]
		x.free = x.free[:n-1]
		return c
	}
	return make([]byte, 0, max(need, indexChunk))
}

// seal hands over what was collected, or nothing if it is too large.
func (x *indexed) seal(store uuid, s sealed, start int64) *unwritten {
	u := &unwritten{sealed: s, chunks: x.chunks}
	if x.chunks = nil; x.over {
		return nil
	}
	u.head = indexHead(store, s, start, u.chunks)
	return u
}

// unwritten is an index that has no file yet.
type unwritten struct {
	sealed
	head   []byte
	chunks [][]byte
}

func (u *unwritten) size() int64 {
	n := int64(len(u.head))
	for _, c := range u.chunks {
		n += int64(len(c))
	}
	return n
}

// indexHead is the beginning of an index file. Little-endian:
//
//	 0       8     12     16      32      40   48       56      64     72      80        88
//	+-------+-----+------+-------+-------+----+--------+-------+------+-------+---------+------------------------------------+
//	| magic | crc | ver. | store | epoch | id | first  | last  | end  | start | octets  | records: type, size, front, octets |
//	+-------+-----+------+-------+-------+----+--------+-------+------+-------+---------+------------------------------------+
//
// crc is CRC32C, seeded as the segment's, over all that follows it. first and last are LSNs; end and start are offsets in the segment: of the end of
// its log, and of the first record behind its head; octets is the size of what follows. There is an entry for each record, the journal's own included, so
// that LSNs and offsets follow from their order: type of one octet, size of the payload and of its front as uvarints, then the front.
func indexHead(store uuid, s sealed, start int64, chunks [][]byte) []byte {
	b := make([]byte, indexHeader)
	copy(b, indexMagic[:])
	binary.LittleEndian.PutUint32(b[12:], indexVersion)
	copy(b[16:], store[:])
	octets := 0
	for _, c := range chunks {
		octets += len(c)
	}
	for i, v := range []uint64{s.epoch, uint64(s.id), uint64(s.first), uint64(s.last), uint64(s.end), uint64(start), uint64(octets)} {
		binary.LittleEndian.PutUint64(b[32+8*i:], v)
	}
	crc := crc32.Update(seed(s.id, s.epoch), castagnoli, b[12:])
	for _, c := range chunks {
		crc = crc32.Update(crc, castagnoli, c)
	}
	binary.LittleEndian.PutUint32(b[8:], crc)
	return b
}

// index is an index that is whole and belongs to its segment.
type index struct {
	sealed
	start   int64
	entries []byte
}

// parseIndex reads the index of a sealed segment of a store. That it agrees with the segment's end is checked to the last octet before anybody is
// told of a record.
func parseIndex(b []byte, store uuid, s sealed) (*index, error) {
	if len(b) < indexHeader || [8]byte(b) != indexMagic {
		return nil, fmt.Errorf("%w: it was never wholly written", errNoIndex)
	}
	v := func(i int) uint64 { return binary.LittleEndian.Uint64(b[32+8*i:]) }
	x := &index{sealed: sealed{place{v(0), Segment(v(1))}, LSN(v(2)), LSN(v(3)), int64(v(4))}, start: int64(v(5)), entries: b[indexHeader:]}
	switch {
	case binary.LittleEndian.Uint32(b[8:]) != crc32.Update(seed(s.id, s.epoch), castagnoli, b[12:]):
		return nil, fmt.Errorf("%w: its checksum is wrong", errNoIndex)
	case binary.LittleEndian.Uint32(b[12:]) != indexVersion:
		return nil, fmt.Errorf("%w: it is of another version", errNoIndex)
	case uuid(b[16:32]) != store || x.sealed != s || v(6) != uint64(len(x.entries)):
		return nil, fmt.Errorf("%w: it is about something else", errNoIndex)
	}
	off, next := int64(segmentHeader), s.first
	started := x.start == s.end
	for rest := x.entries; len(rest) > 0; next++ {
		e, after, ok := cutEntry(rest)
		if !ok {
			return nil, fmt.Errorf("%w: record %d cannot be read", errNoIndex, next)
		}
		started = started || off == x.start
		off += int64(recordSize(e.size))
		rest = after
	}
	if off != s.end || next != s.last+1 || !started {
		return nil, fmt.Errorf("%w: it has records up to %d at %d, the segment up to %d at %d", errNoIndex, next-1, off, s.last, s.end)
	}
	return x, nil
}

// entry is one record in an index.
type entry struct {
	typ   byte
	size  int
	front []byte
}

func cutEntry(b []byte) (e entry, rest []byte, ok bool) {
	e.typ = b[0]
	size, n := binary.Uvarint(b[1:])
	if n <= 0 || size > maxPayload || e.typ == 0 {
		return e, nil, false
	}
	b = b[1+n:]
	front, n := binary.Uvarint(b)
	if n <= 0 || front > size || front > uint64(len(b)-n) {
		return e, nil, false
	}
	e.size, e.front = int(size), b[n:n+int(front):n+int(front)]
	return e, b[n+int(front):], true
}

// each visits the caller's records, in LSN order, with no more of their payloads than their fronts.
func (x *index) each(visit func(Record) error) error {
	at := Position{LSN: x.first, Segment: x.id, Offset: segmentHeader}
	for rest := x.entries; len(rest) > 0; at.LSN++ {
		var e entry
		e, rest, _ = cutEntry(rest)
		if e.typ < typeManifest {
			if err := visit(Record{Position: at, Epoch: x.epoch, Type: e.typ, Size: e.size, Payload: e.front}); err != nil {
				return err
			}
		}
		at.Offset += int64(recordSize(e.size))
	}
	return nil
}

// loadIndex reads the index of a sealed segment, if there is a usable one: errNoIndex otherwise. Any other error is the disk's. What it returns is valid
// until buf is used again.
func loadIndex(d *disk, store uuid, s sealed, buf *bytes.Buffer) (*index, error) {
	f, err := d.open(s.indexName())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is none", errNoIndex)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := st.Size()
	if size < indexHeader || size > min(maxIndex, indexHeader+s.end) {
		return nil, fmt.Errorf("%w: its size of %d octets is impossible", errNoIndex, size)
	}
	buf.Reset()
	buf.Grow(int(size))
	if n, err := io.Copy(buf, io.LimitReader(f, size)); err != nil || n < size {
		return nil, fmt.Errorf("%w: it cannot be read: %w", errNoIndex, err)
	}
	return parseIndex(buf.Bytes(), store, s)
}

// byIndex visits the records of a sealed segment as its index has them. done is false if there is none that can be used: nothing was visited then.
func (r *recovery) byIndex(s sealed, size int64) (done bool, err error) {
	if !r.indexes[s.place] {
		return false, nil
	}
	x, err := loadIndex(r.disk, r.store, s, &r.indexBuf)
	if err != nil {
		r.log.Warn("a segment's index is of no use: the segment is read", "segment", s.name(), "err", err)
		return false, nil
	}
	r.ledger.opened(x.start)
	err = x.each(func(rec Record) error { return r.told(s, rec) })
	if err != nil {
		return false, err
	}
	r.viaIndex++
	r.ledger.seal(s.last, s.end, size)
	return true, nil
}

// writeIndex makes the file of an index, unless its segment is gone by now, or the disk is full. The caller holds mu, which is let go meanwhile.
func (j *Journal) writeIndex() {
	u := j.jan.unwritten[0]
	j.jan.unwritten = append(j.jan.unwritten[:0], j.jan.unwritten[1:]...)
	if j.ledger.find(u.id) == nil || j.jan.full {
		j.indexed.drop(u.chunks)
		return
	}
	j.jan.busy = true
	j.mu.Unlock()
	err := j.putIndex(u)
	j.mu.Lock()
	j.jan.busy = false
	j.indexed.drop(u.chunks)
	a := j.ledger.find(u.id)
	switch {
	case err != nil && !passes(err):
		j.setTrouble(fmt.Errorf("write index: %w", err))
	case err != nil || a == nil:
		j.jan.litter = append(j.jan.litter, doomed{name: u.indexName()})
	default:
		a.index = u.size()
	}
}

func (j *Journal) putIndex(u *unwritten) error {
	f, err := j.disk.create(u.indexName())
	if err != nil {
		return err
	}
	defer f.Close()
	if err := j.disk.write(f, u.head, 0); err != nil {
		return err
	}
	off := int64(len(u.head))
	for _, c := range u.chunks {
		if err := j.disk.write(f, c, off); err != nil {
			return err
		}
		off += int64(len(c))
	}
	return nil
}
