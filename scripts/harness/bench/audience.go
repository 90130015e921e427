package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// audience are consumers that compete for a queue while it is filled, and acknowledge each message by itself.
type audience struct {
	clients []*client
	got     atomic.Int64 // messages acknowledged, all together
	over    atomic.Bool  // what ends a read now is us
	errs    []error
	running sync.WaitGroup
}

// attend subscribes n consumers; finish must be called.
func (b *stompBroker) attend(ctx context.Context, queue string, n int) (*audience, error) {
	a := &audience{errs: make([]error, n)}
	for range n {
		c, err := b.door.connect(ctx, readBuffer)
		if err == nil {
			a.clients = append(a.clients, c)
			c.perWrite = batch
			_ = c.conn.SetDeadline(time.Now().Add(patience))
			err = c.write("SUBSCRIBE\nid:1\nreceipt:0\ndestination:" + queue + "\nack:client-individual\nactivemq.prefetchSize:" + strconv.Itoa(window) +
				"\nprefetch-count:" + strconv.Itoa(window) + "\n" + b.subscribe + "\n\x00")
		}
		if err == nil {
			err = c.receipt(0)
		}
		if err != nil {
			a.close()
			return nil, fmt.Errorf("subscribe: %w", err)
		}
	}
	for i, c := range a.clients {
		_ = c.conn.SetDeadline(time.Time{})
		a.running.Go(func() { a.errs[i] = a.listen(c) })
	}
	return a, nil
}

func (a *audience) close() {
	for _, c := range a.clients {
		c.close()
	}
}

func (a *audience) listen(c *client) error {
	waiting := 0
	for c.out = c.out[:0]; ; {
		if err := c.expect("MESSAGE"); err != nil {
			if a.over.Load() {
				return nil
			}
			return fmt.Errorf("consume: %w", err)
		}
		if c.f.body != bodyBytes {
			return fmt.Errorf("a message has %d octets instead of %d", c.f.body, bodyBytes)
		}
		waiting++
		c.out = append(c.out, "ACK\nid:"...)
		c.out = append(c.out, c.f.value[hAck]...)
		c.out = append(c.out, "\n\n\x00"...)
		if !drained(c.br) && waiting < c.perWrite {
			continue
		}
		_, err := c.conn.Write(c.out)
		if c.out = c.out[:0]; err != nil {
			return fmt.Errorf("acknowledge: %w", err)
		}
		a.got.Add(int64(waiting))
		waiting = 0
	}
}

// finish waits until as many messages were consumed as were sent, and no more, and every acknowledgement was taken.
func (a *audience) finish(ctx context.Context, sent int) error {
	defer a.close()
	limit := time.Now().Add(patience)
	var err error
	for a.got.Load() < int64(sent) && err == nil && time.Now().Before(limit) {
		err = pause(ctx, time.Millisecond)
	}
	a.over.Store(true)
	for _, c := range a.clients {
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	}
	a.running.Wait()
	if err = errors.Join(append(a.errs, err)...); err != nil {
		return err
	}
	if got := a.got.Load(); got != int64(sent) {
		return fmt.Errorf("consumers got %d messages of %d", got, sent)
	}
	for _, c := range a.clients {
		if err := c.leave(); err != nil {
			return err
		}
	}
	return nil
}
