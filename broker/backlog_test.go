package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// news drives a store over a journal in memory: sidecar sessions that are subscribed to topics, and one that publishes.
type news struct {
	t       *testing.T
	cfg     Config
	log     *memory
	s       *store
	now     time.Time
	attempt int
}

func newNews(t *testing.T, change func(*Config)) *news {
	n := &news{t: t, cfg: Config{Listener: unbound{}}.withDefaults(), log: &memory{t: t, next: 1, deleted: map[journal.Segment]bool{}}, now: time.Unix(1e9, 0)}
	if change != nil {
		change(&n.cfg)
	}
	n.s = n.log.recovered(0, n.now, &n.cfg)
	return n
}

func (n *news) sync() {
	n.s.flush()
	n.log.sync(n.log.next - 1)
	n.s.advance(n.log.durable)
	n.s.flush()
}

func (n *news) wait(d time.Duration) {
	n.now = n.now.Add(d)
	n.s.now = n.now
	n.s.tick()
	n.sync()
}

// session is the id of the nth one.
func (n *news) session(i int) string { return fmt.Sprintf("%032x", i) }

func (n *news) connect(i int, frames ...string) *peer {
	n.t.Helper()
	n.attempt++
	p, hello := connectPeer(n.s, text("CONNECT", "accept-version:1.2", "understudy-session:"+n.session(i), fmt.Sprint("understudy-attempt:", n.attempt),
		"understudy-hold:30000"), n.sync)
	if hello.Command != frame.Connected {
		n.t.Fatalf("%s", hello.Raw)
	}
	n.say(p, frames...)
	return p
}

func (n *news) say(p *peer, frames ...string) {
	parser := newParser()
	feed(n.s, p, &decoder{version: frame.V12, sidecar: p.sidecar}, &parser, []byte(strings.Join(frames, "")))
	n.sync()
}

// subscribe is session i with its subscription s of the topic.
func (n *news) subscribe(i int, headers ...string) *peer {
	n.t.Helper()
	return n.connect(i, text("SUBSCRIBE", append([]string{"id:s", "destination:/topic/a", "ack:client-individual"}, headers...)...))
}

// publisher is a direct client.
func (n *news) publisher() *peer {
	p, _ := benchPeer(n.s, text("CONNECT", "accept-version:1.2"))
	return p
}

func (n *news) publish(p *peer, bodies ...string) {
	for _, body := range bodies {
		n.say(p, text("SEND", "destination:/topic/a", "="+body))
	}
}

// got takes the bodies of the messages that a connection is sent, and acknowledges them as effects from one on if that is not 0.
func (n *news) got(p *peer, from int) (bodies []string) {
	for {
		if len(p.out) == 0 && len(n.s.takeOut(p, nil)) == 0 {
			n.s.flush()
			if len(p.out) == 0 {
				return bodies
			}
		}
		var f frame.Frame
		parser := newParser()
		took, _, err := parser.Next(p.out, &f)
		if err != nil || took == 0 {
			n.t.Fatalf("%q: %v", p.out, err)
		}
		ack := ""
		switch f.Command {
		case frame.Message:
			bodies = append(bodies, string(f.Body))
			ack = text("ACK", fmt.Sprint("understudy-effect:", from), "subscription:"+string(f.Value("subscription")), "message-id:"+string(f.Value("message-id")))
		case frame.Error:
			n.t.Fatalf("%s", f.Raw)
		}
		p.out = p.out[took:]
		if ack != "" && from > 0 {
			n.say(p, ack)
			from++
		}
	}
}

func (n *news) want(p *peer, from int, bodies ...string) {
	n.t.Helper()
	if got := n.got(p, from); !slices.Equal(got, bodies) {
		n.t.Fatalf("got %q, want %q", got, bodies)
	}
}

func (n *news) leave(p *peer) {
	n.s.leave(p)
	n.sync()
}

// handOver has another server take the store in an orderly way.
func (n *news) handOver() {
	n.t.Helper()
	if lost := n.s.bequeath(func(behind bool) bool { return !behind }); lost > 0 {
		n.t.Fatalf("%d copies are lost", lost)
	}
	n.sync()
	n.crash()
}

func (n *news) crash() { n.s = n.log.recovered(n.log.durable, n.now, &n.cfg) }

// load reads what the store has in the journal only.
func (n *news) load() {
	for list := n.s.take(9); len(list) > 0; list = n.s.take(9) {
		for _, e := range list {
			e.fetch(n.log, n.s.hash, nil)
			n.s.handIn(e)
		}
		n.s.flush()
	}
}

func (n *news) empty() {
	n.t.Helper()
	n.sync()
	if n.s.messages != 0 || n.s.memory != 0 || n.s.kept != 0 {
		n.t.Fatalf("%d messages, %d octets of which %d are copies are left", n.s.messages, n.s.memory, n.s.kept)
	}
}

func TestBacklogIsBounded(t *testing.T) {
	n := newNews(t, func(c *Config) { c.MaxBacklog = 3 * (messageOverhead + 100) })
	n.leave(n.subscribe(1))
	there := n.subscribe(2)
	p := n.publisher()
	for i := range 5 {
		n.publish(p, fmt.Sprint(i)+strings.Repeat("x", 50)) // its header lines are empty
		n.want(there, i+1, fmt.Sprint(i)+strings.Repeat("x", 50))
	}
	if got := n.s.count.dropped.Get(); got != 2 {
		t.Fatalf("%d are dropped, want 2", got)
	}
	back := n.subscribe(1)
	if got := n.got(back, 1); len(got) != 3 || got[0][0] != '0' || got[2][0] != '2' {
		t.Fatalf("got %q, want the first three", got)
	}
	n.publish(p, "next")
	n.want(back, 4, "next")
	n.want(there, 6, "next")
	n.empty()
}

// All backlogs together leave queues most of the memory, however many sessions are away.
func TestBacklogsTogetherAreBounded(t *testing.T) {
	n := newNews(t, func(c *Config) { c.MaxMemory = 100 << 10 })
	for i := range 20 {
		n.leave(n.subscribe(i))
	}
	p := n.publisher()
	body := strings.Repeat("x", 2000)
	for range 20 {
		n.publish(p, body)
	}
	if n.s.kept > n.cfg.MaxMemory/backlogShare || n.s.kept < n.cfg.MaxMemory/backlogShare*9/10 || n.s.memory != n.s.kept {
		t.Fatalf("%d octets are kept, of a memory of %d that has %d", n.s.kept, n.cfg.MaxMemory, n.s.memory)
	}
	if got := n.s.count.dropped.Get(); got == 0 {
		t.Fatal("nothing was dropped")
	}
	// Who is there has as much besides, and no more.
	there := n.subscribe(99, "prefetch-count:1")
	n.cfg.MaxBacklog = 1 << 30
	for range 40 {
		n.publish(p, body)
	}
	if all := 2 * n.cfg.MaxMemory / backlogShare; n.s.kept > all || n.s.kept < all*9/10 {
		t.Fatalf("%d octets are kept, %d may be", n.s.kept, all)
	}
	n.leave(there)
	n.wait(time.Minute)
	n.empty()
}

// Sessions that are most likely dead do not take the room of those that are expected back, or are there.
func TestBacklogsOfTheLongAbsentGoFirst(t *testing.T) {
	n := newNews(t, func(c *Config) { c.MaxMemory = 100 << 10 })
	body := strings.Repeat("x", 1500)
	share := n.cfg.MaxMemory / backlogShare
	dead := n.subscribe(1)
	p := n.publisher()
	n.publish(p, body)
	n.want(dead, 0, body) // it holds one
	n.leave(dead)
	for n.s.kept < share*9/10 {
		n.publish(p, body)
	}
	n.wait(stretch*n.cfg.ReclaimWindow - time.Millisecond)
	if n.s.kept < share*9/10 {
		t.Fatal("what is kept was dropped within the window")
	}
	there := n.subscribe(2)
	n.leave(n.subscribe(3))
	for i := range 4 {
		n.publish(p, body)
		n.want(there, i+1, body)
	}
	if n.s.count.dropped.Get() == 0 || n.s.kept > share {
		t.Fatalf("%d octets are kept, %d may be", n.s.kept, share)
	}
	n.wait(time.Millisecond)
	if n.s.kept > share/2 {
		t.Fatal("what is kept for the dead leaves no room")
	}
	n.publish(p, "a", "b")
	n.want(there, 5, "a", "b")
	back := n.subscribe(3)
	if got := n.got(back, 1); len(got) < 2 || got[len(got)-2] != "a" || got[len(got)-1] != "b" {
		t.Fatalf("got %.20q", got)
	}
	dead = n.subscribe(1)
	n.want(dead, 1, "a", "b") // it had lost the rest, and not what came then
	n.empty()
}

// The octets of a message are there once, however many are to get it.
func TestCopiesShareOctets(t *testing.T) {
	n := newNews(t, nil)
	for i := range 10 {
		n.leave(n.subscribe(i))
	}
	n.publish(n.publisher(), strings.Repeat("x", 5000))
	if n.s.memory != 5000+10*messageOverhead {
		t.Fatalf("%d octets", n.s.memory)
	}
	for i := range 10 {
		n.got(n.subscribe(i), 1)
	}
	n.empty()
}

// Who acknowledges nothing of a topic is sent everything all the same, as without a sidecar, unless it has asked for a prefetch.
func TestTopicDoesNotWaitForAcknowledgements(t *testing.T) {
	n := newNews(t, func(c *Config) { c.MaxBacklog, c.Prefetch = 5*(messageOverhead+10), 2 })
	never, asked := n.subscribe(1), n.subscribe(2, "prefetch-count:2")
	p := n.publisher()
	for i := range 20 {
		n.publish(p, fmt.Sprint(i))
		n.want(never, 0, fmt.Sprint(i))
	}
	n.want(asked, 0, "0", "1")
	n.want(asked, 0)
	if q := n.s.sessions[mustSession(n.session(1))].subs["s"].queue; q.count != 5 {
		t.Fatalf("%d messages are held for a client that acknowledges nothing", q.count)
	}
	n.wait(time.Minute)
	n.say(never, text("UNSUBSCRIBE", "id:s"))
	n.say(asked, text("UNSUBSCRIBE", "id:s"))
	n.empty()
}

// Nobody else could have it: it does not come again, as it would not to a direct client.
func TestRefusedMessageOfATopicIsGone(t *testing.T) {
	n := newNews(t, nil)
	c := n.subscribe(1)
	p := n.publisher()
	n.publish(p, "one", "two")
	n.want(c, 0, "one", "two")
	refuse := func(count int) string {
		return fmt.Sprintf("subscription:s\nmessage-id:1-%d-%d", p.number, count)
	}
	n.say(c, text("NACK", "understudy-effect:1", refuse(1)), text("BEGIN", "transaction:t"), text("NACK", "transaction:t", refuse(2)),
		text("COMMIT", "understudy-effect:2", "transaction:t"))
	n.want(c, 0)
	n.empty()
}

func TestBacklogOutlastsTheWindowAndEndsWithTheHold(t *testing.T) {
	n := newNews(t, nil)
	c := n.subscribe(1)
	p := n.publisher()
	n.publish(p, "one", "two")
	n.want(c, 0, "one", "two")
	n.leave(c)
	n.publish(p, "three")
	n.wait(20 * time.Second) // many windows
	if held := n.s.sessions[mustSession(n.session(1))].subs["s"].held; held != 2 {
		t.Fatalf("%d messages are held for it, want 2", held)
	}
	c = n.subscribe(1, claims(fmt.Sprintf("1-%d-1=1.1", p.number)))
	n.want(c, 1, "two", "three")
	n.say(c, text("ACK", "understudy-effect:3", fmt.Sprintf("subscription:s\nmessage-id:1-%d-1", p.number)))
	n.empty()
	n.publish(p, "four")
	n.leave(c)
	n.wait(time.Minute)
	n.empty()
	if len(n.s.topics) != 0 {
		t.Fatal("the topic is still there")
	}
}

// What was handed over is a message of the journal: it survives what comes then, exactly once.
func TestBequestSurvivesCrashes(t *testing.T) {
	n := newNews(t, nil)
	c := n.subscribe(1)
	n.leave(n.subscribe(2, "selector:k = '1'"))
	p := n.publisher()
	n.publish(p, "one")
	n.say(p, text("SEND", "destination:/topic/a", "k:1", "=two"), text("SEND", "destination:/topic/a", "persistent:false", "=three"))
	n.want(c, 0, "one", "two", "three")
	n.leave(c)
	n.handOver()
	n.publish(n.publisher(), "four") // and this the crash takes
	n.crash()
	n.publish(n.publisher(), "five")
	id := fmt.Sprintf("1-%d-", p.number)
	c = n.subscribe(1, claims(id+"1=1.1"))
	n.load()
	n.want(c, 1, "two", "three", "five")
	n.log.open()
	n.handOver() // "one" is still held
	if len(n.s.queues) > 0 {
		t.Fatalf("topics have become queues: %v", n.s.queues)
	}
	c = n.subscribe(1, claims(id+"1=1.1"))
	n.load()
	n.want(c, 0)
	n.say(c, text("ACK", "understudy-effect:4", "subscription:s\nmessage-id:"+id+"1"))
	n.crash()
	c = n.subscribe(1)
	n.want(c, 0)
	other := n.subscribe(2, "selector:k = '1'")
	n.load()
	n.want(other, 1, "two")
	n.empty()
	n.log.balance()
}

// A subscription that is journaled again, with another prefetch, keeps what it was left; one to another topic does not.
func TestBequestBelongsToTheSubscription(t *testing.T) {
	for name, c := range map[string]struct {
		change string
		want   []string
	}{"prefetch": {"prefetch-count:7", []string{"one"}}, "topic": {"destination:/topic/other", nil}} {
		t.Run(name, func(t *testing.T) {
			n := newNews(t, nil)
			n.leave(n.subscribe(1))
			n.publish(n.publisher(), "one")
			n.handOver()
			x := n.connect(1, text("SUBSCRIBE", c.change, "id:s", "destination:/topic/a", "ack:client-individual")) // the first of two headers counts
			n.leave(x)
			n.crash()
			x = n.connect(1, text("SUBSCRIBE", c.change, "id:s", "destination:/topic/a", "ack:client-individual"))
			n.load()
			n.want(x, 1, c.want...)
			n.empty()
			n.log.balance()
		})
	}
}

// What a session was left of a topic is no dead letter when it expires, any more than it would have been.
func TestBequestExpires(t *testing.T) {
	n := newNews(t, nil)
	n.leave(n.subscribe(1))
	p := n.publisher()
	at := func(d time.Duration) string { return fmt.Sprint("expires:", n.now.Add(d).UnixMilli()) }
	n.say(p, text("SEND", "destination:/topic/a", at(time.Second), "=before"), text("SEND", "destination:/topic/a", at(3*time.Second), "=after"))
	n.wait(2 * time.Second)
	n.handOver()
	if n.s.messages != 1 {
		t.Fatalf("%d messages, want one that has not expired", n.s.messages)
	}
	n.wait(2 * time.Second)
	for range 3 {
		n.s.expireMessages(10)
		n.load()
		n.sync()
	}
	n.empty()
	n.log.balance()
	n.want(n.subscribe(1), 0)
}

// A selector that changes is asked about what is published from then on.
func TestBacklogWithAnotherSelector(t *testing.T) {
	n := newNews(t, nil)
	n.leave(n.subscribe(1, "selector:k = '1'"))
	p := n.publisher()
	publish := func(k string) { n.say(p, text("SEND", "destination:/topic/a", "k:"+k, "="+k)) }
	publish("1")
	publish("2")
	c := n.subscribe(1, "selector:k = '2'")
	publish("1")
	publish("2")
	n.want(c, 1, "1", "2")
	if q := n.s.sessions[mustSession(n.session(1))].subs["s"].queue; q.selecting != 0 {
		t.Fatal("the backlog itself selects")
	}
	n.empty()
}

// The mover empties segments of what was handed over as of everything else.
func TestBequestIsRelocated(t *testing.T) {
	n := newNews(t, nil)
	n.leave(n.subscribe(1))
	n.publish(n.publisher(), "one", "two")
	n.handOver()
	first, its := n.log.seg, journal.Segment(0)
	for _, r := range n.log.records {
		if r.Type == recBequest {
			its = r.Segment
		}
	}
	for n.log.seg < first+2 {
		p := n.publisher()
		n.say(p, text("SEND", "destination:/queue/q", "=x"))
		n.s.leave(p)
	}
	for seg := range n.log.seg {
		if n.log.deleted[seg] {
			continue
		}
		e := &evacuation{store: n.s, segment: seg, stays: n.log.stays}
		for _, r := range slices.Clone(n.log.records) {
			if r.Segment == seg {
				if err := e.take(&r.Record); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := e.forward(); err != nil {
			t.Fatal(err)
		}
		n.log.forwarded[seg] = n.log.next - 1
		n.sync()
		n.log.balance()
	}
	if !n.log.deleted[its] {
		t.Fatal("the segment with what was handed over was not emptied")
	}
	n.crash()
	c := n.subscribe(1)
	n.load()
	n.want(c, 1, "one", "two")
}

// A message for so many that their names do not fit one record is in several.
func TestBequestOfMany(t *testing.T) {
	n := newNews(t, func(c *Config) { c.MaxRecord = recordOverhead + 500 })
	for i := range 60 {
		n.leave(n.subscribe(i))
	}
	n.publish(n.publisher(), strings.Repeat("x", 480), strings.Repeat("y", 100))
	n.handOver()
	records, copies := 0, 0
	for _, r := range n.log.records {
		if r.Type == recBequest {
			records++
			copies += r.account.Live
		}
	}
	if records < 30 || copies != 120 {
		t.Fatalf("%d copies in %d records", copies, records)
	}
	for i := range 60 {
		c := n.subscribe(i)
		n.load()
		if got := n.got(c, 1); len(got) != 2 || got[0][0] != 'x' || got[1][0] != 'y' {
			t.Fatalf("session %d got %q", i, got)
		}
	}
	n.empty()
}

// A subscription that ends has what it was left ended in the journal.
func TestBequestEndsWithItsSubscription(t *testing.T) {
	for _, end := range []string{text("UNSUBSCRIBE", "id:s"), text("DISCONNECT")} {
		n := newNews(t, nil)
		n.leave(n.subscribe(1))
		n.publish(n.publisher(), "one", "two")
		n.handOver()
		n.say(n.connect(1), end)
		n.empty()
		if len(n.s.backlogs) != 0 {
			t.Fatal("the queue is still there")
		}
		n.crash()
		n.empty()
		n.log.balance()
	}
}

// BenchmarkTopic is the way of a 1 KiB message from its SEND to the outputs of a hundred subscribers, and, of those behind sidecars, of their acknowledgements.
func BenchmarkTopic(b *testing.B) {
	for _, sidecars := range []bool{false, true} {
		b.Run(fmt.Sprintf("sidecars=%v", sidecars), func(b *testing.B) {
			s, log := benchStore()
			parser := newParser()
			var subs []*peer
			for i := range 100 {
				hello := text("CONNECT", "accept-version:1.2")
				if sidecars {
					hello = text("CONNECT", "accept-version:1.2", fmt.Sprintf("understudy-session:%032x", i), "understudy-attempt:1")
				}
				p, d := benchPeer(s, hello)
				feed(s, p, d, &parser, []byte(text("SUBSCRIBE", "id:s", "destination:/topic/t", "ack:client-individual")))
				subs = append(subs, p)
			}
			p, d := benchPeer(s, text("CONNECT", "accept-version:1.2"))
			send := []byte(text("SEND", "destination:/topic/t", "="+strings.Repeat("x", 1024)))
			sidecar := &decoder{version: frame.V12, sidecar: true}
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				n++
				feed(s, p, d, &parser, send)
				s.advance(log.lsn)
				s.flush()
				for _, sub := range subs {
					sub.out = sub.out[:0]
					if sidecars {
						feed(s, sub, sidecar, &parser, []byte(fmt.Sprintf("ACK\nunderstudy-effect:%d\nsubscription:s\nmessage-id:7-101-%d\n\n\x00", n, n)))
					}
				}
				s.advance(log.lsn)
				s.flush()
			}
			if s.memory != 0 {
				b.Fatalf("%d octets are left", s.memory)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(100*b.N), "ns/delivery")
		})
	}
}
