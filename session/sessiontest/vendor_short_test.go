package sessiontest_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	. "github.com/understudy-mq/understudy/session/sessiontest"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// TestEveryOctetOfVendors breaks each short conversation with each make at every octet of either direction, in a third of the
// ways by turns; with -all in every way.
func TestEveryOctetOfVendors(t *testing.T) {
	for _, kind := range Kinds()[1:] {
		t.Run(kind.String(), func(t *testing.T) {
			cases := shortCases(t, kind)
			results := make(chan string, len(cases))
			next := make(chan int, len(cases))
			for i := range cases {
				next <- i
			}
			close(next)
			var wg sync.WaitGroup
			for range runtime.GOMAXPROCS(0) {
				wg.Go(func() {
					for i := range next {
						results <- cutEverywhere(cases[i])
					}
				})
			}
			wg.Wait()
			close(results)
			for r := range results {
				if r != "" {
					t.Error(r)
				}
			}
			t.Logf("%d conversations and ways", len(cases))
		})
	}
}

// cutCase is one short conversation with one way of breaking it.
type cutCase struct {
	name     string
	c        Case
	way      Fault
	up, down int
}

func shortCases(t *testing.T, kind Kind) (list []cutCase) {
	for i, s := range short {
		for v, end := range []Ending{EndDrained, EndHasty} {
			c := Case{Seed: uint64(i), Script: Script{
				Version: frame.Version((i + v) % 3), Ops: s.ops, End: end, Queues: queues(s.loaded), Hold: 20 * time.Second, Kind: kind, Early: i%2 == 0,
			}}
			if s.name == "nack" {
				c.Script.Version = frame.V12
			}
			whole := RunSTOMP(c, recorder, false)
			if len(whole.Violations) > 0 {
				t.Errorf("%s, no fault: %v\n%s", s.name, whole.Violations[0], RunSTOMP(c, recorder, true).Transcript)
				continue
			}
			for w, way := range ways {
				if end == EndHasty && w > 2 || brief() && (w+i)%len(ways) != 0 || !*all && (w+i+v)%3 != 0 {
					continue
				}
				list = append(list, cutCase{s.name, c, way, whole.Up, whole.Down})
			}
		}
	}
	return list
}

// cutEverywhere returns the first failure.
func cutEverywhere(x cutCase) string {
	x.way.Link = 1
	for _, down := range []bool{false, true} {
		last := x.up
		if down {
			last = x.down
		}
		for x.way.Down, x.way.Octet = down, 0; x.way.Octet <= last; x.way.Octet += stride {
			x.c.Faults = []Fault{x.way}
			if r := RunSTOMP(x.c, recorder, false); len(r.Violations) > 0 {
				return report(fmt.Sprintf("%s, %v", x.name, x.way), x.c, r)
			}
		}
	}
	return ""
}
