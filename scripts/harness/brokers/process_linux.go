package brokers

import "syscall"

// dieWithParent has the kernel send the process the signal end when this program dies, and keeps the terminal's Ctrl-C away from it: the cluster is ended
// by Close, in its own order.
func dieWithParent(a *syscall.SysProcAttr, end syscall.Signal) {
	a.Setpgid = true
	a.Pdeathsig = end
}
