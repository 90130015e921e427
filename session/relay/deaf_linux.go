package relay

import (
	"time"

	"golang.org/x/sys/unix"
)

// deaf looks at a connection's kernel state: whether octets wait for an acknowledgement, how long ago the last one came, and whether the peer's
// kernel has left more than one question unanswered. One that answers, and has no room, is well: its program is slow, or holds us back on purpose.
// [tcp(7) TCP_INFO]
func (s socket) deaf() (waits bool, heard time.Duration, silent bool) {
	if s.raw == nil || s.unacknowledged() == 0 {
		return false, 0, false // nearly always; the long answer is a quarter of a KiB of garbage each time
	}
	return s.tcpInfo()
}

func (s socket) tcpInfo() (waits bool, heard time.Duration, silent bool) {
	_ = s.raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		waits = info.Unacked > 0 || info.Notsent_bytes > 0
		heard = time.Duration(info.Last_ack_recv) * time.Millisecond
		silent = info.Retransmits > 0 || info.Probes > 1
	})
	return waits, heard, silent
}
