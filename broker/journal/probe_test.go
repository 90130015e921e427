package journal

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// logBuffer is what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) wait(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !strings.Contains(l.String(), want); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in the log: %s", want, l)
		}
	}
}

func leftovers(t *testing.T, dir string) []string {
	list, err := filepath.Glob(filepath.Join(dir, probePrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A store whose lock is free is served first and its disk tested beside that; one that is waited for has its disk tested meanwhile.
func TestSelfTest(t *testing.T) {
	dir := t.TempDir()
	set := metrics.NewSet()
	var log logBuffer
	options := func(log *logBuffer) Options {
		return Options{SegmentBytes: 8 << 10, Logger: slog.New(slog.NewTextHandler(log, nil)), Metrics: NewMetrics(set, "orders")}
	}
	stale := filepath.Join(dir, probePrefix+"crashed")
	if err := os.WriteFile(stale, make([]byte, pageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(stale, time.Time{}, time.Now().Add(-2*probeStale)); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir, options(&log), nil)
	log.wait(t, "rounds=")
	var b strings.Builder
	set.WritePrometheus(&b)
	for _, q := range []string{"0.5", "0.99"} {
		if !strings.Contains(b.String(), `understudy_journal_self_test_seconds{store="orders",quantile="`+q+`"} `) {
			t.Errorf("no %s in\n%s", q, b.String())
		}
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}

	var second logBuffer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := Open(ctx, dir, options(&second), nil)
		done <- err
	}()
	second.wait(t, "rounds=")
	cancel()
	if err := <-done; err == nil {
		t.Error("there were two owners")
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	s.Close()

	var third logBuffer
	opt := options(&third)
	opt.Tested = true
	s = mustOpen(t, dir, opt, nil)
	p := s.opt.flush
	p.mu.Lock()
	runs := p.busy
	p.mu.Unlock()
	if s.Close(); runs || strings.Contains(third.String(), "rounds=") {
		t.Error("the disk is tested again")
	}
}

// The test is over soon after somebody needs the disk, and its file is gone, however it ends.
func TestSelfTestEnds(t *testing.T) {
	dir := t.TempDir()
	for range 20 {
		var log logBuffer
		p := newProbe(dir, slog.New(slog.NewTextHandler(&log, nil)), nil)
		p.start()
		p.pause()
		p.start()
		p.end()
		p.start()
		if left := leftovers(t, dir); len(left) > 0 {
			t.Fatalf("left: %v", left)
		}
	}
	p := newProbe(filepath.Join(dir, "nowhere"), slog.New(slog.DiscardHandler), nil)
	var log logBuffer
	p.log = slog.New(slog.NewTextHandler(&log, nil))
	p.start()
	log.wait(t, "level=WARN")
	p.end()
}

// A median that no disk can have is told as what it is.
func TestSelfTestTellsMemoryFromDisk(t *testing.T) {
	for median, want := range map[time.Duration]string{flushesFloor - 1: "does not flush", flushesFloor: "time to flush a page"} {
		var log logBuffer
		p := newProbe(t.TempDir(), slog.New(slog.NewTextHandler(&log, nil)), nil)
		took := make([]time.Duration, 50)
		for i := range took {
			took[i] = median
		}
		took[7] = time.Second
		p.tell(took)
		if !strings.Contains(log.String(), want) || !strings.Contains(log.String(), "p99=1s") {
			t.Errorf("%v: %s", median, log.String())
		}
	}
}
