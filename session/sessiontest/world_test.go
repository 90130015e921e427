package sessiontest_test

import (
	"fmt"
	"testing"
	"time"

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

// TestShrink asks that a failure stays the same failure and becomes small.
func TestShrink(t *testing.T) {
	for seed := uint64(1); seed <= 40; seed++ {
		c := RandomCase(seed, 120, 2)
		c.Script.Fault = CorruptsBody
		v := RunSTOMP(c, recorder, false).Violations
		if len(v) == 0 {
			continue
		}
		small := c.Shrink(recorder, 500)
		after := RunSTOMP(small, recorder, false).Violations
		if len(after) == 0 || after[0].Kind != v[0].Kind {
			t.Fatalf("seed %d: %v became %v", seed, v, after)
		}
		if len(small.Script.Ops) > 40 || len(small.Faults) > 1 {
			t.Errorf("seed %d: %d operations and %d faults are left", seed, len(small.Script.Ops), len(small.Faults))
		}
		return
	}
	t.Fatal("no seed failed")
}

// ExampleRunSTOMP plays one conversation through a relay without memory, and loses its broker.
func ExampleRunSTOMP() {
	c := Case{Seed: 7, Script: Script{
		Ops:    []Op{{Kind: OpSend, Dest: 0, Size: 20, Receipt: true}},
		Queues: make([]Queue, 1), Hold: 20 * time.Second, Reclaim: 2 * time.Second, Plain: true,
	}}
	fmt.Println("without a fault:", len(RunSTOMP(c, plain, false).Violations), "violations")
	c.Faults = []Fault{{Link: 1, Octet: 60, Kind: Crash}}
	fmt.Println("with a crash:", RunSTOMP(c, plain, false).Violations[0].Kind)
	// Output:
	// without a fault: 0 violations
	// with a crash: ended
}
