package proxy

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"
)

// The options are what the kernel says they are, on the leg to the broker as well as on the client's.
func TestSocketOptions(t *testing.T) {
	brokers, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer brokers.Close()
	w := newWorld(t, func(c *Config) { c.Dial, c.UserTimeout = nil, 1500*time.Millisecond })
	conn, err := w.proxy.cfg.Dial(context.Background(), "tcp", brokers.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for name, tt := range map[string]struct{ level, option, want int }{
		"TCP_USER_TIMEOUT": {syscall.IPPROTO_TCP, tcpUserTimeout, 1500},
		"SO_KEEPALIVE":     {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE":     {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 15},
		"TCP_KEEPINTVL":    {syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 5},
		"TCP_KEEPCNT":      {syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 3},
	} {
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		if cerr := raw.Control(func(fd uintptr) { got, err = syscall.GetsockoptInt(int(fd), tt.level, tt.option) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
		if got != tt.want {
			t.Errorf("%s = %d, want %d", name, got, tt.want)
		}
	}
	if userTimeout(0) != nil {
		t.Error("no time-out is an option all the same")
	}
}
