package relay

import (
	"net"
	"sync"
)

// wrapped is a connection with another one below: *tls.Conn.
type wrapped interface{ NetConn() net.Conn }

// secure reports whether what the kernel holds of a connection are not the octets that were written to it.
func secure(conn net.Conn) bool {
	_, ok := conn.(wrapped)
	return ok
}

// plain is the connection that the kernel knows.
func plain(conn net.Conn) net.Conn {
	for {
		w, ok := conn.(wrapped)
		if !ok {
			return conn
		}
		conn = w.NetConn()
	}
}

// Reset ends a connection so that nothing which is still on its way counts: the peer's kernel drops what its program has not read. It never blocks,
// as the farewell of TLS could.
func Reset(conn net.Conn) {
	under := plain(conn)
	if tcp, ok := under.(interface{ SetLinger(sec int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	_ = under.Close()
}

// HungUp reports whether the peer has closed or reset a connection, though nobody reads it; false where the platform cannot tell.
func HungUp(conn net.Conn) bool { return socketOf(conn).hungUp() }

// CloseWrite says that nothing more comes, in TLS and in TCP: some clients look only for one of the two. It reports whether the other direction is still
// open.
func CloseWrite(conn net.Conn) bool {
	ok := true
	for {
		half, can := conn.(interface{ CloseWrite() error })
		ok = can && half.CloseWrite() == nil && ok
		w, more := conn.(wrapped)
		if !more {
			return ok
		}
		conn = w.NetConn()
	}
}

// recordBytes is the most that one TLS record carries [RFC 8446, 5.1]. Ranges are gathered up to it: each write becomes a record of its own.
const recordBytes = 16 << 10

var records = sync.Pool{New: func() any { return new([recordBytes]byte) }}

// gather writes the taken ranges in as few records as they fit.
func (v *vec) gather(conn net.Conn) (n int64, err error) {
	record := records.Get().(*[recordBytes]byte)
	defer records.Put(record)
	filled := 0
	flush := func(p []byte) bool {
		var wrote int
		wrote, err = conn.Write(p)
		n += int64(wrote)
		return err == nil
	}
	for _, b := range v.bufs {
		p := b.Bytes()
		if filled+len(p) > recordBytes {
			if filled > 0 && !flush(record[:filled]) {
				return n, err
			}
			filled = 0
		}
		if len(p) > recordBytes {
			if !flush(p) {
				return n, err
			}
			continue
		}
		filled += copy(record[filled:], p)
	}
	if filled > 0 {
		flush(record[:filled])
	}
	return n, err
}
