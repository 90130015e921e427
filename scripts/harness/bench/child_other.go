//go:build !linux

package bench

import "syscall"

// dieWithParent can do nothing here: after a crash of this program what it started must be ended by hand.
func dieWithParent(*syscall.SysProcAttr) {}
