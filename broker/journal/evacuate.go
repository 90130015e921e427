package journal

import (
	"errors"
	"fmt"
	"io/fs"
)

// A segment that is mostly dead is emptied by the caller, who alone knows what records mean:
//
//	seg, ok := Sparse()      which one
//	Scan(seg, …)             its records; each thing in it that is alive, and still lives there, is appended again (the new record ends the old
//	                         place), and each ending that Stays says is still needed is told again (Account.Again)
//	                         (a move is an ending, too: of the place that it left)
//	Forwarded(seg)           then nothing but the rule of deletion is left
//
// Forwarded comes after those appends, so the record that drops the segment has a higher LSN than all of them, and the file goes only when that one is
// durable. A crash in between leaves old and new: then the visitor of recovery meets a thing that was moved twice, or an ending told twice, and
// returns as Ends what it found alive where the record says, as Again what had ended before.

// Costs of emptying, in the terms of ledger.sparse.
const (
	forwardBytes = 16 // about what an ending takes that is told again, among others in one record; a thing and its record take four times that
	idleShare    = 2  // the part of a segment, as 1/n, by which files may exceed twice what is live before anything is moved
)

// sparse picks the segment that is cheapest to empty, if that has to be. It is pure; unit is the octets of a segment.
//
// Let R be the room in all sealed segments that stay (their files without header and head) and L what is live in them. Nothing is picked while
// R <= 2L + unit/2. Above that there is always one to pick, and emptying it makes R smaller:
//
//   - Emptying a segment costs its live octets and 16 for each ending that a staying segment still needs. Say each segment costs 3/4 of its room or more.
//     Since L < R/2 the endings cost more than R/4. Each is about a dead thing that still takes room in a staying segment, 64 octets at
//     least: together more than R. But live, dead and endings share R. So some segment costs less.
//   - What is picked moves less than 3/4 of its room, and dead things stay behind, so R shrinks as long as anything is picked and nothing else is
//     appended; with it the moving ends.
//
// So when all is quiet R <= 2L + 1/2 segment. The current segment and the prepared ones add 3, headers and heads are covered by the half that is
// left: disk <= 2 x live + 4 segments. While a segment is being emptied its copy is in the current one, which has a half to a whole segment to spare
// on average; whoever appends faster than the caller moves is above the bound until the caller catches up.
//
// What can go without being emptied is not counted and not picked: it waits for room for the record that says so. A full disk is
// hungry: then whatever costs less than half of its room is worth emptying.
func (l *ledger) sparse(unit int64, durable LSN, hungry bool) *account {
	var room, live, least int64
	var best *account
	going := l.free()
	for _, a := range l.list {
		if !a.closed || going[a.id] {
			continue
		}
		r, kept := a.room()
		room, live = room+r, live+kept
		cost := kept
		for _, ref := range a.refs {
			if l.stays(ref.to, going) {
				cost += int64(ref.n) * forwardBytes
			}
		}
		if a.last > durable || a.emptied && a.live == a.left || 4*cost >= 3*r || hungry && 2*cost >= r {
			continue
		}
		if best == nil || cost*best.files() < least*a.files() { // least cost for an octet of disk
			best, least = a, cost
		}
	}
	if room <= 2*live+unit/idleShare && !hungry {
		return nil
	}
	return best
}

// room is how many octets of its files a sealed segment has for records behind its head, and how many of them are live.
func (a *account) room() (room, live int64) {
	room = a.size + a.index - a.start
	return room, max(0, min(a.bytes, room))
}

// files is how many octets the segment and its index have on the disk.
func (a *account) files() int64 { return a.size + a.index }

// Sparse names the sealed segment that most deserves to be emptied, while files take much more than twice what is live in them or the disk is full. It takes
// time proportional to the number of segments: ask when a segment was sealed or much was ended, not with each record.
func (j *Journal) Sparse() (Segment, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return 0, false
	}
	a := j.ledger.sparse(j.opt.SegmentBytes, LSN(j.durable.Load()), j.jan.full)
	if a == nil {
		return 0, false
	}
	return a.id, true
}

// Stays says whether a segment is part of the log. An ending of something in one that is not need not be told again.
func (j *Journal) Stays(seg Segment) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ledger.find(seg) != nil
}

// Forwarded says that everything in seg that ends something elsewhere was told again by records that are appended already: its own endings are not
// needed any more. The segment goes as soon as nothing in it is live.
func (j *Journal) Forwarded(seg Segment) {
	j.mu.Lock()
	defer j.mu.Unlock()
	a := j.ledger.find(seg)
	if j.err != nil || a == nil || !a.closed {
		return
	}
	if a.live > 0 {
		j.log.Warn("a segment that was to be emptied is not empty: it stays", "segment", a.name(), "live", a.live)
	} else if !a.emptied {
		j.stats.Evacuated++
		j.stats.EvacuatedBytes += uint64(a.files())
		j.opt.Metrics.evacuated(a.files())
	}
	a.refs, a.emptied, a.left = nil, true, a.live
	j.ledger.dirty = true
	j.drop()
	j.work.Signal()
}

// Scan visits the records of a sealed segment again, in LSN order, without any lock. Each is checked as in recovery, and one that is not what was written
// is a DamageError: nothing is ever skipped. A segment that is no part of the log any more has nothing that anybody needs: of it not
// all records, or none, are visited. It may be called from any goroutine until Close.
func (j *Journal) Scan(seg Segment, visit func(Record) error) error {
	j.mu.Lock()
	a := j.ledger.find(seg)
	var s sealed
	if a != nil {
		s = a.sealed
	}
	ready := a == nil || a.closed && a.last <= LSN(j.durable.Load())
	j.mu.Unlock()
	if !ready {
		return fmt.Errorf("scan segment %d: it is not sealed yet", seg)
	}
	if a == nil {
		return nil
	}
	err := j.scan(s, visit)
	if errors.Is(err, fs.ErrNotExist) && !j.Stays(seg) {
		return nil
	}
	return err
}

func (j *Journal) scan(s sealed, visit func(Record) error) error {
	f, err := j.borrow(s.id)
	if err != nil {
		return err
	}
	defer j.giveBack(f)
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("scan segment: %w", err)
	}
	sc := newScanner(f, st.Size(), s.place, nil)
	sc.next = s.first
	for sc.off < s.end {
		at := Position{LSN: sc.next, Segment: s.id, Offset: sc.off}
		h, payload, ok, err := sc.step()
		if err != nil {
			return fmt.Errorf("scan %s: %w", f.Name(), err)
		}
		if !ok {
			return &DamageError{File: f.Name(), Offset: at.Offset, From: at.LSN, To: s.last, Reason: "a record is unreadable"}
		}
		if h.typ >= typeManifest {
			continue
		}
		if err := visit(Record{Position: at, Epoch: h.epoch, Type: h.typ, Size: h.size, Payload: payload}); err != nil {
			return err
		}
	}
	return nil
}
