package journal

import (
	"runtime"
	"time"
)

// Writers who each wait for their record before they append the next fall into two halves that take turns: while the batch of one half is synced the
// other half appends, so that each waits for two syncs. A short wait before a batch is taken lets those return whom the last batch has just set free, and
// one sync serves all. It is short against the sync it may save, it ends as soon as as many records are there as were on their way a moment ago, and
// it yields, without which the writers could not run. A disk so fast that there is nothing to gain goes without.

const (
	lingerShare = 4                     // at most this part, as 1/n, of what a sync takes
	lingerMin   = 30 * time.Microsecond // not worth it for less
	lingerEach  = 2 * time.Microsecond  // what a writer takes at least to append
	lingerOld   = 7                     // eighths of the average that are the past
)

// pace is what the commit goroutine knows of those who append.
type pace struct {
	sync   time.Duration // what one takes: a moving average
	target int           // records that were on their way when the last batch became durable: its own, and those behind it
}

// observe takes in a batch that became durable.
func (p *pace) observe(took time.Duration, records, behind int) {
	if p.sync == 0 {
		p.sync = took
	}
	p.sync += (took - p.sync) / (lingerOld + 1)
	p.target = records + behind
}

// patience is how long to wait for a batch of the target's size, of which so many are here. Where more are missing than could come meanwhile, they are
// better let append while the others are synced.
func (p *pace) patience(have int) time.Duration {
	if d := p.sync / lingerShare; d >= max(lingerMin, time.Duration(p.target-have)*lingerEach) {
		return d
	}
	return 0
}

// behind counts the records that wait for a later batch. The caller holds mu.
func (j *Journal) behind() (n int) {
	for _, b := range j.full {
		n += b.records
	}
	if j.fill != nil {
		n += j.fill.records
	}
	return n
}

// linger lets the batch that is being filled grow. The caller holds mu, which is let go meanwhile.
func (j *Journal) linger() {
	patience := j.pace.patience(j.fill.records)
	if patience == 0 || j.opt.hasty {
		return
	}
	for start := time.Now(); ; {
		if j.closed || j.trouble != nil || len(j.full) > 0 || j.fill == nil || j.fill.records >= j.pace.target {
			return
		}
		j.mu.Unlock()
		runtime.Gosched()
		late := time.Since(start) >= patience
		j.mu.Lock()
		if late {
			return
		}
	}
}
