package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A sync fails, and the kernel forgets that it did: it shows what was written to the next owner on that machine, calls that owner's syncs a success, and writes
// none of it. What this owner has shown is there after a power cut, whenever that comes: the recovery is crashed at each of its changes, and so
// is that of a third owner, where the sync of the second one's first segment fails as well.
func TestForgottenBatchIsWrittenAgain(t *testing.T) {
	c := crasher{t: t}
	seed, every := newSeed(t), 9
	if *full {
		every = 1
	}
	c.rng = rand.New(rand.NewPCG(seed, 3))
	var seen, failed [2]int // syncs of a batch that was added to a segment, and of one that began it
	list, w, beyond := c.record(120), newWorld(nil), 0
	for i, e := range list {
		if e.acked > 0 {
			c.acked = e.acked
			continue
		}
		if f := w.files[e.name]; e.kind == opSync && f.holds() {
			kind := 0
			if allZero(f.synced) {
				kind = 1
			}
			if seen[kind]++; seen[kind]%every == int(seed)%every || seen[kind] == 2 {
				failed[kind]++
				c.where = fmt.Sprintf("seed %d, failed change %d (%v)", seed, i, e.op)
				beyond += c.forgotten(w, e.name)
			}
		}
		w.apply(e.op)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d syncs of a batch failed, and %d of one that began a segment; the next owners found %d records that were on no disk; %d states recovered, violations %d",
		failed[0], failed[1], beyond, c.states, c.violations)
	if failed[0] == 0 || failed[1] == 0 || beyond == 0 {
		t.Errorf("syncs failed: %d, records that were on no disk: %d", failed, beyond)
	}
}

// holds reports whether the file is a segment's, with records that are not synced.
func (f *inode) holds() bool {
	for _, o := range f.pending {
		if o.kind == opWrite && !allZero(o.data) {
			_, ok := parsePlace(o.name)
			return ok
		}
	}
	return false
}

// forgotten lets a sync fail, and then another one of the next owner's. It returns how many records that one found beyond what had been acknowledged.
func (c *crasher) forgotten(w *world, name string) (beyond int) {
	acked := c.acked
	defer func() { c.acked, c.most = acked, 0 }()
	w = w.clone()
	w.forget(name)
	left := w.survive(c.rng, died)
	dir, done := c.dir(left)
	defer done()
	c.crashRecovery(w.clone(), dir)

	dir, done = c.dir(left)
	defer done()
	tp := &tape{}
	second := c.open(dir, tp)
	c.judge(second, c.acked, dir)
	if second.err != nil {
		return 0
	}
	for i, e := range tp.take() {
		if e.kind == opSync && w.files[e.name].holds() {
			c.where += fmt.Sprintf(", and its successor's change %d (%v)", i, e.op)
			if p, _ := parsePlace(e.name); p.epoch == w.claim {
				beyond, c.acked, c.most = int(second.end-acked), second.end, second.end
			}
			w := w.clone()
			w.forget(e.name)
			dir, done := c.dir(w.survive(c.rng, died))
			defer done()
			c.crashRecovery(w, dir)
		}
		w.apply(e.op)
	}
	return beyond
}

// Clean pages may go at any time. If the kernel lets go of them between the first look at the log and the second, what the disk has instead is not written in their
// place: Open says so, and the next one finds a log that ends before them.
func TestForgottenPagesAreNotWritten(t *testing.T) {
	live, dir := t.TempDir(), t.TempDir()
	s := mustOpen(t, live, Options{SegmentBytes: 64 << 10}, nil)
	lsn, _ := s.add("one", Account{Live: 1})
	s.durable(lsn)
	from := s.cur.off
	mark, err := os.ReadFile(filepath.Join(live, epochName(1)))
	if err != nil {
		t.Fatal(err)
	}
	lsn, _ = s.add("two", Account{Live: 1})
	s.durable(lsn)
	if err := os.CopyFS(dir, os.DirFS(live)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, epochName(1)), mark, 0o600); err != nil { // of "two" there was no mark yet
		t.Fatal(err)
	}
	d, err := openDisk(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	r := recovery{disk: d, store: s.store, ours: 2}
	end, err := r.inspect(place{1, s.cur.id})
	if err != nil || end.last != lsn || end.batch != from {
		t.Fatalf("%+v, %v; the last batch began at %d", end, err, from)
	}
	f, err := d.reopen(end.name())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 16), from+recordHeader); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(f.Name())
	if err := r.renew(f, end); !errors.Is(err, errForgotten) {
		t.Error(err)
	}
	if after, _ := os.ReadFile(f.Name()); !bytes.Equal(before, after) {
		t.Error("something was written")
	}
	var got []string
	mustOpen(t, dir, Options{}, collect(&got))
	if !slices.Equal(got, []string{"one"}) {
		t.Errorf("%q", got)
	}
}
