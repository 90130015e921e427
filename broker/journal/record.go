package journal

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

const (
	recordHeader  = 32
	recordVersion = 1
	maxPayload    = 256 << 20
)

// Flags of a record.
const (
	flagBatchEnd = 1 << iota // last record of a write
	flagOpens                // last record of a segment's opening group: without it the segment was never begun
)

// Types of the journal's own records. Those of the caller are 1..127.
const (
	typeManifest = 0x80 // first in each segment: every older segment that is still needed, and where it ends
	typeDrop     = 0x81 // segments that are not needed any more
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// head is the header of a record.
type head struct {
	size    int // octets of payload
	typ     byte
	flags   byte
	epoch   uint64
	lsn     LSN
	durable LSN // everything up to here was synced, and its epoch checked, before this record was written
}

// seed starts the checksum of every record of a segment. CRC32C is a bijection of its start value for given octets, so octets that are valid in one
// segment are invalid in each other whose seed differs: what a disk or a stale owner brings back from elsewhere does not pass.
func seed(id Segment, epoch uint64) uint32 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[0:], uint64(id))
	binary.LittleEndian.PutUint64(b[8:], epoch)
	return crc32.Checksum(b[:], castagnoli)
}

// recordSize is what a record with size octets of payload takes in a segment.
func recordSize(size int) int { return (recordHeader + size + 7) &^ 7 }

// appendRecord adds a record to buf, whose length is a multiple of 8. Little-endian:
//
//	 0      4      8      9      10     12     16           24           32
//	+------+------+------+------+------+------+------------+------------+---------+-------------+
//	| crc  | size | type | flags| ver. | epoch| lsn        | durable    | payload | 0 to 7 zero |
//	+------+------+------+------+------+------+------------+------------+---------+-------------+
//
// crc is CRC32C, seeded, over octets 4 to 32+size. A header of zeros is where nothing was written.
func appendRecord(buf []byte, seed uint32, h head, payload []byte) []byte {
	at := len(buf)
	buf = append(buf, make([]byte, recordHeader)...)
	b := buf[at:]
	binary.LittleEndian.PutUint32(b[4:], uint32(len(payload)))
	b[8], b[9] = h.typ, h.flags
	binary.LittleEndian.PutUint16(b[10:], recordVersion)
	binary.LittleEndian.PutUint32(b[12:], uint32(h.epoch))
	binary.LittleEndian.PutUint64(b[16:], uint64(h.lsn))
	binary.LittleEndian.PutUint64(b[24:], uint64(h.durable))
	buf = append(buf, payload...)
	sum(buf[at:], seed)
	for len(buf)%8 != 0 {
		buf = append(buf, 0)
	}
	return buf
}

// setFlags changes the flags of the record that rec holds, without padding.
func setFlags(rec []byte, seed uint32, flags byte) {
	rec[9] |= flags
	sum(rec, seed)
}

func sum(rec []byte, seed uint32) {
	binary.LittleEndian.PutUint32(rec, crc32.Update(seed, castagnoli, rec[4:]))
}

// parseHead reads a header from the first 32 octets of b and says whether a writer of epoch could have written it. The checksum is not looked at.
func parseHead(b []byte, epoch uint64) (h head, ok bool) {
	size := binary.LittleEndian.Uint32(b[4:])
	h = head{
		size: int(size), typ: b[8], flags: b[9],
		epoch:   uint64(binary.LittleEndian.Uint32(b[12:])),
		lsn:     LSN(binary.LittleEndian.Uint64(b[16:])),
		durable: LSN(binary.LittleEndian.Uint64(b[24:])),
	}
	ok = size <= maxPayload && h.typ != 0 && h.epoch == epoch && h.lsn > h.durable && binary.LittleEndian.Uint16(b[10:]) == recordVersion
	return h, ok
}

// checkSum verifies rec: a header and its payload, without padding.
func checkSum(rec []byte, seed uint32) bool {
	return binary.LittleEndian.Uint32(rec) == crc32.Update(seed, castagnoli, rec[4:])
}

// allZero says whether b holds nothing but zeros.
func allZero(b []byte) bool {
	for ; len(b) > len(zeroPage); b = b[len(zeroPage):] {
		if !bytes.Equal(b[:len(zeroPage)], zeroPage[:]) {
			return false
		}
	}
	return bytes.Equal(b, zeroPage[:len(b)])
}

var zeroPage [pageSize]byte
