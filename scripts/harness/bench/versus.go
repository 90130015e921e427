package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Versus is one figure of ours and, if there is one, the same of what it is compared with.
type Versus struct {
	Case    string `json:"case"`
	Measure string `json:"measure"`
	Unit    string `json:"unit"`
	Result
	With    string   `json:"compared_with"`
	Theirs  *Result  `json:"theirs,omitempty"`
	Ratio   *float64 `json:"ratio"` // ours to theirs: the median of the ratios of single rounds
	Bar     *Bar     `json:"bar,omitempty"`
	Setting string   `json:"setting,omitempty"`
	About
}

// Result is what one side came to.
type Result struct {
	Figure float64 `json:"figure"` // median of the rounds
	Rounds Span    `json:"rounds"`
	P50    float64 `json:"p50_us,omitempty"` // latency, median of the rounds
	P99    float64 `json:"p99_us,omitempty"`
	Out    float64 `json:"consumed_per_second,omitempty"` // by consumers, while producers produced
}

func (v Versus) judged() *Bar { return v.Bar }

// lines makes the report: for each load and contender one line.
func (w *contest) lines() []Versus {
	var all []Versus
	for _, l := range w.loads {
		own := w.sample[entry{l.name, Ours}]
		for _, c := range w.entered {
			if c.id == Ours {
				continue
			}
			theirs := w.sample[entry{l.name, c.id}]
			v := Versus{Case: l.name, Measure: "confirmed", Unit: "msgs/s", Result: resultOf(own), With: c.about, Setting: l.setting()}
			other := resultOf(theirs)
			v.Theirs, v.Ratio = &other, ratio(rates(own), rates(theirs))
			if least, is := l.bars[c.id]; is {
				v.Bar = &Bar{fmt.Sprintf("at least %.1f × %s", least, c.id), v.Ratio != nil && *v.Ratio >= least}
			}
			all = append(all, v)
		}
	}
	return all
}

func rates(s []sample) []float64 { return valuesOf(s, sample.rate) }

func valuesOf(s []sample, of func(sample) float64) []float64 {
	f := make([]float64, len(s))
	for i := range s {
		f[i] = of(s[i])
	}
	return f
}

func resultOf(s []sample) Result {
	r := Result{Rounds: spanOf(rates(s))}
	r.Figure = r.Rounds.Median
	r.P50 = spanOf(valuesOf(s, func(s sample) float64 { return micros(s.p50) })).Median
	r.P99 = spanOf(valuesOf(s, func(s sample) float64 { return micros(s.p99) })).Median
	r.Out = spanOf(valuesOf(s, func(s sample) float64 { return float64(s.out) / s.took.Seconds() })).Median
	return r
}

func (l load) setting() string {
	s := fmt.Sprintf("%d × %d outstanding, %d octets", l.producers, l.window, bodyBytes)
	if l.window > 1 {
		s += fmt.Sprintf(", up to %d frames in a client's write", batch)
	}
	if l.consumers > 0 {
		s += fmt.Sprintf(", %d consumers that acknowledge each message", l.consumers)
	}
	return s
}

// WriteVersus prints the report for people.
func WriteVersus(out io.Writer, about About, lines []Versus) error {
	fmt.Fprintf(out, "%s, %d CPUs, load average %s before and %s after, stores in %s\n\n", about.Go, about.CPUs, about.LoadFrom, about.LoadTo, about.Data)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "case\tours\tunit\tp50 µs\tp99 µs\tcompared with\ttheirs\tp50 µs\tp99 µs\tratio\tbar")
	for _, v := range lines {
		verdict := ""
		if v.Bar != nil {
			verdict = map[bool]string{true: "met", false: "MISSED"}[v.Bar.Met] + ": " + v.Bar.Want
		}
		theirs := "\t\t\t"
		if v.Theirs != nil {
			theirs = v.Theirs.columns() + "\t"
		}
		figure, latency, _ := strings.Cut(v.columns(), "\t")
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s%s\t%s\n", v.Case, figure, v.Unit, latency, v.With, theirs, times(v.Ratio), verdict)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	return writeSettings(out, lines, func(v Versus) string { return v.Case + ": " + v.Setting })
}

// columns are figure and latencies.
func (r Result) columns() string {
	figure := short(r.Figure)
	if r.Out > 0 {
		figure += fmt.Sprintf(" (%s out)", short(r.Out))
	}
	if r.P50 == 0 {
		return figure + "\t\t"
	}
	return figure + "\t" + short(r.P50) + "\t" + short(r.P99)
}

// writeSettings says once each how loads were offered.
func writeSettings[L any](out io.Writer, lines []L, of func(L) string) error {
	var all []string
	for _, l := range lines {
		if s := of(l); !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	if _, err := fmt.Fprintf(out, "\n%s\n", strings.Join(all, "\n")); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	return nil
}
