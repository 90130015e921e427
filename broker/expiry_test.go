package broker

import (
	"fmt"
	"testing"
	"time"
)

// at is an expires header, so long from now.
func at(d time.Duration) string { return fmt.Sprint("expires:", time.Now().Add(d).UnixMilli()) }

func TestExpiredMessagesAreDeadLetters(t *testing.T) {
	s := serving(t)
	p := s.connected("1.2")
	p.sent("/queue/a", "late", at(-time.Second), "original-destination:x", "k:v", "priority:6")
	p.sent("/queue/a", "in no journal", at(-time.Second), "persistent:false")
	p.sent("/queue/a", "in time", at(time.Hour))
	p.sent("/queue/a", "for ever", "expires:0")
	p.sent("/queue/a", "no time", "expires:soon")
	c := s.subscriber("/queue/a", "client-individual")
	for _, body := range []string{"in time", "for ever", "no time"} {
		c.message(body)
	}
	c.quiet()
	b := s.subscriber("/queue/DLQ", "auto", "browser:true")
	r := b.message("late", "original-destination", "/queue/a", "k", "v", "message-id", "1-1-1", "destination", "/queue/DLQ")
	if v, ok := r.headers["expires"]; ok {
		t.Fatalf("a dead letter expires at %s", v)
	}
	b.message("", "browser", "end")
	if n := s.one().Messages; n != 4 {
		t.Fatalf("%d messages, want 4", n)
	}
	s = s.restart()
	d := s.subscriber("/queue/DLQ", "client-individual", "selector:JMSPriority = 6")
	d.send("ACK", "id:"+d.message("late", "message-id", "1-1-1").headers["ack"])
	eventually(t, "it is acknowledged", func() bool { return s.one().Messages == 3 })
	s = s.restart()
	if n := s.one().Messages; n != 3 {
		t.Fatalf("%d messages after a restart, want 3", n)
	}
}

// The clock finds a message wherever it is in its queue, and nobody has to ask.
func TestMessageExpiresWhileItWaits(t *testing.T) {
	s := serving(t)
	p := s.connected("1.2")
	p.sent("/queue/a", "first")
	p.sent("/queue/a", "expires", at(150*time.Millisecond))
	p.sent("/queue/a", "last")
	c := s.subscriber("/queue/DLQ", "client-individual")
	c.message("expires")
	c.send("SUBSCRIBE", "id:a", "destination:/queue/a", "ack:client-individual", "selector:TRUE")
	c.message("first")
	c.message("last")
}

// What somebody holds is his; it expires when it comes back.
func TestHeldMessageExpiresWhenItReturns(t *testing.T) {
	s := serving(t)
	p := s.connected("1.2")
	p.sent("/queue/a", "one", at(100*time.Millisecond))
	p.sent("/queue/a", "two", at(100*time.Millisecond))
	c := s.subscriber("/queue/a", "client-individual")
	ack := c.message("one").headers["ack"]
	c.message("two")
	d := s.subscriber("/queue/DLQ", "client-individual")
	time.Sleep(200 * time.Millisecond)
	c.send("ACK", "id:"+ack, "receipt:a")
	c.expect("RECEIPT", "receipt-id", "a")
	d.quiet()
	c.leave()
	d.message("two", "original-destination", "/queue/a")
	d.quiet()
}

func TestExpiredMessagesOfATopic(t *testing.T) {
	s := serving(t)
	c, plain := s.durably("c"), s.subscriber("/topic/a", "auto")
	some := s.subscriber("/queue/a", "client-individual", "selector:n = 1")
	p := s.connected("1.2")
	p.sent("/topic/a", "late", at(-time.Second))
	p.sent("/queue/a", "late, too", at(-time.Second), "n:1")
	p.sent("/queue/a", "in time", "n:1")
	some.message("in time")
	p.sent("/topic/a", "in time")
	c.message("in time")
	plain.message("in time")
	d := s.subscriber("/queue/DLQ", "client-individual")
	d.message("late", "original-destination", "/topic/a")
	d.message("late, too", "original-destination", "/queue/a")
	if n := s.hold().count.expired.Get(); n != 2 {
		t.Fatalf("%d were counted, want 2", n)
	}
}
