package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/broker/journal/journaltest"
)

// running is a command that runs in this process.
type running struct {
	addrs map[string]string
	end   context.CancelFunc
	code  chan int
	log   *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// checkAtEnd has the store of a broker that is about to start checked when the test ends, unless it is damaged already: then the test is about that.
func checkAtEnd(t *testing.T, args []string) {
	t.Helper()
	if i := slices.Index(args, "--store"); i > 0 && args[0] == "broker" && i+1 < len(args) {
		_, dir, named := strings.Cut(args[i+1], "=")
		if !named {
			dir = args[i+1]
		}
		if r, err := journal.Check(dir, journal.CheckOptions{}); err != nil || r.Err() == nil {
			journaltest.AtEnd(t, dir, readable)
		}
	}
}

// start runs a command until the test ends, or end is called; it returns once the address file is there.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	checkAtEnd(t, args)
	file := filepath.Join(t.TempDir(), "addr")
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{addrs: map[string]string{}, end: cancel, code: make(chan int, 1), log: &lockedBuffer{}}
	go func() {
		r.code <- run(ctx, append(append([]string{"understudy"}, args...), "--addr-file", file), io.Discard, r.log)
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case code := <-r.code:
			r.code <- code
		case <-time.After(20 * time.Second):
			t.Errorf("%s does not end; log:\n%s", args[0], r.log)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(file)
		if err == nil {
			for line := range strings.Lines(string(text)) {
				name, addr, _ := strings.Cut(strings.TrimSpace(line), "=")
				r.addrs[name] = addr
			}
			return r
		}
		select {
		case code := <-r.code:
			r.code <- code
			t.Fatalf("%v ended with %d: %s", args, code, r.log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v does not come up: %s", args, r.log)
		}
	}
}

// stop ends it and wants exit code 0.
func (r *running) stop(t *testing.T) {
	t.Helper()
	r.end()
	code := <-r.code
	r.code <- code
	if code != 0 {
		t.Errorf("exit code %d; log:\n%s", code, r.log)
	}
}

func (r *running) get(t *testing.T, path string) (int, string) {
	t.Helper()
	res, err := http.Get("http://" + r.addrs["admin"] + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// say sends text to a STOMP port and returns what comes back before the connection ends.
func say(t *testing.T, addr, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("after %q: %v", answer, err)
	}
	return string(answer)
}

// badInput is what every STOMP port answers with one ERROR frame, and no more than a few KiB of memory.
var badInput = map[string]struct{ text, want string }{
	"another protocol":      {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not STOMP"},
	"garbage":               {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and more\n\n", "not STOMP"},
	"a body of 2 GB":        {"CONNECT\naccept-version:1.2\nhost:x\n\n\x00SEND\ndestination:/queue/a\ncontent-length:2147483648\n\n", "body of more than"},
	"a length that is none": {"CONNECT\naccept-version:1.2\nhost:x\n\n\x00SEND\ndestination:/queue/a\ncontent-length:-1\n\n", "content-length"},
	"no CONNECT":            {"SEND\ndestination:/queue/a\n\nhello\x00", "CONNECT"},
}

// A sidecar without any broker is ready: to wait for one is its work.
func TestSidecarWithoutBroker(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	absent := free.Addr().String()
	free.Close()
	r := start(t, "sidecar", "--listen", "127.0.0.1:0", "--broker", "stomp://"+absent, "--gossip-listen", "127.0.0.1:0", "--hold-timeout", "300ms")
	for _, name := range []string{"listen", "admin", "gossip"} {
		if _, port, err := net.SplitHostPort(r.addrs[name]); err != nil || port == "0" {
			t.Errorf("address file says %s=%q", name, r.addrs[name])
		}
	}
	for path, want := range map[string]string{"/readyz": "ok", "/livez": "ok", "/metrics": "understudy_sidecar_client_connections{"} {
		if code, body := r.get(t, path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %.200q", path, code, body)
		}
	}
	_, body := r.get(t, "/status")
	var status struct {
		Process struct{ PID int }
		Brokers []struct{ Target string }
		Gossip  struct{ Members int }
	}
	if err := json.Unmarshal([]byte(body), &status); err != nil || status.Process.PID != os.Getpid() || len(status.Brokers) != 1 ||
		status.Brokers[0].Target != absent || status.Gossip.Members != 1 {
		t.Errorf("%v: %s", err, body)
	}
	// A client is held for as long as --hold-timeout says, and then told why.
	began := time.Now()
	answer := say(t, r.addrs["listen"], "CONNECT\naccept-version:1.2\nhost:x\n\n\x00")
	if held := time.Since(began); !strings.HasPrefix(answer, "ERROR\n") || held < 300*time.Millisecond || held > 5*time.Second {
		t.Errorf("after %v: %q", held, answer)
	}
	for _, name := range []string{"another protocol", "garbage", "no CONNECT"} {
		if answer := say(t, r.addrs["listen"], badInput[name].text); !strings.Contains(answer, "ERROR\n") || !strings.Contains(answer, badInput[name].want) {
			t.Errorf("%s: %q, want ERROR with %q", name, answer, badInput[name].want)
		}
	}
	r.stop(t)
	if _, err := net.Dial("tcp", r.addrs["listen"]); err == nil {
		t.Error("the listener outlived the sidecar")
	}
}

// awaitRole waits for a broker to be in a role.
func awaitRole(t *testing.T, r *running, role string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		_, body := r.get(t, "/status")
		if strings.Contains(body, `"role": "`+role+`"`) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("does not become %s: %s\n%s", role, body, r.log)
		}
	}
}

// Two brokers on one directory: that the second finds it in use is no error but its task.
func TestBrokerAndStandby(t *testing.T) {
	dir := t.TempDir()
	args := []string{"broker", "--store", dir, "--listen", "127.0.0.1:0", "--takeover", "strict", "--gossip-listen", "127.0.0.1:0"}
	first := start(t, append(args, "--name", "a")...)
	awaitRole(t, first, "active")
	second := start(t, append(args, "--name", "b", "--gossip-join", first.addrs["gossip"])...)
	awaitRole(t, second, "standby")
	const connect = "CONNECT\naccept-version:1.2\nhost:x\n\n\x00"
	if answer := say(t, second.addrs["listen"], connect); !strings.HasPrefix(answer, "ERROR\n") {
		t.Errorf("the standby answers %q", answer)
	}
	if code, body := second.get(t, "/readyz"); code != 200 {
		t.Error("a standby is not ready:", body)
	}
	const life = connect + "SEND\ndestination:/queue/q\nreceipt:1\n\nhello\x00DISCONNECT\nreceipt:2\n\n\x00"
	if answer := say(t, first.addrs["listen"], life); !strings.Contains(answer, "CONNECTED\n") || !strings.Contains(answer, "receipt-id:1\n") || !strings.Contains(answer, "receipt-id:2\n") {
		t.Errorf("the owner answers %q", answer)
	}
	for name, bad := range badInput {
		if answer := say(t, first.addrs["listen"], bad.text); !strings.Contains(answer, "ERROR\n") || !strings.Contains(answer, bad.want) {
			t.Errorf("%s: %q, want ERROR with %q", name, answer, bad.want)
		}
	}
	first.stop(t)
	awaitRole(t, second, "active")
	if _, body := second.get(t, "/status"); !strings.Contains(body, `"messages": 1`) || !strings.Contains(body, `"epoch": 2`) {
		t.Errorf("what the first confirmed is not there: %s", body)
	}
	second.stop(t)
}

// A sidecar finds the owner by itself, passes bad input off as the broker would, and drains.
func TestSidecarInFrontOfBroker(t *testing.T) {
	b := start(t, "broker", "--store", t.TempDir(), "--listen", "127.0.0.1:0", "--gossip-listen", "127.0.0.1:0")
	s := start(t, "sidecar", "--listen", "127.0.0.1:0", "--gossip-join", b.addrs["gossip"], "--drain-timeout", "300ms")
	const connect = "CONNECT\naccept-version:1.2\nhost:x\n\n\x00"
	answer := say(t, s.addrs["listen"], connect+"SEND\ndestination:/queue/q\nreceipt:1\n\nhello\x00DISCONNECT\nreceipt:2\n\n\x00")
	if !strings.Contains(answer, "CONNECTED\n") || !strings.Contains(answer, "receipt-id:1\n") || !strings.Contains(answer, "receipt-id:2\n") || strings.Contains(answer, "understudy-") {
		t.Errorf("through the sidecar: %q", answer)
	}
	for name, bad := range badInput {
		if answer := say(t, s.addrs["listen"], bad.text); !strings.Contains(answer, "ERROR\n") || !strings.Contains(answer, bad.want) {
			t.Errorf("%s: %q, want ERROR with %q", name, answer, bad.want)
		}
	}
	// A client that does not leave is closed when the time to drain is over.
	c, err := net.Dial("tcp", s.addrs["listen"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, connect); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(c, make([]byte, len("CONNECTED"))); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s.stop(t)
	if took := time.Since(began); took < 250*time.Millisecond || took > 8*time.Second {
		t.Errorf("drained in %v", took)
	}
	if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error("the client was not closed:", err)
	}
	b.stop(t)
}
