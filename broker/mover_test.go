package broker

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

var pinnedRounds = flag.Int("pinned.rounds", 0, "how often TestPinnedMessageDoesNotPinTheDisk fills and drains its backlog; 0: 4, with -short 2")

// A backlog of ten times the memory comes and goes, again and again, while somebody holds the first message of all, and some of each round stay for the next.
// The disk has no more than twice what is live and four segments, whenever one looks; on a machine that is busy with other things the mover may come a moment
// late.
func TestPinnedMessageDoesNotPinTheDisk(t *testing.T) {
	const budget, segment = 4 << 20, 4 << 20
	rounds := 4
	if testing.Short() {
		rounds = 2
	}
	if *pinnedRounds > 0 {
		rounds = *pinnedRounds
	}
	small := func(c *Config) { c.MaxMemory, c.SegmentBytes, c.Prefetch = budget, segment, 500 }
	s := serving(t, small)
	c := s.connected("1.2")
	c.sent("/queue/pin", "pinned")
	holder := s.subscriber("/queue/pin", "client")
	holder.message("pinned")

	w := watchDisk(s, segment)
	const n = 10 * budget >> 10
	body := strings.Repeat("x", 1000)
	began := time.Now()
	for round := range rounds {
		for i := range n {
			dest := "/queue/a"
			if i%50 == 0 {
				dest = "/queue/stays"
			}
			if c.send("SEND", "destination:"+dest, "="+body); i%500 == 499 {
				c.sent("/queue/b", "confirmed")
			}
		}
		drain(s, "/queue/a", n-(n+49)/50, "client")
		drain(s, "/queue/b", n/500, "auto")
		if round%2 == 1 {
			drain(s, "/queue/stays", 2*((n+49)/50), "client-individual")
		}
	}
	took := time.Since(began)
	t.Logf("%d rounds of %d messages in %v", rounds, n, took.Round(time.Millisecond))
	eventually(t, "the disk has what it may have", func() bool {
		st := w.log.Stats()
		return st.DiskBytes <= 2*st.LiveBytes+4*segment
	})
	w.end(t, *pinnedRounds > 0)
	holder.leave()
	s = s.restart(small)
	s.subscriber("/queue/pin", "client").message("pinned")
}

// drain consumes n messages.
func drain(s *testServer, dest string, n int, mode string) {
	s.t.Helper()
	c := s.subscriber(dest, mode)
	for i := range n {
		r := c.expect("MESSAGE")
		if mode == "client-individual" || mode == "client" && (i%100 == 99 || i == n-1) {
			c.send("ACK", "id:"+r.headers["ack"])
		}
	}
	c.send("DISCONNECT", "receipt:end")
	c.expect("RECEIPT")
}

// late is how long the disk may be beyond its bound: from the acknowledgement to the removal of the file. Where nobody asked for a measurement the machine may
// be busy with other things, and it is enough that it is mostly within.
const late = 250 * time.Millisecond

// diskWatch looks at what a journal takes all the time.
type diskWatch struct {
	s       *testServer
	log     *journal.Journal
	segment int64
	quit    chan struct{}
	done    sync.WaitGroup

	samples, above int
	since          time.Time     // when it was above the bound first, of late
	longest        time.Duration // that it was
	most           int64         // above twice what is live, in octets
	mostDisk       int64
	files          int64 // the same, of the files in the directory
	last           journal.Stats
}

func watchDisk(s *testServer, segment int64) *diskWatch {
	w := &diskWatch{s: s, log: s.hold().journal, segment: segment, quit: make(chan struct{})}
	w.done.Go(func() {
		for {
			select {
			case <-w.quit:
				return
			case <-time.After(5 * time.Millisecond):
			}
			w.look()
		}
	})
	return w
}

func (w *diskWatch) look() {
	st := w.log.Stats()
	w.samples++
	w.last = st
	over := st.DiskBytes - 2*st.LiveBytes
	w.most = max(w.most, over)
	switch {
	case over <= 4*w.segment:
		w.since = time.Time{}
	case w.since.IsZero():
		w.since = time.Now()
		fallthrough
	default:
		w.above++
		w.longest = max(w.longest, time.Since(w.since))
	}
	w.mostDisk = max(w.mostDisk, st.DiskBytes)
	if w.samples%10 != 0 {
		return
	}
	sum := int64(0)
	names, _ := filepath.Glob(filepath.Join(w.s.cfg.Stores[0].Dir, "seg-*.log"))
	for _, name := range names {
		if info, err := os.Stat(name); err == nil { // it may have gone meanwhile
			sum += info.Size()
		}
	}
	w.files = max(w.files, sum-2*st.LiveBytes)
}

func (w *diskWatch) end(t *testing.T, strict bool) {
	t.Helper()
	close(w.quit)
	w.done.Wait()
	unit := float64(w.segment)
	t.Logf("%d samples: disk at most %.1f segments; beyond twice what is live at most %.2f (files: %.2f), more than 4 in %d samples, for %v at most; "+
		"%d segments emptied, %d deleted", w.samples, float64(w.mostDisk)/unit, float64(w.most)/unit, float64(w.files)/unit, w.above, w.longest,
		w.last.Evacuated, w.last.Deleted)
	if strict && w.longest > late || w.above > w.samples/4 {
		t.Errorf("it was above twice what is live and four segments for %v", w.longest)
	}
	if w.last.Evacuated == 0 {
		t.Error("no segment was emptied")
	}
}
