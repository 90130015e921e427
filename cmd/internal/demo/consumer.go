package demo

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/go-stomp/stomp/v3"
)

// How a consumer works.
const (
	prefetch     = 500
	quickWork    = 5 * time.Millisecond // the longest that most messages take
	slowWork     = 2 * time.Second      // the longest that one in slowOneIn takes: longer than a take-over
	slowOneIn    = 64
	slowInOrder  = 200 * time.Millisecond // slowWork where acknowledgements are cumulative, and the others wait for it
	ackTick      = time.Millisecond
	cumulativeOf = 8 // with ack:client, how many messages one ACK covers at most
)

// consumer receives, works a little on each message and acknowledges it, in the mode asked for. Reading and acknowledging are apart: the
// library stops reading its connection when nobody takes what it read.
type consumer struct {
	client
	number int
	sub    *stomp.Subscription
	mode   stomp.AckMode
	todo   chan delivery // to the acknowledging half; never more than prefetch are unacknowledged, so it never blocks
	rng    *rand.Rand
	idle   chan struct{} // closed when the acknowledging half has ended

	transactions bool
}

type delivery struct {
	msg *stomp.Message
	m   message
	due time.Time
}

func ackMode(name string) stomp.AckMode {
	switch name {
	case "client":
		return stomp.AckClient
	case "auto":
		return stomp.AckAuto
	}
	return stomp.AckClientIndividual
}

func (c *consumer) subscribe() error {
	sub, err := c.conn.Subscribe(destination, c.mode, stomp.SubscribeOpt.Header("activemq.prefetchSize", strconv.Itoa(prefetch)))
	if err != nil {
		return fmt.Errorf("%s: subscribe: %w", c.name, err)
	}
	c.sub, c.todo, c.idle = sub, make(chan delivery, 2*prefetch), make(chan struct{})
	return nil
}

// consume reads until the subscription ends, which is when the client leaves or is broken.
func (c *consumer) consume() {
	go c.acknowledge()
	for {
		select {
		case msg, ok := <-c.sub.C:
			if ok && msg.Err == nil {
				c.receive(msg)
				continue
			}
			if ok {
				c.fail(msg.Err)
			}
		case <-c.left:
		}
		close(c.todo)
		<-c.idle
		return
	}
}

func (c *consumer) receive(msg *stomp.Message) {
	c.crew.silence.note(c.index)
	m, ok := identify(c.crew.cfg.Seed, msg.Body, c.crew.cfg.Payload)
	if !ok {
		c.crew.ledger.phantom(c.number)
		return
	}
	c.crew.ledger.receive(c.number, m)
	if c.mode != stomp.AckAuto {
		c.todo <- delivery{msg, m, time.Now().Add(c.work())}
	}
}

// work is how long a message takes.
func (c *consumer) work() time.Duration {
	longest := quickWork
	if c.rng.IntN(slowOneIn) == 0 {
		longest = slowWork
		if c.mode == stomp.AckClient {
			longest = slowInOrder
		}
	}
	return time.Duration(c.rng.Int64N(int64(longest)))
}

// acknowledge takes what was received and acknowledges it when it is due: one by one in the order of their due times, or in batches where the mode
// is cumulative or transactional.
func (c *consumer) acknowledge() {
	defer close(c.idle)
	tick := time.NewTicker(ackTick)
	defer tick.Stop()
	var pending []delivery
	for {
		select {
		case d, ok := <-c.todo:
			if !ok {
				return
			}
			pending = append(pending, d)
			continue
		case <-tick.C:
		}
		if len(pending) == 0 || c.isBroken() != nil {
			continue
		}
		rest, err := c.settle(pending, time.Now())
		if err != nil {
			c.fail(err)
		}
		pending = rest
	}
}

// settle acknowledges what of pending is due and returns what is not. In the cumulative mode that is the messages before the first that is
// not due, for an ACK covers all before it.
func (c *consumer) settle(pending []delivery, now time.Time) ([]delivery, error) {
	var due, rest []delivery
	for _, d := range pending {
		if d.due.After(now) || c.mode == stomp.AckClient && len(rest) > 0 {
			rest = append(rest, d)
		} else {
			due = append(due, d)
		}
	}
	size, ack := 1, c.ackEach
	switch {
	case c.transactions:
		size, ack = perTransaction, c.ackTogether
	case c.mode == stomp.AckClient:
		size, ack = cumulativeOf, c.ackLast
	}
	if c.mode == stomp.AckClientIndividual {
		slices.SortFunc(due, func(a, b delivery) int { return a.due.Compare(b.due) })
	}
	for batch := range slices.Chunk(due, size) {
		if err := ack(batch); err != nil {
			last := batch[len(batch)-1].m
			return rest, fmt.Errorf("acknowledge up to message %d of producer %d: %w", last.seq, last.producer, err)
		}
		for _, d := range batch {
			c.crew.ledger.acknowledge(d.m)
		}
	}
	return rest, nil
}

func (c *consumer) ackEach(batch []delivery) error {
	for _, d := range batch {
		if err := c.conn.Ack(d.msg); err != nil {
			return err
		}
	}
	return nil
}

// ackLast covers the batch with one cumulative ACK.
func (c *consumer) ackLast(batch []delivery) error { return c.ackEach(batch[len(batch)-1:]) }

// ackTogether acknowledges the batch in one transaction and waits for its receipt.
func (c *consumer) ackTogether(batch []delivery) error {
	tx, err := c.conn.BeginWithError()
	if err != nil {
		return err
	}
	if c.mode == stomp.AckClient {
		batch = batch[len(batch)-1:]
	}
	for _, d := range batch {
		if err := tx.Ack(d.msg); err != nil {
			return err
		}
	}
	return tx.CommitWithReceipt()
}
