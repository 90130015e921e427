package sessiontest_test

import (
	"testing"
	"time"

	. "github.com/understudy-mq/understudy/session/sessiontest"
)

// TestFrozen lets owners freeze, be replaced, and wake up with octets that are still on their way.
func TestFrozen(t *testing.T) {
	struck := 0
	for seed := uint64(1); seed <= 200; seed++ {
		c := RandomCase(seed, 160, 2)
		r := NewRand(seed)
		for i := range c.Faults {
			f := &c.Faults[i]
			f.Kind, f.Down, f.KeepDown, f.Downtime = Freeze, true, 100, r.Span(0, 300*time.Millisecond)
			f.Notice = SilenceLimit + r.Span(100*time.Millisecond, time.Second)
		}
		res := RunSTOMP(c, recorder, false)
		struck += res.Struck
		if len(res.Violations) > 0 {
			t.Fatal(report("frozen", c, res))
		}
	}
	t.Logf("%d owners froze", struck)
}
