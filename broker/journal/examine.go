package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
)

// gap is a part of a segment that does not hold what was written there.
type gap struct {
	off, end int64 // octets, up to the next whole record or the end of the segment
	from, to LSN   // the records that were there; none if from > to
	reason   string
	hits     Hits
}

// octets that a writer put there: a gap at the end of a file may have none left.
func (g gap) octets() int64 { return g.end - g.off }

// count is how many records were there that belong to e.
func (g gap) count(e *examined) int64 {
	if g.to < e.first || g.from > g.to {
		return 0
	}
	return int64(g.to + 1 - max(g.from, e.first))
}

// examined is a segment as it reads beyond its damage. Recovery stops where the first thing is wrong; who has to say all that is wrong, or to save
// what is not, goes on.
type examined struct {
	place
	sealed  bool // its end is known from its successors
	absent  bool // there is no such file
	foreign bool // the header is whole, and is another store's or another version's
	newer   bool // the latter
	header  bool // header is readable
	opening opening
	first   LSN
	last    LSN // the last record, whole or not
	end     int64
	size    int64 // of the file
	gaps    []gap

	listed   bool // the manifest is readable
	manifest []sealed
	drops    []Segment
	opens    bool // a record says that the opening group is whole

	records   int // whole ones of the caller
	own       int // whole ones of the journal
	lost      int // placeholders of what a repair gave up
	octets    int64
	tail      beyond // what lies behind the end of the last segment
	indexSaid string // what is to be said of its index
	index     *index // if there is a gap that it may fill
	proof     LSN    // of the last segment: everything up to here was acknowledged
	concerns  map[string]bool
}

// maxConcerns bounds the names that are kept of one segment.
const maxConcerns = 1000

// sealedAs is the segment as the manifest of a successor would list it.
func (e *examined) sealedAs() sealed {
	return sealed{place: e.place, first: e.first, last: e.last, end: e.end}
}

// examiner reads one segment beyond its damage.
type examiner struct {
	*examined
	r     *recovery
	sc    *scanner
	src   *patchy
	visit func(Record) error
	known *index // nil if there is none that can be used
}

// examine reads the segment at p beyond its damage. bound is what its successors know of it; nil if it is the last one, or they cannot be read:
// then it ends with the last record that is whole or was acknowledged, and begins with first if its header does not say and first is not 0. visit may
// be nil; it is called for the journal's own records too. The error is visit's, or one of the file system other than damage.
func (r *recovery) examine(p place, bound *sealed, first LSN, visit func(Record) error) (*examined, error) {
	e := &examined{place: p, first: first, concerns: map[string]bool{}}
	if bound != nil {
		e.sealed, e.first, e.last, e.end = true, bound.first, bound.last, bound.end
	}
	x := examiner{examined: e, r: r, visit: visit}
	if bound != nil {
		x.load(*bound)
	}
	f, err := r.disk.open(p.name())
	if errors.Is(err, fs.ErrNotExist) && bound != nil {
		e.absent = true
		e.miss(gap{off: 0, end: e.end, from: e.first, to: e.last, reason: "the segment is missing"})
		return e, x.guess()
	}
	if err != nil {
		return e, fmt.Errorf("open segment: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return e, fmt.Errorf("open segment: %w", err)
	}
	e.size = st.Size()
	x.src = &patchy{src: f}
	limit := e.size
	if e.sealed {
		limit = min(limit, e.end) // what lies behind came from a stale owner
	}
	x.sc = newScanner(x.src, limit, p, r.buf)
	defer func() { r.buf = x.sc.buf }()
	if err := x.head(); err != nil {
		return e, err
	}
	if !e.foreign {
		if err := x.body(); err != nil {
			return e, err
		}
	}
	return e, x.guess()
}

// load reads the index of the segment, which knows what is hit wherever the segment does not say it any more.
func (x *examiner) load(s sealed) {
	index, err := loadIndex(x.r.disk, x.r.store, s, new(bytes.Buffer))
	switch {
	case err == nil:
		x.known, x.indexSaid = index, "ok"
	case !errors.Is(err, fs.ErrNotExist) && x.r.indexes[s.place]:
		x.indexSaid = err.Error()
	}
}

func (e *examined) miss(g gap) { e.gaps = append(e.gaps, g) }

// head reads the header, and finds the number of the first record where it cannot.
func (x *examiner) head() error {
	b, err := x.sc.at(0, sectorSize)
	if err != nil {
		return err
	}
	bad := errTorn
	if len(b) == sectorSize {
		x.opening, bad = parseOpening(b, x.r.store, x.place)
	}
	if bad == nil && x.sealed && x.first != 0 && x.opening.first != x.first {
		bad = errors.New("header and manifest differ")
	}
	if bad == nil {
		x.header, x.first = true, x.opening.first
		return nil
	}
	x.newer = errors.Is(bad, errVersion)
	x.foreign = x.newer || errors.Is(bad, errForeign)
	if x.first == 0 && !x.foreign {
		if err := x.number(); err != nil {
			return err
		}
	}
	g := gap{off: 0, end: segmentHeader, from: x.first, to: x.first - 1, reason: x.why(bad.Error())}
	if x.first == 0 {
		g.from, g.to = 1, 0
	}
	if x.foreign { // nothing in the file can be trusted
		if !x.sealed {
			x.first = max(x.first, 1)
			x.last, x.end = max(x.r.mark.lsn, x.first), segmentHeader
			g.from = x.first
		}
		g.end, g.to = max(x.end, x.size), x.last
		if x.sealed {
			g.end = x.end
		}
	}
	x.miss(g)
	return nil
}

// number takes the first record's number from the first that is whole. If that is not where the first belongs, at least the manifest came before it.
func (x *examiner) number() error {
	h, _, ok, err := x.sc.read(segmentHeader)
	if err != nil {
		return err
	}
	if ok {
		x.first = h.lsn
		return nil
	}
	_, lsn, ok, err := x.sc.resume(segmentHeader, 0, ^LSN(0))
	if err != nil || !ok {
		return err
	}
	x.first = max(lsn-1, 1)
	return nil
}

// body reads records and notes gaps.
func (x *examiner) body() error {
	sc := x.sc
	sc.next = x.first
	x.proof = max(x.r.mark.lsn, max(x.first, 1)-1)
	known := x.sealed // proof is the best that there is
	for !x.sealed || sc.off < x.end {
		at := sc.off
		h, payload, ok, err := sc.step()
		if err != nil {
			return err
		}
		if ok {
			bad := x.list(h, payload)
			if !x.sealed {
				x.proof = max(x.proof, h.durable)
			}
			if bad != "" && !x.sealed { // of the others nobody needs the lists
				x.miss(gap{off: at, end: sc.off, from: h.lsn, to: h.lsn, reason: bad})
			} else if err := x.take(h, at, payload); err != nil {
				return err
			}
			continue
		}
		if !known {
			known = true
			from := at
			if !x.opens {
				from = 0 // as recovery does where the opening group is not whole: a record that lies in the header's page is proof, too
			}
			if x.tail, err = sc.search(from); err != nil {
				return err
			}
			x.proof = max(x.proof, x.tail.durable)
			if x.r.all {
				x.proof = max(x.proof, x.tail.last)
			} else if !x.sealed && !x.opens && x.header {
				x.proof = max(x.proof, x.first) // the log ends here, so there has to be a list of segments
			}
		}
		if !x.sealed && (sc.next > x.proof || x.first == 0) {
			break // what may follow was never acknowledged
		}
		if more, err := x.skip(at); err != nil || !more {
			return err
		}
	}
	if !x.sealed {
		x.end, x.last = sc.off, max(sc.next, 1)-1
	} else if sc.next != x.last+1 {
		x.miss(gap{off: x.end, end: x.end, from: sc.next, to: x.last, reason: "records are missing at the end"})
	}
	return nil
}

// skip notes a gap at off and goes to the other side of it, if there is one.
func (x *examiner) skip(off int64) (more bool, err error) {
	sc := x.sc
	g := gap{off: off, from: sc.next, reason: x.why("a record is unreadable")}
	last := x.proof + 1
	if x.sealed {
		last = x.last
		if x.size < x.end {
			g.reason = "the file is too short"
		}
	}
	to, lsn, ok, err := sc.resume(off, sc.next, last)
	if err != nil {
		return false, err
	}
	switch {
	case ok:
		g.end, g.to = to, lsn-1
	case x.sealed:
		g.end, g.to = x.end, x.last
	default:
		g.end, g.to = max(off, x.tail.end), x.proof
		x.end, x.last = off, x.proof
	}
	x.miss(g)
	sc.off, sc.next = g.end, g.to+1
	return ok, nil
}

// why adds to a reason what the file system said.
func (x *examiner) why(reason string) string {
	if x.src.err != nil {
		return fmt.Sprintf("%s (%v)", reason, x.src.err)
	}
	return reason
}

// list reads the journal's own records of the segment that says which others there are.
func (x *examiner) list(h head, payload []byte) (bad string) {
	var err error
	switch {
	case h.lsn == x.first && h.typ != typeManifest:
		return "the first record is no manifest"
	case h.lsn == x.first:
		x.manifest, err = parseManifest(payload)
		x.listed = err == nil
	case h.typ == typeDrop:
		var ids []Segment
		ids, err = parseDrop(payload)
		x.drops = append(x.drops, ids...)
	}
	if err != nil {
		return err.Error()
	}
	x.opens = x.opens || h.flags&flagOpens != 0
	return ""
}

// take counts a whole record and shows it.
func (x *examiner) take(h head, off int64, payload []byte) error {
	x.octets += int64(recordSize(h.size))
	switch {
	case h.typ == typeLost:
		x.lost++
	case h.typ >= typeManifest:
		x.own++
	default:
		x.records++
	}
	rec := Record{Position: Position{LSN: h.lsn, Segment: x.id, Offset: off}, Epoch: h.epoch, Type: h.typ, Size: h.size, Payload: payload}
	if x.r.concerns != nil && h.typ < typeManifest && len(x.concerns) < maxConcerns {
		for _, name := range x.r.concerns(rec) {
			x.concerns[name] = true
		}
	}
	if x.visit == nil {
		return nil
	}
	return x.visit(rec)
}

// guess says whom the gaps concern, as well as it can be known.
func (x *examiner) guess() error {
	if len(x.gaps) > 0 {
		x.index = x.known
	}
	if x.r.concerns == nil {
		return nil
	}
	for i := range x.gaps {
		g := &x.gaps[i]
		if g.from > g.to {
			continue
		}
		if x.indexed(g) {
			continue
		}
		all, err := x.remains(g)
		if err != nil {
			return err
		}
		if !all {
			for name := range x.concerns {
				g.hits.add(ByNeighbours, name)
			}
		}
	}
	return nil
}

// indexed asks the index of the segment, and says whether it knew each record in a gap.
func (x *examiner) indexed(g *gap) bool {
	if x.known == nil {
		return false
	}
	known := true
	_ = x.known.each(func(rec Record) error { // asking never fails
		if rec.LSN >= g.from && rec.LSN <= g.to {
			names := x.r.concerns(rec)
			known = known && len(names) > 0
			g.hits.add(ByIndex, names...)
		}
		return nil
	})
	return known
}

// remains asks what is left of the records in a gap, one after the other as long as their headers are plausible. It reports whether each of
// them told whom it concerned.
func (x *examiner) remains(g *gap) (all bool, err error) {
	if x.sc == nil {
		return false, nil
	}
	off := g.off
	for lsn := g.from; lsn <= g.to; lsn++ {
		b, err := x.sc.at(off, recordHeader)
		if err != nil || len(b) < recordHeader {
			return false, err
		}
		h, ok := parseHead(b, x.epoch)
		if !ok || h.lsn != lsn || off+int64(recordSize(h.size)) > g.end {
			return false, nil
		}
		if h.typ < typeManifest {
			b, err := x.sc.at(off, recordHeader+h.size)
			if err != nil || len(b) < recordHeader+h.size {
				return false, err
			}
			rec := Record{Position: Position{LSN: lsn, Segment: x.id, Offset: off}, Epoch: h.epoch, Type: h.typ, Size: h.size, Payload: b[recordHeader:]}
			names := x.r.concerns(rec)
			if len(names) == 0 {
				return false, nil
			}
			g.hits.add(ByRecord, names...)
		}
		off += int64(recordSize(h.size))
	}
	return true, nil
}
