package interop

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// epoch is when the logs of these tests begin; an event's time is given in milliseconds after it.
var epoch = time.Unix(1_700_000_000, 0)

func at(ms int) time.Time { return epoch.Add(time.Duration(ms) * time.Millisecond) }

func event(ms int, kind byte, seq int) Event {
	e := Event{At: at(ms), Kind: kind, Seq: seq}
	if kind == 'M' {
		e.Run, e.Size = "run", 64
	}
	return e
}

// flawless is a cell in which ten messages went through, 10 ms apart, with a fault after the fifth had left and 200 ms of silence.
func flawless() Evidence {
	e := Evidence{Run: "run", Size: 64, Fault: at(55)}
	for seq := 1; seq <= 10; seq++ {
		late := 0
		if seq >= 5 {
			late = 200
		}
		e.Producer = append(e.Producer, event(seq*10+late*(seq/6), 'S', seq), event(seq*10+5+late, 'C', seq))
		e.Consumer = append(e.Consumer, event(seq*10+4+late, 'M', seq), event(seq*10+6+late, 'A', seq))
	}
	slices.SortStableFunc(e.Producer, func(a, b Event) int { return a.At.Compare(b.At) })
	e.Producer = append(e.Producer, event(400, 'B', 0))
	e.Consumer = append(e.Consumer, event(400, 'B', 0))
	return e
}

// index finds the event of a kind about a message.
func index(log []Event, kind byte, seq int) int {
	return slices.IndexFunc(log, func(e Event) bool { return e.Kind == kind && e.Seq == seq })
}

func drop(log *[]Event, kind byte, seq int) {
	i := index(*log, kind, seq)
	*log = slices.Delete(*log, i, i+1)
}

func TestCheckFlawless(t *testing.T) {
	c := Check(flawless())
	if c.Sent != 10 || c.Confirmed != 10 || c.Received != 10 || !c.Ended || len(c.Errors) != 0 {
		t.Errorf("counts %+v", c)
	}
	if c.InAir != 1 || c.Unacked != 0 {
		t.Errorf("in the air %d, want the fifth message; unacked %d, want 0", c.InAir, c.Unacked)
	}
	if c.SilenceMS == nil || *c.SilenceMS != 200 {
		t.Errorf("silence %v, want 200 ms from the fault to the fifth receipt", c.SilenceMS)
	}
	for kind, p := range promises {
		if broken := p.Broken(Kill, c, 10); len(broken) != 0 {
			t.Errorf("%s: a flawless cell broke its promise: %v", kind, broken)
		}
	}
}

// TestCheckCatches spoils the flawless logs in one way each and demands that the count and every promise notice.
func TestCheckCatches(t *testing.T) {
	complain := func(log *[]Event, c Complaint) {
		*log = append((*log)[:len(*log)-1], Event{At: at(399), Kind: 'E', Error: c})
	}
	tests := []struct {
		name   string
		mutate func(e *Evidence)
		says   string             // part of what the promise says is broken
		count  func(c Counts) int // must be want
		want   int
	}{
		{"lost", func(e *Evidence) { drop(&e.Consumer, 'M', 7) }, "lost", func(c Counts) int { return c.Lost }, 1},
		{"last one lost", func(e *Evidence) { drop(&e.Consumer, 'M', 10) }, "lost", func(c Counts) int { return c.Lost }, 1},
		{"left in the queue", func(e *Evidence) {
			drop(&e.Consumer, 'M', 10)
			e.Left = append(e.Left, event(500, 'M', 10))
		}, "stayed in the queue", func(c Counts) int { return c.Stranded }, 1},
		{"delivered twice", func(e *Evidence) {
			i := index(e.Consumer, 'M', 4)
			e.Consumer = slices.Insert(e.Consumer, i+1, e.Consumer[i])
		}, "duplicates", func(c Counts) int { return c.Duplicated }, 1},
		{"delivered again much later", func(e *Evidence) {
			e.Consumer = slices.Insert(e.Consumer, len(e.Consumer)-1, event(390, 'M', 1))
		}, "duplicates", func(c Counts) int { return c.Duplicated }, 1},
		{"acknowledged and still in the queue", func(e *Evidence) {
			e.Left = append(e.Left, event(500, 'M', 3))
		}, "duplicates", func(c Counts) int { return c.Duplicated }, 1},
		{"two swapped", func(e *Evidence) {
			i, j := index(e.Consumer, 'M', 6), index(e.Consumer, 'M', 7)
			e.Consumer[i].Seq, e.Consumer[j].Seq = e.Consumer[j].Seq, e.Consumer[i].Seq
		}, "out of order", func(c Counts) int { return c.Reordered }, 1},
		{"nobody sent it", func(e *Evidence) {
			e.Consumer = slices.Insert(e.Consumer, 0, event(1, 'M', 99))
		}, "altered", func(c Counts) int { return c.Altered }, 1},
		{"of another run", func(e *Evidence) { e.Consumer[index(e.Consumer, 'M', 2)].Run = "walk" }, "altered", func(c Counts) int { return c.Altered }, 1},
		{"body cut", func(e *Evidence) { e.Consumer[index(e.Consumer, 'M', 2)].Size-- }, "altered", func(c Counts) int { return c.Altered }, 1},
		{"receipt never came", func(e *Evidence) { drop(&e.Producer, 'C', 5) }, "heard nothing", func(c Counts) int { return c.InDoubt }, 1},
		{"connection lost", func(e *Evidence) {
			complain(&e.Producer, Complaint{Message: "connection closed"})
		}, "noticed", func(c Counts) int { return len(c.Errors) }, 1},
		{"consumer lost", func(e *Evidence) {
			complain(&e.Consumer, Complaint{Message: "hold timed out", Headers: map[string]string{headerCode: codeHoldTimeout}})
		}, "noticed", func(c Counts) int { return len(c.Errors) }, 1},
		{"consumer hangs", func(e *Evidence) { e.Consumer = e.Consumer[:len(e.Consumer)-1] }, "come to its end", func(c Counts) int { return len(c.Errors) }, 0},
		{"producer gave up quietly", func(e *Evidence) {
			drop(&e.Producer, 'S', 10)
			drop(&e.Producer, 'C', 10)
			drop(&e.Consumer, 'M', 10)
			drop(&e.Consumer, 'A', 10)
		}, "9 of 10", func(c Counts) int { return c.Sent }, 9},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := flawless()
			test.mutate(&e)
			c := Check(e)
			if got := test.count(c); got != test.want {
				t.Errorf("counted %d, want %d: %+v", got, test.want, c)
			}
			for kind, p := range promises {
				if broken := p.Broken(Kill, c, 10); !strings.Contains(strings.Join(broken, "; "), test.says) {
					t.Errorf("%s: broken %q, want something with %q", kind, broken, test.says)
				}
			}
		})
	}
}

func TestToldUnknown(t *testing.T) {
	e := flawless()
	drop(&e.Producer, 'C', 9)
	drop(&e.Producer, 'C', 10)
	told := Complaint{"the broker was lost", map[string]string{headerCode: codeInDoubt, headerReceipts: "9,10"}}
	e.Producer[len(e.Producer)-1] = Event{At: at(399), Kind: 'E', Error: told}
	c := Check(e)
	if c.ToldUnknown != 2 || c.InDoubt != 0 || c.SilenceMS != nil {
		t.Errorf("told %d, in doubt %d, silence %v; want 2, 0, nil", c.ToldUnknown, c.InDoubt, c.SilenceMS)
	}
	for kind, p := range promises {
		if broken := p.Broken(Kill, c, 10); len(broken) == 0 {
			t.Errorf("%s: a client was told that outcomes are unknown, and no promise was broken", kind)
		}
	}
}

// TestDenied: what an ERROR does not list was not taken, so it must not be delivered.
func TestDenied(t *testing.T) {
	e := flawless()
	e.Numbered = true
	drop(&e.Producer, 'C', 9)
	drop(&e.Producer, 'C', 10)
	told := Complaint{"the broker was lost", map[string]string{headerCode: codeInDoubt, headerReceipts: "9"}}
	e.Producer[len(e.Producer)-1] = Event{At: at(399), Kind: 'E', Error: told}
	c := Check(e)
	if c.Denied != 1 || c.InDoubt != 0 {
		t.Errorf("denied %d, in doubt %d; want the tenth denied, 0 in doubt", c.Denied, c.InDoubt)
	}
	for kind, p := range promises {
		if broken := p.Broken(Kill, c, 10); !strings.Contains(strings.Join(broken, "; "), "left out") {
			t.Errorf("%s: broken %q, want that something was left out", kind, broken)
		}
	}
	drop(&e.Consumer, 'M', 10)
	if c = Check(e); c.Denied != 0 {
		t.Errorf("denied %d of what was not delivered", c.Denied)
	}
}

func TestPromisesHaveReasons(t *testing.T) {
	for kind, p := range promises {
		if p.Text == "" || p.Why == "" {
			t.Errorf("%s: a promise without text or reason", kind)
		}
		if p.Thaw >= 20*time.Second {
			t.Errorf("%s: a freeze of %v is longer than a sidecar holds its clients", kind, p.Thaw)
		}
	}
	if _, err := PromiseOf("unheard-of"); err == nil {
		t.Error("a promise for a kind that is not in the table")
	}
}

func TestParseEvent(t *testing.T) {
	good := map[string]Event{
		"R":                    {Kind: 'R'},
		"S 17":                 {Kind: 'S', Seq: 17},
		"M run-1 3 64":         {Kind: 'M', Seq: 3, Run: "run-1", Size: 64},
		`E {"message":"gone"}`: {Kind: 'E', Error: Complaint{Message: "gone"}},
	}
	for line, want := range good {
		want.At = epoch
		got, err := parseEvent(line, epoch)
		if a, b := asJSON(got), asJSON(want); err != nil || a != b {
			t.Errorf("%q: %s, %v; want %s", line, a, err, b)
		}
	}
	for _, line := range []string{"", "R 1", "S", "S 1 2", "M run 1", "M run 1 2 3", "C a", "E gone", "X", "Warning: something"} {
		if e, err := parseEvent(line, epoch); err == nil {
			t.Errorf("%q was taken for %+v", line, e)
		}
	}
}

func asJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
