package main

import (
	"fmt"

	"github.com/VictoriaMetrics/metrics"

	"github.com/understudy-mq/understudy/session/relay"
)

// newMetrics makes the process's set, with what it is built from.
func newMetrics() *metrics.Set {
	set := metrics.NewSet()
	set.NewGauge(fmt.Sprintf("understudy_build_info{version=%q}", version()), func() float64 { return 1 })
	return set
}

// windowMetrics show what all clients share.
func windowMetrics(set *metrics.Set, b *relay.Budget) {
	set.GetOrCreateGauge("understudy_sidecar_window_total_bytes", func() float64 { return float64(b.State().Kept) })
	set.GetOrCreateGauge("understudy_sidecar_window_limit_bytes", func() float64 { return float64(b.State().Limit) })
	set.GetOrCreateGauge("understudy_sidecar_window_held_clients", func() float64 { return float64(b.State().Held) })
}
