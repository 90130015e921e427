package journal

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// refs is a naive model of a store: every record ever written, and where.
type refs struct {
	records []modelled
	live    map[int]Segment // things and the segment that keeps them
}

type modelled struct {
	seg    Segment
	begins int // thing, or 0
	ends   int
	endSeg Segment
}

// needed works the rule of deletion out from scratch: what holds something alive stays, and what ends something in a segment that stays.
func (m *refs) needed(current Segment) map[Segment]bool {
	stay := map[Segment]bool{current: true}
	for _, seg := range m.live {
		stay[seg] = true
	}
	for again := true; again; {
		again = false
		for _, r := range m.records {
			if r.ends != 0 && r.endSeg != r.seg && stay[r.endSeg] && !stay[r.seg] {
				stay[r.seg] = true
				again = true
			}
		}
	}
	return stay
}

// TestDeletionModel appends and ends at random, reopens at random, and compares what is alive with the model after each reopening, and the files
// with the rule: none stays that could go, none goes that is needed, nothing that was ended comes back.
func TestDeletionModel(t *testing.T) {
	base := quickDir(t)
	runs, deleted, reopened := 0, uint64(0), 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		m := &machine{rt: rt, t: t, dir: filepath.Join(base, fmt.Sprint(runs)), refs: refs{live: map[int]Segment{}}}
		defer os.RemoveAll(m.dir)
		m.open()
		defer func() { m.s.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"begin":  m.begin,
			"end":    m.end,
			"end2":   m.end,
			"burst":  func(rt *rapid.T) { m.burst() },
			"reopen": func(rt *rapid.T) { m.reopen(); reopened++ },
			"":       func(rt *rapid.T) {},
		})
		m.reopen()
		deleted += m.deleted
	})
	t.Logf("%d runs, %d reopened, %d segments deleted", runs, reopened, deleted)
	if deleted == 0 {
		t.Error("no segment was ever deleted")
	}
}

type machine struct {
	refs
	rt      *rapid.T
	t       *testing.T
	dir     string
	s       *store
	things  int
	deleted uint64
}

func (m *machine) open() {
	live := map[int]bool{}
	s, err := reopen(m.t, m.dir, Options{SegmentBytes: 8 << 10}, func(r Record) (Account, error) {
		return apply(live, string(r.Payload)), nil
	})
	if err != nil {
		m.rt.Fatal(err)
	}
	m.s = s
	want := map[int]bool{}
	for k := range m.live {
		want[k] = true
	}
	if !maps.Equal(live, want) {
		m.rt.Fatalf("alive %v, want %v", slices.Sorted(maps.Keys(live)), slices.Sorted(maps.Keys(want)))
	}
}

func (m *machine) reopen() {
	m.compare()
	m.deleted += m.s.Stats().Deleted
	m.s.Close()
	m.open()
	m.compare()
}

func (m *machine) put(e Entry, r modelled) Segment {
	at, err := m.s.Append(e)
	lsn, seg := at.LSN, at.Segment
	if err != nil {
		m.rt.Fatal(err)
	}
	m.s.durable(lsn)
	r.seg = seg
	m.records = append(m.records, r)
	return seg
}

func (m *machine) begin(rt *rapid.T) {
	m.things++
	size := rapid.IntRange(0, 2500).Draw(rt, "size")
	e := Entry{Type: 1, Payload: fmt.Appendf(nil, "+%d:%s", m.things, strings.Repeat("x", size)), Account: Account{Live: 1}}
	m.live[m.things] = m.put(e, modelled{begins: m.things})
}

func (m *machine) burst() {
	for range 4 {
		m.begin(m.rt)
	}
}

func (m *machine) end(rt *rapid.T) {
	if len(m.live) == 0 {
		rt.Skip("nothing is alive")
	}
	k := rapid.SampledFrom(slices.Sorted(maps.Keys(m.live))).Draw(rt, "thing")
	seg := m.live[k]
	delete(m.live, k)
	e := Entry{Type: 1, Payload: fmt.Appendf(nil, "-%d:%d", k, seg), Account: Account{Ends: []Ending{{Segment: seg}}}}
	m.put(e, modelled{ends: k, endSeg: seg})
}

// compare waits until the journal has nothing left to do, then looks at what it kept.
func (m *machine) compare() {
	m.s.idle()
	j := m.s.Journal
	j.mu.Lock()
	current, room := j.cur.id, j.cur.limit-j.cur.off
	got := map[Segment]bool{}
	for _, a := range j.ledger.list {
		got[a.id] = true
	}
	j.mu.Unlock()
	want := m.needed(current)
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
		if p, ok := parsePlace(filepath.Base(path)); !ok || !got[p.id] && p.id <= current {
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
		done := j.fill == nil && len(j.full) == 0 && len(j.jan.asks) == 0 && s.base+LSN(j.stats.Records) == j.cur.next &&
			len(j.jan.doomed) == 0 && len(j.jan.litter) == 0 && !j.jan.busy
		j.mu.Unlock()
		if done {
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
	s.t.Fatal("the journal does not come to rest")
}
