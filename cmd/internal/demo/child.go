package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a child may take to end by itself after SIGTERM.
const stopGrace = 5 * time.Second

// nursery starts the processes of a run and sees to it that none outlives it, whatever way the run ends.
type nursery struct {
	binary string
	dir    string   // log files go here
	env    []string // what children inherit
	tee    io.Writer

	mu       sync.Mutex
	children []*child
	spawn    chan func()
	done     sync.WaitGroup
}

// newNursery makes one; close must be called. tee, if not nil, gets a copy of what the children log.
func newNursery(binary, dir string, tee io.Writer) *nursery {
	n := &nursery{binary: binary, dir: dir, env: cleanEnv(os.Environ()), tee: tee, spawn: make(chan func())}
	n.done.Add(1)
	go n.spawner()
	return n
}

// cleanEnv drops the settings of an understudy that the user runs elsewhere: a demo's children are told everything by flags.
func cleanEnv(env []string) []string {
	kept := make([]string, 0, len(env))
	for _, e := range env {
		if !strings.HasPrefix(e, "UNDERSTUDY_") {
			kept = append(kept, e)
		}
	}
	return kept
}

// spawner starts all children from one thread that lives as long as the nursery: where a child is told to die with its parent, the
// kernel means the thread that started it.
func (n *nursery) spawner() {
	defer n.done.Done()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for start := range n.spawn {
		start()
	}
}

// start starts the binary with args; its output goes to name.log, appended.
func (n *nursery) start(name string, args ...string) (*child, error) {
	log, err := os.OpenFile(filepath.Join(n.dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", name, err)
	}
	var out io.Writer = log
	if n.tee != nil {
		out = io.MultiWriter(log, &prefixed{prefix: "    [" + name + "] ", to: n.tee})
	}
	cmd := exec.Command(n.binary, args...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = n.env, n.dir, out, out, childAttr()
	cmd.WaitDelay = time.Second
	started := make(chan error)
	n.spawn <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		log.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c := &child{name: name, cmd: cmd, gone: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		log.Close()
		close(c.gone)
	}()
	n.mu.Lock()
	n.children = append(n.children, c)
	n.mu.Unlock()
	return c, nil
}

// command runs the binary to its end, and says with what words it failed.
func (n *nursery) command(ctx context.Context, name string, args ...string) error {
	c, err := n.start(name, args...)
	if err != nil {
		return err
	}
	select {
	case <-c.gone:
	case <-ctx.Done():
		c.kill()
		return context.Cause(ctx)
	}
	if c.err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), c.err, n.tail(name, 1))
	}
	return nil
}

// close kills every child that is left and waits for all of them.
func (n *nursery) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.children {
		c.kill()
	}
	close(n.spawn)
	n.done.Wait()
}

// tail returns the last lines of a child's log.
func (n *nursery) tail(name string, lines int) string {
	text, err := os.ReadFile(filepath.Join(n.dir, name+".log"))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// child is one process.
type child struct {
	name string
	cmd  *exec.Cmd
	gone chan struct{} // closed when it has ended and was waited for
	err  error         // of Wait; read it after gone
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// kill ends it with SIGKILL, by its own pid, and returns when it is gone.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.gone
}

// stop asks it to end, and kills it when it does not.
func (c *child) stop(ctx context.Context) error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", c.name, err)
	}
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-c.gone:
	case <-ctx.Done():
		c.kill()
	case <-timer.C:
		c.kill()
		return fmt.Errorf("stop %s: still running %v after SIGTERM, killed", c.name, stopGrace)
	}
	if c.err != nil {
		return fmt.Errorf("stop %s: it ended with %w", c.name, c.err)
	}
	return nil
}

// ended returns why the child has ended, or nil while it runs.
func (c *child) ended() error {
	select {
	case <-c.gone:
		return fmt.Errorf("%s has ended: %v", c.name, c.cmd.ProcessState)
	default:
		return nil
	}
}

// prefixed writes whole lines with a prefix.
type prefixed struct {
	prefix string
	to     io.Writer
	line   []byte
}

func (p *prefixed) Write(b []byte) (int, error) {
	p.line = append(p.line, b...)
	for {
		i := bytes.IndexByte(p.line, '\n')
		if i < 0 {
			return len(b), nil
		}
		if _, err := fmt.Fprintf(p.to, "%s%s\n", p.prefix, p.line[:i]); err != nil {
			return 0, err
		}
		p.line = p.line[i+1:]
	}
}
