package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/go-stomp/stomp/v3/frame"
)

// The backlog is a queue of its own that nobody consumes while brokers are killed: what a take-over must not have to read. It is put there, and taken in
// the end, over a connection to the active broker, with as many messages under way as the broker takes: a client library that waits for each
// receipt would need minutes for a million.
const (
	backlogQueue    = "/queue/understudy.demo.backlog"
	backlogReceipts = 500              // messages from one receipt to the next
	backlogWindow   = 16               // receipts that are waited for at the same time
	backlogBuffer   = 256 << 10        // octets
	backlogStall    = 30 * time.Second // without a receipt
)

// backlogResult is the part of the Result that is about it.
type backlogResult struct {
	Messages    int     `json:"messages"`
	Received    int     `json:"received"` // in the end, each counted once
	Lost        int     `json:"lost"`
	Duplicated  int     `json:"duplicated"`
	Reordered   int     `json:"reordered"`
	Phantom     int     `json:"phantom"`
	FillSeconds float64 `json:"fill_seconds"`
	TakeSeconds float64 `json:"take_seconds"`
	TakePause   float64 `json:"take_longest_pause_seconds"` // between two messages of it
	CopySeconds float64 `json:"copy_seconds"`               // the longest that a new standby took to read the store
	Empty       spans   `json:"silence_empty_ms"`           // over the kills before there was a backlog
	Silence     spans   `json:"silence_ms"`                 // over those with it
	Ratio       float64 `json:"silence_ratio"`              // of the medians
	Memory      struct {
		Owner   int64 `json:"owner"`
		Standby int64 `json:"standby"`
		Peak    int64 `json:"peak"` // of either, as the kernel keeps it
	} `json:"resident_octets"` // at most, from the first of the backlog on; 0 where it cannot be told
	Bars []barResult `json:"bars"`
}

// spans are in milliseconds.
type spans struct {
	P50 float64 `json:"p50"`
	Max float64 `json:"max"`
}

func spansOf(d []time.Duration) spans {
	p50, most := spread(d)
	return spans{milliseconds(p50), milliseconds(most)}
}

// faultsWithBacklog brings the same faults about again, now that nobody consumes a queue.
func (r *run) faultsWithBacklog(ctx context.Context) error {
	without := len(r.silences)
	r.result.Backlog = &backlogResult{Messages: r.cfg.Backlog, Empty: spansOf(r.silences)}
	r.memory.begin(r.cluster.members[r.active].process, r.cluster.members[1-r.active].process)
	if err := r.fill(ctx); err != nil {
		return err
	}
	err := r.awaitCopy(ctx, r.cluster.members[1-r.active])
	if err == nil {
		err = r.faults(ctx)
	}
	r.result.Backlog.Silence = spansOf(r.silences[without:])
	return err
}

// awaitCopy waits until a standby has read what was in the store when it came up: until then it would take over cold, like the only broker of a store
// that is started again. A take-over so soon after another is not what is measured here.
func (r *run) awaitCopy(ctx context.Context, m *member) error {
	began, goal, cold := time.Now(), uint64(0), ""
	err := await(ctx, r.cfg.TakeoverTimeout, m.host+" to copy the store", func() (bool, error) {
		state, err := r.cluster.state(ctx, m)
		if err != nil || state.Copy == nil {
			return false, m.process.ended()
		}
		cold = state.Copy.Cold
		if goal == 0 {
			goal = state.Copy.Proved
		}
		return cold != "" || goal > 0 && state.Copy.Applied >= goal, m.process.ended()
	})
	if err == nil && cold != "" {
		r.say("COLD   %s has no copy of the store: %s", m.host, cold)
	} else if err == nil {
		took := time.Since(began)
		r.result.Backlog.CopySeconds = max(r.result.Backlog.CopySeconds, took.Seconds())
		r.say("WARM   %s has read the store (%d records) after %.1f s", m.host, goal, took.Seconds())
	}
	return err
}

// author is the producer that the bodies of the backlog name: one behind the last.
func (r *run) author() int { return r.cfg.Producers }

// fill puts the backlog into its queue, and returns when the last of it is confirmed. Receipts come in the order of the SENDs, so one of them is one for
// all before it.
func (r *run) fill(ctx context.Context) error {
	began := time.Now()
	m := r.cluster.members[r.active]
	l, end, err := dialLink(ctx, m.listen)
	if err != nil {
		return fmt.Errorf("put the backlog to %s: %w", m.host, err)
	}
	defer end()
	confirmed := make(chan error, backlogWindow)
	batches := (r.cfg.Backlog + backlogReceipts - 1) / backlogReceipts
	go l.receipts(batches, confirmed)
	waited, last := 0, time.Now()
	confirm := func() error {
		waited++
		select {
		case err := <-confirmed:
			if now := time.Now(); err == nil && now.Sub(last) >= time.Second {
				last = now
				r.say("FILL   %d of %d messages are in the backlog", min(waited*backlogReceipts, r.cfg.Backlog), r.cfg.Backlog)
			}
			return err
		case <-time.After(backlogStall):
			return fmt.Errorf("no receipt in %v", backlogStall)
		}
	}
	for batch := range batches {
		err := r.putSome(l, batch*backlogReceipts, min(backlogReceipts, r.cfg.Backlog-batch*backlogReceipts))
		if err == nil && batch-waited >= backlogWindow-1 {
			err = confirm()
		}
		if err != nil {
			end() // frees the reader, which may know more
			for e := range confirmed {
				err = errors.Join(err, e)
			}
			return fmt.Errorf("put message %d or one shortly before it into the backlog: %w", (batch+1)*backlogReceipts, err)
		}
	}
	for waited < batches {
		if err := confirm(); err != nil {
			return fmt.Errorf("put the last messages into the backlog: %w", err)
		}
	}
	took := time.Since(began)
	r.result.Backlog.FillSeconds = took.Seconds()
	r.say("FILL   the backlog has %d messages of %d octets after %.1f s (%.0f/s), all confirmed", r.cfg.Backlog, r.cfg.Payload, took.Seconds(),
		float64(r.cfg.Backlog)/took.Seconds())
	return nil
}

// putSome sends n messages behind the first so many, the last one with a receipt.
func (r *run) putSome(l *link, behind, n int) error {
	for i := range n {
		m := message{r.author(), behind + i + 1}
		b := body(r.cfg.Seed, m, r.cfg.Payload)
		f := frame.New(frame.SEND, frame.Destination, backlogQueue, frame.ContentLength, strconv.Itoa(len(b)))
		if i == n-1 {
			f.Header.Add(frame.Receipt, strconv.Itoa(m.seq))
		}
		f.Body = b
		if err := l.enc.Write(f); err != nil {
			return err
		}
	}
	return l.out.Flush()
}

// take empties the backlog by one consumer and compares every octet with what was put there.
func (r *run) take(ctx context.Context) error {
	began := time.Now()
	m := r.cluster.members[r.active]
	r.say("TAKE   the backlog of %d messages is taken from %s", r.cfg.Backlog, m.host)
	l, end, err := dialLink(ctx, m.listen)
	if err != nil {
		return fmt.Errorf("take the backlog from %s: %w", m.host, err)
	}
	defer end()
	if err := l.say(frame.New(frame.SUBSCRIBE, frame.Id, "1", frame.Destination, backlogQueue, frame.Ack, "auto", "activemq.prefetchSize", "1000")); err != nil {
		return fmt.Errorf("take the backlog from %s: %w", m.host, err)
	}
	check := newBacklogCheck(r.cfg.Backlog, r.author())
	wait, last, before := r.cfg.TakeoverTimeout, began, began
	for err == nil {
		_ = l.conn.SetReadDeadline(time.Now().Add(wait))
		var f *frame.Frame
		if f, err = l.hear(frame.MESSAGE); err != nil {
			break
		}
		check.receive(identify(r.cfg.Seed, f.Body, r.cfg.Payload))
		now := time.Now()
		r.result.Backlog.TakePause, before = max(r.result.Backlog.TakePause, now.Sub(before).Seconds()), now
		if r.result.Backlog.TakeSeconds = now.Sub(began).Seconds(); now.Sub(last) >= time.Second {
			last = now
			r.say("TAKE   %d of %d messages are taken", check.received, r.cfg.Backlog)
		}
		if check.received == r.cfg.Backlog {
			wait = sweepFor // for a duplicate to show up
		}
	}
	var late net.Error
	if !errors.As(err, &late) || !late.Timeout() || ctx.Err() != nil {
		return fmt.Errorf("take the backlog from %s: %w", m.host, errors.Join(err, ctx.Err()))
	}
	check.conclude(r.result.Backlog)
	if b := r.result.Backlog; b.Lost > 0 {
		r.problem(fmt.Sprintf("the backlog: %d messages did not come within %v of the one before; %s says that it has %s in its queues", b.Lost, wait, m.host, r.countOf(ctx, m)))
	}
	return nil
}

// countOf is how many messages a broker says it has.
func (r *run) countOf(ctx context.Context, m *member) string {
	state, err := r.cluster.state(ctx, m)
	if err != nil {
		return "an unknown number"
	}
	return strconv.Itoa(state.Count)
}

// backlogCheck counts what is wrong with the messages that come.
type backlogCheck struct {
	author                                   int
	there                                    []bool // by seq-1
	received, duplicated, reordered, phantom int
	highest                                  int
}

func newBacklogCheck(n, author int) *backlogCheck {
	return &backlogCheck{author: author, there: make([]bool, n)}
}

func (c *backlogCheck) receive(m message, ok bool) {
	switch {
	case !ok || m.producer != c.author || m.seq < 1 || m.seq > len(c.there):
		c.phantom++
	case c.there[m.seq-1]:
		c.duplicated++
	default:
		c.there[m.seq-1] = true
		c.received++
		if m.seq < c.highest {
			c.reordered++
		}
		c.highest = max(c.highest, m.seq)
	}
}

func (c *backlogCheck) conclude(r *backlogResult) {
	r.Received, r.Lost = c.received, len(c.there)-c.received
	r.Duplicated, r.Reordered, r.Phantom = c.duplicated, c.reordered, c.phantom
}
