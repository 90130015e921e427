package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"testing"
)

// numbered records that must follow each other without a gap from the first one.
type numbers struct{ n uint64 }

func (c *numbers) visit(r Record) (Account, error) {
	if got := binary.LittleEndian.Uint64(r.Payload); got != c.n {
		return Account{}, fmt.Errorf("record %d holds %d, want %d", r.LSN, got, c.n)
	}
	c.n++
	return Account{Live: 1}, nil
}

// TestCrashInHandOver hands a store on, again and again, and crashes before each change to the disk. The last owner's word that its log ends there and is durable
// may be what LOCK says after that, or may be lost: either way nothing that was acknowledged is.
func TestCrashInHandOver(t *testing.T) {
	rng := newRand(t)
	dir, tp := quickDir(t), &tape{}
	stand(t, dir, "next", Standing{Rank: 1}) // so that the lock is let go at once
	type turn struct {
		at   int   // events before the lock was released
		left pulse // what LOCK said then
		n    uint64
	}
	var turns []turn
	var all numbers
	const owners = 5
	for i := range owners {
		var seen numbers
		s := mustOpen(t, dir, Options{Node: fmt.Sprint("owner ", i), SegmentBytes: 8 << 10, before: tp.before}, seen.visit)
		if seen.n != all.n {
			t.Fatalf("owner %d sees %d records of %d", i, seen.n, all.n)
		}
		if i > 0 && !s.lock.left(mark{lsn: turns[i-1].left.Last, epoch: uint64(i)}, s.Epoch()) {
			t.Errorf("owner %d was not left the store in good order: %+v", i, s.lock.before)
		}
		for range 5 + rng.IntN(20) {
			payload := binary.LittleEndian.AppendUint64(nil, all.n)
			p, err := s.Append(Entry{Type: 1, Payload: append(payload, make([]byte, rng.IntN(900))...), Account: Account{Live: 1}})
			if err != nil {
				t.Fatal(err)
			}
			if all.n++; rng.IntN(3) == 0 {
				s.durable(p.LSN)
				tp.add(event{acked: LSN(all.n)})
			}
		}
		if err := s.Journal.HandOver(""); err != nil {
			t.Fatal(err)
		}
		tp.add(event{acked: LSN(all.n)})
		turns = append(turns, turn{at: len(tp.take()), left: pulseOf(t, dir), n: all.n})
	}
	w, acked, states := newWorld(nil), uint64(0), 0
	check := func(where string, im remains) {
		states++
		again := quickDir(t)
		im.write(t, again)
		var seen numbers
		s, err := reopen(t, again, Options{SegmentBytes: 8 << 10}, seen.visit)
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if seen.n < acked {
			t.Fatalf("%s: %d records of %d that were acknowledged", where, seen.n, acked)
		}
		s.Close()
	}
	owner := 0
	for i, e := range append(tp.take(), event{op: op{kind: opSyncDir}}) {
		for owner < owners && i >= turns[owner].at {
			owner++
		}
		if e.acked > 0 {
			acked = uint64(e.acked)
			continue
		}
		how := fate(rng.IntN(int(fates)))
		where := fmt.Sprintf("owner %d, before change %d (%v), %v", owner, i, e.op, how)
		im := w.survive(rng, how)
		check(where, im)
		if owner > 0 { // the last owner's word outlives what came after it
			b, err := json.Marshal(turns[owner-1].left)
			if err != nil {
				t.Fatal(err)
			}
			im[lockName] = append(b, bytes.Repeat([]byte{' '}, lockBytes-len(b))...)
			check(where+", LOCK as the last owner left it", im)
		}
		w.apply(e.op)
	}
	t.Logf("%d hand-overs, %d states, lost 0", owners, states)
}

// Who is not told everything in good order does not believe it.
func TestLeftInGoodOrder(t *testing.T) {
	good := lockFile{before: pulse{Epoch: 7, Last: 42}}
	for name, tc := range map[string]struct {
		spoil func(l *lockFile, m *mark, ours *uint64)
		want  bool
	}{
		"in good order":              {func(*lockFile, *mark, *uint64) {}, true},
		"it lives":                   {func(l *lockFile, _ *mark, _ *uint64) { l.before.PID = 1 }, false},
		"it did not say where":       {func(l *lockFile, m *mark, _ *uint64) { l.before.Last, m.lsn = 0, 0 }, false},
		"another end than the mark":  {func(_ *lockFile, m *mark, _ *uint64) { m.lsn++ }, false},
		"another epoch's mark":       {func(_ *lockFile, m *mark, _ *uint64) { m.epoch-- }, false},
		"somebody came in between":   {func(_ *lockFile, _ *mark, ours *uint64) { *ours++ }, false},
		"the lock was not let go of": {func(l *lockFile, _ *mark, _ *uint64) { l.stolen = true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			l, m, ours := lockFile{before: good.before}, mark{epoch: 7, lsn: 42}, uint64(8)
			tc.spoil(&l, &m, &ours)
			if got := l.left(m, ours); got != tc.want {
				t.Errorf("left %v", got)
			}
		})
	}
}
