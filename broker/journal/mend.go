package journal

import (
	"errors"
	"fmt"
	"path/filepath"
)

// typeLost is the type of a record that stands where a repair gave one up. Its payload is zeros, as many as fill the room. It is one of the journal's own, so
// that those who read on see nothing of it but the number, which is not used again.
const typeLost = 0x8f

// mend puts the store in order. Each step leaves a store that is damaged as before or less so, and the last segment, without which the log has no end, comes
// last: whoever finds the store in order finds all of it in order.
func (m *mender) mend() error {
	c := m.check
	if !c.named {
		if err := m.disk.replace(storeFile, []byte(c.store.String()+"\n")); err != nil {
			return fmt.Errorf("name the store: %w", err)
		}
	}
	for _, p := range c.survey.strange {
		if err := m.disk.rename(p.name(), filepath.Join(quarantineName, p.name())); err != nil {
			return fmt.Errorf("move a foreign file away: %w", err)
		}
	}
	var before []sealed
	for _, e := range c.survey.chain {
		if len(e.gaps) > 0 {
			if err := m.rewrite(e, before); err != nil {
				return fmt.Errorf("rewrite %s: %w", e.name(), err)
			}
			m.opt.Logger.Warn("gave up what could not be read", "segment", e.name(), "places", len(e.gaps))
		}
		before = append(before, e.sealedAs())
	}
	return nil
}

// rewrite puts a whole segment in the place of a damaged one.
func (m *mender) rewrite(e *examined, before []sealed) error {
	tmp := e.name() + ".tmp"
	if err := m.disk.remove(tmp); err != nil {
		return err
	}
	f, err := m.disk.create(tmp)
	if err != nil {
		return err
	}
	w := &rewriter{disk: m.disk, to: f, e: e, before: before, seed: seed(e.id, e.epoch)}
	err = w.all(m.check.store)
	if err == nil {
		err = m.disk.sync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, m.disk.remove(tmp))
	}
	if err := m.mark.fenced(); err != nil { // whoever claims an epoch now has not met the new segment
		return errors.Join(err, m.disk.remove(tmp))
	}
	if err := errors.Join(m.disk.remove(e.indexName()), m.disk.syncDir()); err != nil { // it shows what is given up
		return err
	}
	if err := m.disk.rename(tmp, e.name()); err != nil {
		return err
	}
	return m.disk.syncDir()
}

// rewriter writes one segment.
type rewriter struct {
	disk   *disk
	to     *file
	off    int64 // in to
	e      *examined
	before []sealed // the segments before it
	seed   uint32
	from   *window // the damaged file; nil if it is gone
}

func (w *rewriter) put(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), windowBytes)
		if err := w.disk.write(w.to, b[:n], w.off); err != nil {
			return err
		}
		w.off += int64(n)
		b = b[n:]
	}
	return nil
}

func (w *rewriter) all(store uuid) error {
	e := w.e
	if !e.absent {
		f, err := w.disk.open(e.name())
		if err != nil {
			return err
		}
		defer f.Close()
		w.from = &window{src: &patchy{src: f}, size: e.size}
	}
	o := e.opening
	if !e.header {
		o = opening{store: store, place: e.place, first: e.first}
		if n := len(w.before); n > 0 {
			o.prev = w.before[n-1]
		}
	}
	b := make([]byte, segmentHeader)
	putOpening(b, o)
	if err := w.put(b); err != nil {
		return err
	}
	done := int64(segmentHeader)
	for _, g := range e.gaps {
		if g.count(e) == 0 { // the header
			continue
		}
		off := max(g.off, segmentHeader)
		if err := w.copy(done, off); err != nil {
			return err
		}
		if err := w.fill(g, g.end-off); err != nil {
			return err
		}
		done = g.end
	}
	return w.copy(done, e.end)
}

// copy takes over what is whole.
func (w *rewriter) copy(from, to int64) error {
	for off := from; off < to; off += windowBytes {
		b, err := w.from.at(off, int(min(windowBytes, to-off)))
		if err != nil {
			return err
		}
		if err := w.put(b); err != nil {
			return err
		}
	}
	return nil
}

// fill writes what stands for the records in a gap, over exactly its room: what follows it must stay where it is. Only in the last segment it may take another
// room: nothing knows yet where in there anything lies. Where the gap holds the segment's list of others, that is written anew.
func (w *rewriter) fill(g gap, room int64) error {
	if b, _, ok := w.e.restored(g); ok {
		return w.put(b)
	}
	last := !w.e.sealed
	lsn := max(g.from, w.e.first)
	if last && lsn == w.e.first {
		b := appendRecord(nil, w.seed, head{typ: typeManifest, flags: flagOpens, epoch: w.e.epoch, lsn: lsn}, appendManifest(nil, w.before))
		if err := w.put(b); err != nil {
			return err
		}
		room -= int64(len(b))
		lsn++
	}
	n := int64(g.to + 1 - lsn)
	if last && (g.end >= w.e.end || room < n*recordHeader) {
		room = n * recordHeader
	}
	var b []byte
	for ; n > 0; n-- {
		size := int64(recordHeader)
		if spare := room - n*recordHeader; spare > 0 {
			size += min(spare, maxPayload)
		}
		h := head{typ: typeLost, epoch: w.e.epoch, lsn: lsn}
		if n == 1 && last {
			h.flags = flagOpens // the record that said so may have been among them
		}
		b = appendRecord(b, w.seed, h, make([]byte, size-recordHeader))
		if len(b) >= windowBytes || n == 1 {
			if err := w.put(b); err != nil {
				return err
			}
			b = b[:0]
		}
		room -= size
		lsn++
	}
	return nil
}
