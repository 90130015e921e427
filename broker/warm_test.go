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
		c = s.Status().Copy
		return c.Applied == c.Proved && c.Records >= uint64(least)
	})
	if role := s.Status().Role; role != Standby {
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
			st := next.Status()
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

// A third candidate does not follow.
func TestThirdRankIsCold(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir).active()
	next := start(t, dir, func(cfg *Config) { cfg.Rank = 2 })
	s.connected("1.2").sent("/queue/a", "one")
	time.Sleep(50 * time.Millisecond)
	s.stop()
	if st := next.active().Status(); st.Copied != 0 || st.Messages != 1 {
		t.Errorf("%+v", st)
	}
}
