package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/cmd/internal/history"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// crew is the clients of one store, behind a sidecar of its own: some of them say one thing at a time, so that their queue can be judged as a whole, others
// keep much under way. All they do and see goes into a history.
type crew struct {
	t     *testing.T
	store string
	addr  string // of the sidecar
	book  *history.History

	ending    atomic.Bool // nothing more is sent
	done      atomic.Bool // and all of it is confirmed
	producers sync.WaitGroup
	consumers sync.WaitGroup
	confirmed atomic.Int64
	received  atomic.Int64
	silence   atomic.Int64 // the longest that a producer has waited for a receipt

	mu     sync.Mutex
	failed []string
}

// quiet is how long nothing must have come before a queue counts as empty.
const quiet = 600 * time.Millisecond

// clientPatience is how long a client waits for an answer: longer than sidecars hold.
const clientPatience = 40 * time.Second

// newCrew starts clients that go on until finish.
func newCrew(t *testing.T, store, addr string) *crew {
	c := &crew{t: t, store: store, addr: addr, book: history.New()}
	for i := range 2 {
		c.consume(fmt.Sprintf("%s-consumer-%d", store, i), "/queue/strict", 1)
		c.produce(fmt.Sprintf("%s-producer-%d", store, i), "/queue/strict", 1, 4*time.Millisecond)
	}
	c.consume(store+"-bulk-consumer", "/queue/bulk", 50)
	c.produce(store+"-bulk-producer", "/queue/bulk", 16, 2*time.Millisecond)
	c.commit(store+"-committer", "/queue/bulk")
	c.giveBack(store+"-restless", "/queue/strict")
	return c
}

func (c *crew) fail(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = append(c.failed, fmt.Sprintf(format, args...))
}

// produce has one client send, with a number of receipts outstanding at most.
func (c *crew) produce(name, queue string, window int, pace time.Duration) {
	conn := talk(c.t, c.addr)
	c.producers.Go(func() {
		type request struct {
			receipt string
			at      time.Time
			done    func()
		}
		var open []request
		for n := 0; !c.ending.Load() || len(open) > 0; {
			if !c.ending.Load() && len(open) < window {
				n++
				message := fmt.Sprintf("%s-%d", name, n)
				r := request{fmt.Sprint(n), time.Now(), c.book.Begin(history.Op{Kind: history.Send, Client: name, Queue: queue, Message: message})}
				if err := conn.trySend("SEND", "destination:"+queue, "receipt:"+r.receipt, "="+message); err != nil {
					c.fail("%s: %v", name, err)
					return
				}
				open = append(open, r)
				time.Sleep(pace)
				if len(open) < window {
					continue
				}
			}
			h, err := conn.read(clientPatience)
			if err != nil || h.command != "RECEIPT" || h.headers["receipt-id"] != open[0].receipt {
				c.fail("%s waits for receipt %s: %v %v", name, open[0].receipt, h, err)
				return
			}
			open[0].done()
			if took := int64(time.Since(open[0].at)); window == 1 && took > c.silence.Load() {
				c.silence.Store(took)
			}
			c.confirmed.Add(1)
			open = open[1:]
		}
		_ = conn.trySend("DISCONNECT")
	})
}

// consume has one client take messages, with a number that it may hold at most, and acknowledge each.
func (c *crew) consume(name, queue string, prefetch int) {
	conn := talk(c.t, c.addr)
	conn.subscribe("s", queue, "client-individual", fmt.Sprint("activemq.prefetchSize:", prefetch))
	room := make([]time.Duration, prefetch) // since when there is room for a message
	for i := range room {
		room[i] = c.book.Now()
	}
	c.consumers.Go(func() {
		acks := map[string]func(){}
		for last := time.Now(); ; {
			h, err := conn.read(quiet / 4)
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded):
				if len(acks) == 0 && c.done.Load() && time.Since(last) > quiet {
					_ = conn.trySend("DISCONNECT")
					return
				}
				if time.Since(last) > clientPatience {
					c.fail("%s hears nothing more, with %d acknowledgements unconfirmed", name, len(acks))
					return
				}
				continue
			case err != nil:
				c.fail("%s: %v", name, err)
				return
			case h.command == "RECEIPT" && acks[h.headers["receipt-id"]] != nil:
				acks[h.headers["receipt-id"]]()
				delete(acks, h.headers["receipt-id"])
			case h.command == "MESSAGE":
				if len(room) == 0 {
					c.fail("%s got %v beyond its prefetch", name, h)
					return
				}
				c.book.BeginAt(room[0], history.Op{Kind: history.Receive, Client: name, Queue: queue, Message: h.body, Again: h.headers["redelivered"] == "true"})()
				room = append(room[1:], c.book.Now())
				c.received.Add(1)
				acks[h.body] = c.book.Begin(history.Op{Kind: history.Ack, Client: name, Queue: queue, Message: h.body})
				if err := conn.trySend("ACK", "id:"+h.headers["ack"], "receipt:"+h.body); err != nil {
					c.fail("%s: %v", name, err)
					return
				}
			default:
				c.fail("%s got %v", name, h)
				return
			}
			last = time.Now()
		}
	})
}

// commit has one client send three messages in each transaction.
func (c *crew) commit(name, queue string) {
	conn := talk(c.t, c.addr)
	c.producers.Go(func() {
		for n := 0; !c.ending.Load(); n++ {
			tx := fmt.Sprint("transaction:t", n)
			err := conn.trySend("BEGIN", tx)
			var messages []string
			for i := range 3 {
				messages = append(messages, fmt.Sprintf("%s-%d-%d", name, n, i))
				err = errors.Join(err, conn.trySend("SEND", "destination:"+queue, tx, "="+messages[i]))
				time.Sleep(5 * time.Millisecond) // most of the time it is open
			}
			var done []func()
			for _, m := range messages {
				done = append(done, c.book.Begin(history.Op{Kind: history.Send, Client: name, Queue: queue, Message: m}))
			}
			err = errors.Join(err, conn.trySend("COMMIT", tx, "receipt:done"))
			if h, err2 := conn.read(clientPatience); err != nil || err2 != nil || h.command != "RECEIPT" {
				c.fail("%s commits: %v %v %v", name, err, err2, h)
				return
			}
			for _, f := range done {
				f()
			}
			c.confirmed.Add(int64(len(done)))
		}
		_ = conn.trySend("DISCONNECT")
	})
}

// giveBack has one client after the other take ten messages, and leave without having acknowledged the next one.
func (c *crew) giveBack(name, queue string) {
	c.consumers.Go(func() {
		for n := 0; !c.ending.Load(); n++ {
			if err := c.visit(fmt.Sprintf("%s-%d", name, n), queue, 10); err != nil {
				c.fail("%s: %v", name, err)
				return
			}
		}
	})
}

// visit is one such client.
func (c *crew) visit(name, queue string, number int) error {
	nc, err := net.Dial("tcp", c.addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	conn := &talker{t: c.t, nc: nc}
	if err := conn.trySend("CONNECT", "accept-version:1.2", "host:x"); err != nil {
		return err
	}
	if h, err := conn.read(clientPatience); err != nil || h.command != "CONNECTED" {
		return fmt.Errorf("got %v %w, not CONNECTED", h, err)
	}
	conn.parser.Version = frame.V12
	room := c.book.Now()
	if err := conn.trySend("SUBSCRIBE", "id:s", "destination:"+queue, "ack:client-individual", "activemq.prefetchSize:1"); err != nil {
		return err
	}
	answered := map[string]func(){} // by receipt
	for last, left := time.Now(), false; ; {
		h, err := conn.read(quiet / 4)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if time.Since(last) > clientPatience && !c.ending.Load() {
				return errors.New("hears nothing more")
			}
			if !left && c.done.Load() && time.Since(last) > quiet {
				left, answered["bye"] = true, func() {}
				if err := conn.trySend("DISCONNECT", "receipt:bye"); err != nil {
					return err
				}
			}
			continue
		case err != nil:
			return err
		case h.command == "RECEIPT" && answered[h.headers["receipt-id"]] != nil:
			answered[h.headers["receipt-id"]]()
			if h.headers["receipt-id"] == "bye" {
				return nil
			}
		case h.command == "MESSAGE" && !left:
			c.book.BeginAt(room, history.Op{Kind: history.Receive, Client: name, Queue: queue, Message: h.body, Again: h.headers["redelivered"] == "true"})()
			about := history.Op{Kind: history.Ack, Client: name, Queue: queue, Message: h.body}
			if number--; number < 0 && !c.ending.Load() {
				left, about.Kind = true, history.Return
				answered["bye"] = c.book.Begin(about)
				err = conn.trySend("DISCONNECT", "receipt:bye")
			} else {
				room = c.book.Now()
				answered[h.body] = c.book.Begin(about)
				err = conn.trySend("ACK", "id:"+h.headers["ack"], "receipt:"+h.body)
			}
			if err != nil {
				return err
			}
		default:
			return fmt.Errorf("got %v", h)
		}
		last = time.Now()
	}
}

// goesOn waits until clients get receipts and messages for what they send from now on.
func (c *crew) goesOn() {
	c.t.Helper()
	confirmed, received := c.confirmed.Load(), c.received.Load()
	for deadline := time.Now().Add(2 * patience); c.confirmed.Load() < confirmed+30 || c.received.Load() < received+30; time.Sleep(5 * time.Millisecond) {
		if c.mu.Lock(); len(c.failed) > 0 {
			c.t.Fatalf("store %s: clients failed: %q", c.store, c.failed)
		}
		c.mu.Unlock()
		if time.Now().After(deadline) {
			c.t.Fatalf("store %s: clients wait, after %d receipts and %d messages", c.store, c.confirmed.Load(), c.received.Load())
		}
	}
}

// finish has the clients end, and judges what they saw.
func (c *crew) finish(judged time.Duration) {
	c.t.Helper()
	c.ending.Store(true)
	c.producers.Wait()
	c.done.Store(true)
	c.consumers.Wait()
	for _, queue := range []string{"/queue/strict", "/queue/bulk"} {
		c.book.Begin(history.Op{Kind: history.Drained, Client: "nobody", Queue: queue})()
	}
	for _, why := range c.failed {
		c.t.Errorf("store %s: a client saw it: %s", c.store, why)
	}
	ops := c.book.Ops()
	var strict []history.Op
	returned := 0
	for _, o := range ops {
		if o.Kind == history.Return {
			returned++
		}
		if o.Queue == "/queue/strict" {
			strict = append(strict, o)
		}
	}
	start := time.Now()
	single, whole, order := history.Messages(ops, judged), history.Queues(strict, judged), history.Order(ops)
	for what, v := range map[string]history.Verdict{"messages": single, "queue": whole, "order": order} {
		if err := v.Err(); err != nil {
			c.t.Errorf("store %s, %s: %v", c.store, what, err)
		}
	}
	if whole.Err() != nil {
		c.t.Logf("store %s: the first answer without an explanation, and what came before it:\n%s", c.store, history.Culprit(strict, 2*time.Second))
	}
	c.t.Logf("store %s: %d messages, %d given back, %d operations, %d of them of queues judged as a whole, in %v; client errors %d, impossible %d; longest wait for a receipt %v",
		c.store, single.Messages, returned, single.Operations, whole.Operations, time.Since(start).Round(time.Millisecond), len(c.failed), len(single.Wrong)+len(whole.Wrong)+len(order.Wrong), time.Duration(c.silence.Load()).Round(time.Millisecond))
	if single.Messages == 0 {
		c.t.Errorf("store %s: nothing was sent", c.store)
	}
}
