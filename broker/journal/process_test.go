//go:build linux

package journal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
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
	if dir := os.Getenv(helperEnv); dir != "" {
		os.Exit(helper(dir))
	}
	flag.Set("rapid.checks", "25") // unless the command line asks for more
	os.Exit(m.Run())
}

// helper opens the store and appends numbered records as fast as it may until it is killed or told to stop (end of its input). It says on its
// output, one line each: "open EPOCH LAST", "acked LSN", "failed WHY", "closed".
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
		if _, _, err := j.Append(Entry{Type: 1, Payload: content(j.Epoch(), i), Account: Account{Live: 1}}); err != nil {
			say("failed %v", err)
			return 3
		}
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
	p.cmd.Env = append(append(os.Environ(), helperEnv+"="+dir), env...)
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

// audit opens a store that helpers wrote and checks that no record is missing among those of an epoch, and none is wrong. It returns the end of the
// log as it was recovered, and the last of the helpers' records: the journal's own may follow.
func audit(t testing.TB, dir string, opt Options) (s *store, end, last LSN) {
	t.Helper()
	opt.SegmentBytes = 64 << 10
	next := map[uint64]int{}
	s = mustOpen(t, dir, opt, func(r Record) (Account, error) {
		if r.LSN <= last {
			return Account{}, fmt.Errorf("record %d follows %d", r.LSN, last)
		}
		last = r.LSN
		if !bytes.Equal(r.Payload, content(r.Epoch, next[r.Epoch])) {
			return Account{}, fmt.Errorf("record %d holds %.20q, want number %d of epoch %d", r.LSN, r.Payload, next[r.Epoch], r.Epoch)
		}
		next[r.Epoch]++
		return Account{Live: 1}, nil
	})
	return s, s.ledger.list[len(s.ledger.list)-1].first - 1, last
}

// TestKill9 kills a writer at a random moment, again and again: each record that it had acknowledged is there.
func TestKill9(t *testing.T) {
	rng := newRand(t)
	trials := 30
	if testing.Short() {
		trials = 20
	}
	dir := t.TempDir()
	var total LSN
	for i := range trials {
		if i%10 == 9 {
			dir = t.TempDir()
		}
		p := startHelper(t, dir)
		p.said("acked ")
		time.Sleep(time.Duration(rng.IntN(40_000)) * time.Microsecond)
		p.kill()
		p.gone()
		acked := p.acked()
		s, end, _ := audit(t, dir, Options{})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if end < acked {
			t.Fatalf("trial %d: acknowledged %d, recovered %d", i, acked, end)
		}
		total = max(total, acked)
	}
	t.Logf("%d kills, lost 0; the longest log had %d records", trials, total)
}

// TestStandbyTakesOver: a standby waits for the lock and serves once the owner was killed.
func TestStandbyTakesOver(t *testing.T) {
	var times []time.Duration
	for range 8 {
		dir := t.TempDir()
		p := startHelper(t, dir)
		p.said("acked ")
		q := startHelper(t, dir)
		time.Sleep(20 * time.Millisecond) // let it reach the lock
		start := time.Now()
		p.kill()
		q.said("acked ")
		times = append(times, time.Since(start))
		p.gone()
		var epoch uint64
		var last LSN
		fmt.Sscanf(q.said("open "), "%d %d", &epoch, &last)
		if epoch != 2 || last < p.acked() {
			t.Fatalf("epoch %d, recovered %d, acknowledged %d", epoch, last, p.acked())
		}
	}
	slices.Sort(times)
	t.Logf("from kill -9 to the first acknowledgement of the standby: p50 %v, max %v", times[len(times)/2], times[len(times)-1])
}

// TestStoppedOwnerIsFenced: the owner is stopped, another claims the next epoch in spite of the lock, reads, serves; the owner wakes and does not
// acknowledge anything that the other has not read.
func TestStoppedOwnerIsFenced(t *testing.T) {
	trials := 20
	if testing.Short() {
		trials = 8
	}
	rng := newRand(t)
	var sum LSN
	for i := range trials {
		dir := t.TempDir()
		p := startHelper(t, dir)
		p.said("acked ")
		time.Sleep(time.Duration(rng.IntN(10_000)) * time.Microsecond)
		p.cmd.Process.Signal(syscall.SIGSTOP)
		time.Sleep(2 * time.Millisecond) // until the signal has stopped each of its threads
		s, end, last := audit(t, dir, Options{noLock: true})
		mine, _ := s.add("mine", Account{Live: 1})
		s.durable(mine)
		p.cmd.Process.Signal(syscall.SIGCONT)
		p.gone()
		p.said("failed ")
		if why := p.said("failed "); !strings.Contains(why, ErrFenced.Error()) {
			t.Fatalf("trial %d: failed for another reason: %s", i, why)
		}
		if p.acked() > end {
			t.Fatalf("trial %d: acknowledged %d, the successor had read %d", i, p.acked(), end)
		}
		sum += p.acked()
		s.Close()
		again := reread(t, dir, mine)
		if again != last {
			t.Fatalf("trial %d: the log of epoch 1 ended at %d, now at %d", i, last, again)
		}
	}
	t.Logf("%d owners woken, %d records acknowledged by them, lost 0", trials, sum)
}

// reread opens a store again and says where epoch 1 ended; record mine was its successor's.
func reread(t testing.TB, dir string, mine LSN) (last LSN) {
	t.Helper()
	seen := false
	s := mustOpen(t, dir, Options{SegmentBytes: 64 << 10}, func(r Record) (Account, error) {
		if r.Epoch == 1 {
			last = r.LSN
		}
		seen = seen || r.LSN == mine && string(r.Payload) == "mine"
		return Account{Live: 1}, nil
	})
	s.Close()
	if !seen {
		t.Fatalf("record %d of the successor is gone", mine)
	}
	return last
}

// TestFrozenOwnerIsKilled: with Takeover Kill an owner that is stopped is ended, one that lives is not.
func TestFrozenOwnerIsKilled(t *testing.T) {
	dir := t.TempDir()
	p := startHelper(t, dir)
	p.said("acked ")
	opt := Options{Takeover: Kill, TakeoverAfter: 250 * time.Millisecond, SegmentBytes: 64 << 10}
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, dir, opt, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a living owner was taken over: %v", err)
	}
	before := p.acked()
	p.wait("more acknowledgements", func() bool { return len(p.lines) > 0 && p.lines[len(p.lines)-1] != fmt.Sprint("acked ", before) })
	var told []Owner
	opt.Waiting = func(o Owner) { told = append(told, o) }
	p.cmd.Process.Signal(syscall.SIGSTOP)
	start := time.Now()
	s, end, _ := audit(t, dir, opt)
	took := time.Since(start)
	p.gone()
	if state := p.cmd.ProcessState.Sys().(syscall.WaitStatus); state.Signal() != syscall.SIGKILL {
		t.Errorf("the owner ended with %v", state)
	}
	if end < p.acked() || s.Epoch() != 2 {
		t.Errorf("acknowledged %d, recovered %d, epoch %d", p.acked(), end, s.Epoch())
	}
	n := len(told)
	if n < 2 || told[0].PID != p.cmd.Process.Pid || told[0].Node != "helper" || told[n-1].Silent < opt.TakeoverAfter {
		t.Errorf("told %+v", told)
	}
	t.Logf("frozen owner ended and taken over in %v (heart-beat silent for %v)", took, opt.TakeoverAfter)
}

// A PID alone says nothing: the process must have started when the owner did, and still be silent at the last look.
func TestKillIsSure(t *testing.T) {
	p := startHelper(t, t.TempDir())
	p.said("acked ")
	pid := p.cmd.Process.Pid
	start, err := startTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	yes, no := func() bool { return true }, func() bool { return false }
	if err := killProcess(pid, start+1, yes); err == nil || !strings.Contains(err.Error(), "not the owner") {
		t.Errorf("another process: %v", err)
	}
	if err := killProcess(pid, start, no); err == nil || !strings.Contains(err.Error(), "came back") {
		t.Errorf("no more silent: %v", err)
	}
	before := p.acked()
	p.wait("life", func() bool { return p.lines[len(p.lines)-1] != fmt.Sprint("acked ", before) })
	if err := killProcess(pid, start, yes); err != nil {
		t.Error(err)
	}
	p.gone()
}

// TestStrictWaits: without Kill a stopped owner keeps its store, and the operator is told.
func TestStrictWaits(t *testing.T) {
	dir := t.TempDir()
	p := startHelper(t, dir)
	p.said("acked ")
	p.cmd.Process.Signal(syscall.SIGSTOP)
	var told []Owner
	opt := Options{TakeoverAfter: 200 * time.Millisecond, Waiting: func(o Owner) { told = append(told, o) }}
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, dir, opt, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("took over: %v", err)
	}
	if len(told) != 3 { // first seen, silent for 200 ms, for 400 ms
		t.Errorf("told %+v", told)
	}
	before := p.acked()
	p.cmd.Process.Signal(syscall.SIGCONT)
	p.wait("life", func() bool { return p.lines[len(p.lines)-1] != fmt.Sprint("acked ", before) })
	p.in.Close()
	if got := p.said("closed "); got != "<nil>" {
		t.Errorf("close: %s", got)
	}
	p.gone()
}
