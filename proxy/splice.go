package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/routing"
	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/relay"
)

// Limits of a spliced connection.
const (
	DefaultHold  = 20 * time.Second
	spliceLinger = time.Second            // for a client to close after its broker has
	spliceRetry  = 500 * time.Millisecond // between looks at who is there, at most
)

var (
	errBrokerClosed = errors.New("the broker has closed the connection")
	errNoBroker     = errors.New("no broker became active in time")
	errClientLeft   = errors.New("the client has left")
)

// markedDown is why a connection is cut that may still look whole.
type markedDown struct{ verdict health.Verdict }

func (e markedDown) Error() string {
	return fmt.Sprintf("the broker is %s: %s %s", e.verdict.State, e.verdict.Because.Kind, e.verdict.Because.Detail)
}

// spliced is a session that nobody remembers: octets pass from socket to socket, in the kernel where both are plain TCP. A recorder that passes
// everything on would be no smaller than this, and would cost every octet a copy.
type spliced struct {
	l      *link
	client net.Conn

	mu     sync.Mutex
	report session.Report
	cancel context.CancelCauseFunc
	cut    error // Sever came before Serve had begun
}

func newSpliced(l *link, client net.Conn) *spliced {
	return &spliced{l: l, client: client, report: session.Report{State: "park", Since: time.Now(), NotResumable: "it is not recorded: the connection ends with its broker"}}
}

// Report implements relayed.
func (s *spliced) Report() session.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report
}

// Sever implements relayed: here it is the end of the client's connection.
func (s *spliced) Sever(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel == nil {
		s.cut = why
		return
	}
	s.cancel(why)
}

func (s *spliced) enter(state, broker string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report.State, s.report.Broker, s.report.Since = state, broker, time.Now()
}

// Trim implements relayed: there is nothing to let go.
func (s *spliced) Trim(time.Time) {}

// Start implements relayed.
func (s *spliced) Start(ctx context.Context, ended func(error)) { ended(s.Serve(ctx)) }

// Serve passes octets on until one side is lost or both have ended.
func (s *spliced) Serve(ctx context.Context) error {
	defer s.client.Close()
	defer s.enter("end", "")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.mu.Lock()
	s.cancel = cancel
	if s.cut != nil {
		cancel(s.cut)
	}
	s.mu.Unlock()
	broker, err := s.reach(ctx)
	switch {
	case errors.Is(err, errClientLeft):
		return nil
	case errors.Is(err, errNoBroker):
		return &relay.EndError{Code: "hold-timeout", Cause: err}
	case errors.Is(err, ErrWhichStore):
		return &relay.EndError{Code: codeWhichStore, Cause: err}
	case err != nil:
		return &relay.EndError{Code: "shutdown", Cause: err}
	}
	s.enter("run", string(s.l.at()))
	if v, ok := s.l.p.fallen(s.l); ok { // while it was being dialled
		cancel(markedDown{v})
	}
	return s.pass(ctx, broker)
}

// reach waits for a broker that is known to be active, and connects: whether one takes connections says nothing of whether it serves.
func (s *spliced) reach(ctx context.Context) (net.Conn, error) {
	l := s.l
	defer l.waits("")
	ctx, cancel := context.WithTimeoutCause(ctx, l.p.cfg.Hold, errNoBroker)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		view, choice, err := l.choose(relay.Try{}, "")
		var shared *routing.Namesakes
		if errors.As(err, &shared) {
			return nil, l.undecided(err)
		}
		if errors.Is(err, routing.ErrWhichStore) {
			err = nil // its words are not read here: whichever store the broker gives to who names none
		}
		for _, next := range choice.Targets {
			if next.Rank.Doubtful() {
				break
			}
			conn, err := l.connect(ctx, relay.Try{}, "", next, func() {})
			if conn != nil {
				return conn, nil
			}
			if ctx.Err() != nil {
				return nil, err
			}
		}
		if err == nil {
			err = errors.New("no broker is known to be active")
		}
		l.waits(err.Error())
		l.p.cfg.Refresh()
		l.walk.Over()
		timer.Reset(min(l.delay(), spliceRetry))
		if _, err := l.await(ctx, view, timer.C); err != nil {
			return nil, err
		}
		if relay.HungUp(s.client) {
			return nil, errClientLeft
		}
	}
}

// pass copies both ways until both sides have said their last word, or one is lost.
func (s *spliced) pass(ctx context.Context, broker net.Conn) error {
	stop := context.AfterFunc(ctx, func() {
		relay.Reset(broker)
		s.client.Close()
	})
	defer broker.Close()
	var said error // of the client's side
	var up sync.WaitGroup
	up.Go(func() {
		if _, said = io.Copy(broker, s.client); said != nil || !relay.CloseWrite(broker) {
			relay.Reset(broker) // frees the other direction
		}
	})
	_, err := io.Copy(s.client, broker)
	cause, broken := context.Cause(ctx), relay.HungUp(s.client) // before we close it
	stop()
	relay.CloseWrite(s.client)
	_ = s.client.SetReadDeadline(time.Now().Add(spliceLinger))
	up.Wait()
	return s.judge(cause, err, said, broken)
}

// judge says how it ended, to health too. A broker that closes in order may do so because it was asked to, in a language that is not known here: that
// is a reason to look, and no evidence.
func (s *spliced) judge(cut, fromBroker, fromClient error, clientGone bool) error {
	l := s.l
	if cut != nil {
		code := "broker-lost"
		if l.p.ctx.Err() != nil {
			code = "shutdown"
		} else if cut == errBrokerDeaf {
			l.p.cfg.Health.Observe(health.Evidence{Target: l.at(), Kind: health.ConnLost, At: time.Now(), Detail: cut.Error()})
		}
		return &relay.EndError{Code: code, Cause: cut}
	}
	switch {
	case clientGone:
		return nil
	case fromBroker == nil:
		l.p.metrics.left(true, "closed")
		l.p.cfg.Health.ProbeNow(l.at())
		return &relay.EndError{Code: "broker-closed", Cause: errBrokerClosed}
	case errors.Is(fromClient, syscall.EPIPE) || errors.Is(fromBroker, syscall.ECONNRESET) || fromClient == nil:
		l.p.metrics.left(true, "")
		l.p.cfg.Health.Observe(health.Evidence{Target: l.at(), Kind: health.ConnLost, At: time.Now(), Detail: fromBroker.Error()})
		l.p.cfg.Refresh()
		return &relay.EndError{Code: "broker-lost", Cause: fromBroker}
	}
	return nil // the client broke off
}

// at is where the session was connected to last.
func (l *link) at() health.Target {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.target
}

// fallen is the verdict on a session's broker, if that is not to be used any more.
func (p *Proxy) fallen(l *link) (health.Verdict, bool) {
	if p.cfg.KeepFallen {
		return health.Verdict{}, false
	}
	at := l.at()
	for _, c := range p.cfg.View().Candidates {
		if c.Target == at {
			return c.Verdict, c.Verdict.State == health.Down || c.Verdict.State == health.Standby
		}
	}
	return health.Verdict{}, false
}

// cut ends, as verdicts change, connections to brokers that are marked down or are standbys now, until the Proxy ends.
func (p *Proxy) cut() {
	for {
		view := p.cfg.View()
		fallen := map[health.Target]health.Verdict{}
		for _, c := range view.Candidates {
			if c.Verdict.State == health.Down || c.Verdict.State == health.Standby {
				fallen[c.Target] = c.Verdict
			}
		}
		for _, l := range p.all() {
			if v, ok := fallen[l.at()]; ok && l.report().State == "run" {
				l.sever(markedDown{v})
			}
		}
		select {
		case <-view.Changed:
		case <-view.Verdicts:
		case <-p.ctx.Done():
			return
		}
	}
}
