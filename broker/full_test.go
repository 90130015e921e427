package broker

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// smallDisk is a journal whose disk is full when it is told so.
type smallDisk struct {
	appender
	full   atomic.Bool
	behind atomic.Bool // no more than that is known, yet
	spent  atomic.Bool // the reserve, too
}

func (d *smallDisk) Append(e journal.Entry) (journal.Position, error) {
	if d.full.Load() && (e.Live > 0 && !e.Reserve || d.spent.Load()) {
		if d.behind.Load() {
			return journal.Position{}, journal.ErrBehind
		}
		return journal.Position{}, fmt.Errorf("%w: test", journal.ErrFull)
	}
	return d.appender.Append(e)
}

// onSmallDisk puts a server's store on a disk that the test can fill.
func (s *testServer) onSmallDisk() *smallDisk {
	s.hold().lock()
	defer s.hold().unlock()
	d := &smallDisk{appender: s.hold().store.log}
	s.hold().store.log = d
	return d
}

func (s *testServer) space(d *smallDisk) {
	d.full.Store(false)
	d.spent.Store(false)
	s.tellSpace(false)
}

func (s *testServer) tellSpace(full bool) {
	s.hold().lock()
	defer s.hold().unlock()
	s.hold().store.space(full)
}

func TestFullDiskHoldsBackWhatBringsMessagesOnly(t *testing.T) {
	s := serving(t, func(c *Config) { c.FullTimeout = patience; c.HeartBeat.Min = 20 * time.Millisecond })
	setup := s.dial()
	setup.connect("1.2", "client-id:c")
	setup.subscribe("d", "/topic/kept", "client", "durable-subscription-name:d")
	setup.leave()
	for n := range 3 {
		s.connected("1.2").sent("/queue/a", fmt.Sprint(n))
	}
	d := s.onSmallDisk()
	d.full.Store(true)
	held := map[string]*client{"SEND": s.connected("1.2"), "COMMIT": s.connected("1.2"), "topic": s.connected("1.2"), "sidecar": nil}
	held["sidecar"], _ = s.sidecar(sessionX, 1)
	held["SEND"].send("SEND", "destination:/queue/b", "receipt:1", "=held SEND")
	held["COMMIT"].send("BEGIN", "transaction:t")
	held["COMMIT"].send("SEND", "transaction:t", "destination:/queue/b", "=held COMMIT")
	held["COMMIT"].send("COMMIT", "transaction:t", "receipt:1")
	held["topic"].send("SEND", "destination:/topic/kept", "receipt:1", "=kept")
	held["sidecar"].send("SEND", "understudy-effect:1", "destination:/queue/b", "=held sidecar")
	beating := s.dial()
	beating.connect("1.2", "heart-beat:0,20")
	beating.send("SEND", "destination:/queue/b", "=held beating")
	if n := beating.drain(t, 200*time.Millisecond, 10); n < 10 {
		t.Fatalf("%d octets of heart-beats in 200 ms, want one each 20 ms", n)
	}
	for _, c := range held {
		c.quiet()
	}
	if st := s.one(); !st.DiskFull || st.MemoryFull {
		t.Errorf("status %+v", st)
	}
	// What ends messages, or is in no journal, goes on.
	c := s.subscriber("/queue/a", "client-individual")
	for n := range 3 {
		m := c.message(fmt.Sprint(n))
		if n < 2 {
			c.send("ACK", "id:"+m.headers["ack"])
		}
	}
	c.send("DISCONNECT", "receipt:bye")
	c.expect("RECEIPT", "receipt-id", "bye")
	e := s.connected("1.2")
	e.subscribe("s", "/queue/a", "client-individual")
	m := e.message("2", "redelivered", "true")
	e.send("BEGIN", "transaction:t")
	e.send("ACK", "transaction:t", "id:"+m.headers["ack"])
	e.send("COMMIT", "transaction:t", "receipt:c")
	e.expect("RECEIPT", "receipt-id", "c")
	f := s.subscriber("/topic/t", "auto")
	e.sent("/topic/t", "news")
	f.message("news")
	e.sent("/queue/c", "in no journal", "persistent:false")
	s.subscriber("/queue/c", "auto").message("in no journal")

	s.space(d)
	for name, c := range held {
		if name == "sidecar" {
			c.cursor(1)
		} else {
			c.expect("RECEIPT", "receipt-id", "1")
		}
	}
	all := s.subscriber("/queue/b", "client")
	got := map[string]int{}
	for range 4 {
		got[all.expect("MESSAGE").body]++
	}
	for _, want := range []string{"held SEND", "held COMMIT", "held sidecar", "held beating"} {
		if got[want] != 1 {
			t.Errorf("got %v, want each once", got)
		}
	}
	all.quiet()
	if s.one().DiskFull {
		t.Error("the disk still counts as full")
	}
}

func TestFullDiskRefusesInTheEnd(t *testing.T) {
	s := serving(t, func(c *Config) { c.FullTimeout = 100 * time.Millisecond })
	d := s.onSmallDisk()
	d.full.Store(true)
	c := s.connected("1.2")
	c.send("SEND", "destination:/queue/a", "receipt:r", "=never")
	if r := c.refused("disk full", "receipt-id", "r"); !strings.Contains(r.body, "nothing of this frame was stored") {
		t.Errorf("got %v", r)
	}
	p, _ := s.sidecar(sessionX, 1)
	p.send("SEND", "understudy-effect:1", "destination:/queue/a", "=never")
	if r := p.refused("disk full"); r.headers["understudy-error"] != "" {
		t.Errorf("got %v: it is the client's to know, not its sidecar's", r)
	}
	s.space(d)
	s.connected("1.2").sent("/queue/a", "one")
	e := s.subscriber("/queue/a", "auto")
	e.message("one")
	e.quiet()
}

// When not even the reserve is left, acknowledgements wait as well, and are not lost.
func TestDiskWithoutReserveHoldsBackAcknowledgements(t *testing.T) {
	s := serving(t, func(c *Config) { c.FullTimeout = patience })
	for _, body := range []string{"one", "two"} {
		s.connected("1.2").sent("/queue/a", body)
	}
	s.connected("1.2").sent("/queue/auto", "three")
	c := s.subscriber("/queue/a", "client-individual")
	m := c.message("one")
	c.message("two")
	d := s.onSmallDisk()
	d.full.Store(true)
	d.spent.Store(true)
	c.send("ACK", "id:"+m.headers["ack"], "receipt:a")
	c.quiet()
	a := s.subscriber("/queue/auto", "auto")
	a.message("three")
	s.space(d)
	c.expect("RECEIPT", "receipt-id", "a")
	eventually(t, "the automatic acknowledgement is journaled", func() bool { return s.one().Messages == 1 })
	s = s.restart()
	e := s.subscriber("/queue/a", "client")
	e.message("two")
	e.quiet()
	s.subscriber("/queue/auto", "auto").quiet()
}

// What is out of a queue that is gone is ended when there is room for the record, so that its segments go.
func TestQueueDissolvesWhenTheDiskHasRoom(t *testing.T) {
	s, log := benchStore()
	rc := newRecovery(s)
	const n = 2*pageSlots + 100
	of := &durable{number: 77} // it was deleted
	for lsn := journal.LSN(1); lsn <= n; lsn++ {
		x := makeUp(lsn, 0, queueName{name: []byte("/topic/t"), number: of.number})
		b := appendPublish(nil, origin{kind: byDirect, conn: 1}, x.in.name, []*durable{of}, x.m)
		if _, err := rc.visit(journal.Record{Position: journal.Position{LSN: lsn, Segment: 1}, Epoch: 1, Size: len(b), Type: recPublish, Payload: b}); err != nil {
			t.Fatal(err)
		}
	}
	rc.finish()
	d, told := &smallDisk{}, &endings{appender: log}
	d.appender = told
	s.log = d
	d.full.Store(true)
	d.spent.Store(true)
	s.flush()
	if told.n != 0 || s.messages != n {
		t.Fatalf("%d endings are told and %d messages are left while there is no room", told.n, s.messages)
	}
	d.full.Store(false)
	d.spent.Store(false)
	s.space(false)
	s.flush()
	if told.n != n || s.messages != 0 || len(s.paging.dissolving) > 0 {
		t.Fatalf("%d of %d endings are told, %d messages are left", told.n, n, s.messages)
	}
}

// endings counts what records end.
type endings struct {
	appender
	n int
}

func (e *endings) Append(entry journal.Entry) (journal.Position, error) {
	e.n += len(entry.Ends)
	return e.appender.Append(entry)
}

// A session whose hold is over while the disk has no room for the record that says so is ended when there is.
func TestSessionExpiresWhenTheDiskHasRoom(t *testing.T) {
	s, log := benchStore()
	s.now = time.Unix(1e9, 0)
	d := &smallDisk{appender: log}
	s.log = d
	x, dec := benchPeer(s, text("CONNECT", "accept-version:1.2", "understudy-session:"+sessionX, "understudy-attempt:1"))
	dec.owner = sessionX
	parser := newParser()
	feed(s, x, dec, &parser, []byte(text("SEND", "understudy-effect:1", "destination:/temp-queue/a", "=temporary")))
	s.leave(x)
	d.full.Store(true)
	d.spent.Store(true)
	s.now = s.now.Add(time.Hour)
	s.tick()
	d.full.Store(false)
	d.spent.Store(false)
	s.space(false)
	s.tick()
	s.flush()
	if len(s.queues) != 0 || len(s.sessions) != 0 || len(s.waiting) != 0 {
		t.Fatalf("%d queues, %d sessions are left", len(s.queues), len(s.sessions))
	}
}

// A journal that is behind with its files holds producers back for as long as that takes. It does not pass for a full disk.
func TestDiskBehindHoldsBackAndRefusesNothing(t *testing.T) {
	const timeout = 50 * time.Millisecond
	s := serving(t, func(c *Config) { c.FullTimeout = timeout })
	d := s.onSmallDisk()
	d.full.Store(true)
	d.behind.Store(true)
	c := s.connected("1.2")
	c.send("SEND", "destination:/queue/a", "receipt:r", "=one")
	for range 4 { // each longer than the timeout
		c.quiet()
	}
	if st := s.one(); st.DiskFull {
		t.Errorf("status %+v", st)
	}
	s.space(d)
	c.expect("RECEIPT", "receipt-id", "r")

	d.full.Store(true)
	c.send("SEND", "destination:/queue/a", "receipt:r", "=never")
	c.quiet()
	d.behind.Store(false) // it turns out to be full
	s.tellSpace(true)
	if c.refused("disk full", "receipt-id", "r"); !s.one().DiskFull {
		t.Error("the disk does not count as full")
	}
	s.space(d)
	e := s.subscriber("/queue/a", "auto")
	e.message("one")
	e.quiet()
}
