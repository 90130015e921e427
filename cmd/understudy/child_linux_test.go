package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// patience bounds every wait of a test; none should come near it.
const patience = 15 * time.Second

// child is the program as a process of its own.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	addrs map[string]string
	log   string // file
	ended chan struct{}
}

// launch starts the program and returns once its addresses are known. The test ends it.
func launch(t *testing.T, args ...string) *child {
	t.Helper()
	return launchAt(t, "127.0.0.1:0", args...)
}

// launchAt is launch at an address.
func launchAt(t *testing.T, listen string, args ...string) *child {
	t.Helper()
	checkAtEnd(t, args)
	dir := t.TempDir()
	c := &child{t: t, addrs: map[string]string{}, log: filepath.Join(dir, "log"), ended: make(chan struct{})}
	file := filepath.Join(dir, "addr")
	log, err := os.Create(c.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.cmd = exec.Command(os.Args[0])
	c.cmd.Args = append(append([]string{"understudy"}, args...), "--listen", listen, "--addr-file", file)
	c.cmd.Env = append(os.Environ(), childEnv+"=1")
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = c.cmd.Wait(); close(c.ended) }()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.ended
		if t.Failed() {
			t.Logf("log of %v:\n%s", args, c.said())
		}
	})
	c.wait("its addresses", func() bool {
		text, err := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			name, addr, _ := strings.Cut(strings.TrimSpace(line), "=")
			c.addrs[name] = addr
		}
		return err == nil
	})
	return c
}

func (c *child) said() string {
	text, _ := os.ReadFile(c.log)
	return string(text)
}

// wait waits for something of the child, which must not end meanwhile.
func (c *child) wait(what string, cond func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		select {
		case <-c.ended:
			c.t.Fatalf("ended without %s: %v\n%s", what, c.cmd.ProcessState, c.said())
		default:
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("waited for %s\n%s", what, c.said())
		}
	}
}

// launchBroker starts a broker on a directory.
func launchBroker(t *testing.T, dir string, args ...string) *child {
	t.Helper()
	return launch(t, append([]string{"broker", "--store", dir}, args...)...)
}

// serves waits until the broker owns its store.
func (c *child) serves() *child {
	c.t.Helper()
	c.wait("its store", func() bool { return strings.Contains(c.said(), "store is ours") })
	return c
}

// standsBy waits until the broker waits for the owner of its store.
func (c *child) standsBy() *child {
	c.t.Helper()
	c.wait("an owner", func() bool { return strings.Contains(c.said(), "standing by") })
	return c
}

func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// stop stops all threads of the child, and returns when they stand still.
func (c *child) stop() {
	c.t.Helper()
	c.signal(syscall.SIGSTOP)
	c.wait("standing still", func() bool {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", c.cmd.Process.Pid))
		for _, task := range tasks {
			text, _ := os.ReadFile(task)
			if _, rest, ok := strings.Cut(string(text), ") "); !ok || rest[0] != 'T' {
				return false
			}
		}
		return len(tasks) > 0
	})
}

// exit waits for the end of the child and returns its code; -1: it was killed.
func (c *child) exit() int {
	c.t.Helper()
	select {
	case <-c.ended:
		return c.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		c.t.Fatalf("does not end\n%s", c.said())
		return 0
	}
}

// talker is a STOMP 1.2 client that says exactly what it is told.
type talker struct {
	t      *testing.T
	nc     net.Conn
	parser frame.Parser
	buf    []byte
	eols   int // heart-beats and ends of lines behind frames that were read
}

// heard is a frame that was received.
type heard struct {
	command, body string
	headers       map[string]string
}

func (h heard) String() string { return fmt.Sprintf("%s %v %.60q", h.command, h.headers, h.body) }

// talk connects, and says CONNECT with those headers.
func talk(t *testing.T, addr string, headers ...string) *talker {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	c := &talker{t: t, nc: nc}
	c.send("CONNECT", append([]string{"accept-version:1.2", "host:x"}, headers...)...)
	c.expect("CONNECTED")
	c.parser.Version = frame.V12
	return c
}

// send writes a frame. A header "=body" is the body.
func (c *talker) send(command string, headers ...string) {
	c.t.Helper()
	if err := c.trySend(command, headers...); err != nil {
		c.t.Fatalf("%s: %v", command, err)
	}
}

func (c *talker) trySend(command string, headers ...string) error {
	text, body := command+"\n", ""
	for _, h := range headers {
		if h[0] == '=' {
			body = h[1:]
		} else {
			text += h + "\n"
		}
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(patience))
	_, err := io.WriteString(c.nc, text+"\n"+body+"\x00")
	return err
}

// read returns the next frame.
func (c *talker) read(wait time.Duration) (h heard, err error) {
	_ = c.nc.SetReadDeadline(time.Now().Add(wait))
	for {
		var f frame.Frame
		n, _, err := c.parser.Next(c.buf, &f)
		if err != nil {
			return h, err
		}
		if n > 0 {
			c.buf = c.buf[n:]
			if f.Command == frame.EOL {
				c.eols++
				continue
			}
			h = heard{command: f.Command.String(), body: string(f.Body), headers: map[string]string{}}
			for name, value := range f.Headers {
				v, err := frame.Unescape(nil, value, c.parser.Version)
				if err != nil {
					return h, err
				}
				h.headers[string(name)] = string(v)
			}
			return h, nil
		}
		more := make([]byte, 64<<10)
		n, err = c.nc.Read(more)
		c.buf = append(c.buf, more[:n]...)
		if n == 0 && err != nil {
			return h, err
		}
	}
}

// expect reads a frame that must be that command, with those headers, name by value.
func (c *talker) expect(command string, headers ...string) heard {
	c.t.Helper()
	h, err := c.read(patience)
	if err != nil || h.command != command {
		c.t.Fatalf("got %v %v, want %s", h, err, command)
	}
	for i := 0; i < len(headers); i += 2 {
		if h.headers[headers[i]] != headers[i+1] {
			c.t.Fatalf("got %v, want %s:%s", h, headers[i], headers[i+1])
		}
	}
	return h
}

// sent stores a message and waits until that is certain.
func (c *talker) sent(dest, body string, headers ...string) {
	c.t.Helper()
	c.send("SEND", append([]string{"destination:" + dest, "receipt:sent", "=" + body}, headers...)...)
	c.expect("RECEIPT", "receipt-id", "sent")
}

// subscribe subscribes and waits until that is certain.
func (c *talker) subscribe(id, dest, ack string, headers ...string) {
	c.t.Helper()
	c.send("SUBSCRIBE", append([]string{"id:" + id, "destination:" + dest, "ack:" + ack, "receipt:subscribed"}, headers...)...)
	c.expect("RECEIPT", "receipt-id", "subscribed")
}

// bodies takes messages, acknowledges each, and returns what was in them, until nothing has come for a while.
func (c *talker) bodies(quiet time.Duration) (list []string) {
	c.t.Helper()
	for {
		h, err := c.read(quiet)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return list
		}
		if err != nil || h.command != "MESSAGE" {
			c.t.Fatalf("got %v %v, want MESSAGE", h, err)
		}
		list = append(list, h.body)
		if id, ok := h.headers["ack"]; ok {
			c.send("ACK", "id:"+id)
		}
	}
}

// rest reads octets until nothing has come for a while, or the connection has ended.
func (c *talker) rest(quiet time.Duration) string {
	text := c.buf
	c.buf = nil
	more := make([]byte, 64<<10)
	for {
		_ = c.nc.SetReadDeadline(time.Now().Add(quiet))
		n, err := c.nc.Read(more)
		text = append(text, more[:n]...)
		if err != nil {
			return string(text)
		}
	}
}
