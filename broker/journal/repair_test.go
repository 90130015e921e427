package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// salvaged opens a store and returns what is in it, which must be some of what was appended, in order. Numbers that were used are not used again.
func (im *stored) salvaged(t testing.TB, dir string, above LSN) (got []string) {
	t.Helper()
	s, err := reopen(t, dir, Options{SegmentBytes: im.segment}, collect(&got))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	i := 0
	for _, g := range got {
		for i < len(im.appended) && im.appended[i] != g {
			i++
		}
		if i == len(im.appended) {
			t.Fatalf("%.60q was never appended there", g)
		}
		i++
	}
	lsn, _ := s.add("after", Account{})
	s.durable(lsn)
	if lsn <= above {
		t.Fatalf("number %d is used again", lsn)
	}
	return got
}

func mustRepair(t testing.TB, dir string) *Repaired {
	t.Helper()
	r, err := Repair(dir, RepairOptions{AcceptLoss: true, CheckOptions: CheckOptions{Concerns: concernsOf}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Whatever was done to a store: after a repair it opens, with every record that is whole, and the list of losses covers every one that was acknowledged and is
// not there.
func TestRepairOfAnything(t *testing.T) {
	n := 400
	if testing.Short() {
		n = 100
	}
	c := tally{}
	mutated(t, n, 3, func(name string, im *stored, dir string, what []string) {
		before := contents(t, dir)
		r, err := Repair(dir, RepairOptions{AcceptLoss: true, CheckOptions: CheckOptions{Concerns: concernsOf}})
		if err != nil {
			if errors.Is(err, ErrIrreparable) && errors.Is(err, errNothingKnown) {
				c["irreparable: its name is gone"]++
				return
			}
			t.Fatalf("%s %s: %v", name, what, err)
		}
		if r.Before.Verdict != Damaged {
			c["nothing to do"]++
			delete(before, filepath.Join(dir, lockName))
			after := contents(t, dir)
			delete(after, filepath.Join(dir, lockName))
			if !maps.Equal(before, after) {
				t.Fatalf("%s: a repair with nothing to do did something", what)
			}
			return
		}
		c["repaired"]++
		mustBeSound(t, dir)
		got := im.salvaged(t, dir, r.Before.Last)
		if uint64(len(got)) != r.Before.Records {
			t.Fatalf("%s %s: %d records were whole, %d are there", name, what, r.Before.Records, len(got))
		}
		im.accounted(t, r, got, what)
	})
	t.Logf("%d stores each:%v", n, c)
}

func mustBeSound(t testing.TB, dir string) {
	t.Helper()
	if r, err := Check(dir, CheckOptions{}); err != nil || r.Verdict == Damaged {
		t.Fatalf("%v, %+v", err, r)
	}
}

// accounted wants each acknowledged record that is gone in the list of losses. An image's records are numbered without a gap but for one manifest at the
// head of each segment.
func (im *stored) accounted(t testing.TB, r *Repaired, got []string, what []string) {
	t.Helper()
	if epochs := r.Before.Epochs; len(epochs) == 0 || epochs[0].LSN < im.marked(t) {
		return // the mark was hurt too: nobody can know what the end of the log was
	}
	lost := uint64(0)
	for _, l := range r.Given {
		if l.To >= l.From {
			lost += uint64(l.To + 1 - l.From)
		}
	}
	if missing := len(im.acked) - len(got); missing > 0 && lost < uint64(missing) {
		t.Fatalf("%s: %d acknowledged records are gone, the list says %d: %+v", what, missing, lost, r.Given)
	}
	if _, err := os.Stat(filepath.Join(r.Before.Dir, r.List)); err != nil {
		t.Fatal(err)
	}
}

// marked is how far the image's owner acknowledged.
func (im *stored) marked(t testing.TB) LSN {
	b, err := os.ReadFile(filepath.Join(im.dir, epochName(1)))
	if err != nil {
		t.Fatal(err)
	}
	return parseMark(b, 1).lsn
}

// Each kind of damage, and what must survive it.
func TestRepairKeepsTheRest(t *testing.T) {
	im := newImage(t, 8<<10, 150)
	names := im.segments(t)
	sealed, last := names[1], names[len(names)-1]
	record := func(name string, skip int) (off, end int64) { // a record's extent
		p, _ := parsePlace(name)
		b, err := os.ReadFile(filepath.Join(im.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		sc := newScanner(bytes.NewReader(b), int64(len(b)), p, nil)
		o, err := parseOpening(b, uuid(b[16:32]), p)
		if err != nil {
			t.Fatal(err)
		}
		sc.next = o.first
		for range skip + 1 {
			off = sc.off
			sc.step()
		}
		return off, sc.off
	}
	zero := func(name string, from, to int64) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { im.overwrite(t, dir, name, from, make([]byte, to-from)) }
	}
	one, oneEnd := record(sealed, 3)
	tail, _ := record(last, 5)
	lastOne, lastOneEnd := record(last, 2)
	count := func(name string) int {
		r, err := Check(im.dir, CheckOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range r.Segments {
			if s.File == name {
				return s.Records
			}
		}
		t.Fatal(name)
		return 0
	}
	for _, tc := range []struct {
		name string
		hurt func(t *testing.T, dir string)
		lost int // records
	}{
		{"a record of a sealed segment", zero(sealed, one, oneEnd), 1},
		{"one bit of it", func(t *testing.T, dir string) { im.overwrite(t, dir, sealed, one+40, []byte{0xff}) }, 1},
		{"the header of a sealed segment", zero(sealed, 0, sectorSize), 0},
		{"the manifest of a sealed segment", zero(sealed, segmentHeader, segmentHeader+8), 0},
		{"a sealed segment", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, sealed)) }, count(sealed)},
		{"a sealed segment's content", func(t *testing.T, dir string) { os.Truncate(filepath.Join(dir, sealed), 0) }, count(sealed)},
		{"a record of the last segment", zero(last, lastOne, lastOneEnd), 1},
		{"the end of the log", zero(last, tail, 8<<10), count(last) - 4},
		{"the header of the last segment", zero(last, 0, sectorSize), 0},
		{"its list of segments", zero(last, segmentHeader, segmentHeader+8), 0},
		{"both", zero(last, 0, segmentHeader+8), 0},
		{"the last segment", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, last)) }, count(last)},
		{"the last segment's content", func(t *testing.T, dir string) { im.overwrite(t, dir, last, 0, make([]byte, 8<<10)) }, count(last)},
		{"the lists of the last three segments", func(t *testing.T, dir string) {
			for _, name := range names[len(names)-3:] {
				im.overwrite(t, dir, name, segmentHeader, make([]byte, 8))
			}
		}, 0},
		{"everything but the mark", func(t *testing.T, dir string) {
			for _, name := range names {
				os.Remove(filepath.Join(dir, name))
			}
		}, 150},
		{"every record", func(t *testing.T, dir string) {
			for _, name := range names {
				im.overwrite(t, dir, name, 0, make([]byte, 8<<10))
			}
		}, 150},
		{"a bit of the name of the store", func(t *testing.T, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, storeFile))
			if err != nil {
				t.Fatal(err)
			}
			other := map[bool]byte{true: '1', false: '0'}[b[0] == '0']
			im.overwrite(t, dir, storeFile, 0, []byte{other})
		}, 0},
		{"the name of the store", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, storeFile)) }, 0},
		{"a segment of another store", func(t *testing.T, dir string) {
			other := newImage(t, 8<<10, 150)
			b, err := os.ReadFile(filepath.Join(other.dir, sealed))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, sealed), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, count(sealed)},
		{"a stranger behind the end", func(t *testing.T, dir string) {
			other := newImage(t, 8<<10, 200)
			list := other.segments(t)
			name := list[len(list)-1]
			b, err := os.ReadFile(filepath.Join(other.dir, name))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
			}
			if err != nil || slices.Contains(names, name) {
				t.Fatal(err)
			}
		}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := im.copy(t)
			tc.hurt(t, dir)
			r := mustCheck(t, dir)
			if r.Verdict != Damaged {
				t.Fatalf("not damaged: %s", r.Verdict)
			}
			if !r.Opens {
				if _, err := im.recover(t, dir); !errors.Is(err, ErrDamaged) {
					t.Fatalf("not damaged: %v", err)
				}
			}
			done := mustRepair(t, dir)
			mustBeSound(t, dir)
			got := im.salvaged(t, dir, r.Last)
			if lost := len(im.appended) - len(got); lost != tc.lost {
				t.Errorf("%d records are lost, want %d: %+v", lost, tc.lost, done.Given)
			}
			im.accounted(t, done, got, nil)
			again := mustRepair(t, dir)
			if again.Before.Verdict != Whole || again.Epoch != 0 {
				t.Errorf("a second repair found %s and claimed %d", again.Before.Verdict, again.Epoch)
			}
			if tc.lost == 1 && (len(done.Given) != 1 || len(done.Given[0].Hits) != 1 || done.Given[0].Hits[0].Name != "record") {
				t.Errorf("%+v", done.Given)
			}
		})
	}
}

// damagedImage is a store with two segments damaged and one gone.
func damagedImage(t testing.TB) (im *stored, dir string, whole uint64) {
	im = newImage(t, 8<<10, 150)
	dir = im.copy(t)
	names := im.segments(t)
	im.overwrite(t, dir, names[0], segmentHeader+100, make([]byte, 300))
	if err := os.Remove(filepath.Join(dir, names[1])); err != nil {
		t.Fatal(err)
	}
	im.overwrite(t, dir, names[len(names)-1], segmentHeader, make([]byte, 700))
	r := mustCheck(t, dir)
	if r.Verdict != Damaged || len(r.Problems) < 3 {
		t.Fatalf("%+v", r.Problems)
	}
	return im, dir, r.Records
}

// A repair that is interrupted anywhere, by a crash of the process or the machine, leaves a store that is still damaged and can be repaired, or one that is
// repaired; either way nothing whole is lost.
func TestCrashInRepair(t *testing.T) {
	rng := newRand(t)
	im, src, whole := damagedImage(t)
	im0 := remains{}
	for _, name := range mustList(t, src) {
		b, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			t.Fatal(err)
		}
		im0[name] = b
	}
	load := func(left remains) string {
		dir := quickDir(t)
		left.write(t, dir)
		return dir
	}
	tp := &tape{}
	if _, err := Repair(load(im0), RepairOptions{AcceptLoss: true, before: tp.before}); err != nil {
		t.Fatal(err)
	}
	w := newWorld(im0)
	c := tally{}
	verify := func(dir string, at int) {
		t.Helper()
		defer os.RemoveAll(dir)
		r, err := Check(dir, CheckOptions{})
		if err != nil {
			t.Fatalf("crash at change %d: %v", at, err)
		}
		if r.Records < whole {
			t.Fatalf("crash at change %d: %d records, %d were whole before", at, r.Records, whole)
		}
		c[string(r.Verdict)]++
		if r.Verdict == Damaged {
			if !r.Opens {
				if _, err := im.recover(t, dir); !errors.Is(err, ErrDamaged) {
					t.Fatalf("crash at change %d: half a repair opens: %v", at, err)
				}
			}
			mustRepair(t, dir)
		}
		if got := im.salvaged(t, dir, r.Last); uint64(len(got)) != whole {
			t.Fatalf("crash at change %d: %d records, want %d", at, len(got), whole)
		}
	}
	for i, e := range tp.list {
		for how := range fates {
			verify(load(w.survive(rng, how)), i)
		}
		w.apply(e.op)
	}
	for how := range fates {
		verify(load(w.survive(rng, how)), len(tp.list))
	}
	if c[string(Whole)] == 0 || c[string(Damaged)] == 0 {
		t.Errorf("both outcomes should occur")
	}
	t.Logf("%d changes to the disk, states:%v", len(tp.list), c)
	for n := 1; n <= len(tp.list); n++ {
		dir := load(im0)
		f := &failing{n: int64(n), err: errInjected}
		if _, err := Repair(dir, RepairOptions{AcceptLoss: true, before: f.before}); !errors.Is(err, errInjected) {
			t.Fatalf("change %d failed and Repair says %v", n, err)
		}
		verify(dir, n)
	}
}

func TestRepairRefuses(t *testing.T) {
	_, dir, _ := damagedImage(t)
	before := contents(t, dir)
	if _, err := Repair(dir, RepairOptions{}); !errors.Is(err, ErrAcceptLoss) {
		t.Error(err)
	}
	if _, err := Repair(t.TempDir(), RepairOptions{AcceptLoss: true}); !errors.Is(err, ErrNoStore) {
		t.Error(err)
	}
	if !maps.Equal(before, contents(t, dir)) {
		t.Error("a repair that was refused changed the store")
	}
	live := t.TempDir()
	s := mustOpen(t, live, Options{Node: "n1"}, nil)
	_, err := Repair(live, RepairOptions{AcceptLoss: true})
	if !errors.Is(err, ErrOwned) || !bytes.Contains([]byte(err.Error()), fmt.Appendf(nil, `node "n1", pid %d`, os.Getpid())) {
		t.Error(err)
	}
	lsn, _ := s.add("still mine", Account{})
	s.durable(lsn)
}

// A version to come is not damage that can be repaired by giving it up.
func TestRepairLeavesNewerVersionsAlone(t *testing.T) {
	im := newImage(t, 8<<10, 20)
	dir := im.copy(t)
	name := im.lastSegment(t)
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	b[8] = segmentVersion + 1
	reseal(b)
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	_, err = Repair(dir, RepairOptions{AcceptLoss: true})
	delete(before, filepath.Join(dir, lockName))
	after := contents(t, dir)
	delete(after, filepath.Join(dir, lockName))
	if !errors.Is(err, ErrIrreparable) || !maps.Equal(before, after) {
		t.Error(err)
	}
}

func reseal(b []byte) {
	binary.LittleEndian.PutUint32(b[508:], crc32.Checksum(b[:508], castagnoli))
}

// A standby that followed the log before a repair takes nothing from its copy after it: the copy holds what the log gave up.
func TestRepairMakesCopiesWorthless(t *testing.T) {
	dir := t.TempDir()
	owner := mustOpen(t, dir, Options{SegmentBytes: 8 << 10}, nil)
	var last Position
	for i := range 100 {
		p, err := owner.Append(Entry{Type: 1, Payload: []byte(payload(i)), Account: Account{Live: 1}})
		if err != nil {
			t.Fatal(err)
		}
		last = p
		owner.durable(p.LSN)
	}
	var got []string
	ready, opened := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() {
		s, err := reopen(t, dir, Options{SegmentBytes: 8 << 10, Follow: true, Reset: func() { got = nil }, Copied: func(c Copy) {
			if c.Applied >= last.LSN {
				once.Do(func() { close(ready) })
			}
		}}, collect(&got))
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	<-ready
	im := &stored{dir: dir}
	im.overwrite(t, dir, place{1, 1}.name(), segmentHeader+200, []byte("rot"))
	leave := stand(t, dir, "rival", Standing{})
	if err := owner.HandOver("rival"); err != nil { // the standby lets it go first for a second
		t.Fatal(err)
	}
	done := mustRepair(t, dir)
	select {
	case err := <-opened:
		t.Fatalf("the standby did not wait: %v", err)
	default:
	}
	leave()
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	if len(done.Given) != 1 || len(got) != 99 {
		t.Errorf("gave up %+v; the standby has %d records, want 99", done.Given, len(got))
	}
}
