package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

// stretch is a segment, as far as it may be read. The end of the last one moves with the mark.
type stretch struct {
	sealed
	file *os.File
	sc   *scanner // once it is being read
}

var (
	errNotYet = errors.New("the log does not show what its mark proves")
	errStale  = errors.New("the log is another than the one that was followed")
)

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

// look looks for what was proved since.
func (f *follower) look(now time.Time) error {
	k, err := f.mark()
	if err != nil {
		return err
	}
	if k.lsn > f.proof.lsn {
		if err = f.prove(k); !errors.Is(err, errNotYet) {
			return err
		} // a successor may have deleted that segment already
	}
	if now.Before(f.heir) {
		return err
	}
	f.heir = now.Add(heirEvery)
	k, failed := f.successor()
	if failed != nil {
		return failed
	}
	if k.epoch <= f.epoch {
		return err
	}
	return f.prove(k)
}

// successor is the mark of the newest later epoch that has one.
func (f *follower) successor() (k mark, err error) {
	top := f.epoch
	for there := true; there; {
		if there, err = f.disk.exists(epochName(top + 1)); err != nil {
			return k, fmt.Errorf("look for a later epoch: %w", err)
		}
		if there {
			top++
		}
	}
	if top == f.epoch {
		return k, nil
	}
	if k, err = lastMark(f.disk, top+1); err != nil || k.epoch <= f.epoch {
		return k, err
	}
	places, err := f.r.list()
	if err != nil {
		return k, err
	}
	return k, mended(f.disk, f.epoch, k.epoch+1, places)
}

// mark reads the mark of the epoch that is followed.
func (f *follower) mark() (mark, error) {
	n, err := f.marks.ReadAt(f.slots[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return mark{}, fmt.Errorf("read mark: %w", err)
	}
	return parseMark(f.slots[:n], f.epoch), nil
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

func closeAll(list []*stretch) {
	for _, s := range list {
		s.file.Close()
	}
}
