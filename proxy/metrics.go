package proxy

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/understudy-mq/understudy/routing"
	"github.com/understudy-mq/understudy/session"
)

// sweepEvery bounds what scrapes cost: asking every session takes its lock.
const sweepEvery = time.Second

// Words that become labels; anything else, since it may come from a broker, is "other".
var (
	states = [...]string{"park", "login", "replay", "run", "drain", "end"}
	codes  = [...]string{
		"", "fault", "dial", "shutdown", "client-closed", "client-silent", "hold-timeout", "protocol", "broker-error", "not-resumable", "poison",
		codeStandby, codeFenced, codeMoved, codeWrongStore, codeWhichStore, codeEpoch, codeVersion, codeStale, codeGap, codeLostState, codeError,
		"login-timeout", "broker-lost", "broker-closed", codeTLS, "silent", "malformed", "closed",
	}
	bounds = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}
)

// proxyMetrics are one Proxy's figures.
type proxyMetrics struct {
	set    *metrics.Set
	labels string
	gauges []string

	clients, acceptErrors                                           *metrics.Counter
	takeovers, hidden, resent, lateAcks, rolledBack, replayedFrames *metrics.Counter

	phases map[string]histogram // of take-overs; a fleet has thousands of them at one moment

	sweep sweep
}

func newProxyMetrics(set *metrics.Set, listener, group string, p *Proxy) *proxyMetrics {
	if set == nil {
		set = metrics.NewSet()
	}
	m := &proxyMetrics{set: set, labels: fmt.Sprintf("listener=%q", listener), sweep: sweep{p: p}}
	if group != "" {
		m.labels += fmt.Sprintf(",group=%q", group)
	}
	m.counter("sessions_ended_total", "code", "hold-timeout") // there from the start, so that an alert sees the first one
	m.counter("half_open_total", "leg", session.Broker.String())
	m.counter("half_open_total", "leg", session.Client.String())
	m.clients = m.counter("client_connections_total", "", "")
	m.acceptErrors = m.counter("accept_errors_total", "", "")
	m.takeovers = m.counter("takeovers_total", "", "")
	m.hidden = m.counter("redeliveries_hidden_total", "", "")
	m.resent = m.counter("resends_total", "", "")
	m.lateAcks = m.counter("late_acks_total", "", "")
	m.rolledBack = m.counter("rolled_back_total", "", "")
	m.replayedFrames = m.counter("replayed_frames_total", "", "")
	m.phases = make(map[string]histogram)
	for _, phase := range [...]string{phaseDetect, phaseDial, phaseReplay, phaseSilence} {
		m.phases[phase] = m.histogram(phase) // all there from the start, so that rates see the first take-over
	}
	m.gauge("client_connections", "", "", func(t totals) float64 { return float64(t.sessions) })
	m.gauge("waiting_sessions", "", "", func(totals) float64 { return float64(p.waiting.count()) })
	m.gauge("store_names_shared", "", "", func(totals) float64 { return float64(p.vigil.sharing()) })
	m.gauge("held_sessions", "", "", func(t totals) float64 { return float64(t.states["park"] + t.states["login"] + t.states["replay"]) })
	m.gauge("not_resumable_sessions", "", "", func(t totals) float64 { return float64(t.notResumable) })
	m.gauge("window_bytes", "", "", func(t totals) float64 { return float64(t.window) })
	m.gauge("unconfirmed_effects", "", "", func(t totals) float64 { return float64(t.unconfirmed) })
	m.gauge("unsettled_in_doubt", "", "", func(t totals) float64 { return float64(t.inDoubt) })
	m.gauge("unacked_messages", "", "", func(t totals) float64 { return float64(t.unacked) })
	for _, state := range states {
		m.gauge("sessions", "state", state, func(t totals) float64 { return float64(t.states[state]) })
	}
	return m
}

func (m *proxyMetrics) name(metric, label, value string) string {
	if label == "" {
		return fmt.Sprintf("understudy_sidecar_%s{%s}", metric, m.labels)
	}
	return fmt.Sprintf("understudy_sidecar_%s{%s,%s=%q}", metric, m.labels, label, value)
}

func (m *proxyMetrics) counter(metric, label, value string) *metrics.Counter {
	return m.set.GetOrCreateCounter(m.name(metric, label, value))
}

func (m *proxyMetrics) gauge(metric, label, value string, of func(totals) float64) {
	name := m.name(metric, label, value)
	m.set.GetOrCreateGauge(name, func() float64 { return of(m.sweep.totals()) })
	m.gauges = append(m.gauges, name)
}

// store and forgetStore begin and end the figures of one store.
func (m *proxyMetrics) store(p *Proxy, s routing.Store) {
	m.set.GetOrCreateGauge(m.name("store_unserved_seconds", "store", s.String()), func() float64 {
		if since := p.vigil.unserved(s.UUID); !since.IsZero() {
			return time.Since(since).Seconds()
		}
		return 0
	})
	m.set.GetOrCreateGauge(m.name("store_sessions", "store", s.String()), func() float64 { return float64(p.wanting(s)) })
	m.gauges = append(m.gauges, m.name("store_unserved_seconds", "store", s.String()), m.name("store_sessions", "store", s.String()))
}

func (m *proxyMetrics) forgetStore(s routing.Store) {
	for _, metric := range [...]string{"store_unserved_seconds", "store_sessions"} {
		name := m.name(metric, "store", s.String())
		m.set.UnregisterMetric(name)
		m.gauges = slices.DeleteFunc(m.gauges, func(g string) bool { return g == name })
	}
}

// close takes the gauges out: they would ask a Proxy that is no more.
func (m *proxyMetrics) close() {
	for _, name := range m.gauges {
		m.set.UnregisterMetric(name)
	}
}

func (m *proxyMetrics) refused(why string) { m.counter("client_refused_total", "reason", why).Inc() }

func (m *proxyMetrics) dialled(err error) {
	result := "connected"
	if err != nil {
		result = "failed"
	}
	m.counter("dials_total", "result", result).Inc()
}

// left counts the ends of legs.
func (m *proxyMetrics) left(wasLive bool, code string) {
	name := "legs_refused_total"
	if wasLive {
		name = "legs_lost_total"
	}
	m.counter(name, "code", word(code)).Inc()
}

// deaf counts connections whose other machine fell silent.
func (m *proxyMetrics) deaf(leg session.Leg) {
	m.counter("half_open_total", "leg", leg.String()).Inc()
}

func (m *proxyMetrics) ended(code string) {
	m.counter("sessions_ended_total", "code", word(code)).Inc()
}

func word(code string) string {
	for _, known := range codes {
		if code == known {
			return code
		}
	}
	return "other"
}

func (m *proxyMetrics) tookOver(t move) {
	for phase, d := range t.phases() {
		m.phases[phase].observe(d.Seconds())
	}
}

func (m *proxyMetrics) count(was, now session.Report) {
	add := func(c *metrics.Counter, was, now uint64) {
		if n := grown(was, now); n > 0 {
			c.AddInt64(int64(n))
		}
	}
	add(m.takeovers, was.Takeovers, now.Takeovers)
	add(m.hidden, was.Hidden, now.Hidden)
	add(m.resent, was.Resent, now.Resent)
	add(m.lateAcks, was.LateAcks, now.LateAcks)
	add(m.rolledBack, was.RolledBack, now.RolledBack)
	add(m.replayedFrames, was.ReplayedFrames, now.ReplayedFrames)
}

// histogram has the fixed buckets that Prometheus' functions need; the library's own kind has others.
type histogram struct {
	buckets [len(bounds) + 1]*metrics.Counter // cumulative; the last is +Inf
	sum     *metrics.FloatCounter
	count   *metrics.Counter
}

func (m *proxyMetrics) histogram(phase string) histogram {
	const name = "takeover_phase_seconds"
	var h histogram
	for i := range h.buckets {
		le := "+Inf"
		if i < len(bounds) {
			le = fmt.Sprint(bounds[i])
		}
		h.buckets[i] = m.set.GetOrCreateCounter(fmt.Sprintf("understudy_sidecar_%s_bucket{%s,phase=%q,le=%q}", name, m.labels, phase, le))
	}
	h.sum = m.set.GetOrCreateFloatCounter(m.name(name+"_sum", "phase", phase))
	h.count = m.counter(name+"_count", "phase", phase)
	return h
}

func (h histogram) observe(v float64) {
	for i := range h.buckets {
		if i == len(bounds) || v <= bounds[i] {
			h.buckets[i].Inc()
		}
	}
	h.sum.Add(v)
	h.count.Inc()
}

// totals are sums over all sessions.
type totals struct {
	sessions, window, unconfirmed, inDoubt, unacked, notResumable int
	states                                                        map[string]int
}

// sweep asks every session, for all the gauges of a scrape at once.
type sweep struct {
	p *Proxy

	mu   sync.Mutex
	at   time.Time
	last totals
}

func (s *sweep) totals() totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.at.IsZero() && time.Since(s.at) < sweepEvery {
		return s.last
	}
	t := totals{states: make(map[string]int, len(states))}
	for _, l := range s.p.all() {
		r := l.report()
		l.count(r)
		t.sessions++
		t.states[r.State]++
		t.window += r.WindowBytes
		t.unconfirmed += r.Unconfirmed
		t.inDoubt += r.InDoubt
		t.unacked += r.Unacked
		if r.NotResumable != "" && !s.p.cfg.Splice { // that none of those can be is what was asked for
			t.notResumable++
		}
	}
	s.at, s.last = time.Now(), t
	return t
}
