package broker

import (
	"github.com/VictoriaMetrics/metrics"

	"github.com/understudy-mq/understudy/broker/journal"
)

// metricSet is where a Server's metrics go.
type metricSet = metrics.Set

func newMetricSet() *metricSet { return metrics.NewSet() }

// tally is a counter that can be added to under the store's mutex.
type tally = metrics.Counter

// counters is what the store counts.
type counters struct {
	in, out, receipts, errors, acks, nacks, commits          *tally
	redelivered, claimsGranted, claimsGone, late, rolledBack *tally
	repeated, resumed, evicted, dropped, connections         *tally
	unreachable, expired, withheld, pagesOut, pagesRead      *tally
	bequeathed                                               *tally
}

func newCounters(set *metricSet) *counters {
	return &counters{
		in:            set.NewCounter("understudy_broker_messages_received_total"),
		out:           set.NewCounter("understudy_broker_messages_delivered_total"),
		receipts:      set.NewCounter("understudy_broker_receipts_total"),
		errors:        set.NewCounter("understudy_broker_errors_total"),
		acks:          set.NewCounter("understudy_broker_acks_total"),
		nacks:         set.NewCounter("understudy_broker_nacks_total"),
		commits:       set.NewCounter("understudy_broker_commits_total"),
		redelivered:   set.NewCounter("understudy_broker_redeliveries_total"),
		claimsGranted: set.NewCounter("understudy_broker_claims_granted_total"),
		claimsGone:    set.NewCounter("understudy_broker_claims_gone_total"),
		late:          set.NewCounter("understudy_broker_late_acks_total"),
		rolledBack:    set.NewCounter("understudy_broker_commits_rolled_back_total"),
		repeated:      set.NewCounter("understudy_broker_repeated_effects_total"),
		resumed:       set.NewCounter("understudy_broker_sessions_resumed_total"),
		evicted:       set.NewCounter("understudy_broker_connections_evicted_total"),
		dropped:       set.NewCounter("understudy_broker_topic_messages_dropped_total"),
		bequeathed:    set.NewCounter("understudy_broker_topic_messages_handed_over_total"),
		unreachable:   set.NewCounter("understudy_broker_unreachable_messages_total"),
		expired:       set.NewCounter("understudy_broker_messages_expired_total"),
		withheld:      set.NewCounter("understudy_broker_output_withheld_total"),
		pagesOut:      set.NewCounter("understudy_broker_pages_out_total"),
		pagesRead:     set.NewCounter("understudy_broker_pages_read_total"),
		connections:   set.NewCounter("understudy_broker_connections_accepted_total"),
	}
}

// register adds the gauges, which are read from the server's status when somebody asks.
func (s *Server) register(set *metricSet) {
	gauge := func(name string, f func(StoreStatus) float64) {
		set.NewGauge(name, func() float64 { return f(s.Status().Stores[0]) })
	}
	set.NewGauge("understudy_broker_connections", func() float64 { return float64(s.Status().Connections) })
	gauge(`understudy_broker_sessions{state="connected"}`, func(st StoreStatus) float64 { return float64(st.Sessions - st.Absent) })
	gauge(`understudy_broker_sessions{state="absent"}`, func(st StoreStatus) float64 { return float64(st.Absent) })
	gauge("understudy_broker_queues", func(st StoreStatus) float64 { return float64(st.Queues) })
	gauge("understudy_broker_queue_messages", func(st StoreStatus) float64 { return float64(st.Messages) })
	gauge("understudy_broker_queue_bytes", func(st StoreStatus) float64 { return float64(st.Bytes) })
	gauge("understudy_broker_messages_out", func(st StoreStatus) float64 { return float64(st.Out) })
	gauge("understudy_broker_index_bytes", func(st StoreStatus) float64 { return float64(st.Out) * entryOverhead })
	gauge("understudy_broker_damaged_queues", func(st StoreStatus) float64 { return float64(st.Damaged) })
	blocked := func(full bool) float64 {
		if full {
			return 1
		}
		return 0
	}
	gauge(`understudy_broker_blocked{reason="disk"}`, func(st StoreStatus) float64 { return blocked(st.DiskFull) })
	gauge(`understudy_broker_blocked{reason="memory"}`, func(st StoreStatus) float64 { return blocked(st.MemoryFull) })
	gauge("understudy_broker_epoch", func(st StoreStatus) float64 { return float64(st.Epoch) })
	gauge("understudy_broker_recovery_seconds", func(st StoreStatus) float64 { return st.Recovery.Seconds() })
	gauge("understudy_broker_recovery_records", func(st StoreStatus) float64 { return float64(st.Recovered) })
	for _, role := range []Role{Standby, Recovering, Active, Stopped} {
		gauge(`understudy_broker_role{role="`+string(role)+`"}`, func(st StoreStatus) float64 {
			if st.Role == role {
				return 1
			}
			return 0
		})
	}
}

func newJournalMetrics(set *metricSet, store string) *journal.Metrics {
	return journal.NewMetrics(set, store)
}
