package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
)

// A follower keeps a warm copy: while a candidate waits for the lock it visits the owner's records as they become durable, so that at a take-over
// only those of the last moments are left to read. It changes nothing on the disk.
//
// # Why the copy holds nothing that the log does not
//
// A record is visited only if a mark proves it. An owner A puts a mark when the batch was synced and after that no later epoch was found. So where a
// mark of A says n, A's log up to n was on the disk before any successor B made its epoch file, hence before B read: B's log begins with A's log up to n at
// least. This is true of the octets of the mark whenever they are read and whenever they were written: a pause of A of any length, between check and mark
// or between any other two steps, and any number of successors meanwhile, leave it true. A follower is asked for no step in time either: it may be
// stopped between reading a mark and reading what the mark proves, for proof does not age.
//
// So, with A frozen, B in its place and A woken: what A appends behind B's cut lies behind A's last mark, for A's next check finds B's epoch. No mark covers it,
// the follower never reads that far (it reads no octet beyond the mark), and it follows B as soon as B's mark is there, from the end that B's header gives
// to A's log. It looks for B in the epochs that exist, which is sure because epoch files are never deleted.
//
// This rests on the disk having kept what was synced, and on nobody having repaired the store meanwhile. So it is checked as well: each later segment that is
// met names all older ones with their ends, and one that contradicts what was visited (a cut before it, another end, a segment unknown here, a gap in the
// numbers) makes the copy worthless, and so does a repair, which leaves all of this as it was (see mended). Then Options.Reset is called, and the copy is
// begun again, later. The same check comes at the take-over, against the log as recovery finds it behind the claimed epoch (recovery.resume): nothing is
// taken from the copy that this log does not name.
//
// # Why it misses nothing
//
// Records are visited in order and without a gap, but for the deletions that recovery would know too: the copy begins with the segments that the last one
// names and that were not deleted by then, as proved, and from that point on every record of every segment is visited, those included that are deleted while
// the follower is behind (it has their files open; if it does not it begins again). To leave one out would be wrong: it might hold the end of
// something that was visited in another.
type follower struct {
	disk   *disk
	log    *slog.Logger
	visit  func(Record) (Account, error)
	reset  func()
	tell   func(Copy)
	budget time.Duration // of one poll: the lock is not looked at meanwhile

	// the copy
	r     *recovery // its ledger and count; nil: there is no copy
	epoch uint64    // of the newest mark
	marks *os.File  // the epoch's file
	slots [markSlots * sectorSize]byte
	proof mark
	start LSN        // the proof when the chain of segments was settled
	trail []*stretch // segments still to be read, in order; the last is where the log goes on
	at    found      // the first of them, as far as it was read
	first bool       // it is read for its deletions yet: nothing is visited
	more  bool       // there was no time left

	heir  time.Time     // when to look for a later epoch again
	stuck time.Time     // since when something that must be there is not seen
	again time.Time     // when to begin again
	pause time.Duration // that it took
	born  time.Time     // the copy
	cold  string        // why there is none
	over  bool          // for good

	level   time.Time // when all was visited that was proved
	far     time.Time // since when others are before us; zero: they are not
	resting bool      // there is to be no copy

	shown  Copy
	showed time.Time
}

const (
	copyPause    = time.Second // before a copy is begun again; twice as long each time
	copyPauseMax = time.Minute
	copyGood     = time.Minute // a copy that lasted so long was no failure
	patience     = time.Second // with a file system that shows the mark before what it proves
	heirEvery    = 20 * time.Millisecond
	idleEvery    = 50 * time.Millisecond // where there is no log yet
	tellEvery    = 100 * time.Millisecond
	restAfter    = 3 * time.Second // others were before us
	warmFor      = 100 * time.Millisecond
	lookClock    = 32 // records between two looks at the clock
)

// visitorError is one of the caller's: to begin again would not help.
type visitorError struct{ error }

func newFollower(d *disk, opt Options, log *slog.Logger, visit func(Record) (Account, error)) *follower {
	return &follower{disk: d, log: log, visit: visit, reset: opt.Reset, tell: opt.Copied, budget: opt.LockPoll / 2, cold: "there was no owner to follow"}
}

// poll goes on for about as long as the budget allows, and says whether it left anything unread that could be read.
func (f *follower) poll() (more bool) {
	if f == nil || f.over || f.resting {
		return false
	}
	now := time.Now()
	f.more = false
	if err := f.step(now); err != nil {
		f.discard(err, now)
	}
	f.show(now)
	return f.more
}

func (f *follower) step(now time.Time) error {
	var seen error
	switch {
	case f.r == nil && now.Before(f.again):
		return nil
	case f.r == nil:
		if err := f.begin(now); err != nil || f.r == nil {
			return err
		}
	case !f.first:
		if seen = f.look(now); seen != nil && !errors.Is(seen, errNotYet) {
			return seen
		}
	}
	err := f.advance(now.Add(f.budget))
	if err == nil {
		err = seen
	}
	if err == nil && !f.more && !f.first {
		f.level = now
	}
	switch {
	case !errors.Is(err, errNotYet):
		f.stuck = time.Time{}
	case f.stuck.IsZero():
		f.stuck = now
		return nil
	case now.Sub(f.stuck) < patience:
		return nil
	}
	return err
}

// begin looks for the end of the log, as the newest mark shows it. There may be no log yet.
func (f *follower) begin(now time.Time) error {
	f.again = now.Add(idleEvery)
	store, err := readStore(f.disk)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	top, _, err := claims(f.disk)
	if err != nil {
		return err
	}
	if f.proof, err = lastMark(f.disk, top+1); err != nil || f.proof.lsn == 0 {
		return err
	}
	f.r = &recovery{disk: f.disk, log: f.log, store: store, visit: f.visit}
	f.born, f.first, f.stuck = now, true, time.Time{}
	if err := f.watch(f.proof.epoch); err != nil {
		return err
	}
	tip, err := f.open(f.proof.sealed())
	if err != nil {
		return err
	}
	f.trail = []*stretch{tip}
	return f.enter()
}

// enter begins to read the first stretch.
func (f *follower) enter() error {
	s := f.trail[0]
	o, err := s.read(f.r.store, f.r.buf)
	if err != nil {
		return err
	}
	f.at = found{place: s.place, opening: o, last: o.first - 1, proof: o.first - 1}
	if !f.first {
		f.r.ledger.begin(s.place, s.first)
	}
	return nil
}

// advance reads on until all is read that is proved, or the time is up.
func (f *follower) advance(deadline time.Time) error {
	for n := 1; ; {
		s := f.trail[0]
		for ; s.sc.off < s.end; n++ {
			if n%lookClock == 0 && time.Now().After(deadline) {
				f.more = true
				return nil
			}
			if err := f.record(s); err != nil {
				return err
			}
		}
		if s.sc.off != s.end || s.sc.next != s.last+1 {
			return fmt.Errorf("%w: %s holds record %d at %d, where %d should end it at %d", errStale, s.name(), s.sc.next-1, s.sc.off, s.last, s.end)
		}
		switch {
		case f.first:
			if err := f.chain(); err != nil {
				return err
			}
			continue
		case len(f.trail) == 1:
			return nil
		}
		if err := f.turn(); err != nil {
			return err
		}
	}
}

// record reads one and visits it.
func (f *follower) record(s *stretch) error {
	off := s.sc.off
	h, payload, ok, err := s.sc.step()
	if err != nil {
		return err
	}
	if !ok {
		s.sc.buf = s.sc.buf[:0] // read it from the file again
		return fmt.Errorf("%w: record %d at offset %d of %s", errNotYet, s.sc.next, off, s.name())
	}
	if err := f.at.take(off, h, payload); err != nil {
		return fmt.Errorf("%s: %w", s.name(), err)
	}
	if f.first {
		return nil
	}
	if h.flags&flagOpens != 0 {
		f.r.ledger.opened(off)
	}
	switch h.typ {
	case typeManifest:
		return f.agree(s)
	case typeDrop:
		ids, err := parseDrop(payload)
		f.r.ledger.without(func(a *account) bool { return slices.Contains(ids, a.id) })
		return err
	}
	if err := f.r.deliver(s.sealed, off, h, payload); err != nil {
		return visitorError{err}
	}
	return nil
}

// chain settles with which segments the copy begins: those that the log had where it was proved. They are opened at once: a file that is open can be read
// when it is deleted.
func (f *follower) chain() error {
	tip := f.trail[0]
	f.r.buf = tip.sc.buf
	f.first, f.start = false, f.proof.lsn
	var list []*stretch
	for _, m := range f.at.manifest {
		if slices.Contains(f.at.drops, m.id) {
			continue
		}
		s, err := f.open(m)
		if err != nil {
			f.trail = append(list, tip)
			return err
		}
		list = append(list, s)
	}
	f.trail = append(list, tip)
	return f.enter()
}

// turn goes on to the next stretch.
func (f *follower) turn() error {
	s := f.trail[0]
	st, err := s.file.Stat()
	if err != nil {
		return err
	}
	f.r.ledger.seal(s.last, s.end, st.Size())
	f.r.buf = s.sc.buf
	s.file.Close()
	f.trail = f.trail[1:]
	return f.enter()
}

// agree compares the list of segments that one begins with with what was visited. Segments that are not named any more were deleted. The lists
// of the chain with which the copy began are older than that: they name segments that it never saw.
func (f *follower) agree(s *stretch) error {
	if s.first <= f.start {
		return nil
	}
	return f.r.ledger.reduce(f.at.manifest, s.place)
}

// discard throws the copy away.
func (f *follower) discard(err error, now time.Time) {
	var theirs visitorError
	f.over = errors.As(err, &theirs)
	visited := f.over || f.r != nil && f.r.records > 0 // whoever could not take a record may have taken a part of it
	if now.Sub(f.born) > copyGood {
		f.pause = 0
	}
	f.drop(visited)
	f.pause = min(max(copyPause, 2*f.pause), copyPauseMax)
	f.again, f.stuck = now.Add(f.pause), time.Time{}
	f.cold = strings.TrimPrefix(err.Error(), errStale.Error()+": ")
	if f.over {
		f.log.Error("the log cannot be followed: a take-over will read all of it", "err", err)
		return
	}
	f.log.Info("warm copy is thrown away", "why", f.cold, "again", f.pause.String())
}

// allow says whether we are near enough to the store's next owner to keep a copy. One that is there outlives a few moments at a later place.
func (f *follower) allow(now time.Time, near bool) {
	switch {
	case f.over:
	case near:
		f.far, f.resting = time.Time{}, false
	case f.far.IsZero() && f.r != nil:
		f.far = now
	case !f.resting && (f.r == nil || now.Sub(f.far) >= restAfter):
		f.rest()
	}
}

// rest gives up the copy, if there is one.
func (f *follower) rest() {
	f.drop(f.r != nil && f.r.records > 0)
	f.resting, f.cold = true, "others were to take over before us"
	f.show(time.Now())
}

// drop ends the copy.
func (f *follower) drop(visited bool) {
	f.close()
	if visited {
		f.reset()
	}
}

// warm says whether the copy has what was proved a moment ago.
func (f *follower) warm(now time.Time) bool {
	return f != nil && f.r != nil && now.Sub(f.level) < warmFor
}

// show tells how far the copy is, not too often.
func (f *follower) show(now time.Time) {
	if now.Sub(f.showed) < tellEvery && !f.over {
		return
	}
	if c := f.state(); c != f.shown {
		f.shown, f.showed = c, now
		f.tell(c)
	}
}

func (f *follower) state() Copy {
	if f.r == nil {
		return Copy{Cold: f.cold}
	}
	c := Copy{Epoch: f.epoch, Proved: f.proof.lsn, Records: f.r.records}
	if !f.first {
		c.Applied = f.trail[0].sc.next - 1
	}
	return c
}

// finish hands the copy over, or says why there is none. The follower is not used again.
func (f *follower) finish() (*copied, string) {
	if f == nil {
		return nil, "the log was not followed"
	}
	defer f.close()
	if f.r != nil && !f.first {
		return f.snapshot(), ""
	}
	if f.r != nil {
		f.cold = "the log was followed for too short a time"
	}
	return nil, f.cold
}

func (f *follower) close() {
	if f == nil {
		return
	}
	closeAll(f.trail)
	if f.marks != nil {
		f.marks.Close()
	}
	f.r, f.trail, f.marks, f.level = nil, nil, nil, time.Time{}
}
