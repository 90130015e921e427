package journal

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tally counts outcomes by where the damage was done.
type tally map[string]int

// String is a table: where, and what came of it. Keys are "where: what".
func (c tally) String() string {
	var rows, columns []string
	for k := range c {
		row, column, _ := strings.Cut(k, ": ")
		rows, columns = append(rows, row), append(columns, column)
	}
	slices.Sort(rows)
	slices.Sort(columns)
	rows, columns = slices.Compact(rows), slices.Compact(columns)
	var b strings.Builder
	fmt.Fprintf(&b, "\n  %-34s", "")
	for _, column := range columns {
		fmt.Fprintf(&b, " | %s", column)
	}
	for _, row := range rows {
		fmt.Fprintf(&b, "\n  %-34s", row)
		for _, column := range columns {
			n := c[row]
			if column != "" {
				n = c[row+": "+column]
			}
			fmt.Fprintf(&b, " | %*d", len(column), n)
		}
	}
	return b.String()
}

// region names the part of the store that holds an octet.
func (im *stored) region(t testing.TB, name string, off int64) string {
	if !strings.HasPrefix(name, "seg-") {
		return strings.TrimRight(name, "0123456789-")
	}
	if strings.HasSuffix(name, ".idx") {
		return "index"
	}
	kind := "sealed segment"
	if name == im.lastSegment(t) {
		kind = "last segment"
	}
	end := int64(math.MaxInt64)
	if name == im.lastSegment(t) {
		_, end = im.tail(t, len(im.appended)-1)
	}
	switch {
	case off < sectorSize:
		return kind + ", header"
	case off < segmentHeader:
		return kind + ", header padding"
	case name == im.lastSegment(t) && off >= end:
		return kind + ", unused"
	}
	return kind + ", records"
}

// hurt damages one place of a copy, opens it and books the outcome. Damage to acknowledged data is refused or harmless, never silent.
func (im *stored) hurt(t *testing.T, c tally, name string, off int64, damage func(b []byte)) {
	t.Helper()
	dir := im.copy(t)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before := string(b[off:min(off+sectorSize, int64(len(b)))])
	damage(b[off:min(off+sectorSize, int64(len(b)))])
	if before == string(b[off:min(off+sectorSize, int64(len(b)))]) {
		return // zeros over zeros
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	where := im.region(t, name, off)
	got, err := im.recover(t, dir)
	switch {
	case err == nil && len(got) < len(im.acked):
		t.Fatalf("SILENT LOSS: %s at %d: %d of %d acknowledged records", name, off, len(got), len(im.acked))
	case err == nil && where == "index" && len(got) == len(im.appended):
		c[where+": starts, read from the segment"]++
	case err == nil && im.found > 0:
		c[where+": starts, found by Read"]++
	case err == nil && len(got) == len(im.appended):
		c[where+": starts, all there"]++
	case err == nil:
		c[where+": starts, unacknowledged cut"]++
	case errors.Is(err, ErrDamaged):
		c[where+": refuses"]++
	default:
		t.Fatalf("%s at %d: %v", name, off, err)
	}
}

func (im *stored) files(t testing.TB) (names []string) { return mustList(t, im.dir) }

func (im *stored) size(name string) int64 {
	st, err := os.Stat(filepath.Join(im.dir, name))
	if err != nil {
		return 0
	}
	return st.Size()
}

// TestBitFlips flips one bit anywhere, in a store that was closed and in one that died with a torn batch.
func TestBitFlips(t *testing.T) {
	rng := newRand(t)
	n := 600
	if *full {
		n = 20_000
	}
	if testing.Short() {
		n = 150
	}
	for name, im := range map[string]*stored{"closed": newImage(t, 8<<10, 150), "torn": newTorn(t, 16<<10, 150, 8), "indexed": newFronted(t, 16<<10, 150)} {
		c := tally{}
		for i := range n {
			file := pick(rng, im.files(t))
			if i%3 == 0 {
				file = im.lastSegment(t)
			}
			off := rng.Int64N(im.size(file))
			if i%5 == 0 && strings.HasPrefix(file, "seg-") {
				off = rng.Int64N(sectorSize)
			}
			im.hurt(t, c, file, off, func(b []byte) { b[0] ^= 1 << rng.IntN(8) })
		}
		t.Logf("%s, %d segments, %d flips, silent loss 0:%v", name, len(im.segments(t)), n, c)
	}
}

// TestZeroedSectors zeroes each sector of the log in turn.
func TestZeroedSectors(t *testing.T) {
	for name, im := range map[string]*stored{"closed": newImage(t, 8<<10, 100), "torn": newTorn(t, 8<<10, 60, 8), "indexed": newFronted(t, 8<<10, 60)} {
		c := tally{}
		for _, file := range im.segments(t) {
			for off := int64(0); off < im.size(file); off += sectorSize {
				im.hurt(t, c, file, off, func(b []byte) { clear(b) })
			}
		}
		t.Logf("%s, silent loss 0:%v", name, c)
	}
}

// TestFilesGone removes, empties or halves each file in turn.
func TestFilesGone(t *testing.T) {
	im := newImage(t, 8<<10, 100)
	for _, file := range im.files(t) {
		for how, f := range map[string]func(string) error{
			"removed": os.Remove,
			"emptied": func(path string) error { return os.Truncate(path, 0) },
			"halved":  func(path string) error { return os.Truncate(path, im.size(file)/2) },
		} {
			dir := im.copy(t)
			if err := f(filepath.Join(dir, file)); err != nil {
				t.Fatal(err)
			}
			got, err := im.recover(t, dir)
			harmless := file == lockName || strings.HasPrefix(file, "epoch-")
			if err == nil && len(got) < len(im.acked) {
				t.Errorf("SILENT LOSS: %s %s: %d of %d records", file, how, len(got), len(im.acked))
			}
			if err != nil && (harmless || !errors.Is(err, ErrDamaged)) {
				t.Errorf("%s %s: %v", file, how, err)
			}
			if err == nil && !harmless && how != "halved" {
				t.Errorf("%s %s: nobody noticed", file, how)
			}
		}
	}
}

func pick[T any](rng *rand.Rand, list []T) T { return list[rng.IntN(len(list))] }
