package broker

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/understudy-mq/understudy/broker/journal"
)

// What was withheld is not said either if the store is handed over before anybody has noticed that it is lost: that is found out before it is let go of.
func TestNothingIsSaidByAHandOverOfALostStore(t *testing.T) {
	s := serving(t)
	e := s.everything()
	s.standStill()
	e.provoke()
	e.queue.quiet()
	if err := os.WriteFile(filepath.Join(s.cfg.Stores[0].Dir, "epoch-00000002"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o := order{to: "b", reason: byCommand, done: make(chan error, 1)}
	first := s.hold()
	eventually(t, "the order is taken, or a heart-beat was faster: the end is the same", func() bool {
		first.lock()
		lost := first.lost
		first.unlock()
		if lost { // whoever takes it now has the store again
			return true
		}
		select {
		case s.all()[0].orders <- o: // as the first thing after a standstill, before the next heart-beat
			if err := <-o.done; !errors.Is(err, journal.ErrFenced) {
				t.Errorf("got %v, want ErrFenced", err)
			}
			return true
		default:
			return false
		}
	})
	for _, c := range []*client{e.queue, e.browser, e.topic, e.producer, e.sidecar} {
		c.refused("store lost")
	}
	s.servesAgain(3)
	if n := s.one().Handovers; n != 0 {
		t.Errorf("%d hand-overs are counted, though nothing was handed over", n)
	}
}
