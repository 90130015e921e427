package discover

import (
	"fmt"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// sourceMetrics belong to one Discovery; nil does nothing.
type sourceMetrics struct {
	set   *metrics.Set
	group string // label with its comma; "" is none
	names []string
}

func newSourceMetrics(set *metrics.Set, group string) *sourceMetrics {
	if set == nil {
		return nil
	}
	m := &sourceMetrics{set: set}
	if group != "" {
		m.group = fmt.Sprintf("group=%q,", group)
	}
	return m
}

func (m *sourceMetrics) add(s *source) {
	if m == nil {
		return
	}
	m.gauge("understudy_discovery_candidates", s, func(st Status) float64 { return float64(len(st.Endpoints)) })
	if s.refresh == nil {
		return
	}
	m.gauge("understudy_dns_last_success_timestamp_seconds", s, func(st Status) float64 {
		if st.Good.IsZero() {
			return 0
		}
		return float64(st.Good.UnixNano()) / float64(time.Second)
	})
	m.counter("understudy_dns_lookups_total", s)
	m.counter("understudy_dns_failures_total", s)
}

func (m *sourceMetrics) gauge(name string, s *source, value func(Status) float64) {
	name = fmt.Sprintf("%s{%ssource=%q}", name, m.group, s.name)
	m.set.GetOrCreateGauge(name, func() float64 { return value(s.snapshot()) })
	m.names = append(m.names, name)
}

func (m *sourceMetrics) counter(name string, s *source) *metrics.Counter {
	return m.set.GetOrCreateCounter(fmt.Sprintf("%s{%ssource=%q}", name, m.group, s.name))
}

func (m *sourceMetrics) lookedUp(s *source, err error) {
	if m == nil {
		return
	}
	m.counter("understudy_dns_lookups_total", s).Inc()
	if err != nil {
		m.counter("understudy_dns_failures_total", s).Inc()
	}
}

// close takes the gauges out: they would go on asking a source that no longer runs. Counters stay, as counters should.
func (m *sourceMetrics) close() {
	if m == nil {
		return
	}
	for _, name := range m.names {
		m.set.UnregisterMetric(name)
	}
}
