package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// contents is what is in a directory.
func contents(t testing.TB, dir string) map[string][32]byte {
	all := map[string][32]byte{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		all[p] = sha256.Sum256(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// concernsOf is whom a test's record concerns: the word before its first dash.
func concernsOf(r Record) []string {
	name, _, ok := bytes.Cut(r.Payload, []byte("-"))
	if !ok || len(name) == 0 || len(name) > 20 {
		return nil
	}
	return []string{string(name)}
}

func mustCheck(t testing.TB, dir string) *Report {
	t.Helper()
	before := contents(t, dir)
	r, err := Check(dir, CheckOptions{Concerns: concernsOf})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(before, contents(t, dir)) {
		t.Fatal("Check changed the store")
	}
	return r
}

// mutate hurts a copy of a store in one of the ways in which stores are hurt, and says which.
func (im *stored) mutate(t testing.TB, rng *rand.Rand, dir string) string {
	t.Helper()
	name := pick(rng, im.files(t))
	if rng.IntN(2) == 0 {
		name = im.lastSegment(t)
	}
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return "nothing"
	}
	at := rng.IntN(len(b))
	if rng.IntN(4) == 0 {
		at = rng.IntN(min(len(b), segmentHeader+200))
	}
	what := ""
	switch rng.IntN(8) {
	case 0, 1:
		what = "bit"
		b[at] ^= 1 << rng.IntN(8)
	case 2:
		what = "sector"
		clear(b[at&^(sectorSize-1) : min(len(b), at&^(sectorSize-1)+sectorSize)])
	case 3:
		what = "range"
		for i := at; i < min(len(b), at+rng.IntN(3000)); i++ {
			b[i] = byte(rng.Uint32())
		}
	case 4:
		what = "cut"
		b = b[:at]
	case 5:
		what = "misdirected"
		from := rng.IntN(len(b)) &^ (sectorSize - 1)
		copy(b[at&^(sectorSize-1):], bytes.Clone(b[from:min(len(b), from+sectorSize)]))
	case 6:
		what = "zeros to the end"
		clear(b[at:])
	case 7:
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return "gone " + name
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s in %s at %d", what, name, at)
}

func images(t testing.TB) map[string]*stored {
	return map[string]*stored{"closed": newImage(t, 8<<10, 150), "torn": newTorn(t, 16<<10, 150, 8)}
}

// mutated visits n copies of each image, to which up to most things were done. The copies are removed afterwards.
func mutated(t *testing.T, n, most int, visit func(name string, im *stored, dir string, what []string)) {
	rng := newRand(t)
	for name, im := range images(t) {
		for range n {
			dir := im.copy(t)
			var what []string
			for range 1 + rng.IntN(most) {
				what = append(what, im.mutate(t, rng, dir))
			}
			visit(name, im, dir, what)
			os.RemoveAll(dir)
		}
	}
}

// Check and Open agree about a store, whatever was done to it: Check is how an operator asks what Open would say.
func TestCheckAgreesWithOpen(t *testing.T) {
	n := 500
	if testing.Short() {
		n = 120
	}
	c := tally{}
	mutated(t, n, 2, func(name string, im *stored, dir string, what []string) {
		r, err := Check(dir, CheckOptions{Concerns: concernsOf})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got, opened := im.recover(t, dir)
		if (opened == nil) != r.Opens || r.Verdict != Damaged && !r.Opens || opened != nil && !errors.Is(opened, ErrDamaged) {
			t.Fatalf("%s %s: Check says %s (%+v), Open says %v", name, what, r.Verdict, r.Problems, opened)
		}
		if err := r.Err(); (err == nil) != (r.Verdict != Damaged) || err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("%s: Err is %v", what, err)
		}
		if opened == nil && r.Records != uint64(len(got)) {
			t.Fatalf("%s %s: Check counts %d records, Open visits %d", name, what, r.Records, len(got))
		}
		if (r.Verdict == Torn) != (r.Tail != nil) {
			t.Fatalf("%s: verdict %s, tail %+v", what, r.Verdict, r.Tail)
		}
		if c[name+": "+string(r.Verdict)]++; r.Verdict == Damaged && r.Opens {
			c[name+": damaged, seen by Read alone"]++
		}
	})
	t.Logf("%d stores each, in agreement:%v", n, c)
}

func TestCheckOfSoundStores(t *testing.T) {
	for name, im := range images(t) {
		t.Run(name, func(t *testing.T) {
			want := Whole
			if name == "torn" {
				want = Torn
				from, to := im.tail(t, len(im.appended)-1)
				im.overwrite(t, im.dir, im.lastSegment(t), to-1, []byte{0})
				im.appended = im.appended[:len(im.appended)-1]
				defer func() {
					if r := mustCheck(t, im.dir); r.Tail == nil || r.Tail.Offset != from || r.Tail.From != LSN(len(im.appended)+len(r.Segments)+1) {
						t.Errorf("%+v, want %d", r.Tail, from)
					}
				}()
			}
			r := mustCheck(t, im.dir)
			if r.Verdict != want || len(r.Problems) > 0 || r.Owner != nil {
				t.Fatalf("%+v", r)
			}
			if len(r.Segments) != len(im.segments(t)) || r.Records != uint64(len(im.appended)) || r.First != 1 {
				t.Errorf("%d segments, %d records from %d", len(r.Segments), r.Records, r.First)
			}
			if r.Last != r.First+LSN(r.Records)+LSN(len(r.Segments))-1 { // one manifest each
				t.Errorf("last record %d", r.Last)
			}
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
			if name == "torn" && (r.Tail.File != im.lastSegment(t) || r.Tail.Octets == 0) {
				t.Errorf("%+v", r.Tail)
			}
		})
	}
}

// All that is damaged is told at once, not only what recovery meets first, and whom it hits.
func TestCheckTellsAll(t *testing.T) {
	im := &stored{dir: filepath.Join(quickDir(t), "store"), segment: 8 << 10}
	s := mustOpen(t, im.dir, Options{SegmentBytes: 8 << 10}, nil)
	at := map[int]Position{}
	for i := range 60 {
		p, err := s.Append(Entry{Type: 1, Payload: fmt.Appendf(nil, "queue%d-%0500d", i%7, i), Account: Account{Live: 1}})
		if err != nil {
			t.Fatal(err)
		}
		at[i] = p
		s.durable(p.LSN)
	}
	s.Close()
	hurt := func(dir string, i int, off int64) string {
		name := place{1, at[i].Segment}.name()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		b[at[i].Offset+off] ^= 1
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	dir := im.copy(t)
	first := hurt(dir, 3, recordHeader+400) // the payload: the record still says whom it was for
	second := hurt(dir, 30, 10)             // the header: it does not
	r := mustCheck(t, dir)
	if r.Verdict != Damaged || len(r.Problems) != 2 {
		t.Fatalf("%s %+v", r.Verdict, r.Problems)
	}
	a, b := r.Problems[0], r.Problems[1]
	if a.File != first || a.Offset != at[3].Offset || a.From != at[3].LSN || a.To != a.From || !slices.Equal(a.Hits, Hits{{"queue3", ByRecord}}) {
		t.Errorf("%+v", a)
	}
	if b.File != second || b.Offset != at[30].Offset || b.From != at[30].LSN || b.To != b.From || len(b.Hits) == 0 || b.Hits[0].Known != ByNeighbours {
		t.Errorf("%+v", b)
	}
	var damage *DamageError
	if err := r.Err(); !errors.As(err, &damage) || !strings.Contains(err.Error(), "hit, probably: queue3") || damage.File != filepath.Join(dir, first) {
		t.Errorf("%v", err)
	}
	if r.Records != 58 {
		t.Errorf("%d records are whole, want 58", r.Records)
	}
}

// Beside an owner that writes, Check sees a moment: it neither disturbs the owner nor takes what is under way for damage.
func TestCheckBesideOwner(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{SegmentBytes: 16 << 10}, nil)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var live []Position
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			e := Entry{Type: 1, Payload: fmt.Appendf(nil, "queue-%0300d", i), Account: Account{Live: 1}}
			if len(live) > 50 {
				e.Ends = []Ending{{Segment: live[0].Segment, Bytes: int64(len(e.Payload))}}
				live = live[1:]
			}
			p, err := s.Append(e)
			if err != nil {
				t.Error(err)
				return
			}
			live = append(live, p)
			if i%20 == 0 {
				s.until("batch", func() bool { return s.acked >= p.LSN || len(s.failed) > 0 })
			}
		}
	}()
	n := 40
	if testing.Short() {
		n = 10
	}
	for range n {
		r, err := Check(dir, CheckOptions{Concerns: concernsOf})
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict != Whole || r.Owner == nil || r.Owner.PID != os.Getpid() || r.Owner.Epoch != 1 {
			t.Fatalf("%s, owner %+v, %+v", r.Verdict, r.Owner, r.Problems)
		}
	}
	close(stop)
	<-done
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if r := mustCheck(t, dir); r.Verdict != Whole || r.Owner != nil {
		t.Errorf("%s, owner %+v", r.Verdict, r.Owner)
	}
}

func TestCheckWithoutStore(t *testing.T) {
	empty := t.TempDir()
	for _, dir := range []string{empty, filepath.Join(empty, "nowhere")} {
		if _, err := Check(dir, CheckOptions{}); !errors.Is(err, ErrNoStore) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if list, _ := os.ReadDir(empty); len(list) > 0 {
		t.Error("Check left something")
	}
}

// What the caller cannot read is told, though the journal finds it whole.
func TestCheckVerifies(t *testing.T) {
	im := newImage(t, 8<<10, 20)
	bad := errors.New("not what I wrote")
	seen := 0
	var last int64
	r, err := Check(im.dir, CheckOptions{
		Verify: func(r Record) error {
			if seen++; seen == 7 {
				return bad
			}
			return nil
		},
		Progress: func(done, total int64) {
			if done < last || done > total {
				t.Errorf("progress went from %d to %d of %d", last, done, total)
			}
			last = done
		},
	})
	if err != nil || seen != 20 || last == 0 {
		t.Fatalf("%v, %d records, %d octets", err, seen, last)
	}
	if len(r.Problems) != 1 || r.Problems[0].Reason != bad.Error() || r.Problems[0].From != 8 || r.Verdict != Damaged {
		t.Errorf("%+v", r.Problems)
	}
}

// Where an index stands for a segment Open does not see damage in a body; Check does, and knows from the index whom it hits, though nothing of the record is left.
func TestCheckWithIndex(t *testing.T) {
	dir := filepath.Join(quickDir(t), "store")
	s := mustOpen(t, dir, Options{SegmentBytes: 16 << 10}, nil)
	var at []Position
	for i := range 40 {
		p, err := s.Append(Entry{Type: 1, Payload: fmt.Appendf(nil, "queue%d-%0900d", i%3, i), Front: 8, Account: Account{Live: 1}})
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, p)
		s.durable(p.LSN)
	}
	s.idle()
	s.Close()
	im := &stored{dir: dir, segment: 16 << 10}
	if r := mustCheck(t, dir); r.Verdict != Whole || r.Segments[0].Index != "ok" || len(r.Litter) > 0 {
		t.Fatalf("%+v", r)
	}
	im.overwrite(t, dir, place{1, at[4].Segment}.name(), at[4].Offset, make([]byte, at[6].Offset-at[4].Offset))
	r := mustCheck(t, dir)
	want := Hits{{"queue1", ByIndex}, {"queue2", ByIndex}}
	if r.Verdict != Damaged || !r.Opens || len(r.Problems) != 1 || !slices.Equal(r.Problems[0].Hits, want) {
		t.Fatalf("%s, opens %v: %+v", r.Verdict, r.Opens, r.Problems)
	}
	name := place{1, at[4].Segment}.indexName()
	im.overwrite(t, dir, name, 100, []byte("rot"))
	if r = mustCheck(t, dir); r.Opens || r.Segments[0].Index == "ok" || r.Problems[0].Hits[0].Known != ByNeighbours {
		t.Fatalf("opens %v, %+v, %+v", r.Opens, r.Segments[0], r.Problems)
	}
	mustRepair(t, dir)
	if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
		t.Error("the index of a segment that was repaired is still there")
	}
	n := 0
	mustOpen(t, dir, Options{}, func(Record) (Account, error) { n++; return Account{Live: 1}, nil })
	if n != 38 {
		t.Errorf("%d records, want 38", n)
	}
}

// What a segment lost and its index has whole is not lost: endings, above all.
func TestRepairRestoresFromIndex(t *testing.T) {
	dir := filepath.Join(quickDir(t), "store")
	s := mustOpen(t, dir, Options{SegmentBytes: 16 << 10}, nil)
	var at []Position
	for i := range 40 {
		e := Entry{Type: 1, Payload: fmt.Appendf(nil, "queue%d-%0900d", i%3, i), Front: 8, Account: Account{Live: 1}}
		if i%4 == 3 {
			e.Payload, e.Front = fmt.Appendf(nil, "small-%d", i), 0
		}
		p, err := s.Append(e)
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, p)
		s.durable(p.LSN)
	}
	s.idle()
	s.Close()
	im := &stored{dir: dir, segment: 16 << 10}
	first := place{1, at[0].Segment}.name()
	for name, hurt := range map[string]func(dir string) (lost, kept int){
		"a range": func(dir string) (int, int) {
			im.overwrite(t, dir, first, at[2].Offset+40, make([]byte, at[4].Offset-at[2].Offset))
			return 2, 1 // of 2, 3 and 4
		},
		"the segment": func(dir string) (lost, kept int) {
			if err := os.Remove(filepath.Join(dir, first)); err != nil {
				t.Fatal(err)
			}
			for i := range at {
				switch {
				case at[i].Segment != at[0].Segment:
				case i%4 == 3:
					kept++
				default:
					lost++
				}
			}
			return lost, kept
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := im.copy(t)
			lost, kept := hurt(dir)
			done := mustRepair(t, dir)
			if n := len(done.Given); n != 1 || done.Given[0].Restored != kept {
				t.Fatalf("%+v, want %d restored", done.Given, kept)
			}
			var got []string
			var where []Position
			mustOpen(t, dir, Options{}, func(r Record) (Account, error) {
				got, where = append(got, string(r.Payload)), append(where, r.Position)
				return Account{Live: 1}, nil
			})
			if len(got) != 40-lost {
				t.Errorf("%d records, want %d", len(got), 40-lost)
			}
			for i, p := range where {
				if !slices.Contains(at, p) {
					t.Errorf("%.20q is at %+v, where nothing was", got[i], p)
				}
			}
			if !slices.Contains(got, "small-3") || !slices.Contains(got, "small-39") {
				t.Errorf("%.20q", got)
			}
		})
	}
}
