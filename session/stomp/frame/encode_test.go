package frame

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestUnescape(t *testing.T) {
	for _, c := range []struct {
		version  Version
		in, want string
		bad      bool
	}{
		{V10, `a\c\n\\\t`, `a\c\n\\\t`, false},
		{V11, `\n\c\\`, "\n:\\", false},
		{V12, `\r\n\c\\`, "\r\n:\\", false},
		{V12, `\\n\\\\c`, `\n\\c`, false},
		{V12, `a:b`, "a:b", false},
		{V12, "", "", false},
		{V11, `\r`, "", true},
		{V11, `a\t`, "a", true},
		{V12, `\t`, "", true},
		{V12, `ok\`, "ok", true},
		{V12, `\C`, "", true},
		{V12, "\\\x00", "", true},
	} {
		got, err := Unescape([]byte("dst "), []byte(c.in), c.version)
		if string(got) != "dst "+c.want || errors.Is(err, ErrEscape) != c.bad || (err != nil) != c.bad {
			t.Errorf("Unescape(%q) in %v = %q, %v; want %q, bad %v", c.in, c.version, got, err, c.want, c.bad)
		}
	}
}

func TestEscape(t *testing.T) {
	for _, c := range []struct {
		version  Version
		in, want string
	}{
		{V10, "a:b\\\r\nc\x00", "a:b\\\rc"},
		{V11, "a:b\\\r\nc\x00", `a\cb\\` + "\r" + `\nc`},
		{V12, "a:b\\\r\nc\x00", `a\cb\\\r\nc`},
		{V12, "\xff", "\xff"},
		{V12, "", ""},
	} {
		if got := Escape([]byte("dst "), []byte(c.in), c.version); string(got) != "dst "+c.want {
			t.Errorf("Escape(%q) in %v = %q, want %q", c.in, c.version, got, c.want)
		}
	}
}

var versions = rapid.SampledFrom([]Version{V10, V11, V12})

// octets are drawn from those that mean something, so that they meet.
func octets(most int) *rapid.Generator[[]byte] {
	one := rapid.OneOf(rapid.SampledFrom([]byte("\\:\r\n \t\x00ncr")), rapid.Byte())
	return rapid.SliceOfN(one, 0, most)
}

func TestEscapeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, in := versions.Draw(t, "version"), octets(40).Draw(t, "value")
		wire := Escape(nil, in, v)
		if banned := map[Version]string{V10: "\n\x00", V11: "\n\x00:", V12: "\n\x00:\r"}[v]; bytes.ContainsAny(wire, banned) {
			t.Fatalf("%q cannot stand in a header of %v", wire, v)
		}
		want := bytes.ReplaceAll(in, []byte{0}, nil)
		if v == V10 {
			want = bytes.ReplaceAll(want, []byte{'\n'}, nil)
		}
		if back, err := Unescape(nil, wire, v); err != nil || !bytes.Equal(back, want) {
			t.Fatalf("%q came back as %q, %v", in, back, err)
		}
	})
}

// What is written with Escape is read back, in a frame, in every version and however it arrives.
func TestFrameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := versions.Draw(t, "version")
		var wire []byte
		var want []got
		for range rapid.IntRange(1, 4).Draw(t, "frames") {
			if n := rapid.IntRange(0, 3).Draw(t, "EOLs"); n > 0 && v == V12 {
				wire = append(wire, strings.Repeat("\r\n", n)...)
			} else {
				wire = append(wire, strings.Repeat("\n", n)...)
			}
			g, octets := drawFrame(t, v)
			wire, want = append(wire, octets...), append(want, g)
		}
		cut := rapid.SliceOfN(rapid.IntRange(1, 9), 1, 20).Draw(t, "sizes of the reads")
		s, i := Parser{Version: v}, 0
		_, err := stream(&pieces{wire, cut}, s, true, func(f *Frame) {
			if f.Command == EOL {
				return
			}
			g := copied(f)
			for j, h := range g.headers {
				plain, err := Unescape(nil, []byte(h), v)
				if err != nil {
					t.Fatalf("header %q: %v", h, err)
				}
				g.headers[j] = string(plain)
			}
			g.raw, g.name = "", ""
			if i >= len(want) || !equal(g, want[i]) {
				t.Fatalf("frame %d is %+v, want %+v", i, g, want)
			}
			i++
		})
		if err != nil || i != len(want) {
			t.Fatalf("%d frames of %d, %v", i, len(want), err)
		}
	})
}

func drawFrame(t *rapid.T, v Version) (want got, wire []byte) {
	want.command = rapid.SampledFrom([]Command{Send, Message, Error}).Draw(t, "command")
	body := octets(30).Draw(t, "body")
	wire = append([]byte(want.command.String()), '\n')
	for i := range rapid.IntRange(0, 4).Draw(t, "headers") {
		name := append([]byte(strconv.Itoa(i)), octets(10).Draw(t, "name")...)
		value := octets(20).Draw(t, "value")
		if v == V10 { // neither padding nor a colon in a name can be said in 1.0
			name = bytes.TrimRight(bytes.ReplaceAll(name, []byte(":"), nil), " \t\r\n\x00")
			value = bytes.Trim(value, " \t\r\n\x00")
		}
		wire = AppendHeader(wire, string(Escape(nil, name, v)), Escape(nil, value, v))
		drop := strings.NewReplacer("\x00", "")
		if v == V10 {
			drop = strings.NewReplacer("\x00", "", "\n", "")
		}
		want.headers = append(want.headers, drop.Replace(string(name)), drop.Replace(string(value)))
	}
	if want.length = rapid.Bool().Draw(t, "counted"); want.length {
		wire = AppendUint(wire, "content-length", uint64(len(body)))
		want.headers = append(want.headers, "content-length", strconv.Itoa(len(body)))
	} else {
		body = bytes.ReplaceAll(body, []byte{0}, nil)
	}
	want.body = string(body)
	return want, append(append(append(wire, '\n'), body...), 0)
}

func TestAppend(t *testing.T) {
	p := AppendHeader([]byte("SEND\n"), "destination", "/queue/a")
	p = AppendHeader(p, "receipt", []byte("7"))
	p = AppendUint(p, "content-length", math.MaxUint64)
	if want := "SEND\ndestination:/queue/a\nreceipt:7\ncontent-length:18446744073709551615\n"; string(p) != want {
		t.Errorf("%q, want %q", p, want)
	}
}

func TestParseUint(t *testing.T) {
	for _, n := range []uint64{0, 1, 9, 10, 1 << 32, math.MaxUint64 - 1, math.MaxUint64} {
		if got, ok := ParseUint(fmt.Append(nil, n)); !ok || got != n {
			t.Errorf("%d is read as %d, %v", n, got, ok)
		}
	}
	for _, s := range []string{"", " 1", "1 ", "+1", "-1", "1.0", "0x1", "1_0", "18446744073709551616", "99999999999999999999", "000000000000000000001"} {
		if n, ok := ParseUint([]byte(s)); ok {
			t.Errorf("%q is read as %d", s, n)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`[0-9]{1,20}`).Draw(t, "digits")
		want, err := strconv.ParseUint(s, 10, 64)
		if n, ok := ParseUint([]byte(s)); ok != (err == nil) || ok && n != want {
			t.Fatalf("%q is read as %d, %v; want %d, %v", s, n, ok, want, err)
		}
	})
}

var goodEscapes = map[Version]*regexp.Regexp{
	V10: regexp.MustCompile(`(?s)^.*$`),
	V11: regexp.MustCompile(`(?s)^([^\\]|\\[nc\\])*$`),
	V12: regexp.MustCompile(`(?s)^([^\\]|\\[nrc\\])*$`),
}

func FuzzUnescape(f *testing.F) {
	for _, s := range []string{"", "/queue/a", `a\cb`, `\n\r\c\\`, `\t`, `\`, `\\\`, "a:b\r", "\x00\xff"} {
		for v := range byte(3) {
			f.Add([]byte(s), v)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, version byte) {
		v := Version(version % 3)
		const before = "before"
		out, err := Unescape([]byte(before), in, v)
		if (err == nil) != goodEscapes[v].Match(in) {
			t.Fatalf("%q in %v: error %v", in, v, err)
		}
		if !bytes.HasPrefix(out, []byte(before)) || len(out) > len(before)+len(in) {
			t.Fatalf("%q was appended as %q", in, out)
		}
		if plain := out[len(before):]; err == nil && v != V10 {
			again, err := Unescape(nil, Escape(nil, plain, v), v)
			if want := bytes.ReplaceAll(plain, []byte{0}, nil); err != nil || !bytes.Equal(again, want) {
				t.Fatalf("%q is escaped and read back as %q, %v", plain, again, err)
			}
		}
	})
}
