package demo

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// playStores runs a story with real processes and returns its result; the timeline is shown when the test fails.
func playStores(t *testing.T, cfg Config) (*StoresResult, string) {
	t.Helper()
	var out bytes.Buffer
	cfg.Binary, cfg.Out, cfg.Logger, cfg.Seed, cfg.JSON, cfg.Receipts = build(t), &out, slog.New(slog.DiscardHandler), 1, true, true
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(out.String())
		}
	})
	r, err := RunStores(t.Context(), cfg)
	if err != nil {
		t.Fatal(err, out.String())
	}
	var again StoresResult
	last := out.String()[strings.LastIndexByte(strings.TrimRight(out.String(), "\n"), '\n')+1:]
	if err := json.Unmarshal([]byte(last), &again); err != nil || again.Verdict != r.Verdict || len(again.Stores) != len(r.Stores) {
		t.Errorf("the last line is no result: %q %v", last, err)
	}
	return r, out.String()
}

// Two owners and a standby are killed down to the last one, come back, and have their stores again; one is moved by command, one server stopped.
func TestDemoStores(t *testing.T) {
	r, out := playStores(t, Config{Stores: 2, Standbys: 1, Interval: 200 * time.Millisecond, FailbackAfter: 500 * time.Millisecond, Rate: 600})
	if !r.Clean() || r.Verdict != "clean" || r.Kills != 2 || r.Stops != 1 || r.Servers != 3 || r.Order.Checked != 3 {
		t.Errorf("%+v", r)
	}
	for i, want := range []struct{ takeovers, handovers int }{{1, 3}, {1, 3}} { // home, there and back by command; home, away and back around the stop
		s := r.Stores[i]
		if s.Takeovers != want.takeovers || s.Handovers != want.handovers || s.Epoch != uint64(1+want.takeovers+want.handovers) || s.Sent < 100 || s.Silence.P50 <= 0 || s.Pause.P50 <= 0 {
			t.Errorf("%+v", s)
		}
	}
	for _, want := range []string{
		"TAKEN  store a by standby-1, which was idle", "TAKEN  store b by standby-1, the last one left", "ALONE  standby-1 is the last of 3 servers and serves store a, b",
		"HOME   store a at broker-a by itself", "by command", "STOP   broker-b (SIGTERM)", "VERDICT: CLEAN. lost 0, duplicated 0, reordered 0",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the timeline has no %q", want)
		}
	}
}

// A store is moved to and fro by command, while transactions are open.
func TestDemoHandovers(t *testing.T) {
	r, _ := playStores(t, Config{Stores: 1, Standbys: 1, Handovers: 3, Rate: 1000, Interval: 100 * time.Millisecond})
	if s := r.Stores[0]; !r.Clean() || r.Kills != 0 || s.Handovers != 6 || s.Epoch != 7 || r.InFlight.Transactions < 6 || s.Pause.P50 <= 0 || len(r.Bars) != 3 {
		t.Errorf("%+v", r)
	}
}
