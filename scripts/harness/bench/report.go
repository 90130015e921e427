package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// Span is how a figure was distributed over the rounds.
type Span struct {
	N      int     `json:"n"`
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

// Bar is what a figure should be.
type Bar struct {
	Want string `json:"want"`
	Met  bool   `json:"met"`
}

// Line is one figure of one load against one peer by one way. Ratios are medians of the ratios of single rounds; nil where there is nothing to
// compare with.
type Line struct {
	Case      string   `json:"case"`
	Peer      string   `json:"peer"`
	Via       Via      `json:"via"`
	Measure   string   `json:"measure"`
	Figure    float64  `json:"figure"` // median of the rounds
	Unit      string   `json:"unit"`
	ToDirect  *float64 `json:"ratio_to_direct"`
	ToHAProxy *float64 `json:"ratio_to_haproxy"`
	Rounds    Span     `json:"rounds"`
	Bar       *Bar     `json:"bar,omitempty"`
	With      string   `json:"compared_with"`
	Setting   string   `json:"setting,omitempty"`
	About
}

// About is the same for all lines of a run.
type About struct {
	Go       string `json:"go"`
	HAProxy  string `json:"haproxy,omitempty"`
	CPUs     int    `json:"cpus"`
	LoadFrom string `json:"load_average_before"`
	LoadTo   string `json:"load_average_after"`
	Data     string `json:"broker_data_on"`
	Date     string `json:"date"`
}

// measure is one of the figures of a sample.
type measure struct {
	name, unit string
	of         func(sample) float64
	loads      []string
	proxied    bool // there is none without a proxy
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

var bulks = []string{bulkSend, bulkDeliver, batchedSend, batchedDeliver}

var measures = []measure{
	{"throughput", "frames/s", sample.rate, bulks, false},
	{"rate", "frames/s", sample.rate, []string{pingPong}, false},
	{"latency p50", "µs", func(s sample) float64 { return micros(s.p50) }, []string{pingPong}, false},
	{"latency p99", "µs", func(s sample) float64 { return micros(s.p99) }, []string{pingPong}, false},
	{"cpu", "µs/frame", func(s sample) float64 { return micros(s.cpu.user+s.cpu.system) / float64(s.frames) }, Cases(), true},
	{"cpu user", "µs/frame", func(s sample) float64 { return micros(s.cpu.user) / float64(s.frames) }, Cases(), true},
	{"cpu system", "µs/frame", func(s sample) float64 { return micros(s.cpu.system) / float64(s.frames) }, Cases(), true},
}

// bar is what a measure of the sidecar has to be in comparison with haproxy.
type bar struct {
	loads   []string
	measure string
	factor  float64
	atLeast bool
}

var bars = []bar{
	{bulks, "throughput", 1.0, true},
	{bulks, "cpu", 0.8, false},
	{[]string{pingPong}, "rate", 0.8, true},
	{[]string{pingPong}, "latency p99", 1.2, false},
}

// idleBar is the most that an idle subscribed client may take.
const idleBar = 12 << 10

// lines makes the report of the rounds.
func (w *field) lines() []Line {
	var all []Line
	for _, load := range w.opt.Cases {
		for _, p := range w.peers {
			for _, m := range measures {
				for _, via := range ways {
					if slices.Contains(m.loads, load) && (via != Direct || !m.proxied) {
						all = append(all, w.line(key{load, p.name, via}, m))
					}
				}
			}
		}
	}
	return all
}

func (w *field) line(k key, m measure) Line {
	l := Line{Case: k.load, Peer: k.peer, Via: k.via, Measure: m.name, Unit: m.unit, With: "direct, haproxy", Setting: w.setting(k.load)}
	own := w.figures(k, m)
	l.Rounds = spanOf(own)
	l.Figure = l.Rounds.Median
	if k.via != Direct && !m.proxied {
		l.ToDirect = ratio(own, w.figures(key{k.load, k.peer, Direct}, m))
	}
	if k.via == Sidecar {
		l.ToHAProxy = ratio(own, w.figures(key{k.load, k.peer, HAProxy}, m))
		l.judge()
	}
	return l
}

func (w *field) setting(load string) string {
	switch load {
	case pingPong:
		return fmt.Sprintf("1 connection, 1 SEND at a time, %d octets", bodyBytes)
	case batchedSend, batchedDeliver:
		return fmt.Sprintf("%d connections, window %d, %d octets, up to %d frames in a client's write", w.opt.Connections, window, bodyBytes, batch)
	}
	return fmt.Sprintf("%d connections, window %d, %d octets, every frame in a write of its own by the client", w.opt.Connections, window, bodyBytes)
}

func (w *field) figures(k key, m measure) []float64 {
	var f []float64
	for _, s := range w.sample[k] {
		f = append(f, m.of(s))
	}
	return f
}

func (l *Line) judge() {
	for _, b := range bars {
		if b.measure != l.Measure || !slices.Contains(b.loads, l.Case) || l.ToHAProxy == nil {
			continue
		}
		if b.atLeast {
			l.Bar = &Bar{fmt.Sprintf("at least %.1f × haproxy", b.factor), *l.ToHAProxy >= b.factor}
		} else {
			l.Bar = &Bar{fmt.Sprintf("at most %.1f × haproxy", b.factor), *l.ToHAProxy <= b.factor}
		}
	}
}

func spanOf(f []float64) Span {
	s := slices.Sorted(slices.Values(f))
	return Span{len(s), s[0], median(s), s[len(s)-1]}
}

func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// ratio is the median of the ratios round by round; nil if one cannot be told, because the clock of CPU time did not tick in a round.
func ratio(a, b []float64) *float64 {
	var r []float64
	for i := range min(len(a), len(b)) {
		if b[i] == 0 {
			return nil
		}
		r = append(r, a[i]/b[i])
	}
	if len(r) == 0 {
		return nil
	}
	slices.Sort(r)
	m := median(r)
	return &m
}

// spread is the median and the greatest.
func spread(d []time.Duration) (half, all time.Duration) {
	slices.Sort(d)
	return d[len(d)/2], d[len(d)-1]
}

func once(name string, via Via, measure string, figure float64, unit, setting string) Line {
	return Line{Case: name, Peer: pairedBroker, Via: via, Measure: measure, Figure: figure, Unit: unit, Setting: setting,
		Rounds: Span{1, figure, figure, figure}, With: "nothing"}
}

// Lines are those of idle clients; the two ways are compared.
func idleLines(via Via, r Idle) []Line {
	setting := fmt.Sprintf("%d clients, %d processes", r.Clients, r.Proxies)
	memory := once("idle", via, "memory", r.Bytes/1024, "KiB/client", setting)
	if via == Sidecar {
		memory.Bar = &Bar{fmt.Sprintf("at most %d KiB", idleBar>>10), r.Bytes <= idleBar}
	}
	return []Line{memory, once("idle", via, "cpu", r.Cores, "cores", setting)}
}

func heldLines(r Held) []Line {
	setting := fmt.Sprintf("%d clients, %d processes, %d unacked messages", r.Clients, r.Proxies, r.Unacked)
	line := func(measure string, figure float64, unit string) Line {
		return once("held", Sidecar, measure, figure, unit, setting)
	}
	return []Line{
		line("memory before", r.Before/1024, "KiB/client"),
		line("memory held", r.Held/1024, "KiB/client"),
		line("cpu held", r.Cores, "cores"),
		line("parked after kill", r.Parked.Seconds(), "s"),
		line("broker serves after start", r.Served.Seconds(), "s"),
		line("half are back after", r.Half.Seconds(), "s"),
		line("all are back after", r.All.Seconds(), "s"),
	}
}

// WriteJSON prints one object for each line.
func WriteJSON[L any](out io.Writer, lines []L) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	for _, l := range lines {
		if err := e.Encode(l); err != nil {
			return fmt.Errorf("print the report: %w", err)
		}
	}
	return nil
}

// WriteTable prints the report for people.
func WriteTable(out io.Writer, about About, lines []Line) error {
	fmt.Fprintf(out, "%s, haproxy %s, %d CPUs, load average %s before and %s after, broker's data on %s\n\n", about.Go, about.HAProxy, about.CPUs, about.LoadFrom, about.LoadTo, about.Data)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "case\tpeer\tmeasure\tvia\tfigure\tunit\tmin … max\t× direct\t× haproxy\tbar")
	was := ""
	for _, l := range lines {
		name := l.Case + "\t" + l.Peer + "\t" + l.Measure
		if name == was {
			name = "\t\t"
		} else {
			was = name
		}
		bar := ""
		if l.Bar != nil {
			bar = map[bool]string{true: "met", false: "MISSED"}[l.Bar.Met] + ": " + l.Bar.Want
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s … %s\t%s\t%s\t%s\n", name, l.Via, short(l.Figure), l.Unit, short(l.Rounds.Min), short(l.Rounds.Max), times(l.ToDirect), times(l.ToHAProxy), bar)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	return writeSettings(out, lines, func(l Line) string { return l.Case + ": " + l.Setting })
}

func times(r *float64) string {
	if r == nil {
		return ""
	}
	return fmt.Sprintf("%.2f", *r)
}

func short(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

// Judged is a line that may have a bar.
type Judged interface{ judged() *Bar }

func (l Line) judged() *Bar { return l.Bar }

// Missed counts the bars that were not met.
func Missed[L Judged](lines []L) (missed, of int) {
	for _, l := range lines {
		if b := l.judged(); b != nil {
			of++
			if !b.Met {
				missed++
			}
		}
	}
	return missed, of
}
