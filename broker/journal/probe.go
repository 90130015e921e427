package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// The self-test measures how long the disk takes to flush, for everything that a journal promises rests on that it does: it overwrites a page of a file
// of its own and syncs it, some fifty times. A disk that answers faster than any can flush does not flush.
const (
	probePrefix  = "self-test-"
	probeRounds  = 50
	probeLimit   = 250 * time.Millisecond // with fewer rounds than that, if need be
	probeEnough  = 10                     // or the test is to be run again when there is time
	probeStale   = time.Minute            // a file that a crash left
	flushesFloor = 20 * time.Microsecond  // below this, as the median, nothing was flushed: the fastest disks take as long to be asked
)

// probe is the self-test of one store's disk. It runs while a candidate waits for the lock, or beside serving where there was no time for it before; never
// in the way of a take-over. It does not go through disk, which is for what belongs to the store.
type probe struct {
	dir     string
	log     *slog.Logger
	metrics *Metrics
	work    sync.WaitGroup

	mu   sync.Mutex
	quit chan struct{} // of a test that is running, to end it soon; nil if there is none, or it was told
	busy bool
	done bool // there is a result, or nobody wants one any more
}

func newProbe(dir string, log *slog.Logger, m *Metrics) *probe {
	return &probe{dir: dir, log: log, metrics: m}
}

// start runs the test in the background, unless there is a result.
func (p *probe) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy || p.done {
		return
	}
	p.busy, p.quit = true, make(chan struct{})
	quit := p.quit
	p.work.Go(func() { p.run(quit) })
}

// pause ends a test that is running, soon: somebody is about to need the disk.
func (p *probe) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.quit != nil {
		close(p.quit)
		p.quit = nil
	}
}

// end ends the test for good, and waits until nothing of it is left.
func (p *probe) end() {
	if p == nil {
		return
	}
	p.pause()
	p.mu.Lock()
	p.done = true
	p.mu.Unlock()
	p.work.Wait()
}

func (p *probe) run(quit <-chan struct{}) {
	p.sweep()
	took, err := p.measure(quit)
	p.mu.Lock()
	enough := err != nil || len(took) >= probeEnough
	p.busy, p.done = false, p.done || enough
	p.mu.Unlock()
	switch {
	case err != nil:
		p.log.Warn("self-test of the disk failed: how fast it flushes is not known", "err", err)
	case enough:
		p.tell(took)
	}
}

// tell publishes a result.
func (p *probe) tell(took []time.Duration) {
	slices.Sort(took)
	median, high := quantile(took, 50), quantile(took, 99)
	p.metrics.flushes(median, high)
	log := p.log.With("p50", median, "p99", high, "rounds", len(took))
	if median < flushesFloor {
		log.Warn("this disk does not flush: what is confirmed to clients outlives this process, not a power failure. " +
			"It is a file system in memory (tmpfs), or a disk or hypervisor that answers before it has written; use another for what must not be lost")
		return
	}
	log.Info("self-test of the disk: time to flush a page")
}

// quantile of sorted times, in percent.
func quantile(sorted []time.Duration, percent int) time.Duration {
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
}

// measure does the rounds, and removes its file again.
func (p *probe) measure(quit <-chan struct{}) (took []time.Duration, err error) {
	f, err := os.CreateTemp(p.dir, probePrefix)
	if err != nil {
		return nil, fmt.Errorf("self-test: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	page := make([]byte, pageSize)
	if _, err := f.Write(page); err != nil { // from here on nothing is allocated any more, as in a segment
		return nil, fmt.Errorf("self-test: %w", err)
	}
	if err := f.Sync(); err != nil {
		return nil, fmt.Errorf("self-test: %w", err)
	}
	begin := time.Now()
	for i := range probeRounds {
		select {
		case <-quit:
			return took, nil
		default:
		}
		page[0] = byte(i + 1)
		start := time.Now()
		if start.Sub(begin) > probeLimit {
			break
		}
		if _, err := f.WriteAt(page, 0); err != nil {
			return took, fmt.Errorf("self-test: %w", err)
		}
		if err := fdatasync(f); err != nil {
			return took, fmt.Errorf("self-test: %w", err)
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

// sweep removes what crashes left of earlier tests.
func (p *probe) sweep() {
	list, err := os.ReadDir(p.dir)
	if err != nil {
		return
	}
	for _, e := range list {
		info, err := e.Info()
		if err == nil && strings.HasPrefix(e.Name(), probePrefix) && time.Since(info.ModTime()) > probeStale {
			_ = os.Remove(p.dir + string(os.PathSeparator) + e.Name())
		}
	}
}
