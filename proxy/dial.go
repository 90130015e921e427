package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/routing"
	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/relay"
)

// stable is how long a session must have been live for its next dial to start afresh. One that is cut again sooner is paced: else a
// broker that logs in and breaks off would be dialled without a pause.
const stable = time.Second

var (
	errDialTimeout = errors.New("no answer to the TCP connect in time")
	errBusy        = errors.New("this machine is too busy to notice an answer in time")
	errBetter      = errors.New("another broker became active meanwhile")
)

// A store that was served a moment ago is about to be served elsewhere: for that long it is looked for at a pace of its own, for each failure says
// only that it is not there yet. Few do that at a time (scouts); the others wait for what these find, and look for themselves now and then.
const (
	movingFor  = 200 * time.Millisecond
	movingPace = 2 * time.Millisecond   // and up to movingRand more
	movingRand = 3 * time.Millisecond   //
	crowdPace  = 250 * time.Millisecond // and up to as much again
)

// queueNews is how long who waits for its turn does so whatever is heard meanwhile. Verdicts may change with every session that is let in or lost, and
// for thousands to choose anew each time would take the time in which they could be let in.
const queueNews = 100 * time.Millisecond

// dial is the session's relay.Dialer. The relay calls it from one goroutine at a time, and not while a leg is up.
func (l *link) dial(ctx context.Context, t relay.Try) (net.Conn, error) {
	l.leave() // of a leg that ended without an event
	defer l.waits("")
	prev, delay := l.begin(t)
	for {
		if delay > 0 {
			if err := l.pause(ctx, t, prev, delay); err != nil {
				return nil, err
			}
		}
		view, choice, err := l.choose(t, prev)
		if errors.Is(err, routing.ErrWhichStore) {
			return nil, l.undecided(err)
		}
		if err != nil {
			if err := l.stand(ctx, view, choice, err); err != nil {
				return nil, err
			}
			delay = 0
			continue
		}
		next, ok := l.walk.Next(choice)
		if !ok {
			l.waits(l.why(view, choice))
			delay = l.over()
			continue
		}
		delay = 0
		leave, err := l.queue(ctx, view, next)
		if err != nil {
			return nil, err
		}
		if leave == nil {
			continue // what is known has changed while it waited for its turn
		}
		l.walk.Tried(next)
		conn, err := l.connect(ctx, t, prev, next, leave)
		switch {
		case conn != nil:
			return conn, err
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
	}
}

// begin says whom the session was with, and how long to wait before the first attempt.
func (l *link) begin(t relay.Try) (prev health.Target, delay time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.Failures == 0 {
		switch {
		case l.liveAt.IsZero() || time.Since(l.liveAt) >= stable:
			l.walk.Reset()
		case time.Now().Before(l.movingUntil):
			l.walk.Again()
			delay = l.moving()
		default:
			l.walk.Over()
			delay = l.delay()
		}
	}
	return l.prev, delay
}

func (l *link) delay() time.Duration {
	return l.p.cfg.Pace.Delay(l.walk.Failures(), l.p.cfg.Sidecars(), l.rnd)
}

func (l *link) moving() time.Duration {
	return movingPace + time.Duration(l.rnd.Int64N(int64(movingRand)))
}

// over ends a round in which nobody took the session, and says how long to wait before the next.
func (l *link) over() time.Duration {
	asked := l.asking
	l.asking = false
	switch {
	case !asked:
		l.walk.Again()
		return crowdPace + time.Duration(l.rnd.Int64N(int64(crowdPace)))
	case l.isMoving():
		l.walk.Again()
		return l.moving()
	}
	l.walk.Over()
	return l.delay()
}

// isMoving reports whether the session's store was served a moment ago.
func (l *link) isMoving() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.movingUntil)
}

// gap is the time between two scouts.
func (l *link) gap() time.Duration {
	if l.isMoving() {
		return movingGap
	}
	return scoutGap
}

func (l *link) choose(t relay.Try, prev health.Target) (routing.View, routing.Choice, error) {
	p := l.p
	p.epochs.raise(t.Hints.Store, t.Hints.Epoch)
	view := p.cfg.View()
	store, err := l.settle(t.Hints.Store, view)
	if err != nil {
		return view, routing.Choice{}, err
	}
	choice, err := routing.Choose(prev, view.Candidates, routing.Wants{Store: store, Epochs: p.epochs.all()}, l.rnd)
	return view, choice, err
}

// stand waits where there is nobody to go to: for a change, and if there are targets with an epoch that is over, for the pace as well,
// to have them probed again.
func (l *link) stand(ctx context.Context, view routing.View, choice routing.Choice, why error) error {
	l.waits(why.Error())
	var again <-chan time.Time
	switch {
	case errors.Is(why, errNotProbed):
		timer := time.NewTimer(time.Until(l.since.Add(sharePatience)))
		defer timer.Stop()
		again = timer.C
	case len(choice.Stale) > 0:
		for _, target := range choice.Stale {
			l.p.cfg.Health.ProbeNow(target)
		}
		l.walk.Over()
		timer := time.NewTimer(l.delay())
		defer timer.Stop()
		again = timer.C
		fallthrough
	default:
		l.p.cfg.Refresh()
	}
	_, err := l.await(ctx, view, again)
	return err
}

// pause lets delay pass, but not when a target became active: then the walk starts afresh, at once.
func (l *link) pause(ctx context.Context, t relay.Try, prev health.Target, delay time.Duration) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		view, choice, _ := l.choose(t, prev)
		if r, news := l.walk.News(choice); news {
			l.walk.Fresh(r)
			return nil
		}
		if over, err := l.await(ctx, view, timer.C); over || err != nil {
			return err
		}
	}
}

// await returns when view is out of date, when timer fires (over), or with the cause of ctx. In between it says, now and then, that the
// session is waiting.
func (l *link) await(ctx context.Context, view routing.View, timer <-chan time.Time) (over bool, err error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-view.Changed:
			return false, nil
		case <-view.Verdicts:
			return false, nil
		case <-timer:
			return true, nil
		case <-tick.C:
			l.warn()
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// queue waits for the session's turn at next, and returns what gives its place back; nil if it has to choose again. Who only looks whether a target
// serves does not wait: scouts are few, and wait for none.
func (l *link) queue(ctx context.Context, view routing.View, next routing.Ranked) (leave func(), err error) {
	if next.Rank.Doubtful() {
		return func() {}, nil
	}
	mine, leave := l.p.gates.enter(next.Target)
	select {
	case <-mine.come:
		return leave, nil
	default:
	}
	l.waits(fmt.Sprintf("%d sessions are being let into %s", maxLogins, next.Target))
	defer l.waits("")
	settled := time.NewTimer(queueNews)
	defer settled.Stop()
	select {
	case <-mine.come:
		return leave, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	case <-settled.C:
	}
	select {
	case <-mine.come:
		return leave, nil
	case <-view.Changed:
	case <-view.Verdicts:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	leave()
	return nil, err
}

// connect makes one attempt at next; leave gives the session's place there back, which it keeps until it is live. A nil connection without an error
// means that there was no attempt worth the name: go on.
func (l *link) connect(ctx context.Context, t relay.Try, prev health.Target, next routing.Ranked, leave func()) (net.Conn, error) {
	p := l.p
	if next.Rank.Doubtful() {
		if leave = p.scouts.enter(quest{next.Target, l.wanted()}, time.Now(), l.gap()); leave == nil {
			return nil, nil // others are asking it already, and what they find out all will know
		}
	}
	l.asking = true
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timed, stop := context.WithTimeoutCause(ctx, cmp.Or(next.ConnectTimeout, p.cfg.DialTimeout), errDialTimeout)
	defer stop()
	if next.Rank.Doubtful() {
		defer l.watch(timed, cancel, t, prev)()
	}
	began := time.Now()
	conn, err := p.cfg.Dial(timed, next.Endpoint)
	p.metrics.dialled(err)
	if conn != nil && context.Cause(ctx) != nil {
		conn.Close()
		conn, err = nil, context.Cause(ctx)
	}
	l.mu.Lock()
	l.attempts++
	if err == nil {
		l.conns[session.Broker] = conn
		l.endpoint, l.target, l.dialBegan, l.leaveScouts = next.Endpoint, next.Target, began, leave
	}
	l.mu.Unlock()
	if err == nil {
		return conn, nil
	}
	leave()
	if ctx.Err() == nil {
		if code(err) != codeTLS { // which says better what took so long
			err = cause(timed, err)
		}
		l.failed(next.Target, began, next.ConnectTimeout, err)
	}
	return nil, cause(ctx, err)
}

// failed tells what a failed dial means.
func (l *link) failed(target health.Target, began time.Time, bound time.Duration, err error) {
	l.p.cfg.Logger.Debug("broker does not answer", "session", l.id, "broker", target, "err", err)
	limit := cmp.Or(bound, l.p.cfg.DialTimeout)
	if late := time.Since(began) - limit; late > limit/4 {
		err = fmt.Errorf("%w: noticed %v late", errBusy, late.Round(time.Millisecond))
	}
	if ours(err) {
		if l.p.warned.allow(time.Now()) {
			l.p.cfg.Logger.Warn("cannot connect to brokers for want of something on this machine", "broker", target, "err", err)
		}
		return
	}
	kind := health.DialFailed
	if code(err) == codeTLS {
		kind = health.TLSFailed
	}
	l.p.cfg.Health.Observe(health.Evidence{Target: target, Kind: kind, At: began, Detail: err.Error()})
	l.p.cfg.Refresh()
}

// watch gives up an attempt at a doubtful target as soon as another becomes active: a host that drops what it is sent would otherwise
// cost the whole time-out. The func it returns ends the watch and waits for it.
func (l *link) watch(ctx context.Context, give func(error), t relay.Try, prev health.Target) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			view, choice, _ := l.choose(t, prev)
			if _, news := l.walk.News(choice); news {
				give(errBetter)
				return
			}
			if _, err := l.await(ctx, view, nil); err != nil {
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// cause is why ctx ended, if it did; otherwise err.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
