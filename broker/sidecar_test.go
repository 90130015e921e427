package broker

import (
	"fmt"
	"strings"
	"testing"
)

// Effects: applied once, in order, confirmed as often as asked.

func TestRepeatedEffectIsConfirmedNotApplied(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	c.effect(1, "SEND", "destination:/queue/a", "=one")
	c.effect(1, "SEND", "destination:/queue/a", "=one")
	c.leave()
	c, hello := s.sidecar(sessionX, 2, "understudy-cursor:0")
	if got := hello.headers["understudy-cursor"]; got != "1" {
		t.Fatalf("got cursor %s, want 1", got)
	}
	c.effect(1, "SEND", "destination:/queue/a", "=one")
	d := s.subscriber("/queue/a", "auto")
	d.message("one")
	d.quiet()
}

func TestEffectThatLeavesAGapIsRefused(t *testing.T) {
	for name, frame := range map[string]string{
		"skipped": text("SEND", "understudy-effect:2", "destination:/queue/a", "=two"),
		"missing": text("SEND", "destination:/queue/a", "=two"),
		"abort":   text("ABORT", "understudy-effect:3", "transaction:t"),
		"ack":     text("ACK", "subscription:s", "message-id:"+sessionX+`\c1`),
	} {
		t.Run(name, func(t *testing.T) {
			s := serving(t)
			c, _ := s.sidecar(sessionX, 1)
			// What is pipelined behind the gap is ignored, though its number would fit.
			c.write(frame + text("SEND", "understudy-effect:1", "destination:/queue/a", "=one"))
			c.refused("gap in the effects", "understudy-error", "gap")
			if n := s.one().Messages; n != 0 {
				t.Fatalf("got %d messages, want none", n)
			}
		})
	}
}

func TestCursorSurvivesRestart(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	for n := 1; n <= 3; n++ {
		c.effect(n, "SEND", "destination:/queue/a", fmt.Sprint("=", n))
	}
	s = s.restart()
	c, hello := s.sidecar(sessionX, 2, "understudy-cursor:2")
	if hello.headers["understudy-cursor"] != "3" || hello.headers["understudy-epoch"] != "2" {
		t.Fatalf("got %v, want cursor 3 in epoch 2", hello)
	}
	c.effect(3, "SEND", "destination:/queue/a", "=3")
	c.effect(4, "SEND", "destination:/queue/a", "=4")
	d := s.subscriber("/queue/a", "auto")
	for _, body := range []string{"1", "2", "3", "4"} {
		d.message(body)
	}
	d.quiet()
}

// The duplicate memory must not die with the segment of the send.
func TestCursorOutlivesItsSegment(t *testing.T) {
	s := serving(t, func(c *Config) { c.SegmentBytes = 16 << 10 })
	c, _ := s.sidecar(sessionX, 1)
	c.effect(1, "SEND", "destination:/queue/a", "=once")
	c.leave()
	d := s.subscriber("/queue/a", "client-individual")
	m := d.message("once")
	d.send("ACK", "id:"+m.headers["ack"])
	big := strings.Repeat("x", 4000)
	for range 20 { // several segments, nothing in them alive
		d.sent("/queue/a", big)
		m := d.message(big)
		d.send("ACK", "id:"+m.headers["ack"])
	}
	d.send("DISCONNECT", "receipt:bye")
	d.expect("RECEIPT")
	s = s.restart(func(c *Config) { c.SegmentBytes = 16 << 10 })
	if n := s.one().Recovered; n > 60 {
		t.Fatalf("recovery read %d records: the old segments were not deleted", n)
	}
	c, hello := s.sidecar(sessionX, 2)
	if hello.headers["understudy-cursor"] != "1" {
		t.Fatalf("got %v, want cursor 1", hello)
	}
	c.effect(1, "SEND", "destination:/queue/a", "=once")
	d = s.subscriber("/queue/a", "auto")
	d.quiet()
}

// CONNECT: who may have a session.

func TestLowerAttemptIsStoppedBeforeConnected(t *testing.T) {
	s := serving(t)
	old, _ := s.sidecar(sessionX, 1)
	old.effect(1, "SEND", "destination:/queue/a", "=one")
	c, hello := s.sidecar(sessionX, 2)
	if hello.headers["understudy-cursor"] != "1" {
		t.Fatalf("got %v, want cursor 1", hello)
	}
	// The old connection's next effect would fit; its write may even succeed.
	_, _ = old.nc.Write([]byte(text("SEND", "understudy-effect:2", "destination:/queue/a", "=ghost")))
	c.effect(2, "SEND", "destination:/queue/a", "=two")
	if r, err := old.read(patience); err == nil {
		t.Fatalf("the old connection got %v, want its end", r)
	}
	d := s.subscriber("/queue/a", "auto")
	d.message("one")
	d.message("two")
	d.quiet()
}

// What a connection has read already but not handed to the store is void once a higher attempt was answered.
func TestEvictedReaderHasNoEffect(t *testing.T) {
	s, log := benchStore()
	old, d := benchPeer(s, text("CONNECT", "accept-version:1.2", "understudy-session:"+sessionX, "understudy-attempt:1"))
	benchPeer(s, text("CONNECT", "accept-version:1.2", "understudy-session:"+sessionX, "understudy-attempt:2"))
	parser := newParser()
	feed(s, old, d, &parser, []byte(text("SEND", "understudy-effect:1", "destination:/queue/a", "=ghost")))
	s.advance(log.lsn)
	if len(s.queues) != 0 || s.sessions[mustSession(sessionX)].accepted != 0 {
		t.Fatal("a frame of the lower attempt took effect")
	}
}

func TestConnectIsRefused(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 5)
	c.effect(1, "SEND", "destination:/queue/a", "=one")
	store := s.one().UUID
	for _, test := range []struct {
		name, session string
		attempt       int
		headers       []string
		message, code string
	}{
		{"lower attempt", sessionX, 4, nil, "stale attempt", "stale-attempt"},
		{"equal attempt", sessionX, 5, nil, "stale attempt", "stale-attempt"},
		{"cursor beyond ours", sessionX, 6, []string{"understudy-cursor:2"}, "lost state", "lost-state"},
		{"cursor of an unknown session", sessionY, 1, []string{"understudy-cursor:1"}, "lost state", "lost-state"},
		{"another store", sessionX, 6, []string{"understudy-store:elsewhere"}, "wrong store", "wrong-store"},
		{"no hex", strings.Repeat("z", 32), 1, nil, "malformed CONNECT", ""},
		{"upper case", strings.ToUpper(sessionX), 1, nil, "malformed CONNECT", ""},
		{"attempt", sessionX, -1, nil, "malformed CONNECT", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := s.dial()
			d.connectSidecar(test.session, test.attempt, test.headers...)
			r := d.refused(test.message)
			if r.headers["understudy-error"] != test.code {
				t.Fatalf("got %v, want code %q", r, test.code)
			}
			if test.code == "wrong-store" && (!strings.Contains(r.body, store) || !strings.Contains(r.body, "orders")) {
				t.Fatalf("got %v, want the store served named", r)
			}
		})
	}
	c.effect(2, "SEND", "destination:/queue/a", "=two") // none of them hurt the session
	for _, name := range []string{store, "orders"} {
		s.sidecar(sessionY, map[string]int{store: 1, "orders": 2}[name], "understudy-store:"+name)
	}
}

// An old owner's lower attempt stays stale for its successor.
func TestAttemptSurvivesRestart(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 7)
	c.effect(1, "SEND", "destination:/queue/a", "=one")
	s = s.restart()
	d := s.dial()
	d.connectSidecar(sessionX, 7)
	d.refused("stale attempt", "understudy-error", "stale-attempt")
	s.sidecar(sessionX, 8)
}
