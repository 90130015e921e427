//go:build !linux

package demo

import "syscall"

// childAttr gives a child its own process group, so that Ctrl-C reaches only us and we end the children in our order.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
