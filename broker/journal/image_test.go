package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

var errInjected = errors.New("injected")

// quickDir is a directory in memory where the machine has one: for tests that make thousands of stores and build their crashes themselves.
func quickDir(t testing.TB) string {
	dir, err := os.MkdirTemp(quickRoot(), "journal")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// quickRoot is where such directories are made.
func quickRoot() string {
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		return "/dev/shm"
	}
	return os.TempDir()
}

// stored is a store on disk as its owner left it, to be copied and hurt.
type stored struct {
	dir      string
	segment  int64
	acked    []string // payloads, in order; their fronts where there are indexes
	appended []string
	full     []string // payloads of which recovery needs the front only
	found    int      // records that the last recovery did not miss, and Read did
}

// frontBytes is what recovery needs of a record of newFronted.
const frontBytes = 12

// newFronted writes n records of which recovery needs little, so that sealed segments have indexes.
func newFronted(t testing.TB, segment int64, n int) *stored {
	im := &stored{dir: filepath.Join(quickDir(t), "store"), segment: segment}
	s := mustOpen(t, im.dir, Options{SegmentBytes: segment}, nil)
	for i := range n {
		p := fmt.Sprintf("record-%04d-", i)
		im.full = append(im.full, p+strings.Repeat("y", 300+i%90))
		at, err := s.Append(Entry{Type: 1, Payload: []byte(im.full[i]), Front: frontBytes, Account: Account{Live: 1}})
		if err != nil {
			t.Fatal(err)
		}
		s.durable(at.LSN)
		im.acked = append(im.acked, p)
	}
	s.idle()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	im.appended = im.acked
	if list, _ := filepath.Glob(filepath.Join(im.dir, "*.idx")); len(list) == 0 {
		t.Fatal("there is no index")
	}
	return im
}

// read reads all records back: each is what was written, or refused.
func (im *stored) read(t testing.TB, s *store, where []Position) {
	im.found = 0
	for i, at := range where {
		r, err := s.Read(at, nil)
		switch {
		case errors.Is(err, ErrDamaged):
			im.found++
		case err != nil:
			t.Fatalf("read record %d: %v", at.LSN, err)
		case string(r.Payload) != im.full[i]:
			t.Fatalf("SILENT DAMAGE: record %d reads %.40q, want %.40q", at.LSN, r.Payload, im.full[i])
		}
	}
}

func payload(i int) string { return fmt.Sprintf("record-%04d-%s", i, strings.Repeat("x", 1+i%90)) }

// newImage writes n records, each acknowledged.
func newImage(t testing.TB, segment int64, n int) *stored {
	im := &stored{dir: filepath.Join(quickDir(t), "store"), segment: segment}
	s := mustOpen(t, im.dir, Options{SegmentBytes: segment}, nil)
	for i := range n {
		lsn, _ := s.add(payload(i), Account{Live: 1})
		s.durable(lsn)
		im.acked = append(im.acked, payload(i))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	im.appended = im.acked
	return im
}

// newTorn writes acked records, then one batch of n more that is written and never synced: the disk fails at that moment.
func newTorn(t testing.TB, segment int64, acked, n int) *stored {
	im := &stored{dir: filepath.Join(quickDir(t), "store"), segment: segment}
	hold := make(chan struct{})
	arrived := make(chan struct{}, 1)
	var stage atomic.Int32
	before := func(o op) error {
		if o.kind != opSync || stage.Load() == 0 {
			return nil
		}
		if stage.Add(1) == 2 { // the batch before: while it hangs, the last one fills
			arrived <- struct{}{}
			<-hold
			return nil
		}
		return errInjected
	}
	s := mustOpen(t, im.dir, Options{SegmentBytes: segment, before: before}, nil)
	for i := range acked - 1 {
		lsn, _ := s.add(payload(i), Account{Live: 1})
		s.durable(lsn)
	}
	s.idle() // no segment is being prepared
	stage.Store(1)
	last, _ := s.add(payload(acked-1), Account{Live: 1})
	<-arrived
	for i := range n {
		s.add(payload(acked+i), Account{Live: 1})
	}
	close(hold)
	s.until("failure", func() bool { return len(s.failed) > 0 })
	if s.acked != last || !errors.Is(s.failed[0], errInjected) {
		t.Fatalf("acknowledged up to %d, want %d; failed: %v", s.acked, last, s.failed)
	}
	s.Close()
	for i := range acked + n {
		im.appended = append(im.appended, payload(i))
	}
	im.acked = im.appended[:acked]
	return im
}

func (im *stored) copy(t testing.TB) string {
	dir := quickDir(t)
	for _, name := range mustList(t, im.dir) {
		b, err := os.ReadFile(filepath.Join(im.dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (im *stored) segments(t testing.TB) (names []string) {
	list, err := filepath.Glob(filepath.Join(im.dir, "seg-*"))
	if err != nil || len(list) == 0 {
		t.Fatal("no segments", err)
	}
	slices.Sort(list)
	for _, s := range list {
		names = append(names, filepath.Base(s))
	}
	return names
}

func (im *stored) lastSegment(t testing.TB) string {
	names := im.segments(t)
	return names[len(names)-1]
}

// overwrite changes octets of a file, within its size.
func (im *stored) overwrite(t testing.TB, dir, name string, off int64, b []byte) {
	spoilt.Store(dir, true)
	path := filepath.Join(dir, name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if off < int64(len(data)) {
		copy(data[off:], b)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// recover opens a store and returns the payloads it holds, which must be a prefix of what was appended.
func (im *stored) recover(t testing.TB, dir string) ([]string, error) {
	var got []string
	var where []Position
	s, err := reopen(t, dir, Options{SegmentBytes: im.segment}, func(r Record) (Account, error) {
		if im.full != nil {
			r.Payload = r.Payload[:min(frontBytes, len(r.Payload))]
		}
		got, where = append(got, string(r.Payload)), append(where, r.Position)
		return Account{Live: 1}, nil
	})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if im.full != nil && len(got) <= len(im.full) {
		im.read(t, s, where)
	}
	if len(got) > len(im.appended) || !slices.Equal(got, im.appended[:len(got)]) {
		t.Fatalf("recovered something that is no prefix of what was appended: %d records, %.300q", len(got), got)
	}
	lsn, _ := s.add("after", Account{})
	s.durable(lsn)
	return got, nil
}

// tail is the extent of everything from record number i on in the last segment.
func (im *stored) tail(t testing.TB, i int) (from, to int64) {
	b, err := os.ReadFile(filepath.Join(im.dir, im.lastSegment(t)))
	if err != nil {
		t.Fatal(err)
	}
	from = int64(strings.Index(string(b), im.appended[i])) - recordHeader
	last := im.appended[len(im.appended)-1]
	if im.full != nil {
		last = im.full[len(im.full)-1]
	}
	to = int64(strings.Index(string(b), last) + len(last))
	if from < segmentHeader || to < from {
		t.Fatalf("record %d is not in the last segment", i)
	}
	return from, to
}
