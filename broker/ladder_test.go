package broker

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// patience bounds every wait of a test; none should come near it, also where the race detector and other tests share the processors.
const patience = 30 * time.Second

// testServer is a running server on a directory.
type testServer struct {
	*Server
	t      *testing.T
	addr   string
	cancel context.CancelFunc
	ended  chan error
	roles  chan Role
	dialed []net.Conn
}

// start runs a server; change may adjust its configuration. The test ends it.
func start(t *testing.T, dir string, change ...func(*Config)) *testServer {
	t.Helper()
	t.Cleanup(func() {
		if _, ok := spoilt.Load(dir); !ok {
			checkStore(t, dir)
		}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	roles := make(chan Role, 64)
	cfg := Config{
		Stores: []StoreConfig{{Name: "orders", Dir: dir, Own: true}}, Listener: ln, ReclaimWindow: 300 * time.Millisecond, LingerTimeout: time.Second,
		SegmentBytes: 1 << 20, Changed: func(s Status) { roles <- s.Stores[0].Role },
	}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	for _, f := range change {
		f(&cfg)
	}
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &testServer{Server: srv, t: t, addr: ln.Addr().String(), cancel: cancel, ended: make(chan error, 1), roles: roles}
	go func() { s.ended <- srv.Run(ctx) }()
	t.Cleanup(func() { s.stop() })
	return s
}

// spoilt are the directories whose journal a test has damaged. All others are checked in the end.
var spoilt sync.Map

// legible complains of a record that no recovery could use.
func legible(r journal.Record) error {
	if d := Describe(r, false); d.Err != "" {
		return errors.New(d.Err)
	}
	return nil
}

// one is the server's only store.
func (s *testServer) one() StoreStatus { return s.Status().Stores[0] }

// active waits until s serves.
func (s *testServer) active() *testServer {
	s.t.Helper()
	for {
		select {
		case r := <-s.roles:
			if r == Active {
				return s
			}
		case err := <-s.ended:
			s.t.Fatalf("server ended: %v", err)
		case <-time.After(patience):
			s.t.Fatal("server did not become active")
		}
	}
}

func serving(t *testing.T, change ...func(*Config)) *testServer {
	t.Helper()
	return start(t, t.TempDir(), change...).active()
}

// stop ends s in an orderly way, once.
func (s *testServer) stop() {
	s.t.Helper()
	if s.cancel == nil {
		return
	}
	s.cancel()
	s.cancel = nil
	select {
	case err := <-s.ended:
		if err != nil {
			s.t.Errorf("server ended: %v", err)
		}
	case <-time.After(patience):
		s.t.Error("server did not stop")
	}
}

// restart ends s and starts another one on its directory.
func (s *testServer) restart(change ...func(*Config)) *testServer {
	s.t.Helper()
	for _, nc := range s.dialed { // else the server would linger for them
		nc.Close()
	}
	s.stop()
	return start(s.t, s.cfg.Stores[0].Dir, change...).active()
}

// client is the test's end of a connection.
type client struct {
	t      *testing.T
	s      *testServer
	nc     net.Conn
	parser frame.Parser
	buf    []byte
}

func (s *testServer) dial() *client {
	s.t.Helper()
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { nc.Close() })
	s.dialed = append(s.dialed, nc)
	return &client{t: s.t, s: s, nc: nc}
}

// connected is a direct client in that version.
func (s *testServer) connected(version string) *client {
	s.t.Helper()
	c := s.dial()
	c.connect(version)
	return c
}

func (c *client) connect(version string, headers ...string) *reply {
	c.t.Helper()
	head := []string{"accept-version:" + version, "host:whatever", "login:guest", "passcode:secret"}
	if version == "1.0" {
		head = head[2:]
	}
	c.send("CONNECT", append(head, headers...)...)
	r := c.expect("CONNECTED")
	c.parser.Version, _ = frame.ParseVersion([]byte(version))
	return r
}

// subscriber is a direct 1.2 client with the subscription s.
func (s *testServer) subscriber(dest, ack string, headers ...string) *client {
	s.t.Helper()
	c := s.connected("1.2")
	c.subscribe("s", dest, ack, headers...)
	return c
}

func (c *client) subscribe(id, dest, ack string, headers ...string) *reply {
	c.t.Helper()
	c.send("SUBSCRIBE", append([]string{"id:" + id, "destination:" + dest, "ack:" + ack, "receipt:sub-" + id}, headers...)...)
	return c.expect("RECEIPT", "receipt-id", "sub-"+id)
}

// sidecar is a sidecar's connection. cursor is what the sidecar knows to be durable.
func (s *testServer) sidecar(session string, attempt int, headers ...string) (*client, *reply) {
	s.t.Helper()
	c := s.dial()
	c.connectSidecar(session, attempt, headers...)
	r := c.expect("CONNECTED")
	c.parser.Version = frame.V12
	return c, r
}

func (c *client) connectSidecar(session string, attempt int, headers ...string) {
	c.t.Helper()
	c.send("CONNECT", append([]string{"accept-version:1.2", "understudy-session:" + session, "understudy-attempt:" + strconv.Itoa(attempt),
		"understudy-hold:20000"}, headers...)...)
}

const (
	sessionX = "000102030405060708090a0b0c0d0e0f"
	sessionY = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
)

// send writes a frame. A header "=body" is the body.
func (c *client) send(command string, headers ...string) {
	c.t.Helper()
	c.write(text(command, headers...))
}

func text(command string, headers ...string) string {
	body := ""
	b := command + "\n"
	for _, h := range headers {
		if h[0] == '=' {
			body = h[1:]
		} else {
			b += h + "\n"
		}
	}
	return b + "\n" + body + "\x00"
}

func (c *client) write(octets string) {
	c.t.Helper()
	_ = c.nc.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c.nc, octets); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// reply is a frame from the server.
type reply struct {
	command string
	headers map[string]string
	order   []string
	body    string
}

func (r *reply) String() string { return fmt.Sprintf("%s %v %q", r.command, r.headers, r.body) }

func (c *client) read(wait time.Duration) (*reply, error) {
	_ = c.nc.SetReadDeadline(time.Now().Add(wait))
	for {
		var f frame.Frame
		n, _, err := c.parser.Next(c.buf, &f)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			c.buf = c.buf[n:]
			if f.Command == frame.EOL {
				continue
			}
			r := &reply{command: f.Command.String(), headers: map[string]string{}, body: string(f.Body)}
			for name, value := range f.Headers {
				k, _ := frame.Unescape(nil, name, c.parser.Version)
				v, _ := frame.Unescape(nil, value, c.parser.Version)
				r.headers[string(k)] = string(v)
				r.order = append(r.order, string(k))
			}
			return r, nil
		}
		more := make([]byte, 16<<10)
		n, err = c.nc.Read(more)
		c.buf = append(c.buf, more[:n]...)
		if n == 0 && err != nil {
			return nil, err
		}
	}
}

// expect reads a frame that must be command with those headers, name by value.
func (c *client) expect(command string, headers ...string) *reply {
	c.t.Helper()
	r, err := c.read(patience)
	if err != nil {
		c.t.Fatalf("waiting for %s: %v", command, err)
	}
	if r.command != command {
		c.t.Fatalf("got %v, want %s", r, command)
	}
	for i := 0; i < len(headers); i += 2 {
		if got, ok := r.headers[headers[i]]; !ok || got != headers[i+1] {
			c.t.Fatalf("got %v, want %s:%s", r, headers[i], headers[i+1])
		}
	}
	return r
}

// message expects a MESSAGE with that body.
func (c *client) message(body string, headers ...string) *reply {
	c.t.Helper()
	r := c.expect("MESSAGE", headers...)
	if r.body != body {
		c.t.Fatalf("got %v, want body %q", r, body)
	}
	return r
}

// quiet expects nothing for a while.
func (c *client) quiet() {
	c.t.Helper()
	if r, err := c.read(60 * time.Millisecond); err == nil {
		c.t.Fatalf("got %v, want nothing", r)
	} else if !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("got %v, want nothing", err)
	}
}

// closed expects the end of the connection, and not a reset.
func (c *client) closed() {
	c.t.Helper()
	if r, err := c.read(patience); err == nil {
		c.t.Fatalf("got %v, want the end", r)
	} else if !errors.Is(err, io.EOF) {
		c.t.Fatalf("got %v, want the end", err)
	}
}

// refused expects an ERROR with that message header, then the end.
func (c *client) refused(message string, headers ...string) *reply {
	c.t.Helper()
	r := c.expect("ERROR", append([]string{"message", message}, headers...)...)
	c.closed()
	return r
}

// sent stores a message and waits until it is durable.
func (c *client) sent(dest, body string, headers ...string) {
	c.t.Helper()
	c.send("SEND", append([]string{"destination:" + dest, "receipt:r", "=" + body}, headers...)...)
	c.expect("RECEIPT", "receipt-id", "r")
}

// effect sends a numbered effect and waits for its confirmation.
func (c *client) effect(n int, command string, headers ...string) *reply {
	c.t.Helper()
	c.send(command, append([]string{"understudy-effect:" + strconv.Itoa(n)}, headers...)...)
	return c.cursor(n)
}

// cursor reads RECEIPTs until one says n.
func (c *client) cursor(n int) *reply {
	c.t.Helper()
	for {
		r := c.expect("RECEIPT", "receipt-id", frame.ReceiptCursor)
		if r.headers[frame.HeaderCursor] == strconv.Itoa(n) {
			return r
		}
	}
}

// leave breaks the connection, and waits until the server has let go of it: until then what it held is nobody else's.
func (c *client) leave() {
	c.t.Helper()
	c.nc.Close()
	eventually(c.t, "the server has let go of who left", func() bool { return c.s.conn(c) == nil })
}

// conn is the server's end of a client's connection, nil if there is none.
func (s *testServer) conn(c *client) *conn {
	tenures := []*tenure{s.lobby}
	for _, k := range s.all() {
		k.mu.Lock()
		tenures = append(tenures, k.tenure)
		k.mu.Unlock()
	}
	for _, t := range tenures {
		if t == nil {
			continue
		}
		t.lock()
		for end := range t.conns {
			if end.nc.RemoteAddr().String() == c.nc.LocalAddr().String() {
				t.unlock()
				return end
			}
		}
		t.unlock()
	}
	return nil
}

// eventually waits until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// leaks fails the run if goroutines of the package outlive the tests.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("500")
	}
	code := m.Run()
	stacks := make([]byte, 1<<20)
	for range 200 {
		n := runtime.Stack(stacks, true)
		if strings.Count(string(stacks[:n]), "understudy/broker.") == 1 { // this one
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.Stack(stacks, true); code == 0 && strings.Count(string(stacks[:n]), "understudy/broker.(") > 0 {
		fmt.Printf("goroutines left behind:\n%s", stacks[:n])
		code = 1
	}
	os.Exit(code)
}
