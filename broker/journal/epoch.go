package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

const (
	markBytes = 40
	markSlots = 2
	maxClaims = 1000 // others that may claim under our hands before we give up
)

func epochName(e uint64) string { return fmt.Sprintf("epoch-%08d", e) }

func parseEpoch(name string) (uint64, bool) {
	s, ok := strings.CutPrefix(name, "epoch-")
	e, err := strconv.ParseUint(s, 10, 32)
	return e, ok && err == nil && epochName(e) == name
}

// claim takes the epoch above all that exist (top is the highest known). Its file is durable before claim returns, hence before anything is read:
// whatever an older owner syncs later, it finds this file in the check that follows its sync, and acknowledges nothing. Two candidates cannot
// get the same epoch (O_EXCL), and since files are never deleted there is no gap that an older owner could look into.
func claim(d *disk, top uint64) (uint64, *markFile, error) {
	for range maxClaims {
		top++
		m, err := claimOne(d, top)
		if !errors.Is(err, fs.ErrExist) {
			return top, m, err
		}
	}
	return 0, nil, fmt.Errorf("claim epoch: %d others were faster", maxClaims)
}

// claimOne claims the epoch e, or returns fs.ErrExist if somebody else has.
func claimOne(d *disk, e uint64) (*markFile, error) {
	if e > maxEpoch {
		return nil, fmt.Errorf("claim epoch: %d is the last", uint64(maxEpoch))
	}
	f, err := d.create(epochName(e))
	if err != nil {
		return nil, fmt.Errorf("claim epoch %d: %w", e, err)
	}
	err = d.write(f, make([]byte, markSlots*sectorSize), 0)
	if err == nil {
		err = d.sync(f)
	}
	if err == nil {
		err = d.syncDir()
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("claim epoch %d: %w", e, err)
	}
	return &markFile{disk: d, file: f, epoch: e, next: epochName(e + 1)}, nil
}

// fenced says whether a later owner exists. It follows every sync and precedes every acknowledgement. The next epoch alone is looked for: epochs are
// claimed one after the other and never deleted.
func (m *markFile) fenced() error {
	yes, err := m.disk.exists(m.next)
	if err != nil {
		return fmt.Errorf("check epoch: %w", err)
	}
	if yes {
		return fmt.Errorf("%w: %s exists, ours is %d", ErrFenced, m.next, m.epoch)
	}
	return nil
}

// mark says how far the log was acknowledged, as of some moment.
type mark struct {
	lsn     LSN
	segment Segment
	end     int64
	epoch   uint64
}

// markFile is the epoch's own file. After each batch was synced and checked the owner notes there how far it may acknowledge. The note is not
// synced: it outlives the process, not the machine. Read at recovery it proves that everything up to it was (or might have been) acknowledged, so what is
// damaged there is no torn tail. It proves nothing about what lies beyond it, and after a power cut it may be old: then the batch before the last is
// still proved by the durable LSN in the records of the last.
type markFile struct {
	disk  *disk
	file  *file
	epoch uint64
	next  string // the file that fences us
	turn  int
	buf   [markBytes]byte
}

// put writes one of two slots in turn, each in a sector of its own, so that one is whole whatever happens. Little-endian:
//
//	 0     8         16    24      32    36    40
//	+-----+---------+-----+-------+-----+-----+
//	| lsn | segment | end | epoch | crc |  0  |
//	+-----+---------+-----+-------+-----+-----+
//
// crc = CRC32C over the 32 octets before it.
func (m *markFile) put(k mark) error {
	b := m.buf[:]
	for i, v := range []uint64{uint64(k.lsn), uint64(k.segment), uint64(k.end), m.epoch} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	binary.LittleEndian.PutUint32(b[32:], crc32.Checksum(b[:32], castagnoli))
	m.turn = (m.turn + 1) % markSlots
	return m.disk.write(m.file, b, int64(m.turn)*sectorSize)
}

// parseMark reads the newest valid slot of an epoch file.
func parseMark(b []byte, epoch uint64) (k mark) {
	for ; len(b) >= markBytes; b = b[min(len(b), sectorSize):] {
		v := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
		if binary.LittleEndian.Uint32(b[32:]) == crc32.Checksum(b[:32], castagnoli) && v(3) == epoch && LSN(v(0)) > k.lsn {
			k = mark{lsn: LSN(v(0)), segment: Segment(v(1)), end: int64(v(2)), epoch: epoch}
		}
	}
	return k
}

// lastMark is the mark of the newest epoch before ours that has one. Marks rise from epoch to epoch, for an epoch's first mark covers all that it
// recovered, so there is no need to look further.
func lastMark(d *disk, ours uint64) (mark, error) {
	for e := ours - 1; e > 0; e-- {
		if k, err := readMark(d, e); err != nil || k.lsn > 0 {
			return k, err
		}
	}
	return mark{}, nil
}

// readMark is the mark of an epoch; zero if it has none.
func readMark(d *disk, e uint64) (mark, error) {
	b, err := os.ReadFile(d.at(epochName(e)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return mark{}, fmt.Errorf("read epoch %d: %w", e, err)
	}
	return parseMark(b, e), nil
}
