package proxy

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/relay"
)

// mute makes a socket drop whatever reaches it, before TCP sees it: its machine is gone, as far as the other end can tell.
func mute(t *testing.T, conn net.Conn) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) {
		//lint:ignore SA1019 x/sys, which has this as well, may not be imported here, and one instruction needs no assembler
		err = syscall.AttachLsf(int(fd), []syscall.SockFilter{{Code: syscall.BPF_RET | syscall.BPF_K}})
	}); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
}

// A broker whose machine is gone is left, though its connection is not broken and no heart-beat would tell; a client's likewise.
func TestHalfOpen(t *testing.T) {
	const limit = 300 * time.Millisecond
	a, b := startServer(t, 1), startServer(t, 0)
	w := newWorld(t, func(c *Config) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.Listener, c.Dial, c.NewRecorder = ln, nil, func() session.Recorder { return &lines{} }
		c.BrokerTimeout, c.ClientTimeout = limit, limit
	})
	w.broker(a.target(), active, nil)
	w.broker(b.target(), standby, nil)
	served := make(chan error, 1)
	go func() { served <- w.proxy.Serve() }()
	defer func() { w.proxy.cancel(nil); _ = w.proxy.Shutdown(t.Context()); <-served }()
	client, err := net.Dial("tcp", w.proxy.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	answers := bufio.NewReader(client)
	ask := func(question string) string {
		t.Helper()
		fmt.Fprintln(client, question)
		line, err := answers.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line)
	}
	if got := ask("one"); got != "one from epoch 1" {
		t.Fatal(got)
	}
	a.mu.Lock()
	for c := range a.conns {
		mute(t, c)
	}
	a.mu.Unlock()
	b.promote(2)
	w.verdict(a.target(), health.Verdict{State: health.Down})
	w.verdict(b.target(), active) // an epoch would fence
	began := time.Now()
	if got, took := ask("two"), time.Since(began); got != "two from epoch 2" || took < limit || took > 5*limit {
		t.Errorf("%q after %v", got, took)
	}
	if n := w.metric(`understudy_sidecar_half_open_total{listener="stomp",leg="broker"}`); n != 1 {
		t.Errorf("counted %v", n)
	}
	if k := w.kinds(); len(k) < 2 || k[1] != health.ConnLost {
		t.Errorf("evidence %v", k)
	}
	mute(t, client)
	fmt.Fprintln(client, "three")
	for deadline := time.Now().Add(10 * time.Second); len(w.proxy.Sessions()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a client whose machine is gone is kept")
		}
	}
	if n := w.metric(`understudy_sidecar_half_open_total{listener="stomp",leg="client"}`); n != 1 {
		t.Errorf("counted %v", n)
	}
}

// hoard keeps whatever the client says.
type hoard struct{ lines }

func (h *hoard) Feed(leg session.Leg, in session.Buf, out *session.Out) (took, want int) {
	if leg == session.Client {
		out.Kept += in.Len()
		h.queued = true
	}
	return in.Len(), 0
}

// That the window of all sessions is full is said once, with the reason, and so is that there is room again.
func TestBudgetIsSaid(t *testing.T) {
	budget := relay.NewBudget(10)
	w := newWorld(t, func(c *Config) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.Listener, c.Relay.Budget, c.NewRecorder, c.BrokerTimeout = ln, budget, func() session.Recorder { return &hoard{} }, 40*time.Millisecond
	})
	served := make(chan error, 1)
	go func() { served <- w.proxy.Serve() }()
	defer func() { w.proxy.cancel(nil); _ = w.proxy.Shutdown(t.Context()); <-served }()
	client, err := net.Dial("tcp", w.proxy.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(client, "eleven octets")
	w.says("is full")
	w.says("sessions wait for a broker")
	w.says("kept_bytes=14")
	client.Close()
	w.says("has room again")
	if n := strings.Count(w.log.String(), "is full"); n != 1 {
		t.Errorf("said %d times:\n%s", n, w.log.String())
	}
}
