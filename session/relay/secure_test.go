package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/proxy/certtest"
	"github.com/understudy-mq/understudy/session"
)

// secured is a relayed connection with TLS on both legs; the test holds the outer ends.
type secured struct {
	client  *tls.Conn
	brokers chan *tls.Conn
	conn    *Conn
	done    chan error
}

func newSecured(t *testing.T, rec session.Recorder) *secured {
	t.Helper()
	before := runtime.NumGoroutine()
	ca := certtest.NewCA(t)
	server := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, time.Hour, "127.0.0.1").TLS(t)}}
	client := &tls.Config{RootCAs: ca.Pool, ServerName: "127.0.0.1"}
	front, back := listen(t), listen(t)
	s := &secured{brokers: make(chan *tls.Conn, 8), done: make(chan error, 1)}
	go func() {
		for {
			c, err := back.Accept()
			if err != nil {
				return
			}
			b := tls.Server(c, server)
			go func() {
				if b.Handshake() == nil {
					s.brokers <- b
				}
			}()
		}
	}()
	c, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s.client = tls.Client(c, client)
	accepted, err := front.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s.conn = New(tls.Server(accepted, server), rec, Config{LingerTimeout: time.Second, Dial: func(ctx context.Context, _ Try) (net.Conn, error) {
		return (&tls.Dialer{Config: client}).DialContext(ctx, "tcp", back.Addr().String())
	}})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { s.done <- s.conn.Serve(ctx) }()
	_ = s.client.SetDeadline(time.Now().Add(20 * time.Second))
	if err := s.client.Handshake(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.client.NetConn().Close()
		cancel()
		select {
		case <-s.done:
		case <-time.After(10 * time.Second):
			t.Error("Serve did not return")
		}
		front.Close()
		back.Close()
		for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				buf := make([]byte, 1<<16)
				t.Errorf("goroutines leaked:\n%s", buf[:runtime.Stack(buf, true)])
				return
			}
		}
	})
	return s
}

func (s *secured) broker(t *testing.T) *tls.Conn {
	t.Helper()
	select {
	case b := <-s.brokers:
		_ = b.SetDeadline(time.Now().Add(20 * time.Second))
		t.Cleanup(func() { b.NetConn().Close() })
		return b
	case <-time.After(5 * time.Second):
		t.Fatal("nobody dialled the broker")
		return nil
	}
}

func TestTLSPassesBothWaysUnchanged(t *testing.T) {
	s := newSecured(t, &pipe{})
	broker := s.broker(t)
	data := make([]byte, 4<<20)
	_, _ = rand.Read(data)
	var joined sync.WaitGroup
	for _, ends := range [][2]*tls.Conn{{s.client, broker}, {broker, s.client}} {
		joined.Go(func() {
			for rest := data; len(rest) > 0; { // records of every size
				n := min(len(rest), 1+len(rest)%40000)
				if _, err := ends[0].Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
		})
		joined.Go(func() {
			got := make([]byte, len(data))
			if _, err := io.ReadFull(ends[1], got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("octets changed on the way (%v)", err)
			}
		})
	}
	joined.Wait()
}

// Many small ranges become few records, in order, and large ones pass whole.
func TestTLSGathersRanges(t *testing.T) {
	var chunk [3 * recordBytes]byte
	_, _ = rand.Read(chunk[:])
	c := session.NewChunk(chunk[:], nil)
	defer c.Release()
	var v vec
	var want []byte
	for _, r := range [][2]int{{0, 3}, {10, 13}, {0, recordBytes}, {5, 6}, {7, 3 * recordBytes}, {1, 2}} {
		v.bufs = append(v.bufs, c.Range(r[0], r[1]))
		want = append(want, chunk[r[0]:r[1]]...)
	}
	w := new(recorded)
	n, err := v.gather(w)
	if err != nil || n != int64(len(want)) || !bytes.Equal(w.all, want) || w.writes != 5 {
		t.Errorf("%d of %d octets in %d writes, %v", n, len(want), w.writes, err)
	}
	w = &recorded{fail: 2}
	if n, err := v.gather(w); !errors.Is(err, io.ErrClosedPipe) || n != 6 {
		t.Errorf("%d octets before %v", n, err)
	}
}

type recorded struct {
	net.Conn
	all          []byte
	writes, fail int
}

func (r *recorded) Write(p []byte) (int, error) {
	if r.writes++; r.writes == r.fail {
		return 0, io.ErrClosedPipe
	}
	r.all = append(r.all, p...)
	return len(p), nil
}

// What the kernel holds is ciphertext: nothing counts as arrived before all of it is.
func TestTLSArrival(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what a peer's kernel has acknowledged is known by SIOCOUTQ, which only Linux has")
	}
	var mu sync.Mutex
	var arrived, read uint64
	rec := &pipe{wrote: func(leg session.Leg, total uint64, _ *session.Out) {
		if leg == session.Client {
			mu.Lock()
			arrived = total
			mu.Unlock()
		}
	}}
	rec.up = func(_ session.Peer, out *session.Out) { out.Arrival = true }
	s := newSecured(t, rec)
	broker := s.broker(t)
	expectTLS := func(n uint64) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			mu.Lock()
			now := arrived
			mu.Unlock()
			if now == n {
				return
			}
			if now > n || time.Now().After(deadline) {
				t.Fatalf("arrived %d of %d", now, n)
			}
		}
	}
	if _, err := broker.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	expectTLS(1000) // the client's kernel has it, though the client has not read
	_ = broker.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	sent, _ := io.CopyBuffer(struct{ io.Writer }{broker}, zeros{}, make([]byte, 16<<10)) // until every buffer on the way is full
	time.Sleep(50 * time.Millisecond)
	mu.Lock()
	stuck := arrived
	mu.Unlock()
	if stuck >= 1000+uint64(sent) {
		t.Fatalf("%d of %d octets are said to have arrived at a client that reads nothing", stuck, sent)
	}
	buf := make([]byte, 64<<10)
	for read < 1000+uint64(sent) {
		n, err := s.client.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		read += uint64(n)
	}
	expectTLS(1000 + uint64(sent))
}

// The last words reach a client that is still sending, behind them comes the end in TLS's own words, and half an end from the client is its last word.
func TestTLSLastWords(t *testing.T) {
	rec := &pipe{}
	rec.eof = func(half bool, out *session.Out) {
		if !half {
			t.Error("a close_notify is taken for a break")
		}
		out.Append(session.Client, []byte("good-bye"))
		out.End = &session.Fault{Code: "test"}
	}
	s := newSecured(t, rec)
	s.broker(t)
	if _, err := s.client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := s.client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s.client); err != nil || string(got) != "good-bye" {
		t.Errorf("%q, %v", got, err)
	}
}

// Also behind a client that does not read TLS the loss of a broker is noticed, and what was on the way to the client is not damaged by that: a write of
// TLS that is broken off could not go on.
func TestTLSLossIsNoticedBehindAClientThatDoesNotRead(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("noticing the reset of a connection that is not read needs poll(2), which is asked on Linux only")
	}
	s := newSecured(t, &pipe{})
	first := s.broker(t)
	_ = first.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	_, _ = io.CopyBuffer(struct{ io.Writer }{first}, &counting{}, make([]byte, 16<<10))
	Reset(first)
	second := s.broker(t)
	const marker = 255
	if _, err := second.Write([]byte{marker}); err != nil {
		t.Fatal(err)
	}
	buf, next := make([]byte, 64<<10), byte(0)
	for {
		n, err := s.client.Read(buf)
		for _, b := range buf[:n] {
			if b == marker {
				return
			}
			if b != next {
				t.Fatalf("octet %d where %d was due", b, next)
			}
			next = (next + 1) % counts
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
