package broker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// standStill makes the journal's looks for a higher epoch old, as they are when a process that was stopped goes on.
func (s *testServer) standStill() (goOn func()) {
	t := s.hold()
	real, old := t.checked.Load(), func() time.Time { return time.Now().Add(-2 * guardAge) }
	t.checked.Store(&old)
	return func() { t.checked.Store(real) }
}

// everything is what a server may say that needs no sync, set up so far that one frame more of each client brings it: of a queue, a browser, a topic, a
// sidecar, and of what is acknowledged.
type everything struct {
	queue, browser, topic, producer, sidecar, beating *client
	ack                                               string
}

func (s *testServer) everything() *everything {
	s.t.Helper()
	e := &everything{producer: s.connected("1.2"), beating: s.dial()}
	for _, body := range []string{"one", "two"} {
		e.producer.sent("/queue/a", body)
	}
	e.producer.sent("/queue/b", strings.Repeat("b", 1000))
	e.beating.connect("1.2", "heart-beat:0,20")
	e.queue = s.subscriber("/queue/a", "client-individual", "prefetch-count:1")
	e.ack = "id:" + e.queue.message("one").headers["ack"]
	e.topic = s.subscriber("/topic/t", "auto")
	e.browser = s.connected("1.2")
	e.sidecar, _ = s.sidecar(sessionX, 1)
	e.sidecar.effect(1, "SEND", "destination:/queue/c", "=x")
	return e
}

// go on makes the server want to say all of it.
func (e *everything) provoke() {
	e.queue.send("ACK", e.ack, "receipt:a")
	e.browser.send("SUBSCRIBE", "id:b", "destination:/queue/b", "browser:true", "receipt:b")
	e.producer.send("SEND", "destination:/topic/t", "=news", "receipt:t")
	e.producer.send("BEGIN", "transaction:t", "receipt:begin")
	e.sidecar.send("SEND", "understudy-effect:1", "destination:/queue/c", "=x") // confirmed again
}

func TestNothingIsSaidUntilTheEpochWasChecked(t *testing.T) {
	s := serving(t, func(c *Config) { c.HeartBeat.Min = 20 * time.Millisecond })
	e := s.everything()
	goOn := s.standStill()
	e.provoke()
	for _, c := range []*client{e.queue, e.browser, e.topic, e.producer, e.sidecar} {
		c.quiet()
	}
	if n := e.beating.drain(t, 200*time.Millisecond, 10); n < 10 {
		t.Fatalf("%d octets of heart-beats while the rest is withheld, want one each 20 ms", n)
	}
	goOn()
	for range 2 {
		if r := e.queue.expectAny("RECEIPT", "MESSAGE"); r.command == "MESSAGE" && r.body != "two" {
			t.Fatalf("got %v", r)
		}
	}
	e.browser.expect("RECEIPT", "receipt-id", "b")
	e.browser.message(strings.Repeat("b", 1000))
	e.browser.expect("MESSAGE", "browser", "end")
	e.topic.message("news")
	e.producer.expect("RECEIPT", "receipt-id", "t")
	e.producer.expect("RECEIPT", "receipt-id", "begin")
	e.sidecar.cursor(1)
	if n := s.hold().count.withheld.Get(); n < 5 {
		t.Errorf("%d connections were withheld, want 5", n)
	}
}

// What was decided while nobody knew whose the store is, is never said if it turns out to be another's.
func TestNothingIsSaidOnceTheStoreIsLost(t *testing.T) {
	s := serving(t)
	e := s.everything()
	s.standStill()
	e.provoke()
	e.queue.quiet()
	if err := os.WriteFile(filepath.Join(s.cfg.Stores[0].Dir, "epoch-00000002"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*client{e.queue, e.browser, e.topic, e.producer, e.sidecar} {
		c.refused("store lost")
	}
	s.servesAgain(3)
}

// A write that waits for a slow client goes on only if the store is still ours. What the kernel has it keeps.
func TestWriteInProgressIsWithheld(t *testing.T) {
	const body, number = 64 << 10, 200
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprint("lost=", lost), func(t *testing.T) {
			s := serving(t, func(c *Config) { c.MaxOut = 64 << 20 }) // all in one write
			p := s.connected("1.2")
			for range number - 1 {
				p.sent2("/queue/a", strings.Repeat("x", body))
			}
			p.sent("/queue/a", strings.Repeat("x", body))
			c := s.dial()
			_ = c.nc.(*net.TCPConn).SetReadBuffer(64 << 10)
			c.connect("1.2")
			c.send("SUBSCRIBE", "id:s", "destination:/queue/a", "ack:client")
			eventually(t, "the writer has all of it and waits for the client", func() bool { return s.hold().count.out.Get() == number && writerWaits() })
			goOn := s.standStill()
			taken, outlet := 0, s.conn(c).outlet
			eventually(t, "what the kernel had has arrived", func() bool {
				under := runtime.GOOS == "linux" && outlet.unacknowledged() > 0 // elsewhere nobody tells
				n := c.drain(t, 150*time.Millisecond, 1<<30)
				taken += n
				return n == 0 && !under
			})
			if taken >= number*body {
				t.Fatalf("all %d octets arrived, though nobody knew whose the store is", taken)
			}
			if lost {
				if err := os.WriteFile(filepath.Join(s.cfg.Stores[0].Dir, "epoch-00000002"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if more := c.drain(t, patience, 1<<30); more > 1000 {
					t.Fatalf("%d octets more after the store was lost", more)
				}
				s.servesAgain(3)
				return
			}
			goOn()
			if taken += c.drain(t, patience, number*body-taken); taken < number*body {
				t.Fatalf("%d octets arrived, want %d and headers", taken, number*body)
			}
		})
	}
}

// writerWaits reports whether a connection's writer waits for its client: then the socket has taken what it can.
func writerWaits() bool {
	stacks := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		if strings.Contains(stack, " [IO wait") && strings.Contains(stack, "broker.(*outlet).write(") {
			return true
		}
	}
	return false
}

// drain reads until nothing has come for a while, or the connection has ended, or enough has come, and returns how much that was.
func (c *client) drain(t *testing.T, quiet time.Duration, enough int) (octets int) {
	t.Helper()
	buf := make([]byte, 256<<10)
	for octets < enough {
		_ = c.nc.SetReadDeadline(time.Now().Add(quiet))
		n, err := c.nc.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			n = c.look(buf)
			if n <= 0 {
				return octets
			}
			err = nil
		}
		octets += n
		if err != nil { // the end, or a reset: the connection was cut in the middle of a frame
			return octets
		}
	}
	return octets
}

// look reads what has come already. A test that got no turn before its deadline has not looked at all.
func (c *client) look(buf []byte) (n int) {
	raw, err := c.nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	_ = c.nc.SetReadDeadline(time.Time{})
	_ = raw.Read(func(fd uintptr) bool {
		n, _ = syscall.Read(int(fd), buf)
		return true
	})
	return n
}

func TestRecent(t *testing.T) {
	now := time.Now()
	for age, want := range map[time.Duration]bool{-time.Hour: true, 0: true, guardAge: true, guardAge + 1: false, time.Hour: false} {
		if got := recent(now.Add(-age), now); got != want {
			t.Errorf("checked %v ago: %v", age, got)
		}
	}
	if recent(time.Time{}, now) {
		t.Error("never checked counts")
	}
}
