package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

const (
	lockName  = "LOCK"
	lockBytes = 512 // of LOCK: one sector, so that a reader sees one pulse
)

// lockFile is LOCK: the lock that keeps a second owner away while the first lives, and the pulse by which candidates see that it does. It is never
// renamed or deleted. It is not what makes a store safe (that is the epoch); it keeps owners from fencing each other for nothing.
type lockFile struct {
	file   *os.File
	before pulse // the last owner's; zero if there was none, or none that could be read
	mu     sync.Mutex
	me     pulse
	epoch  *markFile
}

// acquire polls for the lock until it has it or ctx ends. Polling, because a blocked wait for a lock can neither be cancelled nor ranked. Meanwhile
// it follows the log with f, for half of the time between two looks at the lock at most, so that they do not come later for it.
func acquire(ctx context.Context, d *disk, opt Options, log *slog.Logger, f *follower) (*lockFile, error) {
	me, err := selfPulse(opt.Node)
	if err != nil && opt.Takeover == Kill {
		return nil, fmt.Errorf("take over by kill: %w", err)
	}
	file, err := openLock(d)
	if err != nil {
		return nil, err
	}
	c := candidate{disk: d, opt: opt, log: log, me: me, file: file, follow: f, watch: watch{after: opt.TakeoverAfter, looked: time.Now()}}
	if err := c.wait(ctx); err != nil {
		c.file.Close()
		return nil, err
	}
	before, err := readPulse(c.file)
	if err != nil {
		before = pulse{}
	}
	l := &lockFile{file: c.file, me: me, before: before}
	if err := l.beat(); err != nil {
		l.file.Close()
		return nil, err
	}
	return l, nil
}

func openLock(d *disk) (*os.File, error) {
	f, err := os.OpenFile(d.at(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	return f, nil
}

// candidate waits for a lock that somebody else may hold.
type candidate struct {
	disk   *disk
	opt    Options
	log    *slog.Logger
	me     pulse
	file   *os.File
	follow *follower // may be nil
	watch  watch
	killed pulse
}

func (c *candidate) wait(ctx context.Context) error {
	tick := time.NewTicker(c.opt.LockPoll)
	defer tick.Stop()
	for {
		got, err := c.try(ctx)
		if err != nil {
			return err
		}
		if got {
			return nil
		}
		p, err := readPulse(c.file)
		if c.watch.look(time.Now(), p, err == nil) {
			c.opt.Waiting(c.watch.owner())
		}
		if c.opt.Takeover == Kill && c.watch.frozen() {
			c.end()
		}
		if c.follow.poll() && ctx.Err() == nil {
			continue // it is behind: to wait would only make a take-over longer
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", c.disk.at(lockName), context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// try takes the lock if it is free. A candidate of a higher rank that sees it free gives the others a head start.
func (c *candidate) try(ctx context.Context) (bool, error) {
	if c.opt.noLock {
		return true, nil
	}
	if c.opt.Rank > 0 {
		free, err := lockIsFree(c.file)
		if err != nil || !free {
			return false, wrapLock(err)
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-time.After(time.Duration(c.opt.Rank) * rankDelay):
		}
	}
	got, err := tryLock(c.file)
	if err != nil || !got {
		return false, wrapLock(err)
	}
	// Somebody may have deleted the file in spite of everything: then this lock is on a ghost and the next candidate would lock another file.
	now, err := os.Stat(c.disk.at(lockName))
	if mine, err2 := c.file.Stat(); err == nil && err2 == nil && os.SameFile(now, mine) {
		return true, nil
	}
	f, err := openLock(c.disk)
	if err != nil {
		return false, err
	}
	c.file.Close()
	c.file = f
	return false, nil
}

func wrapLock(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("lock store: %w", err)
}

// end kills an owner that is on this machine and has shown no life, once. The lock is then freed by the kernel, as with any death.
func (c *candidate) end() {
	p := c.watch.pulse
	if c.killed.same(p) || p.Boot != c.me.Boot || p.Space != c.me.Space || p.PID == c.me.PID {
		return
	}
	c.killed = p
	silent := c.watch.silent
	err := killProcess(p.PID, p.Start, func() bool { // the last word before the signal: still the same, still silent?
		q, err := readPulse(c.file)
		return err == nil && q == p
	})
	if err != nil {
		c.log.Error("cannot end the silent owner", "node", p.Node, "pid", p.PID, "epoch", p.Epoch, "silent", silent, "err", err)
		return
	}
	c.log.Warn("ended the silent owner", "node", p.Node, "pid", p.PID, "epoch", p.Epoch, "silent", silent)
}

func readPulse(f *os.File) (p pulse, err error) {
	var b [lockBytes]byte
	n, err := f.ReadAt(b[:], 0)
	if n == 0 {
		return p, err
	}
	return p, json.Unmarshal(bytes.TrimRight(b[:n], " \n\x00"), &p)
}

// beat shows life.
func (l *lockFile) beat() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.me.Beat++
	return l.write()
}

func (l *lockFile) write() error {
	b, err := json.Marshal(l.me)
	if err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	if len(b) >= lockBytes {
		return fmt.Errorf("write lock: node name %q is too long", l.me.Node)
	}
	b = append(b, bytes.Repeat([]byte{' '}, lockBytes-1-len(b))...)
	if _, err := l.file.WriteAt(append(b, '\n'), 0); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	return nil
}

// own tells candidates our epoch.
func (l *lockFile) own(m *markFile) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch, l.me.Epoch = m, m.epoch
	return l.write()
}

// witnessed says that the mark of an epoch is exact: its owner was the last, and wrote it on this machine since it was started, so that what that
// process had handed to the kernel is what we read, though it may not be on the disk.
func (l *lockFile) witnessed(epoch uint64) bool {
	return l.before.Boot != "" && l.before.Boot == l.me.Boot && l.before.Epoch == epoch && epoch != 0
}

// claimed is our epoch's file, once we have an epoch.
func (l *lockFile) claimed() *markFile {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}

// release frees the lock. The pulse says so first, lest a candidate takes the process, which goes on, for a frozen owner. An owner that was
// fenced leaves the file to its successor.
func (l *lockFile) release(fenced bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	if !fenced {
		l.me.PID, l.me.Start = 0, 0
		err = l.write()
	}
	return errors.Join(err, l.file.Close())
}
