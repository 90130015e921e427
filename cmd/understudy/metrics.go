package main

import (
	"fmt"

	"github.com/VictoriaMetrics/metrics"
)

// newMetrics makes the process's set, with what it is built from.
func newMetrics() *metrics.Set {
	set := metrics.NewSet()
	set.NewGauge(fmt.Sprintf("understudy_build_info{version=%q}", version()), func() float64 { return 1 })
	return set
}
