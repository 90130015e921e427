package frame

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// corruptions take a good frame and spoil one thing. Each ends in one named error, however the octets arrive, and in none that quotes
// what could be a secret.
var corruptions = []struct {
	name    string
	version Version
	frame   string
	corrupt func(string) string
	want    error
}{
	{"empty command", V12, send, replace("SEND\n", "\r\r\n"), ErrCommand},
	{"a CR instead of a heart-beat", V12, send, replace("SEND", "\rSEND"), ErrCommand},
	{"CR inside the command", V12, send, replace("SEND", "SE\rND"), ErrCommand},
	{"command line without LF", V12, send, replace("SEND\n", "SEND:"), ErrCommand},
	{"blank behind the command", V12, send, replace("SEND", "SEND "), ErrCommand},
	{"TLS on the port", V12, send, replace("SEND\n", "\x16\x03\x01\x02"), ErrCommand},
	{"HTTP on the port", V12, send, replace("SEND\n", "GET / HTTP/1.1\r\n"), ErrCommand},
	{"a command ended by NUL", V12, send, replace("SEND\n", "SEND\x00"), ErrCommand},
	{"an endless command", V12, send, replace("SEND", strings.Repeat("S", DefaultCommand+1)), ErrLimit},
	{"header without colon", V12, send, replace("a:b", "ab"), ErrHeader},
	{"header without name", V12, send, replace("a:b", ":b"), ErrHeader},
	{"a name of padding in 1.0", V10, send, replace("a:b", " \t:b"), ErrHeader},
	{"a line of CRs", V12, send, replace("a:b", "\r\r"), ErrHeader},
	{"NUL in a value", V12, send, replace("a:b", "a:\x00b"), ErrHeader},
	{"NUL in a name", V12, send, replace("a:b", "\x00a:b"), ErrHeader},
	{"no blank line", V12, "DISCONNECT\nreceipt:77\n\n\x00", replace("\n\n", "\n"), ErrHeader},
	{"no blank line, no line end", V12, "DISCONNECT\nreceipt:77\n\n\x00", replace("\n\n", ""), ErrHeader},
	{"length with a sign", V12, send, replace("h:5", "h:+5"), ErrContentLength},
	{"negative length", V12, send, replace("h:5", "h:-5"), ErrContentLength},
	{"hexadecimal length", V12, send, replace("h:5", "h:0x5"), ErrContentLength},
	{"empty length", V12, send, replace("h:5", "h:"), ErrContentLength},
	{"a length of padding", V12, send, replace("h:5", "h: "), ErrContentLength},
	{"two lengths in one", V12, send, replace("h:5", "h:5,5"), ErrContentLength},
	{"CR before the length", V12, send, replace("h:5", "h:\r5"), ErrContentLength},
	{"length of 2 GB", V12, send, replace("h:5", "h:2147483648"), ErrLimit},
	{"length beyond 64 bits", V12, send, replace("h:5", "h:18446744073709551621"), ErrLimit},
	{"length beyond the limit", V12, send, replace("h:5", fmt.Sprint("h:", DefaultBody+1)), ErrLimit},
	{"length too short", V12, send, replace("h:5", "h:4"), ErrMissingNUL},
	{"length too short by far", V12, send, replace("h:5", "h:0"), ErrMissingNUL},
	{"length too long", V12, send + send, replace("h:5", "h:9"), ErrMissingNUL},
	{"length on SUBSCRIBE", V12, send, replace("SEND", "SUBSCRIBE"), ErrContentLength},
	{"length on CONNECT", V10, send, replace("SEND", "CONNECT"), ErrContentLength},
	{"length on RECEIPT", V12, send, replace("SEND", "RECEIPT"), ErrContentLength},
	{"a second frame inside an unknown one", V12, send, func(s string) string {
		return strings.Replace(strings.Replace(s, "SEND", "POLL", 1), "hello", "h\x00llo", 1)
	}, ErrContentLength},
}

const send = "SEND\npasscode:geheim\na:b\ncontent-length:5\n\nhello\x00"

func replace(old, with string) func(string) string {
	return func(s string) string { return strings.Replace(s, old, with, 1) }
}

func TestCorrupt(t *testing.T) {
	for _, c := range corruptions {
		t.Run(c.name, func(t *testing.T) {
			wire := c.corrupt(c.frame)
			if wire == c.frame {
				t.Fatal("the corruption changed nothing")
			}
			checkStream(t, Parser{Version: c.version}, c.frame, must(reference(c.frame, c.version, Limits{})), nil)
			// A good frame before it is handed out whatever follows.
			first := "BEGIN\ntransaction:t\n\n\x00"
			checkStream(t, Parser{Version: c.version}, first+wire, must(reference(first, c.version, Limits{})), c.want)
			if _, failed := reference(wire, c.version, Limits{}); !failed {
				t.Error("the reference takes it")
			}
			_, err := stream(strings.NewReader(wire), Parser{Version: c.version}, true, func(*Frame) {})
			if strings.Contains(err.Error(), "geheim") {
				t.Errorf("the error quotes a passcode: %v", err)
			}
		})
	}
}

func must(frames []got, failed bool) []got {
	if failed {
		panic("a frame that was to be good is not")
	}
	return frames
}

// Garbage is refused at the first octet that cannot belong to a command, not at the end of a line that may never come.
func TestGarbageIsNotWaitedFor(t *testing.T) {
	for _, garbage := range []string{"\x16", "\x80", "{", "<", "GET ", "\r\r", "SEND:"} {
		var f Frame
		if _, need, err := new(Parser).Next([]byte(garbage), &f); err == nil {
			t.Errorf("%q: waits for %d octets", garbage, need)
		}
	}
}

// limitCases are streams at a limit: one octet or line less is accepted.
var limitCases = []struct {
	name   string
	limits Limits
	wire   func(n int) string
	most   int
}{
	{"command", Limits{Command: 10}, func(n int) string { return strings.Repeat("X", n) + "\n\n\x00" }, 10},
	{"headers", Limits{Headers: 3}, func(n int) string { return "ACK\n" + strings.Repeat("a:b\n", n) + "\n\x00" }, 3},
	{"block", Limits{Block: 20}, func(n int) string { return "ACK\na:" + strings.Repeat("x", n-3) + "\n\n\x00" }, 20},
	{"block of many lines", Limits{Block: 30}, func(n int) string {
		return "ACK\n" + strings.Repeat("a:b\n", 4) + "c:" + strings.Repeat("x", n-19) + "\n\n\x00"
	}, 30},
	{"counted body", Limits{Body: 9}, func(n int) string {
		return fmt.Sprintf("SEND\ncontent-length:%d\n\n%s\x00", n, strings.Repeat("x", n))
	}, 9},
	{"body up to its NUL", Limits{Body: 9}, func(n int) string { return "SEND\n\n" + strings.Repeat("x", n) + "\x00" }, 9},
	{"default command", Limits{}, func(n int) string { return strings.Repeat("X", n) + "\n\n\x00" }, 64},
	{"default headers", Limits{}, func(n int) string { return "ACK\n" + strings.Repeat("a:b\n", n) + "\n\x00" }, 1000},
}

func TestLimits(t *testing.T) {
	for _, c := range limitCases {
		t.Run(c.name, func(t *testing.T) {
			good := c.wire(c.most) + c.wire(c.most) // each frame is counted by itself
			checkStream(t, Parser{Version: V12, Limits: c.limits}, good, must(reference(good, V12, c.limits)), nil)
			bad := c.wire(c.most + 1)
			checkStream(t, Parser{Version: V12, Limits: c.limits}, bad, nil, ErrLimit)
			if _, failed := reference(bad, V12, c.limits); !failed {
				t.Error("the reference takes it")
			}
		})
	}
}

// endless is prefix, then pattern for ever; it counts what was taken.
type endless struct {
	prefix, pattern string
	taken           int
}

func (e *endless) Read(p []byte) (n int, err error) {
	if e.taken < len(e.prefix) {
		n = copy(p, e.prefix[e.taken:])
	}
	for ; n < len(p); n++ {
		p[n] = e.pattern[(e.taken+n)%len(e.pattern)]
	}
	e.taken += n
	return n, nil
}

// Whatever is sent, and for however long, no caller has to hold more than a limit and one read.
func TestNothingIsHeldBeyondALimit(t *testing.T) {
	const readSize = 4 << 10 // of stream
	for _, c := range []struct {
		name            string
		prefix, pattern string
		limit           int
	}{
		{"command line", "", "X", DefaultCommand},
		{"header line of 50 MB", "SEND\nfoo:", "x", DefaultBlock},
		{"header lines", "SEND\n", "a:b\n", DefaultBlock},
		{"content-length of 2 GB", "SEND\ndestination:/queue/a\ncontent-length:2147483648\n\n", "x", DefaultBlock},
		{"body without length", "SEND\n\n", "x", 1 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &endless{prefix: c.prefix, pattern: c.pattern}
			peak, err := stream(io.LimitReader(r, 50<<20), Parser{Limits: Limits{Body: 1 << 20}}, true, func(*Frame) {})
			if err == nil || r.taken > c.limit+2*readSize || peak > c.limit+2*readSize {
				t.Errorf("%v after %d octets, %d held at once", err, r.taken, peak)
			}
		})
	}
}

// A large body that is allowed is announced, not allocated: need tells the caller, who decides.
func TestLargeBodyIsAnnounced(t *testing.T) {
	s := Parser{Limits: Limits{Body: 1 << 40}}
	p := []byte("SEND\ncontent-length:4000000000\n\nfirst octets")
	var f Frame
	if n := testing.AllocsPerRun(10, func() { s = Parser{Limits: s.Limits}; _, _, _ = s.Next(p, &f) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	n, need, err := s.Next(p, &f)
	if want := len("SEND\ncontent-length:4000000000\n\n") + 4000000000 + 1; n != 0 || need != want || err != nil {
		t.Errorf("Next = %d, %d, %v; want need %d", n, need, err, want)
	}
}

// An absurd limit is no way around the checks either.
func TestUnlimitedBodyDoesNotOverflow(t *testing.T) {
	const most = int(^uint(0) >> 1)
	for _, length := range []string{"9223372036854775807", "9223372036854775800", "18446744073709551615", "99999999999999999999999"} {
		s := Parser{Limits: Limits{Body: most}}
		var f Frame
		n, need, err := s.Next([]byte("SEND\ncontent-length:"+length+"\n\nx\x00"), &f)
		if err == nil {
			t.Errorf("%s: Next = %d, %d", length, n, need)
		}
	}
}

// Octets that arrive one by one are searched once: a slow sender costs no more than a fast one.
func TestSearchedOnce(t *testing.T) {
	wire := "SEND\ndestination:/queue/" + strings.Repeat("a", 1000) + "\n\n" + strings.Repeat("b", 1000) + "\x00"
	var s Parser
	var f Frame
	for i := 1; i < len(wire); i++ {
		if n, _, err := s.Next([]byte(wire[:i]), &f); n != 0 || err != nil {
			t.Fatalf("after %d octets: %d, %v", i, n, err)
		}
		if s.pos != i {
			t.Fatalf("after %d octets only %d need not be searched again", i, s.pos)
		}
	}
	if n, _, err := s.Next([]byte(wire), &f); n != len(wire) || err != nil {
		t.Errorf("Next = %d, %v", n, err)
	}
}
