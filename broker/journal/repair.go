package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const quarantineName = "quarantine"

// Errors of Repair.
var (
	ErrAcceptLoss   = errors.New("repair gives up what cannot be read, and was not told to accept that")
	ErrOwned        = errors.New("store has an owner that lives")
	ErrIrreparable  = errors.New("journal cannot be repaired")
	errNothingKnown = errors.New("neither STORE nor any segment's header can be read: copy STORE from a backup of this store, then try again")
)

// RepairOptions of Repair.
type RepairOptions struct {
	CheckOptions        // Verify is not asked
	AcceptLoss   bool   // without it Repair does nothing
	Node         string // who we are, for LOCK
	Logger       *slog.Logger
	before       func(op) error
}

// Repaired is what a repair did. What the caller makes of it: whatever the records that were given up began is lost, and whatever they ended lives again.
type Repaired struct {
	Before *Report `json:"before"`          // what it found
	Epoch  uint64  `json:"epoch,omitempty"` // that it claimed; 0 if there was nothing to do
	Given  []Loss  `json:"given_up,omitempty"`
	List   string  `json:"list,omitempty"` // file that holds this list
	After  *Report `json:"after,omitempty"`
}

// Loss is what a repair gave up in one place. The records that the range held are not told apart if more than their number is unknown.
type Loss struct {
	Problem
	Records  uint64   `json:"records"`
	Restored int      `json:"restored,omitempty"` // records that were there too, and that the segment's index had whole: they are not lost
	Octets   int64    `json:"bytes"`
	Copies   []string `json:"copies,omitempty"` // of what was there, in the store's directory
}

// Repair makes a damaged store one that opens, and gives up what cannot be read. It needs the store for itself: while an owner lives it returns ErrOwned.
// Where the store is not damaged it does nothing.
//
// What is unreadable is copied to quarantine; then each damaged segment is written anew beside the old, with all that is whole where it was what
// its index has of the rest, and a record of typeLost for each that is lost, so that numbers and positions stay what they are, and put in its place by a rename. The last segment is the last
// one: a crash before leaves a store that is still damaged, and what is whole in it, for another repair. The store's next epoch is claimed first, so that
// an owner that lost its lock cannot go on.
func Repair(dir string, opt RepairOptions) (*Repaired, error) {
	if !opt.AcceptLoss {
		return nil, ErrAcceptLoss
	}
	opt.Verify = nil
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("%w in %s", ErrNoStore, dir)
	}
	d, err := openDisk(dir, opt.before)
	if err != nil {
		return nil, err
	}
	defer d.close()
	m := &mender{disk: d, opt: opt, done: &Repaired{}}
	c, err := newChecker(dir, opt.CheckOptions) // before LOCK is made, which would make any directory look like a store
	if err != nil {
		return nil, err
	}
	c.disk.close()
	if m.lock, err = seize(d, opt.Node); err != nil {
		return nil, err
	}
	defer m.beat()()
	if err := m.run(); err != nil {
		return m.done, fmt.Errorf("repair %s: %w", dir, err)
	}
	return m.done, nil
}

// seize takes the lock, or says who has it.
func seize(d *disk, node string) (*lockFile, error) {
	me, _ := selfPulse(node[:min(len(node), maxNode)]) // what is missing there matters to those who end frozen owners only
	f, err := openLock(d)
	if err != nil {
		return nil, err
	}
	got, err := tryLock(f)
	if err == nil && !got {
		p, _ := readPulse(f)
		err = fmt.Errorf("%w: node %q, pid %d, epoch %d: stop it first", ErrOwned, p.Node, p.PID, p.Epoch)
	}
	l := &lockFile{file: f, me: me}
	if err == nil {
		l.before, _ = readPulse(f)
		err = l.beat()
	}
	if err != nil {
		f.Close()
		return nil, wrapLock(err)
	}
	return l, nil
}

// mender is one run of Repair.
type mender struct {
	disk  *disk
	opt   RepairOptions
	lock  *lockFile
	mark  *markFile // of the epoch that was claimed
	check *checker
	done  *Repaired
}

// beat shows life to candidates until the function that it returns is called, which lets go of the lock.
func (m *mender) beat() (release func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(beatEvery)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				_ = m.lock.beat() // a candidate that is to end frozen owners needs it, nothing else does
			}
		}
	})
	return func() {
		close(quit)
		wg.Wait()
		if m.mark != nil {
			m.mark.file.Close()
		}
		_ = m.lock.release(false, 0, "")
	}
}

// look checks the store that we have locked.
func (m *mender) look() (*Report, error) {
	c, err := newChecker(m.disk.path, m.opt.CheckOptions)
	if err != nil {
		return nil, err
	}
	defer c.disk.close()
	c.report.Owner = nil // that is us
	if err := c.judge(); err != nil {
		return nil, err
	}
	if err := c.read(nil); err != nil {
		return nil, err
	}
	m.check = c
	return c.report, nil
}

func (m *mender) run() (err error) {
	if m.done.Before, err = m.look(); err != nil || m.done.Before.Verdict != Damaged {
		return err
	}
	if err := m.possible(); err != nil {
		return err
	}
	top, err := m.check.epochs()
	if err != nil {
		return err
	}
	if m.done.Epoch, m.mark, err = claim(m.disk, top); err != nil {
		return err
	}
	if err := m.lock.own(m.mark); err != nil {
		return err
	}
	if m.done.Before, err = m.look(); err != nil { // again: this time nobody can change it any more
		return err
	}
	if err := m.possible(); err != nil {
		return err
	}
	if err := m.save(); err != nil {
		return err
	}
	if err := m.sign(); err != nil {
		return err
	}
	if err := m.mend(); err != nil {
		return err
	}
	if m.done.After, err = m.look(); err != nil {
		return err
	}
	if err := m.done.After.Err(); err != nil {
		return fmt.Errorf("%w: what was written reads otherwise: %w", ErrIrreparable, err)
	}
	return nil
}

// maxFiller bounds the octets that may be needed to fill up the end of the log.
const maxFiller = 1 << 30

// possible says why this store cannot be repaired.
func (m *mender) possible() error {
	c := m.check
	if c.survey.newer {
		return fmt.Errorf("%w: %w: use that version", ErrIrreparable, errVersion)
	}
	if c.store == (uuid{}) {
		return fmt.Errorf("%w: %w", ErrIrreparable, errNothingKnown)
	}
	for _, e := range c.survey.chain {
		for _, g := range e.gaps {
			n := g.count(e)
			if e.sealed && n > 0 && (g.end-max(g.off, segmentHeader))/recordHeader < n || n > maxFiller/recordHeader {
				return fmt.Errorf("%w: %s at offset %d: %d records do not fit into %d octets", ErrIrreparable, e.name(), g.off, n, g.octets())
			}
		}
	}
	return nil
}

// sign writes a mark for our epoch: nothing up to the end of the log that we are about to make is a torn tail. It also tells those who follow the log that their
// copy is of another one, for there is no segment of our epoch.
func (m *mender) sign() error {
	n := len(m.check.survey.chain)
	if n == 0 {
		return nil
	}
	last := m.check.survey.chain[n-1]
	err := m.mark.put(mark{lsn: last.last, segment: last.id, end: last.end})
	if err == nil {
		err = m.disk.sync(m.mark.file)
	}
	if err != nil {
		return fmt.Errorf("write mark: %w", err)
	}
	return nil
}

// save copies what is about to be given up, and the list of it.
func (m *mender) save() error {
	if err := m.disk.mkdir(quarantineName); err != nil {
		return err
	}
	for _, e := range m.check.survey.chain {
		for _, g := range e.gaps {
			p := Problem{File: e.name(), Offset: g.off, End: g.end, From: g.from, To: g.to, Reason: g.reason, Hits: g.hits}
			loss := Loss{Problem: p, Records: uint64(g.count(e)), Octets: g.octets()}
			if _, n, ok := e.restored(g); ok {
				loss.Records, loss.Restored = loss.Records-uint64(n), n
			}
			if copied, err := m.copyAway(e, g.off, g.end); err != nil {
				return err
			} else if copied != "" {
				loss.Copies = append(loss.Copies, copied)
			}
			m.done.Given = append(m.done.Given, loss)
		}
		if n := len(e.gaps); n > 0 && !e.sealed && e.tail.end > max(e.end, e.gaps[n-1].end) { // never acknowledged: cut, as ever
			if _, err := m.copyAway(e, e.end, e.tail.end); err != nil {
				return err
			}
		}
	}
	for _, b := range m.check.survey.unsure {
		m.done.Given = append(m.done.Given, Loss{Problem: b.problem(), Records: uint64(b.last + 1 - b.first)})
	}
	for _, p := range m.check.survey.strange {
		m.done.Given = append(m.done.Given, Loss{Problem: Problem{File: p.name(), From: 1, Reason: "it is no segment of this store"}, Copies: []string{filepath.Join(quarantineName, p.name())}})
	}
	b, err := json.MarshalIndent(m.done, "", "  ")
	if err != nil {
		return err
	}
	m.done.List = filepath.Join(quarantineName, fmt.Sprintf("repair.epoch-%08d.json", m.done.Epoch))
	f, err := m.disk.create(m.done.List)
	if err != nil {
		return fmt.Errorf("write list of losses: %w", err)
	}
	err = m.disk.write(f, append(b, '\n'), 0)
	if err == nil {
		err = m.disk.sync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write list of losses: %w", err)
	}
	if err := m.disk.syncDir(); err != nil {
		return err
	}
	return syncPath(m.disk.at(quarantineName))
}

// copyAway copies a range of a segment to quarantine, if there is anything in it.
func (m *mender) copyAway(e *examined, from, to int64) (name string, err error) {
	if to = min(to, e.size); e.absent || from >= to {
		return "", nil
	}
	src, err := m.disk.open(e.name())
	if err != nil {
		return "", err
	}
	defer src.Close()
	w := window{src: &patchy{src: src}, size: to}
	var out *file
	for off := from; off < to; off += windowBytes {
		b, err := w.at(off, int(min(windowBytes, to-off)))
		if err != nil {
			return "", err
		}
		if out == nil && allZero(b) {
			continue
		}
		if out == nil {
			name = filepath.Join(quarantineName, fmt.Sprintf("%s.%d.epoch-%08d", e.name(), off, m.done.Epoch))
			if out, err = m.disk.create(name); err != nil {
				return "", fmt.Errorf("copy to quarantine: %w", err)
			}
			defer out.Close()
			from = off
		}
		if err := m.disk.write(out, b, off-from); err != nil {
			return "", fmt.Errorf("copy to quarantine: %w", err)
		}
	}
	if out == nil {
		return "", nil
	}
	if err := m.disk.sync(out); err != nil {
		return "", fmt.Errorf("copy to quarantine: %w", err)
	}
	return name, nil
}
