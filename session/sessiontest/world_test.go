package sessiontest_test

import (
	"testing"

	. "github.com/understudy-mq/understudy/session/sessiontest"
)

// TestSameSeedSameRun holds the simulator to its promise, without which no failure could be looked into.
func TestSameSeedSameRun(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		c := RandomCase(seed, 120, 3)
		a, b := RunSTOMP(c, recorder, true), RunSTOMP(c, recorder, true)
		if a.Transcript != b.Transcript {
			t.Fatalf("seed %d ran differently the second time\n%s\n\nand\n\n%s", seed, a.Transcript, b.Transcript)
		}
		if quiet := RunSTOMP(c, recorder, false); quiet.Virtual != a.Virtual || quiet.Frames != a.Frames {
			t.Fatalf("seed %d ran differently without a transcript: %+v", seed, quiet)
		}
	}
}
