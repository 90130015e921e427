//go:build linux

package journal

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
)

// That too many files are open passes, whichever step of making a file meets it: producers wait, what was taken is durable, and it goes on by itself.
func TestTooManyOpenFiles(t *testing.T) {
	for _, at := range []opKind{opCreate, opSyncDir} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			var crowded atomic.Bool
			opt := Options{SegmentBytes: 8 << 10, before: func(o op) error {
				if crowded.Load() && o.kind == at {
					return syscall.EMFILE
				}
				return nil
			}}
			s := mustOpen(t, quickDir(t), opt, nil)
			s.idle()
			crowded.Store(true)
			e := Entry{Type: 1, Payload: make([]byte, 500), Account: Account{Live: 1}}
			var last LSN
			for n := 0; ; n++ {
				p, err := s.Append(e)
				if errors.Is(err, ErrFull) {
					break
				}
				if err != nil || n > 1000 {
					t.Fatal(n, err)
				}
				last = p.LSN
			}
			s.durable(last)
			s.rest(fullRetry, func() bool { return s.Stats().Full })
			crowded.Store(false)
			s.rest(fullRetry, func() bool { return !s.Stats().Full })
			p, err := s.Append(e)
			if err != nil {
				t.Fatal(err)
			}
			s.durable(p.LSN)
			if len(s.failed) > 0 {
				t.Error(s.failed)
			}
		})
	}
}
