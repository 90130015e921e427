package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// closed makes a ledger of sealed segments of 1000 octets, numbered from 1, and a current one.
func closed(list ...account) *ledger {
	l := &ledger{}
	for i, a := range list {
		a.id, a.epoch, a.last, a.closed, a.size = Segment(i+1), 1, LSN(10*i+10), true, 1000
		l.list = append(l.list, &a)
	}
	l.begin(place{1, Segment(len(list) + 1)}, 1000)
	return l
}

func TestSparse(t *testing.T) {
	full := account{live: 9, bytes: 900}
	const all = LSN(1 << 20)
	for _, tc := range []struct {
		name    string
		l       *ledger
		durable LSN
		hungry  bool
		want    Segment // 0: none
	}{
		{"nothing is sealed", closed(), all, false, 0},
		{"all is alive", closed(full, full, full), all, false, 0},
		{"one empties itself soon enough", closed(full, account{live: 1, bytes: 100}, full), all, false, 0},
		{"a single one, mostly dead", closed(account{live: 1, bytes: 200}), all, false, 1},
		{"a single one, half a segment of slack", closed(account{live: 1, bytes: 300}), all, false, 0},
		{"the emptiest", closed(account{live: 3, bytes: 300}, account{live: 1, bytes: 10}, account{live: 2, bytes: 20}), all, false, 2},
		{"the emptiest that is durable", closed(account{live: 3, bytes: 30}, account{live: 1, bytes: 10}, account{live: 2, bytes: 20}), 10, false, 1},
		{"none is durable", closed(account{live: 3, bytes: 30}, account{live: 1, bytes: 10}), 5, false, 0},
		{"what pins the others", closed(account{live: 1, bytes: 10}, account{refs: []ref{{1, 50}}}, account{refs: []ref{{1, 9}}}), all, false, 1},
		{"endings are cheaper to tell again", closed(account{live: 2, bytes: 400}, account{refs: []ref{{1, 5}}}, account{live: 1, bytes: 90}), all, false, 2},
		{"endings of what is gone cost nothing", closed(account{live: 1, bytes: 300, refs: []ref{{99, 1 << 20}}}, account{live: 1, bytes: 400}, account{live: 4, bytes: 400}), all, false, 1},
		{"it goes anyway", closed(account{}, account{refs: []ref{{1, 50}}}, account{live: 2, bytes: 600}), all, false, 0},
		{"the caller missed something", closed(account{live: 1, bytes: 10, emptied: true, left: 1}, account{live: 1, bytes: 400}), all, false, 2},
		{"and it has ended since, but for one", closed(account{live: 1, bytes: 10, emptied: true, left: 2}, account{live: 1, bytes: 400}), all, false, 1},
		{"too costly, wherever", closed(account{live: 1, bytes: 800, refs: []ref{{2, 40}}}, account{live: 1, bytes: 10, refs: []ref{{1, 60}}}), all, false, 0},
		{"a full disk wants what little there is", closed(full, account{live: 1, bytes: 100}, full), all, true, 2},
		{"a full disk does not want what is half alive", closed(full, account{live: 1, bytes: 510}, full), all, true, 0},
		{"octets that the caller lost count of", closed(account{live: 1, bytes: -50}), all, false, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Segment(0)
			if a := tc.l.sparse(1000, tc.durable, tc.hungry); a != nil {
				got = a.id
			}
			if got != tc.want {
				t.Errorf("segment %d, want %d", got, tc.want)
			}
		})
	}
}

// empty does what Sparse asks for until it asks no more.
func (a *actor) empty() (emptied int) {
	a.s.t.Helper()
	for {
		a.s.idle()
		seg, ok := a.s.Sparse()
		if !ok {
			return emptied
		}
		if emptied++; emptied > 1000 {
			a.s.t.Fatal("emptying segments does not come to an end")
		}
		a.emptyOne(seg)
		if errors.Is(a.failed, ErrFull) && a.s.Stats().Full { // the reserve is used up, by moves: what they have emptied has to go first
			a.failed = nil
			return emptied
		}
	}
}

func (a *actor) emptyOne(seg Segment) {
	a.s.t.Helper()
	var all []item
	err := a.s.Scan(seg, func(r Record) error {
		if r.Type != 1 {
			return nil
		}
		items, _, err := parseItems(r.Payload)
		for _, it := range items {
			if it.at != 0 && it.at != seg && a.s.Stays(it.at) {
				all = append(all, item{'~', it.id, it.at})
			}
			if w, alive := a.state.alive[it.id]; (it.op == '+' || it.op == '>') && alive && w == r.Position {
				all = append(all, item{'>', it.id, seg})
			}
		}
		return err
	})
	if err != nil {
		a.s.t.Fatal(err)
	}
	for len(all) > 0 {
		n := min(len(all), 1+a.rng.IntN(6))
		if _, ok := a.put(slices.Clone(all[:n])...); !ok {
			return
		}
		all = all[n:]
	}
	a.s.Forwarded(seg)
}

// TestEvacuationBound has a caller that empties segments when it is asked to. Whenever it has done so disk is bounded by what is live, a store that is
// opened again holds the same things, and nothing comes back.
func TestEvacuationBound(t *testing.T) {
	const unit = 16 << 10
	base := quickDir(t)
	runs, emptied, reopened := 0, 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		dir := filepath.Join(base, fmt.Sprint(runs))
		defer os.RemoveAll(dir)
		a := newActor(rand.New(drawn{rt}))
		open := func() {
			st := newState()
			s, err := reopen(t, dir, Options{SegmentBytes: unit, Head: a.head}, func(r Record) (Account, error) { return st.apply(r) })
			if err != nil {
				rt.Fatal(err)
			}
			if !st.equal(a.state) {
				rt.Fatalf("recovered %v, want %v", st, a.state)
			}
			a.s = s
		}
		open()
		defer func() { a.s.Close() }()
		for range rapid.IntRange(1, 4).Draw(rt, "rounds") {
			for range rapid.IntRange(1, 150).Draw(rt, "begin") {
				a.put(a.begin())
			}
			keep := rapid.IntRange(0, len(a.state.alive)).Draw(rt, "keep")
			for len(a.state.alive) > keep {
				a.put(a.end(a.any()))
			}
			emptied += a.empty()
			a.s.checkBound(rt, unit)
			if rapid.Bool().Draw(rt, "reopen") {
				reopened++
				a.s.Close()
				open()
				emptied += a.empty()
				a.s.checkBound(rt, unit)
			}
		}
	})
	t.Logf("%d runs, %d segments emptied, %d reopened", runs, emptied, reopened)
	if emptied == 0 || reopened == 0 {
		t.Error("nothing was tried")
	}
}

type fataler interface{ Fatalf(string, ...any) }

// checkBound holds the files against what is live: R <= 2L + 1/2, and nothing else but headers, the current segment and prepared ones.
func (s *store) checkBound(t fataler, unit int64) {
	s.idle()
	st := s.Stats()
	s.Journal.mu.Lock()
	room, heads := int64(0), int64(0)
	for _, a := range s.ledger.list {
		if a.closed {
			r, _ := a.room()
			room, heads = room+r, heads+a.start
		}
	}
	s.Journal.mu.Unlock()
	if room > 2*st.LiveBytes+unit/2 {
		t.Fatalf("%d octets of room in sealed segments for %d live ones", room, st.LiveBytes)
	}
	files := int64(0)
	list, _ := filepath.Glob(s.disk.at("seg-*"))
	for _, path := range list {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatalf("%v", err)
		}
		files += info.Size()
	}
	if files != st.DiskBytes || files > 2*st.LiveBytes+4*unit+heads {
		t.Fatalf("files have %d octets, Stats says %d, %d are live and %d in heads", files, st.DiskBytes, st.LiveBytes, heads)
	}
}

// rest waits for what takes the janitor up to so long, and some time.
func (s *store) rest(long time.Duration, cond func() bool) {
	s.t.Helper()
	for end := time.Now().Add(long + 10*time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("waited in vain: %+v", s.Stats())
		}
	}
}

// atRest says that no file is to be made and none wants zeros. The caller holds mu.
func (j *Journal) atRest() bool {
	id, grow := j.missing()
	return (id == 0 && grow == nil || j.jan.hold) && j.dull() == nil && len(j.jan.unwritten) == 0 && j.jan.told == j.jan.full
}

// What pins many segments is moved, and they go; endings that would be missed are told again, and those that would not are not.
func TestOneThingPinsNothing(t *testing.T) {
	dir := quickDir(t)
	a := newActor(newRand(t))
	a.s = mustOpen(t, dir, Options{SegmentBytes: 16 << 10, Head: a.head}, nil)
	for range 25 {
		a.put(a.begin())
	}
	for i := range 2000 { // every segment ends something in the first one
		a.put(a.begin())
		a.put(a.end(a.ids))
		if i%80 == 0 && i < 80*24 {
			a.put(a.end(2 + i/80)) // thing 1 stays for ever
		}
	}
	a.s.idle()
	before := a.s.Stats()
	if n := a.empty(); n == 0 {
		t.Fatalf("nothing was emptied: %+v", before)
	}
	after := a.s.Stats()
	if before.Segments < 20 || after.Segments > 2 || after.Evacuated == 0 || after.EvacuatedBytes < 16<<10 || after.LiveBytes != weight(1) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	r, err := a.s.Read(a.state.alive[1], nil)
	if err == nil {
		err = r.holds(1)
	}
	if err != nil {
		t.Error(err)
	}
	a.s.Close()
	st := newState()
	mustOpen(t, dir, Options{}, func(r Record) (Account, error) { return st.apply(r) })
	if !st.equal(a.state) {
		t.Errorf("recovered %v, want %v", st, a.state)
	}
}

// An ending that was told again stays as long as what it ended: the segment that told it first is gone.
func TestForwardedEndingHolds(t *testing.T) {
	dir := quickDir(t)
	a := newActor(newRand(t))
	a.s = mustOpen(t, dir, Options{SegmentBytes: 16 << 10}, nil)
	next := func() { // begins a segment, with nothing that lasts
		for at := a.s.cur.id; a.s.cur.id == at; {
			a.put(a.begin())
			a.put(a.end(a.ids))
		}
	}
	pinned, ended := a.begin(), a.begin()
	a.put(pinned)
	a.put(ended)
	next()
	a.put(a.end(ended.id)) // in the second segment
	next()
	a.settle()
	a.emptyOne(2) // told again in the third
	next()
	next()
	a.settle()
	a.s.idle()
	if a.s.Stays(2) || !a.s.Stays(1) || !a.s.Stays(3) {
		t.Errorf("segments %v", a.s.sealed())
	}
	a.s.Close()
	st := newState()
	mustOpen(t, dir, Options{}, func(r Record) (Account, error) { return st.apply(r) })
	if !st.equal(a.state) {
		t.Errorf("recovered %v, want %v", st, a.state)
	}
}

// A caller that missed what is alive in a segment loses nothing, and is not asked again and again.
func TestForwardedTooEarly(t *testing.T) {
	dir := quickDir(t)
	a := newActor(newRand(t))
	a.s = mustOpen(t, dir, Options{SegmentBytes: 16 << 10}, nil)
	for a.s.cur.id < 4 {
		a.put(a.begin())
		if len(a.state.alive) > 2 {
			a.put(a.end(a.ids))
		}
	}
	a.settle()
	a.s.idle()
	a.s.Forwarded(1) // which tells no endings
	if seg, ok := a.s.Sparse(); ok && seg == 1 {
		t.Error("it is asked again")
	}
	a.put(a.begin())
	a.settle()
	a.s.idle()
	a.s.Close()
	st := newState()
	mustOpen(t, dir, Options{}, func(r Record) (Account, error) { return st.apply(r) })
	if !st.equal(a.state) {
		t.Errorf("recovered %v, want %v", st, a.state)
	}
}

// Scan reads what is sealed and part of the log, all of it or an error.
func TestScan(t *testing.T) {
	im := newImage(t, 8<<10, 200)
	var got []string
	s := mustOpen(t, im.dir, Options{SegmentBytes: 8 << 10}, func(Record) (Account, error) { return Account{Live: 1}, nil })
	sealed := s.sealed()
	for _, id := range sealed {
		err := s.Scan(id, func(r Record) error {
			if r.Segment != id || r.Type != 1 || r.Size != len(r.Payload) {
				return fmt.Errorf("unexpected %+v", r)
			}
			again, err := s.Read(r.Position, nil)
			if err != nil || string(again.Payload) != string(r.Payload) {
				return fmt.Errorf("read again: %w", err)
			}
			got = append(got, string(r.Payload))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(im.acked) || len(sealed) < 3 {
		t.Errorf("%d of %d records in %d segments", len(got), len(im.acked), len(sealed))
	}
	stop := errors.New("stop")
	if err := s.Scan(sealed[0], func(Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the visitor's error: %v", err)
	}
	if err := s.Scan(s.cur.id, func(Record) error { return nil }); err == nil {
		t.Error("a segment that grows was scanned")
	}
	if err := s.Scan(1<<30, func(r Record) error { return stop }); err != nil {
		t.Errorf("a segment that is gone: %v", err)
	}
	name := im.segments(t)[1]
	im.overwrite(t, im.dir, name, segmentHeader+1500, []byte{0xff})
	n := 0
	var damage *DamageError
	err := s.Scan(sealed[1], func(Record) error { n++; return nil })
	if !errors.As(err, &damage) || damage.File != s.disk.at(name) || damage.Offset > segmentHeader+1500 || damage.From == 0 || n == 0 {
		t.Errorf("after %d records: %v", n, err)
	}
}
