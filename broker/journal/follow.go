package journal

import (
	"errors"
	"fmt"
	"io"
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
// numbers) makes the copy worthless. Then Options.Reset is called, and it is begun again, later. The same check comes at the take-over, against the log as
// recovery finds it behind the claimed epoch (recovery.resume): nothing is taken from the copy that this log does not name.
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
	proof mark
	start LSN        // the proof when the chain of segments was settled
	trail []*stretch // segments still to be read, in order; the last is where the log goes on
	at    found      // the first of them, as far as it was read
	first bool       // it is read for its deletions yet: nothing is visited

	heir  time.Time     // when to look for a later epoch again
	stuck time.Time     // since when something that must be there is not seen
	again time.Time     // when to begin again
	pause time.Duration // that it took
	born  time.Time     // the copy
	cold  string        // why there is none
	over  bool          // for good

	shown  Copy
	showed time.Time
}

// Copy says how far a warm copy is.
type Copy struct {
	Epoch   uint64 // whose log is followed
	Applied LSN    // the last record that was visited
	Proved  LSN    // the last that its owner is known to have acknowledged
	Records uint64 // visited
	Cold    string // why there is no copy; "" where there is one
}

// stretch is a segment, as far as it may be read. The end of the last one moves with the mark.
type stretch struct {
	sealed
	file *os.File
	sc   *scanner // once it is being read
}

const (
	copyPause    = time.Second // before a copy is begun again; twice as long each time
	copyPauseMax = time.Minute
	copyGood     = time.Minute // a copy that lasted so long was no failure
	patience     = time.Second // with a file system that shows the mark before what it proves
	heirEvery    = 20 * time.Millisecond
	idleEvery    = 50 * time.Millisecond // where there is no log yet
	tellEvery    = 100 * time.Millisecond
	lookClock    = 32 // records between two looks at the clock
)

var (
	errNotYet = errors.New("the log does not show what its mark proves")
	errStale  = errors.New("the log is another than the one that was followed")
)

// visitorError is one of the caller's: to begin again would not help.
type visitorError struct{ error }

func newFollower(d *disk, opt Options, log *slog.Logger, visit func(Record) (Account, error)) *follower {
	return &follower{disk: d, log: log, visit: visit, reset: opt.Reset, tell: opt.Copied, budget: opt.LockPoll / 2, cold: "the log was not followed yet"}
}

// poll goes on for about as long as the budget allows.
func (f *follower) poll() {
	if f == nil || f.over {
		return
	}
	now := time.Now()
	if err := f.step(now); err != nil {
		f.discard(err, now)
	}
	f.show(now)
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

// sealed is the segment of the mark as far as the mark goes.
func (k mark) sealed() sealed {
	return sealed{place: place{k.epoch, k.segment}, last: k.lsn, end: k.end}
}

// watch opens the mark of an epoch.
func (f *follower) watch(epoch uint64) error {
	file, err := os.Open(f.disk.at(epochName(epoch)))
	if err != nil {
		return fmt.Errorf("open epoch: %w", err)
	}
	if f.marks != nil {
		f.marks.Close()
	}
	f.epoch, f.marks = epoch, file
	return nil
}

func (f *follower) open(s sealed) (*stretch, error) {
	file, err := os.Open(f.disk.at(s.name()))
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	return &stretch{sealed: s, file: file}, nil
}

// read begins to read a stretch. Nothing beyond its end is ever looked at: what lies there is not proved, and may still change.
func (s *stretch) read(store uuid, buf []byte) (o opening, err error) {
	s.sc = newScanner(s.file, s.end, s.place, buf)
	b, err := s.sc.at(0, sectorSize)
	if err != nil {
		return o, err
	}
	if len(b) < sectorSize {
		return o, fmt.Errorf("%w: %s ends in its header", errStale, s.name())
	}
	o, err = parseOpening(b, store, s.place)
	if errors.Is(err, errTorn) {
		return o, fmt.Errorf("%w: %s: %w", errNotYet, s.name(), err)
	}
	if err != nil {
		return o, fmt.Errorf("%s: %w", s.name(), err)
	}
	if s.first != 0 && s.first != o.first {
		return o, fmt.Errorf("%w: %s begins with record %d, not %d", errStale, s.name(), o.first, s.first)
	}
	s.first, s.sc.next = o.first, o.first
	return o, nil
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
	if err := f.at.take(h, payload); err != nil {
		return fmt.Errorf("%s: %w", s.name(), err)
	}
	if f.first {
		return nil
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
	f.r.ledger.seal(s.last, s.end)
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

// look looks for what was proved since.
func (f *follower) look(now time.Time) error {
	k, err := f.mark()
	if err != nil {
		return err
	}
	if k.lsn > f.proof.lsn {
		return f.prove(k)
	}
	if now.Before(f.heir) {
		return nil
	}
	f.heir = now.Add(heirEvery)
	top := f.epoch
	for {
		yes, err := f.disk.exists(epochName(top + 1))
		if err != nil {
			return fmt.Errorf("look for a later epoch: %w", err)
		}
		if !yes {
			break
		}
		top++
	}
	if top == f.epoch {
		return nil
	}
	if k, err = lastMark(f.disk, top+1); err != nil || k.epoch <= f.epoch {
		return err
	}
	return f.prove(k)
}

// mark reads the mark of the epoch that is followed.
func (f *follower) mark() (mark, error) {
	var b [markSlots * sectorSize]byte
	n, err := f.marks.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return mark{}, fmt.Errorf("read mark: %w", err)
	}
	return parseMark(b[:n], f.epoch), nil
}

// prove takes in a newer mark.
func (f *follower) prove(k mark) error {
	tip := f.trail[len(f.trail)-1]
	if (place{k.epoch, k.segment}) != tip.place {
		if err := f.extend(tip, k); err != nil {
			return err
		}
	} else {
		if k.end < tip.end {
			return fmt.Errorf("%w: %s grew shorter", errStale, tip.name())
		}
		tip.cut(k.sealed())
	}
	f.proof = k
	return nil
}

// cut moves the end.
func (s *stretch) cut(to sealed) {
	s.last, s.end = to.last, to.end
	if s.sc != nil {
		s.sc.size = to.end
	}
}

// extend adds the segments up to the one in which the mark lies. That one says where tip ended and what came between. It may be of another epoch.
func (f *follower) extend(tip *stretch, k mark) (err error) {
	end, err := f.open(k.sealed())
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errNotYet, err)
	}
	if err != nil {
		return err
	}
	list := []*stretch{end}
	defer func() {
		if err != nil {
			closeAll(list)
		}
	}()
	o, err := end.read(f.r.store, nil)
	if err != nil {
		return err
	}
	h, payload, ok, err := end.sc.step()
	if err != nil {
		return err
	}
	if !ok || h.typ != typeManifest {
		return fmt.Errorf("%w: %s does not begin with a manifest", errNotYet, end.name())
	}
	manifest, err := parseManifest(payload)
	if err != nil {
		return err
	}
	cut, between, err := f.since(tip, o, manifest)
	if err != nil {
		return err
	}
	for i, s := range between {
		m, err := f.open(s)
		if err != nil {
			return err
		}
		list = slices.Insert(list, i, m)
	}
	if k.epoch != f.epoch {
		if err := f.watch(k.epoch); err != nil {
			return err
		}
		f.log.Info("the log goes on in a later epoch", "epoch", k.epoch, "cut", cut.last)
	}
	end.sc = nil // read again in its turn
	tip.cut(cut)
	f.trail = append(f.trail, list...)
	return nil
}

// since finds where a later segment says that tip ended, and which segments came between. A deletion among those leaves a gap: it may have held the end of
// what was visited.
func (f *follower) since(tip *stretch, o opening, manifest []sealed) (cut sealed, between []sealed, err error) {
	i, ok := slices.BinarySearchFunc(manifest, tip.place, func(s sealed, p place) int { return s.less(p) })
	switch {
	case ok:
		cut, between = manifest[i], manifest[i+1:]
	case o.prev.place == tip.place:
		cut, between = o.prev, manifest[i:]
		cut.first = tip.first
	default:
		return cut, nil, fmt.Errorf("%w: %s does not say where %s ended", errStale, o.name(), tip.name())
	}
	if cut.first != tip.first {
		return cut, nil, fmt.Errorf("%w: %s began with record %d, not %d", errStale, tip.name(), cut.first, tip.first)
	}
	if tip.sc != nil && (tip.sc.off > cut.end || tip.sc.next > cut.last+1) {
		return cut, nil, fmt.Errorf("%w: %s was cut behind record %d, and record %d was visited", errStale, tip.name(), cut.last, tip.sc.next-1)
	}
	return cut, between, contiguous(cut.last, append(slices.Clone(between), sealed{place: o.place, first: o.first}))
}

// contiguous says whether no record is missing behind last.
func contiguous(last LSN, list []sealed) error {
	for _, s := range list {
		if s.first != last+1 {
			return fmt.Errorf("%w: records %d to %d were deleted before they were visited", errStale, last+1, s.first-1)
		}
		last = s.last
	}
	return nil
}

// discard throws the copy away.
func (f *follower) discard(err error, now time.Time) {
	visited := f.r != nil && f.r.records > 0
	if now.Sub(f.born) > copyGood {
		f.pause = 0
	}
	f.close()
	f.pause = min(max(copyPause, 2*f.pause), copyPauseMax)
	f.again, f.stuck = now.Add(f.pause), time.Time{}
	f.cold = strings.TrimPrefix(err.Error(), errStale.Error()+": ")
	if visited {
		f.reset()
	}
	var theirs visitorError
	if errors.As(err, &theirs) {
		f.over = true
		f.log.Error("the log cannot be followed: a take-over will read all of it", "err", err)
		return
	}
	f.log.Info("warm copy is thrown away", "why", f.cold, "again", f.pause.String())
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

func (f *follower) snapshot() *copied {
	s := f.trail[0]
	c := &copied{ledger: f.r.ledger, records: f.r.records, at: f.at, off: s.sc.off, next: s.sc.next}
	for _, s := range f.trail[1:] {
		c.rest = append(c.rest, s.sealed)
	}
	return c
}

func (f *follower) close() {
	if f == nil {
		return
	}
	closeAll(f.trail)
	if f.marks != nil {
		f.marks.Close()
	}
	f.r, f.trail, f.marks = nil, nil, nil
}

func closeAll(list []*stretch) {
	for _, s := range list {
		s.file.Close()
	}
}
