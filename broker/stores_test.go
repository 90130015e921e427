package broker

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// two is a server that owns two stores.
func two(t *testing.T, change ...func(*Config)) *testServer {
	t.Helper()
	dirs := []string{t.TempDir(), t.TempDir()}
	t.Cleanup(func() {
		if _, ok := spoilt.Load(dirs[1]); !ok {
			checkStore(t, dirs[1])
		}
	})
	s := start(t, dirs[0], append(change, func(c *Config) {
		c.Changed = nil
		c.Stores = []StoreConfig{{Name: "good", Dir: dirs[0], Own: true}, {Name: "bad", Dir: dirs[1], Own: true}}
	})...)
	for i := range dirs {
		eventually(t, "both are served", func() bool { return s.Status().Stores[i].Role == Active || spoiltIs(dirs[i]) })
	}
	return s
}

func spoiltIs(dir string) bool { _, ok := spoilt.Load(dir); return ok }

// of is a direct client of one of several stores.
func (s *testServer) of(store string) *client {
	s.t.Helper()
	c := s.dial()
	c.connect("1.2", "understudy-store:"+store)
	return c
}

// An error of one store is not one of the other: its clients notice nothing.
func TestStoresFailAlone(t *testing.T) {
	for name, fail := range map[string]struct {
		cause func(*testServer, *client)
		want  func(StoreStatus) bool
	}{
		"fenced": {func(s *testServer, c *client) {
			if err := os.WriteFile(filepath.Join(s.cfg.Stores[1].Dir, "epoch-00000002"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			c.send("SEND", "destination:/queue/a", "=lost")
			c.refused("store lost")
		}, func(st StoreStatus) bool { return st.Role == Active && st.Epoch == 3 }},
		"disk error": {func(s *testServer, c *client) {
			k := s.all()[1]
			v := k.view.Load()
			err := fmt.Errorf("write: %w", io.ErrShortWrite)
			v.tenure.fail(err)
			v.tenure.failed <- err
			c.refused("store lost")
		}, func(st StoreStatus) bool { return st.Role == Failed && st.Err != nil && st.Again.IsZero() }},
		"full disk": {func(s *testServer, c *client) {
			v := s.all()[1].view.Load()
			v.tenure.lock()
			d := &smallDisk{appender: v.tenure.store.log}
			d.full.Store(true)
			v.tenure.store.log = d
			v.tenure.unlock()
			c.send("SEND", "destination:/queue/a", "=held back")
		}, func(st StoreStatus) bool { return st.Role == Active && st.DiskFull }},
	} {
		t.Run(name, func(t *testing.T) {
			s := two(t)
			good, bad := s.of("good"), s.of("bad")
			good.sent("/queue/a", "one")
			bad.sent("/queue/a", "another")
			fail.cause(s, bad)
			eventually(t, "the store fails", func() bool { return fail.want(s.Status().Stores[1]) })
			good.sent("/queue/a", "two")
			c := s.of("good")
			c.subscribe("s", "/queue/a", "client")
			c.message("one")
			c.message("two")
			if st := s.Status().Stores[0]; st.Role != Active || st.Epoch != 1 || st.Takeovers != 1 {
				t.Errorf("got %+v", st)
			}
			select {
			case err := <-s.ended:
				t.Errorf("the server ended: %v", err)
			default:
			}
		})
	}
}

// A store that is damaged is not served, and is tried again; the other is.
func TestDamagedStoreIsLeft(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir()}
	s := start(t, dirs[1]).active()
	c := s.connected("1.2")
	for range 3 {
		c.sent("/queue/a", strings.Repeat("x", 1000))
	}
	c.leave()
	s.stop()
	spoilt.Store(dirs[1], true)
	names, _ := filepath.Glob(filepath.Join(dirs[1], "seg-*"))
	mend := map[string][]byte{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(b, bytes.Repeat([]byte("x"), 1000)); i > 0 {
			mend[name] = bytes.Clone(b)
			b[i+500] ^= 1
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	s = start(t, dirs[0], func(c *Config) {
		c.Changed = nil
		c.Stores = []StoreConfig{{Name: "good", Dir: dirs[0], Own: true}, {Name: "bad", Dir: dirs[1], Own: true}}
	})
	eventually(t, "one is served, one is not", func() bool {
		st := s.Status().Stores
		return st[0].Role == Active && st[1].Role == Failed && st[1].Trouble != nil && !st[1].Again.IsZero()
	})
	s.of("good").sent("/queue/a", "one")
	d := s.dial()
	d.write(text("CONNECT", "accept-version:1.2", "understudy-store:bad"))
	d.refused("standby", "understudy-error", "standby")
	for name, b := range mend {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the mended one is served", func() bool { return s.Status().Stores[1].Role == Active })
	b := s.of("bad")
	b.subscribe("s", "/queue/a", "auto")
	b.message(strings.Repeat("x", 1000))
}

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

// A store whose directory is not there, or is no store, is not made by who does not own it.
func TestUnreachableStoreIsTriedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	b := start(t, dir, func(c *Config) { c.Name, c.Changed, c.Stores[0].Own = "b", nil, false })
	eventually(t, "it cannot be reached", func() bool {
		st := b.one()
		return st.Role == Unreachable && st.Trouble != nil && !st.Again.IsZero()
	})
	if _, err := os.Stat(dir); err == nil {
		t.Fatal("the directory was made by who does not own it")
	}
	if err := os.Mkdir(dir, 0o700); err != nil { // a mount point with nothing mounted
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond)
	if st := b.one(); st.Role != Unreachable {
		t.Fatalf("got %+v", st)
	}
	a := start(t, dir, func(c *Config) { c.Name, c.Stores[0].Name = "a", "renamed" }).active()
	eventually(t, "it is reached, and known by the name that its owner gave it", func() bool {
		st := b.one()
		return st.Role == Standby && st.Trouble == nil && st.Name == "renamed" && st.UUID == a.one().UUID
	})
}

// A server that stands for all stores of a tree finds them as they come.
func TestStandForAll(t *testing.T) {
	root := t.TempDir()
	dirs := []string{filepath.Join(root, "x"), filepath.Join(root, "y")}
	all := start(t, root, func(c *Config) { c.Name, c.Changed, c.Stores, c.StandForAll = "all", nil, nil, root })
	spoilt.Store(root, true) // it is no store
	if err := os.Mkdir(filepath.Join(root, "no store"), 0o700); err != nil {
		t.Fatal(err)
	}
	x := start(t, dirs[0], func(c *Config) { c.Name, c.Stores[0].Name = "x", "orders" }).active()
	x.connected("1.2").sent("/queue/a", "one")
	eventually(t, "it is found", func() bool {
		st := all.Status().Stores
		return len(st) == 1 && st[0].Role == Standby && st[0].Name == "orders"
	})
	y := start(t, dirs[1], func(c *Config) { c.Name, c.Stores[0].Name = "y", "bills" }).active()
	eventually(t, "so is the other", func() bool { return len(all.Status().Stores) == 2 })
	eventually(t, "both are warm", func() bool {
		return len(x.one().Candidates) == 1 && x.one().Candidates[0].Warm && len(y.one().Candidates) == 1 && y.one().Candidates[0].Warm
	})
	x.stop()
	y.stop()
	for i := range dirs {
		eventually(t, "it is served", func() bool { return all.Status().Stores[i].Role == Active })
	}
	c := all.dial()
	c.connect("1.2", "understudy-store:orders")
	c.subscribe("s", "/queue/a", "auto")
	c.message("one")
}

// What one store may have in memory is less when there are two, and more again when one is gone.
func TestMemoryIsShared(t *testing.T) {
	s := two(t, func(c *Config) { c.MaxMemory, c.MaxRecord, c.FullTimeout = 400<<10, 190<<10, 100*time.Millisecond })
	eventually(t, "it is shared", func() bool {
		st := s.Status().Stores
		return st[0].MaxMemory == 200<<10 && st[1].MaxMemory == 200<<10
	})
	fill := func() (n int) {
		c := s.of("good")
		for ; ; n++ {
			c.send("SEND", "destination:/queue/a", "persistent:false", "receipt:r", "="+strings.Repeat("x", 10000))
			if c.expectAny("RECEIPT", "ERROR").command == "ERROR" {
				return n
			}
		}
	}
	first := fill()
	if first < 15 || first > 21 {
		t.Errorf("%d messages of 10,000 octets fit into 200 KiB", first)
	}
	v := s.all()[1].view.Load()
	v.tenure.fail(io.ErrShortWrite)
	v.tenure.failed <- io.ErrShortWrite
	eventually(t, "it is not shared any more", func() bool { return s.Status().Stores[0].MaxMemory == 400<<10 })
	if more := fill(); more < 15 {
		t.Errorf("%d messages more fit into 400 KiB", more)
	}
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

var _ appender = (*journal.Journal)(nil)
