package brokers

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	probeLimit = time.Second // a broker that answers CONNECT later than this counts as frozen
	// Ports are taken below those that the kernel gives to clients (32768 and up on Linux): a standby opens its own only when it takes
	// over, and until then somebody's outgoing connection must not get it.
	firstPort, lastPort = 15000, 31999
	probedAnswer        = 4 << 10 // bytes of an answer to CONNECT that are read
)

// probe asks whether a broker serves, and returns its CONNECTED frame if so.
func probe(ctx context.Context, addr, user, pass, vhost string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if vhost == "" {
		vhost = "localhost"
	}
	connect := "CONNECT\naccept-version:1.2\nhost:" + vhost + "\nheart-beat:0,0\n"
	if user != "" {
		connect += "login:" + user + "\npasscode:" + pass + "\n"
	}
	if _, err := conn.Write([]byte(connect + "\n\x00")); err != nil {
		return "", err
	}
	answer, err := bufio.NewReaderSize(conn, probedAnswer).ReadSlice(0)
	if err != nil {
		return "", err
	}
	if got := strings.TrimLeft(string(answer), "\r\n"); !strings.HasPrefix(got, "CONNECTED\n") {
		return "", fmt.Errorf("answer to CONNECT: %q", got)
	}
	_, err = conn.Write([]byte("DISCONNECT\n\n\x00"))
	return string(answer), err
}

// given are the ports that this program handed out: one that is not bound yet would look free.
var given = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// freePort returns a port of 127.0.0.1 that nobody listens on.
func freePort() (int, error) {
	given.Lock()
	defer given.Unlock()
	var last error
	for range 200 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if given.ports[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			last = err
			continue
		}
		given.ports[port] = true
		return port, l.Close()
	}
	return 0, fmt.Errorf("find a free port of 127.0.0.1 between %d and %d: %w", firstPort, lastPort, last)
}
