package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// bareSegment is the size of the bare loop's only file, which is overwritten from its beginning again and again.
const bareSegment = 64 << 20

// bareLog is the yardstick: what a disk and a group commit allow when nothing else is done. One goroutine takes what writers have handed in while the
// last batch was written, and makes it durable by one pwrite and one fdatasync. There are no checksums, no ends of segments, no owner, no index; what
// it wrote before it overwrites.
type bareLog struct {
	file *os.File
	off  int64

	mu      sync.Mutex
	work    sync.Cond
	fill    *bareBatch
	spare   []byte // the buffer of the batch before the last
	closed  bool
	stopped chan struct{}
}

type bareBatch struct {
	octets []byte
	done   chan struct{} // closed once it is durable, or err is set
	err    error
}

func newBareBatch(b []byte) *bareBatch { return &bareBatch{octets: b[:0], done: make(chan struct{})} }

func openBare(dir string) (*bareLog, error) {
	f, err := os.Create(filepath.Join(dir, "bare"))
	if err != nil {
		return nil, fmt.Errorf("create the bare loop's file: %w", err)
	}
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < bareSegment && err == nil; off += int64(len(zeros)) {
		_, err = f.WriteAt(zeros, off)
	}
	if err = errors.Join(err, f.Sync()); err != nil {
		return nil, errors.Join(fmt.Errorf("fill the bare loop's file: %w", err), f.Close())
	}
	l := &bareLog{file: f, fill: newBareBatch(nil), stopped: make(chan struct{})}
	l.work.L = &l.mu
	go l.loop()
	return l, nil
}

func (l *bareLog) close() error {
	l.mu.Lock()
	l.closed = true
	l.work.Signal()
	l.mu.Unlock()
	<-l.stopped
	return l.file.Close()
}

// append returns when the octets are durable.
func (l *bareLog) append(record []byte) error {
	b := l.hand(record)
	<-b.done
	return b.err
}

// hand returns the batch that the octets are in. When it is done, so are those before it.
func (l *bareLog) hand(record []byte) *bareBatch {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.fill
	if len(b.octets) == 0 {
		l.work.Signal()
	}
	b.octets = append(b.octets, record...)
	return b
}

func (l *bareLog) loop() {
	defer close(l.stopped)
	for {
		l.mu.Lock()
		for len(l.fill.octets) == 0 && !l.closed {
			l.work.Wait()
		}
		b := l.fill
		l.fill = newBareBatch(l.spare)
		l.mu.Unlock()
		if len(b.octets) == 0 {
			return
		}
		if l.off+int64(len(b.octets)) > bareSegment {
			l.off = 0
		}
		if _, b.err = l.file.WriteAt(b.octets, l.off); b.err == nil {
			b.err = datasync(l.file)
		}
		l.off += int64(len(b.octets))
		l.spare = b.octets // the loop alone reads it, under mu, for the batch after the next
		close(b.done)
	}
}

// closedLoop has writers that each hand in a record of bodyBytes for d, the next one when the last is durable.
func closedLoop(ctx context.Context, writers int, d time.Duration, hand func([]byte) error) (sample, error) {
	each, errs := make([][]time.Duration, writers), make([]error, writers)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range writers {
		wg.Go(func() { each[i], errs[i] = closedWriter(ctx, start.Add(d), hand) })
	}
	wg.Wait()
	s := sample{took: time.Since(start)}
	s.latencies(slices.Concat(each...))
	return s, errors.Join(append(errs, context.Cause(ctx))...)
}

func closedWriter(ctx context.Context, end time.Time, hand func([]byte) error) (took []time.Duration, err error) {
	for at := time.Now(); at.Before(end) && ctx.Err() == nil; {
		if err := hand(body); err != nil {
			return took, err
		}
		now := time.Now()
		took, at = append(took, now.Sub(at)), now
	}
	return took, nil
}
