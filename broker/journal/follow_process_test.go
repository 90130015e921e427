//go:build linux

package journal

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// TestWarmTakeover kills owners that write as fast as they may while they are followed. Each record that they acknowledged is there, nothing was visited
// before the kill that is not, and what was left to visit after it is little.
func TestWarmTakeover(t *testing.T) {
	trials := 5
	if *full {
		trials = 100
	}
	rng := newRand(t)
	var whole, promotion []time.Duration
	var late []int
	resets := 0
	for i := range trials {
		dir := t.TempDir()
		p := startHelper(t, dir)
		p.said("acked ")
		var last LSN
		var at atomic.Uint64
		next := map[uint64]int{}
		var won time.Time
		opt := Options{
			SegmentBytes: 64 << 10, Follow: true, Won: func() { won = time.Now() }, Copied: func(c Copy) { at.Store(uint64(c.Applied)) },
			Reset: func() { clear(next); last = 0; resets++ },
		}
		visit := func(r Record) (Account, error) {
			if r.LSN <= last || !bytes.Equal(r.Payload, content(r.Epoch, next[r.Epoch])) {
				return Account{}, fmt.Errorf("record %d behind %d, number %d of epoch %d", r.LSN, last, next[r.Epoch], r.Epoch)
			}
			last = r.LSN
			next[r.Epoch]++
			return Account{Live: 1}, nil
		}
		done := make(chan error)
		var j *Journal
		go func() {
			var err error
			j, err = Open(context.Background(), dir, opt, visit)
			done <- err
		}()
		seen := p.acked()
		p.wait("a copy", func() bool { return LSN(at.Load()) >= seen })
		time.Sleep(time.Duration(rng.IntN(60_000)) * time.Microsecond)
		start := time.Now()
		p.kill()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		whole, promotion = append(whole, time.Since(start)), append(promotion, time.Since(won))
		p.gone()
		st := j.Stats()
		if st.Cold != "" || last < p.acked() {
			t.Fatalf("trial %d: cold: %q; recovered %d, acknowledged %d", i, st.Cold, last, p.acked())
		}
		late = append(late, int(st.Recovered-st.Copied))
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		audited, end, _ := audit(t, dir, Options{})
		audited.Close()
		if end < last {
			t.Fatalf("trial %d: took over with %d, recovered %d", i, last, end)
		}
	}
	slices.Sort(whole)
	slices.Sort(promotion)
	slices.Sort(late)
	t.Logf("%d kills, lost 0, %d copies thrown away; from kill -9 to open: p50 %v, max %v; from the lock to open: p50 %v, max %v; records read after the lock was won: p50 %d, max %d",
		trials, resets, whole[trials/2], whole[trials-1], promotion[trials/2], promotion[trials-1], late[trials/2], late[trials-1])
}
