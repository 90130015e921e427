package broker

import (
	"math"

	"golang.org/x/sys/unix"
)

// unacknowledged is how many octets were written and not yet acknowledged by the client's machine. [tcp(7) SIOCOUTQ]
func (o *outlet) unacknowledged() (n int) {
	if o.raw != nil {
		n = math.MaxInt // a socket that cannot be asked has told nothing
		_ = o.raw.Control(func(fd uintptr) {
			if q, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
				n = q
			}
		})
	}
	return n
}
