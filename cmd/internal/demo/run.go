package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

// Reasons to end the faults before their number is reached.
var (
	errClients = errors.New("a client is broken")
	errNoMore  = errors.New("the messages ran out before the faults were done; raise --messages or lower --rate")
)

// giveUp is how long clients get to come to an end by themselves when the run cannot go on.
const giveUp = 2 * time.Second

// run is one run.
type run struct {
	cfg       Config
	log       *slog.Logger
	timeline  timeline
	ledger    *ledger
	silence   silence
	memory    memoryWatch
	cluster   cluster
	producers []*producer
	consumers []*consumer
	active    int // index of the active broker
	epoch     uint64
	stop      chan struct{} // closed: producers finish
	produced  chan struct{} // closed: producers have finished
	working   sync.WaitGroup
	silences  []time.Duration
	result    Result

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
	if cfg.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find own binary: %w", err)
		}
		cfg.Binary = self
	}
	dir, err := os.MkdirTemp("", "understudy-demo-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the demo: %w", err)
	}
	r := &run{
		cfg: cfg, log: cfg.Logger, timeline: timeline{out: cfg.Out, start: time.Now()}, ledger: newLedger(cfg.Producers, cfg.Receipts, cfg.Ack == "auto"),
		cluster: cluster{cfg: cfg, dir: dir}, stop: make(chan struct{}), produced: make(chan struct{}),
	}
	var tee io.Writer
	if cfg.Verbose {
		tee = &r.timeline
	}
	r.cluster.kids = newNursery(cfg.Binary, dir, tee)
	err = r.play(ctx)
	r.cluster.close()
	r.awaitWorkers(err != nil || r.brokenClients() > 0)
	r.conclude(ctx, err, dir)
	r.timeline.end()
	if err != nil && !errors.Is(err, errClients) && !errors.Is(err, errNoMore) {
		return &r.result, err
	}
	return &r.result, nil
}

func (r *run) say(format string, args ...any) { r.timeline.say(format, args...) }

// play is the story: start, connect, produce, faults, drain, leave.
func (r *run) play(ctx context.Context) error {
	if err := r.cluster.start(ctx); err != nil {
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

// connect logs every client in and sets them to work: consumers first.
func (r *run) connect(ctx context.Context, addr string) error {
	seeds := rand.NewPCG(r.cfg.Seed, 1)
	for i := range r.cfg.Consumers {
		c := &consumer{client: client{name: fmt.Sprintf("consumer-%d", i), run: r}, number: i, mode: ackMode(r.cfg.Ack), rng: rand.New(rand.NewPCG(seeds.Uint64(), 2))}
		r.consumers = append(r.consumers, c)
	}
	share := r.cfg.Messages / r.cfg.Producers
	for i := range r.cfg.Producers {
		p := &producer{client: client{name: fmt.Sprintf("producer-%d", i), run: r}, number: i, quota: share}
		p.interval = time.Duration(float64(time.Second) * float64(r.cfg.Producers) / float64(r.cfg.Rate))
		if i < r.cfg.Messages%r.cfg.Producers {
			p.quota++
		}
		r.producers = append(r.producers, p)
	}
	for i, c := range r.clients() {
		c.index = i
		if err := c.connect(ctx, addr); err != nil {
			return err
		}
	}
	for _, c := range r.consumers {
		if err := c.subscribe(); err != nil {
			return err
		}
		r.working.Go(c.consume)
	}
	r.say("UP     %d producers and %d consumers are connected; %d messages/s are offered", len(r.producers), len(r.consumers), r.cfg.Rate)
	var producing sync.WaitGroup
	for _, p := range r.producers {
		if p.quota == 0 && r.cfg.Messages > 0 {
			continue // fewer messages than producers
		}
		producing.Go(func() { p.produce(ctx, r.stop) })
	}
	r.working.Go(func() { producing.Wait(); close(r.produced) })
	return nil
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

// whyOver is why the producers have ended before the faults were done.
func (r *run) whyOver() error {
	if r.brokenClients() > 0 {
		return errClients
	}
	return errNoMore
}
