package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// Where an owner keeps its lock and shows no life, and cannot be ended because it is on another machine, a candidate with Takeover Lease takes the store
// all the same. In this order:
//
//	claim exactly the epoch above the highest one (O_EXCL: of any number of thieves one wins, for the others it is a sign of life)
//	→ make LOCK-<epoch>, lock it, beat in it → is there a higher epoch? → rename it to LOCK → is there one now? → read, as any owner
//
// The store is as safe as ever, for nothing of that rests on the lock: the claim is what fences the old owner, whenever it wakes. It beats into a file that has no
// name any more, and finds the epoch before it acknowledges or deletes another thing. What the lease costs is this: an owner that was only slow is
// fenced, and what it had sent to clients and they had not confirmed comes again.
//
// LOCK is for peace among those who live, and the rename keeps it that: the old file's lock, which the frozen owner has, is not waited for any more. Whoever locked the
// old file looks whether it still has its name (try, start), and an owner whose file has lost it while no higher epoch is there puts one in its place
// (keep). That mends all that a thief can do that was itself stopped between its claim and its rename: it would put a LOCK in place that nobody else holds,
// under the feet of an owner that lives.

// lockPrefix begins the names of files that are to be LOCK.
const lockPrefix = lockName + "-"

func lockNameOf(epoch uint64) string { return fmt.Sprintf("%s%08d", lockPrefix, epoch) }

func parseLockName(name string) (epoch uint64, ok bool) {
	s, ok := strings.CutPrefix(name, lockPrefix)
	e, err := strconv.ParseUint(s, 10, 32)
	return e, ok && err == nil && lockNameOf(e) == name
}

// lateWait bounds the time for which a thief that came too late keeps the LOCK that it put in place.
const lateWait = time.Second

// claimed looks for an epoch that somebody has claimed since: that is life, though no heart-beat shows it.
func (c *candidate) claimed() error {
	for {
		there, err := c.disk.exists(epochName(c.top + 1))
		if err != nil {
			return fmt.Errorf("look for a later epoch: %w", err)
		}
		if !there {
			return nil
		}
		c.top++
		c.watch.alive()
	}
}

// due says whether the owner has been silent for so long that it is our turn to take the store from it. A store that nobody has begun stays with whoever is
// about to: there is nothing to serve in it, and two that make a UUID would be two stores.
func (c *candidate) due() bool { return c.overdue(0) }

func (c *candidate) overdue(by time.Duration) bool {
	return c.opt.Takeover == Lease && c.free.IsZero() && c.top > 0 && c.others.store != "" &&
		c.watch.silent >= c.opt.TakeoverAfter+time.Duration(c.place())*rankDelay+by
}

// steal takes the store from an owner that has the lock. l is nil if somebody else was faster.
func (c *candidate) steal(ctx context.Context, now time.Time) (l *lockFile, err error) {
	unlock, err := c.turn(now, !c.overdue(turnWait))
	if unlock == nil {
		return nil, err
	}
	defer unlock()
	if !c.due() { // with others counted that this process has taken meanwhile
		return nil, nil
	}
	before := c.watch.pulse
	m, err := claimOne(c.disk, c.top+1)
	if errors.Is(err, fs.ErrExist) {
		return nil, c.claimed()
	}
	if err != nil {
		return nil, err
	}
	c.top++
	if l, err = putLock(c.disk, c.me, m); err == nil {
		err = m.fenced()
	}
	if err == nil {
		l.before, l.stolen = before, true
		c.log.Warn("took the store from an owner that keeps the lock and shows no life", "node", before.Node, "pid", before.PID, "epoch", before.Epoch,
			"silent", c.watch.silent, "ours", m.epoch)
		c.file.Close()
		c.opt.Won()
		return l, nil
	}
	m.file.Close()
	if errors.Is(err, ErrFenced) {
		c.log.Warn("came too late to take the store from a silent owner", "err", err)
		err = c.claimed()
	}
	if l != nil {
		c.leave(ctx, l)
	}
	return nil, err
}

// leave lets go of a LOCK that should not be where it is, once the owner has put its own there: if it were free before, the next candidate would
// take it for a sign that there is no owner.
func (c *candidate) leave(ctx context.Context, l *lockFile) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for end := time.Now().Add(lateWait); time.Now().Before(end) && ctx.Err() == nil && sameFile(l.file, c.disk.at(lockName)); {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	l.file.Close()
}

// putLock puts a new LOCK in place, locked, by whoever has claimed the epoch of m.
func putLock(d *disk, me pulse, m *markFile) (*lockFile, error) {
	me.Epoch = m.epoch
	name := lockNameOf(m.epoch)
	f, err := os.OpenFile(d.at(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("replace lock: %w", err)
	}
	l := &lockFile{file: f, me: me, epoch: m}
	got, err := tryLock(f)
	if err == nil && !got {
		err = fmt.Errorf("%s is locked", d.at(name))
	}
	if err == nil {
		err = l.beat()
	}
	if err == nil {
		err = m.fenced()
	}
	if err == nil {
		err = os.Rename(d.at(name), d.at(lockName))
	}
	if err != nil {
		_ = os.Remove(d.at(name)) // or the next owner does
		f.Close()
		return nil, fmt.Errorf("replace lock: %w", err)
	}
	return l, nil
}

// ours says whether LOCK is still the file that we have locked.
func (l *lockFile) ours(d *disk) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return sameFile(l.file, d.at(lockName))
}

// keep puts our LOCK back in place where it is another file or gone. The caller has just found that there is no higher epoch; if one came since, its owner
// does the same, and we are fenced at the next look.
func (l *lockFile) keep(d *disk) (mended bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released || sameFile(l.file, d.at(lockName)) {
		return false, nil
	}
	n, err := putLock(d, l.me, l.epoch)
	if err != nil {
		return false, err
	}
	l.file.Close()
	l.file, l.me = n.file, n.me
	return true, nil
}
