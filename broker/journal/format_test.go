package journal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// image builds a segment file in memory, the way batches build it on disk.
func image(p place, first LSN, payloads ...string) []byte {
	b := make([]byte, segmentHeader)
	putOpening(b, opening{store: uuid{1}, place: p, first: first})
	for i, s := range payloads {
		h := head{typ: 1, epoch: p.epoch, lsn: first + LSN(i), durable: first - 1}
		b = appendRecord(b, seed(p.id, p.epoch), h, []byte(s))
	}
	return b
}

func TestRecordCorruption(t *testing.T) {
	p := place{7, 42}
	whole := image(p, 100, "alpha", "beta", strings.Repeat("g", 5000))
	const a = segmentHeader
	for _, tt := range []struct {
		name    string
		corrupt func(b []byte) []byte
		want    int // whole records
	}{
		{"none", func(b []byte) []byte { return b }, 3},
		{"zeros behind", func(b []byte) []byte { return append(b, make([]byte, 9000)...) }, 3},
		{"checksum", func(b []byte) []byte { b[a] ^= 1; return b }, 0},
		{"size", func(b []byte) []byte { b[a+4]++; return b }, 0},
		{"size beyond the file", func(b []byte) []byte { b[a+7] = 0x0f; return b }, 0},
		{"size beyond the limit", func(b []byte) []byte { b[a+7] = 0xff; return b }, 0},
		{"type", func(b []byte) []byte { b[a+8] = 2; return b }, 0},
		{"flags", func(b []byte) []byte { b[a+9] = flagOpens; return b }, 0},
		{"version", func(b []byte) []byte { b[a+10] = 2; return b }, 0},
		{"epoch", func(b []byte) []byte { b[a+12] = 8; return b }, 0},
		{"lsn", func(b []byte) []byte { b[a+16]++; return b }, 0},
		{"durable", func(b []byte) []byte { b[a+24]--; return b }, 0},
		{"payload", func(b []byte) []byte { b[a+32] ^= 0x80; return b }, 0},
		{"second header zeroed", func(b []byte) []byte { clear(b[a+40 : a+72]); return b }, 1},
		{"cut in the third", func(b []byte) []byte { return b[:a+80+40] }, 2},
		{"cut in the padding", func(b []byte) []byte { return b[:a+38] }, 0},
		{"records of another segment", func(b []byte) []byte { return append(b[:a], image(place{7, 43}, 100, "alpha")[a:]...) }, 0},
		{"records of another epoch", func(b []byte) []byte { return append(b[:a], image(place{6, 42}, 100, "alpha")[a:]...) }, 0},
		{"a repeated record", func(b []byte) []byte { return append(b[:a+40], b[a:]...) }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.corrupt(bytes.Clone(whole))
			sc := newScanner(bytes.NewReader(b), int64(len(b)), p, nil)
			sc.next = 100
			n := 0
			for {
				_, _, ok, err := sc.step()
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				n++
			}
			if n != tt.want {
				t.Errorf("%d whole records, want %d", n, tt.want)
			}
		})
	}
}

// Each single flipped bit of a record is noticed, but for those in padding.
func TestRecordEveryBit(t *testing.T) {
	p := place{3, 9}
	b := image(p, 5, "every bit counts here")
	for i := segmentHeader * 8; i < (segmentHeader+recordHeader+21)*8; i++ {
		b[i/8] ^= 1 << (i % 8)
		sc := newScanner(bytes.NewReader(b), int64(len(b)), p, nil)
		sc.next = 5
		if _, _, ok, _ := sc.step(); ok {
			t.Errorf("bit %d flipped unnoticed", i)
		}
		b[i/8] ^= 1 << (i % 8)
	}
}

func TestOpeningRoundTripAndEveryBit(t *testing.T) {
	o := opening{store: newUUID(), place: place{12, 345}, first: 678}
	o.prev = sealed{place: place{11, 344}, end: 8192, last: 677}
	b := make([]byte, segmentHeader)
	putOpening(b, o)
	got, err := parseOpening(b, o.store, o.place)
	if err != nil || got != o {
		t.Fatalf("got %+v, %v; want %+v", got, err, o)
	}
	for i := range sectorSize * 8 {
		b[i/8] ^= 1 << (i % 8)
		if _, err := parseOpening(b, o.store, o.place); !errors.Is(err, errTorn) {
			t.Errorf("bit %d: %v", i, err)
		}
		b[i/8] ^= 1 << (i % 8)
	}
	if _, err := parseOpening(b, uuid{}, o.place); err == nil || errors.Is(err, errTorn) {
		t.Errorf("another store: %v", err)
	}
	if _, err := parseOpening(b, o.store, place{12, 346}); err == nil || errors.Is(err, errTorn) {
		t.Errorf("another file: %v", err)
	}
}

func TestNames(t *testing.T) {
	for _, p := range []place{{1, 1}, {7, 0x2a}, {maxEpoch, 1 << 60}} {
		if got, ok := parsePlace(p.name()); !ok || got != p {
			t.Errorf("%s: %v %v", p.name(), got, ok)
		}
	}
	for _, s := range []string{"", "seg-", "seg-1-2.log", "seg-00000001-00000000000G.log", "seg-00000001-000000000001.idx", "seg-00000001-000000000001.log.tmp"} {
		if _, ok := parsePlace(s); ok {
			t.Errorf("%q was taken for a segment", s)
		}
	}
	if e, ok := parseEpoch("epoch-00000012"); !ok || e != 12 {
		t.Error(e, ok)
	}
	for _, s := range []string{"epoch-12", "epoch-", "epoch-000000012", "epoch-99999999999"} {
		if _, ok := parseEpoch(s); ok {
			t.Errorf("%q was taken for an epoch", s)
		}
	}
	u := newUUID()
	if v, err := parseUUID(u.String()); err != nil || v != u {
		t.Error(v, err)
	}
}

func TestManifest(t *testing.T) {
	list := []sealed{{place{1, 1}, 1, 10, 5000}, {place{1, 3}, 12, 12, 4200}, {place{4, 4}, 13, 99, 9000}}
	got, err := parseManifest(appendManifest(nil, list))
	if err != nil || !reflect.DeepEqual(got, list) {
		t.Errorf("got %v, %v", got, err)
	}
	for name, bad := range map[string][]sealed{
		"ends in its header": {{place{1, 1}, 1, 10, 17}},
		"no records":         {{place{1, 1}, 11, 10, 5000}},
		"numbers go back":    {{place{1, 3}, 1, 10, 5000}, {place{1, 2}, 11, 12, 5000}},
		"records overlap":    {{place{1, 1}, 1, 10, 5000}, {place{1, 2}, 10, 12, 5000}},
		"epochs go back":     {{place{2, 1}, 1, 10, 5000}, {place{1, 2}, 11, 12, 5000}},
	} {
		if _, err := parseManifest(appendManifest(nil, bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// The search finds whole records wherever they begin, across the borders of its window.
func TestSearch(t *testing.T) {
	p := place{2, 5}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		gap := 8 * rng.IntN(3*windowBytes/8)
		b := make([]byte, segmentHeader+gap)
		for range rng.IntN(20) { // noise
			b[segmentHeader+rng.IntN(gap+1)*7/8] = byte(rng.Int())
		}
		b = appendRecord(b, seed(5, 2), head{typ: 1, epoch: 2, lsn: 77, durable: 70}, make([]byte, rng.IntN(3000)))
		end := int64(len(b))
		b = append(b, make([]byte, rng.IntN(2*windowBytes))...)
		sc := newScanner(bytes.NewReader(b), int64(len(b)), p, nil)
		got, err := sc.search(segmentHeader)
		if err != nil || got.records != 1 || got.last != 77 || got.durable != 70 || got.end != end {
			t.Fatalf("gap %d: %+v %v, want end %d", gap, got, err, end)
		}
	}
}
