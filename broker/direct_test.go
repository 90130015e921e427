package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestVersionIsNegotiated(t *testing.T) {
	s := serving(t)
	for _, test := range []struct{ accept, want string }{
		{"", "1.0"}, {"accept-version:1.0\n", "1.0"}, {"accept-version:1.0,1.1,1.2\n", "1.2"}, {"accept-version:1.1,1.0\n", "1.1"},
		{"accept-version:1.1, 9.9\n", "1.1"}, {"accept-version:1.2\r\n", "1.2"},
	} {
		c := s.dial()
		c.write("CONNECT\n" + test.accept + "\n\x00")
		if r := c.expect("CONNECTED", "version", test.want, "server", "understudy/devel", "heart-beat", "0,0"); r.headers["session"] == "" {
			t.Errorf("%q: got %v, want a session", test.accept, r)
		}
	}
	c := s.dial()
	c.write("STOMP\naccept-version:2.0,3\n\n\x00")
	c.refused("no common version", "version", "1.0,1.1,1.2")
}

// The stored form is canonical, and each consumer gets its own version's.
func TestHeadersAreTranscoded(t *testing.T) {
	s := serving(t)
	raw := map[string]string{ // what a client of that version writes for the header k:v of the value a<colon>b<backslash>c
		"1.0": `k:a:b\c`, "1.1": `k:a\cb\\c`, "1.2": `k:a\cb\\c`,
	}
	for from, header := range raw {
		for to := range raw {
			p := s.connected(from)
			q := fmt.Sprintf("/queue/%s-%s", from, to)
			p.sent(q, "body", header)
			c := s.connected(to)
			c.subscribe("s", q, "auto")
			c.message("body", "k", `a:b\c`)
		}
	}
	// Line ends: 1.2 escapes a CR, in 1.1 it is part of the value. What 1.0 cannot say is dropped.
	p := s.connected("1.2")
	for _, q := range []string{"1.0", "1.1", "1.2"} {
		p.sent("/queue/"+q, "", `k:x\r\ny`)
	}
	for q, want := range map[string]string{"1.0": "x\ry", "1.1": "x\r\ny", "1.2": "x\r\ny"} {
		c := s.connected(q)
		c.subscribe("s", "/queue/"+q, "auto")
		c.message("", "k", want)
	}
}

func TestMessageKeepsWhatWasSent(t *testing.T) {
	s := serving(t)
	c := s.connected("1.2")
	c.sent("/queue/a", "a\x00b", "z:1", "k:first", "content-length:3", "k:second", "ack:no", "message-id:no", "subscription:no", "redelivered:no", "y:")
	c.sent("/queue/a", "plain", "transformation:x")
	c.subscribe("s", "/queue/a", "client")
	m := c.message("a\x00b", "content-length", "3", "y", "")
	want := []string{"subscription", "message-id", "destination", "ack", "z", "k", "content-length", "k", "y"}
	if !slices.Equal(m.order, want) {
		t.Fatalf("got headers %v, want %v", m.order, want)
	}
	if m = c.message("plain"); m.headers["content-length"] != "" {
		t.Fatalf("got %v: content-length was added", m)
	}
}

func TestAcknowledgementModes(t *testing.T) {
	for _, test := range []struct {
		mode, command string
		nth           int // which of five is named
		left          string
	}{
		{"client", "ACK", 3, "45"}, {"client-individual", "ACK", 3, "1245"}, {"client", "NACK", 2, "12345"}, {"client-individual", "NACK", 2, "12345"},
		{"client", "ACK", 5, ""},
	} {
		for _, version := range []string{"1.1", "1.2"} {
			t.Run(fmt.Sprintf("%s %s of %s %d", version, test.command, test.mode, test.nth), func(t *testing.T) {
				s := serving(t)
				c := s.connected(version)
				for n := range 5 {
					c.sent("/queue/a", fmt.Sprint(n+1))
				}
				c.subscribe("s", "/queue/a", test.mode)
				ids := map[int]string{}
				for n := 1; n <= 5; n++ {
					m := c.message(fmt.Sprint(n))
					if ids[n] = "id:" + m.headers["ack"]; version == "1.1" {
						ids[n] = "subscription:s\nmessage-id:" + m.headers["message-id"]
					}
				}
				c.send(test.command, ids[test.nth], "receipt:a")
				c.expect("RECEIPT", "receipt-id", "a")
				c.leave()
				d := s.subscriber("/queue/a", "auto")
				for _, body := range test.left {
					d.message(string(body), "redelivered", "true")
				}
				d.quiet()
			})
		}
	}
}

func TestNackedMessageComesAgainInItsPlace(t *testing.T) {
	s := serving(t)
	c := s.connected("1.2")
	for n := range 3 {
		c.sent("/queue/a", fmt.Sprint(n+1))
	}
	c.subscribe("s", "/queue/a", "client-individual", "prefetch-count:2")
	m := c.message("1")
	c.message("2")
	c.send("NACK", "id:"+m.headers["ack"])
	again := c.message("1", "redelivered", "true", "message-id", m.headers["message-id"])
	if again.headers["ack"] == m.headers["ack"] {
		t.Fatal("a redelivery has the ack id of the first delivery")
	}
	c.send("ACK", "id:"+m.headers["ack"], "receipt:late") // the old id: too late, and nothing
	c.expect("RECEIPT", "receipt-id", "late")
	c.send("ACK", "id:"+again.headers["ack"])
	c.message("3")
}

func TestUncleanEndRequeuesAtOnce(t *testing.T) {
	s := serving(t)
	c := s.subscriber("/queue/a", "client")
	c.sent2("/queue/a", "one")
	c.message("one")
	d := s.subscriber("/queue/a", "client")
	c.leave()
	d.message("one", "redelivered", "true")
}

func TestUnsubscribeRequeues(t *testing.T) {
	for _, version := range []string{"1.0", "1.2"} {
		s := serving(t)
		c := s.connected(version)
		c.sent("/queue/a", "one")
		if version == "1.0" {
			c.subscribe("with-id", "/queue/b", "client")
			c.send("UNSUBSCRIBE", "destination:/queue/b", "receipt:b")
			c.expect("RECEIPT", "receipt-id", "b")
			c.send("SUBSCRIBE", "destination:/queue/a", "ack:client")
			m := c.message("one")
			if _, ok := m.headers["subscription"]; ok {
				t.Fatalf("got %v: no id was given", m)
			}
			c.send("UNSUBSCRIBE", "destination:/queue/a", "receipt:u")
		} else {
			c.subscribe("s", "/queue/a", "client")
			c.message("one")
			c.send("UNSUBSCRIBE", "id:s", "receipt:u")
		}
		c.expect("RECEIPT", "receipt-id", "u")
		s.subscriber("/queue/a", "auto").message("one", "redelivered", "true")
		c.quiet()
	}
}

func TestAutoAcknowledges(t *testing.T) {
	s := serving(t)
	c := s.subscriber("/queue/a", "auto", "prefetch-count:1")
	for _, body := range []string{"one", "two", "three"} {
		c.sent2("/queue/a", body)
		if m := c.message(body); m.headers["ack"] != "" {
			t.Fatalf("got %v", m)
		}
	}
	eventually(t, "the acknowledgements are durable", func() bool { return s.one().Messages == 0 })
	s = s.restart()
	s.subscriber("/queue/a", "auto").quiet()
}

func TestTransactions(t *testing.T) {
	for _, test := range []struct{ end, a, b string }{{"COMMIT", "two", "in"}, {"ABORT", "one two", ""}, {"nothing", "one two", ""}} {
		t.Run(test.end, func(t *testing.T) {
			s := serving(t)
			c := s.connected("1.2")
			c.sent("/queue/a", "one")
			c.sent("/queue/a", "two")
			c.subscribe("s", "/queue/a", "client-individual", "prefetch-count:1")
			m := c.message("one")
			c.send("BEGIN", "transaction:t", "receipt:b")
			c.expect("RECEIPT", "receipt-id", "b")
			c.send("SEND", "transaction:t", "destination:/queue/b", "=in")
			c.send("ACK", "transaction:t", "id:"+m.headers["ack"])
			c.message("two") // the prefetch counts what is not acknowledged, even if only in a transaction
			c.send("NACK", "transaction:t", "id:"+strings.TrimSuffix(m.headers["ack"], "1")+"2")
			d := s.subscriber("/queue/b", "auto")
			d.quiet()
			if test.end != "nothing" {
				c.send(test.end, "transaction:t", "receipt:e")
				for c.expectAny("RECEIPT", "MESSAGE").command != "RECEIPT" {
				}
			}
			if test.end == "ABORT" { // the old id is good again
				c.send("ACK", "id:"+m.headers["ack"], "receipt:a")
				c.expect("RECEIPT", "receipt-id", "a")
				test.a = "two"
			}
			if test.b != "" {
				d.message(test.b)
			}
			d.quiet()
			c.leave()
			s = s.restart()
			e := s.subscriber("/queue/a", "auto")
			for _, body := range strings.Fields(test.a) {
				e.message(body)
			}
			e.quiet()
		})
	}
}

// What a transaction acknowledged outlives its subscription, and goes back if the transaction does.
func TestUnsubscribeInTransaction(t *testing.T) {
	for end, left := range map[string]string{"ABORT": "one", "COMMIT": ""} {
		s := serving(t)
		c := s.connected("1.2")
		c.sent("/queue/a", "one")
		c.subscribe("s", "/queue/a", "client")
		m := c.message("one")
		c.send("BEGIN", "transaction:t")
		c.send("ACK", "transaction:t", "id:"+m.headers["ack"])
		c.send("UNSUBSCRIBE", "id:s", "receipt:u")
		c.expect("RECEIPT", "receipt-id", "u")
		d := s.subscriber("/queue/a", "auto")
		d.quiet()
		c.send(end, "transaction:t", "receipt:e")
		c.expect("RECEIPT", "receipt-id", "e")
		if left != "" {
			d.message(left, "redelivered", "true")
		}
		d.quiet()
	}
}

func TestCumulativeAckInTransaction(t *testing.T) {
	s := serving(t)
	c := s.connected("1.2")
	for n := range 4 {
		c.sent("/queue/a", fmt.Sprint(n+1))
	}
	c.subscribe("s", "/queue/a", "client")
	var acks []string
	for n := range 4 {
		acks = append(acks, "id:"+c.message(fmt.Sprint(n + 1)).headers["ack"])
	}
	c.send("BEGIN", "transaction:t")
	c.send("ACK", "transaction:t", acks[1])
	c.send("ACK", acks[2], "receipt:a") // what the transaction has is not its business
	c.expect("RECEIPT")
	c.send("ABORT", "transaction:t")
	c.send("DISCONNECT", "receipt:d")
	c.expect("RECEIPT")
	d := s.subscriber("/queue/a", "auto")
	for _, body := range []string{"1", "2", "4"} {
		d.message(body)
	}
	d.quiet()
}

func TestCompetingConsumersTakeTurns(t *testing.T) {
	s := serving(t)
	var all []*client
	for range 3 {
		all = append(all, s.subscriber("/queue/a", "client-individual", "prefetch-count:2"))
	}
	p := s.connected("1.2")
	for n := range 7 {
		p.sent("/queue/a", fmt.Sprint(n))
	}
	var m *reply
	for n := range 6 {
		m = all[n%3].message(fmt.Sprint(n))
	}
	for _, c := range all {
		c.quiet() // no credit
	}
	all[2].send("ACK", "id:"+m.headers["ack"])
	all[2].message("6")
}

func TestSlowConsumerStallsNobody(t *testing.T) {
	s := serving(t, func(c *Config) { c.MaxOut = 64 << 10 })
	slow := s.subscriber("/queue/a", "auto")
	body := strings.Repeat("x", 32<<10)
	p := s.connected("1.2")
	for range 400 { // more than the sockets take
		p.sent("/queue/a", body)
	}
	if n := s.one().Messages; n < 100 {
		t.Fatalf("%d messages are left: the slow consumer's were taken from the queue", n)
	}
	fast := s.subscriber("/queue/a", "auto")
	for range 50 {
		fast.message(body)
	}
	slow.leave()
}

func TestTopics(t *testing.T) {
	s := serving(t)
	a, b := s.subscriber("/topic/t", "auto"), s.subscriber("/topic/t", "client")
	p := s.connected("1.2")
	p.sent("/topic/t", "news", "k:v")
	a.message("news", "k", "v", "destination", "/topic/t")
	m := b.message("news")
	b.send("ACK", "id:"+m.headers["ack"], "receipt:a")
	b.expect("RECEIPT", "receipt-id", "a")
	b.send("UNSUBSCRIBE", "id:s", "receipt:u")
	b.expect("RECEIPT", "receipt-id", "u")
	p.sent("/topic/t", "more")
	a.message("more")
	b.quiet()
	s.subscriber("/topic/t", "auto").quiet()
}

func TestTransientMessagesAreNotKept(t *testing.T) {
	s := serving(t)
	c := s.connected("1.2")
	c.sent("/queue/a", "kept")
	c.sent("/queue/a", "lost", "persistent:false")
	d := s.subscriber("/queue/a", "client")
	d.message("kept")
	m := d.message("lost")
	d.send("ACK", "id:"+m.headers["ack"], "receipt:a") // cumulative over both
	d.expect("RECEIPT")
	c.sent("/queue/a", "lost", "persistent:false")
	s = s.restart()
	s.subscriber("/queue/a", "auto").quiet()
}

func TestHeartBeats(t *testing.T) {
	s := serving(t, func(c *Config) { c.HeartBeat.Min = 20 * time.Millisecond })
	c := s.dial()
	c.connect("1.2", "heart-beat:60,20")
	began := time.Now()
	_ = c.nc.SetReadDeadline(time.Now().Add(patience))
	beats := 0
	for {
		n, err := c.nc.Read(make([]byte, 64))
		if err != nil {
			break
		}
		beats += n
	}
	if took := time.Since(began); took < 50*time.Millisecond || took > 2*time.Second || beats < 3 {
		t.Fatalf("a silent client heard %d beats and was dropped after %v", beats, took)
	}
	for _, bad := range []string{"1", "a,b", "-1,0", "1,2,3"} {
		c := s.dial()
		c.send("CONNECT", "accept-version:1.2", "heart-beat:"+bad)
		c.refused("malformed heart-beat")
	}
	d := s.dial()
	if r := d.connect("1.1", "heart-beat:1,999999999999"); r.headers["heart-beat"] != "86400000,20" {
		t.Fatalf("got %v", r)
	}
}

func TestHalfClosedClientIsAnswered(t *testing.T) {
	s := serving(t)
	c := s.dial()
	c.write(text("CONNECT") + text("SEND", "destination:/queue/a", "receipt:r", "=one"))
	if err := c.nc.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.expect("CONNECTED")
	c.expect("RECEIPT", "receipt-id", "r")
	c.closed()
}

// sent2 is sent for a client that may get messages meanwhile.
func (c *client) sent2(dest, body string) {
	c.t.Helper()
	c.send("SEND", "destination:"+dest, "="+body)
}

// expectAny reads a frame that is one of two.
func (c *client) expectAny(one, other string) *reply {
	c.t.Helper()
	r, err := c.read(patience)
	if err != nil || r.command != one && r.command != other {
		c.t.Fatalf("got %v %v, want %s or %s", r, err, one, other)
	}
	return r
}
