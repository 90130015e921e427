package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"
)

const (
	rankDelay     = 50 * time.Millisecond  // from one place to the next, long enough that a busy machine keeps the order
	successorWait = time.Second            // for whom the last owner named, as long as it lives
	warmPlaces    = 2                      // that keep a warm copy: the one that will most likely take over, and the next
	listenEvery   = 10 * time.Millisecond  // to the owner's pulse
	listEvery     = 10 * time.Millisecond  // while the lock is free
	lookEvery     = 20 * time.Millisecond  // at the name of LOCK
	accessEvery   = time.Second            // whether we may still write here
	turnWait      = 100 * time.Millisecond // for another store of this process; one whose directory hangs must not keep all others
)

// acquire polls for the lock until it has it or ctx ends. Polling, because a blocked wait for a lock can neither be cancelled nor ranked. Meanwhile
// it follows the log with f, for half of the time between two looks at the lock at most, so that they do not come later for it.
func acquire(ctx context.Context, d *disk, opt Options, log *slog.Logger, f *follower) (*lockFile, error) {
	me, err := selfPulse(opt.Node)
	if err != nil && opt.Takeover == Kill {
		return nil, fmt.Errorf("take over by kill: %w", err)
	}
	me.Admin = opt.Standing().bounded().Admin
	file, err := openLock(d)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	c := candidate{disk: d, opt: opt, log: log, me: me, file: file, follow: f, watch: watch{after: opt.TakeoverAfter, looked: now}}
	c.here = newPresence(d, opt.Node, log)
	c.others = observer{lister: lister{disk: d, self: fileFor(opt.Node)}}
	defer c.here.end()
	if c.top, _, err = claims(d); err == nil {
		var stolen *lockFile
		if stolen, err = c.wait(ctx); stolen != nil {
			return stolen, nil
		}
	}
	if err != nil {
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

// observer knows the candidates of a store.
type observer struct {
	lister
	roster
	store string // its UUID, once there is one
}

// look reads the candidates' files again.
func (o *observer) look(now time.Time) error {
	if o.store == "" {
		if u, err := readStore(o.lister.disk); err == nil {
			o.store = u.String()
		}
	}
	seen, err := o.list(now)
	if err != nil {
		return err
	}
	o.roster.look(now, seen)
	return nil
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
	top    uint64 // epoch that is known

	here      *presence
	others    observer
	list      []Candidate // with us, in order
	told      []Candidate
	successor string    // whom the last owner named
	free      time.Time // since when the lock has been seen free; zero: it is not
	heard     time.Time // the owner's pulse
	listed    time.Time // when the others were looked at
	looked    time.Time // at the name of LOCK
	access    time.Time
}

// wait returns when the lock is ours: c.file is locked, or, where it was stolen, what it returns is.
func (c *candidate) wait(ctx context.Context) (stolen *lockFile, err error) {
	tick := time.NewTicker(c.opt.LockPoll)
	defer tick.Stop()
	for {
		now := time.Now()
		if err := c.stand(now); err != nil {
			return nil, err
		}
		got, err := c.try(now)
		if err != nil || got {
			return nil, err
		}
		if now.Sub(c.heard) >= listenEvery {
			c.heard = now
			if l, err := c.listen(ctx, now); err != nil || l != nil {
				return l, err
			}
		}
		if c.follow.poll() && ctx.Err() == nil {
			continue // it is behind: to wait would only make a take-over longer
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w", c.disk.at(lockName), context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// listen takes in the owner's pulse, and does what is to be done about an owner that has none.
func (c *candidate) listen(ctx context.Context, now time.Time) (stolen *lockFile, err error) {
	p, err := readPulse(c.file)
	if c.watch.look(now, p, err == nil) {
		c.opt.Waiting(c.watch.owner())
	}
	switch {
	case c.opt.Takeover == Kill && c.watch.frozen():
		c.end()
	case c.due():
		return c.steal(ctx, now)
	}
	return nil, nil
}

// stand shows that we live, and looks who else does. Whoever cannot write here has no business here.
func (c *candidate) stand(now time.Time) error {
	if c.opt.noLock {
		return nil
	}
	if now.Sub(c.access) >= accessEvery {
		c.access = now
		if err := c.disk.writable(); err != nil {
			return fmt.Errorf("stand for the store: %w", err)
		}
	}
	if now.Sub(c.looked) >= lookEvery {
		c.looked = now
		if err := c.relook(); err != nil {
			return err
		}
		if c.opt.Takeover == Lease {
			if err := c.claimed(); err != nil {
				return err
			}
		}
	}
	if !now.Before(c.here.next) {
		if err := c.here.show(now, c.opt.Standing(), c.follow.warm(now)); err != nil {
			return err
		}
	}
	if now.Sub(c.listed) >= showEvery {
		return c.relist(now)
	}
	return nil
}

// relist looks who stands for the store now, and in which order.
func (c *candidate) relist(now time.Time) error {
	c.listed = now
	if err := c.others.look(now); err != nil {
		return fmt.Errorf("look for candidates: %w", err)
	}
	c.order()
	if c.follow != nil {
		c.follow.allow(now, c.here.card.Own || c.place() < warmPlaces)
	}
	if !slices.EqualFunc(c.list, c.told, Candidate.like) {
		c.told = slices.Clone(c.list)
		c.opt.Candidates(slices.Clone(c.list))
	}
	return nil
}

func (c *candidate) order() {
	list := c.others.alive()
	if c.here.file != nil {
		list = append(list, c.here.candidate())
	}
	c.list = ordered(list, c.others.store, c.successor)
}

// relook follows the name of LOCK, which may be another file by now. Where there is none its owner puts it back.
func (c *candidate) relook() error {
	path := c.disk.at(lockName)
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return wrapLock(err)
	}
	if sameFile(c.file, path) {
		return nil
	}
	f, err := openLock(c.disk)
	if err != nil {
		return err
	}
	c.file.Close()
	c.file, c.free = f, time.Time{}
	return nil
}

// try takes the lock if it is free and it is our turn.
func (c *candidate) try(now time.Time) (bool, error) {
	if c.opt.noLock {
		c.opt.Won()
		return true, nil
	}
	free, err := lockIsFree(c.file)
	if err != nil || !free {
		c.free, c.successor = time.Time{}, ""
		return false, wrapLock(err)
	}
	if c.free.IsZero() {
		c.free = now
		if p, err := readPulse(c.file); err == nil && p.PID == 0 {
			c.successor = p.Successor
		}
	}
	if now.Sub(c.listed) >= listEvery || c.free.Equal(now) {
		if err := c.relist(now); err != nil {
			return false, err
		}
	}
	unlock, err := c.turn(now, now.Sub(c.free) < c.delay()+turnWait)
	if unlock == nil {
		return false, err
	}
	defer unlock()
	if now.Sub(c.free) < c.delay() {
		return false, nil
	}
	got, err := tryLock(c.file)
	if err != nil || !got {
		return false, wrapLock(err)
	}
	// Somebody may have put another file in its place: then this lock is on a ghost and the next candidate would lock another file.
	if sameFile(c.file, c.disk.at(lockName)) {
		c.opt.Won()
		return true, nil
	}
	f, err := openLock(c.disk)
	if err != nil {
		return false, err
	}
	c.file.Close()
	c.file, c.free = f, time.Time{}
	return false, nil
}

// turn keeps other stores of this process from taking a step between our look at its standing and Won. unlock is nil when one of them is at it, and we
// may wait for it, or there is an error.
func (c *candidate) turn(now time.Time, wait bool) (unlock func(), err error) {
	unlock = func() {}
	if c.opt.Turn.TryLock() {
		unlock = c.opt.Turn.Unlock
	} else if wait {
		return nil, nil
	}
	if err := c.here.show(now, c.opt.Standing(), c.here.card.Warm); err != nil {
		unlock()
		return nil, err
	}
	c.order()
	return unlock, nil
}

// delay is how long the lock must have been free for us to take it.
func (c *candidate) delay() time.Duration {
	place := c.place()
	delay := time.Duration(place) * rankDelay
	if place > 0 && c.successor != "" && c.list[0].Node == c.successor {
		delay += successorWait
	}
	return delay
}

// place is how many go before us. Whom the others do not see goes last, and waits for whoever keeps it from being seen.
func (c *candidate) place() int {
	if c.here.file == nil {
		return max(1, len(c.list))
	}
	return placeOf(c.list, c.opt.Node)
}

// like says whether nothing has changed that others would want to know.
func (c Candidate) like(d Candidate) bool {
	c.Beat = d.Beat
	return c == d
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
	if c.killed == p || p.Boot != c.me.Boot || p.Space != c.me.Space || p.PID == c.me.PID {
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
