package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// How a run ends.
const (
	settle     = 500 * time.Millisecond // after the last delivery, for a late duplicate to show up
	sweepFor   = 500 * time.Millisecond // how long a fresh consumer listens for what should be gone
	tailLines  = 8
	maxMissing = 5 // how many missing messages are named
)

// What only the sidecar knows, under the names that package proxy gives it.
const (
	metricHidden  = "understudy_sidecar_redeliveries_hidden_total"
	metricResends = "understudy_sidecar_resends_total"
)

// clients are all of them, consumers first.
func (r *run) clients() []*client {
	all := make([]*client, 0, len(r.producers)+len(r.consumers))
	for _, c := range r.consumers {
		all = append(all, &c.client)
	}
	for _, p := range r.producers {
		all = append(all, &p.client)
	}
	return all
}

// listeners is how many of clients hear anything at all: a producer that wants no receipts does not.
func (r *run) listeners() int {
	if !r.cfg.Receipts {
		return len(r.consumers)
	}
	return len(r.consumers) + len(r.producers)
}

func (r *run) clientBroke(name string, err error) { r.say("BROKEN %s: %v", name, err) }

func (r *run) brokenClients() (n int) {
	for _, c := range r.clients() {
		if c.isBroken() != nil {
			n++
		}
	}
	return n
}

// report writes a line each second.
func (r *run) report(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := rates{at: time.Now()}
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			r.mu.Lock()
			serves := r.serves
			r.mu.Unlock()
			r.say("       %-17s %s", serves, last.line(r.ledger.totals(), now))
		}
	}
}

// serving notes who serves now.
func (r *run) serving(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serves = fmt.Sprintf(format, args...)
}

// endProduction waits for the producers: to do their share, or to stop where there is no number or no sense in going on. What hangs in the
// library is cut off.
func (r *run) endProduction(ctx context.Context, why error) {
	if why != nil || r.cfg.Messages == 0 {
		close(r.stop)
	}
	cut := ctx.Done()
	var late <-chan time.Time
	if why != nil {
		late = time.After(giveUp)
	}
	select {
	case <-r.produced:
		return
	case <-cut:
	case <-late:
	}
	for _, c := range r.clients() {
		c.abandon()
	}
	select {
	case <-r.produced:
	case <-time.After(giveUp):
	}
}

// awaitWorkers waits for the clients' goroutines. After a failure some may hang in the library, which has its own time-outs of up to a minute;
// the run ends without them.
func (r *run) awaitWorkers(failed bool) {
	done := make(chan struct{})
	go func() { r.working.Wait(); close(done) }()
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
func (r *run) drain(ctx context.Context) error {
	_, missing, _ := r.ledger.missing(0)
	r.say("DRAIN  producers are done, %d messages are still to be received", missing)
	err := r.cluster.await(ctx, 24*time.Hour, "the drain", func() (bool, error) {
		if r.brokenClients() > 0 {
			return false, errClients
		}
		_, missing, progress := r.ledger.missing(0)
		_, unacked := r.ledger.flying()
		idle := time.Since(progress)
		return missing == 0 && unacked == 0 && idle > settle || idle > r.cfg.DrainTimeout, nil
	})
	if some, n, _ := r.ledger.missing(maxMissing); n > 0 && err == nil {
		r.say("LOST   %d messages did not arrive within %v, the first of them %v", n, r.cfg.DrainTimeout, some)
	}
	return err
}

// disconnect has every client leave as it should; those that are broken are cut off.
func (r *run) disconnect() {
	for _, c := range r.clients() {
		if c.isBroken() != nil {
			c.abandon()
		}
	}
	var leaving sync.WaitGroup
	for _, c := range r.clients() {
		if c.conn == nil || isClosed(c.left) {
			continue
		}
		leaving.Go(func() {
			if err := c.leave(); err != nil {
				r.problem(err.Error())
			}
		})
	}
	leaving.Wait()
}

// sweep makes the consumers leave and listens with a fresh one: a message that comes now was acknowledged, and is a duplicate.
func (r *run) sweep(ctx context.Context, addr string) error {
	for _, c := range r.consumers {
		if err := c.leave(); err != nil {
			return err
		}
	}
	fresh := &consumer{client: client{name: "sweeper", run: r, index: len(r.clients())}, number: len(r.consumers), mode: ackMode("auto")}
	if err := fresh.connect(ctx, addr); err != nil {
		return err
	}
	if err := fresh.subscribe(); err != nil {
		return err
	}
	r.working.Go(fresh.consume)
	before := r.ledger.totals()
	sleepUntil(ctx, nil, time.Now().Add(sweepFor))
	if after := r.ledger.totals(); after.duplicated > before.duplicated {
		r.say("TWICE  %d messages came again after they had been acknowledged", after.duplicated-before.duplicated)
	}
	return fresh.leave()
}

// readSidecar takes over what only the sidecar knows.
func (r *run) readSidecar(ctx context.Context) error {
	sums, err := r.cluster.counters(ctx, metricHidden, metricResends)
	r.result.RedeliveriesHidden, r.result.Resends = sums[metricHidden], sums[metricResends]
	return err
}

func (r *run) problem(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Problems = append(r.result.Problems, text)
}

// conclude judges, prints, and cleans up.
func (r *run) conclude(ctx context.Context, err error, dir string) {
	res := &r.result
	for _, c := range r.clients() {
		if b := c.isBroken(); b != nil {
			res.ClientsReconnected++
			r.problem(fmt.Sprintf("%s lost its connection: %v", b.client, b.err))
		}
	}
	switch {
	case ctx.Err() != nil:
		r.problem("interrupted")
	case err != nil && !errors.Is(err, errClients):
		r.problem(err.Error())
	}
	wanted := r.cfg.Kills
	if r.cfg.Backlog > 0 {
		wanted *= 2
	}
	if res.Kills < wanted && err == nil {
		r.problem(fmt.Sprintf("only %d of %d faults were brought about", res.Kills, wanted))
	}
	for _, odd := range r.ledger.oddities() {
		r.problem(odd)
	}
	_, lost, _ := r.ledger.missing(0)
	sum := r.ledger.totals()
	if unsettled := sum.sent - sum.confirmed; r.cfg.Receipts && unsettled > 0 {
		r.problem(fmt.Sprintf("%d messages were sent and never confirmed: their producers cannot know what became of them", unsettled))
	}
	res.Epoch, res.DurationMS = r.epoch, time.Since(r.timeline.start).Milliseconds()
	if res.Backlog != nil {
		r.memory.into(res.Backlog)
	}
	res.fill(r.cfg, sum, lost, r.silences)
	res.text(r.cfg.Out)
	r.cleanUp(ctx, dir)
	if r.cfg.JSON {
		_ = res.json(r.cfg.Out)
	}
}

// cleanUp removes the folder, or says where it is and how the logs end.
func (r *run) cleanUp(ctx context.Context, dir string) {
	failed := !r.result.Clean() && !r.cfg.Direct && ctx.Err() == nil // the negative control is meant to fail, and Ctrl-C is no failure
	if !failed && !r.cfg.Keep {
		_ = os.RemoveAll(dir)
		return
	}
	if failed {
		for _, name := range []string{"broker-a", "broker-b", "sidecar"} {
			if _, err := os.Stat(filepath.Join(dir, name+".log")); err == nil {
				fmt.Fprintf(r.cfg.Out, "\n  the last lines of %s.log:\n%s\n", name, r.cluster.kids.tail(name, tailLines))
			}
		}
	}
	fmt.Fprintf(r.cfg.Out, "\n  journal and logs are kept in %s\n", dir)
}
