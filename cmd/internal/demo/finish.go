package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// tailLines is how much of a log is shown.
const tailLines = 8

// What only the sidecar knows, under the names that package proxy gives it.
const (
	metricHidden  = "understudy_sidecar_redeliveries_hidden_total"
	metricResends = "understudy_sidecar_resends_total"
)

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

// readSidecar takes over what only the sidecar knows.
func (r *run) readSidecar(ctx context.Context) error {
	sums, err := r.cluster.counters(ctx, metricHidden, metricResends)
	r.result.RedeliveriesHidden, r.result.Resends = sums[metricHidden], sums[metricResends]
	return err
}

// note takes down a problem.
func (r *run) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Problems = append(r.result.Problems, text)
}

// conclude judges, prints, and cleans up.
func (r *run) conclude(ctx context.Context, err error) {
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
	failed := !res.Clean() && !r.cfg.Direct && ctx.Err() == nil // the negative control is meant to fail, and Ctrl-C is no failure
	r.cluster.cleanUp(failed, []string{"broker-a", "broker-b", "sidecar"})
	if r.cfg.JSON {
		_ = writeJSON(r.cfg.Out, res)
	}
}

// cleanUp removes the folder, or says where it is and, after a failure, how the logs end.
func (c *cluster) cleanUp(failed bool, logs []string) {
	if !failed && !c.cfg.Keep {
		_ = os.RemoveAll(c.dir)
		return
	}
	if failed {
		for _, name := range logs {
			if _, err := os.Stat(filepath.Join(c.dir, name+".log")); err == nil {
				fmt.Fprintf(c.cfg.Out, "\n  the last lines of %s.log:\n%s\n", name, c.kids.tail(name, tailLines))
			}
		}
	}
	fmt.Fprintf(c.cfg.Out, "\n  journal and logs are kept in %s\n", c.dir)
}
