package broker

import (
	"strings"
	"testing"
	"time"
)

// Absence: the broker lived.

func TestBlipKeepsMessagesForTheSession(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	for n, body := range []string{"one", "two", "three"} {
		c.effect(n+1, "SEND", "destination:/queue/a", "="+body)
	}
	c.subscribe("s", "/queue/a", "client-individual", "prefetch-count:2")
	c.message("one")
	c.message("two")
	c.leave()
	// The rest of the queue flows to others meanwhile.
	other := s.subscriber("/queue/a", "client-individual")
	other.message("three")
	c, _ = s.sidecar(sessionX, 2, "understudy-cursor:3")
	r := c.subscribe("s", "/queue/a", "client-individual", "prefetch-count:2", claims(sessionX+":1=1.1", sessionX+":2=1.1"))
	if gone, ok := r.headers["understudy-gone"]; ok {
		t.Fatalf("got gone %s, want every claim granted", gone)
	}
	c.quiet() // the client has them
	c.effect(4, "ACK", "subscription:s", "message-id:"+sessionX+`\c1`)
	other.quiet()
	if n := s.one().Messages; n != 2 {
		t.Fatalf("got %d messages after the ACK of one of three, want 2", n)
	}
}

// What was on its way when the connection broke was never seen by the client: it is not claimed, and comes again to the same client, not to
// another that may have had later messages already.
func TestUnclaimedMessagesComeAgainInPlace(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	for n, body := range []string{"one", "two", "three"} {
		c.effect(n+1, "SEND", "destination:/queue/a", "="+body)
	}
	c.subscribe("s", "/queue/a", "client-individual", "prefetch-count:2")
	c.message("one")
	c.message("two")
	c.leave()
	other := s.subscriber("/queue/a", "client-individual")
	other.message("three")
	c, _ = s.sidecar(sessionX, 2)
	c.subscribe("s", "/queue/a", "client-individual", "prefetch-count:2", claims(sessionX+":1=1.1"))
	c.message("two", "redelivered", "true", "understudy-delivery", "2")
	other.quiet()
}

// Were it given again before its NACK is durable, a crash would leave the client with a message both refused and not.
func TestRefusedMessageComesAgainWhenTheRefusalIsDurable(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	c.effect(1, "SEND", "destination:/queue/a", "=one")
	c.subscribe("s", "/queue/a", "client-individual")
	c.message("one")
	c.write(text("NACK", "understudy-effect:2", "subscription:s", "message-id:"+sessionX+`\c1`))
	c.cursor(2) // comes first
	c.message("one", "redelivered", "true", "understudy-delivery", "2")
}

func TestWindowEndsAndMessagesGoToOthers(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	c.effect(1, "SEND", "destination:/queue/a", "=one")
	c.subscribe("s", "/queue/a", "client-individual")
	c.message("one")
	other := s.subscriber("/queue/a", "client-individual")
	began := time.Now()
	c.leave()
	m := other.message("one", "redelivered", "true")
	if took := time.Since(began); took < 250*time.Millisecond {
		t.Fatalf("went to another consumer after %v, before the window of 300ms was over", took)
	}
	// The session comes back too late: its claim is refused, its ACK is nothing, its COMMIT is rolled back.
	c, _ = s.sidecar(sessionX, 2)
	c.subscribeGone("s", "/queue/a", sessionX+":1", sessionX+":1=1.1")
	c.effect(2, "ACK", "subscription:s", "message-id:"+sessionX+`\c1`)
	c.send("BEGIN", "transaction:t")
	c.send("ACK", "transaction:t", "subscription:s", "message-id:"+sessionX+`\c1`)
	c.send("SEND", "transaction:t", "destination:/queue/b", "=never")
	if r := c.effect(3, "COMMIT", "transaction:t"); r.headers["understudy-rolled-back"] != "3" {
		t.Fatalf("got %v, want effect 3 rolled back", r)
	}
	c.effect(4, "SEND", "destination:/queue/b", "=next")
	d := s.subscriber("/queue/b", "auto")
	d.message("next")
	other.send("ACK", "id:"+m.headers["ack"], "receipt:a")
	other.expect("RECEIPT")
	d.quiet()
}

func TestClaimAfterAckIsGone(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	c.effect(1, "SEND", "destination:/queue/a", "=one")
	c.subscribe("s", "/queue/a", "client-individual")
	c.message("one")
	c.effect(2, "ACK", "subscription:s", "message-id:"+sessionX+`\c1`)
	c.leave()
	c, _ = s.sidecar(sessionX, 2) // it did not hear of the confirmation
	c.subscribeGone("s", "/queue/a", sessionX+":1", sessionX+":1=1.1")
	c.quiet()
}

// Absence: the broker died.

func TestGateHoldsRecoveredMessagesForAbsentSessions(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	for n, body := range []string{"one", "two", "three"} {
		c.effect(n+1, "SEND", "destination:/queue/a", "="+body)
	}
	c.effect(4, "SEND", "destination:/queue/free", "=free")
	c.subscribe("s", "/queue/a", "client-individual")
	c.message("one")
	c.message("two")
	c.message("three")
	s = s.restart(func(c *Config) { c.ReclaimWindow = 5 * time.Second })
	other := s.subscriber("/queue/a", "client-individual")
	other.sent("/queue/a", "four") // queues behind
	other.quiet()
	free := s.subscriber("/queue/free", "auto") // nobody absent was subscribed there
	free.message("free")
	c, _ = s.sidecar(sessionX, 2, "understudy-cursor:4")
	c.subscribe("s", "/queue/a", "client-individual", "prefetch-count:1", claims(sessionX+":2=1.1"))
	other.message("one")
	other.message("three")
	other.message("four")
	c.quiet()
}

func TestGateOpensWhenTheWindowIsOver(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	c.effect(1, "SEND", "destination:/queue/a", "=one")
	c.subscribe("s", "/queue/a", "client-individual")
	c.message("one")
	s = s.restart()
	other := s.subscriber("/queue/a", "client-individual")
	other.quiet()
	other.message("one")
}

func TestGateOpensForAClosedSession(t *testing.T) {
	for name, close := range map[string]func(s *testServer) *testServer{
		"before the restart": func(s *testServer) *testServer {
			c, _ := s.sidecar(sessionX, 2)
			c.send("DISCONNECT", "receipt:bye")
			c.expect("RECEIPT", "receipt-id", "bye")
			return s.restart(func(c *Config) { c.ReclaimWindow = 5 * time.Second })
		},
		"unsubscribed before the restart": func(s *testServer) *testServer {
			c, _ := s.sidecar(sessionX, 2)
			c.send("UNSUBSCRIBE", "id:s", "receipt:u")
			c.expect("RECEIPT", "receipt-id", "u")
			return s.restart(func(c *Config) { c.ReclaimWindow = 5 * time.Second })
		},
		"after it": func(s *testServer) *testServer {
			s = s.restart(func(c *Config) { c.ReclaimWindow = 5 * time.Second })
			c, _ := s.sidecar(sessionX, 2)
			c.send("DISCONNECT", "receipt:bye")
			c.expect("RECEIPT", "receipt-id", "bye")
			return s
		},
		"by UNSUBSCRIBE without SUBSCRIBE": func(s *testServer) *testServer {
			s = s.restart(func(c *Config) { c.ReclaimWindow = 5 * time.Second })
			c, _ := s.sidecar(sessionX, 2)
			c.send("UNSUBSCRIBE", "id:s", "receipt:u")
			c.expect("RECEIPT", "receipt-id", "u")
			c.send("UNSUBSCRIBE", "id:s", "receipt:again")
			c.expect("RECEIPT", "receipt-id", "again")
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serving(t)
			c, _ := s.sidecar(sessionX, 1)
			c.effect(1, "SEND", "destination:/queue/a", "=one")
			c.subscribe("s", "/queue/a", "client-individual")
			c.message("one")
			began := time.Now()
			s = close(s)
			s.subscriber("/queue/a", "auto").message("one")
			if took := time.Since(began); took > 4*time.Second {
				t.Fatalf("took %v", took)
			}
		})
	}
}

// Two sessions believe that they hold a message: the later delivery counts, in whichever order they come.
func TestHigherClaimWins(t *testing.T) {
	for _, first := range []string{sessionX, sessionY} {
		t.Run("first "+first[:2], func(t *testing.T) {
			s := serving(t)
			x, _ := s.sidecar(sessionX, 1)
			x.effect(1, "SEND", "destination:/queue/a", "=one")
			x.subscribe("s", "/queue/a", "client-individual")
			x.message("one")
			x.leave()
			y, _ := s.sidecar(sessionY, 1)
			y.subscribe("s", "/queue/a", "client-individual")
			y.message("one", "redelivered", "true", "understudy-delivery", "2")
			s = s.restart(func(c *Config) { c.ReclaimWindow = 5 * time.Second })
			id := sessionX + ":1"
			if first == sessionY {
				y, _ = s.sidecar(sessionY, 2)
				y.subscribe("s", "/queue/a", "client-individual", claims(id+"=1.2"))
				x, _ = s.sidecar(sessionX, 2)
				x.subscribeGone("s", "/queue/a", id, id+"=1.1")
			} else {
				x, _ = s.sidecar(sessionX, 2)
				x.subscribe("s", "/queue/a", "client-individual", claims(id+"=1.1"))
				y, _ = s.sidecar(sessionY, 2)
				y.subscribe("s", "/queue/a", "client-individual", claims(id+"=1.2"))
			}
			x.quiet()
			y.quiet()
			x.effect(2, "ACK", "subscription:s", "message-id:"+sessionX+`\c1`) // the loser's
			if n := s.one().Messages; n != 1 {
				t.Fatalf("got %d messages after the loser's ACK, want 1", n)
			}
			y.effect(1, "ACK", "subscription:s", "message-id:"+sessionX+`\c1`)
			if n := s.one().Messages; n != 0 {
				t.Fatalf("got %d messages after the winner's ACK, want 0", n)
			}
		})
	}
}

// A message in the hands of a consumer of this epoch is not given to an older claim.
func TestClaimOfAMessageHeldElsewhereIsGone(t *testing.T) {
	s := serving(t)
	x, _ := s.sidecar(sessionX, 1)
	x.effect(1, "SEND", "destination:/queue/a", "=one")
	x.subscribe("s", "/queue/a", "client-individual")
	x.message("one")
	s = s.restart()
	direct := s.subscriber("/queue/a", "client-individual")
	m := direct.message("one") // after the window
	x, _ = s.sidecar(sessionX, 2)
	x.subscribeGone("s", "/queue/a", sessionX+":1", sessionX+":1=1.1")
	direct.send("ACK", "id:"+m.headers["ack"], "receipt:a")
	direct.expect("RECEIPT", "receipt-id", "a")
}

// claims writes HeaderClaims of a 1.2 connection.
func claims(all ...string) string {
	return "understudy-claims:" + strings.ReplaceAll(strings.Join(all, ","), ":", `\c`)
}

// subscribeGone subscribes with a claim that must be refused.
func (c *client) subscribeGone(id, dest, gone string, claim string) {
	c.t.Helper()
	r := c.subscribe(id, dest, "client-individual", claims(claim))
	if got := r.headers["understudy-gone"]; got != gone {
		c.t.Fatalf("got gone %q, want %q", got, gone)
	}
}
