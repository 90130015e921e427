package brokers_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/scripts/harness/brokers"
)

const (
	startLimit    = 2 * time.Minute
	takeoverLimit = 40 * time.Second
	messages      = 20
)

// binary builds our own program once for all tests of the kind paired.
func binary(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "understudy")
	build := exec.Command("go", "build", "-o", out, "./cmd/understudy")
	build.Dir = "../../.."
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build understudy: %v\n%s", err, said)
	}
	return out
}

// start hands back a running cluster, or skips when its software is missing.
func start(t *testing.T, kind string) brokers.Cluster {
	t.Helper()
	if err := brokers.Missing(kind); errors.Is(err, brokers.ErrMissing) {
		t.Skip(err)
	}
	opt := brokers.Options{Logf: t.Logf}
	if kind == "paired" {
		opt.Understudy = binary(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	began := time.Now()
	c, err := brokers.Start(ctx, kind, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%s (%s) is up after %v; resident: %s", kind, c.Version(), time.Since(began).Round(time.Millisecond), resident(c))
	return c
}

// resident tells the memory of each node.
func resident(c brokers.Cluster) string {
	var all []string
	for _, n := range c.Nodes() {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if rss, is := strings.CutPrefix(line, "VmRSS:"); is {
				all = append(all, strings.TrimSpace(rss))
			}
		}
	}
	return strings.Join(all, ", ")
}

// peer is a conversation with a broker.
type peer struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// connect logs in at the node that serves.
func connect(t *testing.T, c brokers.Cluster) (*peer, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), takeoverLimit)
	defer cancel()
	active, err := c.Active(ctx)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", c.Nodes()[active].Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &peer{t: t, conn: conn, in: bufio.NewReader(conn)}
	user, pass := c.Login()
	h := map[string]string{"accept-version": "1.2", "host": c.Vhost()}
	if user != "" {
		h["login"], h["passcode"] = user, pass
	}
	p.send("CONNECT", h, "")
	if command, _, _ := p.read(); command != "CONNECTED" {
		t.Fatalf("%s answers CONNECT with %s", c.Nodes()[active].Name(), command)
	}
	return p, active
}

func (p *peer) send(command string, headers map[string]string, body string) {
	p.t.Helper()
	var b strings.Builder
	b.WriteString(command + "\n")
	for k, v := range headers {
		b.WriteString(k + ":" + v + "\n")
	}
	b.WriteString("\n" + body + "\x00")
	if _, err := p.conn.Write([]byte(b.String())); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) read() (command string, headers map[string]string, body string) {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(takeoverLimit))
	frame, err := p.in.ReadString(0)
	if err != nil {
		p.t.Fatalf("read frame: %v", err)
	}
	head, body, _ := strings.Cut(strings.TrimLeft(strings.TrimSuffix(frame, "\x00"), "\r\n"), "\n\n")
	lines := strings.Split(head, "\n")
	headers = map[string]string{}
	for _, line := range lines[1:] {
		if k, v, _ := strings.Cut(line, ":"); headers[k] == "" {
			headers[k] = v
		}
	}
	return lines[0], headers, body
}

// produce stores the messages, each with a receipt.
func produce(t *testing.T, c brokers.Cluster, queue string) int {
	t.Helper()
	p, active := connect(t, c)
	destination, extra, _ := c.Queue(queue)
	for i := range messages {
		h := maps.Clone(extra)
		if h == nil {
			h = map[string]string{}
		}
		h["destination"], h["receipt"] = destination, fmt.Sprint("r", i)
		p.send("SEND", h, fmt.Sprint("message ", i))
		if command, h, body := p.read(); command != "RECEIPT" {
			t.Fatalf("SEND %d was answered by %s %v %s", i, command, h, body)
		}
	}
	return active
}

// consume takes all messages and acknowledges them; they must come in order.
func consume(t *testing.T, c brokers.Cluster, queue string) int {
	t.Helper()
	p, active := connect(t, c)
	destination, _, extra := c.Queue(queue)
	h := map[string]string{"id": "1", "destination": destination, "ack": "client-individual"}
	maps.Copy(h, extra)
	p.send("SUBSCRIBE", h, "")
	acks := make([]string, messages)
	for i := range acks {
		command, h, body := p.read()
		if want := fmt.Sprint("message ", i); command != "MESSAGE" || body != want {
			t.Fatalf("got %s %v %q, want message %q", command, h, body, want)
		}
		acks[i] = h["ack"]
	}
	for i, id := range acks {
		p.send("ACK", map[string]string{"id": id, "receipt": fmt.Sprint("a", i)}, "")
		if command, h, body := p.read(); command != "RECEIPT" {
			t.Fatalf("ACK %d was answered by %s %v %s", i, command, h, body)
		}
	}
	return active
}

// takeover waits until another node than old serves, and tells how long that took.
func takeover(t *testing.T, c brokers.Cluster, fault string, old int, began time.Time) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), takeoverLimit)
	defer cancel()
	active, err := c.Active(ctx)
	if err != nil {
		for _, n := range c.Nodes() {
			t.Logf("log of %s: %s", n.Name(), n.Log())
		}
		t.Fatal(err)
	}
	if active == old {
		t.Fatalf("after %s of node %d it serves again", fault, old)
	}
	t.Logf("%s: CONNECTED elsewhere after %v", fault, time.Since(began).Round(time.Millisecond))
	return active
}

func restart(t *testing.T, n brokers.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	if err := n.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestFaults drives every kind through the faults that the harness injects, and asks each time for what was stored before.
func TestFaults(t *testing.T) {
	for _, kind := range brokers.Kinds() {
		t.Run(kind, func(t *testing.T) {
			c := start(t, kind)

			old := produce(t, c, "kill")
			began := time.Now()
			if err := c.Nodes()[old].Kill(); err != nil {
				t.Fatal(err)
			}
			if c.Nodes()[old].Running() {
				t.Error("it runs after Kill")
			}
			takeover(t, c, "kill", old, began)
			consume(t, c, "kill")
			restart(t, c.Nodes()[old])

			old = produce(t, c, "stop")
			began = time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), takeoverLimit)
			defer cancel()
			if err := c.Nodes()[old].Stop(ctx); err != nil {
				t.Fatal(err)
			}
			t.Logf("stop: gone after %v", time.Since(began).Round(time.Millisecond))
			takeover(t, c, "stop", old, began)
			consume(t, c, "stop")
			restart(t, c.Nodes()[old])

			old = produce(t, c, "freeze")
			began = time.Now()
			n := c.Nodes()[old]
			if err := n.Freeze(); err != nil {
				t.Fatal(err)
			}
			if kind == "activemq" || kind == "artemis" { // the lock of a file stays with a frozen owner
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				if active, err := c.Active(ctx); err == nil {
					t.Errorf("node %d serves while the owner %d is frozen with the lock", active, old)
				}
				if err := n.Thaw(); err != nil {
					t.Fatal(err)
				}
			} else {
				takeover(t, c, "freeze", old, began)
			}
			consume(t, c, "freeze")
			if n.Running() && kind != "activemq" && kind != "artemis" {
				if err := n.Thaw(); err != nil {
					t.Fatal(err)
				}
			}
			t.Log("resident at the end: ", resident(c))
		})
	}
}

func TestMissing(t *testing.T) {
	t.Setenv("ARTEMIS_HOME", t.TempDir())
	err := brokers.Missing("artemis")
	if !errors.Is(err, brokers.ErrMissing) || !strings.Contains(err.Error(), "scripts/install-brokers artemis") {
		t.Errorf("Missing says %v, want ErrMissing and how to install", err)
	}
	if _, err := brokers.Start(t.Context(), "artemis", brokers.Options{}); !errors.Is(err, brokers.ErrMissing) {
		t.Errorf("Start says %v, want ErrMissing", err)
	}
	if _, err := brokers.Start(t.Context(), "nosuch", brokers.Options{}); err == nil || errors.Is(err, brokers.ErrMissing) {
		t.Errorf("Start of an unknown kind says %v, want its own error", err)
	}
}

// TestClose wants nothing left of a cluster: neither processes nor files.
func TestClose(t *testing.T) {
	c := start(t, "paired")
	var pids []int
	for _, n := range c.Nodes() {
		pids = append(pids, n.PID())
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for i, n := range c.Nodes() {
		if n.Running() || n.PID() != 0 {
			t.Errorf("%s runs after Close", n.Name())
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pids[i])); err == nil {
			t.Errorf("process %d of %s is left", pids[i], n.Name())
		}
	}
	if err := c.Nodes()[0].Start(t.Context()); err == nil {
		t.Error("a node of a closed cluster starts")
	}
	if slices.Contains(pids, 0) {
		t.Errorf("pids of running nodes are %v", pids)
	}
}
