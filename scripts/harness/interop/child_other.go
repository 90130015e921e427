//go:build !linux

package interop

import "syscall"

// dieWithParent can do nothing here: after a crash of this program its clients must be ended by hand.
func dieWithParent(*syscall.SysProcAttr) {}
