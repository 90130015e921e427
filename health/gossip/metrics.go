package gossip

import (
	"fmt"

	"github.com/VictoriaMetrics/metrics"
)

// Metrics are the figures of one Node.
type Metrics struct{ set *metrics.Set }

// NewMetrics registers in set; nil counts for nobody.
func NewMetrics(set *metrics.Set) *Metrics {
	if set == nil {
		set = metrics.NewSet()
	}
	return &Metrics{set: set}
}

func (m *Metrics) received(kind string) {
	m.set.GetOrCreateCounter(fmt.Sprintf("understudy_gossip_messages_received_total{kind=%q}", kind)).Inc()
}

func (m *Metrics) sent(kind string) {
	m.set.GetOrCreateCounter(fmt.Sprintf("understudy_gossip_messages_sent_total{kind=%q}", kind)).Inc()
}

func (m *Metrics) dropped(reason string) {
	m.set.GetOrCreateCounter(fmt.Sprintf("understudy_gossip_messages_dropped_total{reason=%q}", reason)).Inc()
}

func (m *Metrics) joined(result string) {
	m.set.GetOrCreateCounter(fmt.Sprintf("understudy_gossip_joins_total{result=%q}", result)).Inc()
}

func (m *Metrics) viewed(v View) {
	m.set.GetOrCreateGauge("understudy_gossip_members", nil).Set(float64(v.Members))
	m.set.GetOrCreateGauge("understudy_gossip_sidecars", nil).Set(float64(v.Sidecars))
}

// strained shows how far this node falls short of the protocol's soft real time: 0 is well.
func (m *Metrics) strained(score int) {
	m.set.GetOrCreateGauge("understudy_gossip_health_score", nil).Set(float64(score))
}
