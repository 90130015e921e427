package demo

import (
	"context"
	"errors"
	"sync"
	"time"
)

// run is one run.
type run struct {
	*crew
	timeline timeline
	memory   memoryWatch
	cluster  *cluster
	active   int // index of the active broker
	epoch    uint64
	silences []time.Duration
	result   Result

	mu     sync.Mutex
	serves string // who serves now, for the timeline
}

// Run runs the demo. The Result is filled in as far as the run came; the error says why it could not judge, for example because a
// process did not come up. A bad verdict is no error.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	r := &run{timeline: timeline{out: cfg.Out, start: time.Now()}}
	r.crew = newCrew(cfg, r.say, r.note)
	var err error
	if r.cluster, err = newCluster(cfg, &r.timeline); err != nil {
		return nil, err
	}
	err = r.play(ctx)
	r.cluster.close()
	r.awaitWorkers(err != nil || r.brokenClients() > 0)
	r.conclude(ctx, err)
	r.timeline.end()
	if err != nil && !errors.Is(err, errClients) && !errors.Is(err, errNoMore) {
		return &r.result, err
	}
	return &r.result, nil
}

func (r *run) say(format string, args ...any) { r.timeline.say(format, args...) }

// play is the story: start, connect, produce, faults, drain, leave.
func (r *run) play(ctx context.Context) error {
	if err := r.cluster.startPair(ctx); err != nil {
		return err
	}
	addr := r.cluster.sidecar.listen
	if r.cfg.Direct {
		addr = r.cluster.members[0].endpoint()
	}
	state, err := r.cluster.state(ctx, r.cluster.members[0])
	if err != nil {
		return err
	}
	r.epoch = state.Epoch
	r.serving("broker-a epoch %d", r.epoch)
	r.say("UP     broker-a active (epoch %d, pid %d), broker-b stands by (pid %d), one journal", r.epoch,
		r.cluster.members[0].process.pid(), r.cluster.members[1].process.pid())
	if !r.cfg.Direct {
		r.say("UP     sidecar on %s (pid %d), finds brokers by SRV %s", addr, r.cluster.sidecar.process.pid(), service)
	}
	if err := r.connect(ctx, addr); err != nil {
		return err
	}
	began := time.Now()
	watching, stopWatch := context.WithCancel(ctx)
	defer stopWatch()
	if r.cfg.Backlog > 0 {
		r.working.Go(func() { r.memory.run(watching) })
	}
	reporting, stopReports := context.WithCancel(ctx)
	var reports sync.WaitGroup
	reports.Go(func() { r.report(reporting) })
	err = r.faults(ctx)
	if err == nil && r.cfg.Backlog > 0 {
		err = r.faultsWithBacklog(ctx)
	}
	r.endProduction(ctx, err)
	r.result.RatePerSecond = float64(r.ledger.totals().sent) / time.Since(began).Seconds()
	stopReports()
	reports.Wait()
	if err == nil {
		err = r.drain(ctx)
	}
	if err == nil {
		err = r.sweep(ctx, addr)
	}
	r.disconnect()
	if err == nil && r.cfg.Backlog > 0 {
		err = r.take(ctx)
	}
	if !r.cfg.Direct && ctx.Err() == nil {
		err = errors.Join(err, r.readSidecar(ctx))
	}
	if err == nil {
		err = r.cluster.stop(ctx)
	}
	return err
}

// faults brings them about one after the other: spread over the messages where their number is given, else over time.
func (r *run) faults(ctx context.Context) error {
	over := time.Now()
	for k := range r.cfg.Kills {
		due := func() bool { return time.Since(over) >= r.cfg.Interval }
		if r.cfg.Messages > 0 {
			due = func() bool { return r.ledger.totals().sent >= r.cfg.Messages*(k+1)/(r.cfg.Kills+1) }
		}
		for !due() {
			if !sleepUntil(ctx, r.produced, time.Now().Add(pollEvery)) {
				return errors.Join(ctx.Err(), r.whyOver())
			}
		}
		if err := r.fault(ctx); err != nil {
			return err
		}
		over = time.Now()
	}
	if r.cfg.Messages == 0 {
		sleepUntil(ctx, r.produced, over.Add(r.cfg.Interval))
	}
	return ctx.Err()
}
