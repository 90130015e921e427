package broker

import (
	"fmt"
	"testing"

	"github.com/understudy-mq/understudy/broker/journal/journaltest"
)

// hold is the tenure of the server's only store.
func (s *testServer) hold() *tenure {
	k := s.all()[0]
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.tenure
}

// checkStore fails a test that has left a store in bad order.
func checkStore(t *testing.T, dir string) {
	t.Helper()
	journaltest.Check(t, dir, legible)
}

// servesAgain waits until a server that had lost its store stands by for it, finds that nobody has it, and serves it in that epoch.
func (s *testServer) servesAgain(epoch uint64) {
	s.t.Helper()
	eventually(s.t, "the server serves again", func() bool { st := s.one(); return st.Role == Active && st.Epoch == epoch })
	if st := s.one(); st.Takeovers != 2 || st.Trouble != nil || st.Err != nil {
		s.t.Fatalf("got %+v", st)
	}
}

// crew starts servers that share stores: each owns the one of its number, if there is one, and stands for the others.
func crew(t *testing.T, dirs []string, names []string, change ...func(*Config)) []*testServer {
	t.Helper()
	var all []*testServer
	for i, name := range names {
		all = append(all, join(t, dirs, name, i, change...))
	}
	return all
}

// join starts one server of a crew, which owns the store of that number, if there is one.
func join(t *testing.T, dirs []string, name string, own int, change ...func(*Config)) *testServer {
	t.Helper()
	s := start(t, dirs[0], append(change, func(c *Config) {
		c.Name, c.Stores = name, nil
		for i, dir := range dirs {
			c.Stores = append(c.Stores, StoreConfig{Name: fmt.Sprint("store-", i), Dir: dir, Own: i == own})
		}
		c.Changed = nil
	})...)
	if own < len(dirs) {
		eventually(t, name+" serves its own store", func() bool { return s.Status().Stores[own].Role == Active })
	}
	return s
}

// warmFor waits until somebody could take the store over without reading it.
func (s *testServer) warmFor(i, candidates int) {
	s.t.Helper()
	eventually(s.t, "a warm candidate", func() bool {
		list := s.Status().Stores[i].Candidates
		return len(list) == candidates && list[0].Warm
	})
}

func manual(c *Config) { c.Failback = FailbackManual }

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
