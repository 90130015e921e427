package journal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// understudy is a caller with a warm copy, as the tests' records have it.
type understudy struct {
	state   state
	visited int
	resets  int
	last    LSN
	fail    error
}

func newUnderstudy() *understudy { return &understudy{state: newState()} }

func (u *understudy) visit(r Record) (Account, error) {
	if r.LSN <= u.last {
		return Account{}, fmt.Errorf("record %d follows %d", r.LSN, u.last)
	}
	if u.fail != nil {
		return Account{}, u.fail
	}
	u.last = r.LSN
	u.visited++
	return u.state.apply(r)
}

func (u *understudy) reset() {
	u.state, u.visited, u.last = newState(), 0, 0
	u.resets++
}

// follow begins to follow a store by hand. Nothing is put off, and a poll goes on until all is read that is proved, unless it is told otherwise.
func (u *understudy) follow(t testing.TB, dir string) *follower {
	t.Helper()
	d, err := openDisk(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Reset: u.reset, LockPoll: time.Hour}.withDefaults()
	f := newFollower(d, opt, opt.Logger, u.visit)
	t.Cleanup(func() { f.close(); d.close() })
	return f
}

// hurry polls without the pauses.
func (f *follower) hurry() {
	f.again, f.heir, f.pause = time.Time{}, time.Time{}, 0
	f.poll()
}

// fork is a second one that knows the same, and the copy that it would hand over.
func (u *understudy) fork(f *follower) (*understudy, *copied, string) {
	v := *u
	v.state = u.state.clone()
	if f.r == nil || f.first {
		return &v, nil, "none"
	}
	c := f.snapshot()
	c.at.drops, c.at.manifest = slices.Clone(c.at.drops), slices.Clone(c.at.manifest)
	list := c.ledger.list
	c.ledger.list = nil
	for _, a := range list {
		b := *a
		b.refs = slices.Clone(a.refs)
		c.ledger.list = append(c.ledger.list, &b)
	}
	return &v, c, ""
}

// promote takes a store over with what a follower has.
func (u *understudy) promote(t testing.TB, dir string, c *copied, cold string) (*Journal, error) {
	t.Helper()
	opt := Options{SegmentBytes: crashSegment, Reset: u.reset, noLock: true, Head: func() []Entry { return u.state.head() }}.withDefaults()
	d, err := openDisk(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := acquire(t.Context(), d, opt, opt.Logger, nil)
	if err != nil {
		t.Fatal(err)
	}
	return own(d, lock, opt, opt.Logger, u.visit, c, cold)
}

// make does to a directory what an owner did to its own.
func (o op) make(t testing.TB, dir string) {
	t.Helper()
	path := filepath.Join(dir, o.name)
	var err error
	switch o.kind {
	case opCreate:
		err = os.WriteFile(path, nil, 0o600)
	case opAllocate:
		if st, err2 := os.Stat(path); err2 == nil && st.Size() < o.size {
			err = os.Truncate(path, o.size)
		}
	case opWrite:
		var f *os.File
		if f, err = os.OpenFile(path, os.O_RDWR, 0); err == nil {
			_, err = f.WriteAt(o.data, o.off)
			err = errors.Join(err, f.Close())
		}
	case opRename:
		err = os.Rename(path, filepath.Join(dir, o.to))
	case opRemove:
		if err = os.Remove(path); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	case opMkdir:
		err = os.MkdirAll(path, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// habit is how diligent a follower is.
type habit struct {
	name  string
	skip  int // it polls at one change to the disk of so many
	stops int // it is begun anew at one of so many
	slow  bool
}

// TestFollowEverywhere follows an owner from change to change of the disk, lets it die before each of them with every fate, and takes over from what the
// follower has by then. What the copy and the rest of the log make together is what the workload had done, to the last acknowledged record at least, and what a
// recovery from nothing makes of the same files. The follower itself never holds anything that was not acknowledged.
func TestFollowEverywhere(t *testing.T) {
	every := 6
	if *full {
		every = 1
	}
	seed := newSeed(t)
	for i, h := range []habit{{name: "at each change"}, {name: "now and then", skip: 12}, {name: "rarely", skip: 150}, {name: "slowly", slow: true, skip: 4}, {name: "anew", skip: 3, stops: 60}} {
		t.Run(h.name, func(t *testing.T) {
			w := following{t: t, habit: h, every: every}
			w.run(seed + uint64(i))
			t.Logf("%d take-overs: %d warm, %d cold; %d copies thrown away, %d acknowledgements", w.points, w.warm, w.points-w.warm, w.u.resets, w.acks)
			if w.warm == 0 && h.skip < 100 { // who looks rarely is left behind by a store whose segments come and go so fast
				t.Error("no copy was ever of use")
			}
			if h.skip == 0 && w.u.resets > 0 {
				t.Error("a diligent follower threw its copy away")
			}
		})
	}
}

type following struct {
	t *testing.T
	habit
	every int
	u     *understudy
	f     *follower
	dir   string
	acked LSN

	points, warm, acks int
}

func (w *following) run(seed uint64) {
	t := w.t
	c := crasher{t: t, rng: rand.New(rand.NewPCG(seed, 5))}
	list := c.record(240)
	w.dir, w.u = quickDir(t), newUnderstudy()
	w.f = w.u.follow(t, w.dir)
	world := newWorld(nil)
	for i, e := range list {
		if e.acked > 0 {
			w.acked = e.acked
			w.acks++
			continue
		}
		c.where = fmt.Sprintf("seed %d, before change %d (%v)", seed, i, e.op)
		if w.stops > 0 && c.rng.IntN(w.stops) == 0 {
			w.f.close()
			w.u = newUnderstudy()
			w.f = w.u.follow(t, w.dir)
		}
		if w.skip == 0 || c.rng.IntN(w.skip) == 0 {
			w.poll(&c)
		}
		if c.rng.IntN(w.every) == 0 {
			how := died
			if c.rng.IntN(2) == 0 {
				how = fate(c.rng.IntN(int(fates)))
			}
			c.acked = w.acked
			w.takeOver(&c, world.survive(c.rng, how))
		}
		if t.Failed() {
			return
		}
		e.op.make(t, w.dir)
		world.apply(e.op)
	}
}

// poll goes on, and checks that nothing was visited but what is acknowledged or will be in the owner's next step.
func (w *following) poll(c *crasher) {
	if w.slow {
		w.f.budget = -time.Second
	}
	fresh := w.u.visited == 0
	w.f.hurry()
	k, err := lastMark(w.f.disk, 2)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.u.last > k.lsn || k.lsn < w.acked {
		w.t.Fatalf("%s: visited up to %d, the mark says %d, acknowledged %d", c.where, w.u.last, k.lsn, w.acked)
	}
	if w.f.r == nil {
		if fresh && k.lsn > 0 {
			w.t.Fatalf("%s: no copy can be begun: %s", c.where, w.f.cold)
		}
		return
	}
	if got := w.f.state(); !w.slow && (got.Applied != got.Proved || got.Proved < w.acked) {
		w.t.Fatalf("%s: after a poll the copy is at %+v, acknowledged %d", c.where, got, w.acked)
	}
	if at := w.f.trail[0]; !w.f.first && len(w.f.trail) == 1 && at.sc.off == at.end {
		if want := c.a.through(at.last); !w.u.state.equal(want) {
			w.t.Fatalf("%s: at record %d the copy is %+v, want %+v", c.where, at.last, w.u.state, want)
		}
	}
}

func (w *following) takeOver(c *crasher, left remains) {
	dir, done := c.dir(left)
	defer done()
	other, done := c.dir(left)
	defer done()
	w.points++
	u, copy, cold := w.u.fork(w.f)
	j, err := u.promote(w.t, dir, copy, cold)
	got := recovered{err: err, state: u.state}
	if err == nil {
		j.mu.Lock()
		got.end = j.ledger.list[len(j.ledger.list)-1].first - 1
		names := segmentsOf(j)
		j.mu.Unlock()
		if st := j.Stats(); st.Cold == "" {
			w.warm++
			if int(st.Recovered) != u.visited || st.Copied != copy.records {
				w.t.Errorf("%s: %d records recovered, %d visited; %d copied, want %d", c.where, st.Recovered, u.visited, st.Copied, copy.records)
			}
		} else if w.skip == 0 && copy != nil {
			w.t.Errorf("%s: the copy of a diligent follower was of no use: %s", c.where, st.Cold)
		}
		got.err = j.Close()
		w.same(c, names, other)
	}
	c.judge(got, c.acked, dir)
	if again := c.open(dir, nil); again.err != nil || !again.state.equal(got.state) {
		w.t.Errorf("%s: opened once more: %v, %+v, want %+v", c.where, again.err, again.state, got.state)
	}
}

// segmentsOf is what the ledger holds of segments before the current one.
func segmentsOf(j *Journal) (list []string) {
	for _, a := range j.ledger.list[:len(j.ledger.list)-1] {
		list = append(list, fmt.Sprintf("%+v: %d live, %d octets, from %d, file %d", a.sealed, a.live, a.bytes, a.start, a.size))
	}
	return list
}

// same compares the segments with those that a recovery from nothing finds.
func (w *following) same(c *crasher, got []string, dir string) {
	cold, err := newUnderstudy().promote(w.t, dir, nil, "")
	if err != nil {
		w.t.Errorf("%s: from nothing: %v", c.where, err)
		return
	}
	defer cold.Close()
	cold.mu.Lock()
	want := segmentsOf(cold)
	cold.mu.Unlock()
	if !slices.Equal(got, want) {
		w.t.Errorf("%s: segments %v, from nothing %v", c.where, got, want)
	}
}

// TestFollowSuccession is about an owner that is stopped before any of its changes to the disk, while another takes over, and goes on later: the follower
// never sees what it then adds behind the cut, whenever the follower looked before, and when it takes over in its turn it has the successor's log
// and nothing else. [interleaving of a phantom in a warm copy]
func TestFollowSuccession(t *testing.T) {
	step, ops := int64(5), 60
	if *full {
		step = 1
	}
	for _, when := range []string{"before", "between", "after", "always", "late"} {
		t.Run(when, func(t *testing.T) {
			seed := newSeed(t)
			w := succession{t: t, when: when}
			for n := 1 + int64(seed)%step; w.trial(seed+uint64(n), n, ops); n += step {
				if t.Failed() {
					return
				}
			}
			t.Logf("%d owners woken, %d wrote behind the cut; %d warm take-overs, %d copies thrown away", w.trials, w.phantoms, w.warm, w.resets)
			if w.phantoms == 0 || w.warm == 0 {
				t.Error("nothing was tested")
			}
		})
	}
}

type succession struct {
	t                              *testing.T
	when                           string
	trials, phantoms, warm, resets int
}

func (w *succession) trial(seed uint64, n int64, ops int) bool {
	t, dir, rng := w.t, quickDir(w.t), rand.New(rand.NewPCG(seed, 6))
	defer os.RemoveAll(dir)
	u := newUnderstudy()
	f := u.follow(t, dir)
	defer func() { f.close(); f.disk.close() }()
	var turn sync.Mutex // the owner changes the disk from two goroutines
	poll := func(when ...string) {
		if w.when == "always" || slices.Contains(when, w.when) {
			turn.Lock()
			defer turn.Unlock()
			f.hurry()
		}
	}
	var next atomic.Pointer[successor]
	var armed atomic.Bool
	var seen atomic.Int64
	var written atomic.Int64 // by the first owner, after the other had taken over
	a := newActor(rng)
	a.s = mustOpen(t, dir, Options{SegmentBytes: crashSegment, Head: a.head, before: func(o op) error {
		switch {
		case !armed.Load():
		case seen.Add(1) == n:
			poll("before", "between")
			next.Store(succeed(t, dir, seed))
			poll("between")
		case next.Load() != nil && o.kind == opWrite && strings.HasPrefix(o.name, "seg-") && len(o.data) < crashSegment:
			written.Add(1)
			poll() // between two steps of the one that is stale
		}
		return nil
	}}, nil)
	poll("before")
	armed.Store(true)
	a.stale = true
	a.run(ops)
	a.s.Close()
	other := next.Load()
	if other == nil || t.Failed() {
		return false
	}
	w.trials++
	if written.Load() > 0 {
		w.phantoms++
	}
	poll("after", "before")
	other.serve()
	poll("after", "late")
	poll() // the copy may have been thrown away just now
	if err := other.a.s.Close(); err != nil {
		t.Fatalf("seed %d, change %d: successor: %v", seed, n, err)
	}
	copy, cold := f.finish()
	j, err := u.promote(t, dir, copy, cold)
	if err != nil {
		t.Fatalf("seed %d, change %d: %v", seed, n, err)
	}
	if st := j.Stats(); st.Cold == "" {
		w.warm++
	} else if w.when == "always" {
		t.Errorf("seed %d, change %d: the copy was of no use: %s", seed, n, st.Cold)
	}
	w.resets += u.resets
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if !u.state.equal(other.a.state) {
		t.Errorf("seed %d, change %d: the successor left %+v, the understudy has %+v", seed, n, other.a.state, u.state)
	}
	return true
}

// A copy that did hold a phantom, whatever made it believe in it, is found out: by the follower when it meets the successor's cut, or at the take-over.
func TestFollowPhantom(t *testing.T) {
	for _, found := range []string{"by the follower", "at the take-over"} {
		t.Run(found, func(t *testing.T) {
			dir := quickDir(t)
			var other *successor
			var armed atomic.Bool
			a := newActor(newRand(t))
			a.s = mustOpen(t, dir, Options{SegmentBytes: 64 << 10, Head: a.head, before: func(o op) error {
				if o.kind == opWrite && armed.CompareAndSwap(true, false) {
					other = succeed(t, dir, 7)
				}
				return nil
			}}, nil)
			for range 30 {
				a.put(a.begin())
			}
			a.settle()
			u := newUnderstudy()
			f := u.follow(t, dir)
			f.hurry()
			acked := a.log[len(a.log)-1].LSN
			if u.last != acked {
				t.Fatalf("visited up to %d, acknowledged %d", u.last, acked)
			}
			armed.Store(true)
			phantom, _ := a.put(a.begin())
			a.s.until("fencing", func() bool { return len(a.s.failed) > 0 })
			at, size := a.s.Journal, int64(recordSize(a.log[len(a.log)-1].Size))
			lie := &markFile{disk: f.disk, file: at.mark.file, epoch: 1}
			lie.file, _ = openForWriting(filepath.Join(dir, epochName(1)))
			if err := lie.put(mark{lsn: phantom.LSN, segment: phantom.Segment, end: phantom.Offset + size}); err != nil {
				t.Fatal(err)
			}
			lie.file.Close()
			a.s.Close()
			f.hurry()
			if u.last != phantom.LSN {
				t.Fatalf("the lie does not work: visited up to %d, want %d", u.last, phantom.LSN)
			}
			if found == "by the follower" {
				f.hurry()
				if u.resets != 1 || f.r != nil {
					t.Fatalf("%d resets, state %+v", u.resets, f.state())
				}
				f.hurry()
				if _, ok := u.state.alive[a.ids]; ok || u.visited == 0 {
					t.Errorf("begun again: %d visited, the phantom alive: %v", u.visited, ok)
				}
			}
			if err := other.a.s.Close(); err != nil {
				t.Fatal(err)
			}
			copy, cold := f.finish()
			j, err := u.promote(t, dir, copy, cold)
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			if warm := j.Stats().Cold == ""; warm != (found == "by the follower") {
				t.Errorf("cold: %q", j.Stats().Cold)
			}
			if !u.state.equal(other.a.state) || u.resets != 1 {
				t.Errorf("%d resets; the successor left %+v, the understudy has %+v", u.resets, other.a.state, u.state)
			}
		})
	}
}

func openForWriting(path string) (*file, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	return &file{f, filepath.Base(path)}, err
}

// Damage behind what was visited is judged as if nothing had been: the same stores start, with the same records, and the same are refused.
func TestFollowDamagedTail(t *testing.T) {
	dir := quickDir(t)
	a := newActor(newRand(t))
	a.s = mustOpen(t, dir, Options{SegmentBytes: 64 << 10, Head: a.head}, nil)
	for range 20 {
		a.put(a.begin())
	}
	a.settle()
	u := newUnderstudy()
	f := u.follow(t, dir)
	f.hurry()
	from := f.trail[0].sc.off
	for range 6 {
		a.put(a.begin())
		a.settle()
	}
	a.s.Close()
	end := f.disk
	k, err := lastMark(end, 2)
	if err != nil {
		t.Fatal(err)
	}
	c := crasher{t: t, rng: newRand(t)}
	refused, started := 0, 0
	for off := from; off < k.end+64; off += 29 {
		for _, hurt := range []func(b []byte){
			func(b []byte) { b[off] ^= 1 },
			func(b []byte) { clear(b[off:max(off, min(off+sectorSize, k.end))]) },
			func(b []byte) { clear(b[off:]) },
		} {
			left := remains{}
			for _, e := range mustList(t, dir) {
				if left[e], err = os.ReadFile(filepath.Join(dir, e)); err != nil {
					t.Fatal(err)
				}
			}
			hurt(left[f.trail[0].name()])
			warmDir, done := c.dir(left)
			defer done()
			coldDir, done := c.dir(left)
			defer done()
			v, copy, why := u.fork(f)
			j, err := v.promote(t, warmDir, copy, why)
			if err == nil {
				if cold := j.Stats().Cold; cold != "" {
					t.Errorf("offset %d: %s", off, cold)
				}
				j.Close()
			}
			x := newUnderstudy()
			j2, err2 := x.promote(t, coldDir, nil, "")
			if err2 == nil {
				started++
				j2.Close()
			} else {
				refused++
			}
			if errors.Is(err, ErrDamaged) != errors.Is(err2, ErrDamaged) || (err == nil) != (err2 == nil) || err == nil && !v.state.equal(x.state) {
				t.Fatalf("offset %d: warm %v, cold %v", off, err, err2)
			}
		}
	}
	t.Logf("%d started, %d refused", started, refused)
	if started == 0 || refused == 0 {
		t.Error("nothing was tested")
	}
}

func mustList(t testing.TB, dir string) (names []string) {
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// A file that is gone before the follower has opened it makes it begin again; what a caller's error makes of it is over.
func TestFollowTrouble(t *testing.T) {
	t.Run("visitor", func(t *testing.T) {
		dir := quickDir(t)
		s := mustOpen(t, dir, Options{SegmentBytes: crashSegment}, nil)
		lsn, _ := s.add("x", Account{Live: 1})
		s.durable(lsn)
		u := newUnderstudy()
		u.fail = errors.New("cannot be understood")
		f := u.follow(t, dir)
		for range 3 {
			f.hurry()
		}
		if c, cold := f.finish(); c != nil || !strings.Contains(cold, "cannot be understood") || !f.over || u.resets != 1 {
			t.Errorf("%+v, %q, %d resets", c, cold, u.resets)
		}
	})
	t.Run("too slow", func(t *testing.T) {
		dir := quickDir(t)
		a := newActor(newRand(t))
		a.s = mustOpen(t, dir, Options{SegmentBytes: crashSegment, Head: a.head}, nil)
		round := func(n int) {
			for range n {
				a.put(a.begin())
				a.settle()
				a.put(a.end(a.any()))
				a.settle()
			}
			a.s.idle()
		}
		round(5)
		u := newUnderstudy()
		f := u.follow(t, dir)
		f.hurry()
		if u.visited == 0 {
			t.Fatal("nothing visited")
		}
		round(100)
		if a.s.Stats().Deleted < 3 {
			t.Fatalf("%+v", a.s.Stats())
		}
		f.hurry()
		if u.resets != 1 || f.r != nil || f.pause != copyPause {
			t.Errorf("%d resets, %+v, pause %v", u.resets, f.state(), f.pause)
		}
		f.poll()
		if f.r != nil {
			t.Error("begun again at once")
		}
		f.hurry()
		if !u.state.equal(a.state) {
			t.Errorf("copy %+v, want %+v", u.state, a.state)
		}
	})
	t.Run("segment gone", func(t *testing.T) {
		im := newImage(t, crashSegment, 200)
		u := &understudy{state: newState()}
		f := u.follow(t, im.dir)
		f.visit = func(Record) (Account, error) { return Account{Live: 1}, nil }
		spoilt.Store(im.dir, true)
		if err := os.Remove(filepath.Join(im.dir, im.segments(t)[1])); err != nil {
			t.Fatal(err)
		}
		f.hurry()
		if f.r != nil || !strings.Contains(f.cold, "no such file") || u.resets != 0 {
			t.Errorf("%+v, %d resets", f.state(), u.resets)
		}
	})
	t.Run("unreadable", func(t *testing.T) {
		im := newImage(t, crashSegment, 200)
		u := &understudy{state: newState()}
		f := u.follow(t, im.dir)
		f.visit = func(Record) (Account, error) { return Account{Live: 1}, nil }
		im.overwrite(t, im.dir, im.segments(t)[1], segmentHeader+200, []byte("damage"))
		f.hurry()
		if f.r == nil || f.stuck.IsZero() {
			t.Fatalf("%+v", f.state())
		}
		f.stuck = f.stuck.Add(-patience)
		f.hurry()
		if f.r != nil || !strings.Contains(f.cold, "does not show") || u.resets != 1 {
			t.Errorf("%+v, %d resets", f.state(), u.resets)
		}
	})
	t.Run("repaired", func(t *testing.T) {
		im := newImage(t, crashSegment, 100)
		u := newUnderstudy()
		f := u.follow(t, im.dir)
		var got []string
		f.visit, f.reset = collect(&got), func() { got, u.resets = nil, u.resets+1 }
		f.hurry()
		if len(got) != 100 {
			t.Fatalf("%d records, %+v", len(got), f.state())
		}
		im.overwrite(t, im.dir, im.segments(t)[0], segmentHeader+200, []byte("rot"))
		mustRepair(t, im.dir)
		mustOpen(t, im.dir, Options{SegmentBytes: crashSegment}, collect(new([]string)))
		f.hurry()
		if f.r != nil || u.resets != 1 || !strings.Contains(f.cold, "repaired") {
			t.Errorf("%+v, %d resets", f.state(), u.resets)
		}
		f.hurry()
		if len(got) != 99 {
			t.Errorf("%d records after the repair, want 99", len(got))
		}
	})
	t.Run("no store yet", func(t *testing.T) {
		dir := quickDir(t)
		u := newUnderstudy()
		f := u.follow(t, dir)
		f.hurry()
		if c, _ := f.finish(); c != nil || f.pause != 0 {
			t.Error("a copy of nothing")
		}
	})
	if _, err := Open(t.Context(), quickDir(t), Options{Follow: true}, nil); err == nil {
		t.Error("Follow without Reset is accepted")
	}
}

// TestFollowLive has one understudy after another wait for the lock while the owner writes as fast as it may.
func TestFollowLive(t *testing.T) {
	dir := quickDir(t)
	a := newActor(newRand(t))
	a.s = mustOpen(t, dir, Options{SegmentBytes: 64 << 10, Head: a.head}, nil)
	type opened struct {
		j   *Journal
		err error
	}
	for round := range 3 {
		u := newUnderstudy()
		var shown atomic.Pointer[Copy]
		done := make(chan opened)
		ctx, cancel := context.WithCancel(t.Context())
		won := false
		go func() {
			j, err := Open(ctx, dir, Options{
				SegmentBytes: 64 << 10, Head: func() []Entry { return u.state.head() }, Follow: true, Reset: u.reset, Copied: func(c Copy) { shown.Store(&c) },
				Won: func() { won = true },
			}, u.visit)
			done <- opened{j, err}
		}()
		for start := time.Now(); time.Since(start) < 300*time.Millisecond; {
			a.run(20)
		}
		a.settle()
		if round == 0 { // it was not needed
			cancel()
			if o := <-done; !errors.Is(o.err, context.Canceled) || won {
				t.Fatal(o.err, won)
			}
			continue
		}
		last := a.log[len(a.log)-1].LSN
		for limit := time.Now().Add(10 * time.Second); shown.Load() == nil || shown.Load().Applied < last; time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("the copy is at %+v, acknowledged %d", shown.Load(), last)
			}
		}
		a.s.Close()
		o := <-done
		cancel()
		if o.err != nil {
			t.Fatal(o.err)
		}
		st := o.j.Stats()
		if st.Cold != "" || st.Recovered-st.Copied > 5 || !won {
			t.Errorf("%+v", st)
		}
		if !u.state.equal(a.state) {
			t.Errorf("the owner left %+v, the understudy has %+v", a.state, u.state)
		}
		t.Logf("%d records copied, %d read later, %d resets", st.Copied, st.Recovered-st.Copied, u.resets)
		if err := o.j.Close(); err != nil {
			t.Fatal(err)
		}
		st2, log, ids, count := a.state, a.log, a.ids, a.count
		a = newActor(a.rng)
		a.state, a.ids, a.count = newState(), ids, count
		a.s = mustOpen(t, dir, Options{SegmentBytes: 64 << 10, Head: a.head}, func(r Record) (Account, error) { return a.state.apply(r) })
		a.log = log
		if !a.state.equal(st2) {
			t.Fatalf("opened once more: %+v, want %+v", a.state, st2)
		}
	}
	a.s.Close()
}
