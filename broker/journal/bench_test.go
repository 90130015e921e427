package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// benchBare is the limit of the disk: one writer, zero-filled file, pwrite and fdatasync of as many records as a batch would hold.
func benchBare(b *testing.B, per int, more func(op) error) {
	f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const size = 64 << 20
	if _, err := f.Write(make([]byte, size)); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, per*recordSize(1024))
	for i := range buf {
		buf[i] = byte(i)
	}
	b.SetBytes(1024)
	b.ResetTimer()
	off := int64(0)
	for n := 0; n < b.N; n += per {
		if off+int64(len(buf)) > size {
			off = 0
		}
		if _, err := f.WriteAt(buf, off); err != nil {
			b.Fatal(err)
		}
		if more != nil {
			more(op{kind: opSync})
		}
		if err := fdatasync(f); err != nil {
			b.Fatal(err)
		}
		off += int64(len(buf))
	}
}

// BenchmarkAppend has writers that each wait until their record is durable before they append the next. Everything written is ended at once, so
// that segments go as fast as they come. Beside it is the bare loop with all writers in each batch. Syncs that take longer are those of this disk
// and a pause.
func BenchmarkAppend(b *testing.B) {
	for _, more := range []time.Duration{0, 500 * time.Microsecond, 2 * time.Millisecond} {
		for _, writers := range []int{1, 16, 64, 256} {
			b.Run(fmt.Sprintf("sync+%v/writers=%d/bare", more, writers), func(b *testing.B) { benchBare(b, writers, slower(more)) })
			for _, hasty := range []bool{false, true} {
				b.Run(fmt.Sprintf("sync+%v/writers=%d/linger=%v", more, writers, !hasty), func(b *testing.B) {
					benchAppend(b, Options{hasty: hasty, before: slower(more)}, writers)
				})
			}
		}
	}
}

// slower makes each sync take longer.
func slower(more time.Duration) func(op) error {
	if more == 0 {
		return nil
	}
	return func(o op) error {
		if o.kind == opSync {
			time.Sleep(more)
		}
		return nil
	}
}

func benchAppend(b *testing.B, opt Options, writers int) {
	w := newWaiters()
	opt.Durable = w.durable
	s, err := Open(b.Context(), b.TempDir(), opt, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	payload := make([]byte, 1024)
	b.SetBytes(1024)
	b.ReportAllocs()
	var wg sync.WaitGroup
	b.ResetTimer()
	for i := range writers {
		n := b.N / writers
		if i < b.N%writers {
			n++
		}
		wg.Go(func() {
			for range n {
				if err := w.append(s, payload); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	st := s.Stats()
	b.ReportMetric(float64(st.Records)/float64(st.Batches), "records/batch")
}

// waiters is the shape of a broker: a lock around Append, and a queue of those who wait for a number.
type waiters struct {
	mu    sync.Mutex
	queue []waiter
	free  []chan struct{}
}

type waiter struct {
	lsn LSN
	c   chan struct{}
}

func newWaiters() *waiters { return &waiters{} }

func (w *waiters) append(j *Journal, payload []byte) error {
	w.mu.Lock()
	at, err := appendTo(j, Entry{Type: 1, Payload: payload})
	var c chan struct{}
	if n := len(w.free); n > 0 {
		c, w.free = w.free[n-1], w.free[:n-1]
	} else {
		c = make(chan struct{}, 1)
	}
	w.queue = append(w.queue, waiter{at.LSN, c})
	w.mu.Unlock()
	if err != nil {
		return err
	}
	<-c
	w.mu.Lock()
	w.free = append(w.free, c)
	w.mu.Unlock()
	return nil
}

func (w *waiters) durable(through LSN) {
	w.mu.Lock()
	n := 0
	for n < len(w.queue) && w.queue[n].lsn <= through {
		w.queue[n].c <- struct{}{}
		n++
	}
	w.queue = append(w.queue[:0], w.queue[n:]...)
	w.mu.Unlock()
}

// BenchmarkRecover opens a store of records of 1 KiB, each of which is visited: from segments, or from indexes that show 120 octets of each.
func BenchmarkRecover(b *testing.B) {
	for _, front := range []int{0, 120} {
		b.Run(fmt.Sprintf("front=%d", front), func(b *testing.B) { benchRecover(b, front) })
	}
}

func benchRecover(b *testing.B, front int) {
	const n = 200_000
	dir := b.TempDir()
	j, err := Open(b.Context(), dir, Options{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	e := Entry{Type: 1, Payload: make([]byte, 1024), Front: front, Account: Account{Live: 1}}
	for range n {
		for j.Pending() > 8<<20 {
			time.Sleep(time.Millisecond)
		}
		if _, err := appendTo(j, e); err != nil {
			b.Fatal(err)
		}
	}
	for j.Pending() > 0 || front > 0 && j.waiting() > 0 {
		time.Sleep(time.Millisecond)
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(n * 1024)
	b.ResetTimer()
	var took time.Duration
	for b.Loop() {
		seen := 0
		start := time.Now()
		j, err := Open(b.Context(), dir, Options{}, func(Record) (Account, error) {
			seen++
			return Account{Live: 1}, nil
		})
		if err != nil || seen != n {
			b.Fatal(seen, err)
		}
		took += time.Since(start)
		b.StopTimer()
		j.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(n)*float64(b.N)/took.Seconds(), "records/s")
}

// waiting counts the indexes that have no file yet.
func (j *Journal) waiting() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.jan.unwritten)
}
