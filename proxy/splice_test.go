package proxy

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/proxy/certtest"
	"github.com/understudy-mq/understudy/routing"
)

// splicing is a proxy that remembers nothing, on loopback.
func splicing(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := newWorld(t, func(c *Config) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.Listener, c.Dial, c.NewRecorder, c.Splice = ln, nil, nil, true
		if change != nil {
			change(c)
		}
	})
	served := make(chan error, 1)
	go func() { served <- w.proxy.Serve() }()
	t.Cleanup(func() {
		w.proxy.cancel(ErrDrained)
		_ = w.proxy.Shutdown(t.Context())
		if err := <-served; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return w
}

// says waits for the log to have text.
func (w *world) says(text string) {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(w.log.String(), text); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("does not say %q:\n%s", text, w.log.String())
		}
	}
}

type talker struct {
	*testing.T
	*net.TCPConn
	lines *bufio.Reader
}

func (w *world) talk() *talker {
	w.t.Helper()
	c, err := net.Dial("tcp", w.proxy.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return &talker{w.t, c.(*net.TCPConn), bufio.NewReader(c)}
}

func (c *talker) hear(want string) {
	c.Helper()
	if got, err := c.lines.ReadString('\n'); err != nil || got != want+"\n" {
		c.Fatalf("heard %q %v, want %q", got, err, want)
	}
}

// end reads to the end, and says how long that took.
func (c *talker) end() time.Duration {
	c.Helper()
	began := time.Now()
	if rest, err := io.ReadAll(c.lines); err != nil && !strings.Contains(err.Error(), "reset") || len(rest) > 0 {
		c.Errorf("%q, %v before the end", rest, err)
	}
	return time.Since(began)
}

// A client is cut off when its broker dies, and its next connect goes to the one that is active now; a standby is not tried.
func TestSpliceRedirects(t *testing.T) {
	a, b := startServer(t, 1), startServer(t, 2)
	w := splicing(t, nil)
	w.broker(b.target(), standby, nil)
	early := w.talk() // before there is anybody
	w.broker(a.target(), active, nil)
	early.hear("active 1")
	c := w.talk()
	c.hear("active 1")
	fmt.Fprintln(c, "x")
	c.hear("x from epoch 1")
	if s := w.proxy.Sessions(); len(s) != 2 || s[1].Report.State != "run" || s[1].Report.Broker != string(a.target()) || !strings.Contains(s[1].Report.NotResumable, "not recorded") {
		t.Errorf("%+v", s)
	}
	if n := w.metric(`understudy_sidecar_not_resumable_sessions{listener="stomp"}`); n != 0 {
		t.Errorf("%v sessions are alarming", n)
	}
	a.kill()
	if took := c.end(); took > time.Second {
		t.Errorf("the end came after %v", took)
	}
	early.end()
	late := w.talk()
	time.Sleep(20 * time.Millisecond)
	w.verdict(a.target(), health.Verdict{State: health.Down})
	w.verdict(b.target(), active)
	late.hear("active 2")
	early.Close()
	c.Close()
	w.says("code=broker-closed")
	if n := w.metric(`understudy_sidecar_legs_lost_total{listener="stomp",code="closed"}`); n < 1 {
		t.Errorf("%v lost", n)
	}
}

// A broker that is marked down, or lost its role, is left at once though its connections are whole; KeepFallen leaves them.
func TestSpliceCutsWhatIsMarkedDown(t *testing.T) {
	for _, v := range []health.Verdict{{State: health.Down, Because: health.Evidence{Kind: health.ProbeFailed, Detail: "no answer"}}, standby, suspect} {
		for _, keep := range []bool{false, true} {
			t.Run(fmt.Sprint(v.State, keep), func(t *testing.T) {
				a := startServer(t, 1)
				w := splicing(t, func(c *Config) { c.KeepFallen = keep })
				w.broker(a.target(), active, nil)
				c := w.talk()
				c.hear("active 1")
				w.verdict(a.target(), v)
				if keep || v.State == health.Suspect {
					time.Sleep(50 * time.Millisecond)
					fmt.Fprintln(c, "x")
					c.hear("x from epoch 1")
					return
				}
				if took := c.end(); took > 500*time.Millisecond {
					t.Errorf("cut after %v", took)
				}
				w.says("the broker is " + v.State.String())
			})
		}
	}
}

// Octets pass unchanged, and one direction may end before the other.
func TestSplicePassesAllAndHalfCloses(t *testing.T) {
	data := make([]byte, 4<<20)
	_, _ = rand.Read(data)
	target := health.Target(peer(t, func(c net.Conn) {
		all, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(all, data) {
			t.Errorf("%d octets, %v", len(all), err)
		}
		_, _ = c.Write(all)
	}))
	w := splicing(t, nil)
	w.broker(target, active, nil)
	c := w.talk()
	go func() {
		_, _ = c.Write(data)
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d octets back, %v", len(got), err)
	}
	for deadline := time.Now().Add(5 * time.Second); len(w.proxy.Sessions()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the session does not end")
		}
	}
	if k := w.kinds(); len(k) > 0 || strings.Contains(w.log.String(), "code=broker") {
		t.Errorf("an orderly end is evidence %v\n%s", k, w.log.String())
	}
}

func TestSpliceDoesNotWaitForEver(t *testing.T) {
	w := splicing(t, func(c *Config) { c.Hold = 100 * time.Millisecond })
	if took := w.talk().end(); took < 50*time.Millisecond || took > 2*time.Second {
		t.Errorf("held for %v", took)
	}
	w.says("code=hold-timeout")
	w = splicing(t, nil)
	w.talk().Close()
	for deadline := time.Now().Add(5 * time.Second); w.proxy.accepted.Load() == 0 || len(w.proxy.Sessions()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a client that has left is still waited for")
		}
	}
}

// With TLS on both legs octets are copied, and ends are passed on as TLS has them; a client that says nothing of TLS is not waited for longer than
// its handshake may take, and costs no broker.
func TestSpliceTLS(t *testing.T) {
	ca := certtest.NewCA(t)
	server := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, time.Hour, "127.0.0.1").TLS(t)}}
	client := &tls.Config{RootCAs: ca.Pool, ServerName: "127.0.0.1"}
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	target := health.Target(peer(t, func(c net.Conn) {
		s := tls.Server(c, server)
		all, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(all, data) {
			t.Errorf("%d octets, %v", len(all), err)
		}
		_, _ = s.Write(all)
		_ = s.CloseWrite()
	}))
	w := splicing(t, func(c *Config) {
		c.ClientTLS, c.Dial = server, (&Dialer{TLS: func(string) *tls.Config { return client }}).Connect
	})
	w.verdict(target, active)
	w.table.Set("static", []routing.Endpoint{{Target: target, Weight: 1, TLS: true}})
	c := w.talk()
	secured := tls.Client(c.TCPConn, client)
	go func() {
		_, _ = secured.Write(data)
		_ = secured.CloseWrite()
	}()
	if got, err := io.ReadAll(secured); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d octets back, %v", len(got), err)
	}
	stranger := w.talk()
	fmt.Fprintln(stranger, "CONNECT")
	_, _ = io.ReadAll(stranger)
	w.says("code=tls")
	if n := w.metric(`understudy_sidecar_dials_total{listener="stomp",result="connected"}`); n != 1 {
		t.Errorf("%v connects", n)
	}
}

// What passes through unread is not split over two stores of one name either.
func TestSpliceEndsAtNamesakes(t *testing.T) {
	a, b := startServer(t, 1), startServer(t, 2)
	w := splicing(t, func(c *Config) { c.Store = "orders" })
	w.broker(a.target(), has(health.Active, "u1 orders 3"), nil)
	w.talk().hear("active 1")
	w.broker(b.target(), has(health.Active, "u2 orders 1"), nil)
	if took := w.talk().end(); took > 5*time.Second {
		t.Errorf("the end came after %v", took)
	}
	w.says("code=which-store")
}
