package journal

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// tape records every change to the disk, and every acknowledgement, in order.
type tape struct {
	mu   sync.Mutex
	list []event
	stop int // fail each change from this one on; 0: never
}

type event struct {
	op
	acked LSN // an acknowledgement, if not 0
}

func (tp *tape) before(o op) error {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	if tp.stop > 0 && len(tp.list) >= tp.stop {
		return errInjected
	}
	o.data = bytes.Clone(o.data)
	tp.list = append(tp.list, event{op: o})
	return nil
}

func (tp *tape) add(e event) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	tp.list = append(tp.list, e)
}

// inode is a file as a crashed machine may remember it.
type inode struct {
	synced  []byte // survives everything
	current []byte // what the kernel holds
	pending []op   // writes since the last sync
}

// world replays a tape as far as a crash.
type world struct {
	files  map[string]*inode // names that the kernel holds
	synced map[string]*inode // names that survive
}

func newWorld() *world { return &world{map[string]*inode{}, map[string]*inode{}} }

func grow(b []byte, n int64) []byte {
	if int64(len(b)) < n {
		b = append(b, make([]byte, n-int64(len(b)))...)
	}
	return b
}

func (w *world) apply(o op) {
	f := w.files[o.name]
	switch o.kind {
	case opCreate:
		w.files[o.name] = &inode{}
	case opAllocate:
		f.current = grow(f.current, o.size)
		f.pending = append(f.pending, o)
	case opWrite:
		f.current = grow(f.current, o.off+int64(len(o.data)))
		copy(f.current[o.off:], o.data)
		f.pending = append(f.pending, o)
	case opSync:
		f.synced, f.pending = bytes.Clone(f.current), nil
	case opRename:
		w.files[o.to] = f
		delete(w.files, o.name)
	case opRemove:
		delete(w.files, o.name)
	case opSyncDir:
		w.synced = maps.Clone(w.files)
	}
}

// survive writes what a crash leaves into a directory: all (the process died), or what was synced and of the rest a random part (the machine
// died): each name and each sector for itself. Marks are never synced: with lost they are gone altogether.
func (w *world) survive(t testing.TB, rng *rand.Rand, all bool, keep float64) string {
	dir := quickDir(t)
	names := maps.Clone(w.files)
	if !all {
		names = maps.Clone(w.synced)
		for name, f := range w.files {
			if rng.Float64() < keep {
				names[name] = f
			}
		}
		for name := range w.synced { // a removal that may have reached the disk
			if w.files[name] == nil && rng.Float64() < keep {
				delete(names, name)
			}
		}
	}
	for name, f := range names {
		b := f.current
		if !all {
			b = f.torn(rng, keep)
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// torn is what is left of a file: what was synced, and a random part of the sectors written since.
func (f *inode) torn(rng *rand.Rand, keep float64) []byte {
	b := bytes.Clone(f.synced)
	for _, o := range f.pending {
		if o.kind == opAllocate {
			if rng.Float64() < keep {
				b = grow(b, o.size)
			}
			continue
		}
		for at := 0; at < len(o.data); {
			n := min(len(o.data)-at, sectorSize-int((o.off+int64(at))%sectorSize))
			if rng.Float64() < keep {
				b = grow(b, o.off+int64(at+n))
				copy(b[o.off+int64(at):], o.data[at:at+n])
			}
			at += n
		}
	}
	return b
}

// workload appends things and ends them again, in batches of random size, so that segments come and go. What it did is told by the
// payloads alone: "+n" begins thing n, "-n:segment" ends it.
type workload struct {
	live map[int]Segment
	ops  []string
	puts []LSN // their numbers
}

// through is what the workload leaves alive after all records up to lsn.
func (wl *workload) through(lsn LSN) map[int]bool {
	n := 0
	for n < len(wl.puts) && wl.puts[n] <= lsn {
		n++
	}
	return fold(wl.ops[:n])
}

func (wl *workload) run(s *store, rng *rand.Rand, n int) {
	for i := range n {
		var e Entry
		if len(wl.live) > 0 && (rng.IntN(100) < 48 || len(wl.live) > 40) {
			keys := slices.Sorted(maps.Keys(wl.live))
			k := keys[rng.IntN(min(len(keys), 5))]
			e = Entry{Type: 1, Payload: fmt.Appendf(nil, "-%d:%d", k, wl.live[k]), Account: Account{Ends: []Ending{{Segment: wl.live[k]}}}}
			delete(wl.live, k)
		} else {
			e = Entry{Type: 1, Payload: fmt.Appendf(nil, "+%d:%s", i, strings.Repeat("x", rng.IntN(700))), Account: Account{Live: 1}}
		}
		at, err := s.Append(e)
		lsn, seg := at.LSN, at.Segment
		if err != nil {
			return
		}
		if e.Live > 0 {
			wl.live[i] = seg
		}
		wl.ops = append(wl.ops, string(e.Payload[:min(len(e.Payload), 30)]))
		wl.puts = append(wl.puts, lsn)
		if rng.IntN(3) == 0 {
			s.until("batch", func() bool { return s.acked >= lsn || len(s.failed) > 0 })
		}
	}
}

// fold is what a prefix of the workload leaves alive.
func fold(ops []string) map[int]bool {
	live := map[int]bool{}
	for _, o := range ops {
		apply(live, o)
	}
	return live
}

func apply(live map[int]bool, o string) Account {
	var k int
	var seg Segment
	if o[0] == '+' {
		fmt.Sscanf(o, "+%d", &k)
		live[k] = true
		return Account{Live: 1}
	}
	fmt.Sscanf(o, "-%d:%d", &k, &seg)
	delete(live, k)
	return Account{Ends: []Ending{{Segment: seg}}}
}

// TestCrashAnywhere runs a workload, stops the world before each change to the disk, and recovers from what is left: all of it, nothing that was not
// synced, or a random part. The result is always a state that the workload went through, at or behind the last acknowledgement. Then the
// recovery itself is crashed, and recovered from.
func TestCrashAnywhere(t *testing.T) {
	rng := newRand(t)
	tp := &tape{}
	n := 220
	if testing.Short() {
		n = 130
	}
	wl := workload{live: map[int]Segment{}}
	opt := Options{SegmentBytes: 8 << 10, before: tp.before}
	s := &store{t: t, change: make(chan struct{})}
	opt.Durable = func(through LSN) {
		tp.add(event{acked: through})
		s.tell(func() { s.acked = through })
	}
	j, err := Open(t.Context(), quickDir(t), opt, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Journal = j
	wl.run(s, rng, n)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	c := crasher{t: t, wl: &wl, rng: rng}
	w := newWorld()
	for _, e := range tp.list {
		switch {
		case e.acked > 0:
			c.acked = e.acked
		default:
			c.states(w)
			w.apply(e.op)
		}
	}
	c.states(w)
	st := j.Stats()
	t.Logf("%d appends, %d batches, %d segments deleted; %d changes to the disk, %d states recovered, %d recoveries crashed; violations 0",
		len(wl.ops), st.Batches, st.Deleted, len(tp.list), c.count, c.nested)
	if st.Deleted < 3 {
		t.Errorf("the workload deleted %d segments only", st.Deleted)
	}
}

type crasher struct {
	t             *testing.T
	rng           *rand.Rand
	wl            *workload
	acked         LSN
	count, nested int
}

func (c *crasher) states(w *world) {
	c.check(w.survive(c.t, c.rng, true, 1), true)
	c.check(w.survive(c.t, c.rng, false, 0), false)
	if !testing.Short() {
		c.check(w.survive(c.t, c.rng, false, c.rng.Float64()), false)
	}
}

// check recovers, with a crash in the middle now and then.
func (c *crasher) check(dir string, all bool) {
	c.t.Helper()
	nested := c.rng.IntN(4) == 0
	if nested {
		c.nested++
		c.crashRecovery(dir)
	}
	live := map[int]bool{}
	s, err := reopen(c.t, dir, Options{SegmentBytes: 8 << 10}, func(r Record) (Account, error) {
		return apply(live, string(r.Payload)), nil
	})
	if err != nil {
		c.t.Fatalf("acknowledged %d (all %v): %v", c.acked, all, err)
	}
	s.Close()
	os.RemoveAll(dir)
	c.count++
	end := s.base - 1
	if end < c.acked {
		c.t.Fatalf("acknowledged %d, recovered up to %d (all %v)", c.acked, end, all)
	}
	if !nested {
		if want := c.wl.through(end); !maps.Equal(live, want) {
			c.t.Fatalf("recovered up to %d: alive %v, want %v", end, slices.Sorted(maps.Keys(live)), slices.Sorted(maps.Keys(want)))
		}
		return
	}
	for end = c.acked; !maps.Equal(live, c.wl.through(end)); end++ { // a recovery before this one has used some numbers again
		if end > c.wl.puts[len(c.wl.puts)-1] {
			c.t.Fatalf("acknowledged %d: %v were never alive together since", c.acked, slices.Sorted(maps.Keys(live)))
		}
	}
}

// crashRecovery opens the store and fails a change to the disk, and all that follow.
func (c *crasher) crashRecovery(dir string) {
	c.t.Helper()
	tp := &tape{stop: 1 + c.rng.IntN(14)}
	s, err := reopen(c.t, dir, Options{SegmentBytes: 8 << 10, before: tp.before}, func(r Record) (Account, error) {
		return apply(map[int]bool{}, string(r.Payload)), nil
	})
	if err == nil {
		err = s.Close()
	}
	if err != nil && !errors.Is(err, errInjected) {
		c.t.Fatalf("acknowledged %d: %v", c.acked, err)
	}
}
