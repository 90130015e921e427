package brokers

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// endGrace is how long a process may take to end after its own signal.
const endGrace = 5 * time.Second

// nursery starts processes and sees to it that none outlives it, whatever way the program ends.
type nursery struct {
	spawn chan func()
	done  sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	children []*child
}

func newNursery() *nursery {
	n := &nursery{spawn: make(chan func())}
	n.done.Add(1)
	go n.spawner()
	return n
}

// spawner starts all processes from one thread that lives as long as the nursery: the kernel sends the signal of a parent's death when
// the thread ends that started the child, and Go ends threads as it likes.
func (n *nursery) spawner() {
	defer n.done.Done()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for start := range n.spawn {
		start()
	}
}

// start runs cmd with its output appended to the file log.
func (n *nursery) start(name, log string, cmd *exec.Cmd) (*child, error) {
	return n.startEnding(name, log, cmd, syscall.SIGKILL)
}

// startEnding is start for a process that is ended by another signal than SIGKILL: PostgreSQL would leave its shared memory behind.
func (n *nursery) startEnding(name, log string, cmd *exec.Cmd, end syscall.Signal) (*child, error) {
	n.mu.Lock()
	defer n.mu.Unlock() // held over the start, so that close misses no child; a start takes a millisecond
	if n.closed {
		return nil, fmt.Errorf("start %s: the cluster is closed", name)
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", name, err)
	}
	defer out.Close() // the child has its own
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	dieWithParent(cmd.SysProcAttr, end)
	started := make(chan error)
	n.spawn <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c := &child{cmd: cmd, end: end, gone: make(chan struct{})}
	n.done.Add(1)
	go n.wait(c)
	n.children = append(n.children, c)
	return c, nil
}

func (n *nursery) wait(c *child) {
	defer n.done.Done()
	c.err = c.cmd.Wait()
	close(c.gone)
}

// close kills what is left, the youngest first, because a process may need one that was started before it, and waits for all.
func (n *nursery) close() {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return
	}
	n.closed = true
	for i := len(n.children) - 1; i >= 0; i-- {
		n.children[i].finish()
	}
	n.mu.Unlock()
	close(n.spawn)
	n.done.Wait()
}

// child is one process.
type child struct {
	cmd  *exec.Cmd
	end  syscall.Signal // ends it for good
	gone chan struct{}  // closed when it has ended and was waited for
	err  error          // of Wait; read it after gone
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) ended() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// signal never hits a stranger that got the pid later: os.Process refuses once the child was waited for.
func (c *child) signal(s syscall.Signal) error { return c.cmd.Process.Signal(s) }

// kill returns when the process is gone. An error of the signal means that it already is.
func (c *child) kill() {
	_ = c.signal(syscall.SIGKILL)
	<-c.gone
}

// finish ends it for good, with SIGKILL if its own signal does not.
func (c *child) finish() {
	if c.end != syscall.SIGKILL && c.signal(c.end) == nil {
		timer := time.NewTimer(endGrace)
		defer timer.Stop()
		select {
		case <-c.gone:
			return
		case <-timer.C:
		}
	}
	c.kill()
}

// awaitLog returns nil once the file holds the words behind the offset from, and an error when the process ends before.
func (c *child) awaitLog(ctx context.Context, log string, from int64, words string) error {
	err := every(ctx, func() bool { return c.ended() || logHolds(log, from, words) })
	if err == nil && !logHolds(log, from, words) {
		return fmt.Errorf("it ended: %w", c.err)
	}
	return err
}

// logHolds says whether a log holds the words behind the offset from.
func logHolds(log string, from int64, words string) bool {
	f, err := os.Open(log)
	if err != nil {
		return false
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, from, logScanned))
	return err == nil && bytes.Contains(text, []byte(words))
}

// run runs a program to its end, with the output in an error when it fails.
func (n *nursery) run(name, log string, limit time.Duration, cmd *exec.Cmd) error {
	c, err := n.start(name, log, cmd)
	if err != nil {
		return err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.gone:
	case <-timer.C:
		c.kill()
		return fmt.Errorf("%s: still running after %v, killed", name, limit)
	}
	if c.err != nil {
		said, _ := os.ReadFile(log)
		return fmt.Errorf("%s: %w: %s", name, c.err, said)
	}
	return nil
}
