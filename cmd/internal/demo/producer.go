package demo

import (
	"context"
	"fmt"
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
}

// produce returns when the quota is done, stop is closed, or the client broke.
func (p *producer) produce(ctx context.Context, stop <-chan struct{}) {
	start := time.Now()
	batch := 1
	if p.run.cfg.Transactions {
		batch = perTransaction
	}
	for sent := 0; p.quota == 0 || sent < p.quota; sent += batch {
		if p.quota > 0 {
			batch = min(batch, p.quota-sent)
		}
		if !sleepUntil(ctx, stop, start.Add(time.Duration(sent)*p.interval)) {
			return
		}
		if err := p.sendSome(batch); err != nil {
			p.fail(err)
			return
		}
	}
}

func (p *producer) sendSome(n int) error {
	if p.run.cfg.Transactions {
		return p.transaction(n)
	}
	return p.sendOne()
}

func (p *producer) sendOne() error {
	m := p.run.ledger.send(p.number)
	var opts []func(*frame.Frame) error
	if p.run.cfg.Receipts {
		opts = append(opts, stomp.SendOpt.Receipt)
	}
	if err := p.conn.Send(destination, "application/octet-stream", body(p.run.cfg.Seed, m, p.run.cfg.Payload), opts...); err != nil {
		return fmt.Errorf("send message %d: %w", m.seq, err)
	}
	if p.run.cfg.Receipts {
		p.confirmed(m)
	}
	return nil
}

// transaction sends n messages that count together or not at all.
func (p *producer) transaction(n int) error {
	tx, err := p.conn.BeginWithError()
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	sent := make([]message, n)
	for i := range sent {
		sent[i] = p.run.ledger.send(p.number)
		b := body(p.run.cfg.Seed, sent[i], p.run.cfg.Payload)
		if err := tx.Send(destination, "application/octet-stream", b); err != nil {
			return fmt.Errorf("send message %d in a transaction: %w", sent[i].seq, err)
		}
	}
	if !p.run.cfg.Receipts {
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
	p.run.silence.note(p.index)
	for _, m := range messages {
		p.run.ledger.confirm(m)
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
