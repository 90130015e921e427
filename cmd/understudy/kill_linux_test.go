package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pair is a store with an owner and one that stands by, and a sidecar that knows both.
type pair struct {
	owner, heir, sidecar *child
}

func newPair(t *testing.T) *pair {
	dir := filepath.Join(t.TempDir(), "store")
	p := &pair{owner: launchBroker(t, dir, "--name", "owner").serves()}
	p.heir = launchBroker(t, dir, "--name", "heir").standsBy()
	p.sidecar = launch(t, "sidecar", "--broker", "stomp://"+p.owner.addrs["listen"], "--broker", "stomp://"+p.heir.addrs["listen"], "--probe-interval", "100ms")
	return p
}

func (p *pair) talk(t *testing.T, headers ...string) *talker {
	t.Helper()
	return talk(t, p.sidecar.addrs["listen"], headers...)
}

// kill ends the owner as a power cut of its process would.
func (p *pair) kill() {
	p.owner.signal(syscall.SIGKILL)
	p.owner.exit()
}

// numbered reads messages and wants their bodies to be 0, 1, 2 and so on, each once. It acknowledges what asks for it, after each was called.
func (c *talker) numbered(number int, each func(n int)) {
	c.t.Helper()
	for n := range number {
		h := c.expect("MESSAGE")
		if got, _, _ := strings.Cut(h.body, " "); got != strconv.Itoa(n) {
			c.t.Fatalf("got %.40q, want message %d", h.body, n)
		}
		each(n)
		if id, ok := h.headers["ack"]; ok {
			c.send("ACK", "id:"+id)
		}
	}
}

// A durable subscription gets what is published over a kill -9 once and in order, whether its client is there or away.
func TestDurableSubscriptionOverKill(t *testing.T) {
	const number = 300
	p := newPair(t)
	here, away := p.talk(t, "client-id:here"), talk(t, p.owner.addrs["listen"], "client-id:away")
	for _, c := range []*talker{here, away} {
		c.subscribe("s", "/topic/t", "client-individual", "durable-subscription-name:d")
	}
	away.nc.Close()
	publisher := p.talk(t)
	published := make(chan bool)
	go func() {
		defer close(published)
		for n := range number {
			if publisher.trySend("SEND", "destination:/topic/t", fmt.Sprint("receipt:", n), fmt.Sprint("=", n)) != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	here.numbered(number, func(n int) {
		if n == 50 {
			p.kill()
		}
	})
	<-published
	for n := range number {
		publisher.expect("RECEIPT", "receipt-id", strconv.Itoa(n))
	}
	back := talk(t, p.heir.addrs["listen"], "client-id:away")
	back.subscribe("s", "/topic/t", "client-individual", "durable-subscription-name:d")
	back.numbered(number, func(int) {})
	for name, c := range map[string]*talker{"here": here, "back": back} {
		if more := c.bodies(100 * time.Millisecond); len(more) > 0 {
			t.Errorf("%s got %q as well", name, more)
		}
	}
}

// A question asked before a kill -9 is answered after it, at the temporary queue that it named.
func TestTemporaryQueueOverKill(t *testing.T) {
	const number = 200
	p := newPair(t)
	asks, answers := p.talk(t), p.talk(t)
	answers.subscribe("s", "/queue/questions", "client-individual")
	asks.subscribe("s", "/temp-queue/answers", "client-individual")
	done := make(chan string, 1)
	go func() {
		for n := range number {
			h, err := answers.read(patience)
			if err != nil || h.command != "MESSAGE" || h.body != strconv.Itoa(n) {
				done <- fmt.Sprintf("question %d: got %v %v", n, h, err)
				return
			}
			_ = answers.trySend("SEND", "destination:"+h.headers["reply-to"], "="+h.body)
			_ = answers.trySend("ACK", "id:"+h.headers["ack"])
		}
		done <- ""
	}()
	for n := range 20 { // under way at once
		asks.send("SEND", "destination:/queue/questions", "reply-to:/temp-queue/answers", fmt.Sprint("=", n))
	}
	asks.numbered(number, func(n int) {
		if n == 60 {
			p.kill()
		}
		if n+20 < number {
			asks.send("SEND", "destination:/queue/questions", "reply-to:/temp-queue/answers", fmt.Sprint("=", n+20))
		}
	})
	if why := <-done; why != "" {
		t.Error(why)
	}
	if more := asks.bodies(100 * time.Millisecond); len(more) > 0 {
		t.Errorf("answered as well: %q", more)
	}
	p.heir.serves()
}

// A browser that is on its way through a queue when its broker is killed goes on where it was, and comes to the end.
func TestBrowserOverKill(t *testing.T) {
	const number, body = 600, 64 << 10 // more than all sockets between take
	p := newPair(t)
	producer, browser := p.talk(t), p.talk(t)
	for n := range number {
		producer.send("SEND", "destination:/queue/q", fmt.Sprintf("=%d %s", n, strings.Repeat("x", body)))
	}
	producer.sent("/queue/other", "all are stored")
	browser.send("SUBSCRIBE", "id:b", "destination:/queue/q", "browser:true", "ack:auto")
	browser.numbered(number, func(n int) {
		if n == 10 {
			p.kill()
		}
	})
	browser.expect("MESSAGE", "browser", "end")
	p.heir.serves()
	consumer := p.talk(t) // nothing was taken
	consumer.subscribe("s", "/queue/q", "client-individual")
	consumer.numbered(number, func(int) {})
}
