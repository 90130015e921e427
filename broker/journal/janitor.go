package journal

import "fmt"

// janitor is the state of the goroutine that keeps slow file work away from the commit loop. Journal.mu guards it.
type janitor struct {
	pool
	unwritten []*unwritten // indexes, in order
	doomed    []doomed
	litter    []doomed
	going     int64 // octets of those that are doomed, litter or being removed, as far as they are known
	busy      bool  // removing
	stop      bool
}

// doomed is a segment that goes once lsn, which says so, is durable.
type doomed struct {
	lsn  LSN
	name string
	size int64
}

// bytes is what files take that are no part of the log. The caller holds mu.
func (j *Journal) otherBytes() int64 {
	sum := j.jan.going
	for _, s := range j.jan.spares {
		if s.id > j.cur.id {
			sum += s.size
		}
	}
	return sum
}

// unlinkAfter books the deletion of segments. The caller holds mu.
func (j *Journal) unlinkAfter(lsn LSN, gone []*account) {
	for _, a := range gone {
		j.jan.doomed = append(j.jan.doomed, doomed{lsn, a.name(), a.size})
		if a.index > 0 {
			j.jan.doomed = append(j.jan.doomed, doomed{lsn: lsn, name: a.indexName(), size: a.index})
		}
		j.jan.going += a.files()
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
	zeros := make([]byte, min(j.opt.SegmentBytes, zeroStep))
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		id, grow := j.missing()
		wanted := (id != 0 || grow != nil) && !j.jan.hold && !j.jan.stop
		dull := j.dull()
		switch {
		case wanted && (j.jan.urgent || j.jan.short):
			j.provide(id, grow)
		case j.jan.short && j.hasSpare():
			j.jan.short = false
			j.mu.Unlock()
			j.opt.Space(false)
			j.mu.Lock()
		case len(j.jan.litter) > 0 && (j.jan.stop || j.jan.full || !j.resting()):
			j.sweep()
		case j.jan.stop:
			return
		case j.jan.told != j.jan.full:
			full := j.jan.full
			j.jan.told = full
			j.mu.Unlock()
			j.opt.Metrics.full(full)
			j.opt.Space(full)
			j.mu.Lock()
		case wanted:
			j.provide(id, grow)
		case len(j.jan.unwritten) > 0 && j.jan.unwritten[0].last <= LSN(j.durable.Load()):
			j.writeIndex()
		case dull != nil:
			j.fillIn(dull, zeros)
		default:
			j.chores.Wait()
			continue
		}
		j.show()
	}
}

// sweep removes files that the log does not need, as a durable record of it says. The caller holds mu, which is let go meanwhile.
func (j *Journal) sweep() {
	list := j.jan.litter
	j.jan.litter, j.jan.busy = nil, true
	j.mu.Unlock()
	var err error
	for _, d := range list {
		if err = j.disk.remove(d.name); err != nil {
			break
		}
	}
	if err == nil {
		if err = j.disk.syncDir(); isCrowded(err) {
			err = nil // what is gone may come back by a power cut until the next sync, and recovery knows that it is not needed
		}
	}
	j.mu.Lock()
	j.jan.busy = false
	for _, d := range list {
		j.jan.going -= d.size
	}
	if err != nil {
		j.setTrouble(fmt.Errorf("delete segments: %w", err))
	}
	j.again() // there is space now
}

// setTrouble ends the commit loop. The caller holds mu.
func (j *Journal) setTrouble(err error) {
	if j.trouble == nil {
		j.trouble = err
	}
	j.work.Signal()
	j.ready.Signal()
}
