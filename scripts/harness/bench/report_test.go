package bench

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	got, err := parseStat([]byte("42 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 75 0 0 20 0 5\n"))
	if want := (cpuTime{2500 * time.Millisecond, 750 * time.Millisecond}); err != nil || got != want {
		t.Fatalf("got %v, %v, want %v", got, err, want)
	}
	if _, err := parseStat([]byte("42 (a) S 1")); err == nil {
		t.Fatal("no error for a line that is cut off")
	}
}

func TestParseRSS(t *testing.T) {
	if got, err := parseRSS([]byte("Name:\tx\nVmHWM:\t   99 kB\nVmRSS:\t   12 kB\nRssAnon:\t 4 kB\n")); err != nil || got != 12<<10 {
		t.Fatalf("got %d, %v", got, err)
	}
	if _, err := parseRSS([]byte("Name:\tx\n")); err == nil {
		t.Fatal("no error without VmRSS")
	}
}

// A ratio is of figures of the same round: a machine that was slow in one round must not show in it.
func TestRatioIsRoundByRound(t *testing.T) {
	if r := ratio([]float64{50, 100, 10}, []float64{100, 200, 20}); r == nil || *r != 0.5 {
		t.Fatalf("got %v, want 0.5", r)
	}
	if r := ratio([]float64{1}, []float64{0}); r != nil {
		t.Fatalf("got %v for a division by nothing", *r)
	}
}

func TestSpan(t *testing.T) {
	if got, want := spanOf([]float64{4, 1, 3, 2}), (Span{4, 1, 2.5, 4}); got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// rounds makes a field in which the sidecar is so many times haproxy.
func rounds(throughput, cpu float64) *field {
	w := &field{opt: Options{Cases: Cases(), Connections: 1}, peers: []*peer{{name: unknownPeer}}, sample: map[key][]sample{}}
	for _, load := range Cases() {
		for via, f := range map[Via][2]float64{Direct: {1, 0}, HAProxy: {1, 1}, Sidecar: {throughput, cpu}} {
			s := sample{frames: int(1000 * f[0]), took: time.Second, p99: time.Duration(float64(time.Millisecond) / f[0])}
			s.cpu = cpuTime{user: time.Duration(f[1] * float64(s.frames) * float64(time.Microsecond))}
			w.sample[key{load, unknownPeer, via}] = []sample{s}
		}
	}
	return w
}

func TestBars(t *testing.T) {
	for _, c := range []struct {
		name            string
		throughput, cpu float64
		missed          []string
	}{
		{"all met", 1, 0.8, nil},
		{"slower in bulk", 0.99, 0.8, []string{"throughput"}},
		{"too much CPU time", 1, 0.81, []string{"cpu"}},
		{"slow", 0.79, 0.5, []string{"latency p99", "rate", "throughput"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines := rounds(c.throughput, c.cpu).lines()
			var missed []string
			for _, l := range lines {
				if l.Bar != nil && !l.Bar.Met && !slices.Contains(missed, l.Measure) {
					missed = append(missed, l.Measure)
				}
			}
			slices.Sort(missed)
			if !slices.Equal(missed, c.missed) {
				t.Fatalf("missed %v, want %v", missed, c.missed)
			}
			if n, of := Missed(lines); of != 10 || (n == 0) != (c.missed == nil) { // 2 for each bulk load, 2 for ping-pong
				t.Fatalf("%d of %d bars missed", n, of)
			}
		})
	}
}

func TestIdleBar(t *testing.T) {
	for bytes, met := range map[float64]bool{idleBar: true, idleBar + 1: false} {
		if l := idleLines(Sidecar, Idle{Clients: 1, Bytes: bytes}); l[0].Bar == nil || l[0].Bar.Met != met {
			t.Errorf("%v octets: %v", bytes, l[0].Bar)
		}
	}
	if l := idleLines(HAProxy, Idle{Clients: 1}); l[0].Bar != nil {
		t.Error("a bar for haproxy")
	}
}

func TestJSONHasALineForEachFigure(t *testing.T) {
	lines := rounds(1, 1).lines()
	for i := range lines {
		lines[i].About = About{Go: "go1", HAProxy: "2"}
	}
	var out strings.Builder
	if err := WriteJSON(&out, lines); err != nil {
		t.Fatal(err)
	}
	n := 0
	for text := range strings.Lines(out.String()) {
		n++
		var l map[string]any
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		for _, name := range []string{"case", "via", "figure", "unit", "ratio_to_direct", "ratio_to_haproxy", "rounds", "compared_with", "go", "haproxy"} {
			if _, ok := l[name]; !ok {
				t.Fatalf("%q lacks %s", text, name)
			}
		}
	}
	if n != len(lines) || n == 0 {
		t.Fatalf("%d lines for %d figures", n, len(lines))
	}
}

func TestNoHAProxyIsSaid(t *testing.T) {
	defer func(was []string) { outsidePath = was }(outsidePath)
	outsidePath = nil
	t.Setenv("PATH", t.TempDir())
	if _, err := HAProxyVersion(t.Context()); !errors.Is(err, ErrNoHAProxy) || !strings.Contains(err.Error(), "scripts/bench --install") {
		t.Fatalf("error %v does not say what to do", err)
	}
}
