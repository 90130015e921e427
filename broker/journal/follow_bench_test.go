package journal

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// fillStore appends n records of 1 KiB.
func fillStore(b *testing.B, j *Journal, n int) LSN {
	e := Entry{Type: 1, Payload: make([]byte, 1024), Account: Account{Live: 1}}
	var last LSN
	for range n {
		for j.Pending() > 8<<20 {
			time.Sleep(time.Millisecond)
		}
		at, err := appendTo(j, e)
		if err != nil {
			b.Fatal(err)
		}
		last = at.LSN
	}
	return last
}

// BenchmarkPromote hands a store from one owner to the next, who has followed it: from having the lock to serving, and the same without a copy.
func BenchmarkPromote(b *testing.B) {
	sizes := []int{0, 100_000}
	if *full {
		sizes = append(sizes, 1_000_000)
	}
	for _, n := range sizes {
		for _, follow := range []bool{true, false} {
			b.Run(fmt.Sprintf("records=%d/warm=%v", n, follow), func(b *testing.B) { benchmarkPromote(b, n, follow) })
		}
	}
}

func benchmarkPromote(b *testing.B, n int, follow bool) {
	dir := b.TempDir()
	live := func(Record) (Account, error) { return Account{Live: 1}, nil }
	owner, err := Open(b.Context(), dir, Options{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	last := fillStore(b, owner, n)
	var took, longest time.Duration
	b.ResetTimer()
	for range b.N {
		opened, ready := make(chan *Journal), make(chan struct{})
		waiting := true
		at := func(c Copy) {
			if waiting && c.Applied >= last && c.Applied == c.Proved {
				waiting = false
				close(ready)
			}
		}
		var won time.Time
		opt := Options{Follow: follow, Reset: func() { b.Error("reset") }, Copied: at, Won: func() { won = time.Now() }}
		go func() {
			j, err := Open(context.Background(), dir, opt, live)
			if d := time.Since(won); err == nil {
				took += d
				longest = max(longest, d)
			} else {
				b.Error(err)
			}
			opened <- j
		}()
		if follow && last > 0 {
			<-ready
		}
		last = fillStore(b, owner, 1) // behind the copy, perhaps
		owner.Close()
		owner = <-opened
		if st := owner.Stats(); follow && last > 1 && st.Cold != "" {
			b.Error(st.Cold)
		}
	}
	b.StopTimer()
	owner.Close()
	b.ReportMetric(float64(took.Microseconds())/float64(b.N), "µs/promotion")
	b.ReportMetric(float64(longest.Microseconds()), "µs/longest")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkFollow is what following costs the processor: for a record that is visited, and for a poll when there is nothing new.
func BenchmarkFollow(b *testing.B) {
	const n = 200_000
	dir := b.TempDir()
	j, err := Open(b.Context(), dir, Options{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	fillStore(b, j, n)
	j.Close()
	d, err := openDisk(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer d.close()
	opt := Options{Reset: func() { b.Error("reset") }}.withDefaults()
	follow := func() (*follower, int) {
		seen := 0
		f := newFollower(d, opt, opt.Logger, func(Record) (Account, error) {
			seen++
			return Account{Live: 1}, nil
		})
		polls := 0
		for ; seen < n; polls++ {
			f.poll()
		}
		return f, polls
	}
	b.Run("record", func(b *testing.B) {
		b.SetBytes(n * 1024)
		polls := 0
		for b.Loop() {
			f, n := follow()
			f.close()
			polls = n
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n)/float64(b.N), "ns/record")
		b.ReportMetric(float64(polls), "polls")
	})
	b.Run("idle", func(b *testing.B) {
		f, _ := follow()
		defer f.close()
		b.ReportAllocs()
		for b.Loop() {
			f.poll()
		}
	})
}
