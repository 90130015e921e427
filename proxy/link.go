package proxy

import (
	"cmp"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/routing"
	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/relay"
)

// link is one session, as far as brokers, evidence and figures go.
type link struct {
	p      *Proxy
	id     uint64
	client string
	since  time.Time

	// Owned by dial.
	walk   routing.Walk
	asking bool // this round has asked a broker
	rnd    *rand.Rand

	// Owned by tend.
	hearing [2]relay.Hearing

	mu           sync.Mutex
	conns        [2]net.Conn // the client's, and that to the broker dialled last; they may be closed
	relay        relayed
	store        string    // UUID or name of the store that it asks for, once that is settled
	counts       string    // UUID of the store that it counts for
	movingUntil  time.Time // until when its store, which was served a moment ago, is looked for at the pace of that
	endpoint     routing.Endpoint
	target       health.Target // dialled last: that of endpoint
	prev         health.Target // live last
	leaveScouts  func()        // gives back the place at a doubtful target; may be nil
	dialBegan    time.Time     // of the leg that is up
	liveAt       time.Time     // last time it became live
	on           ownership     // what it is live on now; zero if it is not
	waiting      string        // why there is no broker; "" if it is not waiting
	waitingSince time.Time
	move         move           // the take-over under way
	attempts     int            // connects since the session last was live
	counted      session.Report // what the counters know of
}

// ownership is an epoch of a store.
type ownership struct {
	store string // UUID
	epoch uint64
}

// served is what a session knows of its target's stores; nothing where the broker's kind has none.
func (o ownership) served() []health.Served {
	if o.store == "" || o.epoch == 0 {
		return nil
	}
	return []health.Served{{UUID: o.store, Epoch: o.epoch}}
}

// wanted is the session's relay.Config.Store.
func (l *link) wanted() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.store
}

// credentials is the session's relay.Config.Credentials.
func (l *link) credentials() (login, passcode string) {
	if l.p.cfg.Credentials == nil {
		return "", ""
	}
	l.mu.Lock()
	ep := l.endpoint
	l.mu.Unlock()
	return l.p.cfg.Credentials(ep)
}

func (l *link) setRelay(r relayed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.relay = r
}

// event is the session's relay.Config.Event.
func (l *link) event(e relay.Event) {
	switch e.Kind {
	case relay.Dialled:
		l.mu.Lock()
		l.move.dialled = e.At
		l.mu.Unlock()
	case relay.Live:
		l.becameLive(e)
	case relay.Lost:
		l.gone(e, true)
	case relay.Refused:
		l.gone(e, false)
	case relay.Ended:
		l.leave()
		l.count(e.Report)
		l.mu.Lock()
		l.on = ownership{}
		l.mu.Unlock()
	}
}

func (l *link) becameLive(e relay.Event) {
	l.leave()
	l.mu.Lock()
	target := l.target
	m := l.move
	m.live, m.to, m.epochTo, m.attempts = e.At, target, e.Report.Epoch, l.attempts
	m.report(l.counted, e.Report)
	l.move, l.attempts = move{}, 0
	l.prev, l.liveAt, l.on = target, e.At, ownership{e.Report.Store, e.Report.Epoch}
	l.mu.Unlock()
	l.count(e.Report)

	l.belong(e.Report.Store)
	l.p.cfg.Health.Observe(health.Evidence{Target: target, Kind: health.ConnLive, At: e.At, Stores: ownership{e.Report.Store, e.Report.Epoch}.served()})
	if !m.lost.IsZero() {
		l.p.metrics.tookOver(m)
		l.p.cfg.Logger.LogAttrs(l.p.ctx, slog.LevelInfo, "take-over", append([]slog.Attr{slog.Uint64("session", l.id), slog.String("client", l.client)}, m.attrs()...)...)
	}
	raised := l.p.epochs.raise(e.Report.Store, e.Report.Epoch)
	if raised || e.Report.Epoch < l.p.epochs.all()[e.Report.Store] {
		l.p.fence(e.Report.Store)
	}
}

// gone weighs the end of a leg.
func (l *link) gone(e relay.Event, wasLive bool) {
	l.leave()
	l.mu.Lock()
	target, began, stores := l.target, l.dialBegan, l.asked(e.Report.Store)
	if wasLive {
		l.move = move{lost: e.At, from: target, epochFrom: l.on.epoch, why: e.Err}
		if l.on.store != "" {
			l.movingUntil = e.At.Add(movingFor)
		}
		if word := code(e.Err); word == codeMoved || word == codeFenced {
			l.prev = "" // where it certainly is not
		}
		l.on = ownership{}
	}
	l.mu.Unlock()
	l.count(e.Report)
	l.p.metrics.left(wasLive, code(e.Err))
	l.p.cfg.Logger.Debug("broker left", "session", l.id, "broker", target, "was_live", wasLive, "err", e.Err)

	if target == "" || e.Report.State == "end" || l.p.ctx.Err() != nil {
		return // the session is over, and its leg was closed from here
	}
	kind, says := judge(e.Err, wasLive)
	if !says {
		l.p.cfg.Health.ProbeNow(target)
		return
	}
	at := began // an observation counts from when it began, and a live session observes until it ends
	if wasLive {
		at = e.At
	}
	detail := ""
	if e.Err != nil {
		detail = e.Err.Error()
	}
	if kind != health.NotServed && kind != health.HandshakeFailed {
		stores = nil // what is lost is the target, as far as anybody knows
	}
	l.p.cfg.Health.Observe(health.Evidence{Target: target, Kind: kind, At: at, Stores: stores, Detail: detail})
	l.p.cfg.Refresh()
}

// asked is the store that the session asked its broker for: the one where it is at home, else the one wanted. The caller holds mu.
func (l *link) asked(home string) []health.Served {
	store := cmp.Or(home, l.store)
	if store == "" {
		return nil
	}
	return []health.Served{routing.Wanted(store)}
}

// fence has the sessions leave that are with an epoch of store that is over: its owner has lost the store, whether it knows that or not.
func (p *Proxy) fence(store string) {
	now := p.epochs.all()[store]
	for _, l := range p.all() {
		if at := l.liveEpoch(store); at > 0 && at < now {
			l.sever(staleEpoch{store, at, now})
		}
	}
}

// end is called when the session is over, however it ended.
func (l *link) end(err error) {
	l.leave()
	l.waits("")
	l.belong("")
	word := endCode(err)
	l.p.metrics.ended(word)
	level := slog.LevelDebug
	if err != nil {
		level = slog.LevelInfo
	}
	l.mu.Lock()
	r := l.counted
	l.mu.Unlock()
	l.p.cfg.Logger.Log(l.p.ctx, level, "session ended", "session", l.id, "client", l.client, "lasted", time.Since(l.since), "code", word, "err", err,
		"takeovers", r.Takeovers, "hidden", r.Hidden, "resent", r.Resent, "in_doubt", r.InDoubt)
}

// leave gives the place at a doubtful target back.
func (l *link) leave() {
	l.mu.Lock()
	leave := l.leaveScouts
	l.leaveScouts = nil
	l.mu.Unlock()
	if leave != nil {
		leave()
	}
}

// waits notes why the session has no broker; "" that it has one, or is over.
func (l *link) waits(why string) {
	l.mu.Lock()
	before := l.waiting
	l.waiting = why
	if before == "" {
		l.waitingSince = time.Now()
	}
	l.mu.Unlock()
	switch {
	case before == "" && why != "":
		l.p.waiting.begin()
	case before != "" && why == "":
		l.p.waiting.end()
	}
}

// warn says that sessions wait, for all of them and not too often.
func (l *link) warn() {
	l.mu.Lock()
	why, since := l.waiting, l.waitingSince
	l.mu.Unlock()
	if why != "" && time.Since(since) >= time.Second && l.p.warned.allow(time.Now()) {
		l.p.cfg.Logger.Warn("sessions wait for a broker", "waiting", l.p.waiting.count(), "for_example", l.id, "since", time.Since(since), "why", why)
	}
}

func (l *link) sever(why error) {
	l.mu.Lock()
	r := l.relay
	l.mu.Unlock()
	if r != nil {
		r.Sever(why)
	}
}

// liveEpoch is the epoch of store that the session runs on; 0 if it does not.
func (l *link) liveEpoch(store string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.on.store != store {
		return 0
	}
	return l.on.epoch
}

// report asks the relay; a session that is being set up has nothing to say.
func (l *link) report() session.Report {
	l.mu.Lock()
	r := l.relay
	l.mu.Unlock()
	if r == nil {
		return session.Report{}
	}
	return r.Report()
}

// count adds what is new in r to the counters. A scrape and an event may bring their reports in the wrong order: what is older adds nothing.
func (l *link) count(r session.Report) {
	l.mu.Lock()
	was := l.counted
	r.Takeovers, r.Hidden, r.Resent = max(r.Takeovers, was.Takeovers), max(r.Hidden, was.Hidden), max(r.Resent, was.Resent)
	r.LateAcks, r.RolledBack = max(r.LateAcks, was.LateAcks), max(r.RolledBack, was.RolledBack)
	r.ReplayedFrames = max(r.ReplayedFrames, was.ReplayedFrames)
	l.counted = r
	l.mu.Unlock()
	l.p.metrics.count(was, r)
}

func (l *link) status() SessionStatus {
	r := l.report()
	l.mu.Lock()
	defer l.mu.Unlock()
	return SessionStatus{ID: l.id, Client: l.client, Since: l.since, Waiting: l.waiting, Report: r}
}
