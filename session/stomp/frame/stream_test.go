package frame

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// stream is a caller of the Parser: it reads from r, hands over what is there, and keeps what was not consumed. With eager it asks
// after every read, else only once it has as much as the Parser said it needs. peak is the most it ever had to hold.
func stream(r io.Reader, s Parser, eager bool, each func(*Frame)) (peak int, err error) {
	var held []byte
	chunk, need := make([]byte, 4<<10), 0
	for {
		n, readErr := r.Read(chunk)
		// Moved each time, and what was there before is overwritten: the Parser may not look back.
		moved := append(slices.Clone(held), chunk[:n]...)
		for i := range held {
			held[i] = 0xEE
		}
		held = moved
		peak = max(peak, len(held))
		for len(held) >= need || eager {
			var f Frame
			n, want, err := s.Next(held, &f)
			if err != nil {
				return peak, err
			}
			if need = want; n == 0 {
				if want <= len(held) {
					return peak, fmt.Errorf("needs %d octets of %d and consumed none", want, len(held))
				}
				break
			}
			each(&f)
			held = held[n:]
		}
		if readErr == io.EOF {
			return peak, nil
		} else if readErr != nil {
			return peak, readErr
		}
	}
}

// readers are the ways in which a stream may arrive.
var readers = []struct {
	name string
	wrap func(io.Reader) io.Reader
}{
	{"whole", func(r io.Reader) io.Reader { return r }},
	{"one byte", iotest.OneByteReader},
	{"half", iotest.HalfReader},
	{"data with EOF", iotest.DataErrReader},
}

// mergeEOLs makes one of end-of-lines that follow each other: how many come out is the only thing that chunking may change.
func mergeEOLs(in []got) (out []got) {
	for _, g := range in {
		if n := len(out); n > 0 && g.command == EOL && out[n-1].command == EOL {
			out[n-1].raw += g.raw
			continue
		}
		out = append(out, g)
	}
	return out
}

// checkStream parses wire in every way and compares with want; err nil means that all of wire was consumed or waits for more.
func checkStream(t *testing.T, s Parser, wire string, want []got, wantErr error) {
	t.Helper()
	check := func(how string, r io.Reader, eager bool) {
		t.Helper()
		var frames []got
		_, err := stream(r, s, eager, func(f *Frame) { frames = append(frames, copied(f)) })
		if !errors.Is(err, wantErr) {
			t.Fatalf("%s: error %v, want %v", how, err, wantErr)
		}
		if frames = mergeEOLs(frames); !slices.EqualFunc(frames, want, equal) {
			t.Fatalf("%s: frames\n%+v\nwant\n%+v", how, frames, want)
		}
	}
	for _, r := range readers {
		check(r.name, r.wrap(strings.NewReader(wire)), true)
		check(r.name+", as needed", r.wrap(strings.NewReader(wire)), false)
	}
	for i := 0; i < len(wire); i += 1 + len(wire)/400 { // every one, but of the longest streams, which only repeat themselves
		parts := io.MultiReader(strings.NewReader(wire[:i]), strings.NewReader(wire[i:]))
		check(fmt.Sprintf("split at %d", i), parts, true)
	}
}

func equal(a, b got) bool {
	return a.command == b.command && a.name == b.name && slices.Equal(a.headers, b.headers) && a.body == b.body && a.raw == b.raw &&
		a.length == b.length
}

// A broken read in the middle of a frame yields the frames before it, and the reader's error.
func TestReadError(t *testing.T) {
	const whole = "SEND\ndestination:/queue/a\n\none\x00\n"
	const part = "SEND\ndestination:/queue/a\ncontent-length:9\n\nfour"
	broken := errors.New("connection reset")
	for cut := range part {
		n := 0
		r := io.MultiReader(strings.NewReader(whole+part[:cut]), iotest.ErrReader(broken))
		_, err := stream(iotest.OneByteReader(r), Parser{}, true, func(f *Frame) {
			if f.Command == Send {
				n++
			}
		})
		if n != 1 || !errors.Is(err, broken) {
			t.Fatalf("cut at %d: %d frames, error %v", cut, n, err)
		}
	}
}
