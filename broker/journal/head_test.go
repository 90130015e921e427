package journal

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/VictoriaMetrics/metrics"
)

// Each segment begins with the head, and older heads go with their segments.
func TestHead(t *testing.T) {
	dir := t.TempDir()
	calls := 0
	opt := Options{SegmentBytes: 8 << 10, Head: func() []Entry {
		calls++
		return []Entry{{Type: 2, Payload: fmt.Appendf(nil, "snapshot %d", calls)}, {Type: 2, Payload: []byte("second")}}
	}}
	s := mustOpen(t, dir, opt, nil)
	if calls != 1 {
		t.Fatalf("Open called Head %d times", calls)
	}
	var last LSN
	segs := map[Segment]bool{}
	for i := range 100 {
		lsn, seg := s.add(fmt.Sprintf("%d %0500d", i, i), Account{})
		segs[seg] = true
		last = lsn
	}
	s.durable(last)
	s.idle()
	if len(segs) < 5 || calls != len(segs) {
		t.Fatalf("%d segments, %d heads", len(segs), calls)
	}
	if st := s.Stats(); st.Segments != 1 || st.Deleted != uint64(len(segs)-1) || st.Durable < last {
		t.Errorf("%+v", st)
	}
	s.Close()
	var got []string
	opt.Head = nil
	mustOpen(t, dir, opt, func(r Record) (Account, error) {
		if r.Type == 2 {
			got = append(got, string(r.Payload))
		}
		return Account{}, nil
	})
	if want := []string{fmt.Sprint("snapshot ", calls), "second"}; !slices.Equal(got, want) {
		t.Errorf("heads %q, want %q", got, want)
	}
}

// The head of a segment may show the effect of the record that started the segment already. So a crash between the two must lose both: here the
// disk keeps every prefix of that batch, and recovery must never return the snapshot without the record.
func TestHeadAndItsRecordAreOne(t *testing.T) {
	dir := t.TempDir()
	im := &stored{dir: dir, segment: 16 << 10}
	var armed atomic.Bool
	applied := 0
	opt := Options{SegmentBytes: im.segment, Head: func() []Entry {
		return []Entry{{Type: 2, Payload: fmt.Appendf(nil, "cursor %d %s", applied, strings.Repeat("s", 700))}}
	}}
	opt.before = func(o op) error {
		if armed.Load() && o.kind == opSync && o.name == (place{1, 2}).name() {
			return errInjected
		}
		return nil
	}
	s := mustOpen(t, dir, opt, nil)
	var lsn LSN
	for applied < 8 {
		applied++ // before the append, as a caller may
		lsn, _ = s.add(fmt.Sprintf("effect %d %s", applied, strings.Repeat("e", 600)), Account{Live: 1})
	}
	s.durable(lsn)
	s.idle()
	armed.Store(true)
	var started string
	for seg := s.cur.id; seg == 1; {
		applied++
		started = fmt.Sprintf("effect %d %s", applied, strings.Repeat("e", 600))
		_, seg = s.add(started, Account{Live: 1})
	}
	s.until("failure", func() bool { return len(s.failed) > 0 })
	s.Close()
	size := im.size(place{1, 2}.name())
	if s.acked < lsn || size == 0 {
		t.Fatalf("acknowledged %d, %d octets in the second segment", s.acked, size)
	}
	outcomes := map[bool]int{}
	for at := int64(0); at < 7<<10; at += 61 {
		dir := im.copy(t)
		im.overwrite(t, dir, place{1, 2}.name(), at, make([]byte, size-at))
		cursor, effects := 0, 0
		j, err := reopen(t, dir, Options{SegmentBytes: im.segment}, func(r Record) (Account, error) {
			if r.Type == 2 {
				fmt.Sscanf(string(r.Payload), "cursor %d", &cursor)
			} else {
				effects++
			}
			return Account{Live: 1}, nil
		})
		if err != nil {
			t.Fatalf("cut at %d: %v", at, err)
		}
		j.Close()
		outcomes[effects == applied]++
		if cursor > effects {
			t.Fatalf("cut at %d: the snapshot says %d, there are %d effects", at, cursor, effects)
		}
	}
	if len(outcomes) != 2 {
		t.Errorf("both outcomes should occur: %v", outcomes)
	}
}

// Records and heads that are larger than a segment get a segment that is larger.
func TestOversize(t *testing.T) {
	dir := t.TempDir()
	opt := Options{SegmentBytes: 8 << 10, MaxRecord: 6 << 20, Head: func() []Entry {
		return []Entry{{Type: 2, Payload: make([]byte, 20<<10)}}
	}}
	s := mustOpen(t, dir, opt, nil)
	var want []int
	var last LSN
	for i := range 30 {
		n := []int{10, 9 << 10, 30 << 10, 0, 5 << 20}[i%5]
		at, err := s.Append(Entry{Type: 1, Payload: make([]byte, n), Account: Account{Live: 1}})
		if err != nil {
			t.Fatal(err)
		}
		want, last = append(want, n), at.LSN
	}
	s.durable(last)
	if n := s.Stats().Segments; n > 28 {
		t.Errorf("%d segments for %d records", n, len(want))
	}
	s.Close()
	var got []int
	mustOpen(t, dir, opt, func(r Record) (Account, error) {
		if r.Type == 1 {
			got = append(got, len(r.Payload))
		}
		return Account{}, nil
	})
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	opt.Head = func() []Entry { return []Entry{{Type: 2, Payload: make([]byte, maxPayload+1)}} }
	if _, err := Open(t.Context(), t.TempDir(), opt, nil); !errors.Is(err, ErrTooBig) {
		t.Errorf("head beyond all limits: %v", err)
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	for _, front := range []int{0, 100} {
		s := mustOpen(t, t.TempDir(), Options{}, nil)
		e := Entry{Type: 1, Payload: make([]byte, 1000), Front: front, Account: Account{Live: 1, Ends: []Ending{{Segment: 1}}}}
		s.Append(e)
		n := testing.AllocsPerRun(2000, func() {
			if _, err := s.Append(e); err != nil {
				t.Fatal(err)
			}
		})
		if n > 0 {
			t.Errorf("%v allocations in each append with a front of %d octets", n, front)
		}
	}
}

func TestMetrics(t *testing.T) {
	set := metrics.NewSet()
	s := mustOpen(t, t.TempDir(), Options{SegmentBytes: 8 << 10, Metrics: NewMetrics(set, "orders")}, nil)
	for i := range 40 {
		lsn, _ := s.add(fmt.Sprintf("%0500d", i), Account{})
		s.durable(lsn)
	}
	s.idle()
	var b strings.Builder
	set.WritePrometheus(&b)
	for _, want := range []string{
		`understudy_journal_epoch{store="orders"} 1`, `understudy_journal_segments{store="orders"} 1`,
		fmt.Sprintf(`understudy_journal_disk_bytes{store="orders"} %d`, s.Stats().DiskBytes), `understudy_journal_torn_tails_total{store="orders"} 0`,
		fmt.Sprintf(`understudy_journal_records_total{store="orders"} %d`, s.Stats().Records),
		fmt.Sprintf(`understudy_journal_fsync_seconds_count{store="orders"} %d`, s.Stats().Batches),
		fmt.Sprintf(`understudy_journal_segments_deleted_total{store="orders"} %d`, s.Stats().Deleted),
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
	s.Close()
	b.Reset()
	set.WritePrometheus(&b)
	if !strings.Contains(b.String(), `understudy_journal_segments{store="orders"} 0`) {
		t.Errorf("a closed journal shows segments:\n%s", b.String())
	}
	NewMetrics(set, "orders") // a store may come back
}
