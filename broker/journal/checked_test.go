package journal

import (
	"testing"
	"testing/synctest"
	"time"
)

// Checked is never older than a heart-beat while the store is ours, with traffic or without, and says nothing any more once it is not.
func TestCheckedFollowsTheHeartBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, err := Open(t.Context(), dir, Options{SegmentBytes: 8 << 10}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		for range 40 {
			if age := time.Since(a.Checked()); age > beatEvery {
				t.Fatalf("the last look is %v old, and beats are %v apart", age, beatEvery)
			}
			time.Sleep(7 * time.Millisecond)
		}
		b, err := Open(t.Context(), dir, Options{SegmentBytes: 8 << 10, noLock: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		time.Sleep(2 * beatEvery)
		if at := a.Checked(); !at.IsZero() {
			t.Errorf("fenced, and checked at %v", at)
		}
		if age := time.Since(b.Checked()); age > beatEvery {
			t.Errorf("the successor's last look is %v old", age)
		}
	})
}

// A sync looks as well: its look precedes whatever Durable lets out.
func TestCheckedBeforeDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j *Journal
		told := make(chan time.Duration, 1)
		opt := Options{SegmentBytes: 8 << 10, Durable: func(LSN) { told <- time.Since(j.Checked()) }}
		j, err := Open(t.Context(), t.TempDir(), opt, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		time.Sleep(beatEvery / 2)
		if _, err := j.Append(Entry{Type: 1}); err != nil {
			t.Fatal(err)
		}
		if age := <-told; age != 0 {
			t.Errorf("the last look was %v old when the record was durable", age)
		}
	})
}
