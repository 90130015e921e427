package journal

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// refs is a naive model of which segments a store needs.
type refs map[Segment]map[Segment]bool // segments by those whose endings refer to them

func (m refs) add(id Segment, a Account) {
	if m[id] == nil {
		m[id] = map[Segment]bool{}
	}
	for _, e := range a.Ends {
		m[id][e.Segment] = true
	}
	for _, to := range a.Again {
		m[id][to] = true
	}
}

// needed works the rule of deletion out from scratch: what holds something alive stays, and what ends something in a segment that stays.
func (m refs) needed(current Segment, st state) map[Segment]bool {
	stay := map[Segment]bool{current: true}
	for _, at := range st.alive {
		stay[at.Segment] = true
	}
	for again := true; again; {
		again = false
		for id, to := range m {
			for seg := range to {
				if seg != id && stay[seg] && !stay[id] {
					stay[id], again = true, true
				}
			}
		}
	}
	return stay
}

// drawn lets rapid make, and shrink, the choices of an actor.
type drawn struct{ *rapid.T }

func (d drawn) Uint64() uint64 { return rapid.Uint64().Draw(d.T, "choice") }

// TestModel does at random what a broker may do, reopens at random, and compares the things, where they lie and what Read returns with the model after
// each reopening, and the files with the rule: none stays that could go, none goes that is needed, nothing that was ended comes back.
func TestModel(t *testing.T) {
	base := quickDir(t)
	total := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		total["runs"]++
		m := &machine{rt: rt, t: t, dir: filepath.Join(base, fmt.Sprint(total["runs"])), total: total, refs: refs{}}
		m.a = newActor(rand.New(drawn{rt}))
		defer os.RemoveAll(m.dir)
		m.open()
		defer func() { m.a.s.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"begin": m.do(func(a *actor) { a.put(a.begin()) }),
			"burst": m.do(func(a *actor) {
				for range 12 {
					a.put(a.begin())
				}
			}),
			"end":      m.do((*actor).endAny),
			"ends":     m.do(func(a *actor) { a.endAny(); a.endAny(); a.endAny() }),
			"group":    m.do((*actor).group),
			"evacuate": m.do((*actor).evacuate),
			"empty": m.do(func(a *actor) {
				for n := len(a.evacuated); n == len(a.evacuated) && len(a.s.sealed()) > 0; {
					a.evacuate()
				}
			}),
			"read":   m.do(func(a *actor) { a.settle(); a.read() }),
			"reopen": func(*rapid.T) { m.reopen() },
			"":       func(*rapid.T) {},
		})
		m.reopen()
		m.count()
	})
	t.Logf("%v; lost, resurrected, misplaced: 0", total)
	if total["deleted"] == 0 || total["emptied"] == 0 {
		t.Error("no segment was ever deleted, or emptied")
	}
}

func (a *actor) endAny() {
	if len(a.state.alive) > 0 {
		a.put(a.end(a.any()))
	}
}

// machine holds a journal against the model.
type machine struct {
	refs
	rt    *rapid.T
	t     *testing.T
	dir   string
	a     *actor
	total map[string]int
}

// do has the actor do something and books what it appended.
func (m *machine) do(what func(*actor)) func(*rapid.T) {
	return func(rt *rapid.T) {
		m.a.rng = rand.New(drawn{rt})
		n, gone := len(m.a.log), len(m.a.evacuated)
		what(m.a)
		if m.a.failed != nil {
			rt.Fatal(m.a.failed)
		}
		for _, r := range m.a.log[n:] {
			m.add(r.Segment, r.means)
		}
		for _, seg := range m.a.evacuated[gone:] {
			delete(m.refs, seg)
		}
	}
}

func (m *machine) open() {
	st, rebuilt := newState(), refs{}
	s, err := reopen(m.t, m.dir, Options{SegmentBytes: 8 << 10, Head: m.a.head}, func(r Record) (Account, error) {
		a, err := st.apply(r)
		rebuilt.add(r.Segment, a)
		return a, err
	})
	if err != nil {
		m.rt.Fatal(err)
	}
	m.refs = rebuilt
	m.a.s, m.a.moving = s, nil
	if !st.equal(m.a.state) {
		m.rt.Fatalf("recovered %+v, want %+v", st, m.a.state)
	}
	for id, at := range st.alive {
		r, err := s.Read(at, nil)
		if err == nil {
			err = r.holds(id)
		}
		if err != nil {
			m.rt.Fatal(err)
		}
	}
}

func (m *machine) reopen() {
	m.compare()
	m.total["reopened"]++
	m.total["deleted"] += int(m.a.s.Stats().Deleted)
	m.a.s.Close()
	m.open()
	m.compare()
}

func (m *machine) count() {
	m.total["records"] += len(m.a.log)
	m.total["emptied"] += len(m.a.evacuated)
	m.total["moved"] += m.a.moves
	m.total["told again"] += m.a.again
	m.total["reads"] += m.a.reads
}

// compare waits until the journal has nothing left to do, then looks at what it kept.
func (m *machine) compare() {
	m.a.settle()
	m.a.s.idle()
	j := m.a.s.Journal
	j.mu.Lock()
	current, room := j.cur.id, j.cur.limit-j.cur.off
	got := map[Segment]bool{}
	for _, a := range j.ledger.list {
		got[a.id] = true
	}
	j.mu.Unlock()
	want := m.needed(current, m.a.state)
	for id := range want {
		if !got[id] {
			m.rt.Fatalf("segment %d is needed and gone; have %v, want %v", id, got, want)
		}
	}
	if room > 500 && len(got) != len(want) { // with less room the deletion waits for the next segment
		m.rt.Fatalf("have segments %v, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	list, _ := filepath.Glob(filepath.Join(m.dir, "seg-*"))
	for _, path := range list {
		if p, ok := parsePlace(filepath.Base(path)); ok && !got[p.id] && p.id <= current {
			m.rt.Fatalf("%s is still there; the log needs %v", path, got)
		}
	}
}

// idle waits until commit goroutine and janitor have settled all there is: a deletion takes a record of its own, and then a while.
func (s *store) idle() {
	s.t.Helper()
	for range 20_000 {
		j := s.Journal
		j.mu.Lock()
		done := j.fill == nil && len(j.full) == 0 && j.atRest() && s.base+LSN(j.stats.Records) == j.cur.next &&
			len(j.jan.doomed) == 0 && len(j.jan.litter) == 0 && !j.jan.busy
		j.mu.Unlock()
		if done {
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
	s.t.Fatal("the journal does not come to rest")
}
