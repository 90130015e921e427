package broker

import (
	"fmt"
	"strings"
	"testing"
)

// client is a direct 1.2 client with a client-id.
func (s *testServer) client(id string) *client {
	s.t.Helper()
	c := s.dial()
	c.connect("1.2", "client-id:"+id)
	return c
}

// durably is a client with the durable subscription d of /topic/a, which has the id s.
func (s *testServer) durably(id string, headers ...string) *client {
	s.t.Helper()
	c := s.client(id)
	c.subscribe("s", "/topic/a", "client-individual", append([]string{"durable-subscription-name:d"}, headers...)...)
	return c
}

func TestDurableSubscriptionKeepsMessages(t *testing.T) {
	for _, name := range []string{"durable-subscription-name", "durable-subscriber-name", "activemq.subscriptionName"} {
		s := serving(t)
		c := s.client("c")
		c.subscribe("s", "/topic/a", "client-individual", name+":d")
		plain := s.subscriber("/topic/a", "auto")
		p := s.connected("1.2")
		p.sent("/topic/a", "one")
		c.message("one", "destination", "/topic/a", "subscription", "s")
		plain.message("one")
		c.leave()
		eventually(t, "it detaches", func() bool { return s.Status().Connections == 2 })
		p.sent("/topic/a", "two")
		p.sent("/topic/a", "transient", "persistent:false")
		p.send("BEGIN", "transaction:t")
		p.send("SEND", "destination:/topic/a", "transaction:t", "=three")
		p.send("SEND", "destination:/queue/a", "transaction:t", "=for a queue")
		p.send("SEND", "destination:/topic/none", "transaction:t", "=for nobody")
		p.send("SEND", "destination:/topic/a", "transaction:t", "=four")
		p.send("COMMIT", "transaction:t", "receipt:c")
		p.expect("RECEIPT", "receipt-id", "c")
		s = s.restart()
		s.subscriber("/queue/a", "auto").message("for a queue")
		c = s.durably("c", "prefetch-count:1")
		for _, body := range []string{"one", "two", "three", "four"} {
			ack := c.message(body).headers["ack"]
			c.send("ACK", "id:"+ack)
		}
		eventually(t, "everything is acknowledged", func() bool { return s.one().Messages == 0 })
		s.connected("1.2").sent("/topic/a", "five")
		c.message("five")
		c.leave()
		s = s.restart()
		s.durably("c").message("five")
		if n := s.one().Messages; n != 1 {
			t.Fatalf("%d messages are left, want 1", n)
		}
	}
}

func TestDurableSubscriptionsAreEachTheirOwn(t *testing.T) {
	s := serving(t)
	a, b := s.durably("a"), s.durably("b", "selector:n = 2")
	a.subscribe("t", "/topic/a", "client-individual", "durable-subscription-name:e")
	p := s.connected("1.2")
	p.sent("/topic/a", "one", "n:1")
	p.sent("/topic/a", "two", "n:2")
	b.message("two")
	b.quiet()
	got := map[string]int{}
	for range 4 {
		r := a.expect("MESSAGE")
		got[r.headers["subscription"]+r.body]++
	}
	if len(got) != 4 {
		t.Fatalf("got %v", got)
	}
	a.leave()
	b.leave()
	s = s.restart()
	if n := s.one().Messages; n != 5 {
		t.Fatalf("%d messages after a restart, want 5", n)
	}
	b = s.durably("b", "selector:n = 2")
	b.message("two")
	b.quiet()
}

func TestDurableSubscriptionIsInUse(t *testing.T) {
	s := serving(t)
	c := s.durably("c")
	other := s.client("c")
	other.send("SUBSCRIBE", "id:s", "destination:/topic/a", "durable-subscription-name:d")
	other.refused("durable subscription in use")
	other = s.client("c")
	other.send("UNSUBSCRIBE", "id:s", "durable-subscription-name:d")
	other.refused("durable subscription in use")
	c.send("SUBSCRIBE", "id:t", "destination:/topic/a", "durable-subscription-name:d")
	c.refused("durable subscription in use")
	s.durably("c")
}

func TestDurableSubscriptionErrors(t *testing.T) {
	s := serving(t, func(c *Config) { c.MaxDurables = 1 })
	for _, c := range []struct{ client, dest, message string }{
		{"", "/topic/a", "no client-id"}, {"c", "/queue/a", "invalid destination"}, {"c", "/topic/a", "too many durable subscriptions"},
	} {
		if c.dest == "/topic/a" && c.client != "" {
			s.durably("other").leave()
		}
		x := s.client(c.client)
		x.send("SUBSCRIBE", "id:s", "destination:"+c.dest, "durable-subscription-name:d")
		x.refused(c.message)
	}
	x := s.client("c")
	x.send("UNSUBSCRIBE", "id:s", "durable-subscription-name:d")
	x.refused("no such subscription")
	x = s.dial()
	x.send("CONNECT", "accept-version:1.2", "client-id:"+strings.Repeat("x", maxName+1))
	x.refused("malformed CONNECT")
}

func TestUnsubscribeDetachesOrDeletes(t *testing.T) {
	s := serving(t)
	p := s.connected("1.2")
	c := s.durably("c")
	p.sent("/topic/a", "one")
	c.message("one")
	c.send("UNSUBSCRIBE", "id:s", "receipt:u")
	c.expect("RECEIPT", "receipt-id", "u")
	p.sent("/topic/a", "two")
	c.subscribe("s", "/topic/a", "client-individual", "durable-subscription-name:d")
	c.message("one", "redelivered", "true")
	c.message("two")
	c.send("UNSUBSCRIBE", "id:s", "receipt:u")
	c.expect("RECEIPT", "receipt-id", "u")
	c.send("UNSUBSCRIBE", "id:s", "activemq.subscriptionName:d", "receipt:u") // not attached any more
	c.expect("RECEIPT", "receipt-id", "u")
	if n := s.one().Messages; n != 0 {
		t.Fatalf("%d messages are left of a subscription that was deleted", n)
	}
	p.sent("/topic/a", "three")
	c.subscribe("s", "/topic/a", "client-individual", "durable-subscription-name:d")
	c.quiet()
	p.sent("/topic/a", "four")
	c.message("four")
	c.send("UNSUBSCRIBE", "id:s", "durable-subscription-name:d", "receipt:u") // attached
	c.expect("RECEIPT", "receipt-id", "u")
	c.leave()
	s = s.restart()
	if n := s.one().Messages; n != 0 {
		t.Fatalf("%d messages after a restart", n)
	}
	s.durably("c").quiet()
}

// What an open transaction has acknowledged when its subscription is deleted is settled by how it ends, once.
func TestDeletedUnderATransaction(t *testing.T) {
	for _, end := range []string{"COMMIT", "ABORT"} {
		s := serving(t)
		c := s.durably("c")
		s.connected("1.2").sent("/topic/a", "one")
		ack := c.message("one").headers["ack"]
		c.send("BEGIN", "transaction:t")
		c.send("ACK", "id:"+ack, "transaction:t")
		c.send("UNSUBSCRIBE", "id:s", "durable-subscription-name:d", "receipt:u")
		c.expect("RECEIPT", "receipt-id", "u")
		c.send(end, "transaction:t", "receipt:e")
		c.expect("RECEIPT", "receipt-id", "e")
		eventually(t, "nothing is left", func() bool { return s.one().Messages == 0 })
		s = s.restart()
		if n := s.one().Messages; n != 0 {
			t.Fatalf("%s: %d messages after a restart", end, n)
		}
	}
}

func TestOtherTopicOrSelectorMakesItAnew(t *testing.T) {
	s := serving(t)
	p := s.connected("1.2")
	c := s.durably("c")
	p.sent("/topic/a", "old", "n:1")
	c.message("old")
	c.leave()
	eventually(t, "it detaches", func() bool { return s.Status().Connections == 1 })
	c = s.durably("c", "selector:n = 1")
	c.quiet()
	p.sent("/topic/a", "other", "n:2")
	p.sent("/topic/a", "new", "n:1")
	c.message("new")
	c.leave()
	s = s.restart()
	s.durably("c", "selector:n = 1").message("new")
}

// A sidecar session comes back after its broker has died: what its client holds is not shown again, what was published meanwhile is there, and
// the late ACK counts.
func TestDurableSubscriptionOverTakeover(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1, "client-id:c")
	c.subscribe("s", "/topic/a", "client-individual", "durable-subscription-name:d")
	y, _ := s.sidecar(sessionY, 1)
	y.effect(1, "SEND", "destination:/topic/a", "=one")
	y.effect(2, "SEND", "destination:/topic/a", "=two")
	c.message("one")
	c.message("two")
	s = s.restart(func(c *Config) { c.ReclaimWindow = patience })
	y, _ = s.sidecar(sessionY, 2, "understudy-cursor:2")
	y.send("SEND", "understudy-effect:2", "destination:/topic/a", "=two") // played again
	y.cursor(2)
	y.effect(3, "SEND", "destination:/topic/a", "=three")
	thief := s.client("c")
	thief.send("SUBSCRIBE", "id:s", "destination:/topic/a", "durable-subscription-name:d")
	thief.refused("durable subscription in use") // for its session is expected back
	c, _ = s.sidecar(sessionX, 2, "client-id:c")
	r := c.subscribe("s", "/topic/a", "client-individual", "durable-subscription-name:d", claims(sessionY+":1=1.1"))
	if gone, ok := r.headers["understudy-gone"]; ok {
		t.Fatalf("got gone %s, want every claim granted", gone)
	}
	c.message("two")
	c.message("three")
	for n := 1; n <= 3; n++ {
		c.effect(n, "ACK", "subscription:s", "message-id:"+sessionY+`\c`+fmt.Sprint(n))
	}
	// A higher attempt takes it over from a connection that is still there.
	d, _ := s.sidecar(sessionX, 3, "client-id:c", "understudy-cursor:3")
	d.subscribe("s", "/topic/a", "client-individual", "durable-subscription-name:d")
	d.quiet()
	y.effect(4, "SEND", "destination:/topic/a", "=four")
	d.message("four")
	// Its sidecar has lost the answer to an UNSUBSCRIBE with the name, and says it again.
	for range 2 {
		d.send("UNSUBSCRIBE", "id:s", "durable-subscription-name:d", "receipt:u")
		d.expect("RECEIPT", "receipt-id", "u")
	}
	s = s.restart()
	if n := s.one().Messages; n != 0 {
		t.Fatalf("%d messages are left", n)
	}
}

// A session that stays away for longer than the window loses the subscription to the next that asks: its client may have come back by itself.
func TestDurableSubscriptionOfALostSession(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1, "client-id:c")
	c.subscribe("s", "/topic/a", "client-individual", "durable-subscription-name:d")
	p := s.connected("1.2")
	p.sent("/topic/a", "one")
	c.message("one")
	c.leave()
	var next *client
	eventually(t, "it is free", func() bool {
		next = s.client("c")
		next.send("SUBSCRIBE", "id:s", "destination:/topic/a", "ack:client-individual", "durable-subscription-name:d", "receipt:r")
		r, err := next.read(patience)
		return err == nil && r.command == "RECEIPT"
	})
	next.message("one", "redelivered", "true")
	c, _ = s.sidecar(sessionX, 2, "client-id:c")
	c.send("SUBSCRIBE", "id:s", "destination:/topic/a", "ack:client-individual", "durable-subscription-name:d", "receipt:r")
	c.refused("durable subscription in use", "receipt-id", "r")
	s = s.restart()
	s.durably("c").message("one")
}

// Places of messages are counted in a record: a transaction that has more copies than there are places is refused, and one that has as many is whole.
func TestTransactionHasNoMoreCopiesThanPlaces(t *testing.T) {
	if testing.Short() {
		t.Skip("half a million messages")
	}
	room := func(c *Config) { c.MaxMemory = 1 << 30 }
	s := serving(t, room)
	const durables = 512 // rather than more sends: all of the record is read again for each page of a subscription's messages
	d := s.client("c")
	for i := range durables {
		d.send("SUBSCRIBE", fmt.Sprint("id:", i), "destination:/topic/a", "ack:client-individual", fmt.Sprint("durable-subscription-name:", i), "receipt:s")
	}
	for range durables {
		d.expect("RECEIPT", "receipt-id", "s")
	}
	d.leave()
	for sends, fits := range map[int]bool{recordPlaces / durables: true, recordPlaces/durables + 1: false} {
		c := s.connected("1.2")
		c.send("BEGIN", "transaction:t")
		for i := range sends {
			c.send("SEND", "transaction:t", "destination:/topic/a", fmt.Sprint("=", i))
		}
		c.send("COMMIT", "transaction:t", "receipt:1")
		if fits {
			c.expect("RECEIPT", "receipt-id", "1")
		} else {
			c.expect("ERROR", "message", "transaction too big")
		}
	}
	if n := s.one().Messages; n != recordPlaces {
		t.Errorf("%d messages are there, want %d", n, recordPlaces)
	}
	s = s.restart(room)
	if n := s.one().Messages; n != recordPlaces {
		t.Errorf("%d messages are there after a restart, want %d", n, recordPlaces)
	}
	c := s.client("c")
	for _, durable := range []int{0, durables - 1} {
		c.subscribe(fmt.Sprint(durable), "/topic/a", "auto", fmt.Sprint("durable-subscription-name:", durable))
		for i := range recordPlaces / durables {
			c.message(fmt.Sprint(i), "subscription", fmt.Sprint(durable))
		}
	}
	c.quiet()
}
