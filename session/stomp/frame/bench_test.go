package frame

import (
	"fmt"
	"strings"
	"testing"
)

func benchFrames() map[string][]byte {
	body := strings.Repeat("x", 1024)
	head := "SEND\ndestination:/queue/orders\nreceipt:17\ncontent-type:text/plain\npersistent:true\n"
	return map[string][]byte{
		"SEND 1 KiB counted":  fmt.Appendf(nil, "%scontent-length:%d\n\n%s\x00", head, len(body), body),
		"SEND 1 KiB":          fmt.Appendf(nil, "%s\n%s\x00", head, body),
		"MESSAGE 1 KiB CR LF": []byte(strings.ReplaceAll("MESSAGE\nsubscription:0\nmessage-id:5b1f:17\nack:5b1f:17\ndestination:/queue/orders\n\n", "\n", "\r\n") + body + "\x00"),
	}
}

// BenchmarkNext parses one frame and looks up the four headers that a recorder wants of every SEND; two of them are absent.
func BenchmarkNext(b *testing.B) {
	for name, p := range benchFrames() {
		b.Run(name, func(b *testing.B) {
			s := Parser{Version: V12}
			var f Frame
			b.ReportAllocs()
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				n, _, err := s.Next(p, &f)
				if n != len(p) || err != nil {
					b.Fatalf("Next = %d, %v", n, err)
				}
				for _, name := range [...]string{"destination", "receipt", "transaction", HeaderEffect} {
					_, _ = f.Get(name)
				}
			}
		})
	}
}

// The hot path allocates nothing, whole or in parts.
func TestNoAllocations(t *testing.T) {
	for name, p := range benchFrames() {
		s := Parser{Version: V12}
		var f Frame
		dst := make([]byte, 0, 64)
		if n := testing.AllocsPerRun(100, func() {
			for _, part := range [][]byte{p[:3], p[:50], p[:len(p)-1], p} {
				if _, _, err := s.Next(part, &f); err != nil {
					t.Fatal(err)
				}
			}
			for _, v := range f.Headers {
				dst, _ = Unescape(dst[:0], v, V12)
				dst = Escape(dst[:0], v, V12)
			}
			dst = AppendUint(AppendHeader(dst[:0], "receipt-id", f.Value("receipt")), HeaderEffect, 7)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
