package broker

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// lines is a log that tests read.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// duplicate makes a copy as cp -a does.
func duplicate(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// stored makes a store and leaves it.
func stored(t *testing.T, dir, name string) {
	t.Helper()
	s := start(t, dir, func(c *Config) { c.Stores[0].Name = name }).active()
	s.connected("1.2").sent("/queue/a", "one")
	s.stop()
}

// watch starts a server that stands for all stores of the root.
func watch(t *testing.T, root string, change ...func(*Config)) (*testServer, *lines) {
	t.Helper()
	spoilt.Store(root, true) // it is no store
	said := new(lines)
	s := start(t, root, append([]func(*Config){func(c *Config) {
		c.Changed, c.Stores, c.StandForAll, c.Logger = nil, nil, root, said.logger()
	}}, change...)...)
	return s, said
}

// dirs are the directories that the server has a keeper for.
func (s *testServer) dirs() (all []string) {
	for _, st := range s.Status().Stores {
		all = append(all, filepath.Base(st.Dir))
	}
	return all
}

func moved(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// A copy of a store's directory is not the store, whether it was made before or after the server began to stand for it.
func TestCopyIsNotStoodFor(t *testing.T) {
	root := t.TempDir()
	a, bak := filepath.Join(root, "a"), filepath.Join(root, "a.bak")
	owner := start(t, a, func(c *Config) { c.Name, c.Stores[0].Name = "owner", "a" }).active()
	owner.connected("1.2").sent("/queue/a", "one")
	early, earlySaid := watch(t, root, func(c *Config) { c.Name = "early" })
	eventually(t, "it is found", func() bool { return len(early.dirs()) == 1 })
	duplicate(t, a, bak)
	if err := os.Symlink(a, filepath.Join(root, "link")); err != nil { // is no copy
		t.Fatal(err)
	}
	late, lateSaid := watch(t, root, func(c *Config) { c.Name = "late" })
	copied := "a.bak is a copy of " + a + ": not stood for"
	for s, said := range map[*testServer]*lines{early: earlySaid, late: lateSaid} {
		eventually(t, "that is said", func() bool { return said.count(copied) == 1 })
		eventually(t, "the store is found", func() bool { return len(s.dirs()) == 1 && s.one().Role == Standby })
		if st := s.one(); st.Dir != a {
			t.Fatalf("got %+v", st)
		}
	}
	time.Sleep(discoverEvery + 500*time.Millisecond)
	for s, said := range map[*testServer]*lines{early: earlySaid, late: lateSaid} {
		if n := said.count("is a copy of"); n != 1 || len(s.dirs()) != 1 {
			t.Errorf("said %d times that there is a copy, stands for %q", n, s.dirs())
		}
	}
	if st := owner.one(); st.Role != Active || st.Epoch != 1 {
		t.Errorf("got %+v", st)
	}
}

// Where nothing tells which of two directories is the store, neither is stood for, until one is gone.
func TestCopiesThatCannotBeTold(t *testing.T) {
	root := t.TempDir()
	x, bak := filepath.Join(root, "x"), filepath.Join(root, "x.bak")
	stored(t, x, "orders")
	duplicate(t, x, bak)
	s, said := watch(t, root)
	eventually(t, "that is said of both", func() bool { return said.count("neither is stood for") == 2 })
	if list := s.dirs(); len(list) != 0 {
		t.Fatalf("stands for %q", list)
	}
	moved(t, bak, filepath.Join(t.TempDir(), "x.bak"))
	eventually(t, "the one that is left is served", func() bool { return len(s.dirs()) == 1 && s.one().Role == Active && s.one().Dir == x })
}

// A copy does not become the store while the original's file system is not there.
func TestCopyOfWhatIsNotMounted(t *testing.T) {
	root := t.TempDir()
	a, bak, away := filepath.Join(root, "a"), filepath.Join(root, "a.bak"), filepath.Join(t.TempDir(), "a")
	stored(t, a, "a")
	duplicate(t, a, bak)
	moved(t, a, away)
	if err := os.Mkdir(a, 0o700); err != nil {
		t.Fatal(err)
	}
	s, said := watch(t, root)
	eventually(t, "that is said", func() bool { return said.count("may be a copy of "+a) == 1 })
	if list := s.dirs(); len(list) != 0 {
		t.Fatalf("stands for %q", list)
	}
	if err := os.Remove(a); err != nil {
		t.Fatal(err)
	}
	moved(t, away, a)
	eventually(t, "the store is served", func() bool { return len(s.dirs()) == 1 && s.one().Role == Active && s.one().Dir == a })
}

// Of two configured directories with one UUID the first is meant.
func TestCopyThatIsConfigured(t *testing.T) {
	dir, bak := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "a.bak")
	stored(t, dir, "a")
	duplicate(t, dir, bak)
	said := new(lines)
	s := start(t, dir, func(c *Config) {
		c.Changed, c.Logger = nil, said.logger()
		c.Stores = []StoreConfig{{Name: "a", Dir: dir, Own: true}, {Name: "b", Dir: bak}}
	})
	eventually(t, "the store is served, and its copy is not", func() bool {
		st := s.Status().Stores
		return st[0].Role == Active && st[1].Role == Unreachable && st[1].UUID == "" && st[1].Trouble != nil
	})
	if text := s.Status().Stores[1].Trouble.Error(); !strings.Contains(text, bak+" is a copy of "+dir) {
		t.Errorf("got %q", text)
	}
	c := s.dial()
	c.connect("1.2", "understudy-store:a")
	c.subscribe("s", "/queue/a", "auto")
	c.message("one")
}

// What is configured is meant, and not what is found; a keeper of what was found makes way for it.
func TestConfiguredStoreComesFirst(t *testing.T) {
	root, other := t.TempDir(), filepath.Join(t.TempDir(), "other")
	a, bak := filepath.Join(root, "a"), filepath.Join(root, "a.bak")
	owner := start(t, a, func(c *Config) { c.Name, c.Stores[0].Name = "owner", "a" }).active()
	duplicate(t, a, bak)
	s, said := watch(t, root, func(c *Config) { c.Stores = []StoreConfig{{Name: "given", Dir: bak}} })
	eventually(t, "the configured one is served", func() bool { return s.one().Role == Active })
	eventually(t, "the other one is its copy", func() bool { return said.count("a is a copy of "+bak) == 1 })
	if list := s.dirs(); len(list) != 1 {
		t.Errorf("stands for %q", list)
	}
	s.stop()
	moved(t, bak, other+".away")
	s, _ = watch(t, root, func(c *Config) { c.Stores = []StoreConfig{{Name: "given", Dir: other}} })
	eventually(t, "what was found is stood for", func() bool {
		st := s.Status().Stores
		return len(st) == 2 && st[0].Role == Unreachable && st[1].Role == Standby && st[1].UUID == owner.one().UUID
	})
	moved(t, other+".away", other)
	eventually(t, "it makes way", func() bool {
		st := s.Status().Stores
		return len(st) == 1 && st[0].Role == Active && st[0].UUID == owner.one().UUID
	})
}

// A copy that comes into the directory after it was looked at, and before the store is open, is found out before anybody is served.
func TestCopyThatComesLate(t *testing.T) {
	dir, parent := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "parent")
	late := filepath.Join(parent, "b")
	stored(t, dir, "a")
	if err := os.WriteFile(parent, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, dir, func(c *Config) {
		c.Changed, c.Stores = nil, []StoreConfig{{Name: "a", Dir: dir, Own: true}, {Name: "b", Dir: late, Own: true}}
	})
	eventually(t, "one is served, the other not there", func() bool {
		st := s.Status().Stores
		return st[0].Role == Active && st[1].Role == Unreachable
	})
	s.turn.Lock()
	if err := os.Remove(parent); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(parent, 0o700); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it waits for its turn", func() bool {
		entries, _ := os.ReadDir(late)
		return len(entries) > 0
	})
	uuid, err := os.ReadFile(filepath.Join(dir, storeFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(late, storeFile), uuid, 0o600); err != nil {
		t.Fatal(err)
	}
	s.turn.Unlock()
	eventually(t, "it is found out", func() bool {
		st := s.Status().Stores[1]
		return st.Role == Unreachable && strings.Contains(st.Trouble.Error(), late+" is a copy of "+dir)
	})
	if st := s.Status().Stores[1]; st.Takeovers != 0 {
		t.Errorf("got %+v", st)
	}
}

// The list of stores is worth nothing to a sidecar if one comes twice.
func TestStoresHeaderNamesEachStoreOnce(t *testing.T) {
	x, y := "5f0a3a52-5d0e-4b7e-9d9c-1c0e6a2f4b11", "5f0a3a52-5d0e-4b7e-9d9c-1c0e6a2f4b12"
	line := storesHeader([]*view{
		{uuid: y, name: "c"}, {uuid: x, name: "a", epoch: 2, tenure: new(tenure)}, {uuid: x, name: "b", epoch: 1, tenure: new(tenure)}, {uuid: y, name: "d"}, {uuid: x, name: "e"}, {}, {},
	})
	value, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), frame.HeaderStores+":")
	list, valid := frame.ParseStores([]byte(value))
	if !ok || !valid || len(list) != 2 || list[0].UUID != x || list[0].Epoch != 2 || list[1].UUID != y || list[1].Name != "c" {
		t.Errorf("got %q: %v, %v", line, list, valid)
	}
}

// hang makes a directory whose STORE is opened for ever, as on a mount that has lost its server. It answers when the test is over.
func hang(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, storeFile)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	spoilt.Store(dir, true)
	t.Cleanup(func() {
		for range 50 { // whoever opens it once more, too
			if f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
				f.Close()
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

// A directory that does not answer holds up nothing but its own keeper: neither the start, nor other stores, nor the end.
func TestDirectoryThatHangs(t *testing.T) {
	root := t.TempDir()
	good, bad := filepath.Join(root, "good"), filepath.Join(t.TempDir(), "bad")
	hang(t, bad)
	hang(t, filepath.Join(root, "hung"))
	stored(t, filepath.Join(root, "other"), "other")
	began := time.Now()
	s, said := watch(t, root, func(c *Config) {
		c.Stores = []StoreConfig{{Name: "bad", Dir: bad}, {Name: "good", Dir: good, Own: true}}
	})
	eventually(t, "the others are served", func() bool {
		st := s.Status().Stores
		return len(st) == 3 && st[0].Role == Standby && st[0].UUID == "" && st[1].Role == Active && st[2].Role == Active && st[2].Name == "other"
	})
	if took := time.Since(began); took > 5*lookPatience {
		t.Errorf("the others were served after %v", took)
	}
	s.of("good").sent("/queue/a", "one")
	c := s.dial()
	c.write(text("CONNECT", "accept-version:1.2", "understudy-store:5f0a3a52-5d0e-4b7e-9d9c-1c0e6a2f4b11"))
	c.refused("standby", "understudy-error", "standby") // it may be that one
	eventually(t, "it is said of both", func() bool {
		return said.count("the store's directory does not answer") == 1 && said.count("hung does not answer") == 1
	})
	began = time.Now()
	s.cancel()
	select {
	case err := <-s.ended:
		s.ended <- err
		if took := time.Since(began); err != nil || took < leavePatience {
			t.Errorf("ended after %v: %v", took, err)
		}
	case <-time.After(leavePatience + 5*time.Second):
		t.Error("the server does not end")
	}
	if n := said.count("the server ends without it"); n != 1 {
		t.Errorf("said %d times what hangs", n)
	}
	if st := s.Status().Stores[1]; st.Role != Stopped || st.Handovers != 1 {
		t.Errorf("got %+v", st)
	}
	checkStore(t, good)
}
