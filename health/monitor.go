package health

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// probeGap is the least time between the starts of two probes of one target, whoever asks: a thousand sessions that lose one broker
// ask a thousand times.
const probeGap = 10 * time.Millisecond

// Config of a Monitor; Probe is required.
type Config struct {
	// Probe asks a broker what it is. It must return when ctx ends, with ProbeFailed (or DialFailed) if it has no answer. Target and At of
	// what it returns are set by the Monitor: At is when the probe began. It is called from several goroutines at once.
	Probe func(ctx context.Context, t Target) Evidence
	// Interval is the time from one probe of a target to the next; 0 means 2 s. It is shortened at random by up to a fifth, so that
	// sidecars do not probe in step.
	Interval time.Duration
	// FastInterval takes its place while a target is Suspect or Unknown, and while somebody waits for all that could take something over: they are not
	// Active, or know a store that they do not serve; 0 means 250 ms.
	FastInterval time.Duration
	// Timeout of one probe; 0 means 1 s.
	Timeout time.Duration
	// Concurrency is how many probes run at once; 0 means 16.
	Concurrency int
	// Thresholds of the Detector.
	Thresholds Thresholds
	Logger     *slog.Logger // nil discards
	Metrics    *Metrics     // nil counts for nobody
}

func (c Config) withDefaults() Config {
	if c.Interval <= 0 {
		c.Interval = 2 * time.Second
	}
	if c.FastInterval <= 0 {
		c.FastInterval = 250 * time.Millisecond
	}
	if c.Timeout <= 0 {
		c.Timeout = time.Second
	}
	if c.Concurrency <= 0 {
		c.Concurrency = 16
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil, "")
	}
	return c
}

// Monitor keeps verdicts on targets: it probes them, takes evidence from outside, and says what changed. Safe for concurrent use.
type Monitor struct {
	cfg   Config
	slots chan struct{} // one token per running probe
	wg    sync.WaitGroup

	mu       sync.Mutex
	detector *Detector
	watches  map[Target]*watch
	waiting  int
	snapshot map[Target]Verdict // replaced, never changed
	changed  chan struct{}      // closed when snapshot is replaced
	closed   bool
}

// watch is the probing of one target.
type watch struct {
	target Target
	kick   chan struct{} // capacity 1: probe now
	cancel context.CancelFunc
	late   int // probes in a row that ended too late to say anything; owned by run
}

// maxLate is how many probes in a row may end too late to count.
const maxLate = 3

// NewMonitor starts a Monitor without targets.
func NewMonitor(cfg Config) *Monitor {
	cfg = cfg.withDefaults()
	return &Monitor{
		cfg:      cfg,
		slots:    make(chan struct{}, cfg.Concurrency),
		detector: NewDetector(cfg.Thresholds),
		watches:  make(map[Target]*watch),
		snapshot: make(map[Target]Verdict),
		changed:  make(chan struct{}),
	}
}

// Snapshot is the verdict on every target, and a channel that is closed as soon as that is out of date. The map is shared: read only.
func (m *Monitor) Snapshot() (map[Target]Verdict, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snapshot, m.changed
}

// Add begins to probe t, at once. A target that is known stays as it is.
func (m *Monitor) Add(t Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.add(t) {
		m.publish()
	}
}

// Remove ends the probing of t and drops its verdict.
func (m *Monitor) Remove(t Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.remove(t) {
		m.publish()
	}
}

// SetTargets adds what is new in ts and removes what is not in it, as one change.
func (m *Monitor) SetTargets(ts []Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := false
	for t := range m.watches {
		if !slices.Contains(ts, t) {
			changed = m.remove(t) || changed
		}
	}
	for _, t := range ts {
		changed = m.add(t) || changed
	}
	if changed {
		m.publish()
	}
}

func (m *Monitor) add(t Target) bool {
	if m.closed || !m.detector.Add(t, time.Now()) {
		return false
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &watch{target: t, kick: make(chan struct{}, 1), cancel: cancel}
	m.watches[t] = w
	m.cfg.Metrics.added(t)
	m.wg.Go(func() { m.run(ctx, w) })
	return true
}

func (m *Monitor) remove(t Target) bool {
	w := m.watches[t]
	if w == nil {
		return false
	}
	w.cancel()
	delete(m.watches, t)
	m.cfg.Metrics.removed(t)
	return m.detector.Forget(t)
}

// Observe takes evidence from outside: a session's own connection, a dial, gossip. Of a target that is not being monitored only the
// epoch counts.
func (m *Monitor) Observe(e Evidence) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	m.cfg.Metrics.observed(e)
	m.mu.Lock()
	changed := m.weigh(e)
	m.mu.Unlock()
	m.log(changed)
}

// ProbeNow probes t without waiting for its interval; somebody has seen something. Unknown targets are ignored.
func (m *Monitor) ProbeNow(t Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hurry(t)
}

// Hurry probes what could take something over at the fast interval, beginning now, until done is called: somebody waits for a broker.
func (m *Monitor) Hurry() (done func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting++
	for t, v := range m.snapshot {
		if idle(v) {
			m.hurry(t)
		}
	}
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.waiting--
	})
}

// Close ends all probing and waits for it. The verdicts stay as they are.
func (m *Monitor) Close() {
	m.mu.Lock()
	m.closed = true
	for _, w := range m.watches {
		w.cancel()
	}
	m.mu.Unlock()
	m.wg.Wait()
}

// hurry never blocks: one kick is as good as many.
func (m *Monitor) hurry(t Target) {
	if w := m.watches[t]; w != nil {
		select {
		case w.kick <- struct{}{}:
		default:
		}
	}
}

// weigh hands e to the detector and acts on the outcome; the caller holds mu and logs what it returns after unlocking.
func (m *Monitor) weigh(e Evidence) []Verdict {
	out := m.detector.Observe(e)
	if len(out.Changed) > 0 {
		m.publish()
	}
	for _, v := range out.Changed {
		m.cfg.Metrics.changed(v)
	}
	for _, t := range out.Probe {
		m.hurry(t)
	}
	return out.Changed
}

func (m *Monitor) publish() {
	m.snapshot = m.detector.Verdicts()
	close(m.changed)
	m.changed = make(chan struct{})
	m.cfg.Metrics.counted(m.snapshot)
}

func (m *Monitor) log(changed []Verdict) {
	for _, v := range changed {
		level := slog.LevelInfo
		if v.Because.Kind == TLSFailed {
			level = slog.LevelWarn // that does not pass by itself
		}
		m.cfg.Logger.Log(context.Background(), level, "broker verdict", "target", v.Target, "state", v.State.String(), "reason", v.Reason, "stores", storesText(v.Stores),
			"draining", v.Draining, "because", v.Because.Kind.String(), "seen_at", v.Because.Target, "detail", v.Because.Detail)
	}
}

// run probes one target until ctx ends.
func (m *Monitor) run(ctx context.Context, w *watch) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var began time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-w.kick:
			if early := probeGap - time.Since(began); early > 0 {
				timer.Reset(early)
				continue
			}
		}
		select {
		case m.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		began = time.Now()
		m.probe(ctx, w, began)
		<-m.slots
		timer.Reset(max(probeGap, m.interval(w.target)) - time.Since(began))
	}
}

func (m *Monitor) probe(ctx context.Context, w *watch, began time.Time) {
	limited, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	e := m.cfg.Probe(limited, w.target)
	cancel()
	if late := time.Since(began) - m.cfg.Timeout; late > m.cfg.Timeout/4 && !e.Kind.connected() && e.Kind != ProbeStandby && w.late < maxLate {
		// This machine was too busy to notice an answer, which says nothing of the broker; unless it never has the time.
		w.late++
		m.cfg.Metrics.late()
		return
	}
	w.late = 0
	e.Target, e.At = w.target, began
	m.mu.Lock()
	if m.watches[w.target] != w || ctx.Err() != nil {
		m.mu.Unlock()
		return // removed or closing: an answer that we cut short says nothing about the broker
	}
	changed := m.weigh(e)
	m.mu.Unlock()
	m.cfg.Metrics.probed(e, time.Since(began).Seconds())
	m.log(changed)
}

// interval is how long after its last probe's start t is probed again.
func (m *Monitor) interval(t Target) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.snapshot[t]
	interval := m.cfg.Interval
	if v.State == Suspect || v.State == Unknown || m.waiting > 0 && idle(v) {
		interval = m.cfg.FastInterval
	}
	return interval - rand.N(interval/5+1)
}

// idle reports whether a target may come to serve what it does not serve now.
func idle(v Verdict) bool {
	return v.State != Active || slices.ContainsFunc(v.Stores, func(s Served) bool { return !s.Live() })
}

// storesText is what a log line says of a target's stores: name and epoch of those that it serves.
func storesText(stores []Served) string {
	var b strings.Builder
	for _, s := range stores {
		if s.Epoch == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s@%d", cmp.Or(s.Name, s.UUID), s.Epoch)
		if s.Stale {
			b.WriteString("(over)")
		}
	}
	return b.String()
}
