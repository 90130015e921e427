package journal

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strconv"
	"strings"
)

const (
	pageSize       = 4 << 10
	segmentHeader  = pageSize // where the first record begins
	sectorSize     = 512
	segmentVersion = 1
	maxEpoch       = math.MaxUint32
)

// errTorn says that a header was never wholly written, or is damaged.
var errTorn = errors.New("the segment's header is unreadable")

// A header may be whole, and not one that belongs here.
var (
	errForeign = errors.New("the segment's header is another one's")
	errVersion = errors.New("the segment was written by a newer version")
)

var segmentMagic = [8]byte{'U', 'S', 'J', 'O', 'U', 'R', 'N', 'L'}

// place names a segment file: the epoch that wrote it and its number.
type place struct {
	epoch uint64
	id    Segment
}

func (p place) less(q place) int {
	return cmp.Or(cmp.Compare(p.epoch, q.epoch), cmp.Compare(p.id, q.id))
}

func (p place) name() string { return fmt.Sprintf("seg-%08d-%012x.log", p.epoch, uint64(p.id)) }

// parsePlace is the inverse of name.
func parsePlace(name string) (p place, ok bool) {
	rest, ok := strings.CutPrefix(name, "seg-")
	rest, ok2 := strings.CutSuffix(rest, ".log")
	e, s, ok3 := strings.Cut(rest, "-")
	if !ok || !ok2 || !ok3 {
		return p, false
	}
	epoch, err1 := strconv.ParseUint(e, 10, 32)
	id, err2 := strconv.ParseUint(s, 16, 64)
	p = place{epoch, Segment(id)}
	return p, err1 == nil && err2 == nil && p.name() == name
}

// sealed is a segment that will not grow any more as its successors know it. What lies behind end is no part of the log.
type sealed struct {
	place
	first, last LSN
	end         int64
}

// opening is a segment's header.
type opening struct {
	store uuid
	place
	first LSN
	prev  sealed // zero in the first segment of a store
}

// putOpening writes the header of a segment into the first page of b. All of it lies in one sector, which a disk writes whole or not at all:
//
//	 0       8      12    16      32      40     48          56           64         72         80          88              508   512
//	+-------+------+-----+-------+-------+------+-----------+------------+----------+----------+-----------+----...--------+-----+
//	| magic | ver. |  0  | store | epoch | id   | first lsn | prev epoch | prev id  | prev end | prev last | 0             | crc |
//	+-------+------+-----+-------+-------+------+-----------+------------+----------+----------+-----------+----...--------+-----+
//
// little-endian, crc = CRC32C over the 508 octets before it; zeros up to the end of the page. prev end is where the log of the previous segment
// ends: what its owner, if it was stale, wrote there later is ignored for ever.
func putOpening(b []byte, o opening) {
	clear(b[:segmentHeader])
	copy(b, segmentMagic[:])
	binary.LittleEndian.PutUint32(b[8:], segmentVersion)
	copy(b[16:32], o.store[:])
	for i, v := range []uint64{
		o.epoch, uint64(o.id), uint64(o.first), o.prev.epoch, uint64(o.prev.id), uint64(o.prev.end), uint64(o.prev.last),
	} {
		binary.LittleEndian.PutUint64(b[32+8*i:], v)
	}
	binary.LittleEndian.PutUint32(b[508:], crc32.Checksum(b[:508], castagnoli))
}

// parseOpening reads the header of the segment at p in a store from the first sector of b.
func parseOpening(b []byte, store uuid, p place) (o opening, err error) {
	if binary.LittleEndian.Uint32(b[508:]) != crc32.Checksum(b[:508], castagnoli) {
		return o, errTorn
	}
	if [8]byte(b[:8]) != segmentMagic {
		return o, errTorn
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != segmentVersion {
		return o, fmt.Errorf("%w: format version %d, this program reads %d", errVersion, v, segmentVersion)
	}
	v := func(i int) uint64 { return binary.LittleEndian.Uint64(b[32+8*i:]) }
	o = opening{store: uuid(b[16:32]), place: place{v(0), Segment(v(1))}, first: LSN(v(2))}
	o.prev = sealed{place: place{v(3), Segment(v(4))}, end: int64(v(5)), last: LSN(v(6))}
	if o.store != store {
		return o, fmt.Errorf("%w: it belongs to store %s, this is %s", errForeign, o.store, store)
	}
	if o.place != p {
		return o, fmt.Errorf("%w: it says %s", errForeign, o.name())
	}
	return o, nil
}

const manifestEntry = 40

// appendManifest encodes the payload of a typeManifest record: for each older segment that is still needed, in LSN order, five little-endian
// words of 8 octets: epoch, id, first LSN, last LSN, end offset. It lets recovery tell a lost segment from a deleted one, and checks a segment whose
// successor is gone.
func appendManifest(buf []byte, list []sealed) []byte {
	for _, s := range list {
		for _, v := range []uint64{s.epoch, uint64(s.id), uint64(s.first), uint64(s.last), uint64(s.end)} {
			buf = binary.LittleEndian.AppendUint64(buf, v)
		}
	}
	return buf
}

// parseManifest is the inverse; it refuses lists that no writer makes.
func parseManifest(b []byte) ([]sealed, error) {
	if len(b)%manifestEntry != 0 {
		return nil, fmt.Errorf("manifest of %d octets", len(b))
	}
	list := make([]sealed, 0, len(b)/manifestEntry)
	for ; len(b) > 0; b = b[manifestEntry:] {
		v := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
		s := sealed{place{v(0), Segment(v(1))}, LSN(v(2)), LSN(v(3)), int64(v(4))}
		if s.end < segmentHeader || s.first > s.last {
			return nil, fmt.Errorf("manifest entry %d is impossible", len(list))
		}
		if n := len(list); n > 0 && (s.first <= list[n-1].last || s.id <= list[n-1].id || s.epoch < list[n-1].epoch) {
			return nil, fmt.Errorf("manifest entry %d is out of order", n)
		}
		list = append(list, s)
	}
	return list, nil
}

// appendDrop encodes the payload of a typeDrop record: segment numbers of 8 octets. A file goes only after this record is durable, so recovery never
// visits what an ending in a file that is already gone had ended.
func appendDrop(buf []byte, ids []Segment) []byte {
	for _, id := range ids {
		buf = binary.LittleEndian.AppendUint64(buf, uint64(id))
	}
	return buf
}

func parseDrop(b []byte) ([]Segment, error) {
	if len(b)%8 != 0 {
		return nil, fmt.Errorf("drop record of %d octets", len(b))
	}
	ids := make([]Segment, 0, len(b)/8)
	for ; len(b) > 0; b = b[8:] {
		ids = append(ids, Segment(binary.LittleEndian.Uint64(b)))
	}
	return ids, nil
}

func sortPlaces(list []place) { slices.SortFunc(list, place.less) }
