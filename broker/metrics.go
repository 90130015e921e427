package broker

import (
	"fmt"
	"strings"

	"github.com/VictoriaMetrics/metrics"

	"github.com/understudy-mq/understudy/broker/journal"
)

// metricSet is where a Server's metrics go. What concerns one store has its name as a label: the one that the server was given, or found, it by.
type metricSet = metrics.Set

func newMetricSet() *metricSet { return metrics.NewSet() }

// tally is a counter that can be added to under the store's mutex.
type tally = metrics.Counter

// counters is what is counted of one store.
type counters struct {
	in, out, receipts, errors, acks, nacks, commits          *tally
	redelivered, claimsGranted, claimsGone, late, rolledBack *tally
	repeated, resumed, evicted, dropped                      *tally
	unreachable, expired, withheld, pagesOut, pagesRead      *tally
	bequeathed                                               *tally

	takeovers *tally
	handovers map[string]*tally  // by reason
	handover  *metrics.Histogram // seconds, from the barrier to the journal's release
}

// newCounters returns those of the store with that name: the same for the same name.
func newCounters(set *metricSet, store string) *counters {
	count := func(name string) *tally {
		return set.GetOrCreateCounter(fmt.Sprintf("understudy_broker_%s{store=%q}", name, store))
	}
	c := &counters{
		in:            count("messages_received_total"),
		out:           count("messages_delivered_total"),
		receipts:      count("receipts_total"),
		errors:        count("errors_total"),
		acks:          count("acks_total"),
		nacks:         count("nacks_total"),
		commits:       count("commits_total"),
		redelivered:   count("redeliveries_total"),
		claimsGranted: count("claims_granted_total"),
		claimsGone:    count("claims_gone_total"),
		late:          count("late_acks_total"),
		rolledBack:    count("commits_rolled_back_total"),
		repeated:      count("repeated_effects_total"),
		resumed:       count("sessions_resumed_total"),
		evicted:       count("connections_evicted_total"),
		dropped:       count("topic_messages_dropped_total"),
		bequeathed:    count("topic_messages_handed_over_total"),
		unreachable:   count("unreachable_messages_total"),
		expired:       count("messages_expired_total"),
		withheld:      count("output_withheld_total"),
		pagesOut:      count("pages_out_total"),
		pagesRead:     count("pages_read_total"),
		takeovers:     count("takeovers_total"),
		handovers:     map[string]*tally{},
		handover:      set.GetOrCreateHistogram(fmt.Sprintf("understudy_broker_handover_seconds{store=%q}", store)),
	}
	for _, reason := range []string{byFailback, byCommand, byShutdown} {
		c.handovers[reason] = set.GetOrCreateCounter(fmt.Sprintf("understudy_broker_handovers_total{store=%q,reason=%q}", store, reason))
	}
	return c
}

// newServerMetrics registers what concerns the server as a whole, and returns what counts connections, and CONNECTs that no store was found for.
func newServerMetrics(s *Server) (accepted, refused *tally) {
	set := s.cfg.Metrics
	set.NewGauge("understudy_broker_connections", func() float64 { return float64(s.connections.Load()) })
	return set.NewCounter("understudy_broker_connections_accepted_total"), set.NewCounter("understudy_broker_connections_refused_total")
}

// gauges are read from the keeper's status when somebody asks.
var gauges = map[string]func(StoreStatus) float64{
	`store_connections`:             func(st StoreStatus) float64 { return float64(st.Connections) },
	`sessions state="connected"`:    func(st StoreStatus) float64 { return float64(st.Sessions - st.Absent) },
	`sessions state="absent"`:       func(st StoreStatus) float64 { return float64(st.Absent) },
	`queues`:                        func(st StoreStatus) float64 { return float64(st.Queues) },
	`queue_messages`:                func(st StoreStatus) float64 { return float64(st.Messages) },
	`queue_bytes`:                   func(st StoreStatus) float64 { return float64(st.Bytes) },
	`memory_share_bytes`:            func(st StoreStatus) float64 { return float64(st.MaxMemory) },
	`messages_out`:                  func(st StoreStatus) float64 { return float64(st.Out) },
	`index_bytes`:                   func(st StoreStatus) float64 { return float64(st.Out) * entryOverhead },
	`damaged_queues`:                func(st StoreStatus) float64 { return float64(st.Damaged) },
	`blocked reason="disk"`:         func(st StoreStatus) float64 { return one(st.DiskFull) },
	`blocked reason="memory"`:       func(st StoreStatus) float64 { return one(st.MemoryFull) },
	`epoch`:                         func(st StoreStatus) float64 { return float64(st.Epoch) },
	`recovery_seconds`:              func(st StoreStatus) float64 { return st.Recovery.Seconds() },
	`recovery_records`:              func(st StoreStatus) float64 { return float64(st.Recovered) },
	`candidates`:                    func(st StoreStatus) float64 { return float64(len(st.Candidates)) },
	`store_role role="standby"`:     isRole(Standby),
	`store_role role="recovering"`:  isRole(Recovering),
	`store_role role="active"`:      isRole(Active),
	`store_role role="unreachable"`: isRole(Unreachable),
	`store_role role="failed"`:      isRole(Failed),
	`store_role role="stopped"`:     isRole(Stopped),
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func isRole(r Role) func(StoreStatus) float64 {
	return func(st StoreStatus) float64 { return one(st.Role == r) }
}

// gaugeName is the full name of one of the gauges.
func (k *keeper) gaugeName(name string) string {
	name, label, more := strings.Cut(name, " ")
	if more {
		label = "," + label
	}
	return fmt.Sprintf("understudy_broker_%s{store=%q%s}", name, k.given.Name, label)
}

func (k *keeper) register() {
	for name, f := range gauges {
		k.srv.cfg.Metrics.NewGauge(k.gaugeName(name), func() float64 { return f(k.snapshot()) })
	}
}

func (k *keeper) unregister() {
	for name := range gauges {
		k.srv.cfg.Metrics.UnregisterMetric(k.gaugeName(name))
	}
}

func newJournalMetrics(set *metricSet, store string) *journal.Metrics {
	return journal.NewMetrics(set, store)
}
