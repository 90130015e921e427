package interop

import (
	"fmt"
	"io"
	"strings"
)

// WriteTable writes results as a Markdown table, the ways of each broker, client and fault side by side. One cell reads
// lost/duplicated/reordered, then the silence, then what the client noticed.
func WriteTable(w io.Writer, results []Result) error {
	type row struct{ broker, fault, client string }
	var order []row
	cells := map[row]map[Way]Result{}
	for _, r := range results {
		key := row{r.Broker, string(r.Fault), r.Client}
		if cells[key] == nil {
			cells[key] = map[Way]Result{}
			order = append(order, key)
		}
		cells[key][r.Via] = r
	}
	var b strings.Builder
	b.WriteString("| broker | fault | client | through the sidecar: sent, confirmed, received | lost, duplicated, reordered | silence | client noticed | promise kept |" +
		" direct: sent, confirmed, received | lost, duplicated, reordered | client noticed |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, key := range order {
		via, hasVia := cells[key][ViaSidecar]
		direct, hasDirect := cells[key][Direct]
		columns := []string{key.broker, key.fault, key.client, "–", "–", "–", "–", "–", "–", "–", "–"}
		if hasVia {
			columns[3], columns[4], columns[5], columns[6] = via.traffic(), via.harm(), via.Silence(), via.noticed()
			columns[7] = "no"
			if via.Kept != nil && *via.Kept {
				columns[7] = "yes"
			}
		}
		if hasDirect {
			columns[8], columns[9], columns[10] = direct.traffic(), direct.harm(), direct.noticed()
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(columns, " | "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r Result) traffic() string {
	if r.Sent < r.Planned {
		return fmt.Sprintf("%d of %d, %d, %d", r.Sent, r.Planned, r.Confirmed, r.Received)
	}
	return fmt.Sprintf("%d, %d, %d", r.Sent, r.Confirmed, r.Received)
}

func (r Result) harm() string { return fmt.Sprintf("%d, %d, %d", r.Lost, r.Duplicated, r.Reordered) }

// Silence in words; for good where a client broke.
func (r Result) Silence() string {
	switch {
	case r.Fault == None:
		return "–"
	case r.SilenceMS == nil:
		return "for good"
	}
	return fmt.Sprintf("%d ms", *r.SilenceMS)
}

// noticed says how much of the client broke; what was sent and never answered belongs to it.
func (r Result) noticed() string {
	var all []string
	switch {
	case r.ClientErrors > 0:
		all = append(all, fmt.Sprintf("%d of 2 connections broke", r.ClientErrors))
	case !r.Ended:
		all = append(all, "hung")
	}
	if r.InDoubt > 0 {
		all = append(all, fmt.Sprintf("%d SENDs in doubt", r.InDoubt))
	}
	if r.ToldUnknown > 0 {
		all = append(all, fmt.Sprintf("%d told unknown", r.ToldUnknown))
	}
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, ", ")
}
