//go:build linux

package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// lease is short enough for tests, and long enough for a process to be scheduled.
const lease = 500 * time.Millisecond

// TestFrozenOwnerLosesLease: an owner is stopped, another takes the store in spite of the lock, serves; the owner wakes, and neither acknowledges what the other
// has not read, nor deletes what it needs, nor touches its LOCK.
func TestFrozenOwnerLosesLease(t *testing.T) {
	trials := 2
	if *full {
		trials = 100
	}
	const window = 60
	rng := newRand(t)
	var longest time.Duration
	for i := range trials {
		dir := t.TempDir()
		env, windows := []string(nil), []int(nil)
		if i%2 == 1 {
			env, windows = []string{fmt.Sprint("JOURNAL_TEST_WINDOW=", window)}, []int{window}
		}
		p := startHelper(t, dir, env...)
		p.said("acked ")
		time.Sleep(time.Duration(rng.IntN(10_000)) * time.Microsecond)
		p.cmd.Process.Signal(syscall.SIGSTOP)
		start := time.Now()
		s, end, last := audit(t, dir, Options{Node: "thief", Takeover: Lease, TakeoverAfter: lease}, windows...)
		longest = max(longest, time.Since(start))
		if s.Epoch() != 2 || !s.lock.ours(s.Journal.disk) {
			t.Fatalf("trial %d: epoch %d", i, s.Epoch())
		}
		mine, _ := s.add("mine", Account{Live: 1})
		s.durable(mine)
		p.cmd.Process.Signal(syscall.SIGCONT)
		p.gone()
		if why := p.said("failed "); !strings.Contains(why, ErrFenced.Error()) {
			t.Fatalf("trial %d: failed for another reason: %s", i, why)
		}
		if p.acked() > end {
			t.Fatalf("trial %d: acknowledged %d, the successor had read %d", i, p.acked(), end)
		}
		for _, a := range s.ledger.list {
			if _, err := os.Stat(filepath.Join(dir, a.name())); err != nil {
				t.Fatalf("trial %d: the successor needs it: %v", i, err)
			}
		}
		if k := pulseOf(t, dir); k.Node != "thief" || k.Epoch != 2 {
			t.Fatalf("trial %d: LOCK holds %+v", i, k)
		}
		s.Close()
		if again := reread(t, dir, mine); again != last {
			t.Fatalf("trial %d: the log of epoch 1 ended at %d, now at %d", i, last, again)
		}
	}
	t.Logf("%d frozen owners robbed, at the latest %v after the stop (lease %v); woken, they acknowledged and deleted nothing", trials, longest, lease)
}

// Of several thieves one gets the store; the others see it live, and have it in turn, through the LOCK that it put in place.
func TestThievesRace(t *testing.T) {
	dir := t.TempDir()
	p := startHelper(t, dir)
	p.said("acked ")
	p.cmd.Process.Signal(syscall.SIGSTOP)
	var wg sync.WaitGroup
	epochs := make(chan uint64, 3)
	for _, node := range []string{"a", "b", "c"} {
		wg.Go(func() {
			opt := Options{SegmentBytes: 64 << 10, Node: node, Takeover: Lease, TakeoverAfter: lease}
			j, err := Open(t.Context(), dir, opt, func(Record) (Account, error) { return Account{Live: 1}, nil })
			if err != nil {
				t.Error(err)
				return
			}
			if k := pulseOf(t, dir); k.Node != node || k.Epoch != j.Epoch() {
				t.Errorf("%s has epoch %d; LOCK holds %+v", node, j.Epoch(), k)
			}
			epochs <- j.Epoch()
			time.Sleep(lease * 3 / 2) // nobody else may take it meanwhile
			if err := j.Close(); err != nil {
				t.Errorf("%s: %v", node, err)
			}
		})
	}
	wg.Wait()
	close(epochs)
	want := uint64(2)
	for e := range epochs {
		if e != want {
			t.Errorf("epoch %d, want %d", e, want)
		}
		want++
	}
	p.cmd.Process.Signal(syscall.SIGCONT)
	p.said("failed ")
	p.gone()
}

// An owner that lives is not robbed, whether it has work or not.
func TestLivingOwnerKeepsLease(t *testing.T) {
	for name, run := range map[string]func(t *testing.T, dir string){
		"busy": func(t *testing.T, dir string) { startHelper(t, dir).said("acked ") },
		"idle": func(t *testing.T, dir string) { mustOpen(t, dir, Options{Node: "idle", SegmentBytes: 8 << 10}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			run(t, dir)
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 5*lease)
			defer cancel()
			if _, err := Open(ctx, dir, Options{Node: "thief", Takeover: Lease, TakeoverAfter: 2 * lease}, nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("a living owner was robbed: %v", err)
			}
		})
	}
}

// A thief that dies between its claim and its LOCK costs the others another lease, and leaves nothing behind.
func TestThiefDies(t *testing.T) {
	dir := t.TempDir()
	p := startHelper(t, dir)
	p.said("acked ")
	p.cmd.Process.Signal(syscall.SIGSTOP)
	d, err := openDisk(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	claim := make(chan time.Time, 1)
	go func() {
		time.Sleep(lease * 2 / 3)
		at := time.Now()
		m, err := claimOne(d, 2)
		if err == nil {
			err = errors.Join(m.file.Close(), os.WriteFile(filepath.Join(dir, lockNameOf(2)), nil, 0o600))
		}
		if err != nil {
			t.Error(err)
		}
		claim <- at
	}()
	s, _, _ := audit(t, dir, Options{Node: "heir", Takeover: Lease, TakeoverAfter: lease})
	if took := time.Since(<-claim); s.Epoch() != 3 || took < lease-maxStep {
		t.Errorf("epoch %d, %v after the claim of 2", s.Epoch(), took)
	}
	p.cmd.Process.Signal(syscall.SIGCONT)
	p.said("failed ")
	p.gone()
	s.Close()
	if _, err := os.Stat(filepath.Join(dir, lockNameOf(2))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the LOCK that was never one: %v", err)
	}
}

// A LOCK that is not the owner's, or none, is no reason for the next candidate to take the store: the owner puts its own back.
func TestOwnerKeepsItsLock(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"deleted": os.Remove,
		"replaced": func(path string) error { // by a thief that was stopped for long between its claim and this
			f, err := os.Create(path + "-late")
			if err == nil {
				_, err = tryLock(f)
			}
			if err == nil {
				err = os.Rename(f.Name(), path)
			}
			time.AfterFunc(4*beatEvery, func() { f.Close() })
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, dir, Options{Node: "owner", SegmentBytes: 8 << 10}, nil)
			next := make(chan *Journal)
			go func() {
				j, err := Open(t.Context(), dir, Options{Node: "next", SegmentBytes: 8 << 10}, nil)
				if err != nil {
					t.Error(err)
				}
				next <- j
			}()
			for len(s.Candidates()) == 0 {
				time.Sleep(time.Millisecond)
			}
			if err := spoil(filepath.Join(dir, lockName)); err != nil {
				t.Fatal(err)
			}
			select {
			case j := <-next:
				t.Fatalf("epoch %d", j.Epoch())
			case <-time.After(10 * beatEvery):
			}
			if !s.lock.ours(s.Journal.disk) {
				t.Error("LOCK is not the owner's")
			}
			start := time.Now()
			if err := s.Journal.Close(); err != nil {
				t.Error(err)
			}
			j := <-next
			if took := time.Since(start); j.Epoch() != 2 || took > time.Second {
				t.Errorf("epoch %d after %v", j.Epoch(), took)
			}
			if err := j.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A candidate that had the lock and was stopped before it claimed an epoch does not fence whoever robbed it.
func TestStoppedBeforeTheClaim(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir, Options{SegmentBytes: 8 << 10}, nil).Close()
	var thief *Journal
	_, err := Open(t.Context(), dir, Options{Node: "slow", SegmentBytes: 8 << 10, Won: func() {
		var err error
		if thief, err = Open(t.Context(), dir, Options{Node: "thief", SegmentBytes: 8 << 10, Takeover: Lease, TakeoverAfter: lease}, nil); err != nil {
			t.Error(err)
		}
	}}, nil)
	if !errors.Is(err, ErrFenced) || !strings.Contains(err.Error(), lockName) {
		t.Errorf("%v", err)
	}
	time.Sleep(3 * beatEvery)
	if err := thief.Close(); err != nil {
		t.Error(err)
	}
}

// Nobody takes a store from whoever is about to begin it: two would make a UUID.
func TestNewStoreIsNotStolen(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, lockName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := tryLock(f); err != nil || !got {
		t.Fatal(err)
	}
	f.WriteString(`{"node":"frozen","pid":1,"beat":1}`)
	ctx, cancel := context.WithTimeout(t.Context(), 2*lease)
	defer cancel()
	if _, err := Open(ctx, dir, Options{Takeover: Lease, TakeoverAfter: lease}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
