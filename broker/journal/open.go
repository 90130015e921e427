package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// Open waits for the lock of dir (until ctx ends), claims the next epoch, recovers by calling visit for each record in LSN order, starts a
// new segment with Head's entries, and returns the running journal. visit returns the record's Account, as it was given to Append.
//
// dir is made, mode 0700, if it does not exist. What Open returned through visit is durable, and so are the entries of Head when it returns; Durable
// is not called for them. visit may be nil where the store is known to hold no records; if it does, Open fails.
func Open(ctx context.Context, dir string, opt Options, visit func(Record) (Account, error)) (*Journal, error) {
	opt = opt.withDefaults()
	if visit == nil {
		visit = func(Record) (Account, error) {
			return Account{}, errors.New("there is a record, and nobody to visit it")
		}
	}
	if opt.Follow && opt.Reset == nil {
		return nil, errors.New("open journal: Follow without Reset")
	}
	d, err := openDisk(dir, opt.before)
	if err != nil {
		return nil, err
	}
	log := opt.Logger.With("store", dir)
	var f *follower
	if opt.Follow {
		f = newFollower(d, opt, log, visit)
	}
	flush, waiting := newProbe(dir, log, opt.Metrics), opt.Waiting
	flush.done = opt.Tested
	opt.flush = flush
	opt.Waiting = func(o Owner) {
		flush.start()
		waiting(o)
	}
	lock, err := acquire(ctx, d, opt, log, f)
	if err != nil {
		flush.end()
		f.close()
		d.close()
		return nil, err
	}
	warm, cold := f.finish()
	flush.pause()
	j, err := own(d, lock, opt, log, visit, warm, cold)
	if err != nil {
		return nil, err
	}
	flush.start()
	return j, nil
}

// own goes from the lock to a running journal, or gives the lock back.
func own(d *disk, lock *lockFile, opt Options, log *slog.Logger, visit func(Record) (Account, error), c *copied, cold string) (*Journal, error) {
	j := &Journal{opt: opt, log: log, disk: d, lock: lock, down: make(chan struct{}), quit: make(chan struct{})}
	j.stopBeat = sync.OnceFunc(func() { close(j.quit) })
	j.work.L, j.chores.L, j.ready.L = &j.mu, &j.mu, &j.mu
	j.others = observer{lister: lister{disk: d}}
	j.candidates.Store(&[]Candidate{})
	j.workers.Add(1)
	go j.beatLoop() // from here on: recovery may take longer than others are patient
	if err := j.start(visit, c, cold); err != nil {
		close(j.down)
		return nil, j.stop(err, "")
	}
	return j, nil
}

// start goes from the lock to a running journal.
func (j *Journal) start(visit func(Record) (Account, error), c *copied, cold string) error {
	begin := time.Now()
	top, used, err := claims(j.disk)
	if err != nil {
		return err
	}
	if j.store, err = loadStore(j.disk, used); err != nil {
		return err
	}
	if err := j.claim(top); err != nil {
		return err
	}
	claimed := time.Now()
	r, err := j.recover(visit, c, cold)
	if err != nil {
		return err
	}
	replayed := time.Now()
	if err := j.takeOver(r); err != nil {
		return err
	}
	for range r.cuts {
		j.opt.Metrics.cut()
	}
	j.log.Info("journal is open", "uuid", j.store, "epoch", j.epoch, "records", r.records, "copied", j.stats.Copied, "cold", j.stats.Cold,
		"segments", j.stats.Segments, "by-index", r.viaIndex, "next", j.cur.next, "claim", claimed.Sub(begin), "replay", replayed.Sub(claimed), "begin", time.Since(replayed))
	return nil
}

// claim makes the next epoch ours, which it is already where the lock was stolen.
func (j *Journal) claim(top uint64) (err error) {
	if j.mark = j.lock.claimed(); j.mark != nil {
		j.epoch = j.mark.epoch
		return nil
	}
	if !j.opt.noLock && !j.lock.ours(j.disk) { // we were stopped since we had it, and would fence whoever lives
		return fmt.Errorf("%w: there is another %s while its next owner was about to claim an epoch", ErrFenced, j.disk.at(lockName))
	}
	if j.epoch, j.mark, err = claim(j.disk, top); err != nil {
		return err
	}
	if err := j.lock.own(j.mark); err != nil || j.opt.noLock {
		return err
	}
	_, _ = j.lock.keep(j.disk) // a thief may have replaced it meanwhile; if this fails the heart-beat tries again, and says so
	return nil
}

// recover reads the log behind the copy, or all of it where there is none or where it does not fit.
func (j *Journal) recover(visit func(Record) (Account, error), c *copied, cold string) (*recovery, error) {
	last, err := lastMark(j.disk, j.epoch)
	if err != nil {
		return nil, err
	}
	left := j.lock.left(last, j.epoch)
	begin := func() *recovery {
		return &recovery{disk: j.disk, log: j.log, store: j.store, ours: j.epoch, mark: last, visit: visit, concerns: j.opt.Concerns,
			exact: left || j.lock.witnessed(last.epoch), left: left}
	}
	r := begin()
	r.copy = c
	err = r.run()
	if err != nil && c != nil { // whatever it was, all of the log has the last word
		c, cold = nil, err.Error()
		j.log.Warn("the warm copy is of no use", "why", cold)
		j.opt.Reset()
		r = begin()
		err = r.run()
	}
	if err != nil {
		if fenced := j.mark.fenced(); errors.Is(fenced, ErrFenced) { // whatever it met: that may be the successor's work
			return nil, fmt.Errorf("%w; before that: %v", fenced, err) // and so it is not what would end a server
		}
		return nil, r.blame(err)
	}
	if j.stats.Cold = cold; c != nil {
		j.stats.Copied = c.records
	}
	return r, nil
}

// claims looks at names only: what is in the files may be relied on after the claim, not before.
func claims(d *disk) (top uint64, used bool, err error) {
	names, err := d.list()
	if err != nil {
		return 0, false, fmt.Errorf("list store: %w", err)
	}
	for _, name := range names {
		p, isSegment := parsePlace(name)
		e, isEpoch := parseEpoch(name)
		top = max(top, p.epoch, e)
		used = used || isSegment || isEpoch
	}
	return top, used, nil
}

// takeOver begins the first segment of our epoch and starts to serve. Its head is durable, and the epoch found to be ours after that, before files
// that the log does not need are removed.
func (j *Journal) takeOver(r *recovery) error {
	j.ledger = r.ledger
	for _, a := range j.ledger.list {
		if st, err := os.Stat(j.disk.at(a.indexName())); err == nil && r.indexes[a.place] {
			a.index = max(1, st.Size()) // deleted with the segment, whatever is in it
		}
	}
	j.cur.next = r.last.last + 1
	j.stats.Recovered, j.stats.CutBytes = r.records, r.cut
	j.mu.Lock()
	defer j.mu.Unlock()
	list, err := j.head()
	if err != nil {
		return err
	}
	j.begin(place{j.epoch, r.top + 1}, r.last, list)
	b := j.fill
	j.fill = nil
	j.cur.headEnd = b.last
	setFlags(b.buf[b.tail:b.tail+b.tailLen], b.seed, flagOpens)
	j.ledger.opened(int64(b.tail)) // as whoever reads it will say
	if err := j.firstFile(b); err != nil {
		return fmt.Errorf("begin segment: %w", err)
	}
	j.mu.Unlock()
	_, err = j.commit(b)
	j.mu.Lock()
	if err != nil {
		return err
	}
	for _, name := range r.litter {
		j.jan.litter = append(j.jan.litter, doomed{name: name})
	}
	j.settle(b)
	j.workers.Add(1)
	go j.janitorLoop()
	go j.commitLoop()
	return nil
}

// firstFile makes the file of our first segment, without zeros, which would delay the take-over. Where the disk is full it is a small one: what the last
// owner had prepared is still there, and can be removed, and made anew, only when ours was begun. The caller holds mu.
func (j *Journal) firstFile(b *batch) error {
	j.mu.Unlock()
	s, err := j.reserve(b.id, max(b.room, int64(len(b.buf))))
	small := isFull(err) && !errors.Is(err, errFinal)
	if small {
		j.log.Warn("the disk is full: the first segment will be a small one", "err", err)
		s, err = j.reserve(b.id, (int64(len(b.buf))+smallRoom+pageSize-1)&^(pageSize-1))
	}
	j.mu.Lock()
	if err != nil {
		return err
	}
	b.room, j.cur.size, j.cur.limit = s.size, s.size, s.size
	j.jan.claimed, j.jan.spares, j.jan.full = b.id-1, []*spare{s}, small // its little room is for what frees space, until there is more
	return nil
}

// beatLoop shows life until the journal is closed or cannot go on. It also looks for a higher epoch, so that an owner without traffic hears of its
// successor.
func (j *Journal) beatLoop() {
	defer j.workers.Done()
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-j.quit:
			return
		case <-tick.C:
		}
		if err := j.pulse(); err != nil {
			j.mu.Lock()
			j.setTrouble(err)
			j.mu.Unlock()
			return
		}
		if n%2 == 0 {
			j.observe()
		}
	}
}

func (j *Journal) pulse() error {
	if m := j.lock.claimed(); m != nil {
		if err := j.checked.look(m); err != nil {
			return err
		}
		if !j.opt.noLock {
			j.keepLock()
		}
	}
	return j.lock.beat()
}

// keepLock sees to it that candidates find our lock. That it fails is said once: the store stays ours.
func (j *Journal) keepLock() {
	mended, err := j.lock.keep(j.disk)
	switch {
	case mended:
		j.log.Warn("LOCK was another file, or gone: an owner that lives has put its own back")
	case err != nil && !j.lockless:
		j.log.Error("LOCK is another file, or gone, and cannot be put back: other candidates may take the store over", "err", err)
	}
	j.lockless = err != nil
}

// observe looks who stands for the store. What cannot be seen is not there: nothing but an order rests on it.
func (j *Journal) observe() {
	if err := j.others.look(time.Now()); err != nil {
		j.log.Debug("cannot see the candidates", "err", err)
		return
	}
	list := ordered(j.others.alive(), j.others.store, "")
	j.candidates.Store(&list)
}

// Candidates are those who stand for the store now, in the order in which they would take it over. It does no I/O: the list is up to 100 ms old.
func (j *Journal) Candidates() []Candidate { return slices.Clone(*j.candidates.Load()) }

// Close syncs what is pending, stops, and releases the lock. It is the orderly end of an owner. It returns what Failed was told, if anything,
// else what went wrong after the last record was safe: ErrFenced if the store was another's before the lock was released, for then nothing that rests on
// owning it may be let out any more, though all that was acknowledged is there.
func (j *Journal) Close() error { return j.HandOver("") }

// HandOver is Close by an owner who wants the candidate with that node name to be the next, "" for whoever comes first. The others wait for it, up to
// a second, as long as it lives.
func (j *Journal) HandOver(successor string) error {
	j.closing.Do(func() {
		j.mu.Lock()
		j.closed = true
		if j.err == nil {
			j.err = ErrClosed
		}
		j.work.Signal()
		j.ready.Signal()
		j.mu.Unlock()
		<-j.down
		j.mu.Lock()
		failed := j.err
		j.mu.Unlock()
		if errors.Is(failed, ErrClosed) {
			failed = nil
		}
		j.closeErr = j.stop(failed, successor)
	})
	return j.closeErr
}

// stop ends what Open started, but for the commit goroutine, which is down, and adds what goes wrong to the error that is known.
//
// Where somebody waits for the store the lock goes first. What the janitor is at then, and ends in its own time, are steps of an owner that has lost
// its store, which may come as late as they like. What it prepared is left to the successor, who may just be looking at it.
func (j *Journal) stop(failed error, successor string) error {
	j.stopBeat()
	if failed == nil {
		failed = j.checked.look(j.mark)
	}
	j.mu.Lock()
	j.jan.stop = true
	j.chores.Signal()
	last := j.last(failed)
	fenced := errors.Is(failed, ErrFenced) || errors.Is(j.trouble, ErrFenced)
	j.mu.Unlock()
	var released error
	awaited := successor != "" || fenced || len(j.Candidates()) > 0
	if awaited {
		released = j.lock.release(fenced, last, successor)
	}
	j.workers.Wait()
	j.opt.flush.end()
	if failed == nil && (fenced || !awaited || !errors.Is(j.trouble, ErrFenced)) { // that there is a successor by now is what we wanted
		failed = j.trouble // too late for Failed: all that was appended is durable
	}
	if awaited {
		closeSpares(j.jan.spares)
	} else {
		failed = errors.Join(failed, closeAndRemove(j.disk, j.jan.spares)) // prepared for nothing
	}
	if j.file != nil {
		j.file.Close()
	}
	if j.mark != nil {
		j.mark.file.Close()
	}
	j.reading.close()
	j.opt.Metrics.state(0, 0, 0, 0)
	j.opt.Metrics.alive(0)
	if !awaited {
		if failed == nil { // what had to be done first may have taken any time
			failed = j.checked.look(j.mark)
		}
		released = j.lock.release(errors.Is(failed, ErrFenced) || errors.Is(j.trouble, ErrFenced), last, successor)
	}
	j.disk.close()
	return errors.Join(failed, released)
}

// last is the end of the log as an owner vouches for it that ends in good order: all up to there is durable, it has acknowledged nothing beyond and
// never will. 0 if it cannot. The caller holds mu.
func (j *Journal) last(failed error) LSN {
	if failed != nil || j.trouble != nil || j.mark == nil {
		return 0
	}
	return LSN(j.durable.Load())
}

func closeSpares(spares []*spare) {
	for _, s := range spares {
		s.file.Close()
	}
}
