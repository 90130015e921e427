package broker

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// BenchmarkEvacuation is the whole broker over loopback with a real journal, where every fiftieth message stays: with the mover, and without, which
// leaves the disk to grow. What differs is what emptying segments costs.
func BenchmarkEvacuation(b *testing.B) {
	for _, mover := range []bool{true, false} {
		b.Run(fmt.Sprintf("mover=%v", mover), func(b *testing.B) {
			const n = 100000
			for b.Loop() {
				benchmarkEvacuation(b, n, mover)
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

func benchmarkEvacuation(b *testing.B, n int, mover bool) {
	b.StopTimer()
	s := newBenched(b, Config{SegmentBytes: 4 << 20}, func(srv *Server) {
		if !mover {
			srv.still = true
		}
	})
	const producers, window = 2, 500
	var received, sent sync.WaitGroup
	for i := range producers {
		nc := s.dial(text("SUBSCRIBE", "id:s", fmt.Sprintf("destination:/queue/b%d", i)))
		defer nc.Close()
		received.Go(func() { count(nc, "MESSAGE", n/producers*49/50) })
	}
	b.StartTimer()
	for i := range producers {
		nc := s.dial("")
		defer nc.Close()
		one := text("SEND", fmt.Sprintf("destination:/queue/b%d", i), "receipt:r", "="+strings.Repeat("x", 1024))
		stays := text("SEND", "destination:/queue/stays", "receipt:r", "="+strings.Repeat("x", 1024))
		batch := []byte(strings.Repeat(one, 49) + stays)
		sent.Go(func() {
			for i := 0; i < n/producers; i += window {
				go func() {
					for range window / 50 {
						_, _ = nc.Write(batch)
					}
				}()
				count(nc, "RECEIPT", window) // all of these and no more
			}
		})
	}
	sent.Wait()
	received.Wait()
	b.StopTimer()
	st := s.srv.all()[0].view.Load().tenure.journal.Stats()
	b.ReportMetric(float64(st.DiskBytes)/(4<<20), "segments")
	b.ReportMetric(float64(st.Evacuated), "emptied")
	s.stop()
	b.StartTimer()
}
