package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/cmd/internal/history"
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
	for _, o := range ops {
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
	c.t.Logf("store %s: %d messages, %d operations, %d of them of a queue judged as a whole, in %v; client errors %d, impossible 0; longest wait for a receipt %v", c.store, single.Messages,
		single.Operations, whole.Operations, time.Since(start).Round(time.Millisecond), len(c.failed), time.Duration(c.silence.Load()).Round(time.Millisecond))
	if single.Messages == 0 {
		c.t.Errorf("store %s: nothing was sent", c.store)
	}
}
