package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Idle is what subscribed clients cost that say nothing and are told nothing.
type Idle struct {
	Clients, Proxies int
	Bytes            float64 // resident memory of the proxies, for each client
	Cores            float64 // CPU time of the proxies in a second: heart-beats and timers
}

// MeasureIdle connects and subscribes n clients to a paired broker and looks at the proxy after settle, in which garbage is collected.
func MeasureIdle(ctx context.Context, opt Options, via Via, n int, settle time.Duration) (r Idle, err error) {
	broker, err := startBroker(ctx, opt.Understudy, opt.Scratch, filepath.Join(opt.Data, fmt.Sprintf("idle-%s-%d", via, n)), "127.0.0.1:0", n+warmUp*4)
	if err != nil {
		return r, err
	}
	defer broker.stop(syscall.SIGKILL) // nothing of it is needed any more
	w := &crowd{opt: opt}
	defer w.close()
	if err := w.open(ctx, via, broker.listen, n); err != nil {
		return r, err
	}
	if err := w.fill(ctx, n); err != nil {
		return r, err
	}
	if err := pause(ctx, settle/2); err != nil {
		return r, err
	}
	r = Idle{Clients: n, Proxies: len(w.proxies)}
	if r.Cores, err = w.cores(ctx, settle/2); err != nil {
		return r, err
	}
	r.Bytes, err = w.perClient()
	return r, err
}

// Held is what clients cost whose broker is gone, and how they come back.
type Held struct {
	Clients, Proxies, Unacked int           // Unacked messages were held by a tenth of the clients
	Before, Held              float64       // octets of resident memory for each client, with the broker and without
	Cores                     float64       // CPU time of the proxies in a second, while there is no broker
	Parked                    time.Duration // from the kill until the last session was parked
	Served                    time.Duration // from the start of the next broker until it answered a CONNECT
	Half, All                 time.Duration // from then until half of the clients, and all, had a RECEIPT
}

const (
	unackedEach = 5  // messages
	unackedOf   = 10 // every tenth client has some
)

// MeasureHeld kills the broker of n subscribed clients, some of which have messages unacknowledged, looks at the sidecar after settle, and starts the
// broker again. Every client must get a RECEIPT, every late ACK be taken, and no message be shown twice.
func MeasureHeld(ctx context.Context, opt Options, n int, settle time.Duration) (r Held, err error) {
	dir := filepath.Join(opt.Data, "held")
	broker, err := startBroker(ctx, opt.Understudy, opt.Scratch, dir, "127.0.0.1:0", n+warmUp*4)
	if err != nil {
		return r, err
	}
	defer func() { broker.stop(syscall.SIGKILL) }()
	w := &crowd{opt: opt}
	defer w.close()
	if err := w.open(ctx, Sidecar, broker.listen, n); err != nil {
		return r, err
	}
	if err := w.fill(ctx, n); err != nil {
		return r, err
	}
	acks, err := w.giveMessages()
	if err != nil {
		return r, err
	}
	r = Held{Clients: n, Proxies: len(w.proxies), Unacked: len(acks) * unackedEach}
	if err := pause(ctx, settle); err != nil {
		return r, err
	}
	if r.Before, err = w.perClient(); err != nil {
		return r, err
	}
	start := time.Now()
	broker.stop(syscall.SIGKILL)
	if err := w.awaitParked(ctx); err != nil {
		return r, err
	}
	r.Parked = time.Since(start)
	if r.Cores, err = w.cores(ctx, settle); err != nil {
		return r, err
	}
	if r.Held, err = w.perClient(); err != nil {
		return r, err
	}
	start = time.Now()
	again, err := startBroker(ctx, opt.Understudy, opt.Scratch, dir, broker.listen, n+warmUp*4)
	if err != nil {
		return r, err
	}
	broker = again
	r.Served = time.Since(start)
	r.Half, r.All, err = w.comeBack(acks)
	return r, err
}

// giveMessages sends some clients messages that they do not acknowledge, and returns the ids to do it by.
func (w *crowd) giveMessages() (map[int][]string, error) {
	acks := map[int][]string{}
	var mu sync.Mutex
	err := w.all(func(i int, c *client) error {
		if i%unackedOf != 0 {
			return nil
		}
		_ = c.conn.SetDeadline(time.Now().Add(patience))
		c.out = c.out[:0]
		for k := range unackedEach {
			c.out = appendSend(c.out, crowdQueue(i), "", k+1)
		}
		if _, err := c.conn.Write(c.out); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		c.out = nil
		var ids []string
		for receipts := 0; receipts < unackedEach || len(ids) < unackedEach; {
			if err := c.f.next(c.br); err != nil {
				return fmt.Errorf("wait for messages: %w", err)
			}
			switch string(c.f.command) {
			case "RECEIPT":
				receipts++
			case "MESSAGE":
				ids = append(ids, string(c.f.value[hAck]))
			default:
				return fmt.Errorf("%s came: %s", c.f.command, c.f.value[hMessage])
			}
		}
		mu.Lock()
		defer mu.Unlock()
		acks[i] = ids
		return nil
	})
	return acks, err
}

// awaitParked asks the sidecars until all sessions are parked; one that is too busy to answer is asked again.
func (w *crowd) awaitParked(ctx context.Context) error {
	var last error
	for end := time.Now().Add(patience); time.Now().Before(end); {
		sum := 0
		for _, car := range w.cars {
			n, err := car.sessions("park")
			if err != nil {
				last = err
			}
			sum += n
		}
		if sum == len(w.clients) {
			return nil
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return errors.Join(errors.New("not all sessions were parked a minute after the broker was killed"), last)
}

// comeBack has every client send, and acknowledge what it holds, and waits for the receipts. All of them ask at the same time.
func (w *crowd) comeBack(acks map[int][]string) (half, all time.Duration, err error) {
	start := time.Now()
	took := make([]time.Duration, len(w.clients))
	errs := make([]error, len(w.clients))
	var wg sync.WaitGroup
	for i, c := range w.clients {
		wg.Go(func() {
			_ = c.conn.SetDeadline(start.Add(2 * patience))
			out := appendSend(nil, "/queue/bench-back", "", 1)
			for k, id := range acks[i] {
				out = fmt.Appendf(out, "ACK\nid:%s\nreceipt:%d\n\n\x00", id, k+2)
			}
			if _, err := c.conn.Write(out); err != nil {
				errs[i] = fmt.Errorf("client %d: send: %w", i, err)
				return
			}
			for k := range 1 + len(acks[i]) {
				if err := c.receipt(k + 1); err != nil {
					errs[i] = fmt.Errorf("client %d, after the broker was there again: %w", i, err)
					return
				}
			}
			took[i] = time.Since(start)
		})
	}
	wg.Wait()
	failed := 0
	for _, e := range errs {
		if e != nil {
			failed++
			err = e
		}
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%d of %d clients did not come back, one of them: %w", failed, len(w.clients), err)
	}
	half, all = spread(took)
	return half, all, nil
}
