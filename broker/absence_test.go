package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
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
	if q.first() != nil {
		t.Fatal("the message went back within the window")
	}
	m.at(2 * time.Second)
	if got := q.first(); got == nil || !got.redelivered {
		t.Fatalf("got %v, want the message back in its queue", got)
	}
	if len(m.s.waiting) != 0 {
		t.Fatal("the clock still looks after a session that is there")
	}
	m.say(p, text("SUBSCRIBE", "id:s", "destination:/queue/a", "ack:client-individual"))
	if q.first() != nil {
		t.Fatal("the message is not delivered to the renewed subscription")
	}
}

// A claim that is granted and then lost to a better one, before it was answered, is answered as gone.
func TestClaimIsLostBeforeItIsAnswered(t *testing.T) {
	m := newSim(t)
	p, _ := m.connect(1)
	m.say(p, text("SEND", "understudy-effect:1", "destination:/queue/a", "=x"))
	id := sessionX + ":1"
	ask := func(session, basis string) *peer {
		q, _ := connectPeer(m.s, text("CONNECT", "accept-version:1.2", "understudy-session:"+session, "understudy-attempt:1"), m.sync)
		parser := newParser()
		feed(m.s, q, &decoder{version: frame.V12, sidecar: true}, &parser, []byte(
			text("SUBSCRIBE", "id:s", "destination:/queue/a", "ack:client-individual", "receipt:r", claims(id+"="+basis))))
		m.s.flush()
		return q
	}
	low := ask(sessionY, "6.1")
	high := ask(strings.Repeat("5", 32), "6.2")
	lower := ask(strings.Repeat("4", 32), "5.9")
	m.sync()
	for name, test := range map[string]struct {
		p    *peer
		gone bool
	}{"low": {low, true}, "high": {high, false}, "lower": {lower, true}} {
		if out := string(test.p.out); strings.Contains(out, "understudy-gone") != test.gone || strings.Contains(out, "MESSAGE") {
			t.Errorf("%s was told %q", name, out)
		}
	}
}

// Messages that were lost on the way over two broken connections are owed once, and then the subscription goes on.
func TestLostMessagesAreSentAfterTwoBreaks(t *testing.T) {
	m := newSim(t)
	p, _ := m.connect(1)
	for n := range 4 {
		m.say(p, text("SEND", fmt.Sprint("understudy-effect:", n+1), "destination:/queue/a", fmt.Sprint("=", n)))
	}
	subscribe := text("SUBSCRIBE", "id:s", "destination:/queue/a", "ack:client-individual", "prefetch-count:3")
	m.say(p, subscribe)
	for attempt := 2; attempt < 4; attempt++ {
		m.s.leave(p)
		m.s.cfg.MaxOut = 1 // room for one message at a time
		p, _ = m.connect(attempt)
		m.say(p, subscribe)
	}
	seen := ""
	for range 5 {
		seen += string(m.s.takeOut(p, nil))
		m.s.flush()
	}
	if got := strings.Count(seen, "MESSAGE"); got != 3 {
		t.Fatalf("%d messages were sent, want 3: %q", got, seen)
	}
	m.say(p, text("ACK", "understudy-effect:5", "subscription:s", "message-id:"+sessionX+`\c1`))
	if out := string(p.out) + string(m.s.takeOut(p, nil)); !strings.Contains(out, "\n3\x00") {
		t.Fatalf("the fourth message is not sent: %q", out)
	}
}

// Two consumers compete when the owner dies. What was on its way to one of them goes to it, even if the other is back first, or it
// breaks off again itself: the other has seen later messages.
func TestOrderOverATakeOver(t *testing.T) {
	for _, breaks := range []bool{false, true} {
		log := &memory{t: t, next: 1, deleted: map[journal.Segment]bool{}}
		cfg := Config{Listener: unbound{}}.withDefaults()
		m := &sim{t, log.recovered(0, time.Unix(1000, 0), &cfg), nil}
		sync := func() {
			log.sync(log.next - 1)
			m.s.advance(log.durable)
			m.s.flush()
			for _, e := range m.s.take(10) {
				e.fetch(log, m.s.hash, nil)
				m.s.handIn(e)
				m.s.flush()
			}
		}
		join := func(session string, attempt int, headers ...string) *peer {
			p, _ := connectPeer(m.s, text("CONNECT", "accept-version:1.2", "understudy-session:"+session, fmt.Sprint("understudy-attempt:", attempt)), sync)
			parser := newParser()
			feed(m.s, p, &decoder{version: frame.V12, sidecar: true}, &parser, []byte(
				text("SUBSCRIBE", append([]string{"id:s", "destination:/queue/a", "ack:client-individual"}, headers...)...)))
			sync()
			return p
		}
		x, y := join(sessionX, 1), join(sessionY, 1)
		feed(m.s, x, &decoder{version: frame.V12, sidecar: true}, ptr(newParser()), []byte(text("BEGIN", "transaction:t")+
			strings.Repeat(text("SEND", "transaction:t", "destination:/queue/a", "=x"), 4)+text("COMMIT", "understudy-effect:1", "transaction:t")))
		sync() // messages 0 and 2 are on their way to x, 1 and 3 have reached y, which acknowledges the last
		feed(m.s, y, &decoder{version: frame.V12, sidecar: true}, ptr(newParser()), []byte(
			text("ACK", "understudy-effect:1", "subscription:s", "message-id:"+sessionX+`\c1\c3`)))
		sync()
		m.s = log.recovered(log.durable, time.Unix(1000, 0), &cfg)
		if breaks {
			m.s.leave(join(sessionX, 2))
		}
		y = join(sessionY, 2, claims(sessionX+":1:1=1.1"))
		x = join(sessionX, 3)
		if out := string(y.out); strings.Contains(out, "MESSAGE") {
			t.Fatalf("y, which has seen message 3, got %q", out)
		}
		if out := string(x.out); !strings.Contains(out, sessionX+`\c1\c0`) || !strings.Contains(out, sessionX+`\c1\c2`) {
			t.Fatalf("x got %q, want messages 0 and 2", out)
		}
	}
}

// What is assigned to a subscription beyond its prefetch waits.
func TestAssignedMessagesRespectThePrefetch(t *testing.T) {
	m := newSim(t)
	p, _ := m.connect(1)
	m.say(p, text("SUBSCRIBE", "id:s", "destination:/queue/a", "ack:client-individual", "prefetch-count:1"))
	sub := p.session.subs["s"]
	q := sub.queue
	for n := range 3 {
		x := &message{id: msgID{n: uint64(n), index: fromDirect}, lsn: journal.LSN(n + 1), recovered: true, transient: true}
		m.s.add(q, x)
	}
	q.subs = append(q.subs, &subscription{present: true, floor: &floors{usualPriority: place{3, 0}}, queue: q, session: &session{}}) // somebody has seen the third
	m.s.assign(q)
	if got := strings.Count(string(p.out), "MESSAGE"); got != 1 || sub.held != 2 || sub.owed != 1 {
		t.Fatalf("%d messages were sent, %d are held, %d owed", got, sub.held, sub.owed)
	}
	m.say(p, text("ACK", "understudy-effect:1", "subscription:s", "message-id:0-0-0"))
	if got := strings.Count(string(p.out), "MESSAGE"); got != 2 || sub.owed != 0 {
		t.Fatalf("%d messages were sent, %d owed", got, sub.owed)
	}
}

func ptr[T any](v T) *T { return &v }

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
