package bench

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestFrame(t *testing.T) {
	for _, c := range []struct {
		name, text, command string
		receipt             string
		body                int
		err                 error
	}{
		{name: "no body", text: "RECEIPT\nreceipt-id:7\nreceipt:a\n\n\x00", command: "RECEIPT", receipt: "a"},
		{name: "heart-beats before it", text: "\n\r\n\nACK\nreceipt:b\n\n\x00", command: "ACK", receipt: "b"},
		{name: "the first of two headers", text: "ACK\nreceipt:b\nreceipt:c\n\n\x00", command: "ACK", receipt: "b"},
		{name: "CR before LF", text: "ACK\r\nreceipt:b\r\n\r\n\x00", command: "ACK", receipt: "b"},
		{name: "length", text: "SEND\ncontent-length:3\n\n\x00\x00\x00\x00", command: "SEND", body: 3},
		{name: "body without a length", text: "SEND\n\nabcd\x00", command: "SEND", body: 4},
		{name: "long body without a length", text: "SEND\n\n" + strings.Repeat("x", 100) + "\x00", command: "SEND", body: 100},
		{name: "nothing", text: "\n", err: io.EOF},
		{name: "cut in the command", text: "SE", err: io.ErrUnexpectedEOF},
		{name: "cut behind the command", text: "SEND\n", err: io.ErrUnexpectedEOF},
		{name: "cut in the body", text: "SEND\ncontent-length:3\n\nab", err: io.ErrUnexpectedEOF},
		{name: "cut before the NUL", text: "SEND\ncontent-length:2\n\nab", err: io.ErrUnexpectedEOF},
		{name: "no NUL", text: "SEND\ncontent-length:2\n\nabc", err: errMalformed},
		{name: "no colon", text: "SEND\nabc\n\n\x00", err: errMalformed},
		{name: "body too long", text: "SEND\ncontent-length:99999999\n\n", err: errMalformed},
		{name: "too many headers", text: "SEND\n" + strings.Repeat("a:b\n", maxHeaders+1) + "\n\x00", err: errMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f stompFrame
			err := f.next(bufio.NewReaderSize(strings.NewReader(c.text), 32))
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err == nil && (string(f.command) != c.command || string(f.value[hReceipt]) != c.receipt || f.body != c.body) {
				t.Fatalf("got %s, receipt %q, %d octets", f.command, f.value[hReceipt], f.body)
			}
		})
	}
}

func TestDrained(t *testing.T) {
	br := bufio.NewReader(strings.NewReader("ACK\n\n\x00\n\r\n"))
	if _, err := br.Peek(1); err != nil {
		t.Fatal(err)
	}
	if drained(br) {
		t.Fatal("a frame that was not read counts as none")
	}
	var f stompFrame
	if err := f.next(br); err != nil {
		t.Fatal(err)
	}
	if !drained(br) {
		t.Fatal("heart-beats behind a frame count as a frame: whoever waits for the buffer to run empty would wait for ever")
	}
}
