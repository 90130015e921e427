package journal

import (
	"fmt"
	"time"
)

// commitLoop writes batches, one at a time, until the journal is closed or cannot go on. Whatever ends it early is final: after a failed sync the kernel
// may drop what it could not write and call the next sync a success, so nothing is ever tried again.
func (j *Journal) commitLoop() {
	err := j.commitAll()
	if err != nil {
		j.stopBeat()
		j.mu.Lock()
		j.err = err
		j.fill, j.full, j.free = nil, nil, nil
		j.mu.Unlock()
	}
	close(j.down)
	if err != nil {
		j.opt.Failed(err)
	}
}

func (j *Journal) commitAll() error {
	for {
		b, err := j.take()
		if err == nil && b == nil {
			return nil
		}
		var took time.Duration
		if err == nil {
			took, err = j.commit(b)
		}
		if err != nil {
			return fmt.Errorf("store %s, epoch %d: %w", j.store, j.epoch, err)
		}
		j.mu.Lock()
		j.pace.observe(took, b.records, j.behind())
		j.mu.Unlock()
		j.opt.Durable(b.last)
		j.mu.Lock()
		j.settle(b)
		j.mu.Unlock()
	}
}

// take waits for a batch. What is appended while the previous one syncs becomes the next: that is the group commit.
func (j *Journal) take() (*batch, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		switch {
		case j.trouble != nil:
			return nil, j.trouble
		case len(j.full) > 0:
			b := j.full[0]
			j.full = append(j.full[:0], j.full[1:]...)
			return b, nil
		case j.fill != nil:
			if j.linger(); len(j.full) > 0 || j.fill == nil || j.trouble != nil {
				continue
			}
			b := j.fill
			j.fill = nil
			return b, nil
		case j.closed:
			return nil, nil
		}
		j.work.Wait()
	}
}

// commit makes a batch durable. The order is what makes it safe: write, sync, only then look for a higher epoch, only then (in the caller)
// acknowledge. A taker creates its epoch before it reads, so either it reads what was synced here or the check finds its epoch; and any
// pause, of any length, between two of these steps changes nothing. It returns what the sync took.
func (j *Journal) commit(b *batch) (took time.Duration, err error) {
	if b.off == 0 {
		f, err := j.nextFile(b.id, max(b.room, int64(len(b.buf))))
		if err != nil {
			return 0, fmt.Errorf("begin segment: %w", err)
		}
		if j.file != nil {
			j.file.Close()
		}
		j.file = f
	}
	b.finish()
	if err := j.disk.write(j.file, b.buf, b.off); err != nil {
		return 0, fmt.Errorf("write batch: %w", err)
	}
	start := time.Now()
	if err := j.disk.sync(j.file); err != nil {
		return 0, fmt.Errorf("sync batch: %w", err)
	}
	took = time.Since(start)
	if err := j.checked.look(j.mark); err != nil {
		return 0, err
	}
	end := b.off + int64(len(b.buf))
	if err := j.mark.put(mark{lsn: b.last, segment: b.id, end: end}); err != nil {
		return 0, fmt.Errorf("write mark: %w", err)
	}
	j.durable.Store(uint64(b.last))
	size := len(b.buf)
	if b.off == 0 {
		size -= segmentHeader
	}
	j.pending.Add(-int64(size))
	j.opt.Metrics.batch(took, b.records, len(b.buf))
	return took, nil
}

// settle does what a durable batch allows: reuse its buffer, decide which segments go, remove those whose end is durable. The caller holds mu.
func (j *Journal) settle(b *batch) {
	j.stats.Batches++
	j.stats.Records += uint64(b.records)
	j.stats.Bytes += uint64(len(b.buf))
	j.recycle(b)
	j.drop()
	j.release(LSN(j.durable.Load()))
	j.show()
}

// drop records which segments are not needed any more. What does not fit waits for the manifest of the next segment, which says the same.
func (j *Journal) drop() {
	gone := j.ledger.dead()
	if len(gone) == 0 {
		return
	}
	if fit := (j.cur.limit - j.cur.off - recordHeader) / 8; int64(len(gone)) > fit {
		j.ledger.dirty = true
		if fit <= 0 {
			return
		}
		gone = gone[:fit]
	}
	ids := make([]Segment, len(gone))
	for i, a := range gone {
		ids[i] = a.id
	}
	lsn := j.put(typeDrop, 0, appendDrop(nil, ids), 0)
	j.ledger.remove(gone)
	j.unlinkAfter(lsn, gone)
}
