package interop

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// forwarder stands before one broker, so that connections can be broken while the broker lives: both sides of every connection are reset,
// and what was on its way in either direction is gone.
type forwarder struct {
	listener net.Listener
	target   string
	mu       sync.Mutex
	pairs    map[*pair]struct{}
	closed   bool
	running  sync.WaitGroup
}

// pair is one forwarded connection.
type pair struct{ in, out *net.TCPConn }

// startForwarder listens on a free loopback port for connections to target. The caller closes it.
func startForwarder(target string) (*forwarder, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for forwarding to %s: %w", target, err)
	}
	f := &forwarder{listener: l, target: target, pairs: map[*pair]struct{}{}}
	f.running.Add(1)
	go f.accept()
	return f, nil
}

func (f *forwarder) addr() string { return f.listener.Addr().String() }

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
		go f.forward(in.(*net.TCPConn))
	}
}

func (f *forwarder) forward(in *net.TCPConn) {
	defer f.running.Done()
	out, err := net.DialTimeout("tcp", f.target, time.Second)
	if err != nil {
		_ = in.SetLinger(0) // as near to a refusal as somebody who has accepted can come
		in.Close()
		return
	}
	p := &pair{in, out.(*net.TCPConn)}
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		p.reset()
		return
	}
	f.pairs[p] = struct{}{}
	f.mu.Unlock()
	back := make(chan struct{})
	go func() { p.half(p.in, p.out); close(back) }()
	p.half(p.out, p.in)
	<-back
	p.in.Close()
	p.out.Close()
	f.mu.Lock()
	delete(f.pairs, p)
	f.mu.Unlock()
}

// half copies one direction to its end and passes that on: an end of stream as such, an error by breaking both sides.
func (p *pair) half(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		p.reset()
		return
	}
	_ = to.CloseWrite()
}

// reset closes both sides with RST instead of FIN.
func (p *pair) reset() {
	for _, c := range []*net.TCPConn{p.in, p.out} {
		_ = c.SetLinger(0)
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

func (f *forwarder) close() {
	f.listener.Close()
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.reset()
	f.running.Wait()
}
