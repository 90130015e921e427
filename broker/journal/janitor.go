package journal

import (
	"errors"
	"fmt"
	"slices"
)

const zeroStep = 1 << 20

// janitor is the state of the goroutine that keeps slow file work away from the commit loop. Journal.mu guards it.
type janitor struct {
	asks   []Segment
	made   map[Segment]made
	urgent bool // the commit goroutine is waiting: reserve the space and leave the zeros
	doomed []doomed
	litter []doomed
	going  int64 // octets of those that are doomed, litter or being removed, as far as they are known
	busy   bool  // removing
	stop   bool
}

// made is a file that waits for its segment to begin, or why there is none.
type made struct {
	file *file
	size int64
	err  error
}

// doomed is a segment that goes once lsn, which says so, is durable.
type doomed struct {
	lsn  LSN
	name string
	size int64
}

// bytes is what files take that are not part of the log. The journal's mu is held.
func (jan *janitor) bytes() int64 {
	sum := jan.going
	for _, m := range jan.made {
		sum += m.size
	}
	return sum
}

// ask orders the file of a segment. The caller holds mu.
func (j *Journal) ask(id Segment) {
	if _, ok := j.jan.made[id]; !ok && !slices.Contains(j.jan.asks, id) {
		j.jan.asks = append(j.jan.asks, id)
		j.chores.Signal()
	}
}

// unlinkAfter books the deletion of segments. The caller holds mu.
func (j *Journal) unlinkAfter(lsn LSN, gone []*account) {
	for _, a := range gone {
		j.jan.doomed = append(j.jan.doomed, doomed{lsn, a.name(), a.size})
		j.jan.going += a.size
	}
	j.stats.Deleted += uint64(len(gone))
	j.reading.forget(gone)
}

// release hands over to the janitor what may be unlinked now. The caller holds mu.
func (j *Journal) release(durable LSN) {
	n := 0
	for n < len(j.jan.doomed) && j.jan.doomed[n].lsn <= durable {
		j.jan.litter = append(j.jan.litter, j.jan.doomed[n])
		n++
	}
	if n > 0 {
		j.jan.doomed = append(j.jan.doomed[:0], j.jan.doomed[n:]...)
		j.chores.Signal()
	}
}

func (j *Journal) janitorLoop() {
	defer j.workers.Done()
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		switch {
		case len(j.jan.asks) > 0 && !j.jan.stop:
			id := j.jan.asks[0]
			j.mu.Unlock()
			f, err := j.prepare(id, true)
			j.mu.Lock()
			j.jan.asks = append(j.jan.asks[:0], j.jan.asks[1:]...)
			m := made{file: f, err: err}
			if err == nil {
				m.size = j.opt.SegmentBytes
			}
			j.jan.made[id] = m
			j.show()
			j.ready.Signal()
		case len(j.jan.litter) > 0:
			list := j.jan.litter
			j.jan.litter, j.jan.busy = nil, true
			j.mu.Unlock()
			err := j.unlink(list)
			j.mu.Lock()
			j.jan.busy = false
			for _, d := range list {
				j.jan.going -= d.size
			}
			j.show()
			if err != nil {
				j.setTrouble(fmt.Errorf("delete segments: %w", err))
			}
		case j.jan.stop:
			return
		default:
			j.chores.Wait()
		}
	}
}

// setTrouble ends the commit loop. The caller holds mu.
func (j *Journal) setTrouble(err error) {
	if j.trouble == nil {
		j.trouble = err
	}
	j.work.Signal()
}

// unlink removes files that the log does not need, as a durable record of it says.
func (j *Journal) unlink(list []doomed) error {
	for _, d := range list {
		if err := j.disk.remove(d.name); err != nil {
			return err
		}
	}
	return j.disk.syncDir()
}

// prepare makes the file of a segment: space reserved, zeros written where there is time, size and name durable. Overwriting zeros needs no change of
// metadata, which makes the syncs of batches cheaper; a file that never gets further holds no header and is litter to recovery.
func (j *Journal) prepare(id Segment, zeros bool) (*file, error) {
	f, err := j.disk.create(place{j.epoch, id}.name())
	if err != nil {
		return nil, err
	}
	size := j.opt.SegmentBytes
	err = j.disk.allocate(f, size)
	if err == nil && zeros {
		err = j.zero(f, size)
	}
	if err == nil {
		err = j.disk.sync(f)
	}
	if err == nil {
		err = j.disk.syncDir()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), j.disk.remove(f.name))
	}
	return f, nil
}

func (j *Journal) zero(f *file, size int64) error {
	buf := make([]byte, min(size, zeroStep))
	for off := int64(0); off < size; off += int64(len(buf)) {
		j.mu.Lock()
		skip := j.jan.urgent || j.jan.stop
		j.mu.Unlock()
		if skip {
			return nil
		}
		if err := j.disk.write(f, buf[:min(int64(len(buf)), size-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// nextFile waits for the file of a segment that begins. Only the commit goroutine calls it.
func (j *Journal) nextFile(id Segment) (*file, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ask(id)
	for {
		if m, ok := j.jan.made[id]; ok {
			delete(j.jan.made, id)
			j.jan.urgent = false
			return m.file, m.err
		}
		j.jan.urgent = true
		j.ready.Wait()
	}
}
