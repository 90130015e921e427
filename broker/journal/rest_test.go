package journal

import (
	"testing"
	"time"
)

// Who takes over leaves the disk to those who wait, and makes files for later segments a little later; one that is needed at once is made at once.
func TestFilesAreMadeAfterARest(t *testing.T) {
	spares := func(j *Journal) int {
		j.mu.Lock()
		defer j.mu.Unlock()
		return len(j.jan.spares)
	}
	open := func() *Journal {
		j, err := Open(t.Context(), t.TempDir(), Options{SegmentBytes: minSegment, Follow: true, Reset: func() {}}, func(Record) (Account, error) { return Account{}, nil })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = j.Close() })
		return j
	}
	began := time.Now()
	j := open()
	for time.Since(began) < restFor/2 {
		if n := spares(j); n > 0 && time.Since(began) < restFor {
			t.Fatalf("%d files were made %v after the take-over began", n, time.Since(began))
		}
		time.Sleep(restFor / 20)
	}
	for end := time.Now().Add(30 * time.Second); spares(j) < spareSegments; time.Sleep(restFor / 20) {
		if time.Now().After(end) {
			t.Fatalf("%d files were made, want %d", spares(j), spareSegments)
		}
	}
	j = open()
	for range 3 { // several segments
		if _, err := appendTo(j, Entry{Type: 1, Payload: make([]byte, minSegment-1000)}); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(30 * time.Second); j.Pending() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what was appended is not durable")
		}
	}
}
