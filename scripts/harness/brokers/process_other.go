//go:build !linux

package brokers

import "syscall"

// dieWithParent cannot tie a child to its parent's life here: after a crash of the program its brokers must be ended by hand.
func dieWithParent(a *syscall.SysProcAttr, _ syscall.Signal) { a.Setpgid = true }
