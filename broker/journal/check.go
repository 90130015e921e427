package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Verdict says what Open would do with a store.
type Verdict string

// Verdicts.
const (
	Whole   Verdict = "ok"        // Open succeeds, with every record
	Torn    Verdict = "torn tail" // Open succeeds, and cuts what a crash left of records that were never acknowledged
	Damaged Verdict = "damaged"   // something acknowledged cannot be read; Report.Opens says whether Open refuses for it, with ErrDamaged
)

// ErrNoStore says that a directory holds no store.
var ErrNoStore = errors.New("there is no journal")

// CheckOptions of Check, Dump and Repair. All may be nil.
type CheckOptions struct {
	// Verify is asked about each record of the caller, in order. Its error is a problem of that record, as it would be to whoever recovers from it.
	Verify func(Record) error
	// Concerns names whom a record concerns, for the report of damage. The record may be damaged, and its payload only its beginning.
	Concerns func(Record) []string
	// Progress is told, now and then, how many octets were read of those that are to be read.
	Progress func(done, total int64)
}

// Report is what Check finds.
type Report struct {
	Dir        string          `json:"dir"`
	Store      string          `json:"store,omitempty"` // its UUID
	Verdict    Verdict         `json:"verdict"`
	Opens      bool            `json:"opens"`           // whether Open succeeds: where an index stands for a segment, it does not see damage that only Read meets
	Owner      *OwnerReport    `json:"owner,omitempty"` // an owner that lives: the report is of a moment
	Epochs     []EpochReport   `json:"epochs"`
	Segments   []SegmentReport `json:"segments"` // of the log, in order
	First      LSN             `json:"first"`    // records of the log
	Last       LSN             `json:"last"`
	Records    uint64          `json:"records"`  // the caller's, whole
	Given      uint64          `json:"given_up"` // places of records that a repair gave up
	Octets     int64           `json:"bytes"`    // of all whole records
	Tail       *TailReport     `json:"torn_tail,omitempty"`
	Prepared   []string        `json:"prepared,omitempty"` // files that a living owner made ahead
	Litter     []string        `json:"litter,omitempty"`   // files that are no part of the log, and that Open removes or ignores
	Quarantine []FileReport    `json:"quarantine,omitempty"`
	Problems   []Problem       `json:"problems,omitempty"`
}

// OwnerReport is what LOCK says of an owner that holds it.
type OwnerReport struct {
	Epoch uint64 `json:"epoch"`
	Node  string `json:"node"`
	PID   int    `json:"pid"`
}

// EpochReport is one epoch and its mark: how far it acknowledged when it wrote it last. An epoch whose owner never got that far has none.
type EpochReport struct {
	Epoch   uint64  `json:"epoch"`
	LSN     LSN     `json:"acknowledged,omitempty"`
	Segment Segment `json:"segment,omitempty"`
	End     int64   `json:"end,omitempty"`
}

// SegmentReport is one segment of the log.
type SegmentReport struct {
	File    string  `json:"file"`
	Segment Segment `json:"segment"`
	Epoch   uint64  `json:"epoch"`
	First   LSN     `json:"first"`
	Last    LSN     `json:"last"`
	End     int64   `json:"end"`        // where its log ends
	Size    int64   `json:"file_bytes"` // of the file
	Records int     `json:"records"`    // the caller's, whole
	Own     int     `json:"own"`        // the journal's
	Given   int     `json:"given_up,omitempty"`
	Index   string  `json:"index,omitempty"` // what is wrong with its index, or "ok"; empty if there is none
	Octets  int64   `json:"bytes"`           // of the whole records
}

// TailReport is a torn tail: what a crash left of records that were never acknowledged. Open cuts it.
type TailReport struct {
	File    string `json:"file"`
	Offset  int64  `json:"offset"`
	Octets  int64  `json:"bytes"`
	Records int    `json:"records"` // whole ones in it
	From    LSN    `json:"from"`
	To      LSN    `json:"to,omitempty"`
}

// FileReport is a file that nobody needs but a person.
type FileReport struct {
	File   string `json:"file"`
	Octets int64  `json:"bytes"`
}

// Problem is one thing that is damaged. To is below From where no record is hit.
type Problem struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	End    int64  `json:"end,omitempty"` // where the log goes on
	From   LSN    `json:"from,omitempty"`
	To     LSN    `json:"to,omitempty"`
	Reason string `json:"reason"`
	Hits   Hits   `json:"hits,omitempty"`
}

// Err is nil if nothing is damaged, else the first problem as a DamageError.
func (r *Report) Err() error {
	if r.Verdict != Damaged {
		return nil
	}
	if len(r.Problems) == 0 {
		return fmt.Errorf("%w: %s", ErrDamaged, r.Dir)
	}
	p := r.Problems[0]
	return &DamageError{File: filepath.Join(r.Dir, p.File), Offset: p.Offset, From: p.From, To: p.To, Reason: p.Reason, Hits: p.Hits}
}

// Check reads a store and changes nothing. It needs no lock: it works on a copy, and beside an owner, of whose log it then sees a moment. Its verdict is that of
// recovery itself, which runs first; then every record of every segment is read, beyond any damage, so that the report is complete. The error is about what
// kept Check from finding out, among them ErrNoStore.
func Check(dir string, opt CheckOptions) (r *Report, err error) {
	for range checkTries { // an owner that lives may delete a segment under our hands
		if r, err = inspectStore(dir, opt, nil); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNoStore) {
			break
		}
	}
	return r, err
}

const checkTries = 8

// Dump shows each whole record of the log to visit, in order, the journal's own too, and reports like Check. The error may be visit's.
func Dump(dir string, opt CheckOptions, visit func(Record) error) (*Report, error) {
	return inspectStore(dir, opt, visit)
}

func inspectStore(dir string, opt CheckOptions, visit func(Record) error) (*Report, error) {
	c, err := newChecker(dir, opt)
	if err != nil {
		return nil, err
	}
	defer c.disk.close()
	if err := c.judge(); err != nil {
		return nil, err
	}
	if err := c.read(visit); err != nil {
		return nil, err
	}
	c.progress(c.total)
	return c.report, nil
}

// checker is one run of Check.
type checker struct {
	disk              *disk
	opt               CheckOptions
	store             uuid
	named             bool // store is known
	report            *Report
	verdict           error // of recovery
	rec               *recovery
	survey            *survey
	done, told, total int64
}

var errReadOnly = errors.New("a check must not change the store")

func newChecker(dir string, opt CheckOptions) (*checker, error) {
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w in %s", ErrNoStore, dir)
		}
		return nil, err
	}
	d, err := openDisk(dir, func(op) error { return errReadOnly })
	if err != nil {
		return nil, err
	}
	c := &checker{disk: d, opt: opt, report: &Report{Dir: dir}}
	if err := c.inventory(); err != nil {
		d.close()
		return nil, err
	}
	return c, nil
}

// inventory looks at names, the lock, and the store's name.
func (c *checker) inventory() error {
	names, err := c.disk.list()
	if err != nil {
		return fmt.Errorf("list store: %w", err)
	}
	used := false
	for _, name := range names {
		_, segment := parsePlace(name)
		_, epoch := parseEpoch(name)
		used = used || segment || epoch
		if st, err := os.Stat(c.disk.at(name)); err == nil && segment {
			c.total += 2 * st.Size()
		}
	}
	if !used && !slices.Contains(names, storeFile) {
		return fmt.Errorf("%w in %s", ErrNoStore, c.disk.path)
	}
	if c.report.Owner, err = livingOwner(c.disk); err != nil {
		return err
	}
	return c.name(names, used)
}

// name finds out which store this is: STORE says so, and some segment must say so too.
func (c *checker) name(names []string, used bool) (err error) {
	c.store, err = loadStore(c.disk, used)
	c.named = err == nil
	said := c.said(names)
	reason := ""
	switch {
	case errors.Is(err, errReadOnly): // it would have been made now: nothing was ever stored
		return fmt.Errorf("%w in %s", ErrNoStore, c.disk.path)
	case errors.Is(err, ErrDamaged):
		reason = strings.TrimPrefix(err.Error(), ErrDamaged.Error()+": ")
	case err != nil:
		return err
	case len(said) > 0 && !slices.Contains(said, c.store):
		reason = fmt.Sprintf("it says that this is store %s, the segments say %s", c.store, said[0])
	}
	if reason != "" {
		c.problem(Problem{File: storeFile, From: 1, Reason: reason})
		c.named, c.store = false, uuid{}
		if len(said) == 1 {
			c.store = said[0]
		}
	}
	c.report.Store = c.store.String()
	return nil
}

// said lists the stores that segments say they belong to.
func (c *checker) said(names []string) (list []uuid) {
	for _, name := range names {
		p, ok := parsePlace(name)
		if !ok {
			continue
		}
		f, err := c.disk.open(name)
		if err != nil {
			continue
		}
		b := make([]byte, sectorSize)
		_, err = f.ReadAt(b, 0)
		f.Close()
		if err != nil {
			continue
		}
		if o, err := parseOpening(b, uuid(b[16:32]), p); err == nil && !slices.Contains(list, o.store) {
			list = append(list, o.store)
		}
	}
	return list
}

func (c *checker) problem(p Problem) { c.report.Problems = append(c.report.Problems, p) }

// livingOwner is who holds the lock, nil if nobody does.
func livingOwner(d *disk) (*OwnerReport, error) {
	f, err := os.Open(d.at(lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at lock: %w", err)
	}
	defer f.Close()
	free, err := lockIsFree(f)
	if err != nil {
		return nil, wrapLock(err)
	}
	if free {
		return nil, nil
	}
	p, _ := readPulse(f) // what cannot be read is still held
	return &OwnerReport{Epoch: p.Epoch, Node: p.Node, PID: p.PID}, nil
}

// Beside an owner that writes, what is read first may be older than what is read next, and then looks like damage. Damage stays where it is.
const (
	looks     = 8
	lookPause = 20 * time.Millisecond
)

// judge runs recovery as Open would, but for its changes.
func (c *checker) judge() error {
	var before *DamageError
	for range looks {
		err := c.recover()
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		c.verdict = err
		if err == nil || c.report.Owner == nil {
			return nil
		}
		var now *DamageError
		if errors.As(err, &now) && before != nil && now.File == before.File && now.Offset == before.Offset && now.From == before.From {
			return nil
		}
		before = now
		time.Sleep(lookPause)
	}
	if before == nil {
		return fmt.Errorf("check %s: its owner changes it too fast to be read: %w", c.disk.path, c.verdict)
	}
	return nil
}

// recover is one run of recovery.
func (c *checker) recover() error {
	top, err := c.epochs()
	if err != nil {
		return err
	}
	r := &recovery{disk: c.disk, log: slog.New(slog.DiscardHandler), store: c.store, ours: top + 1, look: true, concerns: c.opt.Concerns}
	c.rec = r
	if r.mark, err = lastMark(c.disk, r.ours); err != nil {
		return err
	}
	r.exact = c.exact(r.mark.epoch)
	c.done = 0
	r.visit = func(rec Record) (Account, error) {
		c.progress(c.done + int64(recordSize(rec.Size)))
		return Account{}, nil
	}
	return r.run()
}

// exact is what Open would know of the mark.
func (c *checker) exact(epoch uint64) bool {
	l := lockFile{}
	l.me, _ = selfPulse("")
	if f, err := os.Open(c.disk.at(lockName)); err == nil {
		l.before, _ = readPulse(f)
		f.Close()
	}
	return l.witnessed(epoch)
}

// epochs lists them with their marks.
func (c *checker) epochs() (top uint64, err error) {
	names, err := c.disk.list()
	if err != nil {
		return 0, fmt.Errorf("list store: %w", err)
	}
	c.report.Epochs = nil
	for _, name := range names {
		if p, ok := parsePlace(name); ok {
			top = max(top, p.epoch)
		}
		e, ok := parseEpoch(name)
		if !ok {
			continue
		}
		top = max(top, e)
		b, err := os.ReadFile(c.disk.at(name))
		if err != nil {
			return 0, fmt.Errorf("read epoch %d: %w", e, err)
		}
		k := parseMark(b, e)
		c.report.Epochs = append(c.report.Epochs, EpochReport{Epoch: e, LSN: k.lsn, Segment: k.segment, End: k.end})
	}
	slices.SortFunc(c.report.Epochs, func(a, b EpochReport) int { return int(int64(a.Epoch) - int64(b.Epoch)) })
	return top, nil
}

// progressStep is how often Progress is told.
const progressStep = 4 << 20

func (c *checker) progress(done int64) {
	c.done = done
	if c.opt.Progress == nil || c.done-c.told < progressStep && c.done != c.total {
		return
	}
	c.told = c.done
	c.opt.Progress(min(c.done, c.total), c.total)
}
