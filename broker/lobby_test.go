package broker

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// Where several stores are known, CONNECT says which.
func TestConnectFindsItsStore(t *testing.T) {
	s := two(t)
	st := s.Status().Stores
	for _, test := range []struct {
		name, headers string
		code          string // "" is CONNECTED
		store         int
	}{
		{"sidecar by name", "understudy-store:bad", "", 1},
		{"sidecar by uuid", "understudy-store:" + st[0].UUID, "", 0},
		{"sidecar without", "", "which-store", 0},
		{"unknown", "understudy-store:nothing", "wrong-store", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := s.dial()
			headers := []string{"accept-version:1.2", "understudy-session:" + sessionX, "understudy-attempt:1"}
			if test.headers != "" {
				headers = append(headers, test.headers)
			}
			c.write(text("CONNECT", headers...))
			if test.code == "" {
				if r := c.expect("CONNECTED"); r.headers["understudy-store"] != st[test.store].UUID {
					t.Fatalf("got %v", r)
				}
				return
			}
			r := c.expect("ERROR", "understudy-error", test.code)
			want := fmt.Sprintf("%s;1;good,%s;1;bad", st[0].UUID, st[1].UUID)
			if r.headers[frame.HeaderStores] != want || !strings.Contains(r.body, "good") {
				t.Fatalf("got %v, want %s", r, want)
			}
			c.closed()
		})
	}
	c := s.dial()
	c.write(text("CONNECT", "accept-version:1.2"))
	c.expect("ERROR", "message", "which store") // which of its own stores a direct client wants nobody knows
	d := s.dial()
	if r := d.connect("1.2", "understudy-probe:1"); r.headers[frame.HeaderStores] == "" || r.headers["understudy-store"] != "" {
		t.Fatalf("got %v", r)
	}
	eventually(t, "connections belong to their stores", func() bool {
		now := s.Status()
		return now.Stores[0].Connections+now.Stores[1].Connections+1 == now.Connections // the prober's stays in the lobby
	})
	d.leave()
	eventually(t, "the prober's connection ends with it", func() bool { return len(s.lobbied()) == 0 })
}

func (s *testServer) lobbied() (list []*conn) {
	s.lobby.mu.Lock()
	defer s.lobby.mu.Unlock()
	for c := range s.lobby.conns {
		list = append(list, c)
	}
	return list
}

// A probe is answered while a store is busy with something long.
func TestProbeWaitsForNoStore(t *testing.T) {
	s := two(t)
	v := s.all()[0].view.Load()
	v.tenure.lock()
	c := s.dial()
	c.connect("1.2", "understudy-probe:1")
	d := s.of("bad")
	d.sent("/queue/a", "one")
	v.tenure.unlock()
}

// A direct client of a server whose own store is elsewhere is told so; one of a server without a store of its own gets the one that it serves.
func TestDirectClientGetsTheOwnStore(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir()}
	a := join(t, dirs, "a", 0, manual)
	a.connected("1.2").sent("/queue/a", "of a")
	b := join(t, dirs, "b", 1, manual)
	t.Cleanup(func() { checkStore(t, dirs[1]) })
	idle := join(t, dirs, "idle", 2, manual)
	c := idle.dial()
	c.write(text("CONNECT", "accept-version:1.2"))
	c.refused("standby", "understudy-error", "standby")
	a.warmFor(0, 2)
	if err := a.HandOver(t.Context(), "store-0", "idle"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is there", func() bool { return idle.Status().Stores[0].Role == Active })
	idle.subscriber("/queue/a", "auto").message("of a")
	d := a.dial()
	eventually(t, "the owner knows who has it", func() bool { return a.Status().Stores[0].Owner.Node == "idle" })
	d.write(text("CONNECT", "accept-version:1.2"))
	if r := d.refused("standby"); !strings.Contains(r.body, "idle") {
		t.Errorf("got %v, want the name of who serves it", r)
	}
	b.connected("1.2").sent("/queue/a", "of b")
}

// Connections come, are bound and go, while their store comes and goes too.
func TestLobbyUnderPressure(t *testing.T) {
	dirs := []string{t.TempDir()}
	servers := crew(t, dirs, []string{"a", "b"}, manual)
	stop := make(chan struct{})
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				nc, err := net.Dial("tcp", servers[i%2].addr)
				if err != nil {
					continue
				}
				hello := text("CONNECT", "accept-version:1.2", "heart-beat:0,100")
				if i%5 == 0 {
					hello = text("CONNECT", "accept-version:1.2", "understudy-probe:1")
				}
				_, _ = io.WriteString(nc, hello+text("SEND", "destination:/queue/a", "=x"))
				_ = nc.SetReadDeadline(time.Now().Add(patience))
				if n, err := nc.Read(make([]byte, 1024)); n == 0 {
					t.Errorf("no answer: %v", err)
				}
				nc.Close()
			}
		})
	}
	for i := range 6 {
		from, to := servers[i%2], servers[1-i%2]
		from.warmFor(0, 1)
		if err := from.HandOver(t.Context(), "store-0", to.cfg.Name); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the other has it", func() bool { return to.one().Role == Active })
	}
	close(stop)
	running.Wait()
	for _, s := range servers {
		eventually(t, "all have left", func() bool { return s.Status().Connections == 0 && len(s.lobbied()) == 0 })
	}
}

// Whoever waited for the lobby's mutex while the connection was bound gets that of its store.
func TestLockFollowsTheConnection(t *testing.T) {
	lobby, bound := newTenure(new(Config), nil, nil), newTenure(new(Config), nil, nil)
	c := new(conn)
	c.at.Store(lobby)
	lobby.mu.Lock()
	got := make(chan *tenure)
	go func() { got <- c.lock() }()
	time.Sleep(20 * time.Millisecond) // it waits
	c.at.Store(bound)
	lobby.mu.Unlock()
	if l := <-got; l != bound {
		t.Fatal("the lobby's mutex was taken for that of the store")
	}
	if !lobby.mu.TryLock() {
		t.Error("the lobby's mutex is held still")
	}
}
