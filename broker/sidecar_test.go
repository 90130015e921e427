package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"
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
			if n := s.Status().Messages; n != 0 {
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
	if n := s.Status().Recovered; n > 60 {
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
	store := s.Status().Store
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
	if n := s.Status().Messages; n != 2 {
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
			if n := s.Status().Messages; n != 1 {
				t.Fatalf("got %d messages after the loser's ACK, want 1", n)
			}
			y.effect(1, "ACK", "subscription:s", "message-id:"+sessionX+`\c1`)
			if n := s.Status().Messages; n != 0 {
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

// Transactions of a session.

func TestCommitIsAppliedOnce(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	transaction := text("BEGIN", "transaction:t") + text("SEND", "transaction:t", "destination:/queue/a", "=in") +
		text("COMMIT", "understudy-effect:2", "transaction:t")
	c.effect(1, "SEND", "destination:/queue/a", "=before")
	c.write(transaction)
	c.cursor(2)
	c.leave()
	c, _ = s.sidecar(sessionX, 2, "understudy-cursor:1")
	c.write(transaction)
	c.cursor(2)
	s = s.restart()
	c, _ = s.sidecar(sessionX, 3, "understudy-cursor:1")
	c.write(transaction)
	c.cursor(2)
	d := s.subscriber("/queue/a", "auto")
	d.message("before")
	d.message("in", "message-id", sessionX+":2:0")
	d.quiet()
}

func TestRolledBackCommitIsRepeatedUntilTheCursorPassesIt(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	c.subscribe("s", "/queue/a", "client-individual")
	doomed := text("BEGIN", "transaction:t") + text("SEND", "transaction:t", "destination:/queue/a", "=never") +
		text("ACK", "transaction:t", "subscription:s", "message-id:"+sessionY+`\c1`) + text("COMMIT", "understudy-effect:1", "transaction:t")
	c.write(doomed)
	if r := c.cursor(1); r.headers["understudy-rolled-back"] != "1" {
		t.Fatalf("got %v", r)
	}
	c.write(doomed) // a repeat hears the same
	if r := c.cursor(1); r.headers["understudy-rolled-back"] != "1" {
		t.Fatalf("got %v", r)
	}
	if r := c.effect(2, "SEND", "destination:/queue/b", "=next"); r.headers["understudy-rolled-back"] != "" {
		t.Fatalf("got %v, want nothing that was told before", r)
	}
	for attempt, cursor := range []string{"0", "0", "1", "1"} {
		s = s.restart()
		c, hello := s.sidecar(sessionX, attempt+2, "understudy-cursor:"+cursor)
		want := map[string]string{"0": "1", "1": ""}[cursor]
		if got := hello.headers["understudy-rolled-back"]; got != want || hello.headers["understudy-cursor"] != "2" {
			t.Fatalf("cursor %s: got %v, want %q rolled back", cursor, hello, want)
		}
		c.leave()
	}
	s.subscriber("/queue/a", "auto").quiet()
}

func TestTransactionOfALostConnectionIsAborted(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	c.effect(1, "SEND", "destination:/queue/a", "=one")
	c.subscribe("s", "/queue/a", "client-individual")
	c.message("one")
	tx := text("BEGIN", "transaction:t") + text("ACK", "transaction:t", "subscription:s", "message-id:"+sessionX+`\c1`) +
		text("SEND", "transaction:t", "destination:/queue/b", "=done")
	c.write(tx)
	c.leave()
	c, _ = s.sidecar(sessionX, 2)
	c.subscribe("s", "/queue/a", "client-individual", claims(sessionX+":1=1.1"))
	c.write(tx)
	if r := c.effect(2, "COMMIT", "transaction:t"); r.headers["understudy-rolled-back"] != "" {
		t.Fatalf("got %v, want the replayed transaction committed", r)
	}
	s = s.restart()
	s.subscriber("/queue/a", "auto").quiet()
	s.subscriber("/queue/b", "auto").message("done")
}

// Things that are no effects, or have none.

func TestAcksOfTopicMessagesAreNoEffect(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	c.subscribe("s", "/topic/a", "client-individual")
	c.send("SEND", "understudy-effect:1", "destination:/topic/a", "=news")
	c.message("news", "message-id", sessionX+":1")
	c.cursor(1)
	c.effect(2, "ACK", "subscription:s", "message-id:"+sessionX+`\c1`)
	c.send("BEGIN", "transaction:t")
	c.send("ACK", "transaction:t", "subscription:s", "message-id:"+sessionX+`\c1`)
	if r := c.effect(3, "COMMIT", "transaction:t"); r.headers["understudy-rolled-back"] != "" {
		t.Fatalf("got %v", r)
	}
}

func TestSidecarAcknowledgesNothing(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	c.effect(1, "ACK", "subscription:-", "message-id:-")
	c.effect(2, "NACK", "subscription:nobody", "message-id:"+sessionX+`\c99`)
	c.effect(3, "SEND", "destination:/queue/a", "persistent:false", "=fleeting")
	s.subscriber("/queue/a", "auto").message("fleeting", "persistent", "false")
	s = s.restart()
	if _, hello := s.sidecar(sessionX, 2, "understudy-cursor:3"); hello.headers["understudy-cursor"] != "3" {
		t.Fatalf("got %v, want cursor 3", hello)
	}
}

func TestDisconnectAnswersAfterTheCursor(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	var b strings.Builder
	for n := 1; n <= 200; n++ {
		b.WriteString(text("SEND", fmt.Sprint("understudy-effect:", n), "destination:/queue/a", "=x"))
	}
	c.write(b.String() + text("DISCONNECT", "receipt:bye"))
	confirmed := ""
	for {
		r := c.expect("RECEIPT")
		if r.headers["receipt-id"] == "bye" {
			break
		}
		confirmed = r.headers["understudy-cursor"]
	}
	if confirmed != "200" {
		t.Fatalf("DISCONNECT was answered when %s was confirmed, want 200", confirmed)
	}
	c.closed()
	// The answer may have been lost: the sidecar comes back, hears the cursor and says it again.
	c, hello := s.sidecar(sessionX, 2, "understudy-cursor:150")
	if hello.headers["understudy-cursor"] != "200" {
		t.Fatalf("got %v", hello)
	}
	c.send("DISCONNECT", "receipt:bye")
	c.expect("RECEIPT", "receipt-id", "bye")
	c.closed()
}

func TestHeadersOfOursStayBetweenUs(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	c.effect(1, "SEND", "destination:/queue/a", "understudy-whatever:1", "kept:yes", "=one")
	d := s.connected("1.2")
	d.sent("/queue/a", "two", "understudy-effect:7")
	d.subscribe("s", "/queue/a", "auto", "understudy-claims:x")
	for _, body := range []string{"one", "two"} {
		for _, name := range d.message(body).order {
			if strings.HasPrefix(name, "understudy-") {
				t.Fatalf("a direct client saw %s", name)
			}
		}
	}
}

func TestProbe(t *testing.T) {
	s := serving(t)
	c := s.dial()
	hello := c.connect("1.2", "understudy-probe:1")
	if hello.headers["understudy-store"] != s.Status().Store || hello.headers["understudy-epoch"] != "1" {
		t.Fatalf("got %v", hello)
	}
	if n := s.Status().Sessions; n != 0 {
		t.Fatalf("a probe made %d sessions", n)
	}
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
