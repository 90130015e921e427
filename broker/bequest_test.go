package broker

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// A hand-over loses nothing of backlogs that are many times as large as the files which the journal has prepared, while clients go on sending.
func TestBequestWaitsForFiles(t *testing.T) {
	const messages = 600
	small := func(c *Config) { patient(c); c.SegmentBytes = 64 << 10 }
	s := serving(t, small)
	here, _ := s.sidecar(sessionX, 1)
	here.subscribe("s", "/topic/a", "client-individual", "prefetch-count:1")
	gone, _ := s.sidecar(sessionY, 1)
	gone.subscribe("s", "/topic/a", "client-individual")
	gone.leave()
	s.away(1)
	p := s.connected("1.2")
	body := func(i int) string { return fmt.Sprint(i, strings.Repeat("x", 1200)) }
	for i := range messages {
		p.send("SEND", "destination:/topic/a", "="+body(i))
	}
	p.sent("/topic/a", "last")
	here.message(body(0)) // not acknowledged: the rest waits
	dropped := s.all()[0].count.dropped
	var sending sync.WaitGroup
	other := s.connected("1.2")
	sending.Go(func() {
		for {
			_ = other.nc.SetWriteDeadline(time.Now().Add(patience))
			if _, err := other.nc.Write([]byte(text("SEND", "destination:/queue/q", "=x"))); err != nil {
				return
			}
		}
	})
	s = s.restart(small)
	sending.Wait()
	if n := dropped.Get(); n != 0 {
		t.Errorf("%d copies were dropped", n)
	}
	for _, session := range []string{sessionX, sessionY} {
		c, _ := s.sidecar(session, 2)
		c.subscribe("s", "/topic/a", "client-individual")
		for i := range messages {
			c.message(body(i))
		}
		c.message("last")
	}
}

// A disk that makes no file holds a hand-over up for as long as is allowed, and takes what it takes; nobody waits for a disk that is full.
func TestBequestIsBounded(t *testing.T) {
	for _, full := range []bool{false, true} {
		const limit = 50 * time.Millisecond
		s := serving(t, patient)
		c, _ := s.sidecar(sessionX, 1)
		c.subscribe("s", "/topic/a", "client-individual")
		c.leave()
		s.away(1)
		p := s.connected("1.2")
		p.sent("/topic/a", "one")
		p.sent("/topic/a", "two")
		d := s.onSmallDisk()
		d.full.Store(true)
		d.behind.Store(true)
		h := s.hold()
		var answered sync.WaitGroup
		if full {
			answered.Go(func() {
				time.Sleep(limit / 5)
				h.lock() // it is not held all the while
				defer h.unlock()
				d.behind.Store(false)
			})
		}
		began, end := time.Now(), limit
		if full {
			end = patience
		}
		h.bar(began.Add(end))
		took := time.Since(began)
		answered.Wait()
		if n := s.all()[0].count.dropped.Get(); n != 2 {
			t.Errorf("full %v: %d copies were dropped, want 2", full, n)
		}
		if full && took > patience/2 || !full && took < limit {
			t.Errorf("full %v: it took %v", full, took)
		}
		s.space(d)
	}
}

// What a server is asked for meanwhile does not wait for all of a large backlog, and what is over by then is not handed over.
func TestBequestPauses(t *testing.T) {
	const messages = 2*bequestRecords + 1
	n := newNews(t, nil)
	n.leave(n.subscribe(1))
	p := n.publisher()
	for i := range messages - 1 {
		n.say(p, text("SEND", "destination:/topic/a", fmt.Sprint("=", i)))
	}
	n.say(p, text("SEND", "destination:/topic/a", fmt.Sprint("expires:", n.now.Add(time.Second).UnixMilli()), "=expires"))
	pauses := 0
	lost := n.s.bequeath(func(behind bool) bool {
		if pauses++; behind {
			t.Error("it is taken for behind")
		}
		n.s.now = n.now.Add(time.Minute)
		n.sync()
		return true
	})
	if handed := n.s.count.bequeathed.Get(); pauses != 2 || lost != 0 || handed != messages-1 {
		t.Errorf("%d pauses, %d lost, %d handed over, want 2, 0, %d", pauses, lost, handed, messages-1)
	}
}
