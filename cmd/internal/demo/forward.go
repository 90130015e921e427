package demo

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// forwarder stands between the sidecar and one broker, so that the connection can be broken while the broker lives: both sides of every
// connection are reset, and what was on its way in either direction is gone.
type forwarder struct {
	listener net.Listener
	mu       sync.Mutex
	target   string
	pairs    map[*pair]struct{}
	last     time.Time // when the latest connection came in
	closed   bool
	running  sync.WaitGroup
}

type pair struct{ in, out net.Conn }

// startForwarder listens on a free loopback port; aim must be called before the first connection, close at the end.
func startForwarder() (*forwarder, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for forwarding: %w", err)
	}
	f := &forwarder{listener: l, pairs: map[*pair]struct{}{}}
	f.running.Add(1)
	go f.accept()
	return f, nil
}

func (f *forwarder) addr() string { return f.listener.Addr().String() }

// aim says where connections go from now on.
func (f *forwarder) aim(target string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.target = target
}

func (f *forwarder) accept() {
	defer f.running.Done()
	for {
		in, err := f.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors: the next accept would fail at once
			continue
		}
		f.running.Add(1)
		go f.forward(in)
	}
}

func (f *forwarder) forward(in net.Conn) {
	defer f.running.Done()
	f.mu.Lock()
	target := f.target
	f.last = time.Now()
	f.mu.Unlock()
	out, err := net.DialTimeout("tcp", target, time.Second)
	if err != nil {
		in.Close()
		return
	}
	p := &pair{in, out}
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		p.reset()
		return
	}
	f.pairs[p] = struct{}{}
	f.mu.Unlock()
	back := make(chan struct{})
	go func() { copyHalf(in, out); close(back) }()
	copyHalf(out, in)
	<-back
	in.Close()
	out.Close()
	f.mu.Lock()
	delete(f.pairs, p)
	f.mu.Unlock()
}

// copyHalf copies one direction to its end and passes that end on: an end of stream as such, an error by breaking the other side.
func copyHalf(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if err == nil {
		_ = to.(*net.TCPConn).CloseWrite()
		return
	}
	(&pair{to, from}).reset()
}

// reset closes both sides with RST instead of FIN.
func (p *pair) reset() {
	for _, c := range []net.Conn{p.in, p.out} {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

// reset breaks every connection and returns how many there were.
func (f *forwarder) reset() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p := range f.pairs {
		p.reset()
	}
	return len(f.pairs)
}

// latest is when the latest connection came in.
func (f *forwarder) latest() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

func (f *forwarder) close() {
	f.listener.Close()
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.reset()
	f.running.Wait()
}
