package health

import (
	"bytes"
	"strings"

	"github.com/VictoriaMetrics/metrics"
)

func newSet() *metrics.Set { return metrics.NewSet() }

func metricsText(s *metrics.Set) string {
	var b bytes.Buffer
	s.WritePrometheus(&b)
	return b.String()
}

func metricsHave(s *metrics.Set, line string) bool { return strings.Contains(metricsText(s), line) }
