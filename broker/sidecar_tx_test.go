package broker

import (
	"fmt"
	"strings"
	"testing"
)

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
	c.cursor(1)
	c.message("news", "message-id", sessionX+":1")
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
	if hello.headers["understudy-stores"] != s.one().UUID+";1;"+s.one().Name || hello.headers["understudy-store"] != "" {
		t.Fatalf("got %v", hello)
	}
	if n := s.one().Sessions; n != 0 {
		t.Fatalf("a probe made %d sessions", n)
	}
}
