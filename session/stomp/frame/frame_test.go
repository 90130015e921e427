package frame

import (
	"slices"
	"strings"
	"testing"
)

// wireCases are streams as they stand on the wire and what is in them.
var wireCases = []struct {
	name    string
	version Version
	wire    string
	want    []got // raw is checked against the wire as a whole
}{
	{"1.2 SEND", V12, "SEND\ndestination:/queue/a\n\nhello\x00",
		[]got{{command: Send, name: "SEND", headers: []string{"destination", "/queue/a"}, body: "hello"}}},
	{"no headers, no body", V12, "DISCONNECT\n\n\x00", []got{{command: Disconnect, name: "DISCONNECT"}}},
	{"NUL LF as servers write it", V12, "RECEIPT\nreceipt-id:1\n\n\x00\nRECEIPT\nreceipt-id:2\n\n\x00\n", []got{
		{command: Receipt, name: "RECEIPT", headers: []string{"receipt-id", "1"}}, {command: EOL, raw: "\n"},
		{command: Receipt, name: "RECEIPT", headers: []string{"receipt-id", "2"}}, {command: EOL, raw: "\n"}}},
	{"heart-beats before, between and behind", V11, "\n\nBEGIN\ntransaction:t\n\n\x00\n\r\n\nABORT\ntransaction:t\n\n\x00\r\n", []got{
		{command: EOL, raw: "\n\n"}, {command: Begin, name: "BEGIN", headers: []string{"transaction", "t"}}, {command: EOL, raw: "\n\r\n\n"},
		{command: Abort, name: "ABORT", headers: []string{"transaction", "t"}}, {command: EOL, raw: "\r\n"}}},
	{"stray NULs between frames", V12, "ACK\nid:1\n\n\x00\x00\n\x00NACK\nid:2\n\n\x00", []got{
		{command: Ack, name: "ACK", headers: []string{"id", "1"}}, {command: EOL, raw: "\x00\n\x00"},
		{command: Nack, name: "NACK", headers: []string{"id", "2"}}}},
	{"NULs in a counted body", V12, "SEND\ndestination:/q\ncontent-length:5\n\na\x00\x00\nb\x00", []got{{command: Send, name: "SEND",
		headers: []string{"destination", "/q", "content-length", "5"}, body: "a\x00\x00\nb", length: true}}},
	{"counted empty body", V12, "SEND\ndestination:/q\ncontent-length:0\n\n\x00", []got{{command: Send, name: "SEND",
		headers: []string{"destination", "/q", "content-length", "0"}, length: true}}},
	{"length zero on a command without body", V12, "SUBSCRIBE\nid:0\ncontent-length:0\n\n\x00", []got{{command: Subscribe,
		name: "SUBSCRIBE", headers: []string{"id", "0", "content-length", "0"}, length: true}}},
	{"length padded, as in the examples of 1.0", V10, "SEND\ndestination: /queue/a\ncontent-length: 2\n\n\x00b\x00", []got{{command: Send,
		name: "SEND", headers: []string{"destination", "/queue/a", "content-length", "2"}, body: "\x00b", length: true}}},
	{"first length wins, repeats are kept", V12, "SEND\ncontent-length:3\nfoo:1\ncontent-length:1\nfoo:2\n\na\x00b\x00", []got{{command: Send,
		name: "SEND", headers: []string{"content-length", "3", "foo", "1", "content-length", "1", "foo", "2"}, body: "a\x00b", length: true}}},
	{"CR LF in 1.2", V12, "SEND\r\ndestination:/q\r\nempty:\r\n\r\nbody\r\n\x00\r\n", []got{{command: Send, name: "SEND",
		headers: []string{"destination", "/q", "empty", ""}, body: "body\r\n"}, {command: EOL, raw: "\r\n"}}},
	{"only one CR belongs to the line end in 1.2", V12, "SEND\na:\r\r\n\n\x00", []got{{command: Send, name: "SEND", headers: []string{"a", "\r"}}}},
	{"a CR belongs to the value in 1.1", V11, "SEND\ndestination:/q\r\n\r\nx\x00",
		[]got{{command: Send, name: "SEND", headers: []string{"destination", "/q\r"}, body: "x"}}},
	{"a CR is padding in 1.0", V10, "SEND\ndestination:/q\r\n\r\nx\x00",
		[]got{{command: Send, name: "SEND", headers: []string{"destination", "/q"}, body: "x"}}},
	{"padding in 1.0", V10, "MESSAGE\n destination :\t/q \n\nx\x00",
		[]got{{command: Message, name: "MESSAGE", headers: []string{"destination", "/q"}, body: "x"}}},
	{"no padding in 1.1", V11, "MESSAGE\n destination : /q \n\nx\x00",
		[]got{{command: Message, name: "MESSAGE", headers: []string{" destination ", " /q "}, body: "x"}}},
	{"no padding in 1.2", V12, "MESSAGE\nfoo: \t \n\nx\x00", []got{{command: Message, name: "MESSAGE", headers: []string{"foo", " \t "}, body: "x"}}},
	{"first colon ends the name", V12, "SEND\nu:x:y::\n\n\x00", []got{{command: Send, name: "SEND", headers: []string{"u", "x:y::"}}}},
	{"values are octets, still escaped", V12, "SEND\n\xff\\c:\xfe\\n\\t\n\n\x00", []got{{command: Send, name: "SEND", headers: []string{"\xff\\c", "\xfe\\n\\t"}}}},
	{"CONNECT octets verbatim", V12, "CONNECT\naccept-version:1.0,1.1,1.2\nhost:/a:b\nlogin: u \npasscode:p\\q:r \n\n\x00", []got{{command: Connect,
		name: "CONNECT", headers: []string{"accept-version", "1.0,1.1,1.2", "host", "/a:b", "login", " u ", "passcode", "p\\q:r "}}}},
	{"CONNECT of 1.2 with CR LF, before there is a version", V10, "STOMP\r\nlogin: u\r\naccept-version:1.2\r\n\r\n\x00", []got{{command: Stomp,
		name: "STOMP", headers: []string{"login", " u", "accept-version", "1.2"}}}},
	{"CONNECT of 1.0, padded", V10, "CONNECT\nlogin: u\npasscode: p \n\n\x00",
		[]got{{command: Connect, name: "CONNECT", headers: []string{"login", "u", "passcode", "p"}}}},
	{"CONNECT of 1.0 behind one of 1.1", V10, "CONNECT\naccept-version:1.1\na: b\n\n\x00CONNECT\na: b\n\n\x00", []got{
		{command: Connect, name: "CONNECT", headers: []string{"accept-version", "1.1", "a", " b"}},
		{command: Connect, name: "CONNECT", headers: []string{"a", "b"}}}},
	{"CONNECTED of 1.1 with CR LF", V10, "CONNECTED\r\nversion:1.1\r\nserver:x \r\n\r\n\x00",
		[]got{{command: Connected, name: "CONNECTED", headers: []string{"version", "1.1", "server", "x "}}}},
	{"unknown command", V12, "X-SEND_2\r\na:b\n\nx\x00", []got{{command: Unknown, name: "X-SEND_2", headers: []string{"a", "b"}, body: "x"}}},
	{"unknown command, counted", V12, "POLL\ncontent-length:2\n\nxy\x00",
		[]got{{command: Unknown, name: "POLL", headers: []string{"content-length", "2"}, body: "xy", length: true}}},
	{"commands are case-sensitive", V12, "send\n\n\x00", []got{{command: Unknown, name: "send"}}},
	{"body where none belongs ends at the NUL", V12, "BEGIN\ntransaction:t\n\nno\x00",
		[]got{{command: Begin, name: "BEGIN", headers: []string{"transaction", "t"}, body: "no"}}},
	{"part of a frame", V12, "ERROR\nmessage:x\n\n\x00SEND\ndestination:/q\ncontent-length:4\n\nabc",
		[]got{{command: Error, name: "ERROR", headers: []string{"message", "x"}}}},
	{"half an end-of-line", V12, "\n\r", []got{{command: EOL, raw: "\n"}}},
}

func TestFrames(t *testing.T) {
	for _, c := range wireCases {
		t.Run(c.name, func(t *testing.T) {
			// Raw is not in the table: it is whatever stands between the frame before and the one behind.
			byReference, failed := reference(c.wire, c.version, Limits{})
			raw := ""
			want := slices.Clone(c.want)
			for i := range min(len(want), len(byReference)) {
				want[i].raw = byReference[i].raw
				raw += want[i].raw
			}
			if failed || !slices.EqualFunc(byReference, want, equal) || !strings.HasPrefix(c.wire, raw) {
				t.Errorf("the reference has\n%+v, want\n%+v", byReference, want)
			}
			checkStream(t, Parser{Version: c.version}, c.wire, want, nil)
		})
	}
}

func TestGet(t *testing.T) {
	var f Frame
	wire := []byte("MESSAGE\r\nfoo:1\r\nfoo:2\r\nempty:\r\nfoobar:3\r\n\r\n\x00")
	if _, _, err := (&Parser{Version: V12}).Next(wire, &f); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"foo": "1", "empty": "", "foobar": "3"} {
		if v, ok := f.Get(name); !ok || string(v) != want || string(f.Value(name)) != want {
			t.Errorf("Get(%q) = %q, %v; want %q", name, v, ok, want)
		}
	}
	for _, name := range []string{"", "fo", "Foo", "body"} {
		if v, ok := f.Get(name); ok || f.Value(name) != nil {
			t.Errorf("Get(%q) = %q, present", name, v)
		}
	}
	if string(f.Block) != "foo:1\r\nfoo:2\r\nempty:\r\nfoobar:3\r\n" {
		t.Errorf("Block = %q", f.Block)
	}
	var padded Frame
	if _, _, err := new(Parser).Next([]byte("SEND\n foo : 1 \nfoo:2\n\n\x00"), &padded); err != nil || string(padded.Value("foo")) != "1" {
		t.Errorf("padded: %q, %v", padded.Value("foo"), err)
	}
	n := 0
	for range f.Headers {
		if n++; n == 2 {
			break
		}
	}
	if v, ok := new(Frame).Get("foo"); ok {
		t.Errorf("an empty frame has %q", v)
	}
}

// What a caller appends to a slice of a frame must not run over the frame behind it.
func TestSlicesEndWithTheirFrame(t *testing.T) {
	const wire = "SEND\na:b\n\nx\x00SEND\na:b\n\ny\x00\n\n"
	p := []byte(wire)
	var s Parser
	for rest := p; len(rest) > 0; {
		var f Frame
		n, _, err := s.Next(rest, &f)
		if err != nil || n == 0 {
			t.Fatalf("Next = %d, %v", n, err)
		}
		for _, part := range [][]byte{f.Raw, f.Block, f.Body} {
			_ = append(part, "overrun"...)
		}
		rest = rest[n:]
	}
	if string(p) != wire {
		t.Errorf("the buffer became %q", p)
	}
}

// The version is set between two frames of one buffer, as it is when a client pipelines behind CONNECT.
func TestVersionBetweenFrames(t *testing.T) {
	p := []byte("CONNECT\naccept-version:1.1\n\n\x00SEND\na: b\r\n\n\x00")
	var s Parser
	var f Frame
	n, _, err := s.Next(p, &f)
	if err != nil || string(f.Value("accept-version")) != "1.1" {
		t.Fatalf("CONNECT: %q, %v", f.Value("accept-version"), err)
	}
	s.Version = V11
	if _, _, err = s.Next(p[n:], &f); err != nil || string(f.Value("a")) != " b\r" {
		t.Errorf("SEND: %q, %v", f.Value("a"), err)
	}
}

func TestNames(t *testing.T) {
	for c := Connect; c <= Error; c++ {
		if got := lookup([]byte(c.String())); got != c {
			t.Errorf("%v is looked up as %v", c, got)
		}
	}
	if got := Command(200).String(); got != "Command(200)" {
		t.Errorf("a command that is none is called %s", got)
	}
	for _, v := range []Version{V10, V11, V12} {
		if got, ok := ParseVersion([]byte(v.String())); !ok || got != v {
			t.Errorf("version %v is read as %v, %v", v, got, ok)
		}
	}
	for _, s := range []string{"", "1", "1.", "1.3", "2.0", " 1.2", "1.2\r"} {
		if v, ok := ParseVersion([]byte(s)); ok {
			t.Errorf("%q is taken for version %v", s, v)
		}
	}
	for c := Unknown; c <= Error; c++ {
		want := c == Unknown || c == Send || c == Message || c == Error
		if c.HasBody() != want {
			t.Errorf("%v: HasBody is %v", c, !want)
		}
	}
}
