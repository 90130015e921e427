package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

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

// What cannot be written is no store to stand for, and that is said once.
func TestUnwritableStoreIsSaidOnce(t *testing.T) {
	dir := t.TempDir()
	start(t, dir).active().stop()
	lock := filepath.Join(dir, "LOCK")
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(lock, 0o700); err != nil {
		t.Fatal(err)
	}
	roles := make(chan Role, 100)
	b := start(t, dir, func(c *Config) {
		c.Stores[0].Own, c.Changed = false, func(s Status) { roles <- s.Stores[0].Role }
	})
	eventually(t, "it is tried again", func() bool { return b.one().Again.Sub(b.one().Since) > 2*againFirst })
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is served", func() bool { return b.one().Role == Active })
	b.stop()
	close(roles)
	var said []Role
	for r := range roles {
		said = append(said, r)
	}
	said = slices.DeleteFunc(slices.Compact(said), func(r Role) bool { return r == Standby || r == Recovering }) // which pass quickly
	if want := []Role{Unreachable, Active, Stopped}; !slices.Equal(said, want) {
		t.Errorf("said %v, want %v", said, want)
	}
}

// A directory that goes away under the server, and comes back, is a store that could not be reached for a while.
func TestDirectoryThatGoesAway(t *testing.T) {
	s := two(t, func(c *Config) { c.SegmentBytes = 64 << 10 })
	dir := s.Status().Stores[1].Dir
	c, good := s.of("bad"), s.of("good")
	c.sent("/queue/a", "one")
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	go func() { // until the journal wants another file
		for range 100 {
			_, _ = io.WriteString(c.nc, text("SEND", "destination:/queue/b", "="+strings.Repeat("x", 4000)))
		}
	}()
	for {
		if r := c.expectAny("RECEIPT", "ERROR"); r.command == "ERROR" {
			break
		}
	}
	eventually(t, "it cannot be reached", func() bool { return s.Status().Stores[1].Role == Unreachable })
	good.sent("/queue/a", "two")
	time.Sleep(againFirst + 100*time.Millisecond)
	if _, err := os.Stat(dir); err == nil {
		t.Fatal("another store was made in its place")
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is served again", func() bool { return s.Status().Stores[1].Role == Active })
	d := s.of("bad")
	d.subscribe("s", "/queue/a", "auto")
	d.message("one")
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

// What a sync refuses is final in this process, whatever the reason; what was never written may be tried again.
func TestFailureOfASyncIsFinal(t *testing.T) {
	k := &keeper{given: StoreConfig{Dir: "x"}}
	for _, c := range []struct {
		err   error
		role  Role
		final bool
	}{
		{fmt.Errorf("%w: %w", journal.ErrSync, syscall.ENOSPC), Failed, true},
		{fmt.Errorf("%w: %w", journal.ErrSync, syscall.EACCES), Failed, true},
		{fmt.Errorf("%w: %w", journal.ErrSync, syscall.ESTALE), Failed, true},
		{syscall.EIO, Failed, true},
		{syscall.EACCES, Unreachable, false},
		{syscall.ENOENT, Unreachable, false},
		{journal.ErrFenced, Standby, false},
	} {
		if end := k.failure("serve", c.err); end.role != c.role || end.final != c.final || !errors.Is(end.err, c.err) {
			t.Errorf("%v: %+v", c.err, end)
		}
		if want := c.final; lastWord(c.err) != want {
			t.Errorf("%v: is it the last word? %v", c.err, !want)
		}
	}
}

// Damage that somebody has mended, for the store is served elsewhere now, ends no server, and is not what an orderly end reports.
func TestMendedDamageIsForgotten(t *testing.T) {
	k := two(t).all()[1]
	damaged := func() error {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.fatal
	}
	k.mu.Lock()
	k.fatal = journal.ErrDamaged
	k.mu.Unlock()
	if k.waiting(journal.Owner{Node: "gone"}); damaged() == nil {
		t.Error("nobody serves it, and the damage is forgotten")
	}
	if k.waiting(journal.Owner{Node: "other", PID: 1}); damaged() != nil {
		t.Error("the damage is remembered though another server has the store")
	}
}
