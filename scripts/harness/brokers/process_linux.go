package brokers

import "syscall"

// dieWithParent has the kernel kill the process when this program dies, and keeps the terminal's Ctrl-C away from it: the cluster is ended
// by Close, in its own order.
func dieWithParent(a *syscall.SysProcAttr) {
	a.Setpgid = true
	a.Pdeathsig = syscall.SIGKILL
}
