package demo

import "testing"

func TestOrderOfTakeovers(t *testing.T) {
	owners := map[string]string{"a": "A", "b": "B", "c": "C"}
	for _, c := range []struct {
		name   string
		before load
		freed  freed
		bad    int
	}{
		{"an idle standby", load{"B": 1, "C": 1, "S": 0}, freed{"a": "S"}, 0},
		{"an active one though a standby is idle", load{"B": 1, "C": 1, "S": 0}, freed{"a": "B"}, 1},
		{"either of two idle ones", load{"B": 1, "S": 0, "T": 0}, freed{"a": "T"}, 0},
		{"the least loaded active", load{"B": 2, "C": 1}, freed{"a": "C"}, 0},
		{"a more loaded active", load{"B": 2, "C": 1}, freed{"a": "B"}, 1},
		{"a tie", load{"B": 1, "C": 1}, freed{"a": "B"}, 0},
		{"the owner, whatever it serves", load{"A": 2, "S": 0}, freed{"a": "A"}, 0},
		{"somebody else though the owner is there", load{"A": 2, "S": 0}, freed{"a": "S"}, 1},
		{"the last survivor", load{"S": 2}, freed{"a": "S"}, 0},
		{"two at once to two idle ones", load{"C": 1, "S": 0, "T": 0}, freed{"a": "S", "b": "T"}, 0},
		{"two at once to one of two idle ones", load{"C": 1, "S": 0, "T": 0}, freed{"a": "S", "b": "S"}, 2},
		{"two at once: one idle, one active", load{"C": 1, "S": 0}, freed{"a": "S", "b": "C"}, 0},
		{"two at once: one idle, which then serves no more than the active one", load{"C": 1, "S": 0}, freed{"a": "S", "b": "S"}, 0},
		{"two at once: both to the active one", load{"C": 1, "S": 0}, freed{"a": "C", "b": "C"}, 2},
		{"a dead one", load{"B": 1}, freed{"a": "Z"}, 1},
		{"nothing was freed", load{"B": 1, "S": 0}, freed{}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := breaches(c.freed, owners, c.before); len(got) != c.bad {
				t.Errorf("%d breaches, want %d: %q", len(got), c.bad, got)
			}
		})
	}
}

func TestDescribeTaker(t *testing.T) {
	for want, got := range map[string]string{
		"which was idle":    load{"S": 0, "B": 1}.describe("S"),
		"the last one left": load{"S": 2}.describe("S"),
		"none was idle, nobody served fewer than its 1": load{"S": 1, "B": 1}.describe("S"),
		"which served 2": load{"S": 2, "B": 1}.describe("S"),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
