package journal

import (
	"errors"
	"fmt"
	"io"
)

// found is a segment that may be the end of the log, as its file alone shows it.
type found struct {
	place
	opening  opening
	begun    bool // header and opening group are whole
	manifest []sealed
	drops    []Segment
	end      int64 // behind the last record that is whole and in its place; 0 if the segment was never begun
	last     LSN   // that record
	batch    int64 // where the write began that this record was part of; all before it had been synced
	beyond   beyond
	proof    LSN // the highest record that the file proves to have been synced
}

func (r *recovery) openSegment(p place) (*scanner, io.Closer, error) {
	f, err := r.disk.open(p.name())
	if err != nil {
		return nil, nil, fmt.Errorf("open segment: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("open segment: %w", err)
	}
	return newScanner(f, st.Size(), p, r.buf), f, nil
}

// inspect reads a segment as far as it is whole, and what lies behind.
func (r *recovery) inspect(p place) (found, error) {
	c := found{place: p}
	sc, f, err := r.openSegment(p)
	if err != nil {
		return c, err
	}
	defer f.Close()
	defer func() { r.buf = sc.buf }()
	if known := r.copy; known != nil && known.at.place == p { // what was read once is not read again
		c = known.at
		sc.off, sc.next = known.off, known.next
		err = c.read(sc)
	} else {
		err = c.open(sc, r.store)
	}
	if err != nil {
		return c, r.unreadable(sc, err)
	}
	from := int64(0)
	if c.begun {
		from = sc.off
		c.end = sc.off
	}
	c.beyond, err = r.search(sc, from, r.complete(&c))
	if err != nil {
		return c, r.unreadable(sc, err)
	}
	c.proof = max(c.proof, c.beyond.durable)
	return c, nil
}

// search looks at what lies behind the end of the log: all of it, or where that is only for the record, no more than a batch that was being
// written, and that only if it begins like one.
func (r *recovery) search(sc *scanner, from int64, complete bool) (b beyond, err error) {
	if !complete {
		return sc.search(from)
	}
	whole := sc.size
	sc.size = min(whole, from+pageSize)
	if b, err = sc.search(from); err == nil && b.end > 0 {
		sc.size = min(whole, from+maxBatch)
		b, err = sc.search(from)
	}
	return b, err
}

// complete says that nothing acknowledged can be missing from c, so that what lies behind its end matters only to the curious. To read a
// segment to its end would be most of the time that a take-over takes.
func (r *recovery) complete(c *found) bool {
	if !r.exact {
		return false
	}
	if c.begun {
		return c.epoch == r.mark.epoch && c.last >= r.mark.lsn
	}
	return c.id > r.mark.segment
}

// open reads header and records.
func (c *found) open(sc *scanner, store uuid) error {
	b, err := sc.at(0, sectorSize)
	if err != nil {
		return err
	}
	if len(b) < sectorSize {
		return nil
	}
	c.opening, err = parseOpening(b, store, c.place)
	if errors.Is(err, errTorn) {
		return nil
	}
	if err != nil {
		return err
	}
	c.last, c.proof = c.opening.first-1, c.opening.first-1
	sc.next = c.opening.first
	return c.read(sc)
}

// read reads records up to the first that is not whole and in its place.
func (c *found) read(sc *scanner) error {
	for {
		off := sc.off
		h, payload, ok, err := sc.step()
		if err != nil || !ok {
			return err
		}
		if err := c.take(off, h, payload); err != nil {
			return err
		}
	}
}

// take books one record. The records of an opening group count only when the group is whole.
func (c *found) take(off int64, h head, payload []byte) (err error) {
	if h.lsn == h.durable+1 { // the first of its batch
		c.batch = off
	}
	if h.lsn == c.opening.first {
		c.batch = 0 // it was written with the header
		if h.typ != typeManifest {
			return fmt.Errorf("the first record has type %d, not a manifest's", h.typ)
		}
		c.manifest, err = parseManifest(payload)
	}
	if h.typ == typeDrop {
		var ids []Segment
		ids, err = parseDrop(payload)
		c.drops = append(c.drops, ids...)
	}
	c.begun = c.begun || h.flags&flagOpens != 0
	c.last, c.proof = h.lsn, max(c.proof, h.durable)
	return err
}

// replay visits the records of a segment, all of which must be whole.
func (r *recovery) replay(s sealed) error {
	sc, f, err := r.openSegment(s.place)
	if err != nil {
		return err
	}
	defer f.Close()
	defer func() { r.buf = sc.buf }()
	bad := func(reason string) error {
		return &DamageError{File: r.disk.at(s.name()), Offset: sc.off, From: sc.next, To: s.last, Reason: reason}
	}
	sc.next = s.first
	b, err := sc.at(0, sectorSize)
	if err != nil {
		return r.unreadable(sc, err)
	}
	if len(b) < sectorSize || sc.size < s.end {
		return bad("the file is too short")
	}
	o, err := parseOpening(b, r.store, s.place)
	if err != nil {
		return bad(err.Error())
	}
	if o.first != s.first {
		return bad("header and manifest differ")
	}
	if known := r.copy; known != nil && known.at.place == s.place {
		sc.off, sc.next = known.off, known.next
	} else {
		r.ledger.begin(s.place, s.first)
		if done, err := r.byIndex(s, sc.size); done || err != nil {
			return err
		}
	}
	for sc.off < s.end { // what a stale owner added behind is no part of the log
		at := sc.off
		h, payload, ok, err := sc.step()
		if err != nil {
			return r.unreadable(sc, err)
		}
		if !ok {
			return bad("a record is unreadable")
		}
		if h.flags&flagOpens != 0 {
			r.ledger.opened(at)
		}
		if err := r.deliver(s, at, h, payload); err != nil {
			return err
		}
	}
	if sc.next != s.last+1 {
		return bad("records are missing at the end")
	}
	r.ledger.seal(s.last, s.end, sc.size)
	return nil
}

func (r *recovery) deliver(s sealed, off int64, h head, payload []byte) error {
	if h.typ >= typeManifest {
		return nil
	}
	at := Position{LSN: h.lsn, Segment: s.id, Offset: off}
	return r.told(s, Record{Position: at, Epoch: h.epoch, Type: h.typ, Size: h.size, Payload: payload})
}

// told visits a record.
func (r *recovery) told(s sealed, rec Record) error {
	a, err := r.visit(rec)
	if err != nil {
		return fmt.Errorf("replay record %d at offset %d of %s: %w", rec.LSN, rec.Offset, r.disk.at(s.name()), err)
	}
	r.ledger.note(s.id, rec.Size, a)
	r.records++
	return nil
}

func (r *recovery) unreadable(sc *scanner, err error) error {
	return fmt.Errorf("%w: %s, from record %d: %w", ErrDamaged, r.disk.at(sc.name()), sc.next, err)
}

// quarantine copies octets that are no part of the log to a place where a person can look at them. They were never acknowledged, so a
// failure here is said and stops nothing.
func (r *recovery) quarantine(c found, from int64) {
	if c.beyond.end <= from {
		return
	}
	n := c.beyond.end - from
	r.cuts++
	r.cut += n
	name := fmt.Sprintf("quarantine/%s.%d.epoch-%08d", c.place.name(), from, r.ours)
	log := r.log.With("segment", c.place.name(), "offset", from, "bytes", n, "records", c.beyond.records, "last", c.beyond.last, "copy", name)
	if err := r.copyAway(c, from, n, name); err != nil {
		log.Warn("cut a torn tail that was never acknowledged; it could not be copied", "err", err)
		return
	}
	log.Warn("cut a torn tail that was never acknowledged")
}

func (r *recovery) copyAway(c found, from, n int64, name string) error {
	sc, f, err := r.openSegment(c.place)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := r.disk.mkdir("quarantine"); err != nil {
		return err
	}
	out, err := r.disk.create(name)
	if err != nil {
		return err
	}
	for off := int64(0); off < n && err == nil; off += windowBytes {
		var b []byte
		b, err = sc.at(from+off, int(min(windowBytes, n-off)))
		if err == nil {
			err = r.disk.write(out, b, off)
		}
	}
	if err == nil {
		err = r.disk.sync(out)
	}
	return errors.Join(err, out.Close())
}
