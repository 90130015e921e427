package sessiontest_test

import (
	"flag"
	"testing"

	. "github.com/understudy-mq/understudy/session/sessiontest"
)

var (
	seeds  = flag.Int("seeds", 0, "random conversations to play in TestSimulation; 0 is its default")
	all    = flag.Bool("all", false, "cut short conversations in every way, not in a third of the ways by turns")
	plays  = flag.Int("plays", 1000, "random long conversations with a paired broker to play")
	first  = flag.Uint64("first-seed", 1, "the seed of the first of them")
	ops    = flag.Int("ops", 240, "operations of the client in each")
	breaks = flag.Int("faults", 3, "faults in each, of which some come too late")
)

// TestRandom plays long conversations with several faults each, and shrinks the first failure of each kind.
func TestRandom(t *testing.T) {
	n := *plays
	if brief() {
		n = min(n, 100)
	}
	kinds, total, rolled, drained := map[string]int{}, Result{}, 0, 0
	for i := range uint64(n) {
		c := RandomCase(*first+i, *ops, *breaks)
		r := RunSTOMP(c, recorder, false)
		total.Struck, total.Frames, total.Links = total.Struck+r.Struck, total.Frames+r.Frames, total.Links+r.Links
		total.Virtual += r.Virtual
		rolled += r.Rolled
		if r.Drained {
			drained++
		}
		if len(r.Violations) > 0 {
			if kinds[r.Violations[0].Kind]++; kinds[r.Violations[0].Kind] == 1 {
				t.Error(report("random", c, r))
			}
		}
	}
	t.Logf("%d seeds, %d frames, %d faults struck, %d connections, %d transactions rolled back, %d conversations ended in good order, %v of virtual time; violations %v",
		n, total.Frames, total.Struck, total.Links, rolled, drained, total.Virtual, kinds)
	if total.Struck < 2*n || total.Frames < 200*n {
		t.Errorf("too tame: %d seeds saw %d faults and %d frames", n, total.Struck, total.Frames)
	}
}
