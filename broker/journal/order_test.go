package journal

import (
	"os"
	"path/filepath"
	"testing"
)

// Open makes its epoch durable before it looks into any segment, and removes nothing before its own segment is durable and its epoch was found
// to be the highest after that: the mark is written when it was.
func TestOrderOfTakeOver(t *testing.T) {
	im := newTorn(t, 8<<10, 60, 8)
	dead := im.segments(t)[0]
	stale := filepath.Join(im.dir, place{1, 99}.name())
	if err := os.WriteFile(stale, make([]byte, 8<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	tp := &tape{}
	s := mustOpen(t, im.dir, Options{SegmentBytes: 8 << 10, before: tp.before}, func(Record) (Account, error) {
		tp.add(event{acked: 1})
		return Account{}, nil // nothing of it is alive: all of it will go
	})
	s.idle()
	s.Close()
	first := 0
	for first < len(tp.list) && tp.list[first].acked == 0 {
		first++
	}
	steps := []int{
		tp.at(0, opCreate, "epoch-00000002"), tp.at(0, opSync, "epoch-00000002"), tp.at(0, opSyncDir, ""), // durable claim
		tp.at(0, opSync, "seg-00000001"), first, // what is read is durable before anybody hears of it
		tp.at(0, opCreate, "seg-00000002"), tp.at(0, opWrite, "seg-00000002"),
	}
	steps = append(steps, tp.at(steps[6], opSync, "seg-00000002"), tp.at(steps[6], opWrite, "epoch-00000002"), tp.at(0, opRemove, "seg-"))
	for i, at := range steps {
		if at < 0 || i > 0 && at <= steps[i-1] {
			t.Fatalf("step %d is out of order: %v", i, steps)
		}
	}
	if _, err := os.Stat(stale); err == nil {
		t.Error("a segment that was never begun is still there")
	}
	// The dead segments go after the record that says so: one more batch, synced and checked.
	said := tp.at(steps[8]+1, opWrite, "seg-00000002")
	checked := tp.at(said, opWrite, "epoch-00000002")
	gone := tp.at(0, opRemove, dead)
	if said < 0 || checked < said || gone < checked {
		t.Errorf("a dead segment went at %d, said at %d, checked at %d", gone, said, checked)
	}
}
