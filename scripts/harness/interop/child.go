package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// spawn starts all processes from one thread that lives as long as the program: the kernel ends them when that thread ends, which it
// otherwise might at any time.
var spawn = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for start := range work {
			start()
		}
	}()
	return work
})

// start starts cmd so that it does not outlive this program.
func start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	dieWithParent(cmd.SysProcAttr)
	started := make(chan error)
	spawn() <- func() { started <- cmd.Start() }
	return <-started
}

// maxErrors is how much of a client's standard error is kept.
const maxErrors = 8 << 10

// client is a running client program.
type client struct {
	name   string
	cmd    *exec.Cmd
	input  io.WriteCloser
	errors tail
	gone   chan struct{} // closed when it has ended and all its lines are read

	mu      sync.Mutex
	log     []Event
	changed chan struct{} // closed and renewed with every line
	counts  map[byte]int
	got     map[int]bool // delivered
	odd     error        // a line that is none
}

// startClient starts a program with its job.
func startClient(name string, cmd *exec.Cmd, job Job) (*client, error) {
	text, err := json.Marshal(job)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c := &client{name: name, cmd: cmd, gone: make(chan struct{}), changed: make(chan struct{}), counts: map[byte]int{}, got: map[int]bool{}}
	cmd.Env = append(cmd.Env, "JOB="+string(text))
	cmd.Stderr = &c.errors
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if c.input, err = cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go c.read(out)
	return c, nil
}

func (c *client) read(out io.Reader) {
	defer close(c.gone)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		e, err := parseEvent(lines.Text(), time.Now())
		c.mu.Lock()
		if err != nil {
			if c.odd == nil {
				c.odd = err
			}
		} else {
			c.log = append(c.log, e)
			c.counts[e.Kind]++
			if e.Kind == 'M' {
				c.got[e.Seq] = true
			}
		}
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
	}
	_ = c.cmd.Wait() // its last line says how it ended; without one it did not end in good order
	c.mu.Lock()
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
}

// events returns what it has said so far.
func (c *client) events() []Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.log)
}

// said is how many lines of a kind there were.
func (c *client) said(kind byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[kind]
}

// received is how many different messages were delivered.
func (c *client) received() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.got)
}

// until waits until enough says so, the client has ended, or the time is over; it reports what enough says then.
func (c *client) until(deadline time.Time, enough func() bool) bool {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if enough() {
			return true
		}
		select {
		case <-changed:
		case <-c.gone:
			return enough()
		case <-timer.C:
			return enough()
		}
	}
}

// ended says whether the process is gone.
func (c *client) ended() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// begin tells a producer to send. One that is gone has said why.
func (c *client) begin() { _, _ = io.WriteString(c.input, "go\n") }

func (c *client) terminate() { _ = c.cmd.Process.Signal(syscall.SIGTERM) }

// end waits until a time, then kills.
func (c *client) end(deadline time.Time) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-c.gone:
	case <-timer.C:
		_ = c.cmd.Process.Kill()
		<-c.gone
	}
}

// trouble is what is wrong with the program itself, as opposed to what it noticed.
func (c *client) trouble() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.odd != nil {
		return fmt.Errorf("%s: %w; standard error: %s", c.name, c.odd, c.errors.String())
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - maxErrors; over > 0 {
		t.text = slices.Delete(t.text, 0, over)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.text))
}
