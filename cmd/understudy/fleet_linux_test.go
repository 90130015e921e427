package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker"
	"github.com/understudy-mq/understudy/cmd/internal/overview"
)

var storesFull = flag.Bool("stores-full", false, "play the stories of several stores at length")

// member is one server of a fleet. It comes back at the address that it had.
type member struct {
	t      *testing.T
	name   string
	listen string
	args   []string
	*child // nil: it is down
	all    []*child
}

func (m *member) up() {
	m.t.Helper()
	m.child = launchAt(m.t, m.listen, m.args...)
	m.all = append(m.all, m.child)
}

// kill ends it as a power cut of its process would.
func (m *member) kill() {
	m.t.Helper()
	m.signal(syscall.SIGKILL)
	m.exit()
	m.child = nil
}

// stores asks for its stores; none while it does not answer.
func (m *member) stores() []overview.Store {
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get("http://" + m.addrs["admin"] + "/status")
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	var r struct{ Broker overview.Broker }
	if err := json.Unmarshal(body, &r); err != nil {
		m.t.Errorf("status of %s: %v", m.name, err)
	}
	return r.Broker.Stores
}

// fleet is servers that own stores or stand for them, on one directory tree, with clients for each store.
type fleet struct {
	t       *testing.T
	root    string
	names   []string // of stores; the owner of each has the same name in capitals
	members map[string]*member
	crews   map[string]*crew
	rng     *rand.Rand
	kills   int
	strange []string // stores that went to one whose turn it was not
}

// newFleet starts an owner for each of so many stores, and standbys, and clients.
func newFleet(t *testing.T, stores, standbys int, more ...string) *fleet {
	t.Helper()
	return newFleetWith(t, stores, standbys, func(*member) []string { return more })
}

// newFleetWith is newFleet with arguments of each server's own.
func newFleetWith(t *testing.T, stores, standbys int, more func(*member) []string) *fleet {
	t.Helper()
	f := &fleet{t: t, root: t.TempDir(), members: map[string]*member{}, crews: map[string]*crew{}}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	f.rng = rand.New(rand.NewPCG(seed, 0))
	common := []string{"--stand-for-all", f.root, "--failback-after", "300ms", "--segment", "4MiB", "--max-memory", "32MiB"}
	for i := range stores {
		name := string(rune('a' + i))
		f.names = append(f.names, name)
		f.add(strings.ToUpper(name), append([]string{"--store", name + "=" + filepath.Join(f.root, name)}, common...)...)
	}
	for i := range standbys {
		f.add(fmt.Sprint("S", i+1), append([]string{"--standby"}, common...)...)
	}
	for _, m := range f.sorted() {
		m.args = append(m.args, more(m)...)
		m.up()
	}
	f.home()
	for _, m := range f.sorted() {
		f.stands(m)
	}
	var brokers []string
	for _, m := range f.sorted() {
		brokers = append(brokers, "--broker", "stomp://"+m.listen)
	}
	for _, name := range f.names {
		sidecar := launch(t, append([]string{"sidecar", "--store", name, "--probe-interval", "200ms", "--name", "sidecar-" + name}, brokers...)...)
		f.crews[name] = newCrew(t, name, sidecar.addrs["listen"])
	}
	f.goesOn()
	return f
}

func (f *fleet) add(name string, args ...string) {
	f.members[name] = &member{t: f.t, name: name, listen: freePort(f.t), args: append([]string{"broker", "--name", name}, args...)}
}

// portsGiven are the addresses that freePort has returned: their owners may not have them yet, or be away.
var portsGiven sync.Map

// freePort is an address to come back to, and nobody else's: outside of what the kernel gives away by itself, if it can be had.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprint("127.0.0.1:", 10000+rand.IntN(20000))
		if _, given := portsGiven.LoadOrStore(addr, true); given {
			continue
		}
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

func (f *fleet) sorted() (list []*member) {
	for _, m := range f.members {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b *member) int { return strings.Compare(a.name, b.name) })
	return list
}

// alive are the servers that are up.
func (f *fleet) alive() []*member {
	return slices.DeleteFunc(f.sorted(), func(m *member) bool { return m.child == nil })
}

// holders says who serves each store now, as they say themselves.
func (f *fleet) holders() map[string]string {
	held := map[string]string{}
	for _, m := range f.alive() {
		for _, s := range m.stores() {
			if s.Role == "active" {
				held[s.Name] = m.name
			}
		}
	}
	return held
}

// until waits for who holds what.
func (f *fleet) until(what string, cond func(map[string]string) bool) {
	f.t.Helper()
	for deadline := time.Now().Add(2 * patience); ; time.Sleep(20 * time.Millisecond) {
		held := f.holders()
		if cond(held) {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("waited for %s; served: %v", what, held)
		}
	}
}

// home waits until every store is with its owner.
func (f *fleet) home() {
	f.t.Helper()
	f.until("every store to be with its owner", func(held map[string]string) bool {
		for _, name := range f.names {
			if held[name] != strings.ToUpper(name) {
				return false
			}
		}
		return true
	})
}

// stands waits until a server serves or stands for every store, so that the others know.
func (f *fleet) stands(m *member) {
	f.t.Helper()
	f.until(m.name+" to stand for every store", func(map[string]string) bool {
		n := 0
		for _, s := range m.stores() {
			if s.Role == string(broker.Active) || s.Role == string(broker.Standby) {
				n++
			}
		}
		return n == len(f.names)
	})
}

// up brings a server back.
func (f *fleet) up(m *member) {
	f.t.Helper()
	m.up()
	f.stands(m)
}

// served waits until every store is in somebody's hands.
func (f *fleet) served() {
	f.t.Helper()
	f.until("every store to be served", func(held map[string]string) bool { return len(held) == len(f.names) })
}

func (f *fleet) goesOn() {
	f.t.Helper()
	for _, c := range f.crews {
		c.goesOn()
	}
}

var opened = regexp.MustCompile(`msg="journal is open".* uuid=(\S+) epoch=(\d+)`)

// finish judges what clients saw, and that no epoch had two holders.
func (f *fleet) finish() {
	f.t.Helper()
	for _, name := range f.names {
		f.crews[name].finish(20 * time.Second)
	}
	holders := map[string]string{}
	for _, m := range f.sorted() {
		for i, c := range m.all {
			for _, found := range opened.FindAllStringSubmatch(c.said(), -1) {
				epoch, who := found[1]+" "+found[2], fmt.Sprintf("%s/%d", m.name, i)
				if other, taken := holders[epoch]; taken {
					f.t.Errorf("epoch %s has two holders: %s and %s", epoch, other, who)
				}
				holders[epoch] = who
			}
		}
	}
	f.t.Logf("%d epochs of %d stores, each with one holder; %d kills, %d out of turn: %q", len(holders), len(f.names), f.kills, len(f.strange), f.strange)
	if len(f.strange) > 1+f.kills/20 {
		f.t.Errorf("%d of %d take-overs were out of turn", len(f.strange), f.kills)
	}
	if len(holders) < len(f.names) {
		f.t.Error("the logs do not say who opened which store")
	}
}

// kill ends a server as a power cut of its process would, waits until others serve what it served, and notes if they are not those whose turn it was: the owner, if it
// is there, else who served the fewest. Candidates that the machine does not let run for half a second are not waited for, so that may happen, rarely.
func (f *fleet) kill(m *member) {
	f.t.Helper()
	before := f.holders()
	serves := map[string]int{}
	for _, who := range before {
		serves[who]++
	}
	f.t.Logf("kill %s; served: %v", m.name, before)
	m.kill()
	f.kills++
	f.served()
	after := f.holders()
	for _, name := range f.names {
		if before[name] != m.name {
			continue
		}
		fewest := len(f.names)
		for _, o := range f.alive() {
			fewest = min(fewest, serves[o.name])
		}
		taker := after[name]
		if owner := f.members[strings.ToUpper(name)]; owner.child != nil && taker != owner.name {
			f.strange = append(f.strange, fmt.Sprintf("store %s went to %s, not to its owner", name, taker))
		} else if owner.child == nil && serves[taker] > fewest {
			f.strange = append(f.strange, fmt.Sprintf("store %s went to %s, which served %d stores; there was one that served %d", name, taker, serves[taker], fewest))
		}
		serves[taker]++
	}
}
