package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// warm waits until the standby has all that its owner acknowledged.
func (s *testServer) warm(least int) journal.Copy {
	s.t.Helper()
	var c journal.Copy
	eventually(s.t, "warm copy", func() bool {
		c = s.one().Copy
		return c.Applied == c.Proved && c.Records >= uint64(least)
	})
	if role := s.one().Role; role != Standby {
		s.t.Errorf("role %s while the owner lives", role)
	}
	return c
}

// A standby knows the store when its owner dies, and what it knows is what a server without a copy reads.
func TestStandbyIsWarm(t *testing.T) {
	for _, cold := range []bool{false, true} {
		t.Run(fmt.Sprintf("cold=%v", cold), func(t *testing.T) {
			dir := t.TempDir()
			s := start(t, dir).active()
			c := s.connected("1.2")
			for i := range 50 {
				c.sent("/queue/a", fmt.Sprint("early ", i))
			}
			next := start(t, dir, func(cfg *Config) { cfg.Cold, cfg.Rank = cold, 1 })
			consumer, _ := s.sidecar(sessionX, 1)
			consumer.subscribe("s", "/queue/a", "client-individual")
			var ids []string
			for i := range 50 {
				ids = append(ids, strings.ReplaceAll(consumer.message(fmt.Sprint("early ", i)).headers["message-id"], ":", `\c`))
			}
			for i, id := range ids[:20] {
				consumer.effect(i+1, "ACK", "subscription:s", "message-id:"+id)
			}
			for i := range 10 {
				c.sent("/queue/b", fmt.Sprint("late ", i), "priority:7")
			}
			if !cold {
				next.warm(80)
			}
			s.stop()
			next.active()
			st := next.one()
			if (st.Copied > 0) == cold || st.Recovered < 80 || !cold && st.Recovered-st.Copied > 5 || st.Messages != 40 {
				t.Errorf("%+v", st)
			}
			d := next.subscriber("/queue/b", "auto")
			for i := range 10 {
				d.message(fmt.Sprint("late ", i))
			}
			again, hello := next.sidecar(sessionX, 2)
			if hello.headers["understudy-cursor"] != "20" {
				t.Errorf("%v", hello)
			}
			again.subscribe("s", "/queue/a", "client-individual")
			again.message("early 20")
		})
	}
}

// The owner's segments come and go while a standby follows, and what stays is moved from one to the next. Every tenth message is left.
func TestStandbyFollowsMoves(t *testing.T) {
	dir := t.TempDir()
	// Not so small that two segments begin, and one of them goes, between two looks of the standby: then its copy begins again.
	small := func(cfg *Config) { cfg.SegmentBytes = 256 << 10 }
	s := start(t, dir, small).active()
	next := start(t, dir, small)
	c, d := s.connected("1.2"), s.subscriber("/queue/a", "client-individual")
	const rounds, batch = 160, 50
	body := strings.Repeat("x", 700)
	for round := range rounds {
		for i := range batch {
			c.send("SEND", "destination:/queue/a", fmt.Sprintf("=%d %s", round*batch+i, body))
		}
		for i := range batch {
			m := d.message(fmt.Sprintf("%d %s", round*batch+i, body))
			if i%10 > 0 {
				d.send("ACK", "id:"+m.headers["ack"])
			}
		}
		d.send("BEGIN", fmt.Sprint("transaction:", round), fmt.Sprint("receipt:", round))
		d.expect("RECEIPT", "receipt-id", fmt.Sprint(round))
	}
	eventually(t, "segments to be emptied", func() bool {
		return s.hold().journal.Stats().Evacuated > 2
	})
	next.warm(rounds * batch)
	s.stop()
	st := next.active().one()
	if want := rounds * batch / 10; st.Messages != want || st.Recovered-st.Copied > 100 {
		t.Errorf("%+v, want %d messages", st, want)
	}
	d = next.subscriber("/queue/a", "auto")
	for i := 0; i < rounds*batch; i += 10 {
		d.message(fmt.Sprintf("%d %s", i, body))
	}
	d.quiet()
}

// A third candidate does not follow.
func TestThirdCandidateIsCold(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir).active()
	s.connected("1.2").sent("/queue/a", "one")
	var copies [3]func() journal.Copy
	for rank := range copies {
		next := start(t, dir, func(cfg *Config) { cfg.Name, cfg.Rank, cfg.Stores[0].Own = string(rune('a'+rank)), rank, false })
		copies[rank] = func() journal.Copy { return next.one().Copy }
		for rank < 2 && copies[rank]().Applied == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	time.Sleep(200 * time.Millisecond)
	if c := copies[2](); c.Applied != 0 || c.Cold == "" {
		t.Errorf("%+v", c)
	}
}
