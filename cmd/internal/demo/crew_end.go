package demo

import (
	"context"
	"sync"
	"time"
)

// How a crew ends.
const (
	giveUp     = 2 * time.Second        // for clients to come to an end by themselves when the run cannot go on
	settle     = 500 * time.Millisecond // after the last delivery, for a late duplicate to show up
	sweepFor   = 500 * time.Millisecond // how long a fresh consumer listens for what should be gone
	maxMissing = 5                      // how many missing messages are named
)

// endProduction waits for the producers: to do their share, or to stop where there is no number or no sense in going on. What hangs in the
// library is cut off.
func (w *crew) endProduction(ctx context.Context, why error) {
	if why != nil || w.cfg.Messages == 0 {
		close(w.stop)
	}
	cut := ctx.Done()
	var late <-chan time.Time
	if why != nil {
		late = time.After(giveUp)
	}
	select {
	case <-w.produced:
		return
	case <-cut:
	case <-late:
	}
	for _, c := range w.clients() {
		c.abandon()
	}
	select {
	case <-w.produced:
	case <-time.After(giveUp):
	}
}

// awaitWorkers waits for the clients' goroutines. After a failure some may hang in the library, which has its own time-outs of up to a minute;
// the run ends without them.
func (w *crew) awaitWorkers(failed bool) {
	done := make(chan struct{})
	go func() { w.working.Wait(); close(done) }()
	var late <-chan time.Time
	if failed {
		late = time.After(giveUp)
	}
	select {
	case <-done:
	case <-late:
	}
}

// drain waits until everything that is due was received, and acknowledged; or until there is no progress.
func (w *crew) drain(ctx context.Context) error {
	_, missing, _ := w.ledger.missing(0)
	w.tell("DRAIN  producers are done, %d messages are still to be received", missing)
	err := await(ctx, 24*time.Hour, "the drain", func() (bool, error) {
		if w.brokenClients() > 0 {
			return false, errClients
		}
		_, missing, progress := w.ledger.missing(0)
		_, unacked := w.ledger.flying()
		idle := time.Since(progress)
		return missing == 0 && unacked == 0 && idle > settle || idle > w.cfg.DrainTimeout, nil
	})
	if some, n, _ := w.ledger.missing(maxMissing); n > 0 && err == nil {
		w.tell("LOST   %d messages did not arrive within %v, the first of them %v", n, w.cfg.DrainTimeout, some)
	}
	return err
}

// disconnect has every client leave as it should; those that are broken are cut off.
func (w *crew) disconnect() {
	for _, c := range w.clients() {
		if c.isBroken() != nil {
			c.abandon()
		}
	}
	var leaving sync.WaitGroup
	for _, c := range w.clients() {
		if c.conn == nil || isClosed(c.left) {
			continue
		}
		leaving.Go(func() {
			if err := c.leave(); err != nil {
				w.problem(err.Error())
			}
		})
	}
	leaving.Wait()
}

// sweep makes the consumers leave and listens with a fresh one: a message that comes now was acknowledged, and is a duplicate.
func (w *crew) sweep(ctx context.Context, addr string) error {
	for _, c := range w.consumers {
		if err := c.leave(); err != nil {
			return err
		}
	}
	fresh := &consumer{client: client{name: w.prefix + "sweeper", crew: w, index: len(w.clients())}, number: len(w.consumers), mode: ackMode("auto")}
	if err := fresh.connect(ctx, addr); err != nil {
		return err
	}
	if err := fresh.subscribe(); err != nil {
		return err
	}
	w.working.Go(fresh.consume)
	before := w.ledger.totals()
	sleepUntil(ctx, nil, time.Now().Add(sweepFor))
	if after := w.ledger.totals(); after.duplicated > before.duplicated {
		w.tell("TWICE  %d messages came again after they had been acknowledged", after.duplicated-before.duplicated)
	}
	return fresh.leave()
}
