package demo

import (
	"fmt"
	"io"
)

// What take-overs, with a backlog and without, and hand-overs should come to. A bar that is missed is said and is no failure: machines differ.
const (
	barSilence   = 50.0 // ms, the median
	barLongest   = 250.0
	barRatio     = 2.0 // of the medians, with and without a backlog
	barResident  = 256 << 20
	octetsPerMiB = 1 << 20

	barPause        = 20.0 // ms, the median
	barLongestPause = 150.0
	barRate         = 0.95 // of the load that was asked for
)

// barResult is one of them.
type barResult struct {
	Want   string  `json:"want"`
	Figure float64 `json:"figure"`
	Met    bool    `json:"met"`
}

// atMost is a bar that a figure must not exceed. A figure of 0 was not measured.
func atMost(what, unit string, figure, limit float64) barResult {
	return barResult{fmt.Sprintf("%s at most %g%s", what, limit, unit), figure, figure > 0 && figure <= limit}
}

// text is one line.
func (b barResult) text() string {
	return fmt.Sprintf("%s: %s (%.1f)", map[bool]string{true: "met", false: "MISSED"}[b.Met], b.Want, b.Figure)
}

// judge fills in what follows from the figures.
func (b *backlogResult) judge() {
	if b.Empty.P50 > 0 {
		b.Ratio = b.Silence.P50 / b.Empty.P50
	}
	most := func(what, unit string, figure, limit float64) {
		b.Bars = append(b.Bars, atMost(what, unit, figure, limit))
	}
	most("silence p50 with the backlog", " ms", b.Silence.P50, barSilence)
	most("silence max with the backlog", " ms", b.Silence.Max, barLongest)
	most("silence p50 with the backlog", " × that without", b.Ratio, barRatio)
	if b.Memory.Peak > 0 {
		most("resident memory of a broker", " MiB", float64(b.Memory.Peak)/octetsPerMiB, barResident/octetsPerMiB)
	}
}

// text is the backlog's part of the verdict.
func (b *backlogResult) text(w io.Writer) {
	fmt.Fprintf(w, "  backlog      %d messages that nobody consumed, put there in %.1f s; in the end %d of them were taken in %.1f s (longest pause %.1f s), octet by octet as "+
		"they were sent: lost %d, duplicated %d, reordered %d\n", b.Messages, b.FillSeconds, b.Received, b.TakeSeconds, b.TakePause, b.Lost, b.Duplicated, b.Reordered)
	fmt.Fprintf(w, "  … silence    p50 %.1f ms, max %.1f ms without it; p50 %.1f ms, max %.1f ms with it\n", b.Empty.P50, b.Empty.Max, b.Silence.P50, b.Silence.Max)
	fmt.Fprintf(w, "  … copy       a standby that came up new had read the store after at most %.1f s; no broker was killed before\n", b.CopySeconds)
	if b.Memory.Peak > 0 {
		fmt.Fprintf(w, "  … resident   owner at most %d MiB, standby at most %d MiB; peak of a process %d MiB\n", b.Memory.Owner/octetsPerMiB, b.Memory.Standby/octetsPerMiB,
			b.Memory.Peak/octetsPerMiB)
	} else {
		io.WriteString(w, "  … resident   not known: this system has no /proc\n")
	}
	for _, bar := range b.Bars {
		fmt.Fprintf(w, "  … bar        %s\n", bar.text())
	}
}
