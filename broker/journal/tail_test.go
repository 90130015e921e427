package journal

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A crash leaves the last, never synced batch cut anywhere: each record in front of the cut is there, nothing that was acknowledged is missing.
func TestTornTailAtEveryByte(t *testing.T) {
	im := newTorn(t, 64<<10, 5, 8)
	from, to := im.tail(t, len(im.acked))
	zeros := make([]byte, to-from)
	ends := im.ends(t)
	step := int64(1)
	if testing.Short() {
		step = 7
	}
	cuts := 0
	for at := from; at <= to; at += step {
		dir := im.copy(t)
		im.overwrite(t, dir, im.lastSegment(t), at, zeros[:to-at])
		got, err := im.recover(t, dir)
		if err != nil {
			t.Fatalf("cut at %d: %v", at, err)
		}
		want := 0
		for want < len(ends) && ends[want] <= at {
			want++
		}
		if len(got) != want || want < len(im.acked) {
			t.Fatalf("cut at %d: %d records, want %d; acknowledged %d", at, len(got), want, len(im.acked))
		}
		copies, _ := filepath.Glob(filepath.Join(dir, "quarantine", "*"))
		torn := want < len(ends) && at > from && (want == len(im.acked) || at > ends[want-1]+8)
		if torn && len(copies) != 1 {
			t.Fatalf("cut at %d: %d copies in quarantine", at, len(copies))
		}
		cuts++
	}
	t.Logf("%d cuts over %d octets, silent loss 0", cuts, to-from)
}

// ends lists where each appended record ends, without padding.
func (im *stored) ends(t testing.TB) (ends []int64) {
	for i := range im.appended {
		from, _ := im.tail(t, i)
		ends = append(ends, from+recordHeader+int64(len(im.appended[i])))
	}
	return ends
}

// The same cuts in a batch that was acknowledged are damage, for the mark says so.
func TestCutInAcknowledgedBatchIsRefused(t *testing.T) {
	im := newImage(t, 64<<10, 6)
	from, to := im.tail(t, len(im.acked)-1)
	for at := from; at < to; at += 3 {
		dir := im.copy(t)
		im.overwrite(t, dir, im.lastSegment(t), at, make([]byte, to-at))
		_, err := im.recover(t, dir)
		var damage *DamageError
		if !errors.As(err, &damage) || !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut at %d: %v", at, err)
		}
		if damage.Offset != from || filepath.Base(damage.File) != im.lastSegment(t) || damage.From == 0 || damage.To != damage.From {
			t.Fatalf("cut at %d of a record at %d: %v", at, from, err)
		}
	}
}

// What a torn batch leaves may have a hole in front: the pages of one write reach the disk in any order.
func TestHoleInTornBatch(t *testing.T) {
	im := newTorn(t, 64<<10, 5, 8)
	ends := im.ends(t)
	for i := len(im.acked); i < len(im.appended); i++ {
		dir := im.copy(t)
		start, _ := im.tail(t, i)
		im.overwrite(t, dir, im.lastSegment(t), start, make([]byte, ends[i]-start))
		got, err := im.recover(t, dir)
		if err != nil || len(got) != i {
			t.Fatalf("hole at record %d: %d records, %v", i, len(got), err)
		}
	}
}

// The same hole with a later batch behind it is damage, even where the mark was lost with the power.
func TestHoleBeforeLaterBatchIsRefused(t *testing.T) {
	im := newImage(t, 64<<10, 10)
	ends := im.ends(t)
	for i := range len(im.acked) {
		dir := im.copy(t)
		start, _ := im.tail(t, i)
		im.overwrite(t, dir, im.lastSegment(t), start, make([]byte, ends[i]-start))
		im.overwrite(t, dir, epochName(1), 0, make([]byte, markSlots*sectorSize))
		got, err := im.recover(t, dir)
		if i == len(im.acked)-1 { // nothing left proves that the very last batch was synced
			if err != nil || len(got) != i {
				t.Fatalf("hole at the last record: %d records, %v", len(got), err)
			}
			continue
		}
		if !errors.Is(err, ErrDamaged) {
			t.Fatalf("hole at record %d: %d records, %v", i, len(got), err)
		}
	}
}

// A crash while the next segment was made leaves its header torn, or its opening group, or both.
func TestTornOpening(t *testing.T) {
	im := newImage(t, 64<<10, 5)
	next := image(place{1, 2}, LSN(2+len(im.acked)), "not the manifest it should begin with")
	for name, b := range map[string][]byte{
		"empty":                  {},
		"zeros":                  make([]byte, 64<<10),
		"short":                  next[:100],
		"header cut short":       next[:600],
		"header only":            next[:segmentHeader],
		"no header":              append(make([]byte, segmentHeader), next[segmentHeader:]...),
		"half a header":          append(next[:64:64], make([]byte, 64<<10)...),
		"header and half record": next[:segmentHeader+20],
	} {
		t.Run(name, func(t *testing.T) {
			dir := im.copy(t)
			u, err := os.ReadFile(filepath.Join(dir, storeFile))
			if err != nil {
				t.Fatal(err)
			}
			store, _ := parseUUID(string(u[:36]))
			if len(b) >= sectorSize && !allZero(b[64:sectorSize]) {
				o := opening{store: store, place: place{1, 2}, first: LSN(2 + len(im.acked))}
				whole := make([]byte, segmentHeader)
				putOpening(whole, o)
				copy(b, whole)
			}
			if err := os.WriteFile(filepath.Join(dir, place{1, 2}.name()), b, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := im.recover(t, dir)
			if err != nil || len(got) != len(im.acked) {
				t.Fatalf("%d records, %v", len(got), err)
			}
			if _, err := os.Stat(filepath.Join(dir, place{1, 2}.name())); err == nil {
				t.Error("what was never begun is still there")
			}
		})
	}
}
