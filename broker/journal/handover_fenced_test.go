package journal

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// An owner that is fenced hears so, however it ends, and at the latest possible moment: before it releases the lock nothing else would tell it, for without
// traffic nothing is synced, and its heart-beat may not have come yet. Its successor's LOCK stays as it is.
func TestFencedOwnerHearsSoAtItsEnd(t *testing.T) {
	for name, end := range map[string]func(*Journal) error{
		"close":    (*Journal).Close,
		"handover": func(j *Journal) error { return j.HandOver("b") },
	} {
		for _, fenced := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				j, err := Open(t.Context(), dir, Options{SegmentBytes: 8 << 10}, nil)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(beatEvery / 2)
				if fenced {
					claimNext(t, dir, j)
				}
				before := pulseOf(t, dir)
				if err := end(j); errors.Is(err, ErrFenced) != fenced || !fenced && err != nil {
					t.Errorf("%s, fenced %v: %v", name, fenced, err)
				}
				if at := j.Checked(); at.IsZero() != fenced {
					t.Errorf("%s, fenced %v: checked at %v", name, fenced, at)
				}
				if after := pulseOf(t, dir); (after == before) != fenced {
					t.Errorf("%s, fenced %v: LOCK says %+v after %+v", name, fenced, after, before)
				}
			})
		}
	}
}

// Nobody waits for the store, so the lock goes last. What is done before takes its time, and a successor that comes then is heard of as well.
func TestOwnerFencedWhileItEndsHearsSo(t *testing.T) {
	dir := t.TempDir()
	var ending atomic.Bool
	var j *Journal
	before := func(o op) error {
		if _, ok := parsePlace(o.name); ok && o.kind == opRemove && ending.Swap(false) { // of a file that was prepared for nothing
			claimNext(t, dir, j)
		}
		return nil
	}
	j = mustOpen(t, dir, Options{SegmentBytes: 8 << 10, before: before}, nil).Journal
	idleFor(t, j)
	ending.Store(true)
	if err := j.Close(); !errors.Is(err, ErrFenced) {
		t.Errorf("close: %v", err)
	}
	if ending.Load() {
		t.Error("nothing was removed, and nobody fenced it")
	}
}

// claimNext makes the file that fences j.
func claimNext(t *testing.T, dir string, j *Journal) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, epochName(j.Epoch()+1)), nil, 0o600); err != nil {
		t.Error(err)
	}
}

// idleFor waits until all files are prepared.
func idleFor(t *testing.T, j *Journal) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if j.sparesAhead() == spareSegments {
			return
		}
	}
	t.Fatal("no files are prepared")
}
