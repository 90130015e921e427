package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker"
	"github.com/understudy-mq/understudy/cmd/internal/overview"
)

// often is how many rounds a story has.
func often(short, long int) int {
	if *storesFull {
		return long
	}
	return short
}

// atLength keeps a story for the long run.
func atLength(t *testing.T) {
	t.Helper()
	if !*storesFull {
		t.Skip("only with -stores-full")
	}
}

// Servers are killed one by one until one serves all stores, and come back in another order: every store comes home, and no client notices.
func TestServersAreKilledDownToTheLast(t *testing.T) {
	f := newFleet(t, 3, 2)
	for range often(1, 5) {
		var down []*member
		for alive := f.alive(); len(alive) > 1; alive = f.alive() {
			m := alive[f.rng.IntN(len(alive))]
			if len(down) == 0 {
				m = f.members[strings.ToUpper(f.names[f.rng.IntN(len(f.names))])]
			}
			f.kill(m)
			down = append(down, m)
			f.goesOn()
		}
		t.Logf("one is left: %v", f.holders())
		f.rng.Shuffle(len(down), func(i, j int) { down[i], down[j] = down[j], down[i] })
		for _, m := range down {
			f.up(m)
			f.goesOn()
		}
		f.home()
		f.goesOn()
	}
	f.finish()
}

// Servers are stopped in good order and started again, one after the other, as for a new version.
func TestServersAreReplacedOneByOne(t *testing.T) {
	atLength(t)
	f := newFleet(t, 2, 1)
	for range often(1, 5) {
		for _, m := range f.sorted() {
			m.signal(syscall.SIGTERM)
			if code := m.exit(); code != 0 {
				t.Errorf("%s ends with %d\n%s", m.name, code, m.said())
			}
			m.child = nil
			f.served()
			f.goesOn()
			f.up(m)
			f.home()
		}
	}
	f.goesOn()
	f.finish()
}

// An owner is stopped, and goes on later. What becomes of its store meanwhile is the operator's choice; that nothing is lost, and no client told, is not.
func TestOwnersAreStoppedAndWoken(t *testing.T) {
	for _, c := range []struct {
		takeover string
		rounds   int // with -stores-full
		args     []string
	}{
		{"strict", 10, nil},
		{"kill", 10, []string{"--takeover-after", "500ms"}},
		{"lease", 4, []string{"--takeover-after", "1s"}}, // an owner that loses its store again and again stands for it later each time
	} {
		t.Run(c.takeover, func(t *testing.T) {
			t.Parallel() // they wait, most of the time
			f := newFleet(t, 2, 1, append([]string{"--takeover", c.takeover}, c.args...)...)
			for range often(1, c.rounds) {
				a := f.members["A"]
				a.stop()
				if c.takeover == "strict" {
					time.Sleep(1500 * time.Millisecond)
					for _, m := range f.alive() {
						for _, s := range m.stores() {
							if m != a && s.Name == "a" && s.Role == string(broker.Active) {
								t.Fatalf("%s has taken the store of an owner that keeps its lock", m.name)
							}
						}
					}
				} else {
					f.until("another one to have the store", func(held map[string]string) bool { return held["a"] != "" && held["a"] != "A" })
					f.goesOn()
				}
				if c.takeover == "kill" {
					a.exit()
					f.up(a)
				} else {
					a.signal(syscall.SIGCONT)
				}
				f.goesOn()
				f.home()
			}
			f.goesOn()
			f.finish()
		})
	}
}

// A server to which a store's directory is lost does not stand for it, and says so; another one takes the store, and when the directory is back the server stands again.
func TestADirectoryIsLostToOneServer(t *testing.T) {
	f := newFleet(t, 1, 1)
	link := filepath.Join(t.TempDir(), "a") // one standby, which goes before the other, sees the store through it
	if err := os.Symlink(filepath.Join(f.root, "a"), link); err != nil {
		t.Fatal(err)
	}
	f.add("S2", "--standby", "--stand-for", "a="+link, "--failback-after", "300ms", "--rank", "0")
	s2, s1 := f.members["S2"], f.members["S1"]
	s1.kill()
	s1.args = append(slices.Clone(s1.args), "--rank", "5")
	f.up(s1)
	f.up(s2)
	role := func(m *member, want broker.Role) {
		t.Helper()
		f.until(m.name+" to be "+string(want), func(map[string]string) bool {
			return slices.ContainsFunc(m.stores(), func(s overview.Store) bool { return s.Name == "a" && s.Role == string(want) })
		})
	}
	for range often(1, 5) {
		role(s2, broker.Standby)
		if err := os.Rename(link, link+"-away"); err != nil {
			t.Fatal(err)
		}
		role(s2, broker.Unreachable)
		f.members["A"].kill()
		f.until("the other standby to have the store", func(held map[string]string) bool { return held["a"] == "S1" })
		f.goesOn()
		if err := os.Rename(link+"-away", link); err != nil {
			t.Fatal(err)
		}
		role(s2, broker.Standby)
		f.up(f.members["A"])
		f.home()
		f.goesOn()
	}
	if said := s2.said(); strings.Count(said, "unreachable") > 20*often(1, 5) {
		t.Errorf("it says too often that the directory is lost:\n%s", said)
	}
	f.finish()
}

// Whoever serves a store is killed again and again, with three who want to be next: there is one, each time.
func TestCandidatesRaceForAStore(t *testing.T) {
	f := newFleet(t, 1, 3, "--failback", "manual")
	for range often(3, 100) {
		var m *member
		f.until("the store to be served", func(held map[string]string) bool { m = f.members[held["a"]]; return m != nil })
		f.kill(m)
		f.crews["a"].goesOn()
		f.up(m)
	}
	f.finish()
}

// Gossip brings news sooner, and nothing depends on it: not on members that all know each other, nor where nobody is reached.
func TestServersWithAndWithoutGossip(t *testing.T) {
	atLength(t) // the other tests are without
	for name, join := range map[string]string{"together": freePort(t), "cut off": "127.0.0.1:1"} {
		t.Run(name, func(t *testing.T) {
			f := newFleetWith(t, 2, 1, func(m *member) []string {
				if m.name == "A" && name == "together" {
					return []string{"--gossip-listen", join}
				}
				return []string{"--gossip-listen", "127.0.0.1:0", "--gossip-join", join}
			})
			for _, name := range []string{"A", "B", "A", "B"} {
				f.kill(f.members[name])
				f.goesOn()
				f.up(f.members[name])
				f.home()
			}
			f.goesOn()
			f.finish()
		})
	}
}
