package journal

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// Files of segments are made ahead of time, two of them: their space is reserved, their size and names are durable, and zeros are written into them
// in the background, since to overwrite zeros needs no change of metadata and makes the syncs of batches cheaper. A file that never gets
// further holds no header and is litter to recovery.
//
// They are also the reserve for a full disk. ENOSPC can come up only here, where a file is made that holds nothing yet, and so it is not final: the file is
// thrown away and made again later, under the same name but as another inode. That is right even if it was the sync of that file which failed. What the
// kernel forgets after a failed sync are pages of the inode that failed; nobody will ever read them. A failed sync of the directory is final, whatever
// its error: it might have been about another file's name. Elsewhere, where a record might be hit, every error is final.
//
// While a file cannot be made the journal is full. Append then takes records that bring something live only as long as the current segment has
// room and there is another one behind it, and all others as long as there is a segment for them: acknowledgements and moves, which free space. When that is used up as
// well it takes nothing, and waits.
//
// Append is never ahead of the files. A record for which a segment would have to begin that has none could not be refused any more once the disk turns out to be
// full, and all behind it would wait with it, acknowledgements included. And whoever fills segments faster than they are made must not have used up the
// reserve when that is found out: without a file behind it, the second half of the current segment is for what frees space. Both are told ErrBehind, and
// Space when there is a file.

const (
	spareSegments = 2
	smallRoom     = 64 << 10 // behind the head of a first segment, when there is no space for a whole one
	zeroStep      = 1 << 20
	zeroPause     = 4 * time.Millisecond   // between steps, which are synced: batches want the disk too
	restFor       = 500 * time.Millisecond // after a take-over
	fullRetry     = 500 * time.Millisecond // and at once when something was removed
	reserveShare  = 2                      // of a segment with no file behind it, the part, as 1/n, that is for what frees space
)

// spare is a file that waits for its segment to begin.
type spare struct {
	id    Segment
	file  *file
	size  int64
	zeros int64 // written so far
	busy  bool  // the janitor writes zeros
}

// pool is the part of the janitor that makes files. Journal.mu guards it.
type pool struct {
	spares  []*spare    // of consecutive segments
	claimed Segment     // the last one whose file was handed out
	urgent  bool        // the commit goroutine waits for the first of them
	need    int64       // and it must have this many octets
	short   bool        // a record was refused for want of a file, of which it is not known that it cannot be made
	hold    bool        // there was no space a moment ago
	full    bool        // there was none, and something is missing yet
	rest    *time.Timer // ends the rest after a take-over
	rested  bool        // it has ended
	told    bool        // what Options.Space knows
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// isCrowded says that the process or the machine has too many files open. Only an attempt to open one says so, and before it changes anything.
func isCrowded(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// passes says whether a file may be made in a while that cannot be made now.
func passes(err error) bool { return isFull(err) || isCrowded(err) }

// missing says what to make: the next spare, or more room in the first.
func (j *Journal) missing() (id Segment, grow *spare) {
	p := &j.jan.pool
	if !p.urgent && !p.short && j.resting() {
		return 0, nil
	}
	if len(p.spares) > 0 && p.spares[0].size < p.need {
		return 0, p.spares[0]
	}
	if id = p.claimed + Segment(len(p.spares)) + 1; id <= j.cur.id+spareSegments {
		return id, nil
	}
	return 0, nil
}

// resting says whether it is too early to make files ahead of time, or to remove any. Who takes over has clients that wait, and the sync of a new file and its name is one that
// their first batches would wait for: with it, they were silent for twice as long. The caller holds mu.
func (j *Journal) resting() bool {
	p := &j.jan.pool
	if j.opt.Follow && p.rest == nil {
		p.rest = time.AfterFunc(restFor, func() {
			j.mu.Lock()
			defer j.mu.Unlock()
			p.rested = true
			j.chores.Signal()
		})
	}
	return j.opt.Follow && !p.rested
}

// hasSpare says whether the segment behind the current one has a file.
func (j *Journal) hasSpare() bool {
	return j.jan.claimed+Segment(len(j.jan.spares)) > j.cur.id
}

// admit says whether a record may be appended, for which another segment has to begin or not. Where the current segment is all that there is, its room
// is the reserve, and for what brings nothing: a move that ran out of it half-way would have freed nothing. The caller holds mu.
func (j *Journal) admit(e *Entry, roll bool) error {
	p := &j.jan.pool
	brings, spare := e.Live > 0, j.hasSpare()
	switch {
	case p.full && (brings && (!spare || roll && !e.Reserve) || roll && !spare):
		return fmt.Errorf("%w: there is no space for another segment of %d octets in %s", ErrFull, j.opt.SegmentBytes, j.disk.path)
	case p.full || spare:
		return nil
	case roll || brings && !e.Reserve && j.cur.off+int64(recordSize(len(e.Payload))) > j.cur.limit/reserveShare:
		p.short = true
		j.chores.Signal()
		return ErrBehind
	}
	return nil
}

// stuck says whether what was appended already waits for space.
func (j *Journal) stuck() error {
	if p := &j.jan.pool; p.full && p.urgent && (len(p.spares) == 0 || p.spares[0].size < p.need) {
		return fmt.Errorf("%w: what was appended before waits for a segment of %d octets in %s", ErrFull, max(j.opt.SegmentBytes, j.jan.need), j.disk.path)
	}
	return nil
}

// provide makes what is missing. The caller holds mu, which is let go meanwhile.
func (j *Journal) provide(id Segment, grow *spare) {
	p := &j.jan.pool
	size := max(j.opt.SegmentBytes, p.need)
	j.mu.Unlock()
	var made *spare
	var err error
	if grow != nil {
		_, err = j.extend(grow.file, grow.size, size)
	} else {
		made, err = j.reserve(id, j.opt.SegmentBytes)
	}
	j.mu.Lock()
	switch {
	case err == nil && grow != nil:
		grow.size = size
	case err == nil:
		p.spares = append(p.spares, made)
	case passes(err) && !errors.Is(err, errFinal):
		j.lacking(err)
		return
	default:
		j.setTrouble(fmt.Errorf("prepare segment: %w", err))
		p.hold = true // for good: the journal has failed
		return
	}
	j.ready.Signal()
	if id, grow := j.missing(); p.full && id == 0 && grow == nil {
		p.full = false
		j.log.Info("files for new segments can be made again")
	}
}

// lacking notes that the disk is full, or that too many files are open, which is no different to whoever waits for one. The caller holds mu.
func (j *Journal) lacking(err error) {
	p := &j.jan.pool
	p.hold, p.short = true, false // Space will say when it is over
	time.AfterFunc(fullRetry, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.again()
	})
	if !p.full {
		p.full = true
		why := "the disk is full"
		if isCrowded(err) {
			why = "too many files are open"
		}
		j.log.Warn(why+": what brings new messages is refused once the current segment is full; the rest may use what is prepared",
			"prepared", len(p.spares), "err", err)
	}
	j.ready.Signal()
}

// again lets the janitor try once more. The caller holds mu.
func (j *Journal) again() {
	if j.jan.hold && j.trouble == nil {
		j.jan.hold = false
		j.chores.Signal()
	}
}

// errFinal marks what must not be tried again, whatever the reason.
var errFinal = errors.New("cannot go on with the store's directory")

// reserve makes a file with space for a segment.
func (j *Journal) reserve(id Segment, size int64) (*spare, error) {
	f, err := j.disk.create(place{j.epoch, id}.name())
	if err != nil {
		return nil, err
	}
	s := &spare{id: id, file: f, size: size}
	if s.zeros, err = j.extend(f, 0, size); err == nil {
		if err = j.disk.syncDir(); err != nil && !isCrowded(err) {
			err = fmt.Errorf("%w: %w", errFinal, err)
		}
	}
	if err == nil {
		return s, nil
	}
	if err2 := errors.Join(f.Close(), j.disk.remove(f.name)); err2 != nil {
		err = fmt.Errorf("%w: %w: %w", errFinal, err, err2)
	}
	return nil, err
}

// extend gives a file that holds nothing yet the space from one offset up to another, durably. Where the file system cannot reserve it, zeros do. It
// returns how far there are zeros then.
func (j *Journal) extend(f *file, from, to int64) (zeros int64, err error) {
	ok, err := j.disk.allocate(f, to)
	if err != nil {
		return 0, err
	}
	if !ok {
		zeros = to
		b := make([]byte, min(to, zeroStep))
		for off := from; off < to; off += zeroStep {
			if err := j.disk.write(f, b[:min(zeroStep, to-off)], off); err != nil {
				return 0, err
			}
		}
	}
	return zeros, j.disk.sync(f)
}

// dull is the first spare that lacks zeros, and is not about to be used.
func (j *Journal) dull() *spare {
	i := slices.IndexFunc(j.jan.spares, func(s *spare) bool { return s.zeros < s.size && s.id > j.cur.id })
	if i < 0 {
		return nil
	}
	return j.jan.spares[i]
}

// fillIn writes the next few zeros. The caller holds mu, which is let go meanwhile.
func (j *Journal) fillIn(s *spare, zeros []byte) {
	zeros = zeros[:min(int64(len(zeros)), s.size-s.zeros)]
	s.busy = true
	j.mu.Unlock()
	done := s.zeros + int64(len(zeros))
	err := j.disk.write(s.file, zeros, s.zeros)
	if isFull(err) { // it takes new space to overwrite: then zeros are of no use, and none were written
		done, err = s.size, nil
	}
	if err == nil {
		err = j.disk.sync(s.file)
	}
	j.mu.Lock()
	s.busy = false
	switch {
	case err == nil:
		s.zeros = done
	case isFull(err):
		j.discard(s, err)
	default:
		j.setTrouble(fmt.Errorf("prepare segment: %w", err))
		s.zeros = s.size
	}
	j.ready.Signal()
	if pause := s.zeros < s.size && !j.jan.urgent && !j.jan.stop; pause {
		j.mu.Unlock()
		time.Sleep(zeroPause)
		j.mu.Lock()
	}
}

// discard throws a spare away, and those behind it, for their numbers are consecutive. The caller holds mu.
func (j *Journal) discard(s *spare, why error) {
	p := &j.jan.pool
	i := slices.Index(p.spares, s)
	gone := slices.Clone(p.spares[i:])
	p.spares = p.spares[:i]
	j.lacking(why)
	j.mu.Unlock()
	err := closeAndRemove(j.disk, gone)
	j.mu.Lock()
	if err != nil {
		j.setTrouble(fmt.Errorf("prepare segment: %w", err))
	}
}

func closeAndRemove(d *disk, spares []*spare) (err error) {
	for _, s := range spares {
		err = errors.Join(err, s.file.Close(), d.remove(s.file.name))
	}
	return err
}

// nextFile waits for the file of a segment that begins, with at least size octets. Only the commit goroutine calls it.
func (j *Journal) nextFile(id Segment, size int64) (*file, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := &j.jan.pool
	p.need = size
	defer func() { p.urgent, p.need = false, 0 }()
	for {
		if len(p.spares) > 0 && !p.spares[0].busy && p.spares[0].size >= size {
			s := p.spares[0]
			if s.id != id {
				return nil, fmt.Errorf("segment %d is to begin, but %d is prepared", id, s.id)
			}
			p.spares, p.claimed = append(p.spares[:0], p.spares[1:]...), id
			j.chores.Signal()
			return s.file, nil
		}
		switch {
		case j.trouble != nil:
			return nil, j.trouble
		case j.closed && p.full:
			return nil, fmt.Errorf("%w: closed before there was space for what was appended", ErrFull)
		}
		p.urgent = true
		j.chores.Signal()
		j.ready.Wait()
	}
}
