package journal

import (
	"fmt"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Metrics are the counters of one store. A nil *Metrics counts nothing.
type Metrics struct {
	fsync                   *metrics.Histogram
	batches, records, bytes *metrics.Counter
	cuts, deleted           *metrics.Counter
	segments, disk, epoch   *metrics.Gauge
	live                    *metrics.Gauge
	emptied, emptiedBytes   *metrics.Counter
	noSpace                 *metrics.Gauge
	selfTest                func(p50, p99 time.Duration) // registers its gauges when there is something to show
}

// NewMetrics registers the metrics of the store with that name (a label) in set. The same name gives the same metrics again, so that a store
// can come and go.
func NewMetrics(set *metrics.Set, store string) *Metrics {
	name := func(s string) string { return fmt.Sprintf("understudy_journal_%s{store=%q}", s, store) }
	return &Metrics{
		selfTest: func(p50, p99 time.Duration) {
			for q, took := range map[string]time.Duration{"0.5": p50, "0.99": p99} {
				set.GetOrCreateGauge(fmt.Sprintf("understudy_journal_self_test_seconds{store=%q,quantile=%q}", store, q), nil).Set(took.Seconds())
			}
		},
		fsync:    set.GetOrCreateHistogram(name("fsync_seconds")),
		batches:  set.GetOrCreateCounter(name("batches_total")),
		records:  set.GetOrCreateCounter(name("records_total")),
		bytes:    set.GetOrCreateCounter(name("written_bytes_total")),
		cuts:     set.GetOrCreateCounter(name("torn_tails_total")),
		deleted:  set.GetOrCreateCounter(name("segments_deleted_total")),
		segments: set.GetOrCreateGauge(name("segments"), nil),
		disk:     set.GetOrCreateGauge(name("disk_bytes"), nil),
		epoch:    set.GetOrCreateGauge(name("epoch"), nil),
		live:     set.GetOrCreateGauge(name("live_bytes"), nil),
		noSpace:  set.GetOrCreateGauge(name("disk_full"), nil),

		emptied:      set.GetOrCreateCounter(name("segments_evacuated_total")),
		emptiedBytes: set.GetOrCreateCounter(name("evacuated_bytes_total")),
	}
}

func (m *Metrics) batch(sync time.Duration, records, bytes int) {
	if m == nil {
		return
	}
	m.fsync.Update(sync.Seconds())
	m.batches.Inc()
	m.records.Add(records)
	m.bytes.Add(bytes)
}

func (m *Metrics) flushes(p50, p99 time.Duration) {
	if m != nil {
		m.selfTest(p50, p99)
	}
}

func (m *Metrics) evacuated(bytes int64) {
	if m != nil {
		m.emptied.Inc()
		m.emptiedBytes.Add(int(bytes))
	}
}

func (m *Metrics) full(yes bool) {
	if m == nil {
		return
	}
	m.noSpace.Set(0)
	if yes {
		m.noSpace.Set(1)
	}
}

func (m *Metrics) alive(bytes int64) {
	if m != nil {
		m.live.Set(float64(bytes))
	}
}

func (m *Metrics) cut() {
	if m != nil {
		m.cuts.Inc()
	}
}

// state publishes what a store holds; all zeros once it is closed.
func (m *Metrics) state(epoch uint64, segments int, disk int64, deleted int) {
	if m == nil {
		return
	}
	m.epoch.Set(float64(epoch))
	m.segments.Set(float64(segments))
	m.disk.Set(float64(disk))
	m.deleted.Add(deleted)
}

// Stats is a look at a running journal.
type Stats struct {
	Epoch     uint64
	Durable   LSN    // the last record that may be acknowledged
	Recovered uint64 // records that Open visited
	Copied    uint64 // of those, before the lock was won
	Cold      string // why none were, if none were
	Batches   uint64 // written by this owner, as the next three
	Records   uint64
	Bytes     uint64
	Segments  int   // that the log needs now
	DiskBytes int64 // of all segment files: those, prepared ones, and those that are about to be removed
	LiveBytes int64 // of what is live, as Account.Bytes tells
	Prepared  int   // segments that are ready to begin
	Full      bool  // there is no space for more of them
	Deleted   uint64
	// Evacuated counts segments that went because the caller emptied them, EvacuatedBytes the octets of their files.
	Evacuated, EvacuatedBytes uint64
	CutBytes                  int64 // of a torn tail, that Open moved to quarantine
}

// Stats may be called at any time.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.stats
	s.Epoch, s.Durable = j.epoch, LSN(j.durable.Load())
	s.Prepared, s.Full = len(j.jan.spares), j.jan.full
	s.Segments, s.DiskBytes, s.LiveBytes = len(j.ledger.list), j.diskBytes(), j.ledger.bytes
	return s
}

// show publishes what a store holds now, where that changed. The caller holds mu.
func (j *Journal) show() {
	j.opt.Metrics.alive(j.ledger.bytes)
	if disk := j.diskBytes(); j.stats.DiskBytes != disk || j.shown != j.stats.Deleted {
		j.opt.Metrics.state(j.epoch, len(j.ledger.list), disk, int(j.stats.Deleted-j.shown))
		j.stats.DiskBytes, j.shown = disk, j.stats.Deleted
	}
}

// diskBytes adds up the files of segments. The caller holds mu.
func (j *Journal) diskBytes() (sum int64) {
	for _, a := range j.ledger.list {
		if a.closed {
			sum += a.files()
		} else {
			sum += max(j.cur.off, j.cur.size)
		}
	}
	return sum + j.otherBytes()
}
