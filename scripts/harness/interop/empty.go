package interop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/go-stomp/stomp/v3"
	"github.com/go-stomp/stomp/v3/frame"
)

const (
	quiet      = 600 * time.Millisecond // without a message a queue counts as empty
	emptyLimit = 12 * time.Second       // for messages that must be there: a broker gives a dead connection's up only when it notices
)

// empty takes what is left in every cell's queue, straight from the broker: what was confirmed and not received must be there, and what was
// received and acknowledged must not.
func (o *round) empty(ctx context.Context) {
	addr := ""
	if i, err := o.cluster.Active(ctx); err == nil {
		addr = o.cluster.Nodes()[i].Addr()
	}
	o.each(func(c *running) {
		missing := map[int]bool{}
		for _, e := range c.producer.events() {
			if e.Kind == 'C' {
				missing[e.Seq] = true
			}
		}
		for _, e := range c.consumer.events() {
			if e.Kind == 'M' {
				delete(missing, e.Seq)
			}
		}
		var err error
		if c.evidence.Left, err = o.take(ctx, addr, c.job, missing); err != nil {
			c.aborted = fmt.Errorf("empty the queue of a cell: %w", err)
		}
	})
}

// take receives and acknowledges until nothing comes and nothing that must be there is missing, or the time is over.
func (o *round) take(ctx context.Context, addr string, job Job, missing map[int]bool) ([]Event, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	opts := []func(*stomp.Conn) error{stomp.ConnOpt.Login(job.Login, job.Passcode), stomp.ConnOpt.Logger(silent{})}
	if job.Vhost != "" {
		opts = append(opts, stomp.ConnOpt.Host(job.Vhost))
	}
	conn, err := stomp.ConnectWithContext(ctx, raw, opts...)
	if err != nil {
		return nil, err
	}
	_, _, headers := o.cluster.Queue("interop." + job.Run)
	sub := []func(*frame.Frame) error{}
	for k, v := range headers {
		sub = append(sub, stomp.SubscribeOpt.Header(k, v))
	}
	s, err := conn.Subscribe(job.Destination, stomp.AckClientIndividual, sub...)
	if err != nil {
		return nil, err
	}
	left, err := receiveAll(ctx, conn, s, missing)
	if err != nil {
		return left, err
	}
	return left, conn.Disconnect() // with a receipt, so that the ACKs are in
}

func receiveAll(ctx context.Context, conn *stomp.Conn, s *stomp.Subscription, missing map[int]bool) ([]Event, error) {
	messages, done := make(chan *stomp.Message), make(chan struct{})
	defer close(done)
	go pump(s.C, messages, done)
	var left []Event
	end := time.Now().Add(emptyLimit)
	for {
		patience := quiet
		if len(missing) > 0 {
			patience = time.Until(end)
		}
		select {
		case m := <-messages:
			if m.Err != nil {
				return left, fmt.Errorf("receive: %w", m.Err)
			}
			e := Event{At: time.Now(), Kind: 'M', Size: len(m.Body)}
			run, tail, _ := strings.Cut(string(m.Body), " ")
			e.Run = run
			number, _, _ := strings.Cut(tail, " ")
			_ = numbers(number, &e.Seq) // a body that is none of ours counts as altered
			left = append(left, e)
			delete(missing, e.Seq)
			if err := conn.Ack(m); err != nil {
				return left, fmt.Errorf("acknowledge: %w", err)
			}
		case <-time.After(patience):
			return left, nil
		case <-ctx.Done():
			return left, ctx.Err()
		}
	}
}

// pump keeps what comes until it is taken: the library writes nothing, an ACK neither, while nobody takes what it has read.
func pump(from <-chan *stomp.Message, to chan<- *stomp.Message, done <-chan struct{}) {
	var waiting []*stomp.Message
	for {
		var out chan<- *stomp.Message
		var first *stomp.Message
		if len(waiting) > 0 {
			out, first = to, waiting[0]
		}
		select {
		case m, ok := <-from:
			if !ok {
				from, m = nil, &stomp.Message{Err: errors.New("the subscription ended")}
			}
			waiting = append(waiting, m)
		case out <- first:
			waiting = waiting[1:]
		case <-done:
			return
		}
	}
}

// silent keeps the library's log to itself.
type silent struct{}

func (silent) Debugf(string, ...any)   {}
func (silent) Infof(string, ...any)    {}
func (silent) Warningf(string, ...any) {}
func (silent) Errorf(string, ...any)   {}
func (silent) Debug(string)            {}
func (silent) Info(string)             {}
func (silent) Warning(string)          {}
func (silent) Error(string)            {}
