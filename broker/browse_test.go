package broker

import (
	"fmt"
	"strings"
	"testing"
)

func TestBrowserIsShownTheQueueAndItsEnd(t *testing.T) {
	for _, version := range []string{"1.0", "1.1", "1.2"} {
		s := serving(t)
		p := s.connected("1.2")
		for _, body := range []string{"one", "two", "three"} {
			p.sent("/queue/a", body, "n:"+body)
		}
		p.sent("/queue/a", "in no journal", "persistent:false")
		holder := s.subscriber("/queue/a", "client-individual", "prefetch-count:1")
		ack := holder.message("one").headers["ack"]
		c := s.connected(version)
		c.send("SUBSCRIBE", "id:b", "destination:/queue/a", "browser:true", "ack:client", "receipt:r")
		c.expect("RECEIPT", "receipt-id", "r")
		for _, body := range []string{"one", "two", "three", "in no journal"} {
			r := c.message(body, "subscription", "b", "destination", "/queue/a")
			for _, name := range []string{"ack", "understudy-browse"} {
				if v, ok := r.headers[name]; ok {
					t.Fatalf("got %s:%s", name, v)
				}
			}
		}
		end := c.message("", "browser", "end", "subscription", "b", "message-id", "0", "destination", "/queue/a")
		if len(end.headers) != 4 {
			t.Fatalf("got %v", end)
		}
		p.sent("/queue/a", "four")
		c.quiet()
		c.send("UNSUBSCRIBE", "id:b", "receipt:u")
		c.expect("RECEIPT", "receipt-id", "u")
		c.send("SUBSCRIBE", "id:b", "destination:/queue/a", "browser:true", "selector:n LIKE 't%'")
		c.message("two")
		c.message("three")
		c.message("", "browser", "end")
		holder.send("ACK", "id:"+ack)
		holder.message("two")
	}
}

func TestBrowserOfAnEmptyQueue(t *testing.T) {
	s := serving(t)
	c := s.connected("1.2")
	c.subscribe("b", "/queue/none", "auto", "browser:true")
	c.message("", "browser", "end", "destination", "/queue/none")
	if n := s.one().Queues; n != 0 {
		t.Fatalf("%d queues after a look at none", n)
	}
	c.subscribe("t", "/temp-queue/t", "auto", "browser:true")
	c.message("", "browser", "end", "destination", "/temp-queue/t")
	c.subscribe("s", "/queue/none", "auto", "browser:false")
	c.sent("/queue/other", "x")
	c.send("SEND", "destination:/queue/none", "=one")
	c.message("one")
	c.send("SUBSCRIBE", "id:x", "destination:/topic/a", "browser:true")
	c.refused("invalid destination")
}

// A browser waits for its connection to take what it was shown, and others get on meanwhile.
func TestBrowserWaitsForRoom(t *testing.T) {
	s := serving(t, func(c *Config) { c.MaxOut = 100 })
	p := s.connected("1.2")
	for i := range 50 {
		p.sent("/queue/a", fmt.Sprint(i))
	}
	c := s.connected("1.2")
	c.subscribe("b", "/queue/a", "auto", "browser:true")
	for i := range 50 {
		c.message(fmt.Sprint(i))
	}
	c.message("", "browser", "end")
}

// With a selector that wants nothing it comes to its end by bounded steps.
func TestBrowserLooksInSteps(t *testing.T) {
	s, log := benchStore()
	parser := newParser()
	p, d := benchPeer(s, "CONNECT\naccept-version:1.2\n\n\x00")
	for range 3 * maxLooks {
		feed(s, p, d, &parser, []byte(text("SEND", "destination:/queue/a", "=x")))
	}
	s.advance(log.lsn)
	s.flush()
	feed(s, p, d, &parser, []byte(text("SUBSCRIBE", "id:b", "destination:/queue/a", "browser:true", "selector:n = 1")))
	turns := 0
	for ; len(p.out) == 0; turns++ {
		if !p.touched || turns > 10 {
			t.Fatal("it is not woken to go on")
		}
		s.wake, p.touched = nil, false
		out := s.takeOut(p, nil)
		p.out = append(p.out, out...)
		s.flush()
	}
	if turns < 2 || !strings.Contains(string(p.out), "browser:end") {
		t.Fatalf("after %d turns: %q", turns, p.out)
	}
}

// The broker dies in the middle of a browser, which goes on behind the last message that was shown, in the same order.
func TestBrowserGoesOnAfterATakeover(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	for n := 1; n <= 4; n++ {
		c.effect(n, "SEND", "destination:/queue/a", "="+fmt.Sprint(n))
	}
	holder := s.subscriber("/queue/a", "client-individual", "prefetch-count:1")
	ack := holder.message("1").headers["ack"]
	c.subscribe("b", "/queue/a", "client-individual", "browser:true")
	var places []string
	for n := 1; n <= 4; n++ {
		r := c.message(fmt.Sprint(n))
		if r.order[0] != "understudy-browse" {
			t.Fatalf("the headers are %v", r.order)
		}
		places = append(places, r.headers["understudy-browse"])
	}
	holder.send("ACK", "id:"+ack, "receipt:a")
	holder.message("2")
	holder.expect("RECEIPT", "receipt-id", "a")
	end := c.message("", "browser", "end")
	if v, ok := end.headers["understudy-browse"]; ok {
		t.Fatalf("the end is at %s", v)
	}
	s = s.restart()
	c, _ = s.sidecar(sessionX, 2, "understudy-cursor:4")
	c.subscribe("b", "/queue/a", "client-individual", "browser:true", "understudy-browse-after:"+places[1])
	c.message("3", "understudy-browse", places[2])
	c.message("4", "understudy-browse", places[3])
	c.message("", "browser", "end")
	// Over a blip, too.
	c.leave()
	c, _ = s.sidecar(sessionX, 3, "understudy-cursor:4")
	c.subscribe("b", "/queue/a", "client-individual", "browser:true", "understudy-browse-after:"+places[0])
	c.message("2", "understudy-browse", places[1])
	c.message("3")
	c.message("4")
	c.message("", "browser", "end")
	// Acknowledging what was only looked at is nothing.
	c.effect(5, "ACK", "subscription:b", "message-id:"+sessionX+`\c3`)
	if n := s.one().Messages; n != 3 {
		t.Fatalf("%d messages, want 3", n)
	}
	c.send("SUBSCRIBE", "id:c", "destination:/queue/a", "browser:true", "understudy-browse-after:x")
	c.refused("malformed SUBSCRIBE")
}
