//go:build linux

package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// audit opens a store that helpers wrote and checks that no record is missing among those of an epoch, and none is wrong. It returns the end of the
// log as it was recovered, and the last of the helpers' records: the journal's own may follow. With a window the first ones may have gone.
func audit(t testing.TB, dir string, opt Options, window ...int) (s *store, end, last LSN) {
	t.Helper()
	opt.SegmentBytes = 64 << 10
	type thing struct {
		epoch uint64
		i     int
	}
	next, where := map[uint64]int{}, map[thing]Segment{}
	s = mustOpen(t, dir, opt, func(r Record) (a Account, err error) {
		if r.LSN <= last {
			return a, fmt.Errorf("record %d follows %d", r.LSN, last)
		}
		last = r.LSN
		i, seen := next[r.Epoch]
		if len(window) > 0 && !seen {
			fmt.Sscanf(string(r.Payload), "%d %d", new(uint64), &i)
		}
		if !bytes.Equal(r.Payload, content(r.Epoch, i)) {
			return a, fmt.Errorf("record %d holds %.20q, want number %d of epoch %d", r.LSN, r.Payload, i, r.Epoch)
		}
		next[r.Epoch] = i + 1
		where[thing{r.Epoch, i}] = r.Segment
		a.Live = 1
		if len(window) > 0 {
			if seg, ok := where[thing{r.Epoch, i - window[0]}]; ok {
				a.Ends = []Ending{{Segment: seg}}
			}
		}
		return a, nil
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
// acknowledge anything that the other has not read, nor delete anything that the other needs: in every second trial its segments go as fast as
// they come.
func TestStoppedOwnerIsFenced(t *testing.T) {
	trials := 10
	if *full {
		trials = 200
	}
	const window = 60
	rng := newRand(t)
	var sum LSN
	deleted := uint64(0)
	for i := range trials {
		dir := t.TempDir()
		env, windows := []string(nil), []int(nil)
		if i%2 == 1 {
			env, windows = []string{fmt.Sprint("JOURNAL_TEST_WINDOW=", window)}, []int{window}
		}
		p := startHelper(t, dir, env...)
		p.said("acked ")
		time.Sleep(time.Duration(rng.IntN(10_000)+30_000*(i%2)) * time.Microsecond)
		p.cmd.Process.Signal(syscall.SIGSTOP)
		time.Sleep(2 * time.Millisecond) // until the signal has stopped each of its threads
		s, end, last := audit(t, dir, Options{noLock: true}, windows...)
		mine, _ := s.add("mine", Account{Live: 1})
		s.durable(mine)
		s.Journal.mu.Lock()
		deleted += uint64(s.ledger.list[0].id) - 1
		s.Journal.mu.Unlock()
		p.cmd.Process.Signal(syscall.SIGCONT)
		p.gone()
		if why := p.said("failed "); !strings.Contains(why, ErrFenced.Error()) {
			t.Fatalf("trial %d: failed for another reason: %s", i, why)
		}
		if p.acked() > end {
			t.Fatalf("trial %d: acknowledged %d, the successor had read %d", i, p.acked(), end)
		}
		sum += p.acked()
		for _, a := range s.ledger.list {
			if _, err := os.Stat(filepath.Join(dir, a.name())); err != nil {
				t.Fatalf("trial %d: the successor needs it: %v", i, err)
			}
		}
		s.Close()
		again := reread(t, dir, mine)
		if again != last {
			t.Fatalf("trial %d: the log of epoch 1 ended at %d, now at %d", i, last, again)
		}
	}
	t.Logf("%d owners woken, %d records acknowledged by them, lost 0; %d segments gone before, files of the successor deleted 0", trials, sum, deleted)
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
