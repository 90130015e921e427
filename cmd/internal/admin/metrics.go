package admin

import (
	"net/http"

	"github.com/VictoriaMetrics/metrics"
)

// metrics answers in the Prometheus text format: what the packages count, then what the process itself costs.
func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	if s.cfg.Metrics != nil {
		s.cfg.Metrics.WritePrometheus(w)
	}
	metrics.WriteProcessMetrics(w)
}
