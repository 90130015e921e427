package journal

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Tests of crashes, faults, damage and power cuts have a short tier, which runs always, and a full one that takes minutes.
var full = flag.Bool("full", false, "run the full tier of the proofs: every state, more seeds, minutes")

// TestCrashEverywhere runs a workload, stops the world before each change to the disk, and recovers from what each fate leaves of it. The result is always a
// state that the workload went through, at or behind the last acknowledgement: acknowledged ⊆ recovered ⊆ attempted, transactions whole, nothing that
// was acknowledged as ended comes back. Then the recovery itself is crashed at each of its changes, and recovered from.
func TestCrashEverywhere(t *testing.T) {
	c := crasher{t: t, every: 3, nest: 150, again: 10}
	limit := time.Time{}
	if *full {
		c.every, c.nest, c.again = 1, 40, 8
		limit = time.Now().Add(3 * time.Minute)
	}
	if testing.Short() {
		c.every = 8
	}
	for seed := newSeed(t); ; seed++ {
		c.seed(seed, 240)
		if *full {
			t.Logf("seed %d: %d crash points so far, %d states, %d violations", seed, c.points, c.states, c.violations)
		}
		if t.Failed() || time.Now().After(limit) {
			break
		}
	}
	c.report()
}

// crasher recovers from crashes and counts.
type crasher struct {
	t     *testing.T
	rng   *rand.Rand
	a     *actor
	every int // each such point is tried with all fates, the others with one
	nest  int // one recovery of so many is crashed itself, everywhere
	again int // one recovered store of so many is used and opened again
	where string
	acked LSN
	most  LSN // if not 0, what owners append behind it is not compared

	seeds, points, states, nested, violations int
	work                                      map[string]int
}

const crashSegment = 8 << 10

// seed runs one workload and crashes it everywhere.
func (c *crasher) seed(seed uint64, n int) {
	c.seeds++
	c.rng = rand.New(rand.NewPCG(seed, 1))
	c.acked = 0
	list := c.record(n)
	w := newWorld(nil)
	for i, e := range list {
		if e.acked > 0 {
			c.acked = e.acked
			continue
		}
		c.where = fmt.Sprintf("seed %d, before change %d (%v)", seed, i, e.op)
		c.crash(w, i%c.every == 0)
		if c.violations > 5 {
			return
		}
		w.apply(e.op)
	}
	c.where = fmt.Sprintf("seed %d, at the end", seed)
	c.crash(w, true)
}

// record runs the workload and returns what happened to the disk.
func (c *crasher) record(n int) []event {
	tp, t := &tape{}, c.t
	c.a = newActor(c.rng)
	opt := Options{SegmentBytes: crashSegment, before: tp.before, Head: c.a.head}
	s := &store{t: t, change: make(chan struct{}), base: 1}
	opt.Durable = func(through LSN) {
		tp.add(event{acked: through})
		s.tell(func() { s.acked = through })
	}
	j, err := Open(t.Context(), quickDir(t), opt, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Journal, c.a.s = j, s
	c.a.run(n)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	st := j.Stats()
	c.count("records", len(c.a.log))
	c.count("transactions", c.a.groups)
	c.count("batches", int(st.Batches))
	c.count("segments deleted", int(st.Deleted))
	c.count("segments emptied", len(c.a.evacuated))
	c.count("moves", c.a.moves)
	c.count("endings told again", c.a.again)
	c.count("reads", c.a.reads)
	if st.Deleted < 3 {
		t.Errorf("the workload deleted %d segments only", st.Deleted)
	}
	return tp.take()
}

func (c *crasher) count(what string, n int) {
	if c.work == nil {
		c.work = map[string]int{}
	}
	c.work[what] += n
}

func (c *crasher) crash(w *world, all bool) {
	c.points++
	if !all {
		c.recover(w, fate(c.rng.IntN(int(fates))))
		return
	}
	for how := range fates {
		c.recover(w, how)
	}
}

// recover opens what is left, and now and then crashes that.
func (c *crasher) recover(w *world, how fate) {
	left := w.survive(c.rng, how)
	dir, done := c.dir(left)
	defer done()
	if c.rng.IntN(c.nest) == 0 {
		next := newWorld(left)
		if how == died { // the kernel lives and still holds what is not on the disk
			next = w.clone()
		}
		c.crashRecovery(next, dir)
		return
	}
	got := c.open(dir, nil)
	c.judge(got, c.acked, dir)
	if got.err == nil && c.rng.IntN(c.again) == 0 {
		c.goOn(got, dir)
	}
}

func (c *crasher) dir(left remains) (string, func()) {
	dir, err := os.MkdirTemp(quickRoot(), "journal-crash")
	if err != nil {
		c.t.Fatal(err)
	}
	left.write(c.t, dir)
	return dir, func() { os.RemoveAll(dir) }
}

// recovered is what an owner was told by Open.
type recovered struct {
	err   error
	state state
	end   LSN // of the log, before the owner's own records
	next  LSN // behind the owner's own
	shown int // changes to the disk before the first record was visited
}

// open recovers, as one more owner, and closes.
func (c *crasher) open(dir string, tp *tape) (got recovered) {
	got.state, got.shown = newState(), -1
	opt := Options{SegmentBytes: crashSegment, Head: func() []Entry { return got.state.head() }}
	if tp != nil {
		opt.before = tp.before
	}
	last := LSN(0)
	j, err := Open(context.Background(), dir, opt, func(r Record) (Account, error) {
		if got.shown < 0 && tp != nil {
			got.shown = len(tp.take())
		}
		if r.LSN <= last {
			return Account{}, fmt.Errorf("record %d follows %d", r.LSN, last)
		}
		last = r.LSN
		return got.state.apply(r)
	})
	if err != nil {
		got.err = err
		return got
	}
	j.mu.Lock()
	got.end, got.next = j.ledger.list[len(j.ledger.list)-1].first-1, j.cur.next
	j.mu.Unlock()
	if c.most > 0 {
		got.end = min(got.end, c.most)
	}
	got.err = j.Close()
	return got
}

// head is what an owner writes that knows a state.
func (st state) head() []Entry {
	return []Entry{{Type: 2, Payload: fmt.Appendf(nil, "#%d|", st.count)}}
}

// judge compares what was recovered with what the workload had done by then.
func (c *crasher) judge(got recovered, acked LSN, dir string) {
	c.states++
	if got.err == nil && c.states%8 == 0 {
		if rep, err := Check(dir, CheckOptions{}); err != nil || rep.Err() != nil {
			c.violation(dir, "recovered, and then check: %v, %+v", err, rep)
		}
	}
	switch {
	case got.err != nil:
		c.violation(dir, "refused: %v", got.err)
	case got.end < acked:
		c.violation(dir, "lost: acknowledged %d, recovered up to %d", acked, got.end)
	default:
		c.compare(got.state, c.a.through(got.end), dir)
	}
}

// compare names the differences.
func (c *crasher) compare(got, want state, dir string) {
	if got.equal(want) {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(want.alive)) {
		if at, ok := got.alive[id]; !ok {
			c.violation(dir, "lost: thing %d, which lay at %+v", id, want.alive[id])
		} else if at != want.alive[id] {
			c.violation(dir, "thing %d lies at %+v, want %+v", id, at, want.alive[id])
		}
	}
	for _, id := range slices.Sorted(maps.Keys(got.alive)) {
		if _, ok := want.alive[id]; !ok {
			c.violation(dir, "resurrected or never decided: thing %d at %+v", id, got.alive[id])
		}
	}
	if got.count != want.count {
		c.violation(dir, "%d effects are known, want %d", got.count, want.count)
	}
}

// violation reports, and keeps the store.
func (c *crasher) violation(dir, format string, args ...any) {
	c.t.Helper()
	c.violations++
	keep, err := os.MkdirTemp("", "journal-violation")
	if err == nil {
		err = os.CopyFS(filepath.Join(keep, "store"), os.DirFS(dir))
	}
	c.t.Errorf("%s, acknowledged %d: %s; the store is in %s (%v)", c.where, c.acked, fmt.Sprintf(format, args...), keep, err)
}

// goOn uses a recovered store: what it appends comes behind what was there.
func (c *crasher) goOn(got recovered, dir string) {
	st, a := newState(), newActor(c.rng)
	s, err := reopen(c.t, dir, Options{SegmentBytes: crashSegment, Head: a.head}, func(r Record) (Account, error) {
		acc, err := st.apply(r)
		a.count = st.count
		return acc, err
	})
	if err != nil {
		c.violation(dir, "second opening: %v", err)
		return
	}
	defer s.Close()
	c.compare(st, got.state, dir)
	a.s, a.state, a.ids, a.count = s, st, 1_000_000+c.points*100, st.count
	for range 5 {
		a.put(a.begin())
		if len(a.state.alive) > 0 {
			a.put(a.end(a.any()))
		}
	}
	a.settle()
	for id, at := range a.state.alive {
		r, err := s.Read(at, nil)
		if err == nil {
			err = r.holds(id)
		}
		if err != nil {
			c.violation(dir, "thing %d cannot be read back: %v", id, err)
		}
	}
	if err := s.Close(); err != nil {
		c.violation(dir, "close: %v", err)
	}
	if third := c.open(dir, nil); third.err != nil {
		c.violation(dir, "third opening: %v", third.err)
	} else {
		c.compare(third.state, a.state, dir)
	}
}

// crashRecovery crashes a recovery before each of its changes to the disk. What it had shown to its owner is found again, whatever happens.
func (c *crasher) crashRecovery(w *world, dir string) {
	outer := c.where
	defer func() { c.where = outer }()
	tp := &tape{}
	first := c.open(dir, tp)
	c.judge(first, c.acked, dir)
	if first.err != nil {
		return
	}
	for i, e := range append(tp.take(), event{}) {
		c.where = fmt.Sprintf("%s, recovery crashed before its change %d (%v)", outer, i, e.op)
		least := c.acked
		if first.shown >= 0 && i >= first.shown {
			least = first.end
		}
		for how := range fates {
			if !*full && c.rng.IntN(2) == 0 {
				continue
			}
			c.nested++
			func() {
				dir, done := c.dir(w.survive(c.rng, how))
				defer done()
				second := c.open(dir, nil)
				if second.err == nil && second.end > first.end { // its own head is all that this owner wrote
					second.end = first.end
				}
				c.judge(second, least, dir)
			}()
		}
		if i < len(tp.list) {
			w.apply(e.op)
		}
	}
}

func (c *crasher) report() {
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(c.work)) {
		fmt.Fprintf(&b, "%d %s, ", c.work[what], what)
	}
	c.t.Logf("%d seeds: %s%d crash points, %d states recovered (%d of them of crashed recoveries), violations %d",
		c.seeds, b.String(), c.points, c.states, c.nested, c.violations)
}
