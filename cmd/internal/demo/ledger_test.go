package demo

import (
	"bytes"
	"testing"
	"time"
)

// TestLedgerVerdicts feeds histories, good and bad, and asks for the exact counts: a checker that misses one proves nothing.
func TestLedgerVerdicts(t *testing.T) {
	type step func(l *ledger)
	send := func(p int) step { return func(l *ledger) { l.send(p) } }
	confirm := func(p, n int) step { return func(l *ledger) { l.confirm(message{p, n}) } }
	receive := func(c, p, n int) step { return func(l *ledger) { l.receive(c, message{p, n}) } }
	for _, c := range []struct {
		name       string
		noReceipts bool
		steps      []step
		want       counts
		lost       int
	}{
		{"all is well", false, []step{send(0), confirm(0, 1), receive(0, 0, 1)}, counts{sent: 1, confirmed: 1, received: 1}, 0},
		{"delivery before the receipt", false, []step{send(0), receive(0, 0, 1), confirm(0, 1)}, counts{sent: 1, confirmed: 1, received: 1}, 0},
		{"lost", false, []step{send(0), confirm(0, 1)}, counts{sent: 1, confirmed: 1}, 1},
		{"lost among others", false, []step{send(0), send(0), send(0), confirm(0, 1), confirm(0, 2), confirm(0, 3), receive(0, 0, 1), receive(0, 0, 3)},
			counts{sent: 3, confirmed: 3, received: 2}, 1},
		{"never confirmed is not lost", false, []step{send(0)}, counts{sent: 1}, 0},
		{"without receipts what was sent is due", true, []step{send(0)}, counts{sent: 1}, 1},
		{"twice to one consumer", false, []step{send(0), confirm(0, 1), receive(0, 0, 1), receive(0, 0, 1)},
			counts{sent: 1, confirmed: 1, received: 1, duplicated: 1}, 0},
		{"to both consumers", false, []step{send(0), confirm(0, 1), receive(0, 0, 1), receive(1, 0, 1)},
			counts{sent: 1, confirmed: 1, received: 1, duplicated: 1}, 0},
		{"three times counts two", false, []step{send(0), receive(0, 0, 1), receive(1, 0, 1), receive(0, 0, 1)},
			counts{sent: 1, received: 1, duplicated: 2}, 0},
		{"out of order", false, []step{send(0), send(0), receive(0, 0, 2), receive(0, 0, 1)}, counts{sent: 2, received: 2, reordered: 1}, 0},
		{"order is by consumer", false, []step{send(0), send(0), receive(0, 0, 2), receive(1, 0, 1)}, counts{sent: 2, received: 2}, 0},
		{"order is by producer", false, []step{send(0), send(0), send(1), receive(0, 0, 2), receive(0, 1, 1)}, counts{sent: 3, received: 2}, 0},
		{"a late duplicate is not out of order as well", false, []step{send(0), send(0), receive(0, 0, 1), receive(0, 0, 2), receive(0, 0, 1)},
			counts{sent: 2, received: 2, duplicated: 1}, 0},
		{"confirmed twice", false, []step{send(0), confirm(0, 1), confirm(0, 1), receive(0, 0, 1)}, counts{sent: 1, confirmed: 1, received: 1}, 0},
		{"never sent", false, []step{send(0), receive(0, 0, 2)}, counts{sent: 1, phantom: 1}, 0},
		{"unknown producer", false, []step{receive(0, 7, 1)}, counts{phantom: 1}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLedger(2, !c.noReceipts, false)
			for _, s := range c.steps {
				s(l)
			}
			if got := l.totals(); got != c.want {
				t.Errorf("counts %+v, want %+v", got, c.want)
			}
			if _, n, _ := l.missing(10); n != c.lost {
				t.Errorf("lost %d, want %d", n, c.lost)
			}
		})
	}
}

func TestLedgerInFlight(t *testing.T) {
	l := newLedger(1, true, false)
	a, b := l.send(0), l.send(0)
	l.receive(0, a)
	before := l.snapshot()
	if s, u := l.flying(); s != 2 || u != 1 {
		t.Fatal("in the air:", s, u)
	}
	l.confirm(a) // between the two looks: not certain to have been in the air
	c := l.send(0)
	l.receive(0, b)
	if s, u := l.still(before); s != 1 || u != 1 {
		t.Errorf("still in the air: %d sends, %d unacked, want 1 and 1", s, u)
	}
	l.acknowledge(a)
	l.confirm(b)
	if s, u := l.still(before); s != 0 || u != 0 {
		t.Errorf("still in the air: %d sends, %d unacked, want none", s, u)
	}
	l.confirm(c)
	if s, _ := l.flying(); s != 0 {
		t.Error("sends left:", s)
	}
}

func TestLedgerInFlightAuto(t *testing.T) {
	l := newLedger(1, false, true)
	a := l.send(0)
	if s, u := l.flying(); s != 1 || u != 1 {
		t.Errorf("after SEND: %d sends, %d unacked, want 1 and 1", s, u)
	}
	l.receive(0, a)
	if s, u := l.flying(); s != 0 || u != 0 {
		t.Errorf("after MESSAGE: %d sends, %d unacked, want none", s, u)
	}
}

func TestBody(t *testing.T) {
	m := message{3, 42}
	b := body(7, m, 256)
	if len(b) != 256 || !bytes.HasPrefix(b, []byte("p3:000042 ")) {
		t.Fatalf("%d octets, %q", len(b), b[:12])
	}
	if got, ok := identify(7, b, 256); !ok || got != m {
		t.Fatal(got, ok)
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "head cut": b[:5], "torn": b[:100], "one octet short": b[:255], "too long": append(bytes.Clone(b), 0),
		"noise flipped": flip(b, 200), "number flipped": flip(b, 8), "another seed": body(8, m, 256), "not ours": []byte("hello, world, hello, world"),
	} {
		if got, ok := identify(7, bad, 256); ok {
			t.Errorf("%s: passed for %v", name, got)
		}
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

func TestSilence(t *testing.T) {
	var s silence
	s.note(0) // nobody measures
	s.begin(3)
	base := s.fault
	at := func(ms int) time.Time { return base.Add(time.Duration(ms) * time.Millisecond) }
	s.events = [][]time.Time{{at(1), at(30), at(31)}, {at(40)}, {at(2)}}
	each, waiting := s.since(at(20))
	if waiting != 1 || each[0] != 30*time.Millisecond || each[1] != 40*time.Millisecond || each[2] != 0 {
		t.Errorf("silences %v, waiting %d", each, waiting)
	}
	s.events[2] = append(s.events[2], at(90))
	each, waiting = s.since(at(20))
	if p50, most := spread(each); waiting != 0 || p50 != 40*time.Millisecond || most != 90*time.Millisecond {
		t.Errorf("p50 %v, max %v, waiting %d", p50, most, waiting)
	}
	s.end()
	s.note(0)
	if s.events != nil {
		t.Error("still measuring")
	}
	if p, m := spread(nil); p != 0 || m != 0 {
		t.Error("a spread of nothing:", p, m)
	}
}
