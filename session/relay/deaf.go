package relay

import (
	"net"
	"time"
)

// Hearing watches whether the other end of a connection is still there while octets wait for it. TCP alone would take a quarter of an hour, and
// TCP_USER_TIMEOUT also ends a peer that answers but has no room, as a broker does that holds a producer back. The zero value begins; it belongs to
// one goroutine.
type Hearing struct {
	conn  net.Conn
	sock  socket    // of conn
	since time.Time // octets wait, and nothing was heard
}

// Lost reports whether the peer's kernel has said nothing for limit, at least, while octets waited for it and it was asked. It is called again
// and again, several times within limit; conn may be another one than before, or nil.
func (h *Hearing) Lost(conn net.Conn, now time.Time, limit time.Duration) bool {
	if conn != h.conn {
		*h = Hearing{conn: conn}
		if conn != nil {
			h.sock = socketOf(conn)
		}
	}
	if conn == nil {
		return false
	}
	waits, heard, silent := h.sock.deaf()
	switch {
	case !waits:
		h.since = time.Time{}
	case h.since.IsZero() || heard < now.Sub(h.since):
		h.since = now
	}
	return waits && silent && now.Sub(h.since) >= limit
}
