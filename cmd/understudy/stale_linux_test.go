package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal/journaltest"
)

var staleTrials = flag.Int("stale", 20, "owners to be stopped, replaced and woken")

// staleSegment is the size of these stores' segments. They are checked twice in every trial, which takes seconds for larger ones under the race detector.
const staleSegment = "--segment=4MiB"

// stale is an owner with clients that is stopped, with more from them in its sockets, while another takes its store.
type stale struct {
	t             *testing.T
	dir           string
	owner, heir   *child
	clients       map[string]*talker
	stored        []string // in /queue/a, and nobody has acknowledged it
	before, since map[string]string
}

// newStale starts an owner whose clients have set up all that a server may say without another sync.
func newStale(t *testing.T) *stale {
	s := &stale{t: t, dir: t.TempDir(), clients: map[string]*talker{}, before: map[string]string{}, since: map[string]string{}}
	s.owner = launchBroker(t, s.dir, staleSegment, "--name", "owner").serves()
	for _, name := range []string{"producer", "consumer", "browser", "subscriber", "slow"} {
		s.clients[name] = talk(t, s.owner.addrs["listen"])
	}
	p := s.clients["producer"]
	for i := range 5 {
		body := fmt.Sprint("stored ", i)
		p.sent("/queue/a", body)
		s.stored = append(s.stored, body)
	}
	p.sent("/queue/looked-at", "looked at")
	s.clients["subscriber"].subscribe("s", "/topic/t", "auto")
	s.clients["consumer"].subscribe("s", "/queue/a", "client-individual", "prefetch-count:1")
	return s
}

// stuff has the writer of one client in the middle of a write, and the owner stopped there.
func (s *stale) stuff() {
	p, slow := s.clients["producer"], s.clients["slow"]
	for range 12 { // more than sockets take, and that they are full just where one ends is not to be expected
		p.send("SEND", "destination:/queue/large", "="+strings.Repeat("x", 1<<20))
	}
	p.sent("/queue/large", "last")
	slow.send("SUBSCRIBE", "id:s", "destination:/queue/large", "ack:client")
	s.owner.wait("sockets that are full", func() bool {
		queued := slow.queued()
		return queued > 0 && s.owner.sleeps() && slow.queued() == queued
	})
}

// sleeps reports whether no thread of the child runs, wants to, or waits for a disk.
func (c *child) sleeps() bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", c.cmd.Process.Pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		if _, rest, ok := strings.Cut(string(text), ") "); !ok || rest[0] != 'S' {
			return false
		}
	}
	return len(tasks) > 0
}

// queued is how many octets the other side has written that have not come to this side's socket, and how many are in that. [proc_net_tcp.txt]
func (c *talker) queued() (octets int) {
	c.t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		c.t.Fatal(err)
	}
	hex := func(a net.Addr) string {
		at := a.(*net.TCPAddr)
		ip := at.IP.To4()
		return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(ip), at.Port)
	}
	here, there := hex(c.nc.LocalAddr()), hex(c.nc.RemoteAddr())
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 5 || (f[1] != here || f[2] != there) && (f[1] != there || f[2] != here) {
			continue
		}
		var out, in int
		if _, err := fmt.Sscanf(f[4], "%x:%x", &out, &in); err != nil {
			c.t.Fatalf("%s: %v", line, err)
		}
		if f[1] == here {
			octets += in
		} else {
			octets += out
		}
	}
	return octets
}

// replace stops the owner, leaves in its sockets what makes it want to speak, and has another take the store.
func (s *stale) replace() {
	s.t.Helper()
	first := s.clients["consumer"].expect("MESSAGE")
	if first.body != s.stored[0] {
		s.t.Fatalf("got %v", first)
	}
	s.owner.stop()
	stopped := time.Now()
	s.clients["consumer"].send("ACK", "id:"+first.headers["ack"], "receipt:ack")
	s.clients["browser"].send("SUBSCRIBE", "id:b", "destination:/queue/looked-at", "browser:true", "receipt:browse")
	s.clients["producer"].send("SEND", "destination:/topic/t", "receipt:topic", "=news")
	s.clients["producer"].send("BEGIN", "transaction:t", "receipt:begin")
	s.clients["producer"].send("SEND", "destination:/queue/a", "receipt:late", "=late")
	for name, c := range s.clients {
		text := c.rest(20 * time.Millisecond) // what its kernel had, but for what follows a frame's NUL
		for c.queued() > 0 {
			text += c.rest(20 * time.Millisecond)
		}
		s.before[name] = strings.Trim(text, "\n")
	}
	// The lock is the owner's as long as it lives, stopped or not. Who has it is decided by the file: without it the next one makes another.
	if err := os.Remove(filepath.Join(s.dir, "LOCK")); err != nil {
		s.t.Fatal(err)
	}
	s.heir = launchBroker(s.t, s.dir, staleSegment, "--name", "heir").serves()
	if early := 300*time.Millisecond - time.Since(stopped); early > 0 {
		time.Sleep(early)
	}
}

// wake has the owner go on, and reads what it says to its end.
func (s *stale) wake() {
	s.t.Helper()
	s.owner.signal(syscall.SIGCONT)
	for name, c := range s.clients {
		s.since[name] = c.rest(patience)
		c.nc.Close()
	}
	s.owner.standsAside()
}

// standsAside waits until a broker that has lost its store stands by for the one that has it, and ends it: it would be next.
func (c *child) standsAside() {
	c.t.Helper()
	c.wait("another owner", func() bool { return strings.Contains(c.said(), "the store has another owner: standing by for it") })
	c.signal(syscall.SIGTERM)
	if code := c.exit(); code != exitOK {
		c.t.Errorf("ended with %d, want %d", code, exitOK)
	}
}

// A woken owner acknowledges, dispatches and deletes nothing: its clients hear that the store is lost, or nothing.
func TestWokenOwnerSaysNothing(t *testing.T) {
	trials := *staleTrials
	if testing.Short() {
		trials = min(trials, 4)
	}
	within := 0 // a frame
	for i := range trials {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			s := newStale(t)
			if i%5 == 0 {
				s.stuff()
			}
			s.replace()
			s.heir.stop() // what goes now, the owner deletes
			names := segments(t, s.dir)
			s.wake()
			for name, text := range s.since {
				stuffed, whole := name == "slow" && i%5 == 0, strings.HasSuffix(s.before[name], "\x00")
				if stuffed && !whole {
					if within++; text != "" { // in the middle of a frame there is nothing to be said
						t.Errorf("%s heard %d octets more", name, len(text))
					}
				} else if stuffed && text == "" {
					continue // nor where the same write has another frame
				} else if !strings.HasPrefix(text, "ERROR\n") || !strings.Contains(text, "message:store lost\n") || strings.Count(text, "\x00") != 1 {
					t.Errorf("%s heard %.200q", name, text)
				}
			}
			if s.before["consumer"] != "" || s.before["producer"] != "" || s.before["browser"] != "" || s.before["subscriber"] != "" {
				t.Errorf("heard before the owner was woken: %.200q", s.before)
			}
			if now := segments(t, s.dir); !contains(now, names) {
				t.Errorf("segments were %v, now %v", names, now)
			}
			if len(names) == 0 {
				t.Error("there are no segments that could be deleted")
			}
			journaltest.Check(t, s.dir, readable) // what the heir's log names is there
			s.heir.signal(syscall.SIGKILL)
			s.heir.exit()
			last := launchBroker(t, s.dir, staleSegment).serves() // reads all of it again
			c := talk(t, last.addrs["listen"])
			c.subscribe("s", "/queue/a", "client-individual")
			if got := c.bodies(100 * time.Millisecond); !slices.Equal(got, s.stored) {
				t.Errorf("the store has %q, want %q", got, s.stored)
			}
			c.nc.Close()
			last.signal(syscall.SIGTERM)
			last.exit()
		})
	}
	if trials > 0 && within == 0 {
		t.Error("no write was stopped in the middle of a frame")
	}
}

// The same under load: what the owner has confirmed, before it was stopped or with what was under way, its heir has.
func TestWokenOwnerConfirmedOnlyWhatIsStored(t *testing.T) {
	trials := *staleTrials / 4
	if testing.Short() {
		trials = min(trials, 2)
	}
	for i := range trials {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			dir := t.TempDir()
			owner := launchBroker(t, dir, staleSegment).serves()
			c := talk(t, owner.addrs["listen"])
			sent := make(chan int)
			go func() {
				n := 0
				for ; c.trySend("SEND", "destination:/queue/a", fmt.Sprint("receipt:", n), fmt.Sprint("=", n)) == nil; n++ {
					if n%32 == 0 {
						time.Sleep(time.Millisecond)
					}
				}
				sent <- n
			}()
			confirmed := map[string]bool{}
			for range 200 + 37*i {
				confirmed[c.expect("RECEIPT").headers["receipt-id"]] = true
			}
			owner.stop()
			if err := os.Remove(filepath.Join(dir, "LOCK")); err != nil {
				t.Fatal(err)
			}
			heir := launchBroker(t, dir, staleSegment).serves()
			time.Sleep(300 * time.Millisecond)
			owner.signal(syscall.SIGCONT)
			for {
				h, err := c.read(patience)
				if err != nil || h.command == "ERROR" {
					break
				}
				confirmed[h.headers["receipt-id"]] = true
			}
			c.nc.Close()
			owner.standsAside()
			if n := <-sent; n <= len(confirmed) {
				t.Errorf("%d sent, %d confirmed", n, len(confirmed))
			}
			d := talk(t, heir.addrs["listen"])
			d.subscribe("s", "/queue/a", "client-individual", "prefetch-count:10000")
			for _, body := range d.bodies(200 * time.Millisecond) {
				delete(confirmed, body)
			}
			if len(confirmed) > 0 {
				t.Errorf("confirmed and not there: %v", confirmed)
			}
		})
	}
}

// segments are those of a store's log, but for files that were only prepared: whoever made those removes them.
func segments(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "seg-") {
			continue
		}
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 512)
		n, err := f.Read(head)
		f.Close()
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if strings.Trim(string(head[:n]), "\x00") != "" {
			names = append(names, e.Name())
		}
	}
	return names
}

func contains(all, some []string) bool {
	for _, name := range some {
		if !slices.Contains(all, name) {
			return false
		}
	}
	return true
}
