package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
)

// DamageError says where a journal is damaged. It wraps ErrDamaged.
type DamageError struct {
	File     string
	Offset   int64
	From, To LSN // the records that are hit, as far as is known; To is 0 when it is not
	Reason   string
	Hits     Hits // whom it concerns
}

// Error names file, offset, records, reason and whom it concerns.
func (e *DamageError) Error() string {
	to := "?"
	if e.To != 0 {
		to = fmt.Sprint(e.To)
	}
	return fmt.Sprintf("%v: %s at offset %d, records %d to %s: %s%s", ErrDamaged, e.File, e.Offset, e.From, to, e.Reason, e.Hits)
}

// Unwrap makes errors.Is(err, ErrDamaged) true.
func (e *DamageError) Unwrap() error { return ErrDamaged }

// recovery finds the log among the files of a store and replays it. It changes nothing there but the quarantine, so it can be interrupted anywhere.
type recovery struct {
	disk     *disk
	log      *slog.Logger
	store    uuid
	ours     uint64 // epoch
	mark     mark
	exact    bool // nothing beyond mark was acknowledged
	left     bool // all up to mark was durable when its owner left
	look     bool // change nothing, not even the quarantine
	all      bool // to examine: whatever is whole was acknowledged
	visit    func(Record) (Account, error)
	copy     *copied // what was visited before; nil: nothing
	buf      []byte
	concerns func(Record) []string // may be nil

	// what it finds
	ledger   ledger
	end      found          // the segment where the log ends
	above    []found        // files behind it that were never begun
	last     sealed         // where the log ends; zero in a new store
	top      Segment        // highest number of any file
	litter   []string       // files that are no part of the log
	indexes  map[place]bool // index files
	indexBuf bytes.Buffer
	viaIndex int   // segments that were not read but for their index
	cuts     int   // torn tails
	cut      int64 // octets in them
	records  uint64
}

// run replays the log. Files are ordered by epoch, then number. The last that was begun is the end of the log, and its manifest names all others
// that belong to it: whatever a stale owner began later has a lower epoch and is not named.
func (r *recovery) run() error {
	places, err := r.list()
	if err != nil {
		return err
	}
	end, above, err := r.findEnd(places)
	if err != nil {
		return err
	}
	if err := r.judge(end, above); err != nil {
		return err
	}
	r.end, r.above = end, above
	chain, err := r.chain(end, places)
	if err != nil {
		return err
	}
	if r.copy != nil {
		if chain, err = r.resume(chain, end, places); err != nil {
			return err
		}
	}
	if !r.look {
		if err := r.secure(end, above); err != nil {
			return err
		}
	}
	for _, s := range chain {
		if err := r.replay(s); err != nil {
			return err
		}
		r.last = s
	}
	return nil
}

func (r *recovery) list() ([]place, error) {
	names, err := r.disk.list()
	if err != nil {
		return nil, fmt.Errorf("list store: %w", err)
	}
	var places []place
	r.indexes = map[place]bool{}
	for _, name := range names {
		if p, ok := parsePlace(name); ok {
			places = append(places, p)
			r.top = max(r.top, p.id)
		}
		if p, ok := parseIndexName(name); ok {
			r.indexes[p] = true
		}
		if e, ok := parseLockName(name); ok && e < r.ours {
			r.litter = append(r.litter, name) // of a thief that died
		}
	}
	sortPlaces(places)
	return places, nil
}

// findEnd inspects files from the newest down to the first that was begun. Those above it were never begun, or are damaged.
func (r *recovery) findEnd(places []place) (end found, above []found, err error) {
	for _, p := range slices.Backward(places) {
		c, err := r.inspect(p)
		if errors.Is(err, fs.ErrNotExist) { // an owner that was fenced removes what it had prepared, or what it had dropped: neither is the end of the log
			continue
		}
		if err != nil {
			return end, nil, err
		}
		if c.begun {
			return c, above, nil
		}
		above = append(above, c)
	}
	return end, above, nil
}

// judge tells a torn tail from damage. Behind the last whole record lies nothing, or something that is not whole. It is what a crash left of the one
// batch that was in flight, unless anything proves that the record which is missing there had been synced: a later record written after that
// sync, a later segment, or the mark.
func (r *recovery) judge(end found, above []found) error {
	missing := end.last + 1
	proof := max(r.mark.lsn, end.beyond.durable)
	at := end
	for _, c := range above { // from the newest down
		if c.proof >= missing || r.mark.segment == c.id && r.mark.epoch == c.epoch {
			proof, at = max(proof, c.proof), c
		}
	}
	if proof < missing {
		return nil
	}
	if end.begun && end.beyond.end > 0 {
		at = end
	}
	e := &DamageError{File: r.disk.at(at.place.name()), Offset: at.end, From: missing, To: max(proof, at.beyond.last)}
	e.Reason = "acknowledged records are unreadable or gone"
	if at.id == 0 {
		e.File, e.Offset, e.Reason = r.disk.path, 0, "acknowledged records are gone with their segment"
	}
	return e
}

// secure makes durable what was read but may be in memory only (its writer died between write and sync, or the sync failed), before anyone is told of it. Torn
// tails are copied away and left where they are: the header of the next segment says where the log ends.
//
// Where the last owner left in good order it has done all that itself, if this is where it left: names were made durable before they were used.
func (r *recovery) secure(end found, above []found) error {
	if r.left && end.begun && end.place == (place{r.mark.epoch, r.mark.segment}) && end.last == r.mark.lsn && end.beyond.end == 0 {
		return nil
	}
	if end.begun {
		f, err := r.disk.reopen(end.place.name())
		if err != nil {
			return fmt.Errorf("write the end of the log again: %w", err)
		}
		if err := errors.Join(r.renew(f, end), f.Close()); err != nil {
			return fmt.Errorf("write the end of the log again: %w", err)
		}
		r.quarantine(end, end.end)
	}
	for _, c := range above {
		r.quarantine(c, 0)
	}
	if err := r.disk.syncDir(); err != nil {
		return fmt.Errorf("sync store directory: %w", err)
	}
	return nil
}

// errForgotten says that the kernel let go of what it had not written to the disk. It was not acknowledged: whoever reads again finds a log without it.
var errForgotten = errors.New("the last records were read and are not there any more; opening the store again will do")

// renew makes the last batch of the log durable, as far as it is whole, by writing it again. To sync it would do if its writer died. If its writer's sync has
// failed the kernel may hold these pages for clean: it shows them to whoever reads and writes them never, and syncs say that all is well. A write makes
// them dirty again. That is one batch at most, for one is in flight at a time: each before it was synced with success, or nothing would have followed. And it is
// nothing where the mark of the segment's owner covers it.
//
// The segment is another's, who may be awake and stale; and so may we be by now. This write changes nothing in any order with theirs: it puts octets of whole
// records where they were read, in the very file they were read from (a repair replaces the name), and such octets never change. It ends where the log
// was cut: what a stale owner appended behind that, which a candidate after us may have read, is not touched. So the look for a higher epoch only spares us
// work, and the safety of it rests on no pause being short.
func (r *recovery) renew(f *file, end found) error {
	if covered := end.place == (place{r.mark.epoch, r.mark.segment}) && end.last <= r.mark.lsn; !covered {
		b := make([]byte, end.end-end.batch)
		if _, err := f.ReadAt(b, end.batch); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if !r.same(end, b) {
			return errForgotten
		}
		if err := (&markFile{disk: r.disk, epoch: r.ours, next: epochName(r.ours + 1)}).fenced(); err != nil {
			return err
		}
		if err := r.disk.write(f, b, end.batch); err != nil {
			return err
		}
	}
	return r.disk.sync(f)
}

// same says whether b still is the last batch of end, whole. Clean pages may go at any time, and then the disk shows what it has.
func (r *recovery) same(end found, b []byte) bool {
	if end.batch == 0 {
		if o, err := parseOpening(b, r.store, end.place); err != nil || o != end.opening {
			return false
		}
		b = b[segmentHeader:]
	}
	last, seed := LSN(0), seed(end.id, end.epoch)
	for len(b) >= recordHeader {
		h, ok := parseHead(b, end.epoch)
		if !ok || recordSize(h.size) > len(b) || !checkSum(b[:recordHeader+h.size], seed) {
			return false
		}
		last, b = h.lsn, b[recordSize(h.size):]
	}
	return last == end.last && len(b) == 0
}

// chain lists the segments of the log, in order, and finds what else lies about.
func (r *recovery) chain(end found, places []place) ([]sealed, error) {
	list := slices.DeleteFunc(slices.Clone(end.manifest), func(s sealed) bool { return slices.Contains(end.drops, s.id) })
	if end.begun {
		list = append(list, sealed{place: end.place, first: end.opening.first, last: end.last, end: end.end})
	}
	needed := map[place]bool{}
	for _, s := range list {
		if _, ok := slices.BinarySearchFunc(places, s.place, place.less); !ok {
			return nil, &DamageError{File: r.disk.at(s.name()), From: s.first, To: s.last, Reason: "the segment is missing"}
		}
		needed[s.place] = true
	}
	for _, p := range places {
		if !needed[p] {
			r.litter = append(r.litter, p.name())
		}
	}
	for p := range r.indexes {
		if !needed[p] {
			r.litter = append(r.litter, p.indexName())
		}
	}
	return list, nil
}
