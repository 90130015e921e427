package demo

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-stomp/stomp/v3"
	"github.com/go-stomp/stomp/v3/frame"
)

// perTransaction is how many messages a producer sends in one transaction, and a consumer acknowledges in one.
const perTransaction = 10

// producer sends its numbered messages on schedule, one at a time: the library waits for each receipt before it lets the next one go. What it
// could not send while the broker was away it makes up for afterwards, so the offered load is what the rate says.
type producer struct {
	client
	number   int
	interval time.Duration
	quota    int // 0 = until stopped

	transactions bool
	slow         bool        // the messages of a transaction are sent on schedule as well, so that one is open nearly all the time
	open         atomic.Bool // between BEGIN and COMMIT
}

// produce returns when the quota is done, stop is closed, or the client broke.
func (p *producer) produce(ctx context.Context, stop <-chan struct{}) {
	start := time.Now()
	batch := 1
	if p.transactions {
		batch = perTransaction
	}
	for sent := 0; p.quota == 0 || sent < p.quota; sent += batch {
		if p.quota > 0 {
			batch = min(batch, p.quota-sent)
		}
		due := start.Add(time.Duration(sent) * p.interval)
		if !sleepUntil(ctx, stop, due) {
			return
		}
		pace := func(i int) {
			if p.slow {
				sleepUntil(ctx, stop, due.Add(time.Duration(i)*p.interval))
			}
		}
		if err := p.sendSome(batch, pace); err != nil {
			p.fail(err)
			return
		}
	}
}

func (p *producer) sendSome(n int, pace func(i int)) error {
	if p.transactions {
		return p.transaction(n, pace)
	}
	return p.sendOne()
}

func (p *producer) sendOne() error {
	m := p.crew.ledger.send(p.number)
	var opts []func(*frame.Frame) error
	if p.crew.cfg.Receipts {
		opts = append(opts, stomp.SendOpt.Receipt)
	}
	if err := p.conn.Send(destination, "application/octet-stream", body(p.crew.cfg.Seed, m, p.crew.cfg.Payload), opts...); err != nil {
		return fmt.Errorf("send message %d: %w", m.seq, err)
	}
	if p.crew.cfg.Receipts {
		p.confirmed(m)
	}
	return nil
}

// transaction sends n messages that count together or not at all, each after pace has returned.
func (p *producer) transaction(n int, pace func(i int)) error {
	tx, err := p.conn.BeginWithError()
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	p.open.Store(true)
	defer p.open.Store(false)
	var opts []func(*frame.Frame) error
	if p.slow { // else it would hear nothing for as long
		opts = append(opts, stomp.SendOpt.Receipt)
	}
	sent := make([]message, n)
	for i := range sent {
		pace(i)
		sent[i] = p.crew.ledger.send(p.number)
		b := body(p.crew.cfg.Seed, sent[i], p.crew.cfg.Payload)
		if err := tx.Send(destination, "application/octet-stream", b, opts...); err != nil {
			return fmt.Errorf("send message %d in a transaction: %w", sent[i].seq, err)
		}
		if p.slow {
			p.crew.silence.note(p.index)
		}
	}
	if !p.crew.cfg.Receipts {
		if err := tx.Commit(); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		return nil
	}
	if err := tx.CommitWithReceipt(); err != nil {
		return fmt.Errorf("commit up to message %d: %w", sent[n-1].seq, err)
	}
	p.confirmed(sent...)
	return nil
}

func (p *producer) confirmed(messages ...message) {
	p.crew.silence.note(p.index)
	for _, m := range messages {
		p.crew.ledger.confirm(m)
	}
}

// sleepUntil waits for t and reports whether it came before the end.
func sleepUntil(ctx context.Context, stop <-chan struct{}, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		select {
		case <-ctx.Done():
			return false
		case <-stop:
			return false
		default:
			return true
		}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-stop:
		return false
	case <-timer.C:
		return true
	}
}
