package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session"
)

// pipe is a recorder that forwards octets both ways; its func fields let a test look in, or change one thing.
type pipe struct {
	feed    func(leg session.Leg, in session.Buf, out *session.Out) (int, int)
	eof     func(half bool, out *session.Out)
	wrote   func(leg session.Leg, total uint64, out *session.Out)
	up      func(p session.Peer, out *session.Out)
	parked  []session.Buf
	connect bool
	closed  bool
}

func (p *pipe) Feed(leg session.Leg, in session.Buf, out *session.Out) (int, int) {
	if p.feed != nil {
		return p.feed(leg, in, out)
	}
	if leg == session.Client && !p.connect {
		p.parked = append(p.parked, in.Keep())
		return in.Len(), 0
	}
	out.Ref(1-leg, in)
	return in.Len(), 0
}

func (p *pipe) Wrote(leg session.Leg, total uint64, out *session.Out) {
	if p.wrote != nil {
		p.wrote(leg, total, out)
	}
}

func (p *pipe) Up(peer session.Peer, out *session.Out) {
	p.connect = true
	if p.up != nil {
		p.up(peer, out)
	}
	for _, b := range p.parked {
		out.Ref(session.Broker, b)
		b.Drop()
	}
	p.parked = nil
	out.Live = true
}

func (p *pipe) Down(error, *session.Out) { p.connect = false }
func (p *pipe) Nowhere(why error, out *session.Out) {
	out.Append(session.Client, []byte("nowhere: "+why.Error()))
	out.End = &session.Fault{Code: "nowhere", Cause: why}
}
func (p *pipe) ClientEOF(half bool, out *session.Out) {
	if p.eof != nil {
		p.eof(half, out)
		return
	}
	out.End = &session.Fault{Code: orderly}
}
func (p *pipe) Tick(*session.Out)    {}
func (p *pipe) Hints() session.Hints { return session.Hints{Ready: true} }
func (p *pipe) Report(r *session.Report) {
	if !p.closed {
		r.State = "open"
	}
}
func (p *pipe) Close() {
	p.closed = true
	for _, b := range p.parked {
		b.Drop()
	}
}

// rig is a relayed connection: the test holds the client's end and accepts as broker.
type rig struct {
	*testing.T
	client *net.TCPConn
	broker chan *net.TCPConn
	conn   *Conn
	cancel context.CancelFunc
	done   chan error
	events []Event
	mu     sync.Mutex
}

func newRig(t *testing.T, rec session.Recorder, change ...func(*Config)) *rig {
	t.Helper()
	before := runtime.NumGoroutine()
	k := &rig{T: t, broker: make(chan *net.TCPConn, 8), done: make(chan error, 1)}
	front, back := listen(t), listen(t)
	go func() {
		for {
			c, err := back.Accept()
			if err != nil {
				return
			}
			k.broker <- c.(*net.TCPConn)
		}
	}()
	c, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	k.client = c.(*net.TCPConn)
	served, err := front.Accept()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		LingerTimeout: time.Second,
		Dial: func(ctx context.Context, _ Try) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", back.Addr().String())
		},
		Event: func(e Event) { k.mu.Lock(); k.events = append(k.events, e); k.mu.Unlock() },
	}
	for _, c := range change {
		c(&cfg)
	}
	k.conn = New(served, rec, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	k.cancel = cancel
	go func() { k.done <- k.conn.Serve(ctx) }()
	t.Cleanup(func() {
		k.client.Close()
		cancel()
		select {
		case err := <-k.done:
			k.done <- err
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
	return k
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (k *rig) accept() *net.TCPConn {
	k.Helper()
	select {
	case c := <-k.broker:
		k.Cleanup(func() { c.Close() })
		return c
	case <-time.After(5 * time.Second):
		k.Fatal("nobody dialled the broker")
		return nil
	}
}

// up is accept, and waits until the recorder knows of the broker: what a client says before is not for all recorders of these tests.
func (k *rig) up() *net.TCPConn {
	k.Helper()
	broker := k.accept()
	for range 5000 {
		k.mu.Lock()
		dialled := slices.ContainsFunc(k.events, func(e Event) bool { return e.Kind == Dialled })
		k.mu.Unlock()
		if dialled {
			return broker
		}
		time.Sleep(time.Millisecond)
	}
	k.Fatal("the session did not come up")
	return nil
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got[:n], err, want)
	}
}

func TestOctetsPassBothWaysUnchanged(t *testing.T) {
	k := newRig(t, &pipe{})
	broker := k.accept()
	data := make([]byte, 8<<20)
	_, _ = rand.Read(data)
	var wg sync.WaitGroup
	for _, ends := range [][2]*net.TCPConn{{k.client, broker}, {broker, k.client}} {
		wg.Go(func() {
			if _, err := ends[0].Write(data); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			got := make([]byte, len(data))
			if _, err := io.ReadFull(ends[1], got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("octets changed on the way (%v)", err)
			}
		})
	}
	wg.Wait()
}

func TestLostBrokerIsReplaced(t *testing.T) {
	rec := &pipe{}
	k := newRig(t, rec)
	first := k.accept()
	_, _ = k.client.Write([]byte("a"))
	expect(t, first, "a")
	_ = first.SetLinger(0)
	first.Close()
	second := k.accept()
	_, _ = k.client.Write([]byte("b"))
	expect(t, second, "b")
	_, _ = second.Write([]byte("c"))
	expect(t, k.client, "c")
	k.conn.Sever(errors.New("drill"))
	third := k.accept()
	_, _ = k.client.Write([]byte("d"))
	expect(t, third, "d")
	k.client.Close()
	if err := <-k.done; err != nil {
		t.Fatalf("Serve: %v", err)
	}
	k.done <- nil
	var kinds []EventKind
	for _, e := range k.events {
		kinds = append(kinds, e.Kind)
	}
	want := []EventKind{Live, Dialled, Lost, Live, Dialled, Lost, Live, Dialled, Ended}
	if len(kinds) != len(want) {
		t.Fatalf("events %v", kinds)
	}
	if k.events[5].Err == nil || k.events[5].Err.Error() != "drill" {
		t.Errorf("the second loss was %v, want the drill", k.events[5].Err)
	}
}

// An ERROR must reach a client that is still sending: a close with unread octets would be a reset that throws it away.
func TestLastWordsReachAClientThatIsStillSending(t *testing.T) {
	rec := &pipe{}
	rec.feed = func(leg session.Leg, in session.Buf, out *session.Out) (int, int) {
		out.Append(session.Client, []byte("ERROR"))
		out.End = &session.Fault{Code: "protocol"}
		return in.Len(), 0
	}
	k := newRig(t, rec)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 200 {
			select {
			case <-stop:
				return
			default:
				if _, err := k.client.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}
	})
	time.Sleep(20 * time.Millisecond)
	expect(t, k.client, "ERROR")
	close(stop)
	wg.Wait()
	k.client.Close()
	var end *EndError
	if err := <-k.done; !errors.As(err, &end) || end.Code != "protocol" {
		t.Fatalf("Serve: %v", err)
	}
	k.done <- nil
}

func TestPausedClientIsNotReadAndItsLeavingIsNoticed(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("noticing the close of a client that is not read needs POLLRDHUP, which only Linux has")
	}
	var got int
	rec := &pipe{}
	rec.feed = func(leg session.Leg, in session.Buf, out *session.Out) (int, int) {
		got += in.Len()
		out.Pause[session.Client] = true
		return in.Len(), 0
	}
	left := make(chan bool, 1)
	rec.eof = func(half bool, out *session.Out) { left <- half; out.End = &session.Fault{Code: orderly} }
	k := newRig(t, rec)
	if _, err := k.client.Write(make([]byte, 16<<10)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	if _, err := k.client.Write(make([]byte, 16<<10)); err != nil {
		t.Fatal(err)
	}
	k.client.Close() // its last octets are unread and stand in front of the end of the stream
	select {
	case <-left:
	case <-time.After(5 * time.Second):
		t.Fatal("the client's leaving went unnoticed")
	}
	if got != 32<<10 {
		t.Errorf("%d octets read of a client that had sent %d before it left", got, 32<<10)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestArrivalIsWhatTheClientsKernelHas(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what a peer's kernel has acknowledged is known by SIOCOUTQ, which only Linux has")
	}
	var mu sync.Mutex
	var arrived uint64
	rec := &pipe{wrote: func(leg session.Leg, total uint64, _ *session.Out) {
		if leg == session.Client {
			mu.Lock()
			arrived = total
			mu.Unlock()
		}
	}}
	rec.up = func(_ session.Peer, out *session.Out) { out.Arrival = true }
	k := newRig(t, rec)
	broker := k.accept()
	_ = broker.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	sent, _ := io.Copy(broker, zeros{}) // until every buffer on the way is full
	time.Sleep(50 * time.Millisecond)
	mu.Lock()
	stuck := arrived
	mu.Unlock()
	if stuck >= uint64(sent) {
		t.Fatalf("%d of %d octets are said to have arrived at a client that reads nothing", stuck, sent)
	}
	_ = k.client.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(k.client, make([]byte, sent)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		mu.Lock()
		done := arrived == uint64(sent)
		mu.Unlock()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("arrived %d of %d", arrived, sent)
		}
	}
}

// framed takes only whole frames of a four-octet length and a body.
func framed(leg session.Leg, in session.Buf, out *session.Out) (took, want int) {
	p := in.Bytes()
	for len(p)-took >= 4 {
		n := 4 + int(binary.BigEndian.Uint32(p[took:]))
		if len(p)-took < n {
			return took, n
		}
		out.Ref(1-leg, in.Slice(took, took+n))
		took += n
	}
	return took, 4
}

func TestFramesOfEverySizeComeThroughWhole(t *testing.T) {
	k := newRig(t, &pipe{feed: framed})
	broker := k.accept()
	var all []byte
	for _, n := range []int{0, 1, 28 << 10, 32<<10 - 4, 32 << 10, 33 << 10, 3 << 20, 5, 4 << 10, 100 << 10} {
		b := make([]byte, 4+n)
		_, _ = rand.Read(b[4:])
		binary.BigEndian.PutUint32(b, uint32(n))
		all = append(all, b...)
	}
	go func() { _, _ = k.client.Write(all) }()
	got := make([]byte, len(all))
	_ = broker.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := io.ReadFull(broker, got); err != nil || !bytes.Equal(got, all) {
		t.Fatalf("read %d of %d: %v", n, len(all), err)
	}
}

func TestAnnouncedLengthIsNotBelieved(t *testing.T) {
	k := newRig(t, &pipe{feed: framed})
	k.accept()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _ = k.client.Write([]byte{0x7f, 0xff, 0xff, 0xff, 1, 2, 3})
	time.Sleep(50 * time.Millisecond)
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Fatalf("%d octets allocated for a length that was only announced", grown)
	}
}

func TestCancelEndsEverything(t *testing.T) {
	k := newRig(t, &pipe{})
	k.accept()
	k.cancel()
	var end *EndError
	if err := <-k.done; !errors.As(err, &end) || end.Code != "shutdown" {
		t.Fatalf("Serve: %v", err)
	}
	k.done <- nil
}

// A session that may go nowhere ends in the words of its recorder, and the client has read them before its connection ends.
func TestNowhereIsSaidToTheClient(t *testing.T) {
	nowhere := errors.New("which of them?")
	k := newRig(t, &pipe{}, func(c *Config) { c.Dial = func(context.Context, Try) (net.Conn, error) { return nil, nowhere } })
	said, err := io.ReadAll(k.client)
	if string(said) != "nowhere: which of them?" || err != nil {
		t.Errorf("the client was told %q, %v", said, err)
	}
	k.client.Close()
	var end *EndError
	if err := <-k.done; !errors.As(err, &end) || end.Code != "nowhere" || !errors.Is(err, nowhere) {
		t.Errorf("Serve: %v", err)
	}
	k.done <- nil
}

func TestPeerHasTheStoreToAskFor(t *testing.T) {
	asked := make(chan string, 1)
	k := newRig(t, &pipe{up: func(p session.Peer, _ *session.Out) { asked <- p.Store }}, func(c *Config) { c.Store = func() string { return "orders" } })
	k.accept()
	if got := <-asked; got != "orders" {
		t.Errorf("asked for %q", got)
	}
}

// BenchmarkRelay forwards 1 KiB frames from client to broker over loopback; each operation is one frame.
func BenchmarkRelay(b *testing.B) {
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer front.Close()
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer back.Close()
	client, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	served, err := front.Accept()
	if err != nil {
		b.Fatal(err)
	}
	dialled := make(chan bool, 8)
	c := New(served, &pipe{feed: framed}, Config{
		Dial:  func(context.Context, Try) (net.Conn, error) { return net.Dial("tcp", back.Addr().String()) },
		Event: func(Event) { dialled <- true },
	})
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- c.Serve(ctx) }()
	broker, err := back.Accept()
	if err != nil {
		b.Fatal(err)
	}
	<-dialled // this recorder keeps nothing for a broker that is not there yet
	one := make([]byte, 1028)
	binary.BigEndian.PutUint32(one, 1024)
	batch := bytes.Repeat(one, 16)
	b.SetBytes(int64(len(one)))
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for sent := 0; sent < b.N; sent += 16 {
			_, _ = client.Write(batch)
		}
	}()
	if _, err := io.CopyN(io.Discard, broker, int64(b.N)*int64(len(one))); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	cancel()
	client.Close()
	broker.Close()
	<-done
}

// A goroutine of its own writes what the client's reader had for the client. That must not free the broker's reader from waiting for the client.
func TestClientThatReadsNothingHoldsTheBrokerBack(t *testing.T) {
	rec := &pipe{}
	rec.feed = func(leg session.Leg, in session.Buf, out *session.Out) (int, int) {
		if leg == session.Client {
			out.Append(session.Client, make([]byte, 16<<20))
		} else {
			out.Ref(session.Client, in)
		}
		return in.Len(), 0
	}
	k := newRig(t, rec)
	broker := k.accept()
	_, _ = k.client.Write([]byte("x")) // and then it reads nothing
	time.Sleep(50 * time.Millisecond)
	_ = broker.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = io.Copy(broker, zeros{})
	k.conn.mu.Lock()
	queued := k.conn.out.Queued(session.Client)
	k.conn.mu.Unlock()
	if queued > 2*maxQueued {
		t.Errorf("%d octets are queued for a client that reads nothing", queued)
	}
}

// A frame whose end is not announced grows its buffer by doubling, not by what is missing.
func TestUnannouncedLengthIsNotCopiedAgainAndAgain(t *testing.T) {
	const size = 8 << 20
	whole := make(chan bool, 1)
	k := newRig(t, &pipe{feed: func(leg session.Leg, in session.Buf, _ *session.Out) (int, int) {
		if in.Len() < size {
			return 0, in.Len() + 1
		}
		whole <- true
		return in.Len(), 0
	}})
	k.accept()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	go func() { _, _ = io.CopyN(k.client, zeros{}, size) }()
	<-whole
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 16*size {
		t.Errorf("%d MiB allocated for a frame of %d MiB", grown>>20, size>>20)
	}
}

// The event that ends a session says what was open, though the recorder is closed by then.
func TestEndIsReportedWithWhatWasOpen(t *testing.T) {
	k := newRig(t, &pipe{})
	k.accept()
	k.cancel()
	<-k.done
	k.done <- nil
	k.mu.Lock()
	defer k.mu.Unlock()
	if last := k.events[len(k.events)-1]; last.Kind != Ended || last.Report.State != "open" {
		t.Errorf("the last event is %+v", last)
	}
}

// A client that does not read holds up the goroutine which reads the broker. The broker's loss must be noticed all the same, for there are
// claims to be made in time; and not an octet of what was on its way to the client may be lost or repeated by it.
func TestLossIsNoticedBehindAClientThatDoesNotRead(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("noticing the reset of a connection that is not read needs poll(2), which is asked on Linux only")
	}
	for name, lose := range map[string]func(k *rig, broker *net.TCPConn){
		"reset by the broker": func(_ *rig, broker *net.TCPConn) { _ = broker.SetLinger(0); broker.Close() },
		"left on purpose":     func(k *rig, _ *net.TCPConn) { k.conn.Sever(errors.New("drill")) },
	} {
		t.Run(name, func(t *testing.T) {
			k := newRig(t, &pipe{})
			first := k.accept()
			_ = first.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			_, _ = io.Copy(first, &counting{})
			lose(k, first)
			second := k.accept()
			const marker = 255
			_, _ = second.Write([]byte{marker})
			_ = k.client.SetReadDeadline(time.Now().Add(10 * time.Second))
			buf := make([]byte, 1<<20)
			next := byte(0)
			for {
				n, err := k.client.Read(buf)
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
		})
	}
}

// counting is an endless stream of 0, 1, … counts-1, 0, …
type counting struct{ next byte }

const counts = 251

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = c.next
		c.next = (c.next + 1) % counts
	}
	return len(p), nil
}
