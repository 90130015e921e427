package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/understudy-mq/understudy/scripts/harness/brokers"
)

// Contender is what a figure of ours can be compared with.
type Contender string

// The contenders. Ours is the paired broker, or its journal alone.
const (
	Ours     Contender = "understudy"
	ActiveMQ Contender = "activemq"
	RabbitMQ Contender = "rabbitmq"
	Bare     Contender = "bare"    // the bare loop, with writers in this process
	Sockets  Contender = "sockets" // the same behind STOMP connections, and nothing else: what disk, loopback and this client allow
)

// Others are all that the broker can be compared with.
func Others() []string {
	return []string{string(ActiveMQ), string(RabbitMQ), string(Bare), string(Sockets)}
}

// Missing is nil when what is needed to run a contender is installed; else its error says how to install it.
func Missing(name string) error {
	if slices.Contains([]Contender{Bare, Sockets}, Contender(name)) {
		return nil
	}
	return brokers.Missing(name)
}

// load is what is offered to every contender, in the order of the report: so many producers with so many messages unconfirmed each, while consumers
// take them, or before they do. Bars are the least that our rate may be in multiples of a contender's.
type load struct {
	name                         string
	producers, window, consumers int
	bars                         map[Contender]float64
}

func (l load) queue() string {
	return fmt.Sprintf("/queue/bench-%d-%d-%d", l.producers, l.window, l.consumers)
}

func (l load) outstanding() int { return l.producers * l.window }

// brokerLoads are those of the broker over STOMP.
var brokerLoads = []load{
	{"1", 1, 1, 0, nil},
	{"16", 16, 1, 0, map[Contender]float64{ActiveMQ: 5, RabbitMQ: 2, Bare: 0.3, Sockets: 0.3}},
	{"64", 64, 1, 0, map[Contender]float64{ActiveMQ: 5, RabbitMQ: 2, Bare: 0.3, Sockets: 0.3}},
	{"4x100", 4, 100, 0, map[Contender]float64{ActiveMQ: 5, RabbitMQ: 3, Bare: 0.3, Sockets: 0.3}},
	{"4x100+consumers", 4, 100, 2, map[Contender]float64{ActiveMQ: 5, RabbitMQ: 3}},
}

// Loads are the names of the broker's.
func Loads() []string {
	var names []string
	for _, l := range brokerLoads {
		names = append(names, l.name)
	}
	return names
}

// contender is one that runs.
type contender struct {
	id    Contender
	about string // version, and what its figures are of
	offer func(ctx context.Context, l load, d time.Duration) (sample, error)
}

// contest is one run: every load offered to every contender, in alternating rounds.
type contest struct {
	opt     Options
	loads   []load
	entered []*contender
	undo    []func()
	sample  map[entry][]sample // one for each round
}

type entry struct {
	load string
	id   Contender
}

func (w *contest) close() {
	for _, f := range slices.Backward(w.undo) {
		f()
	}
}

func (w *contest) enter(c *contender) { w.entered = append(w.entered, c) }

// run makes all rounds. The first is forgotten: compilers have compiled, caches and heaps are grown, queues are declared.
func (w *contest) run(ctx context.Context) error {
	w.sample = map[entry][]sample{}
	for round := -1; round < w.opt.Rounds; round++ {
		w.opt.Logf("round %d of %d", round+1, w.opt.Rounds)
		for _, l := range w.loads {
			for i := range w.entered {
				c := w.entered[(i+max(round, 0))%len(w.entered)] // each is the first as often as the others
				s, err := c.offer(ctx, l, w.opt.Load)
				if err == nil && s.frames == 0 {
					err = errors.New("not one message was confirmed")
				}
				if err = errors.Join(err, ctx.Err()); err != nil {
					return fmt.Errorf("%s, %s: %w", c.about, l.name, err)
				}
				k := entry{l.name, c.id}
				w.sample[k] = append(w.sample[k], s)
			}
		}
		if round < 0 {
			clear(w.sample)
		}
	}
	return nil
}

// RunBroker compares the paired broker with others, each a single broker on the same disk: durable messages, each confirmed, over STOMP.
func RunBroker(ctx context.Context, opt Options, against []string) ([]Versus, error) {
	w := &contest{opt: opt}
	defer w.close()
	for _, l := range brokerLoads {
		if slices.Contains(opt.Cases, l.name) {
			w.loads = append(w.loads, l)
		}
	}
	if err := w.enterOurs(ctx); err != nil {
		return nil, err
	}
	for _, name := range against {
		enter := func() error { return w.enterBroker(ctx, name) }
		switch Contender(name) {
		case Bare:
			enter = w.enterBare
		case Sockets:
			enter = w.enterSockets
		}
		if err := enter(); err != nil {
			return nil, err
		}
	}
	if err := w.run(ctx); err != nil {
		return nil, err
	}
	return w.lines(), nil
}

func (w *contest) enterOurs(ctx context.Context) error {
	b, err := startBroker(ctx, w.opt.Understudy, w.opt.Scratch, filepath.Join(w.opt.Data, "understudy"), "127.0.0.1:0", 1000)
	if err != nil {
		return err
	}
	w.undo = append(w.undo, func() { b.stop(syscall.SIGTERM) })
	s := &stompBroker{door: door{addr: b.listen, host: "bench"}}
	w.enter(&contender{Ours, "understudy broker", s.offer})
	return nil
}

func (w *contest) enterBroker(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 4*startWait)
	defer cancel()
	c, err := brokers.Start(ctx, name, brokers.Options{Dir: filepath.Join(w.opt.Data, name), Nodes: 1, Full: true, Logf: w.opt.Logf})
	if err != nil {
		return err
	}
	w.undo = append(w.undo, func() { _ = c.Close() })
	user, pass := c.Login()
	host := c.Vhost()
	if host == "" {
		host = "bench"
	}
	_, send, subscribe := c.Queue("bench")
	s := &stompBroker{door: door{c.Nodes()[0].Addr(), host, user, pass}, send: headerLines(send), subscribe: headerLines(subscribe)}
	about := c.Version()
	switch Contender(name) {
	case ActiveMQ:
		about += ", KahaDB"
	case RabbitMQ:
		about += ", quorum queue of one node"
	}
	w.enter(&contender{Contender(name), about, s.offer})
	return s.declare(ctx, w.loads)
}

// declare makes the queues of all loads by a message to each, which is taken again: RabbitMQ ends connections that declare the same quorum queue at the
// same time.
func (b *stompBroker) declare(ctx context.Context, loads []load) error {
	for _, l := range loads {
		if l.consumers > 0 {
			continue // SUBSCRIBE does it
		}
		_, err := b.door.each(ctx, 1, 1, func(_ int, c *client) error {
			c.sends = b.send
			_, err := c.pipeline(l.queue(), time.Minute, 1)
			return err
		})
		if err == nil {
			err = b.empty(ctx, l.queue(), 1)
		}
		if err != nil {
			return fmt.Errorf("declare %s: %w", l.queue(), err)
		}
	}
	return nil
}

// empty takes n messages from a queue, and finds no more there. The broker need not be told of each: at RabbitMQ acknowledgements may be lost that are
// followed by the end of the connection.
func (b *stompBroker) empty(ctx context.Context, queue string, n int) error {
	_, err := b.door.each(ctx, 1, 1, func(_ int, c *client) error {
		_ = c.conn.SetDeadline(time.Now().Add(patience))
		if err := c.write("SUBSCRIBE\nid:1\ndestination:" + queue + "\nack:auto\n" + b.subscribe + "\n\x00"); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
		for i := range n {
			if err := c.expect("MESSAGE"); err != nil {
				return fmt.Errorf("empty %s after %d messages of %d: %w", queue, i, n, err)
			}
		}
		return c.leave()
	})
	return err
}

func headerLines(headers map[string]string) string {
	var b strings.Builder
	for name, value := range headers {
		b.WriteString(name + ":" + value + "\n")
	}
	return b.String()
}

// openBare makes a bare loop that lives as long as the contest.
func (w *contest) openBare() (*bareLog, error) {
	dir, err := os.MkdirTemp(w.opt.Data, "bare-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the bare loop: %w", err)
	}
	log, err := openBare(dir)
	if err == nil {
		w.undo = append(w.undo, func() { _ = log.close() })
	}
	return log, err
}

// enterSockets lets an answering peer confirm what the bare loop has written. It has no queues, so there is nothing to be consumed.
func (w *contest) enterSockets() error {
	log, err := w.openBare()
	if err != nil {
		return err
	}
	a, err := startLogging(false, log)
	if err != nil {
		return err
	}
	w.undo = append(w.undo, a.close)
	s := &stompBroker{door: door{addr: a.addr(), host: "bench"}, forgets: true}
	w.enter(&contender{Sockets, "bare loop behind STOMP", s.offer})
	return nil
}

func (w *contest) enterBare() error {
	log, err := w.openBare()
	if err != nil {
		return err
	}
	w.enter(&contender{Bare, "bare loop, in process", func(ctx context.Context, l load, d time.Duration) (sample, error) {
		return closedLoop(ctx, l.outstanding(), d, log.append)
	}})
	return nil
}

// stompBroker is a running broker, and what it has to be told so that messages are durable.
type stompBroker struct {
	door            door
	send, subscribe string // header lines
	forgets         bool   // what is sent cannot be consumed
	attended        int    // loads with consumers so far
}

// offer measures a load, and leaves the queue as it was found: empty.
func (b *stompBroker) offer(ctx context.Context, l load, d time.Duration) (s sample, err error) {
	queue := l.queue()
	var a *audience
	if l.consumers > 0 && !b.forgets {
		// A new one each time: RabbitMQ may lose acknowledgements that the end of a connection follows, and delivers those messages again.
		b.attended++
		queue = fmt.Sprintf("%s-%d", queue, b.attended)
		if a, err = b.attend(ctx, queue, l.consumers); err != nil {
			return s, err
		}
	}
	took := make([][]time.Duration, l.producers)
	s.took, err = b.door.each(ctx, l.producers, batch, func(i int, c *client) (err error) {
		c.window, c.sends, c.timed = l.window, b.send, true
		if l.window == 1 {
			took[i], err = c.pingPong(queue, d)
			return err
		}
		_, err = c.pipeline(queue, d, stored/l.producers)
		took[i] = c.took
		return err
	})
	s.latencies(slices.Concat(took...))
	if a != nil {
		s.out = int(a.got.Load())
		return s, errors.Join(err, a.finish(ctx, s.frames))
	}
	if err != nil || s.frames == 0 || b.forgets {
		return s, err
	}
	return s, b.empty(ctx, queue, s.frames)
}
