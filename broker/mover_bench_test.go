package broker

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/understudy-mq/understudy/broker/journal"
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
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	active := make(chan struct{})
	srv, err := New(Config{Stores: []StoreConfig{{Name: "orders", Dir: b.TempDir(), Own: true}}, Listener: ln, SegmentBytes: 4 << 20, Changed: func(s Status) {
		if s.Stores[0].Role == Active {
			close(active)
		}
	}})
	if err != nil {
		b.Fatal(err)
	}
	if !mover {
		srv.toMover = nil // nobody wakes it
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	<-active
	dial := func(more string) net.Conn {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.WriteString(nc, "CONNECT\naccept-version:1.2\nhost:h\n\n\x00"+more)
		_, _ = nc.Read(make([]byte, 1024))
		return nc
	}
	const producers, window = 2, 500
	var received, sent sync.WaitGroup
	for i := range producers {
		nc := dial(text("SUBSCRIBE", "id:s", fmt.Sprintf("destination:/queue/b%d", i)))
		defer nc.Close()
		received.Go(func() { count(nc, "MESSAGE", n/producers*49/50) })
	}
	b.StartTimer()
	for i := range producers {
		nc := dial("")
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
	srv.lock()
	st := srv.store.log.(*journal.Journal).Stats()
	srv.unlock()
	b.ReportMetric(float64(st.DiskBytes)/(4<<20), "segments")
	b.ReportMetric(float64(st.Evacuated), "emptied")
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	b.StartTimer()
}
