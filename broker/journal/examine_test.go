package journal

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// bad is a medium of which some sectors cannot be read.
type bad struct {
	*bytes.Reader
	from, to int64
}

func (b bad) ReadAt(p []byte, off int64) (int, error) {
	if off < b.to && b.from < off+int64(len(p)) {
		n, _ := b.Reader.ReadAt(p[:max(0, b.from-off)], off)
		return n, syscall.EIO
	}
	return b.Reader.ReadAt(p, off)
}

// Where the medium cannot be read, the rest still can.
func TestPatchyReader(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	for _, hole := range [][2]int64{{0, 1}, {600, 700}, {512, 1024}, {int64(len(data)) - 1, int64(len(data))}, {5, 5000}} {
		p := &patchy{src: bad{bytes.NewReader(data), hole[0], hole[1]}}
		got := make([]byte, len(data)-3)
		if n, err := p.ReadAt(got, 3); n != len(got) || err != nil {
			t.Fatalf("hole %v: %d octets, %v", hole, n, err)
		}
		for i := range got { // what is not in the hole's sectors is what was written
			if got[i] != data[i+3] && got[i] != 0 {
				t.Fatalf("hole %v: octet %d is %q", hole, i+3, got[i])
			}
			if sector := int64(i+3) &^ (sectorSize - 1); (sector+sectorSize <= hole[0] || sector >= hole[1]) && got[i] != data[i+3] {
				t.Fatalf("hole %v: octet %d was lost with others", hole, i+3)
			}
		}
		if hole[1] > 3 && !errors.Is(p.err, syscall.EIO) {
			t.Errorf("hole %v: %v", hole, p.err)
		}
	}
	p := &patchy{src: bytes.NewReader(data)}
	if n, err := p.ReadAt(make([]byte, 100), int64(len(data))-10); n != 10 || !errors.Is(err, io.EOF) || p.err != nil {
		t.Errorf("%d octets, %v, %v", n, err, p.err)
	}
}

// A record's payload may hold what looks like records of the same segment, whole ones at that. Damage to that record must not bring them to life.
func TestRecordsInPayloadsStayThere(t *testing.T) {
	dir := filepath.Join(quickDir(t), "store")
	s := mustOpen(t, dir, Options{SegmentBytes: 16 << 10}, nil)
	var inner []byte // numbers and room are what they would be if it were true
	for lsn := LSN(4); lsn < 6; lsn++ {
		inner = appendRecord(inner, seed(1, 1), head{typ: 1, epoch: 1, lsn: lsn, durable: 1}, []byte("forged"))
	}
	var at []Position
	for _, payload := range [][]byte{[]byte("first"), slices.Concat(make([]byte, 64), inner), []byte("last")} {
		p, err := s.Append(Entry{Type: 1, Payload: payload, Account: Account{Live: 1}})
		if err != nil {
			t.Fatal(err)
		}
		s.durable(p.LSN)
		at = append(at, p)
	}
	s.Close()
	name := filepath.Join(dir, place{1, 1}.name())
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[at[1].Offset+recordHeader+10] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	done := mustRepair(t, dir)
	if len(done.Given) != 1 || done.Given[0].From != at[1].LSN || done.Given[0].To != at[1].LSN {
		t.Errorf("gave up %+v", done.Given)
	}
	var got []string
	mustOpen(t, dir, Options{}, collect(&got))
	if strings.Join(got, " ") != "first last" {
		t.Errorf("%q", got)
	}
}

// FuzzExamine reads damaged segments beyond the damage: whatever the octets, it ends, and says nothing that is not there.
func FuzzExamine(f *testing.F) {
	src := newImage(f, 16<<10, 40)
	f.Add(uint16(0), []byte{1}, true)
	f.Add(uint16(segmentHeader), make([]byte, 32), false)
	f.Add(uint16(segmentHeader+200), make([]byte, 512), true)
	f.Fuzz(func(t *testing.T, off uint16, b []byte, truncate bool) {
		dir := src.copy(t)
		defer os.RemoveAll(dir)
		name := src.lastSegment(t)
		src.overwrite(t, dir, name, int64(off), b)
		if truncate {
			if err := os.Truncate(filepath.Join(dir, name), int64(off)+int64(len(b))); err != nil {
				t.Fatal(err)
			}
		}
		r, err := Check(dir, CheckOptions{Concerns: concernsOf})
		if err != nil {
			t.Fatal(err)
		}
		if _, opened := src.recover(t, src.copyOf(t, dir)); (opened == nil) != r.Opens || r.Verdict != Damaged && !r.Opens {
			t.Fatalf("Check says %s, Open says %v", r.Verdict, opened)
		}
		if r.Verdict != Damaged {
			return
		}
		mustRepair(t, dir)
		if got := src.salvaged(t, dir, r.Last); uint64(len(got)) != r.Records {
			t.Fatalf("%d records were whole, %d are there", r.Records, len(got))
		}
	})
}

func (im *stored) copyOf(t testing.TB, dir string) string {
	other := *im
	other.dir = dir
	return other.copy(t)
}
