package journal

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// BenchmarkHandOver hands a store to and fro between two that keep a warm copy, with a few records in each turn. It reports the parts of the pause.
func BenchmarkHandOver(b *testing.B) {
	dir := b.TempDir()
	visit := func(Record) (Account, error) { return Account{Live: 1}, nil }
	type turn struct {
		j           *Journal
		won, opened time.Time
	}
	nodes := []string{"a", "b"}
	ends := [2]chan turn{make(chan turn, 1), make(chan turn, 1)}
	open := func(i int) {
		go func() {
			var t turn
			var err error
			opt := Options{Node: nodes[i], Follow: true, Reset: func() {}, Won: func() { t.won = time.Now() }}
			if t.j, err = Open(b.Context(), dir, opt, visit); err != nil {
				b.Error(err)
			}
			t.opened = time.Now()
			ends[i] <- t
		}()
	}
	open(0)
	cur := <-ends[0]
	var toWon, toOpen, closed []time.Duration
	at := 0
	b.ResetTimer()
	for b.Loop() {
		next := 1 - at
		open(next)
		for range 20 {
			if _, err := cur.j.Append(Entry{Type: 1, Payload: make([]byte, 1000), Account: Account{Live: 1}}); err != nil {
				b.Fatal(err)
			}
		}
		for len(cur.j.Candidates()) == 0 || !cur.j.Candidates()[0].Warm {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(restFor + time.Duration(rand.IntN(10_000))*time.Microsecond)
		start := time.Now()
		if err := cur.j.HandOver(nodes[next]); err != nil {
			b.Fatal(err)
		}
		done := time.Since(start)
		cur = <-ends[next]
		toWon, toOpen, closed = append(toWon, cur.won.Sub(start)), append(toOpen, cur.opened.Sub(cur.won)), append(closed, done)
		if s := cur.j.Stats(); s.Cold != "" {
			b.Log("cold", s.Cold)
		}
		at = next
	}
	b.StopTimer()
	if err := cur.j.Close(); err != nil {
		b.Fatal(err)
	}
	for name, list := range map[string][]time.Duration{"to-won": toWon, "won-to-open": toOpen, "close": closed} {
		slices.Sort(list)
		b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, name+"-p50-ms")
		b.ReportMetric(float64(list[len(list)-1].Microseconds())/1000, name+"-max-ms")
	}
}
