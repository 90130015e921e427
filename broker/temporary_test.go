package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// A direct requester and a responder that knows nothing of temporary queues.
func TestRequestAndReply(t *testing.T) {
	for _, version := range []string{"1.0", "1.1", "1.2"} {
		s := serving(t)
		responder := s.subscriber("/queue/requests", "auto")
		c := s.connected(version)
		c.send("SUBSCRIBE", "id:r", "destination:/temp-queue/answers", "receipt:s")
		c.expect("RECEIPT", "receipt-id", "s")
		c.sent("/queue/requests", "ask", "reply-to:/temp-queue/answers", "correlation-id:7")
		to := responder.message("ask", "correlation-id", "7").headers["reply-to"]
		if !strings.HasPrefix(to, "/remote-temp-queue/") || !strings.HasSuffix(to, "/answers") {
			t.Fatalf("reply-to is %s", to)
		}
		responder.sent(to, "answer", "correlation-id:7")
		c.message("answer", "destination", "/temp-queue/answers", "subscription", "r", "correlation-id", "7")
		// It is its connection's: another's of that name is another, and nobody else listens to it.
		other := s.connected("1.2")
		other.subscribe("r", "/temp-queue/answers", "auto")
		responder.sent(to, "again")
		c.message("again")
		other.quiet()
		other.send("SUBSCRIBE", "id:x", "destination:"+to)
		other.refused("not your temporary queue")
		// With its owner it goes, and what is sent to it; the responder lives.
		c.send("UNSUBSCRIBE", "id:r", "destination:/temp-queue/answers", "receipt:u")
		c.expect("RECEIPT", "receipt-id", "u")
		responder.sent(to, "kept")
		if n := s.one().Messages; n != 1 {
			t.Fatalf("%d messages, want 1", n)
		}
		c.leave()
		eventually(t, "it goes", func() bool { return s.one().Messages == 0 })
		responder.sent(to, "late")
		responder.send("BEGIN", "transaction:t")
		responder.send("SEND", "transaction:t", "destination:"+to, "=late")
		responder.send("COMMIT", "transaction:t", "receipt:c")
		responder.expect("RECEIPT", "receipt-id", "c")
		if st := s.one(); st.Messages != 0 || st.Queues != 1 {
			t.Fatalf("got %+v, want the responder's queue only", st)
		}
		if n := s.hold().count.unreachable.Get(); n != 2 {
			t.Fatalf("%d messages were counted as unreachable, want 2", n)
		}
	}
}

// The first use makes it, be it as a reply-to, as a destination, or in a transaction.
func TestFirstUseMakesATemporaryQueue(t *testing.T) {
	s := serving(t)
	responder := s.subscriber("/queue/requests", "auto")
	c := s.connected("1.2")
	c.sent("/queue/requests", "ask", "reply-to:/temp-queue/a\\cb")
	to := responder.message("ask").headers["reply-to"]
	responder.sent(strings.ReplaceAll(to, ":", "\\c"), "one")
	c.sent("/temp-queue/a\\cb", "two")
	c.send("BEGIN", "transaction:t")
	c.send("SEND", "transaction:t", "destination:/temp-queue/in-tx", "=three")
	c.send("COMMIT", "transaction:t")
	c.subscribe("s", "/temp-queue/a\\cb", "auto")
	c.message("one", "destination", "/temp-queue/a:b")
	c.message("two")
	c.subscribe("t", "/temp-queue/in-tx", "auto")
	c.message("three")
	c.subscribe("u", strings.ReplaceAll(to, ":", "\\c"), "auto")
	responder.sent("/queue/other", "plain", "reply-to:/queue/x")
	s.subscriber("/queue/other", "auto").message("plain", "reply-to", "/queue/x")
}

func TestTemporaryQueueErrors(t *testing.T) {
	s := serving(t, func(c *Config) { c.MaxTemporary = 1 })
	for _, c := range []struct{ message, command, header string }{
		{"too many temporary queues", "SEND", "reply-to:/temp-queue/b"}, {"too many temporary queues", "SEND", "destination:/temp-queue/b"},
		{"malformed SEND", "SEND", "reply-to:/temp-queue/"}, {"malformed SEND", "SEND", "reply-to:/temp-topic/a"}, {"malformed SEND", "SEND", "destination:/temp-topic/a"},
		{"malformed SEND", "SEND", "destination:/temp-queue/" + strings.Repeat("x", maxTemp+1)}, {"malformed SUBSCRIBE", "SUBSCRIBE", "destination:/temp-topic/a"},
		{"not your temporary queue", "SUBSCRIBE", "destination:/remote-temp-queue/1-1/a"},
	} {
		x := s.connected("1.2")
		x.sent("/temp-queue/a", "one", "reply-to:/temp-queue/a")
		x.send(c.command, "id:1", c.header, "destination:/queue/a")
		x.refused(c.message)
	}
	eventually(t, "nothing is left", func() bool { return s.one().Messages == 0 })
}

// The broker dies while an answer is due. The responder comes back first: its answer waits in the queue of a session that is still away.
func TestResponderIsBackFirst(t *testing.T) {
	s := serving(t)
	responder, _ := s.sidecar(sessionY, 1)
	responder.subscribe("s", "/queue/requests", "client-individual")
	c, _ := s.sidecar(sessionX, 1)
	c.subscribe("r", "/temp-queue/answers", "client-individual")
	c.effect(1, "SEND", "destination:/queue/requests", "reply-to:/temp-queue/answers", "=ask")
	c.effect(2, "SEND", "destination:/temp-queue/answers", "=note to self")
	c.message("note to self")
	to := responder.message("ask").headers["reply-to"]
	if want := "/remote-temp-queue/" + sessionX + "/answers"; to != want {
		t.Fatalf("reply-to is %s, want %s", to, want)
	}
	for attempt := 2; attempt < 4; attempt++ {
		s = s.restart()
		responder, _ = s.sidecar(sessionY, attempt)
		responder.subscribe("s", "/queue/requests", "client-individual", claims(sessionX+":1=1.1"))
		responder.effect(attempt-1, "SEND", "destination:"+to, "=answer")
		stranger := s.connected("1.2")
		stranger.send("SUBSCRIBE", "id:1", "destination:"+to)
		stranger.refused("not your temporary queue")
	}
	c, _ = s.sidecar(sessionX, 2, "understudy-cursor:2")
	r := c.subscribe("r", "/temp-queue/answers", "client-individual", claims(sessionX+":2=1.1"))
	if gone, ok := r.headers["understudy-gone"]; ok {
		t.Fatalf("got gone %s, want every claim granted", gone)
	}
	c.message("answer", "destination", "/temp-queue/answers")
	c.message("answer")
	c.effect(3, "ACK", "subscription:r", "message-id:"+sessionX+`\c2`)
	// It ends with the session, also for an owner of the store that learns of both from the journal.
	c.send("DISCONNECT", "receipt:d")
	c.expect("RECEIPT", "receipt-id", "d")
	c.leave()
	eventually(t, "it goes", func() bool { return s.one().Messages == 1 })
	s = s.restart()
	if st := s.one(); st.Messages != 1 {
		t.Fatalf("got %+v, want the request only", st)
	}
}

// A direct client's dies with the server: what was in it is not there afterwards, and what is sent to it is dropped.
func TestTemporaryQueueOfADirectClientIsNotRecovered(t *testing.T) {
	s := serving(t)
	responder := s.subscriber("/queue/requests", "auto")
	c := s.connected("1.2")
	c.sent("/queue/requests", "ask", "reply-to:/temp-queue/a")
	to := responder.message("ask").headers["reply-to"]
	y, _ := s.sidecar(sessionY, 1)
	y.effect(1, "SEND", "destination:"+to, "=answer")
	y.send("BEGIN", "transaction:t")
	y.send("SEND", "transaction:t", "destination:"+to, "=answer")
	y.effect(2, "COMMIT", "transaction:t")
	if n := s.one().Messages; n != 2 {
		t.Fatalf("%d messages, want 2", n)
	}
	s = s.restart()
	if st := s.one(); st.Messages != 0 || st.Queues != 0 {
		t.Fatalf("got %+v, want nothing", st)
	}
	y, _ = s.sidecar(sessionY, 2, "understudy-cursor:2")
	y.effect(3, "SEND", "destination:"+to, "=answer")
	if st := s.one(); st.Messages != 0 || st.Queues != 0 {
		t.Fatalf("got %+v, want nothing", st)
	}
}

// A crash may come between the record that ends a queue and the acknowledgements of what was in it. The next owner finds messages without a
// queue, and writes those; the one after finds nothing.
func TestOrphansAreDiscarded(t *testing.T) {
	cfg := Config{MaxMemory: 1 << 30, Listener: unbound{}}.withDefaults()
	log := &memory{t: t, next: 1, deleted: map[journal.Segment]bool{}}
	s := log.recovered(0, time.Unix(1e9, 0), &cfg)
	x, d := benchPeer(s, text("CONNECT", "accept-version:1.2", "understudy-session:"+sessionX, "understudy-attempt:1", "client-id:c"))
	d.owner = sessionX
	parser := newParser()
	do := func(command string, headers ...string) { feed(s, x, d, &parser, []byte(text(command, headers...))) }
	do("SUBSCRIBE", "id:d", "destination:/topic/t", "durable-subscription-name:d")
	do("SEND", "understudy-effect:1", "destination:/temp-queue/a", "=temporary")
	do("SEND", "understudy-effect:2", "destination:/topic/t", "=durable")
	do("BEGIN", "transaction:t")
	do("SEND", "transaction:t", "destination:/topic/t", "=durable")
	do("SEND", "transaction:t", "destination:/temp-queue/a", "=temporary")
	do("COMMIT", "understudy-effect:3", "transaction:t")
	if s.messages != 4 {
		t.Fatalf("%d messages, want 4", s.messages)
	}
	do("UNSUBSCRIBE", "id:d", "durable-subscription-name:d", "receipt:u")
	do("DISCONNECT")
	ended := log.next - 1
	s.flush()
	if s.messages != 0 || log.next-1 == ended {
		t.Fatalf("%d messages are left, %d records were written", s.messages, log.next-1-ended)
	}
	s = log.recovered(ended, time.Unix(1e9, 0), &cfg)
	if s.messages != 0 || len(s.queues) != 0 || s.memory != 0 {
		t.Fatalf("%d messages are left", s.messages)
	}
	live := 0
	for _, r := range log.records {
		live += r.account.Live - len(r.account.Ends)
	}
	if live != 0 {
		t.Fatalf("the journal keeps %d messages", live)
	}
}
