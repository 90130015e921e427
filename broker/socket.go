package broker

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// outlet writes to a connection, and asks before each system call whether it still may: a write that waits for a slow client can outlast anything.
type outlet struct {
	nc   net.Conn
	raw  syscall.RawConn // nil: not a socket
	may  func(time.Time) bool
	free bool // it need not ask

	step func(fd uintptr) bool // try, bound once: a write allocates nothing
	out  []byte
	n    int
	err  error
}

// pieceBytes is what is written at once where the system calls are somebody else's.
const pieceBytes = 16 << 10

func newOutlet(nc net.Conn, may func(time.Time) bool) *outlet {
	o := &outlet{nc: nc, may: may}
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			o.raw, o.step = raw, o.try
		}
	}
	return o
}

// write writes what the kernel takes of b, and waits until it takes anything. It returns errWithheld if it may not.
func (o *outlet) write(b []byte) (int, error) {
	if o.raw == nil {
		if !o.free && !o.may(time.Now()) {
			return 0, errWithheld
		}
		return o.nc.Write(b[:min(len(b), pieceBytes)])
	}
	o.out, o.n, o.err = b, 0, nil
	err := o.raw.Write(o.step)
	o.out = nil
	return max(o.n, 0), errors.Join(err, o.err)
}

// try is one attempt. It reports whether it was the last: false waits until the socket takes more.
func (o *outlet) try(fd uintptr) bool {
	for {
		if !o.free && !o.may(time.Now()) {
			o.err = errWithheld
			return true
		}
		o.n, o.err = syscall.Write(int(fd), o.out)
		switch o.err {
		case syscall.EINTR:
		case syscall.EAGAIN:
			o.n, o.err = 0, nil
			return false
		default:
			return true
		}
	}
}
