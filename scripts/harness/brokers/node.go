package brokers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	pollEvery  = 5 * time.Millisecond // how often a node is asked for what is awaited
	logTail    = 16 << 10             // bytes that Log returns
	logScanned = 1 << 20              // bytes of a start's log that are searched for the line of a standby
)

// node is one broker of a cluster; its process changes with every start.
type node struct {
	cluster *cluster
	name    string
	port    int
	log     string
	// command is the broker's program, which must become the broker itself (exec), so that its pid is the one to kill.
	command func() *exec.Cmd
	// standsBy are words that the log of a node holds once it waits for another to end. Empty where every node serves.
	standsBy string

	mu   sync.Mutex // guards proc: Active reads while a fault is injected
	proc *child
	from int64 // where the log of this start begins
}

func (n *node) Name() string  { return n.name }
func (n *node) Addr() string  { return net.JoinHostPort("127.0.0.1", strconv.Itoa(n.port)) }
func (n *node) Running() bool { return n.running() != nil }

// running is the process if there is one.
func (n *node) running() *child {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc == nil || n.proc.ended() {
		return nil
	}
	return n.proc
}

func (n *node) PID() int {
	if p := n.running(); p != nil {
		return p.pid()
	}
	return 0
}

func (n *node) Start(ctx context.Context) error {
	if n.Running() {
		return fmt.Errorf("start %s: it is running as pid %d", n.name, n.PID())
	}
	begin := time.Now()
	if info, err := os.Stat(n.log); err == nil {
		n.from = info.Size()
	}
	p, err := n.cluster.procs.start(n.name, n.log, n.command())
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.proc = p
	n.mu.Unlock()
	n.cluster.opt.Logf("%s started as pid %d on %s", n.name, p.pid(), n.Addr())
	is, err := n.awaitReady(ctx, p)
	if err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	n.cluster.opt.Logf("%s %s after %v", n.name, is, time.Since(begin).Round(time.Millisecond))
	return nil
}

// awaitReady returns what the node does once it serves or stands by.
func (n *node) awaitReady(ctx context.Context, p *child) (string, error) {
	ready, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	serves, waits := errors.New("serves"), errors.New("stands by")
	wg.Go(func() {
		if n.awaitConnected(ready) == nil {
			cancel(serves)
		}
	})
	if n.standsBy != "" {
		wg.Go(func() {
			if p.awaitLog(ready, n.log, n.from, n.standsBy) == nil {
				cancel(waits)
			}
		})
	}
	select {
	case <-ready.Done():
		switch cause := context.Cause(ready); cause {
		case serves, waits:
			return cause.Error(), nil
		default:
			return "", fmt.Errorf("it neither serves nor stands by: %w; its log ends: %s", cause, n.Log())
		}
	case <-p.gone:
		cancel(p.err)
		return "", fmt.Errorf("it ended with %v; its log ends: %s", p.err, n.Log())
	}
}

// awaitConnected returns nil once the node has answered CONNECTED.
func (n *node) awaitConnected(ctx context.Context) error {
	k := n.cluster.kind
	return every(ctx, func() bool {
		_, err := probe(ctx, n.Addr(), k.user, k.pass, k.vhost)
		return err == nil
	})
}

// serverHeader is what the broker calls itself in CONNECTED; "?" if it does not answer.
func (n *node) serverHeader(ctx context.Context) string {
	k := n.cluster.kind
	connected, err := probe(ctx, n.Addr(), k.user, k.pass, k.vhost)
	if err != nil {
		return "?"
	}
	for line := range strings.Lines(connected) {
		if server, is := strings.CutPrefix(strings.TrimSpace(line), "server:"); is {
			return server
		}
	}
	return "?"
}

// every calls done until it says true, with pollEvery between two calls, or ctx ends.
func every(ctx context.Context, done func() bool) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

func (n *node) Kill() error {
	p := n.running()
	if p == nil {
		return fmt.Errorf("kill %s: it is not running", n.name)
	}
	n.cluster.opt.Logf("%s is killed (pid %d)", n.name, p.pid())
	p.kill()
	return nil
}

func (n *node) Stop(ctx context.Context) error {
	p := n.running()
	if p == nil {
		return fmt.Errorf("stop %s: it is not running", n.name)
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", n.name, err)
	}
	n.cluster.opt.Logf("%s is told to stop (pid %d)", n.name, p.pid())
	select {
	case <-p.gone:
		return nil // whatever its exit status: a JVM that SIGTERM ends says 143
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("stop %s: still running after SIGTERM, killed: %w", n.name, context.Cause(ctx))
	}
}

func (n *node) Freeze() error { return n.signal("freeze", syscall.SIGSTOP) }
func (n *node) Thaw() error   { return n.signal("thaw", syscall.SIGCONT) }

func (n *node) signal(verb string, s syscall.Signal) error {
	p := n.running()
	if p == nil {
		return fmt.Errorf("%s %s: it is not running", verb, n.name)
	}
	if err := p.signal(s); err != nil {
		return fmt.Errorf("%s %s: %w", verb, n.name, err)
	}
	n.cluster.opt.Logf("%s: %s (pid %d)", n.name, verb, p.pid())
	return nil
}

func (n *node) Log() string {
	f, err := os.Open(n.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	text, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-logTail), logTail))
	if err != nil {
		return err.Error()
	}
	return string(text)
}
