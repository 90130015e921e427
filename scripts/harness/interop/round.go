package interop

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/understudy-mq/understudy/scripts/harness/brokers"
)

// Patience of a round. All of it is bounded, so that a library that hangs costs its cell and not the table.
const (
	readyLimit = 40 * time.Second // for a client to connect and subscribe
	holdLimit  = 60 * time.Second // for a producer to end after its time: more than a sidecar holds and a library waits
	drainLimit = 25 * time.Second // for a consumer to receive what was confirmed
	byeLimit   = 30 * time.Second // for a consumer to leave
	settle     = 300 * time.Millisecond
	hangLimit  = 10 * time.Second // for a direct client, which nothing may ever wake
	healLimit  = 2 * time.Minute
	strikeAt   = 0.4 // part of the load's time after which the fault strikes
)

// Way is how a client reaches its broker.
type Way string

// The ways.
const (
	Direct     Way = "direct"
	ViaSidecar Way = "sidecar"
)

// Cell is one client library at one broker, with one fault.
type Cell struct {
	Client Client
	Via    Way
}

// Runner runs cells. All fields are required but More and Keep.
type Runner struct {
	Binary   string // the understudy program
	Programs Programs
	Rate     float64       // messages a second, of each cell
	Load     time.Duration // how long each cell's producer sends if nothing holds it up
	More     []string      // further arguments of the sidecar
	Keep     string        // directory for logs; empty: those of broken cells go to the system's temporary directory
	Logf     func(format string, args ...any)
}

// bodySize is small, as most messages are, and more than one octet a character would not all libraries pass on unchanged.
const bodySize = 128

// unackedHeld is how many messages each consumer keeps unacknowledged, so that every fault finds some.
const unackedHeld = 5

// running is a cell while it runs.
type running struct {
	Cell
	job                Job
	producer, consumer *client
	evidence           Evidence
	aborted            error // the cell could not be run at all
}

// round is some cells of one broker, with one fault that strikes all of them.
type round struct {
	*Runner
	cluster brokers.Cluster
	fault   Fault
	promise Promise
	active  int
	dir     string
	sidecar *sidecar
	tcp     []*forwarder // one before each node; only for Reset
	cells   []*running
	begun   time.Time // when all were ready and the load began
	struck  time.Time
}

// Round runs cells together and returns a result for each. An error means that the round could not be run; the cluster may then be in any state.
func (r *Runner) Round(ctx context.Context, cluster brokers.Cluster, fault Fault, cells []Cell) (results []Result, err error) {
	promise, err := PromiseOf(cluster.Kind())
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(r.Keep, fmt.Sprintf("interop-%s-%s-", cluster.Kind(), fault))
	if err != nil {
		return nil, fmt.Errorf("make a directory for logs: %w", err)
	}
	o := &round{Runner: r, cluster: cluster, fault: fault, promise: promise, dir: dir}
	defer func() {
		err = errors.Join(err, o.close())
		keep := r.Keep != "" || err != nil
		for i := range results {
			if len(results[i].Broken) > 0 {
				results[i].Logs, keep = dir, true
			}
		}
		if !keep {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := o.prepare(ctx, cells); err != nil {
		return nil, err
	}
	if err := o.load(ctx); err != nil {
		return nil, err
	}
	missed := o.missed()
	if err := o.heal(ctx); err != nil {
		return nil, err
	}
	o.empty(ctx)
	return o.results(missed), ctx.Err()
}

// prepare finds out whom to hit and puts everything between clients and brokers in place.
func (o *round) prepare(ctx context.Context, cells []Cell) error {
	finding, cancel := context.WithTimeout(ctx, healLimit)
	defer cancel()
	var err error
	if o.active, err = o.cluster.Active(finding); err != nil {
		return err
	}
	addrs := make([]string, 0, len(o.cluster.Nodes()))
	for _, n := range o.cluster.Nodes() {
		addr := n.Addr()
		if o.fault == Reset {
			f, err := startForwarder(addr)
			if err != nil {
				return err
			}
			o.tcp = append(o.tcp, f)
			addr = f.addr()
		}
		addrs = append(addrs, addr)
	}
	addrs[0], addrs[o.active] = addrs[o.active], addrs[0]
	places := map[Way]string{Direct: addrs[0]}
	for _, c := range cells {
		if c.Via == ViaSidecar && o.sidecar == nil {
			if o.sidecar, err = startSidecar(ctx, o.Binary, o.dir, addrs, o.More); err != nil {
				return err
			}
			places[ViaSidecar] = o.sidecar.listen
		}
	}
	for i, c := range cells {
		cell, err := o.cell(i, c, places[c.Via])
		if err != nil {
			return err
		}
		o.cells = append(o.cells, cell)
	}
	return nil
}

// cell makes the job of a cell: a queue that nobody else uses.
func (o *round) cell(i int, c Cell, place string) (*running, error) {
	host, port, err := net.SplitHostPort(place)
	if err != nil {
		return nil, fmt.Errorf("address of the %s way: %w", c.Via, err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("address of the %s way: %w", c.Via, err)
	}
	run := fmt.Sprintf("%s-%d-%08x", o.fault, i, rand.Uint32())
	user, pass := o.cluster.Login()
	job := Job{
		Host: host, Port: n, Login: user, Passcode: pass, Vhost: o.cluster.Vhost(), Run: run,
		Count: max(1, int(o.Rate*o.Load.Seconds())), Rate: o.Rate, Window: c.Client.Window, Size: bodySize, Hold: unackedHeld,
	}
	return &running{Cell: c, job: job, evidence: Evidence{Run: run, Size: bodySize, Numbered: c.Client.Numbered}}, nil
}

// jobs of a cell's two programs. Every SEND is persistent: that is what is promised something.
func (o *round) jobs(c *running) (producer, consumer Job) {
	destination, send, subscribe := o.cluster.Queue("interop." + c.job.Run)
	c.job.Destination = destination
	producer, consumer = c.job, c.job
	producer.Role, producer.Headers = "produce", map[string]string{"persistent": "true"}
	consumer.Role, consumer.Headers = "consume", map[string]string{}
	for k, v := range send {
		producer.Headers[k] = v
	}
	for k, v := range subscribe {
		consumer.Headers[k] = v
	}
	return producer, consumer
}

// load starts the programs, strikes in the middle, and waits for all of them.
func (o *round) load(ctx context.Context) error {
	o.each(func(c *running) { c.aborted = o.begin(ctx, c) })
	o.each(func(c *running) { c.producer.begin() })
	o.begun = time.Now()
	select {
	case <-time.After(time.Duration(strikeAt * float64(o.Load))):
	case <-ctx.Done():
		return ctx.Err()
	}
	end := o.begun.Add(o.Load + holdLimit)
	over, cancel := context.WithCancel(ctx)
	defer cancel()
	var thawing sync.WaitGroup
	if err := o.strike(over, &thawing); err != nil {
		return err
	}
	o.each(func(c *running) { o.finish(ctx, c, end) })
	cancel()
	thawing.Wait()
	return ctx.Err()
}

// each does something for all cells at once.
func (o *round) each(do func(*running)) {
	var all sync.WaitGroup
	for _, c := range o.cells {
		if c.aborted == nil {
			all.Go(func() { do(c) })
		}
	}
	all.Wait()
}

// begin starts a cell's consumer, then its producer, and waits until both are ready.
func (o *round) begin(ctx context.Context, c *running) error {
	produce, consume := o.jobs(c)
	deadline := time.Now().Add(readyLimit)
	name := fmt.Sprintf("%s %s", c.Client.Name, c.Via)
	var err error
	if c.consumer, err = startClient(name+" consumer", o.Programs.command(c.Client), consume); err != nil {
		return err
	}
	if !c.consumer.until(deadline, func() bool { return c.consumer.said('R') > 0 }) {
		return fmt.Errorf("the consumer was not ready in time: %s", c.consumer.errors.String())
	}
	if c.producer, err = startClient(name+" producer", o.Programs.command(c.Client), produce); err != nil {
		return err
	}
	if !c.producer.until(deadline, func() bool { return c.producer.said('R') > 0 }) {
		return fmt.Errorf("the producer was not ready in time: %s", c.producer.errors.String())
	}
	return ctx.Err()
}

// strike does the fault. What is to be thawed is by a goroutine of thawing, at the latest when over ends.
func (o *round) strike(over context.Context, thawing *sync.WaitGroup) error {
	node := o.cluster.Nodes()[o.active]
	o.struck = time.Now()
	switch o.fault {
	case None:
		o.struck = time.Time{}
	case Kill:
		return node.Kill()
	case Stop:
		ctx, cancel := context.WithTimeout(over, healLimit)
		defer cancel()
		return node.Stop(ctx)
	case Freeze:
		if err := node.Freeze(); err != nil {
			return err
		}
		if o.promise.Thaw == 0 {
			return nil
		}
		thawing.Go(func() {
			select {
			case <-time.After(o.promise.Thaw):
			case <-over.Done():
			}
			if err := node.Thaw(); err != nil {
				o.Logf("%v", err)
			}
		})
	case Reset:
		for _, f := range o.tcp {
			f.reset()
		}
	default:
		return fmt.Errorf("unknown fault %q", o.fault)
	}
	return nil
}

// finish waits for a cell's producer to end and for its consumer to have what was confirmed, and ends the consumer.
func (o *round) finish(ctx context.Context, c *running, end time.Time) {
	stop := context.AfterFunc(ctx, func() {
		_ = c.producer.cmd.Process.Kill()
		_ = c.consumer.cmd.Process.Kill()
	})
	defer stop()
	if c.Via == Direct {
		end = o.begun.Add(o.Load + hangLimit)
	}
	c.producer.end(end)
	confirmed := c.producer.said('C')
	c.consumer.until(time.Now().Add(o.drain(c)), func() bool { return c.consumer.received() >= confirmed })
	if !c.consumer.ended() {
		time.Sleep(settle) // a duplicate would come now
	}
	c.consumer.terminate()
	c.consumer.end(time.Now().Add(byeLimit))
}

// drain is how long to wait for a consumer. A direct one whose broker was hit may wait for ever: a dead connection without heart-beats.
func (o *round) drain(c *running) time.Duration {
	if c.Via == Direct && o.fault != None {
		return hangLimit
	}
	return drainLimit
}

// missed counts the connections through the sidecar that the fault did not reach: each that ended in good order must have been taken over.
func (o *round) missed() error {
	if o.sidecar == nil || o.fault == None || o.fault == Freeze && o.promise.Thaw > 0 { // one that is thawed may go on as if nothing had been
		return nil
	}
	n := 0
	for _, c := range o.cells {
		if c.Via == ViaSidecar && c.aborted == nil {
			n += c.producer.said('B') + c.consumer.said('B')
		}
	}
	moved, err := o.sidecar.metric("takeovers_total")
	if err == nil && moved < n {
		err = fmt.Errorf("the fault reached only %d of %d connections through the sidecar", moved, n)
	}
	return err
}

// heal makes the cluster whole again.
func (o *round) heal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healLimit)
	defer cancel()
	nodes := o.cluster.Nodes()
	if o.fault == Freeze && o.promise.Thaw == 0 && nodes[o.active].Running() {
		if err := nodes[o.active].Kill(); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		if n.Running() {
			continue
		}
		if err := n.Start(ctx); err != nil {
			return fmt.Errorf("start what was ended by the fault: %w", err)
		}
	}
	_, err := o.cluster.Active(ctx)
	return err
}

// close ends what is left of the round.
func (o *round) close() error {
	for _, c := range o.cells {
		for _, p := range []*client{c.producer, c.consumer} {
			if p != nil {
				p.end(time.Now())
			}
		}
	}
	var err error
	if o.sidecar != nil {
		err = o.sidecar.stop()
	}
	for _, f := range o.tcp {
		f.close()
	}
	return err
}
