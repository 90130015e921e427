package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	atOnce      = 64      // clients that are busy at the same time while a crowd is made
	crowdBuffer = 1 << 10 // octets of read buffer for each of a crowd
	spareFiles  = 300     // file descriptors of a process that are not connections
	warmUp      = 100     // clients that come and go before memory is first looked at
)

// files is how many file descriptors a process may have here, after asking for as many as there may be.
func files() (int, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	l.Cur = l.Max
	if more := (syscall.Rlimit{Cur: max(l.Max, 1<<17), Max: max(l.Max, 1<<17)}); syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more) == nil {
		l = more
	} else if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil { // children inherit it
		return 0, fmt.Errorf("raise the limit of open files: %w", err)
	}
	return int(min(l.Cur, 1<<30)), nil
}

// crowd is many clients of a broker through as many proxies as the limit of open files asks for, a client in one of them.
type crowd struct {
	opt     Options
	proxies []*process
	addrs   []string
	cars    []*understudy // the proxies, if they are sidecars
	clients []*client
	base    int64 // octets of all proxies before there was a client
	undo    []func()
}

func (w *crowd) close() {
	for _, c := range w.clients {
		c.close()
	}
	for _, f := range slices.Backward(w.undo) {
		f()
	}
}

// open starts proxies for n clients of the broker at addr. close must be called even if it fails.
func (w *crowd) open(ctx context.Context, via Via, addr string, n int) error {
	limit, err := files()
	if err != nil {
		return err
	}
	each := (limit - 2*spareFiles) * 2 / 5 // a proxy has two sockets for a client, and haproxy wants a quarter as many pipes again
	for range (n + each - 1) / each {
		switch via {
		case HAProxy:
			h, err := startHAProxy(ctx, w.opt.Scratch, w.opt.Threads, min(n, each)+warmUp, addr)
			if err != nil {
				return err
			}
			w.proxies, w.addrs = append(w.proxies, h.process), append(w.addrs, h.listen[addr])
		case Sidecar:
			s, err := startSidecar(ctx, w.opt.Understudy, w.opt.Scratch, addr, min(n, each)+warmUp)
			if err != nil {
				return err
			}
			w.proxies, w.addrs, w.cars = append(w.proxies, s.process), append(w.addrs, s.listen), append(w.cars, s)
		}
		w.undo = append(w.undo, func(p *process) func() { return func() { p.stop(syscall.SIGKILL) } }(w.proxies[len(w.proxies)-1]))
	}
	// What the first clients touch of program and heap is not what one more client costs.
	if err := w.fill(ctx, warmUp*len(w.proxies)); err != nil {
		return err
	}
	for _, c := range w.clients {
		c.close()
	}
	w.clients = nil
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	w.base, err = w.memory()
	return err
}

// fill connects and subscribes n clients, each to a queue of its own.
func (w *crowd) fill(ctx context.Context, n int) error {
	w.clients = make([]*client, n)
	err := w.all(func(i int, _ *client) error {
		c, err := connect(ctx, w.addrs[i%len(w.addrs)], crowdBuffer)
		if err != nil {
			return err
		}
		w.clients[i] = c
		_ = c.conn.SetDeadline(time.Now().Add(patience))
		if err := c.write("SUBSCRIBE\nid:1\ndestination:" + crowdQueue(i) + "\nack:client-individual\nreceipt:0\n\n\x00"); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
		return c.receipt(0)
	})
	w.clients = slices.DeleteFunc(w.clients, func(c *client) bool { return c == nil })
	return err
}

func crowdQueue(i int) string { return "/queue/bench-crowd-" + strconv.Itoa(i) }

// all does something for every client, atOnce of them at a time.
func (w *crowd) all(f func(i int, c *client) error) error {
	var wg sync.WaitGroup
	errs := make([]error, atOnce)
	for k := range atOnce {
		wg.Go(func() {
			for i := k; i < len(w.clients) && errs[k] == nil; i += atOnce {
				if err := f(i, w.clients[i]); err != nil {
					errs[k] = fmt.Errorf("client %d: %w", i, err)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// memory is that of all proxies.
func (w *crowd) memory() (sum int64, err error) {
	for _, p := range w.proxies {
		n, err := p.rss()
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// perClient is what the proxies have grown by.
func (w *crowd) perClient() (float64, error) {
	now, err := w.memory()
	return float64(now-w.base) / float64(len(w.clients)), err
}

func (w *crowd) cpu() (sum cpuTime, err error) {
	for _, p := range w.proxies {
		t, err := p.cpu()
		if err != nil {
			return cpuTime{}, err
		}
		sum = sum.add(t)
	}
	return sum, nil
}

// cores is the CPU time that the proxies spend in a second, over d.
func (w *crowd) cores(ctx context.Context, d time.Duration) (float64, error) {
	before, err := w.cpu()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := pause(ctx, d); err != nil {
		return 0, err
	}
	after, err := w.cpu()
	spent := after.sub(before)
	return (spent.user + spent.system).Seconds() / time.Since(start).Seconds(), err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
