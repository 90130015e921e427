package proxy

import (
	"errors"
	"time"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/relay"
)

// tendEvery is the longest time between two looks at all sessions; a shorter time-out makes it shorter, for a loss is seen late by up to that much.
const tendEvery = time.Second

var (
	errBrokerDeaf = errors.New("the broker's machine has stopped to acknowledge what it is sent")
	errClientDeaf = errors.New("the client's machine has stopped to acknowledge what it is sent")
)

// tend looks after what no connection tells by itself, until the Proxy ends.
func (p *Proxy) tend() {
	every := tendEvery
	for _, limit := range [...]time.Duration{p.cfg.BrokerTimeout, p.cfg.ClientTimeout} {
		if limit > 0 {
			every = min(every, max(limit/4, 10*time.Millisecond))
		}
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	full := false
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-ticker.C:
		}
		waiting := 0
		for _, l := range p.all() {
			l.listen(time.Now())
			l.trim(time.Now())
			if l.isWaiting() {
				waiting++
			}
		}
		full = p.budget(full, waiting)
	}
}

// listen finds out whether the machines at both ends are still there.
func (l *link) listen(now time.Time) {
	l.mu.Lock()
	conns := l.conns
	l.mu.Unlock()
	if limit := l.p.cfg.BrokerTimeout; limit > 0 && l.hearing[session.Broker].Lost(conns[session.Broker], now, limit) {
		l.p.metrics.deaf(session.Broker)
		l.sever(errBrokerDeaf)
	}
	if limit := l.p.cfg.ClientTimeout; limit > 0 && l.hearing[session.Client].Lost(conns[session.Client], now, limit) {
		l.p.metrics.deaf(session.Client)
		l.p.cfg.Logger.Info("client lost", "session", l.id, "client", l.client, "why", errClientDeaf)
		relay.Reset(conns[session.Client])
	}
}

// trim has an idle session hold no more than it needs.
func (l *link) trim(now time.Time) {
	l.mu.Lock()
	r := l.relay
	l.mu.Unlock()
	if r != nil {
		r.Trim(now)
	}
}

func (l *link) isWaiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting != ""
}

// budget says, once, that what all sessions keep has reached its bound, and that it no longer has.
func (p *Proxy) budget(was bool, waiting int) (full bool) {
	b := p.cfg.Relay.Budget
	if b == nil {
		return false
	}
	s := b.State()
	why := "brokers confirm more slowly than clients send"
	if waiting > 0 {
		why = "sessions wait for a broker"
	}
	switch {
	case s.Full && !was:
		p.cfg.Logger.Warn("the window of all sessions together is full: clients with unconfirmed frames are not read until there is room", "kept_bytes", s.Kept, "limit_bytes", s.Limit,
			"clients_held", s.Held, "why", why, "sessions_waiting", waiting)
	case was && !s.Full:
		p.cfg.Logger.Info("the window of all sessions together has room again", "kept_bytes", s.Kept, "limit_bytes", s.Limit)
	}
	return s.Full
}
