//go:build !linux

package relay

import "time"

// deaf knows nothing here: keep-alive and heart-beats are what is left.
func (socket) deaf() (waits bool, heard time.Duration, silent bool) { return false, 0, false }
