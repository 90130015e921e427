package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/routing"
	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/relay"
)

// world is what surrounds a Proxy in these tests: verdicts that a test sets, brokers that answer as it says, and a note of all that happened.
type world struct {
	t     *testing.T
	table *routing.Table
	proxy *Proxy
	set   *metrics.Set
	log   syncBuffer

	mu       sync.Mutex
	verdicts map[health.Target]health.Verdict
	changed  chan struct{}
	answers  map[health.Target]func(ctx context.Context) (net.Conn, error)
	dials    []dialled
	evidence []health.Evidence
	probed   []health.Target
	refresh  int
	hurried  int
	hurrying int
}

type dialled struct {
	target health.Target
	at     time.Time
}

var errRefused = errors.New("connection refused")

func refuse(context.Context) (net.Conn, error) { return nil, errRefused }

func hang(ctx context.Context) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// accept is a broker that takes the connection; what is written to it goes nowhere.
func accept(context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	far.Close()
	return near, nil
}

func newWorld(t *testing.T, change func(*Config)) *world {
	w := &world{t: t, set: metrics.NewSet(), verdicts: map[health.Target]health.Verdict{}, changed: make(chan struct{}),
		answers: map[health.Target]func(context.Context) (net.Conn, error){}}
	w.table = routing.NewTable(routing.TableConfig{Verdicts: func() (map[health.Target]health.Verdict, <-chan struct{}) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.verdicts, w.changed
	}})
	cfg := Config{
		Listener: newPipeListener(), NewRecorder: func() session.Recorder { return nil }, View: w.table.View, Health: w, Dial: w.dial,
		Logger: slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Metrics: w.set,
		Refresh: func() { w.mu.Lock(); w.refresh++; w.mu.Unlock() },
		Hurry: func() func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.hurried++
			w.hurrying++
			return func() { w.mu.Lock(); w.hurrying--; w.mu.Unlock() }
		},
	}
	if change != nil {
		change(&cfg)
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.proxy = p
	return w
}

func (w *world) dial(ctx context.Context, ep routing.Endpoint) (net.Conn, error) {
	w.mu.Lock()
	answer := w.answers[ep.Target]
	w.dials = append(w.dials, dialled{ep.Target, time.Now()})
	w.mu.Unlock()
	return answer(ctx)
}

// broker makes a target known, with a verdict and an answer.
func (w *world) broker(target health.Target, v health.Verdict, answer func(context.Context) (net.Conn, error)) {
	w.mu.Lock()
	w.answers[target] = answer
	eps := make([]routing.Endpoint, 0, len(w.answers))
	for t := range w.answers {
		eps = append(eps, routing.Endpoint{Target: t, Weight: 1})
	}
	w.mu.Unlock()
	w.verdict(target, v)
	w.table.Set("static", eps)
}

func (w *world) verdict(target health.Target, v health.Verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := map[health.Target]health.Verdict{}
	for t, was := range w.verdicts {
		next[t] = was
	}
	v.Target = target
	next[target] = v
	w.verdicts = next
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) Observe(e health.Evidence) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.evidence = append(w.evidence, e)
}

func (w *world) ProbeNow(t health.Target) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.probed = append(w.probed, t)
}

func (w *world) dialsOf(target health.Target) (at []time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.dials {
		if d.target == target {
			at = append(at, d.at)
		}
	}
	return at
}

func (w *world) kinds() (out []health.Kind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.evidence {
		out = append(out, e.Kind)
	}
	return out
}

// link is a session without a relay.
func (w *world) link(r relayed) *link {
	id := w.proxy.accepted.Add(1)
	l := &link{p: w.proxy, id: id, client: "127.0.0.1:9", since: time.Now(), rnd: rand.New(rand.NewPCG(id, 2)), relay: r}
	w.proxy.mu.Lock()
	w.proxy.links[l.id] = l
	w.proxy.mu.Unlock()
	return l
}

func (w *world) metric(name string) float64 {
	w.t.Helper()
	var b bytes.Buffer
	w.set.WritePrometheus(&b)
	for line := range bytes.Lines(b.Bytes()) {
		if rest, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			return parse(w.t, string(bytes.TrimSpace(rest)))
		}
	}
	w.t.Fatalf("metric %s is not there:\n%s", name, b.String())
	return 0
}

// fakeRelay serves until it is told to stop, or its context ends.
type fakeRelay struct {
	conn net.Conn
	cfg  relay.Config
	stop chan error

	mu      sync.Mutex
	state   session.Report
	severed []error
}

func (f *fakeRelay) Start(ctx context.Context, ended func(error)) {
	var err error
	select {
	case err = <-f.stop:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	f.conn.Close()
	ended(err)
}

func (f *fakeRelay) Trim(time.Time) {}

func (f *fakeRelay) Report() session.Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

func (f *fakeRelay) Sever(why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.severed = append(f.severed, why)
}

func (f *fakeRelay) cuts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.severed)
}

// fakeRelays makes the proxy use them, and hands out each.
func (w *world) fakeRelays() <-chan *fakeRelay {
	made := make(chan *fakeRelay, 100)
	w.proxy.newRelay = func(c net.Conn, _ session.Recorder, cfg relay.Config) relayed {
		f := &fakeRelay{conn: c, cfg: cfg, stop: make(chan error, 1)}
		made <- f
		return f
	}
	return made
}

// pipeListener is a listener in memory.
type pipeListener struct {
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{}),
		addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 61613}}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case err := <-l.errs:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return l.addr }

// connect is a client's side of a new connection.
func (l *pipeListener) connect() net.Conn {
	near, far := net.Pipe()
	l.conns <- far
	return near
}

// hungUp says whether the other side has closed.
func hungUp(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
