package relay

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mute makes a socket drop whatever reaches it, before TCP sees it: its machine is gone, as far as the other end can tell.
func mute(t *testing.T, conn net.Conn) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
	})
	if cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
}

// pair is two ends of a connection over loopback.
func pair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l := listen(t)
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// lostAfter asks every 20 ms, for at most so long.
func lostAfter(h *Hearing, conn net.Conn, limit, most time.Duration) (time.Duration, bool) {
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		took := time.Since(began)
		if h.Lost(conn, time.Now(), limit) {
			return took, true
		}
		if took > most {
			return took, false
		}
	}
}

func TestHearing(t *testing.T) {
	const limit = 400 * time.Millisecond
	t.Run("a machine that is gone", func(t *testing.T) {
		t.Parallel()
		near, far := pair(t)
		time.Sleep(limit) // an idle past is no reason
		mute(t, far)
		if _, err := near.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if took, lost := lostAfter(new(Hearing), near, limit, 5*time.Second); !lost || took < limit || took > 3*limit {
			t.Errorf("lost %v after %v", lost, took)
		}
	})
	t.Run("a program that does not read", func(t *testing.T) {
		t.Parallel()
		near, far := pair(t)
		_ = near.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		if n, err := io.Copy(near, idle{}); err == nil {
			t.Fatal("took everything", n)
		}
		if _, lost := lostAfter(new(Hearing), near, limit, 6*limit); lost {
			t.Error("its machine answers, and was given up")
		}
		go func() { _, _ = io.Copy(io.Discard, far) }()
		if _, lost := lostAfter(new(Hearing), near, limit, limit); lost {
			t.Error("given up while it read")
		}
	})
	t.Run("nothing to say", func(t *testing.T) {
		t.Parallel()
		near, far := pair(t)
		mute(t, far)
		var h Hearing
		if _, lost := lostAfter(&h, near, limit, 2*limit); lost || h.Lost(nil, time.Now(), limit) {
			t.Error("lost without a question")
		}
	})
}

type idle struct{}

func (idle) Read(p []byte) (int, error) { return len(p), nil }
