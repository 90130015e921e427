package demo

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// timeline writes what happens, as it happens, one line each.
type timeline struct {
	mu    sync.Mutex
	out   io.Writer
	start time.Time
	ended bool
}

// end makes it silent: what still comes from a client that hangs is nobody's concern.
func (t *timeline) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
}

func (t *timeline) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	fmt.Fprintf(t.out, "%6.2fs  %s\n", time.Since(t.start).Seconds(), fmt.Sprintf(format, args...))
}

// Write passes whole lines of the children's logs on, between our own.
func (t *timeline) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.out.Write(p)
}

// rates turns running totals into a line per period.
type rates struct {
	last counts
	at   time.Time
}

// line describes the period since the last call, and the totals.
func (r *rates) line(now counts, at time.Time) string {
	s := at.Sub(r.at).Seconds()
	per := func(a, b int) string { return fmt.Sprintf("%5.0f/s", float64(a-b)/s) }
	text := fmt.Sprintf("sent %s  confirmed %s  received %s  total %d / %d / %d", per(now.sent, r.last.sent),
		per(now.confirmed, r.last.confirmed), per(now.received, r.last.received), now.sent, now.confirmed, now.received)
	r.last, r.at = now, at
	return text
}
