package frame

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
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
		checkGet(t, f)
		frames = append(frames, g)
	})
	if (err != nil) != failed {
		t.Fatalf("%q, read in %d: error %v, the reference says %v", wire, sizes, err, failed)
	}
	return mergeEOLs(frames)
}

// checkGet compares Get, which uses the index, with Headers, which does not.
func checkGet(t *testing.T, f *Frame) {
	t.Helper()
	first, ours := map[string]int{}, false
	for name, value := range f.Headers {
		at := f.Offset(value)
		if string(f.Raw[at:at+len(value)]) != string(value) {
			t.Fatalf("%q: %s does not stand at %d", f.Raw, value, at)
		}
		if _, again := first[string(name)]; !again {
			first[string(name)] = at
		}
		ours = ours || strings.HasPrefix(string(trimPadding(name)), PairedPrefix)
	}
	for name, at := range first {
		if value, ok := f.Get(name); !ok || f.Offset(value) != at {
			t.Fatalf("%q: Get(%q) = %q, %v; the first stands at %d", f.Raw, name, value, ok, at)
		}
		for _, other := range []string{name[1:], name + "x", "x" + name[1:]} {
			if _, there := first[other]; there {
				continue
			}
			if value, ok := f.Get(other); ok {
				t.Fatalf("%q: Get(%q) = %q, and there is none", f.Raw, other, value)
			}
		}
	}
	if f.Command != EOL && f.Ours != ours {
		t.Fatalf("%q: Ours = %v", f.Raw, f.Ours)
	}
}

// Lines that the index has no room for are found all the same, and the first of each name is what counts.
func TestGetBeyondTheIndex(t *testing.T) {
	line := func(n int) string { return fmt.Sprintf("h%d:v%d\r\n", n, n) }
	many := ""
	for n := range 3 * maxIndexed {
		many += line(n) + line(n%maxIndexed)
	}
	for name, block := range map[string]string{
		"many lines":           many,
		"as many as there fit": strings.Repeat(line(1), maxIndexed-1) + line(2),
		"one more":             strings.Repeat(line(1), maxIndexed) + line(2),
		"a long name":          line(1) + strings.Repeat("n", 300) + ":x\n" + line(2) + line(1),
		"a long block":         line(1) + "x:" + strings.Repeat("x", math.MaxUint16) + "\n" + line(2) + line(1),
		"one of ours":          line(1) + HeaderStamp + ":x\n",
	} {
		t.Run(name, func(t *testing.T) {
			wire := []byte("SEND\n" + block + "\nbody\x00")
			for _, v := range []Version{V10, V11, V12} {
				s := Parser{Version: v, Limits: Limits{Block: 1 << 20}}
				var f Frame
				for _, n := range []int{3, 9, len(wire) / 2, len(wire)} {
					if _, _, err := s.Next(wire[:n], &f); err != nil {
						t.Fatal(err)
					}
				}
				checkGet(t, &f)
			}
		})
	}
}
