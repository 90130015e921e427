package broker

import (
	"fmt"
	"testing"
)

func TestSelectorTakesItsMessagesAndLeavesOthers(t *testing.T) {
	s := serving(t)
	red := s.subscriber("/queue/a", "client-individual", "selector:color = 'red' AND size > 2")
	p := s.connected("1.2")
	p.sent("/queue/a", "blue", "color:blue", "size:3")
	p.sent("/queue/a", "small", "color:red", "size:2")
	p.sent("/queue/a", "one", "color:red", "size:3")
	p.sent("/queue/a", "two", "color:red", "size:10")
	red.message("one")
	red.message("two")
	all := s.subscriber("/queue/a", "client-individual")
	all.message("blue")
	all.message("small")
	red.quiet()
	p.sent("/queue/a", "none")
	all.message("none")
}

// A message that comes back is offered again, in its place, to those that have looked past it.
func TestReturnedMessageIsSelectedAgain(t *testing.T) {
	s := serving(t)
	p := s.connected("1.2")
	for _, body := range []string{"one", "two", "three"} {
		p.sent("/queue/a", body, "n:"+body)
	}
	all := s.subscriber("/queue/a", "client-individual", "prefetch-count:1")
	all.message("one")
	some := s.subscriber("/queue/a", "client-individual", "selector:n <> 'two'")
	some.message("three")
	all.leave()
	some.message("one", "redelivered", "true")
	some.quiet()
	m := s.subscriber("/queue/a", "client-individual")
	m.message("two")
	some.leave()
	m.message("one")
	m.message("three")
}

// The last selector of a queue leaves: who found nothing is served as ever.
func TestQueueGoesOnWithoutItsSelectors(t *testing.T) {
	s := serving(t)
	all := s.subscriber("/queue/a", "client-individual")
	some := s.subscriber("/queue/a", "client-individual", "selector:n = 1")
	p := s.connected("1.2")
	p.sent("/queue/a", "two", "n:2")
	all.message("two")
	some.send("UNSUBSCRIBE", "id:s", "receipt:u")
	some.expect("RECEIPT", "receipt-id", "u")
	p.sent("/queue/a", "one", "n:1")
	all.message("one")
	p.sent("/queue/a", "three", "n:3")
	all.message("three")
}

func TestSelectorOnTopic(t *testing.T) {
	s := serving(t)
	sub := s.subscriber("/topic/a", "auto", "selector:JMSType = 'x' AND \"x-uid\" LIKE 'a\\c%'")
	p := s.connected("1.2")
	p.sent("/topic/a", "no", "type:y", "x-uid:a\\cb")
	p.sent("/topic/a", "neither", "x-uid:a\\cb")
	p.sent("/topic/a", "yes", "type:x", "x-uid:a\\cb")
	sub.message("yes")
	sub.quiet()
}

func TestSelectorKnowsNamesOfJMS(t *testing.T) {
	m := &message{id: msgID{1, 2, 3, fromDirect}, data: []byte("type:t\ncorrelation-id:c\nreply-to:/queue/r\ntimestamp:5\na\\cb:c\\nd\n")}
	m.split = int32(len(m.data))
	for name, want := range map[string]string{
		"JMSType": "t", "JMSCorrelationID": "c", "JMSReplyTo": "/queue/r", "JMSTimestamp": "5", "JMSPriority": "4", "JMSDeliveryMode": "PERSISTENT",
		"JMSMessageID": "1-2-3", "a:b": "c\nd", "correlation-id": "c",
	} {
		if got, ok := m.Header(name); !ok || string(got) != want {
			t.Errorf("%s is %q %v, want %q", name, got, ok, want)
		}
	}
	if v, ok := m.Header("missing"); ok {
		t.Errorf("missing is %q", v)
	}
}

// What is not selected is looked at once, however much passes by; and no call into the store looks at more than its share.
func TestSelectorLooksAtEachMessageOnce(t *testing.T) {
	const backlog = 3 * maxLooks
	s, log := benchStore()
	parser := newParser()
	p, d := benchPeer(s, "CONNECT\naccept-version:1.2\n\n\x00")
	for i := range backlog {
		feed(s, p, d, &parser, []byte(text("SEND", "destination:/queue/a", fmt.Sprint("n:", i), "=x")))
	}
	s.advance(log.lsn)
	c, cd := benchPeer(s, "CONNECT\naccept-version:1.2\n\n\x00")
	feed(s, c, cd, &parser, []byte(text("SUBSCRIBE", "id:s", "destination:/queue/a", "ack:client-individual", fmt.Sprint("selector:n >= ", backlog-1))))
	total := 0
	turn := func() {
		s.flush()
		if s.looks > maxLooks {
			t.Fatalf("%d looks in one call", s.looks)
		}
		total += s.looks
	}
	turn()
	for rounds := 0; len(c.out) == 0; rounds++ {
		if !c.touched || rounds > 10 {
			t.Fatalf("after %d looks it is not woken to go on", total)
		}
		s.wake, c.touched = nil, false
		s.takeOut(c, nil) // as its writer does
		turn()
	}
	for i := range 2000 {
		feed(s, p, d, &parser, []byte(text("SEND", "destination:/queue/a", "n:0", "=x")))
		if s.advance(log.lsn); i%2 == 0 {
			turn()
		}
	}
	turn()
	if most := backlog + 2000 + 10; total > most || total < backlog {
		t.Fatalf("%d looks at %d messages", total, backlog+2000)
	}
}

// A recovered message that nobody claims is not given to an absent session whose selector does not want it.
func TestSelectorSurvivesTakeover(t *testing.T) {
	s := serving(t)
	x, _ := s.sidecar(sessionX, 1)
	y, _ := s.sidecar(sessionY, 1)
	x.subscribe("s", "/queue/a", "client-individual", "selector:n = 1")
	y.subscribe("s", "/queue/a", "client-individual", "selector:n = 2")
	p := s.connected("1.2")
	for i := range 6 {
		p.sent("/queue/a", fmt.Sprint(i), fmt.Sprint("n:", 1+i%2))
	}
	for i := range 3 {
		x.message(fmt.Sprint(2 * i))
		y.message(fmt.Sprint(2*i + 1))
	}
	s = s.restart()
	y, _ = s.sidecar(sessionY, 2)
	y.subscribe("s", "/queue/a", "client-individual", "selector:n = 2")
	y.quiet() // until the other one has claimed
	x, _ = s.sidecar(sessionX, 2)
	x.subscribe("s", "/queue/a", "client-individual", "selector:n = 1")
	for i := range 3 {
		x.message(fmt.Sprint(2 * i))
		y.message(fmt.Sprint(2*i + 1))
	}
	x.quiet()
	y.quiet()
}

// What nobody claims after a take-over goes to whoever has seen nothing later, but not if that one would not have it.
func TestUnclaimedMessagesAreAssignedBySelector(t *testing.T) {
	s := serving(t)
	x, _ := s.sidecar(sessionX, 1)
	y, _ := s.sidecar(sessionY, 1)
	x.subscribe("s", "/queue/a", "client-individual", "selector:n = 1")
	y.subscribe("s", "/queue/a", "client-individual", "selector:n = 2")
	for n := 1; n <= 5; n++ {
		y.effect(n, "SEND", "destination:/queue/a", fmt.Sprint("n:", 2-n%2), "="+fmt.Sprint(n))
		if n%2 == 0 {
			y.message(fmt.Sprint(n))
		}
	}
	s = s.restart()
	y, _ = s.sidecar(sessionY, 2, "understudy-cursor:5")
	y.subscribe("s", "/queue/a", "client-individual", "selector:n = 2")
	x, _ = s.sidecar(sessionX, 2)
	x.subscribe("s", "/queue/a", "client-individual", "selector:n = 1", claims(sessionY+":5=1.1"))
	x.message("1")
	x.message("3")
	y.message("2")
	y.message("4")
}

// A message that comes back ahead of where a subscription has looked waits for its place.
func TestReturnedMessageDoesNotOvertake(t *testing.T) {
	s := serving(t)
	some := s.subscriber("/queue/a", "client-individual", "selector:n > 0", "prefetch-count:1")
	third := s.subscriber("/queue/a", "client-individual", "selector:n = 3")
	p := s.connected("1.2")
	p.sent("/queue/a", "one", "n:1")
	ack := some.message("one").headers["ack"]
	p.sent("/queue/a", "two", "n:2")
	p.sent("/queue/a", "three", "n:3")
	third.message("three")
	third.leave()
	eventually(t, "it is given back", func() bool { return s.Status().Connections == 2 })
	for _, body := range []string{"two", "three"} {
		some.send("ACK", "id:"+ack)
		ack = some.message(body).headers["ack"]
	}
}
