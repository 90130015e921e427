package main

import (
	"fmt"

	"github.com/VictoriaMetrics/metrics"

	"github.com/understudy-mq/understudy/cmd/internal/ops"
)

// newMetrics makes the process's set, with what it is built from.
func newMetrics() *metrics.Set {
	set := metrics.NewSet()
	set.NewGauge(fmt.Sprintf("understudy_build_info{version=%q}", version()), func() float64 { return 1 })
	return set
}

// processMetrics show what all groups of a sidecar share.
func processMetrics(set *metrics.Set, c *sidecar) {
	b := c.budget
	set.GetOrCreateGauge("understudy_sidecar_window_total_bytes", func() float64 { return float64(b.State().Kept) })
	set.GetOrCreateGauge("understudy_sidecar_window_limit_bytes", func() float64 { return float64(b.State().Limit) })
	set.GetOrCreateGauge("understudy_sidecar_window_held_clients", func() float64 { return float64(b.State().Held) })
	for side, secrets := range map[string]*ops.Secrets{"broker": c.secrets, "client": c.shown} {
		if secrets == nil || secrets.Expiry().IsZero() {
			continue
		}
		set.GetOrCreateGauge(fmt.Sprintf("understudy_tls_certificate_expiry_timestamp_seconds{side=%q}", side), func() float64 { return float64(secrets.Expiry().Unix()) })
	}
}
