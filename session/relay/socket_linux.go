package relay

import (
	"math"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// socket tells what only the kernel knows of a connection; the zero value knows nothing.
type socket struct{ raw syscall.RawConn }

func socketOf(conn net.Conn) socket {
	if sc, ok := plain(conn).(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return socket{raw}
		}
	}
	return socket{}
}

// unacknowledged is how many octets were written and not yet acknowledged by the peer's kernel. [tcp(7) SIOCOUTQ]
func (s socket) unacknowledged() (n int) {
	if s.raw != nil {
		n = math.MaxInt // a socket that cannot be asked has told nothing
		_ = s.raw.Control(func(fd uintptr) {
			if q, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
				n = q
			}
		})
	}
	return n
}

// hungUp reports whether the peer has closed or reset, though unread octets may be in front of that. [poll(2) POLLRDHUP]
func (s socket) hungUp() (yes bool) {
	if s.raw == nil {
		return false
	}
	_ = s.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		yes = err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return yes
}
