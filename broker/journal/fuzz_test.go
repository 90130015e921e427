package journal

import (
	"bytes"
	"errors"
	"testing"
)

func FuzzSegment(f *testing.F) {
	p := place{7, 42}
	f.Add(image(p, 1, "a", "bb", "ccc"))
	f.Add(image(p, 1, ""))
	f.Add(image(place{7, 41}, 1, "stale"))
	f.Fuzz(func(t *testing.T, b []byte) {
		sc := newScanner(bytes.NewReader(b), int64(len(b)), p, nil)
		if len(b) >= sectorSize {
			o, err := parseOpening(b, uuid{1}, p)
			if err == nil {
				again := make([]byte, segmentHeader)
				putOpening(again, o)
				if back, err := parseOpening(again, uuid{1}, p); err != nil || back != o {
					t.Fatalf("%+v became %+v, %v", o, back, err)
				}
				sc.next = o.first
			}
		}
		sc.next = max(sc.next, 1)
		for {
			at := sc.off
			h, payload, ok, err := sc.step()
			if err != nil {
				t.Fatal(err) // a buffer has no read errors
			}
			if !ok {
				break
			}
			again := appendRecord(nil, sc.seed, h, payload)
			if n := recordHeader + h.size; !bytes.Equal(again[:n], b[at:at+int64(n)]) {
				t.Fatalf("record at %d is not what a writer writes", at)
			}
		}
		if got, err := sc.search(0); err != nil || got.end > int64(len(b))+7 {
			t.Fatalf("search: %+v, %v", got, err)
		}
	})
}

func FuzzLists(f *testing.F) {
	f.Add(appendManifest(nil, []sealed{{place{1, 1}, 1, 10, 5000}, {place{1, 3}, 12, 12, 4200}}))
	f.Add(appendDrop(nil, []Segment{1, 2, 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, err := parseManifest(b); err == nil && !bytes.Equal(appendManifest(nil, list), b) {
			t.Fatalf("manifest %v does not come back", list)
		}
		if ids, err := parseDrop(b); err == nil && !bytes.Equal(appendDrop(nil, ids), b) {
			t.Fatalf("drop %v does not come back", ids)
		}
		if k := parseMark(b, 3); k.lsn > 0 && k.epoch != 3 {
			t.Fatalf("mark of another epoch: %+v", k)
		}
	})
}

// FuzzDamage changes octets of an acknowledged store anywhere in its last segment: it opens with every acknowledged record, or not at all.
func FuzzDamage(f *testing.F) {
	src := newImage(f, 16<<10, 40)
	f.Add(uint16(0), []byte{1})
	f.Add(uint16(segmentHeader), make([]byte, 32))
	f.Add(uint16(segmentHeader+200), make([]byte, 512))
	f.Fuzz(func(t *testing.T, off uint16, b []byte) {
		dir := src.copy(t)
		src.overwrite(t, dir, src.lastSegment(t), int64(off), b)
		got, err := src.recover(t, dir)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		if len(got) < len(src.acked) {
			t.Fatalf("silent loss: %d of %d acknowledged records", len(got), len(src.acked))
		}
	})
}
