package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// newIndexed is a store with indexes, and its actor.
func newIndexed(t testing.TB, dir string) *actor {
	a := newActor(newRand(t))
	a.s = mustOpen(t, dir, Options{SegmentBytes: 16 << 10, Head: a.head}, nil)
	for i := range 150 {
		if a.put(a.begin()); i%10 == 0 {
			a.s.idle() // else the janitor gives indexes up
		}
	}
	for range 30 {
		a.put(a.end(a.any()))
	}
	a.settle()
	a.s.idle()
	return a
}

func indexFiles(t testing.TB, dir string) []string {
	list, err := filepath.Glob(filepath.Join(dir, "*.idx"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Recovery learns the same from indexes as from segments, and takes what it can use: never a part of an index that is not whole.
func TestIndexIsAsGoodAsItsSegment(t *testing.T) {
	dir := quickDir(t)
	a := newIndexed(t, dir)
	a.s.Close()
	list := indexFiles(t, dir)
	if len(list) < 3 {
		t.Fatalf("%d indexes", len(list))
	}
	open := func(dir string, fronts int) {
		t.Helper()
		st, short := newState(), 0
		s, err := reopen(t, dir, Options{SegmentBytes: 16 << 10, Head: a.head}, func(r Record) (Account, error) {
			if len(r.Payload) < r.Size {
				short++
			}
			return st.apply(r)
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if !st.equal(a.state) {
			t.Fatalf("recovered %v, want %v", st, a.state)
		}
		if fronts == 0 != (short == 0) {
			t.Errorf("%d records were shown by their fronts", short)
		}
		for id, at := range st.alive {
			r, err := s.Read(at, nil)
			if err == nil {
				err = r.holds(id)
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
	im := &stored{dir: dir}
	open(im.copy(t), 1)
	hurt := func(name string, how func(b []byte) []byte) {
		t.Helper()
		dir := im.copy(t)
		for _, path := range indexFiles(t, dir) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if b = how(b); b == nil {
				err = os.Remove(path)
			} else {
				err = os.WriteFile(path, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		open(dir, 0)
		for _, path := range indexFiles(t, dir) { // an index that is of no use goes with its segment at the latest
			if _, err := os.Stat(path[:len(path)-4] + ".log"); err != nil {
				t.Errorf("%s: %s has no segment", name, path)
			}
		}
	}
	hurt("gone", func([]byte) []byte { return nil })
	hurt("empty", func(b []byte) []byte { return b[:0] })
	hurt("torn", func(b []byte) []byte { return b[:len(b)/2] })
	hurt("short by one", func(b []byte) []byte { return b[:len(b)-1] })
	hurt("long by one", func(b []byte) []byte { return append(b, 0) })
	hurt("zeros", func(b []byte) []byte { return make([]byte, len(b)) })
	for _, at := range []int{0, 8, 12, 16, 33, 41, 49, 57, 65, 73, 81, indexHeader, indexHeader + 1, indexHeader + 100} {
		hurt(fmt.Sprint("bit at ", at), func(b []byte) []byte { b[at] ^= 4; return b })
	}
	other := ""
	hurt("another segment's", func(b []byte) []byte {
		mine := string(b)
		defer func() { other = mine }()
		if other == "" {
			return nil
		}
		return []byte(other)
	})
}

// An index goes with its segment; one without is litter; none is made where it would not be much smaller than its segment.
func TestIndexFiles(t *testing.T) {
	dir := quickDir(t)
	a := newIndexed(t, dir)
	before := len(indexFiles(t, dir))
	for len(a.state.alive) > 0 {
		a.put(a.end(a.any()))
	}
	a.settle()
	a.s.idle()
	sealed := map[string]bool{}
	for _, id := range a.s.sealed() {
		sealed[place{1, id}.indexName()] = true
	}
	for _, path := range indexFiles(t, dir) {
		if !sealed[filepath.Base(path)] {
			t.Errorf("%s is still there", path)
		}
	}
	if before < 3 {
		t.Errorf("%d indexes", before)
	}
	a.s.Close()
	litter := filepath.Join(dir, place{1, 3}.indexName())
	if err := os.WriteFile(litter, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir, Options{SegmentBytes: 16 << 10}, nil)
	s.idle()
	if _, err := os.Stat(litter); err == nil {
		t.Error("an index without a segment is still there")
	}
	last := len(indexFiles(t, dir))
	for i := range 300 { // all of the payload is needed
		s.add(payload(i), Account{Live: 1})
	}
	s.idle()
	if n := len(indexFiles(t, dir)); n > last || len(s.sealed()) < 2 {
		t.Errorf("%d indexes that are as large as their segments", n-last)
	}
}

func someIndex(t testing.TB) (b []byte, store uuid, s sealed) {
	store, s = uuid{7}, sealed{place{3, 9}, 40, 43, 0}
	x := &indexed{}
	x.begin(1 << 20)
	x.add(typeManifest, make([]byte, 80), 0)
	x.add(2, []byte("head"), 0)
	x.add(1, append([]byte("front"), make([]byte, 900)...), 5)
	x.add(typeDrop, make([]byte, 8), 0)
	s.end = segmentHeader + int64(recordSize(80)+recordSize(4)+recordSize(905)+recordSize(8))
	u := x.seal(store, s, segmentHeader+int64(recordSize(80)+recordSize(4)))
	b = append(b, u.head...)
	for _, c := range u.chunks {
		b = append(b, c...)
	}
	if u.size() != int64(len(b)) {
		t.Fatalf("%d octets, size says %d", len(b), u.size())
	}
	return b, store, s
}

func TestIndexFormat(t *testing.T) {
	b, store, s := someIndex(t)
	x, err := parseIndex(b, store, s)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	x.each(func(r Record) error {
		got = append(got, fmt.Sprintf("%d at %d, type %d: %q of %d", r.LSN, r.Offset, r.Type, r.Payload, r.Size))
		return nil
	})
	want := []string{"41 at 4208, type 2: \"head\" of 4", "42 at 4248, type 1: \"front\" of 905"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", got, want)
	}
	for i := range b {
		for bit := range 8 {
			c := bytes.Clone(b)
			c[i] ^= 1 << bit
			if _, err := parseIndex(c, store, s); !errors.Is(err, errNoIndex) {
				t.Fatalf("bit %d of octet %d: %v", bit, i, err)
			}
		}
	}
	for n := range b {
		if _, err := parseIndex(b[:n], store, s); !errors.Is(err, errNoIndex) {
			t.Fatalf("%d octets: %v", n, err)
		}
	}
	for _, other := range []sealed{
		{place{4, 9}, 40, 43, s.end}, {place{3, 8}, 40, 43, s.end}, {s.place, 41, 43, s.end}, {s.place, 40, 42, s.end}, {s.place, 40, 43, s.end - 8},
	} {
		if _, err := parseIndex(b, store, other); !errors.Is(err, errNoIndex) {
			t.Errorf("it passes for that of %+v: %v", other, err)
		}
	}
	if _, err := parseIndex(b, uuid{8}, s); !errors.Is(err, errNoIndex) {
		t.Errorf("it passes for another store's: %v", err)
	}
}

func FuzzIndex(f *testing.F) {
	b, store, s := someIndex(f)
	f.Add(b)
	f.Add(b[:indexHeader])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= indexHeader { // what has no chance of the right checksum is not interesting
			var chunks [][]byte
			if rest := b[indexHeader:]; len(rest) > 0 {
				chunks = [][]byte{rest}
			}
			b = append(indexHead(store, s, int64(segmentHeader), chunks), b[indexHeader:]...)
		}
		x, err := parseIndex(b, store, s)
		if err != nil {
			return
		}
		last := Position{}
		x.each(func(r Record) error {
			if r.LSN <= last.LSN || r.LSN > s.last || r.Offset <= last.Offset || r.Offset >= s.end || len(r.Payload) > r.Size || r.Type >= typeManifest {
				t.Fatalf("record %+v behind %+v", r, last)
			}
			last = r.Position
			return nil
		})
	})
}
