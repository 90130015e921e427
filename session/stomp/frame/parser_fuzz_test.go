package frame

import (
	"io"
	"slices"
	"testing"
)

// pieces hands out data in reads of the given sizes, over and over.
type pieces struct {
	data  []byte
	sizes []int
}

func (r *pieces) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.sizes[0])], r.data)
	r.data, r.sizes = r.data[n:], append(slices.Clone(r.sizes[1:]), r.sizes[0])
	return n, nil
}

// FuzzParser compares the Parser with the reference on any octets, cut in any way: the same frames, the same verdict, and what was
// consumed is the input itself.
func FuzzParser(f *testing.F) {
	for _, c := range wireCases {
		f.Add([]byte(c.wire), byte(c.version), uint8(0), []byte{1})
	}
	for _, c := range corruptions {
		f.Add([]byte(c.corrupt(c.frame)), byte(c.version), uint8(0), []byte{7, 1})
	}
	for _, c := range limitCases[:6] {
		f.Add([]byte(c.wire(c.most)), byte(V12), uint8(1), []byte{3})
	}
	f.Fuzz(func(t *testing.T, wire []byte, version byte, tight uint8, cuts []byte) {
		v := Version(version % 3)
		var lim Limits
		if tight%2 == 1 {
			lim = Limits{Command: 10, Headers: 3, Block: 20, Body: 9}
		}
		sizes := []int{len(wire) + 1}
		if len(cuts) > 0 {
			sizes = sizes[:0]
			for _, n := range cuts {
				sizes = append(sizes, int(n)+1)
			}
		}
		want, failed := reference(string(wire), v, lim)
		whole := parseAll(t, wire, []int{len(wire) + 1}, Parser{Version: v, Limits: lim}, failed)
		cut := parseAll(t, wire, sizes, Parser{Version: v, Limits: lim}, failed)
		if !slices.EqualFunc(whole, want, equal) {
			t.Fatalf("%q in %v\nframes    %+v\nreference %+v", wire, v, whole, want)
		}
		if !slices.EqualFunc(cut, want, equal) {
			t.Fatalf("%q in %v, read in %d\nframes    %+v\nreference %+v", wire, v, sizes, cut, want)
		}
	})
}

func parseAll(t *testing.T, wire []byte, sizes []int, s Parser, failed bool) []got {
	var frames []got
	consumed := 0
	_, err := stream(&pieces{wire, sizes}, s, true, func(f *Frame) {
		g := copied(f)
		if end := consumed + len(g.raw); end > len(wire) || string(wire[consumed:end]) != g.raw {
			t.Fatalf("%q: after %d octets %q was consumed", wire, consumed, g.raw)
		}
		consumed += len(g.raw)
		frames = append(frames, g)
	})
	if (err != nil) != failed {
		t.Fatalf("%q, read in %d: error %v, the reference says %v", wire, sizes, err, failed)
	}
	return mergeEOLs(frames)
}
