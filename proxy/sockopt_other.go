//go:build !linux

package proxy

import (
	"syscall"
	"time"
)

// userTimeout does nothing: only Linux has the option. Heart-beats and keep-alive are what is left.
func userTimeout(time.Duration) func(network, address string, c syscall.RawConn) error { return nil }
