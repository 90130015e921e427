package demo

import "syscall"

// childAttr gives a child its own process group, so that Ctrl-C reaches only us and we end the children in our order, and has the
// kernel kill it should we be killed ourselves.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
