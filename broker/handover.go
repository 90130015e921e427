package broker

import (
	"cmp"
	"slices"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// order tells whoever serves a store to hand it over.
type order struct {
	to     string // node; "" is whoever comes first
	reason string
	done   chan error
}

// Reasons of a hand-over.
const (
	byFailback = "failback"
	byCommand  = "command"
	byShutdown = "shutdown"
)

// syncTimeout bounds the wait for the disk at the barrier. What is not durable then is not answered.
const syncTimeout = 5 * time.Second

// handover is the orderly end of a tenure, at a barrier: nothing more is taken from clients, what was taken becomes durable and is answered, and
// the journal is let go of. That clients are told to leave, and leave, takes its time and nobody waits for it.
type handover struct {
	keeper     *keeper
	tenure     *tenure
	log        *journal.Journal
	stopMover  func()
	stopLoader func()
	looked     time.Time // for an owner to whom the store goes back
}

func (h *handover) run(o order) *ending {
	k, t := h.keeper, h.tenure
	h.stopMover() // it may have records on their way: before anybody waits
	began := time.Now()
	synced := t.bar(began.Add(syncTimeout))
	select {
	case <-synced:
	case err := <-t.failed:
		h.stopLoader()
		return h.lose(err)
	case <-time.After(time.Until(began.Add(syncTimeout))):
		k.log.Warn("journal did not sync in time", "timeout", syncTimeout.String())
	}
	barred := time.Since(began)
	said := make(chan struct{})
	go func() { // thousands of connections take longer than all the rest
		defer close(said)
		t.farewell(h.lastWord(o))
	}()
	h.stopLoader()
	err := h.log.HandOver(o.to)
	released := time.Since(began)
	<-said
	if err != nil {
		end := h.lose(err) // what it still had to say may be another's to say by now: the guard stays
		end.final = lastWord(err)
		return end
	}
	t.release()
	k.handedOver(o, released)
	k.log.Info("store handed over", "to", o.to, "because", o.reason, "sync", barred.Round(time.Microsecond).String(),
		"release", (released - barred).Round(time.Microsecond).String(), "farewell", time.Since(began).Round(time.Microsecond).String())
	return nil
}

// lastWord is what clients hear at the barrier.
func (h *handover) lastWord(o order) *fault {
	f := faultf("store moves", "everything before this was answered: connect again")
	if o.reason == byShutdown {
		f.text = "server stops"
	}
	f.header = frame.HeaderMoved + ":" + h.tenure.store.uuid + "\n"
	return f
}

// lose is the other end: what was read and not answered is in doubt.
func (h *handover) lose(err error) *ending {
	t := h.tenure
	t.fail(err)
	t.farewell(fenced(err))
	_ = h.log.Close() // it has failed, and says so again
	return h.keeper.failure("store", err)
}

// best is who should have the store when this server leaves: its owner, else whoever serves the fewest, those counted in that it is given now with other
// stores, and who has a warm copy before who has none.
func (h *handover) best() string {
	s := h.keeper.srv
	s.mu.Lock()
	defer s.mu.Unlock()
	list := h.log.Candidates()
	if len(list) == 0 {
		return ""
	}
	best := slices.MinFunc(list, func(a, b journal.Candidate) int { // the first of those that are equal
		switch {
		case a.Warm != b.Warm:
			return before(a.Warm)
		case a.Own != b.Own:
			return before(a.Own)
		}
		return cmp.Compare(a.Serves+s.left[a.Node], b.Serves+s.left[b.Node])
	})
	s.left[best.Node]++
	return best.Node
}

func before(yes bool) int {
	if yes {
		return -1
	}
	return 1
}

func (k *keeper) handedOver(o order, took time.Duration) {
	k.count.handovers[o.reason].Inc()
	k.count.handover.Update(took.Seconds())
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.Handovers++
}
