//go:build !linux

package relay

import (
	"net"
	"time"
)

// deaf knows nothing here: keep-alive and heart-beats are what is left.
func deaf(net.Conn) (waits bool, heard time.Duration, silent bool) { return false, 0, false }
