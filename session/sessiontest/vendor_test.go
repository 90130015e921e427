package sessiontest_test

import (
	"testing"

	. "github.com/understudy-mq/understudy/session/sessiontest"
)

// TestVendorsPlain plays conversations with each make through a relay without memory: without faults the models and the verdicts must agree,
// with faults the verdicts must object.
func TestVendorsPlain(t *testing.T) {
	for _, kind := range Kinds()[1:] {
		t.Run(kind.String(), func(t *testing.T) {
			objected, struck := 0, 0
			for seed := uint64(1); seed <= 100; seed++ {
				c := RandomVendorCase(seed, kind, 120, 2)
				c.Script.Plain = true
				c.Script.End, c.Script.Nameless = EndDrained, false // the relay gives no subscription a name
				faults := c.Faults
				c.Faults = nil
				if r := RunSTOMP(c, plain, false); len(r.Violations) > 0 {
					small := c.Shrink(plain, 500)
					t.Fatalf("seed %d, no fault: %v\n%v\n%s", seed, r.Violations[0], small, RunSTOMP(small, plain, true).Transcript)
				}
				c.Faults = faults
				r := RunSTOMP(c, plain, false)
				if r.Struck > 0 {
					struck++
					if len(r.Violations) > 0 {
						objected++
					}
				}
			}
			if objected != struck || struck < 50 {
				t.Errorf("%d of %d runs with a fault were objected to", objected, struck)
			}
		})
	}
}
