package health

import (
	"fmt"

	"github.com/VictoriaMetrics/metrics"
)

// Metrics are the figures of one Monitor.
type Metrics struct {
	set   *metrics.Set
	group string
}

// NewMetrics registers in set, with a label group unless group is "". Monitors that share a set need different groups. A nil set
// counts for nobody.
func NewMetrics(set *metrics.Set, group string) *Metrics {
	if set == nil {
		set = metrics.NewSet()
	}
	return &Metrics{set: set, group: group}
}

func (m *Metrics) name(metric, label, value string) string {
	switch {
	case m.group == "" && label == "":
		return metric
	case m.group == "":
		return fmt.Sprintf("%s{%s=%q}", metric, label, value)
	case label == "":
		return fmt.Sprintf("%s{group=%q}", metric, m.group)
	}
	return fmt.Sprintf("%s{group=%q,%s=%q}", metric, m.group, label, value)
}

// probed counts a finished probe.
func (m *Metrics) probed(e Evidence, seconds float64) {
	m.set.GetOrCreateCounter(m.name("understudy_health_probes_total", "result", e.Kind.String())).Inc()
	m.set.GetOrCreateHistogram(m.name("understudy_health_probe_duration_seconds", "", "")).Update(seconds)
}

// late counts probes that were given up so late that they say nothing.
func (m *Metrics) late() {
	m.set.GetOrCreateCounter(m.name("understudy_health_late_probes_total", "", "")).Inc()
}

// observed counts evidence that came from outside.
func (m *Metrics) observed(e Evidence) {
	m.set.GetOrCreateCounter(m.name("understudy_health_evidence_total", "kind", e.Kind.String())).Inc()
}

// changed counts a change of mind.
func (m *Metrics) changed(v Verdict) {
	m.set.GetOrCreateCounter(m.name("understudy_health_verdict_changes_total", "state", v.State.String())).Inc()
	active := 0.0
	if v.State == Active {
		active = 1
	}
	m.active(v.Target).Set(active)
}

// added and removed begin and end a target's own figure.
func (m *Metrics) added(t Target) { m.active(t).Set(0) }

func (m *Metrics) removed(t Target) {
	m.set.UnregisterMetric(m.name("understudy_health_target_active", "target", string(t)))
}

func (m *Metrics) active(t Target) *metrics.Gauge {
	return m.set.GetOrCreateGauge(m.name("understudy_health_target_active", "target", string(t)), nil)
}

// counted shows how many targets are in each state.
func (m *Metrics) counted(verdicts map[Target]Verdict) {
	var n [len(stateNames)]int
	for _, v := range verdicts {
		n[v.State]++
	}
	for state, count := range n {
		m.set.GetOrCreateGauge(m.name("understudy_health_targets", "state", State(state).String()), nil).Set(float64(count))
	}
}
