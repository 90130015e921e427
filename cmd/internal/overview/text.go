package overview

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// Print writes v as tables for people, as of now.
func Print(w io.Writer, v View, now time.Time) error {
	p := &printer{w: w, now: now}
	p.stores(v.Stores)
	p.candidates(v.Stores)
	p.servers(v.Servers)
	p.sidecars(v.Sidecars)
	p.trouble(v)
	return p.err
}

// printer remembers the first error of its writer.
type printer struct {
	w     io.Writer
	now   time.Time
	began bool // something is above
	err   error
}

// table writes rows below their heading, aligned; nothing if there are none.
func (p *printer) table(heading []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	if p.began {
		p.line("")
	}
	p.began = true
	t := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{heading}, rows...) {
		if _, err := fmt.Fprintln(t, strings.Join(row, "\t")); p.err == nil {
			p.err = err
		}
	}
	if err := t.Flush(); p.err == nil {
		p.err = err
	}
}

func (p *printer) line(text string) {
	if _, err := fmt.Fprintln(p.w, text); p.err == nil {
		p.err = err
	}
}

func (p *printer) stores(stores []StoreView) {
	var rows [][]string
	for _, s := range stores {
		holder, since, sessions, absent, messages := cmp.Or(s.Holder, "NOBODY"), "-", "-", "-", "-"
		switch s.State {
		case Frozen:
			holder += " (FROZEN)"
		case Recovering:
			holder += " (recovering)"
		}
		if s.Holder != "" && !s.Hearsay {
			since = p.age(s.Since)
			sessions, absent, messages = strconv.Itoa(s.Sessions), strconv.Itoa(s.Absent), strconv.Itoa(s.Messages)
			if s.AbsentSince != nil && s.Absent > 0 {
				absent += ", for " + p.age(*s.AbsentSince)
			}
		}
		rows = append(rows, []string{
			cell(s.Name), cell(cmp.Or(short(s.UUID), "-")), cell(holder), number(s.Epoch), since, cell(cmp.Or(strings.Join(s.Owners, ","), "-")), sessions, absent, messages,
			strconv.FormatUint(s.Takeovers, 10), strconv.FormatUint(s.Handovers, 10),
		})
	}
	p.table([]string{"STORE", "UUID", "HOLDER", "EPOCH", "FOR", "OWNER", "SESSIONS", "ABSENT", "MESSAGES", "TAKEN", "HANDED OVER"}, rows)
}

func (p *printer) candidates(stores []StoreView) {
	var rows [][]string
	for _, s := range stores {
		for i, c := range s.Candidates {
			warm := "cold"
			if c.Warm {
				warm = "warm"
			}
			who := c.Node
			if c.Own {
				who += " (owner)"
			}
			rows = append(rows, []string{
				cell(s.Name), strconv.Itoa(i + 1), cell(who), strconv.Itoa(c.Serves), strconv.Itoa(c.Rank), warm, p.age(c.Since), cell(cmp.Or(c.Endpoint, "-")),
			})
		}
	}
	p.table([]string{"STORE", "NEXT", "CANDIDATE", "SERVES", "RANK", "COPY", "THERE FOR", "ADDRESS"}, rows)
}

func (p *printer) servers(servers []ServerView) {
	var rows [][]string
	for _, s := range servers {
		rows = append(rows, []string{
			cell(s.Node) + draining(s.Draining), cell(s.Listen), strconv.Itoa(s.Serves), strconv.Itoa(s.StandsFor), strconv.Itoa(s.Connections), cell(s.URL),
		})
	}
	p.table([]string{"SERVER", "ADDRESS", "SERVES", "STANDS FOR", "CONNECTIONS", "ADMIN"}, rows)
}

func (p *printer) sidecars(sidecars []SidecarView) {
	var rows [][]string
	for _, s := range sidecars {
		rows = append(rows, []string{cell(s.Name) + draining(s.Draining), counts(s.Sessions), counts(s.Brokers), cell(s.URL)})
	}
	p.table([]string{"SIDECAR", "SESSIONS", "BROKERS", "ADMIN"}, rows)
}

func draining(yes bool) string {
	if yes {
		return " (draining)"
	}
	return ""
}

// counts are numbers by name.
func counts(by map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(by)) {
		all = append(all, fmt.Sprintf("%d %s", by[name], cell(name)))
	}
	return cmp.Or(strings.Join(all, ", "), "none")
}

func (p *printer) trouble(v View) {
	if p.began {
		p.line("")
	}
	quiet := p.began
	say := func(format string, args ...any) {
		quiet = false
		p.line(fmt.Sprintf(format, args...))
	}
	for _, s := range v.Stores {
		if s.State == Unheld {
			say("%s: NOBODY SERVES IT", cell(s.Name))
		}
		if s.Waiting > 0 {
			say("%s: clients that wait for it: %d", cell(s.Name), s.Waiting)
		}
		for _, t := range s.Trouble {
			text := cell(s.Name) + ": "
			if t.Node != "" {
				text += cell(t.Node) + " "
			}
			text += clean(t.Text, maxLine)
			if t.Again != nil && t.Again.After(p.now) {
				text += ", tries again in " + span(t.Again.Sub(p.now))
			}
			say("%s", text)
		}
	}
	for _, s := range v.Silent {
		say("%s: %s", clean(s.URL, maxLine), clean(s.Why, maxLine))
	}
	if quiet {
		p.line("all is well")
	}
}

// age is how long ago t was.
func (p *printer) age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(p.now.Sub(t))
}

// span is a duration to the precision that people want.
func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < 2*time.Minute:
		return d.Round(time.Second).String()
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// short is as much of a UUID as people compare.
func short(uuid string) string { return uuid[:min(len(uuid), 8)] }

func number(n uint64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatUint(n, 10)
}

// What a server can put into one place, in octets.
const (
	maxCell = 64
	maxLine = 300
)

// cell is for a place in a table.
func cell(text string) string { return clean(text, maxCell) }

// clean makes one line of what a server said, without anything that a terminal would obey.
func clean(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
