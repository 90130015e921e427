package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// built is the program under test, built once.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

func build(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "understudy-test-"); built.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-o", filepath.Join(built.dir, "understudy"), "../../understudy").CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "understudy")
}

// play runs a demo with real processes and returns its result; the timeline is shown when the test fails.
func play(t *testing.T, cfg Config) (*Result, string) {
	t.Helper()
	var out bytes.Buffer
	cfg.Binary, cfg.Out, cfg.Logger, cfg.Seed, cfg.JSON = build(t), &out, slog.New(slog.DiscardHandler), 1, true
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(out.String())
		}
	})
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err, out.String())
	}
	return r, out.String()
}

// The scenario itself: brokers are killed under load, and the clients notice nothing.
func TestDemo(t *testing.T) {
	r, out := play(t, Config{Kills: 3, Interval: 300 * time.Millisecond, Receipts: true})
	if !r.Clean() || r.Verdict != "clean" || r.Kills != 3 || r.Epoch != 4 {
		t.Errorf("%+v", r)
	}
	if r.InFlight.Sends < 3 || r.InFlight.Unacked < 3 || r.Resends == 0 || r.RedeliveriesHidden == 0 || r.Sent < 100 || r.Silence.P50 <= 0 {
		t.Errorf("the kills hit nothing: %+v", r)
	}
	if r.Silence.Max > 5000 {
		t.Errorf("clients were silent for %v ms", r.Silence.Max)
	}
	var again Result
	last := out[strings.LastIndexByte(strings.TrimRight(out, "\n"), '\n')+1:]
	if err := json.Unmarshal([]byte(last), &again); err != nil || again.Sent != r.Sent || again.Verdict != "clean" {
		t.Errorf("the last line is no result: %q %v", last, err)
	}
	for _, want := range []string{"KILL ", "ACTIVE", "HEARD", "BACK", "VERDICT: CLEAN. lost 0, duplicated 0, reordered 0"} {
		if !strings.Contains(out, want) {
			t.Errorf("the timeline has no %s", want)
		}
	}
}

// What clients can do differently, each under a fault.
func TestDemoVariations(t *testing.T) {
	for name, cfg := range map[string]Config{
		"cumulative":         {Ack: "client", Receipts: true},
		"automatic":          {Ack: "auto", Receipts: true},
		"fire and forget":    {},
		"transactions":       {Transactions: true, Receipts: true},
		"reset":              {Fault: FaultReset, Receipts: true},
		"transactions,reset": {Fault: FaultReset, Transactions: true, Ack: "client"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Kills, cfg.Interval = 2, 200*time.Millisecond
			if r, _ := play(t, cfg); !r.Clean() || r.Kills != 2 || r.InFlight.Sends == 0 || r.InFlight.Unacked == 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// The number of messages is kept to, with the kills spread over them.
func TestDemoCountsMessages(t *testing.T) {
	if r, _ := play(t, Config{Messages: 3003, Kills: 2, Receipts: true}); !r.Clean() || r.Sent != 3003 || r.Received != 3003 || r.Kills != 2 {
		t.Errorf("%+v", r)
	}
}

// The negative control: without the sidecar the same clients fail, or the demo would prove nothing.
func TestDemoDirect(t *testing.T) {
	r, out := play(t, Config{Kills: 2, Interval: 200 * time.Millisecond, Receipts: true, Direct: true})
	if r.Clean() || r.Verdict != "failed" || r.ClientsReconnected < 8 || !strings.Contains(out, "lost its connection") || !strings.Contains(out, "never confirmed") {
		t.Errorf("%+v", r)
	}
}
