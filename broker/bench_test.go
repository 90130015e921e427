package broker

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// swallow is a journal that takes everything and keeps nothing.
type swallow struct{ lsn journal.LSN }

func (s *swallow) Append(e journal.Entry) (journal.Position, error) {
	s.lsn++
	return journal.Position{LSN: s.lsn, Segment: 1}, nil
}

func benchStore() (*store, *swallow) {
	cfg := Config{MaxMemory: 1 << 30, Listener: unbound{}}.withDefaults()
	s := newStore(&cfg, newCounters(newMetricSet(), "orders"))
	log := &swallow{}
	s.log, s.uuid, s.epoch = log, "3f2b", 7
	return s, log
}

type unbound struct{ net.Listener }

func (unbound) Addr() net.Addr { return &net.TCPAddr{} }

func benchPeer(s *store, text string) (*peer, *decoder) {
	var f frame.Frame
	var parser frame.Parser
	if _, _, err := parser.Next([]byte(text), &f); err != nil {
		panic(err)
	}
	h, bad := parseHello(&f)
	if bad != nil {
		panic(bad.detail)
	}
	p := &peer{}
	s.connect(p, &h)
	s.takeOut(p, nil)
	return p, &decoder{version: h.version, sidecar: h.sidecar}
}

// feed parses, decodes and applies octets, as a connection's reader does.
func feed(s *store, p *peer, d *decoder, parser *frame.Parser, octets []byte) {
	var f frame.Frame
	for len(octets) > 0 {
		n, _, err := parser.Next(octets, &f)
		if err != nil || n == 0 {
			panic("bad frame")
		}
		octets = octets[n:]
		r := d.decode(&f)
		for s.handle(p, &r); p.untaken; s.handle(p, &r) { // a simulated disk is full for a moment
			p.untaken = false
			s.space(false)
		}
	}
}

// BenchmarkSend is the way of a durable 1 KiB SEND from the read buffer to the queue, without the journal and the socket, and of its automatic
// acknowledgement, so that the store stays small.
func BenchmarkSend(b *testing.B) {
	s, log := benchStore()
	p, d := benchPeer(s, "CONNECT\naccept-version:1.2\n\n\x00")
	send := []byte(text("SEND", "destination:/queue/bench", "receipt:m-123456", "content-type:text/plain", "="+strings.Repeat("x", 1024)))
	parser := frame.Parser{Version: frame.V12}
	b.SetBytes(int64(len(send)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		feed(s, p, d, &parser, send)
		if i%32 == 31 {
			s.advance(log.lsn)
			s.flush()
			p.out = p.out[:0]
			if s.messages > 10000 {
				b.StopTimer()
				q := s.queues["/queue/bench"]
				for m := q.first(); m != nil; m = q.first() {
					m.state = done
					s.remove(m)
				}
				s.flush()
				b.StartTimer()
			}
		}
	}
}

// BenchmarkDispatch is the way of a 1 KiB message from the queue to a connection's output, and of its ACK back to the journal.
func BenchmarkDispatch(b *testing.B) {
	s, log := benchStore()
	p, d := benchPeer(s, "CONNECT\naccept-version:1.2\n\n\x00")
	parser := frame.Parser{Version: frame.V12}
	feed(s, p, d, &parser, []byte(text("SUBSCRIBE", "id:s", "destination:/queue/bench", "ack:client-individual")))
	send := []byte(text("SEND", "destination:/queue/bench", "="+strings.Repeat("x", 1024)))
	b.ReportAllocs()
	acks := uint64(0)
	answers := make([][]byte, 100)
	for b.Loop() {
		b.StopTimer()
		for i := range answers {
			feed(s, p, d, &parser, send)
			acks++
			answers[i] = []byte(text("ACK", fmt.Sprintf("id:7.1.1.%d", acks)))
		}
		b.StartTimer()
		s.advance(log.lsn)
		s.flush()
		p.out = p.out[:0]
		for _, ack := range answers {
			feed(s, p, d, &parser, ack)
		}
		s.advance(log.lsn)
		s.flush()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(100*b.N), "ns/message")
}

// benched is a server over loopback that owns a new store.
type benched struct {
	b    *testing.B
	srv  *Server
	addr string
	stop func()
}

// newBenched starts a server with what else a benchmark wants of it. Prepare, which may be nil, sees it before it runs.
func newBenched(b *testing.B, cfg Config, prepare func(*Server)) *benched {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	active := make(chan struct{})
	cfg.Stores, cfg.Listener = []StoreConfig{{Name: "orders", Dir: b.TempDir(), Own: true}}, ln
	cfg.Changed = func(s Status) {
		if s.Stores[0].Role == Active {
			close(active)
		}
	}
	srv, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	if prepare != nil {
		prepare(srv)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	<-active
	return &benched{b: b, srv: srv, addr: ln.Addr().String(), stop: func() {
		cancel()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	}}
}

// dial connects a client that says more behind its CONNECT.
func (s *benched) dial(more string) net.Conn {
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.b.Fatal(err)
	}
	_, _ = io.WriteString(nc, "CONNECT\naccept-version:1.2\nhost:h\n\n\x00"+more)
	_, _ = nc.Read(make([]byte, 1024))
	return nc
}

// BenchmarkDurable is the whole broker over loopback and a real journal: producers that keep a window of confirmed 1 KiB messages open, and
// as many consumers on ack:auto, if any.
func BenchmarkDurable(b *testing.B) {
	for _, with := range []struct{ producers, window, consumers int }{{1, 1000, 0}, {4, 100, 0}, {16, 1, 0}, {2, 500, 2}} {
		b.Run(fmt.Sprintf("producers=%d/window=%d/consumers=%d", with.producers, with.window, with.consumers), func(b *testing.B) {
			benchmarkDurable(b, with.producers, with.window, with.consumers)
		})
	}
}

func benchmarkDurable(b *testing.B, producers, window, consumers int) {
	s := newBenched(b, Config{MaxMemory: 8 << 30}, nil)
	var received sync.WaitGroup
	for i := range consumers {
		nc := s.dial(text("SUBSCRIBE", "id:s", fmt.Sprintf("destination:/queue/b%d", i)))
		defer nc.Close()
		share := b.N / producers
		received.Go(func() { count(nc, "MESSAGE", share) })
	}
	send := make([]net.Conn, producers)
	for i := range send {
		send[i] = s.dial("")
		defer send[i].Close()
	}
	b.ResetTimer()
	began := time.Now()
	var sent sync.WaitGroup
	for i, nc := range send {
		sent.Go(func() { produce(nc, fmt.Sprintf("/queue/b%d", i), b.N/producers, window) })
	}
	sent.Wait()
	if b.N >= producers {
		received.Wait()
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "messages/s")
	b.StopTimer()
	s.stop()
}

// produce sends n messages with at most window unconfirmed.
func produce(nc net.Conn, dest string, n, window int) {
	one := []byte(text("SEND", "destination:"+dest, "receipt:r", "="+strings.Repeat("x", 1024)))
	confirmed := make(chan int, 1024)
	go func() {
		defer close(confirmed)
		buf := make([]byte, 64<<10)
		for got := 0; got < n; {
			k, err := nc.Read(buf)
			if err != nil {
				return
			}
			c := strings.Count(string(buf[:k]), "\x00")
			got += c
			confirmed <- c
		}
	}()
	var batch []byte
	for sent, done := 0, 0; done < n; {
		batch = batch[:0]
		for sent < n && sent-done < window && len(batch) < 64<<10 {
			batch = append(batch, one...)
			sent++
		}
		if len(batch) > 0 {
			if _, err := nc.Write(batch); err != nil {
				return
			}
			select {
			case c := <-confirmed:
				done += c
			default:
			}
			continue
		}
		c, ok := <-confirmed
		if !ok {
			return
		}
		done += c
	}
}

func count(nc net.Conn, _ string, n int) {
	buf := make([]byte, 256<<10)
	for n > 0 {
		k, err := nc.Read(buf)
		if err != nil {
			return
		}
		n -= strings.Count(string(buf[:k]), "\x00")
	}
}
