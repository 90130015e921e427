package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

func TestWindowStretchesWhileSessionsReturn(t *testing.T) {
	s, _ := benchStore()
	s.cfg.ReclaimWindow = 2 * time.Second
	away := time.Unix(1000, 0)
	for _, test := range []struct {
		returned, want time.Duration // after away
	}{
		{-time.Second, 2 * time.Second}, {500 * time.Millisecond, 2 * time.Second}, {1500 * time.Millisecond, 2500 * time.Millisecond},
		{9500 * time.Millisecond, 10 * time.Second}, {time.Hour, 10 * time.Second},
	} {
		s.returned = away.Add(test.returned)
		if got := s.windowEnd(away).Sub(away); got != test.want {
			t.Errorf("another session returned after %v: the window is %v, want %v", test.returned, got, test.want)
		}
	}
}

// sim drives a store by hand, with time passed in.
type sim struct {
	t   *testing.T
	s   *store
	log *swallow
}

func (m *sim) at(d time.Duration) {
	m.s.now = time.Unix(1000, 0).Add(d)
	m.s.tick()
	m.sync()
}

func (m *sim) sync() {
	m.s.advance(m.log.lsn)
	m.s.flush()
}

func (m *sim) connect(attempt int, headers ...string) (*peer, *frame.Frame) {
	m.t.Helper()
	p, hello := connectPeer(m.s, text("CONNECT", append([]string{"accept-version:1.2", "understudy-session:" + sessionX,
		fmt.Sprint("understudy-attempt:", attempt), "understudy-hold:30000"}, headers...)...), m.sync)
	return p, &hello
}

func (m *sim) say(p *peer, frames string) {
	parser := newParser()
	feed(m.s, p, &decoder{version: frame.V12, sidecar: p.sidecar}, &parser, []byte(frames))
	m.s.flush()
	m.sync()
}

func newSim(t *testing.T) *sim {
	s, log := benchStore()
	m := &sim{t, s, log}
	m.at(0)
	return m
}

func TestSessionExpiresAfterItsHold(t *testing.T) {
	m := newSim(t)
	p, _ := m.connect(1)
	m.say(p, text("SUBSCRIBE", "id:s", "destination:/queue/a", "ack:client-individual")+text("SEND", "understudy-effect:1", "destination:/queue/b", "=x"))
	m.s.leave(p)
	m.at(30*time.Second + expiryMargin - 1)
	if p, hello := m.connect(2, "understudy-cursor:1"); hello.Command != frame.Connected {
		t.Fatalf("within the hold: %s", hello.Raw)
	} else {
		m.s.leave(p)
	}
	before := m.log.lsn
	m.at(2 * (30*time.Second + expiryMargin))
	if len(m.s.sessions) != 0 || len(m.s.waiting) != 0 || m.s.queues["/queue/a"] != nil || m.log.lsn == before {
		t.Fatalf("the session is not closed: %v %v", m.s.sessions, m.s.queues)
	}
	if _, hello := m.connect(3, "understudy-cursor:1"); hello.Command != frame.Error {
		t.Fatalf("after the hold: %s", hello.Raw)
	}
}

func TestClosedSessionIsForgottenAfterItsHold(t *testing.T) {
	m := newSim(t)
	p, _ := m.connect(1)
	m.say(p, text("SEND", "understudy-effect:1", "destination:/queue/b", "=x")+text("DISCONNECT", "receipt:r"))
	m.s.leave(p)
	m.at(time.Second)
	if len(m.s.sessions) != 1 {
		t.Fatal("forgotten at once: a sidecar that missed the answer could not hear it again")
	}
	m.at(time.Minute)
	if len(m.s.sessions) != 0 || len(m.s.waiting) != 0 {
		t.Fatal("never forgotten")
	}
}

// A session that is back but has not subscribed again to everything: the rest does not wait for ever.
func TestWindowOfASubscriptionThatIsNotRenewed(t *testing.T) {
	m := newSim(t)
	p, _ := m.connect(1)
	m.say(p, text("SUBSCRIBE", "id:s", "destination:/queue/a", "ack:client-individual")+text("SEND", "understudy-effect:1", "destination:/queue/a", "=x"))
	m.s.leave(p)
	p, _ = m.connect(2)
	q := m.s.queues["/queue/a"]
	m.at(1900 * time.Millisecond)
	if q.peek() != nil {
		t.Fatal("the message went back within the window")
	}
	m.at(2 * time.Second)
	if got := q.peek(); got == nil || !got.redelivered {
		t.Fatalf("got %v, want the message back in its queue", got)
	}
	if len(m.s.waiting) != 0 {
		t.Fatal("the clock still looks after a session that is there")
	}
	m.say(p, text("SUBSCRIBE", "id:s", "destination:/queue/a", "ack:client-individual"))
	if q.peek() != nil {
		t.Fatal("the message is not delivered to the renewed subscription")
	}
}

func TestOutcomesAreBounded(t *testing.T) {
	c := &session{}
	for n := range uint64(maxRolled + 10) {
		c.addRolled(n)
		c.told = len(c.rolled)
	}
	if len(c.rolled) != maxRolled || c.rolled[0] != 10 || c.told != maxRolled {
		t.Fatalf("got %d from %d, %d told", len(c.rolled), c.rolled[0], c.told)
	}
}
