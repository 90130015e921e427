package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Reasons to end the faults before their number is reached.
var (
	errClients = errors.New("a client is broken")
	errNoMore  = errors.New("the messages ran out before the faults were done; raise --messages or lower --rate")
)

// inFlightWait bounds the wait for a moment with something in the air.
const inFlightWait = 10 * time.Second

// freshSend is the age up to which a SEND is certainly still on its way: less than what a sync to disk takes.
const freshSend = 200 * time.Microsecond

// crew are the clients of one store: producers and consumers, with the book of what they sent and received.
type crew struct {
	cfg       Config // its Rate and its Seed are the crew's own
	prefix    string // of the clients' names
	mixed     bool   // every second producer and every second consumer works in transactions, whatever cfg says
	ledger    *ledger
	silence   silence
	producers []*producer
	consumers []*consumer
	stop      chan struct{} // closed: producers finish
	produced  chan struct{} // closed: producers have finished
	working   sync.WaitGroup

	tell    func(format string, args ...any) // a line of the timeline
	problem func(text string)
}

// newCrew hires nobody yet: connect does.
func newCrew(cfg Config, tell func(string, ...any), problem func(string)) *crew {
	return &crew{
		cfg: cfg, ledger: newLedger(cfg.Producers, cfg.Receipts, cfg.Ack == "auto"), stop: make(chan struct{}), produced: make(chan struct{}),
		tell: tell, problem: problem,
	}
}

// connect logs every client in and sets them to work: consumers first.
func (w *crew) connect(ctx context.Context, addr string) error {
	seeds := rand.NewPCG(w.cfg.Seed, 1)
	for i := range w.cfg.Consumers {
		c := &consumer{client: w.client("consumer", i), number: i, mode: ackMode(w.cfg.Ack), rng: rand.New(rand.NewPCG(seeds.Uint64(), 2)), transactions: w.transacts(i)}
		w.consumers = append(w.consumers, c)
	}
	share := w.cfg.Messages / w.cfg.Producers
	for i := range w.cfg.Producers {
		p := &producer{client: w.client("producer", i), number: i, quota: share, transactions: w.transacts(i), slow: w.mixed}
		p.interval = time.Duration(float64(time.Second) * float64(w.cfg.Producers) / float64(w.cfg.Rate))
		if i < w.cfg.Messages%w.cfg.Producers {
			p.quota++
		}
		w.producers = append(w.producers, p)
	}
	for i, c := range w.clients() {
		c.index = i
		if err := c.connect(ctx, addr); err != nil {
			return err
		}
	}
	for _, c := range w.consumers {
		if err := c.subscribe(); err != nil {
			return err
		}
		w.working.Go(c.consume)
	}
	w.tell("UP     %d producers and %d consumers are connected; %d messages/s are offered", len(w.producers), len(w.consumers), w.cfg.Rate)
	var producing sync.WaitGroup
	for _, p := range w.producers {
		if p.quota == 0 && w.cfg.Messages > 0 {
			continue // fewer messages than producers
		}
		producing.Go(func() { p.produce(ctx, w.stop) })
	}
	w.working.Go(func() { producing.Wait(); close(w.produced) })
	return nil
}

func (w *crew) client(kind string, i int) client {
	return client{name: fmt.Sprintf("%s%s-%d", w.prefix, kind, i), crew: w}
}

// transacts says whether the client of that number works in transactions.
func (w *crew) transacts(i int) bool { return w.cfg.Transactions || w.mixed && i%2 == 1 }

// clients are all of them, consumers first.
func (w *crew) clients() []*client {
	all := make([]*client, 0, len(w.producers)+len(w.consumers))
	for _, c := range w.consumers {
		all = append(all, &c.client)
	}
	for _, p := range w.producers {
		all = append(all, &p.client)
	}
	return all
}

// listeners is how many of clients hear anything at all: a producer that wants no receipts does not.
func (w *crew) listeners() int {
	if !w.cfg.Receipts {
		return len(w.consumers)
	}
	return len(w.consumers) + len(w.producers)
}

func (w *crew) clientBroke(name string, err error) { w.tell("BROKEN %s: %v", name, err) }

func (w *crew) brokenClients() (n int) {
	for _, c := range w.clients() {
		if c.isBroken() != nil {
			n++
		}
	}
	return n
}

// openTransactions is how many producers are between BEGIN and COMMIT.
func (w *crew) openTransactions() (n int) {
	for _, p := range w.producers {
		if p.open.Load() {
			n++
		}
	}
	return n
}

// whyOver is why the producers have ended before the faults were done.
func (w *crew) whyOver() error {
	if w.brokenClients() > 0 {
		return errClients
	}
	return errNoMore
}

// awaitInFlight waits for a moment with something in the air, and returns what that is. Sends that have only just begun are waited for, so that they are
// not confirmed in the little time that is left until the fault; a load that has none is taken as it is after a while.
func (w *crew) awaitInFlight(ctx context.Context) (inFlight, error) {
	began := time.Now()
	for {
		f := w.ledger.snapshot()
		waited := time.Since(began)
		if len(f.unacked) >= 2 && (f.fresh(freshSend) > 0 || len(f.sends) > 0 && waited > inFlightWait/2) {
			return f, nil
		}
		switch {
		case w.brokenClients() > 0:
			return f, errClients
		case waited > inFlightWait:
			return f, fmt.Errorf("no fault was brought about: in %v there never was a moment with a SEND unconfirmed and 2 messages unacknowledged; raise --rate", inFlightWait)
		}
		if !sleepUntil(ctx, w.produced, time.Now().Add(50*time.Microsecond)) {
			return f, errors.Join(ctx.Err(), errNoMore)
		}
	}
}

// awaitHeard waits until every client has heard something since the store was claimed, and returns how long each was without, but for those to which
// nothing more will come.
func (w *crew) awaitHeard(ctx context.Context, claimed time.Time) ([]time.Duration, error) {
	var each []time.Duration
	err := await(ctx, w.cfg.TakeoverTimeout, "every client to hear of the new epoch", func() (bool, error) {
		waiting := 0
		each, waiting = w.silence.since(claimed)
		if w.brokenClients() > 0 {
			return false, errClients
		}
		return waiting == 0 || isClosed(w.produced), nil
	})
	if err != nil {
		return nil, err
	}
	var heard []time.Duration
	for i, d := range each {
		if d > 0 {
			heard = append(heard, d)
			if w.cfg.Verbose {
				w.tell("       %-11s silent for %6.1f ms", w.clients()[i].name, milliseconds(d))
			}
		}
	}
	return heard, nil
}
