package journal

import (
	"testing"
	"time"
)

func TestRoster(t *testing.T) {
	const ms = time.Millisecond
	at := func(id string, beat uint64) []sighting {
		return []sighting{{file: "a", card: card{Node: "a", ID: id, Beat: beat}, ok: true}}
	}
	type look struct {
		after time.Duration
		seen  []sighting
		alive bool
		since time.Duration // from the first look
	}
	bad := []sighting{{file: "a"}}
	for name, looks := range map[string][]look{
		"lives":  {{0, at("1", 1), true, 0}, {100 * ms, at("1", 2), true, 0}, {400 * ms, at("1", 3), true, 0}},
		"leaves": {{0, at("1", 1), true, 0}, {100 * ms, nil, false, 0}, {100 * ms, at("1", 2), true, 200 * ms}},
		"is stopped, and goes on": {
			{0, at("1", 1), true, 0}, {200 * ms, at("1", 1), true, 0}, {200 * ms, at("1", 1), true, 0}, {99 * ms, at("1", 1), true, 0}, {1 * ms, at("1", 1), false, 0},
			{900 * ms, at("1", 1), false, 0}, {100 * ms, at("1", 2), true, 1500 * ms}, {100 * ms, at("1", 3), true, 1500 * ms},
		},
		"comes again under the same name": {{0, at("1", 1), true, 0}, {100 * ms, at("2", 1), true, 100 * ms}, {100 * ms, at("2", 2), true, 100 * ms}},
		"cannot be read for a while":      {{0, at("1", 1), true, 0}, {100 * ms, bad, true, 0}, {900 * ms, bad, true, 0}, {100 * ms, at("1", 9), true, 0}},
		"cannot be read at first":         {{0, bad, false, 0}, {100 * ms, at("1", 1), true, 100 * ms}},
		"whoever looks was stopped":       {{0, at("1", 1), true, 0}, {time.Hour, at("1", 1), true, 0}, {100 * ms, at("1", 2), true, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Unix(1000, 0)
			now, r := start, roster{}
			for i, l := range looks {
				now = now.Add(l.after)
				r.look(now, l.seen)
				list := r.alive()
				if len(list) == 1 != l.alive {
					t.Fatalf("look %d: alive %v", i, list)
				}
				if l.alive && list[0].Since.Sub(start) != l.since {
					t.Errorf("look %d: since %v, want %v", i, list[0].Since.Sub(start), l.since)
				}
			}
		})
	}
}
