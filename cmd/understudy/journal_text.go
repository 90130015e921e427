package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/understudy-mq/understudy/broker"
	"github.com/understudy-mq/understudy/broker/journal"
)

func octetText(n int64) string {
	for _, u := range units {
		if size := int64(1) << u.shift; u.shift > 0 && n >= size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(size), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// printReport says what check found: the verdict, what is in the log, and every problem.
func printReport(w io.Writer, r *journal.Report) {
	fmt.Fprintf(w, "%s: %s\n", r.Dir, r.Verdict)
	fmt.Fprintf(w, "store %s, %d epochs, records %d to %d: %d of the broker, %s, in %d segments\n",
		r.Store, len(r.Epochs), r.First, r.Last, r.Records, octetText(r.Octets), len(r.Segments))
	if r.Owner != nil {
		fmt.Fprintf(w, "owned by node %s, pid %d, epoch %d, which goes on writing: this is a moment\n", r.Owner.Node, r.Owner.PID, r.Owner.Epoch)
	}
	for _, s := range r.Segments {
		fmt.Fprintf(w, "  %s  records %d to %d, %d of the broker, %d of the journal, %s", s.File, s.First, s.Last, s.Records, s.Own, octetText(s.Octets))
		if s.Given > 0 {
			fmt.Fprintf(w, ", %d given up by a repair", s.Given)
		}
		fmt.Fprintln(w)
	}
	if t := r.Tail; t != nil {
		fmt.Fprintf(w, "torn tail: %s at %d, %s from record %d on, never acknowledged: the next broker cuts it\n", t.File, t.Offset, octetText(t.Octets), t.From)
	}
	for _, name := range r.Litter {
		fmt.Fprintf(w, "no part of the log: %s\n", name)
	}
	for _, f := range r.Quarantine {
		fmt.Fprintf(w, "in quarantine: %s, %s\n", f.File, octetText(f.Octets))
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "DAMAGED: %s\n", problemText(p))
	}
	if r.Verdict == journal.Damaged {
		what := "No broker starts on it."
		if r.Opens {
			what = "A broker starts on it, and stops the queues whose messages it cannot read."
		}
		fmt.Fprintf(w, "%s Restore the directory from a backup or a copy; else `understudy journal repair --accept-loss %s` gives up what is listed here.\n", what, r.Dir)
	}
}

func problemText(p journal.Problem) string {
	var b strings.Builder
	b.WriteString(p.File)
	switch {
	case p.End > p.Offset:
		fmt.Fprintf(&b, " from %d to %d", p.Offset, p.End)
	case p.Offset > 0:
		fmt.Fprintf(&b, " at %d", p.Offset)
	}
	switch {
	case p.To > p.From:
		fmt.Fprintf(&b, ", records %d to %d", p.From, p.To)
	case p.To == p.From && p.From > 0:
		fmt.Fprintf(&b, ", record %d", p.From)
	}
	fmt.Fprintf(&b, ": %s%s", p.Reason, p.Hits)
	return b.String()
}

// recordLine is one record for people.
func recordLine(d broker.Description) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d  %d@%d  epoch %d  %s  %d B", d.LSN, d.Segment, d.Offset, d.Epoch, d.Type, d.Size)
	if d.By != "" {
		fmt.Fprintf(&b, "  by %s", d.By)
	}
	if d.About != "" {
		fmt.Fprintf(&b, "  %s", d.About)
	}
	for _, m := range d.Messages {
		b.WriteString("\n    message")
		if m.ID != "" {
			b.WriteString(" " + m.ID)
		}
		if m.Destination != "" {
			fmt.Fprintf(&b, " to %q", m.Destination)
		}
		if len(m.Queues) > 0 {
			fmt.Fprintf(&b, " in %q", m.Queues)
		}
		if len(m.Durables) > 0 {
			fmt.Fprintf(&b, " for durable subscriptions %d", m.Durables)
		}
		fmt.Fprintf(&b, ", headers %d B, body %d B", m.Headers, m.Body)
		if m.Lines != "" || m.Content != nil {
			fmt.Fprintf(&b, "\n      %q\n      %q", m.Lines, m.Content)
		}
	}
	for _, e := range d.Ends {
		fmt.Fprintf(&b, "\n    ends %s of %q", strings.Join(e.Messages, " "), e.Queue)
	}
	if d.Err != "" {
		fmt.Fprintf(&b, "\n    UNREADABLE: %s", d.Err)
	}
	b.WriteByte('\n')
	return b.String()
}

func printRepaired(w io.Writer, dir string, r repaired) {
	if r.Epoch == 0 {
		fmt.Fprintf(w, "%s: %s: there is nothing to repair\n", dir, r.Before.Verdict)
		return
	}
	fmt.Fprintf(w, "%s: repaired; epoch %d was claimed for it\n", dir, r.Epoch)
	for _, g := range r.Given {
		fmt.Fprintf(w, "GIVEN UP: %s", problemText(g.Problem))
		fmt.Fprintf(w, " (%d records, %s", g.Records, octetText(g.Octets))
		if g.Restored > 0 {
			fmt.Fprintf(w, "; %d more were restored from the index", g.Restored)
		}
		fmt.Fprint(w, ")")
		for _, c := range g.Copies {
			fmt.Fprintf(w, "\n    what was there: %s", filepath.Join(dir, c))
		}
		fmt.Fprintln(w)
	}
	for _, c := range r.Consequences {
		fmt.Fprintln(w, c)
	}
	if r.List != "" {
		fmt.Fprintf(w, "This list is kept in %s\n", filepath.Join(dir, r.List))
	}
	if r.After != nil {
		fmt.Fprintf(w, "What is left: %d records of the broker in %d segments\n", r.After.Records, len(r.After.Segments))
	}
}
