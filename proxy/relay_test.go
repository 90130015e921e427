package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/routing"
	"github.com/understudy-mq/understudy/session"
)

// lines is a recorder of a protocol for tests. A broker greets with "active EPOCH" or "standby"; then each line of the client is answered
// by a line. One line is outstanding at a time, and is played again to the next broker.
type lines struct {
	open   string // line without its answer
	queued bool   // the client has said something
	live   bool
	peer   string
	report session.Report
	up     func(session.Peer) // may be nil
}

func (r *lines) Feed(leg session.Leg, in session.Buf, out *session.Out) (took, want int) {
	end := bytes.IndexByte(in.Bytes(), '\n') + 1
	if end == 0 {
		return 0, in.Len() + 1
	}
	line := string(in.Bytes()[:end])
	switch {
	case leg == session.Client:
		r.open, r.queued = line, true
		if r.live {
			out.Append(session.Broker, []byte(line))
		}
	case r.live && line != "moved\n":
		r.open = ""
		out.Append(session.Client, []byte(line))
	case strings.HasPrefix(line, "active "):
		r.live, out.Live = true, true
		r.report.State, r.report.Store, r.report.Broker = "run", "s", r.peer
		r.report.Epoch, _ = strconv.ParseUint(strings.TrimSpace(line[len("active "):]), 10, 64)
		if r.open != "" {
			out.Append(session.Broker, []byte(r.open))
		}
	default:
		out.Move = coded(strings.TrimSpace(line))
	}
	return end, 0
}

func (r *lines) Wrote(session.Leg, uint64, *session.Out) {}
func (r *lines) Up(p session.Peer, _ *session.Out) {
	if r.peer, r.report.State = p.Name, "login"; r.up != nil {
		r.up(p)
	}
}
func (r *lines) Down(error, *session.Out) { r.live, r.report.State = false, "park" }
func (r *lines) Tick(*session.Out)        {}
func (r *lines) Nowhere(why error, out *session.Out) {
	out.Append(session.Client, []byte("nowhere: "+why.Error()+"\n"))
	out.End = &session.Fault{Code: code(why), Cause: why}
}
func (r *lines) Hints() session.Hints     { return session.Hints{Ready: r.queued} }
func (r *lines) Report(p *session.Report) { *p = r.report }
func (r *lines) Close()                   {}
func (r *lines) ClientEOF(_ bool, out *session.Out) {
	r.report.State = "end"
	out.End = &session.Fault{Code: "client-closed"}
}

// server is a broker of that protocol on loopback.
type server struct {
	ln     net.Listener
	joined sync.WaitGroup

	mu    sync.Mutex
	epoch int // 0: standby
	conns map[net.Conn]bool
}

func startServer(t testing.TB, epoch int) *server {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{ln: ln, epoch: epoch, conns: map[net.Conn]bool{}}
	s.joined.Go(s.run)
	t.Cleanup(s.kill)
	return s
}

func (s *server) target() health.Target { return health.Target(s.ln.Addr().String()) }

func (s *server) run() {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = true
		epoch := s.epoch
		s.mu.Unlock()
		s.joined.Go(func() {
			defer c.Close()
			if epoch == 0 {
				fmt.Fprintln(c, "standby")
				return
			}
			fmt.Fprintln(c, "active", epoch)
			for in := bufio.NewScanner(c); in.Scan(); {
				fmt.Fprintf(c, "%s from epoch %d\n", in.Text(), epoch)
			}
		})
	}
}

func (s *server) promote(epoch int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch = epoch
}

// kill ends the server and all its connections at once.
func (s *server) kill() {
	s.ln.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.joined.Wait()
}

// probe is what health asks.
func probe(ctx context.Context, t health.Target) health.Evidence {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", string(t))
	if err != nil {
		return health.Evidence{Kind: health.DialFailed, Detail: err.Error()}
	}
	defer c.Close()
	line, _ := bufio.NewReader(c).ReadString('\n')
	var epoch uint64
	if _, err := fmt.Sscanf(line, "active %d", &epoch); err != nil {
		return health.Evidence{Kind: health.ProbeStandby}
	}
	return health.Evidence{Kind: health.ProbeActive, Stores: []health.Served{{UUID: "s", Epoch: epoch}}}
}

// The whole way, with real sockets, the real relay and the real health: clients keep talking while their broker is killed and a standby
// takes over a little later; then everybody drains.
func TestClientsOutliveTheirBroker(t *testing.T) {
	before := runtime.NumGoroutine()
	a, b := startServer(t, 1), startServer(t, 0)
	monitor := health.NewMonitor(health.Config{Probe: probe})
	monitor.SetTargets([]health.Target{a.target(), b.target()})
	table := routing.NewTable(routing.TableConfig{Verdicts: monitor.Snapshot})
	table.Set("static", []routing.Endpoint{{Target: a.target(), Weight: 1}, {Target: b.target(), Weight: 1}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	told := func(p session.Peer) {
		if p.Login != "for "+p.Name || p.Passcode != "x" {
			t.Errorf("%s is told %q %q", p.Name, p.Login, p.Passcode)
		}
	}
	p, err := New(Config{Listener: ln, NewRecorder: func() session.Recorder { return &lines{up: told} }, View: table.View, Health: monitor, Hurry: monitor.Hurry,
		Credentials: func(ep routing.Endpoint) (string, string) { return "for " + string(ep.Target), "x" }})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- p.Serve() }()

	const clients = 40
	conns := make([]net.Conn, clients)
	readers := make([]*bufio.Reader, clients)
	ask := func(i int, question string) string {
		_ = conns[i].SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintln(conns[i], question)
		answer, err := readers[i].ReadString('\n')
		if err != nil {
			t.Errorf("client %d: %v", i, err)
		}
		return strings.TrimSpace(answer)
	}
	each := func(f func(i int)) {
		var joined sync.WaitGroup
		for i := range clients {
			joined.Go(func() { f(i) })
		}
		joined.Wait()
	}
	each(func(i int) {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		conns[i] = c
		readers[i] = bufio.NewReader(conns[i])
		if got := ask(i, "one"); got != "one from epoch 1" {
			t.Errorf("client %d got %q", i, got)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	a.kill()
	const gap = 60 * time.Millisecond
	killed := time.Now()
	time.AfterFunc(gap, func() { b.promote(2) })
	var mu sync.Mutex
	var worst time.Duration
	each(func(i int) {
		if got := ask(i, "two"); got != "two from epoch 2" {
			t.Errorf("client %d got %q", i, got)
		}
		mu.Lock()
		worst = max(worst, time.Since(killed)-gap)
		mu.Unlock()
	})
	t.Logf("the last of %d clients had its answer %v after the standby became active", clients, worst)
	if worst > 2*time.Second {
		t.Errorf("the last client had its answer %v after the standby became active", worst)
	}
	for _, s := range p.Sessions() {
		if s.Report.Epoch != 2 || s.Report.Broker != string(b.target()) {
			t.Errorf("session %d: %+v", s.ID, s.Report)
		}
	}
	each(func(i int) { conns[i].Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	verdicts, _ := monitor.Snapshot()
	if v := verdicts[b.target()]; v.State != health.Active {
		t.Errorf("after clients left in order the broker is %v because of %+v", v.State, v.Because)
	}
	monitor.Close()
	b.kill()
	leaked(t, before)
}

// leaked fails the test if goroutines are left that were not there before.
func leaked(t *testing.T, before int) {
	t.Helper()
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
}
