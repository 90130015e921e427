//go:build linux

package journal

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const helperEnv = "JOURNAL_TEST_HELPER"

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir, node := os.Getenv(helperEnv), os.Getenv("JOURNAL_TEST_NODE"); dir != "" && node != "" {
		os.Exit(contend(dir, node))
	} else if dir != "" {
		os.Exit(helper(dir))
	}
	flag.Set("rapid.checks", "25") // unless the command line asks for more
	os.Exit(m.Run())
}

// helper opens the store and appends numbered records as fast as it may until it is killed or told to stop (end of its input). It says on its
// output, one line each: "open EPOCH LAST", "acked LSN", "failed WHY", "closed". With a window each record ends the one so many before it, and
// segments go as fast as they come.
func helper(dir string) int {
	say := func(format string, a ...any) { fmt.Fprintf(os.Stdout, format+"\n", a...) }
	opt := Options{SegmentBytes: 64 << 10, Node: "helper", TakeoverAfter: 300 * time.Millisecond}
	if os.Getenv("JOURNAL_TEST_KILL") != "" {
		opt.Takeover = Kill
	}
	failed := make(chan error, 1)
	opt.Durable = func(through LSN) { say("acked %d", through) }
	opt.Failed = func(err error) { failed <- err }
	var last LSN
	j, err := Open(context.Background(), dir, opt, func(r Record) (Account, error) {
		last = r.LSN
		return Account{Live: 1}, nil
	})
	if err != nil {
		say("failed %v", err)
		return 1
	}
	say("open %d %d", j.Epoch(), last)
	window, _ := strconv.Atoi(os.Getenv("JOURNAL_TEST_WINDOW"))
	where := map[int]Segment{}
	stop := make(chan struct{})
	go func() { io.Copy(io.Discard, os.Stdin); close(stop) }()
	for i := 0; ; i++ {
		if j.Pending() > 64<<10 || i%7 == 0 {
			select {
			case err := <-failed:
				say("failed %v", err)
				return 3
			case <-stop:
				say("closed %v", j.Close())
				return 0
			case <-time.After(100 * time.Microsecond):
			}
		}
		a := Account{Live: 1}
		if seg, ok := where[i-window]; ok && window > 0 {
			a.Ends = []Ending{{Segment: seg}}
			delete(where, i-window)
		}
		at, err := appendTo(j, Entry{Type: 1, Payload: content(j.Epoch(), i), Account: a})
		if err != nil {
			say("failed %v", err)
			return 3
		}
		where[i] = at.Segment
	}
}

// content is what the i-th record of an epoch holds.
func content(epoch uint64, i int) []byte {
	rng := rand.New(rand.NewPCG(epoch, uint64(i)))
	return fmt.Appendf(nil, "%d %d %s", epoch, i, strings.Repeat("z", rng.IntN(1500)))
}

// process is a helper under the test's control.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.Closer
	mu    sync.Mutex
	lines []string
	last  time.Time // of a line
	more  *sync.Cond
	eof   bool
}

func startHelper(t testing.TB, dir string, env ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0], "-test.run=^$")}
	p.more = sync.NewCond(&p.mu)
	// One that looks for races would wait a second at its end for what its other threads may still report.
	races := strings.TrimSpace(os.Getenv("GORACE") + " atexit_sleep_ms=0")
	p.cmd.Env = append(append(os.Environ(), helperEnv+"="+dir, "GORACE="+races), env...)
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = in
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = w
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go p.listen(r)
	t.Cleanup(func() {
		p.in.Close()
		p.cmd.Process.Signal(syscall.SIGKILL)
		p.cmd.Process.Wait()
		p.wait("end of output", func() bool { return p.eof })
	})
	return p
}

func (p *process) listen(r *os.File) {
	defer r.Close()
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		p.mu.Lock()
		p.lines, p.last = append(p.lines, sc.Text()), time.Now()
		p.more.Broadcast()
		p.mu.Unlock()
	}
	p.mu.Lock()
	p.eof = true
	p.more.Broadcast()
	p.mu.Unlock()
}

func (p *process) wait(what string, cond func() bool) {
	p.t.Helper()
	late := time.AfterFunc(15*time.Second, func() { p.mu.Lock(); p.more.Broadcast(); p.mu.Unlock() })
	defer late.Stop()
	start := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !cond() {
		if time.Since(start) > 14*time.Second {
			p.t.Fatalf("waited for %s; output: %.300q", what, p.lines)
		}
		p.more.Wait()
	}
}

// said waits for a line that begins so, and returns the rest of the newest.
func (p *process) said(prefix string) (rest string) {
	p.t.Helper()
	p.wait(strconv.Quote(prefix), func() bool {
		for _, l := range slices.Backward(p.lines) {
			if r, ok := strings.CutPrefix(l, prefix); ok {
				rest = r
				return true
			}
		}
		if p.eof {
			p.t.Fatalf("ended without %q; output: %.300q", prefix, p.lines)
		}
		return false
	})
	return rest
}

// acked is the highest acknowledgement so far.
func (p *process) acked() (lsn LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range slices.Backward(p.lines) {
		if n, ok := strings.CutPrefix(l, "acked "); ok {
			v, _ := strconv.ParseUint(n, 10, 64)
			return LSN(v)
		}
	}
	return 0
}

func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
}

// gone waits for the end of the process and its output.
func (p *process) gone() {
	p.t.Helper()
	p.wait("end of output", func() bool { return p.eof })
	p.cmd.Wait()
}
