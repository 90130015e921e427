package stomp

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// conversation plays what the octets of a fuzz input choose: frames of a client and of a broker that need make no sense, breaks, and time. Ids are few, so
// that they meet.
type conversation struct {
	t         testing.TB
	r         *Recorder
	out       session.Out
	now       time.Time
	input     []byte
	server    string
	version   string
	chunks    []*session.Chunk
	attempt   uint64
	connected bool
	wanted    int
	answered  map[string]int
	toClient  []byte
	toBroker  []byte
	asked     int // receipts that the broker of now was asked for
}

func (c *conversation) pick(n int) int {
	if len(c.input) == 0 {
		return 0
	}
	b := c.input[0]
	c.input = c.input[1:]
	return int(b) % n
}

func (c *conversation) do(f func()) {
	c.out.Now = c.now
	f()
	for leg := range session.Leg(2) {
		for _, b := range c.out.Take(leg, nil) {
			if leg == session.Client {
				c.toClient = append(c.toClient, b.Bytes()...)
			} else {
				c.toBroker = append(c.toBroker, b.Bytes()...)
			}
			b.Drop()
		}
	}
	var f1 frame.Frame
	p := frame.Parser{}
	for {
		n, _, err := p.Next(c.toClient, &f1)
		if err != nil || n == 0 {
			break
		}
		if id := f1.Value("receipt-id"); f1.Command == frame.Receipt && bytes.HasPrefix(id, []byte{'r'}) {
			if c.answered[string(id)]++; c.answered[string(id)] > 1 {
				c.t.Fatalf("receipt %s answered twice", id)
			}
		}
		c.toClient = c.toClient[n:]
	}
	c.asked += bytes.Count(c.toBroker, []byte("receipt:u"))
	c.toBroker = c.toBroker[:0]
	if c.out.Move != nil {
		c.out.Move = nil
		if c.connected {
			c.connected = false
			c.do(func() { c.r.Down(nil, &c.out) })
		}
	}
}

func (c *conversation) feed(leg session.Leg, text string) {
	k := session.NewChunk([]byte(text), nil)
	c.chunks = append(c.chunks, k)
	c.do(func() { c.r.Feed(leg, k.Range(0, len(k.Data)), &c.out) })
}

func (c *conversation) of(choices ...string) string { return choices[c.pick(len(choices))] }

// header is one line, or none.
func (c *conversation) header(name string, values ...string) string {
	if i := c.pick(len(values) + 1); i > 0 {
		return name + ":" + values[i-1] + "\n"
	}
	return ""
}

func (c *conversation) receipt() string {
	if c.pick(3) == 0 {
		return ""
	}
	c.wanted++
	return fmt.Sprintf("receipt:r%d\n", c.wanted)
}

func (c *conversation) id() string { return fmt.Sprint(c.pick(6)) }
func (c *conversation) dest() string {
	return "destination:" + c.of("/queue/q", "/queue/q", "/topic/t", "/temp-queue/x", "/queue/p", "/exchange/e/k", "/remote-temp-queue/ID\\cx\\c1") + "\n"
}
func (c *conversation) tx() string { return c.header("transaction", "a", "a", "b") }

func (c *conversation) fromClient() string {
	switch c.pick(8) {
	case 0:
		return "SEND\n" + c.dest() + c.receipt() + c.tx() + c.header("reply-to", "/temp-queue/x", "/temp-queue/y") + c.header("_AMQ_DUPL_ID", "z") + "\n" + strings.Repeat("x", c.pick(200)) + "\x00"
	case 1:
		return "BEGIN\ntransaction:" + c.of("a", "b", "") + "\n" + c.receipt() + "\n\x00"
	case 2:
		return "COMMIT\n" + c.tx() + c.receipt() + "\n\x00"
	case 3:
		return "ABORT\n" + c.tx() + c.receipt() + "\n\x00"
	case 4:
		id := c.id()
		return c.of("ACK", "ACK", "NACK") + "\nid:" + id + "\nmessage-id:" + id + "\n" + c.header("subscription", "s", "t") + c.tx() + c.receipt() + "\n\x00"
	case 5:
		return "SUBSCRIBE\nid:" + c.of("s", "t", "s") + "\n" + c.dest() + c.header("ack", "auto", "client", "client-individual", "client-individual") +
			c.header("prefetch-count", "1", "2") + c.header("durable", "true") + c.header("browser", "true") + c.receipt() + "\n\x00"
	case 6:
		return "UNSUBSCRIBE\nid:" + c.of("s", "t") + "\n" + c.header("durable", "true") + c.receipt() + "\n\x00"
	}
	return "\n"
}

func (c *conversation) fromBroker() string {
	switch c.pick(6) {
	case 0, 1:
		id := c.id()
		return "MESSAGE\nsubscription:" + c.of("s", "t", "s", "understudy-marks", "understudy-reply-0") + "\nmessage-id:" + id + "\n" + c.dest() + c.header("ack", id, id, "5") +
			c.header("understudy-stamp", "p.1.1", "p.1.2", "p.2.1") + c.header("understudy-mark", fmt.Sprint(c.pick(20)), "fence-1", fmt.Sprint("end-", c.attempt)) + "\nbody\x00\n"
	case 2, 3:
		return fmt.Sprintf("RECEIPT\nreceipt-id:u%d\n\n\x00\n", 1+c.pick(max(c.asked, 1)))
	case 4:
		return "ERROR\n" + c.header("message", "no", "AMQ339013 Error committing", "timeout") + c.header("receipt-id", fmt.Sprint("u", 1+c.pick(max(c.asked, 1))), "r1") +
			c.header("subscription", "s") + "\n\x00\n"
	}
	return fmt.Sprintf("RECEIPT\nreceipt-id:u%d\n\n\x00\n", c.asked)
}

func (c *conversation) up() {
	c.attempt++
	c.connected = true
	c.asked = 0
	c.do(func() { c.r.Up(session.Peer{Name: "b:1", Attempt: c.attempt}, &c.out) })
	c.asked = 0
	c.feed(session.Broker, "CONNECTED\nversion:"+c.version+"\nheart-beat:1000,1000\n"+c.server+"session:ID\\cx\n\n\x00\n")
}

// FuzzConversation: whatever both sides say, nothing panics, every receipt is answered at most once, and no octets are held in the end.
func FuzzConversation(f *testing.F) {
	for kind := range byte(5) {
		f.Add([]byte{kind, 0, 0, 0, 1, 5, 0, 0, 1, 1, 0, 2, 1, 0, 3, 0, 4, 1})
	}
	f.Fuzz(func(t *testing.T, input []byte) { converse(t, input) })
}

func converse(t testing.TB, input []byte) {
	if len(input) > 2000 {
		return
	}
	c := &conversation{t: t, input: input, now: time.Unix(1_000_000, 0), answered: map[string]int{}}
	c.server = c.of("server:"+activeServer+"\n", "server:"+artemisServer+"\n", "server:"+rabbitServer+"\n", "", "understudy-store:S\nunderstudy-epoch:1\nunderstudy-cursor:0\n")
	c.version = c.of("1.2", "1.2", "1.1", "1.0")
	c.r = New(Config{Session: sessionID, MaxTransaction: 600, InDoubt: InDoubt(c.pick(4)), Replay: Replay(c.pick(4)), BrokerAutoAck: c.pick(4) == 1})
	c.out.Listening = [2]time.Time{c.now, c.now}
	c.do(func() { c.r.Tick(&c.out) })
	c.feed(session.Client, "CONNECT\naccept-version:"+c.version+"\nhost:h\n\n\x00")
	for len(c.input) > 0 && c.out.End == nil {
		switch n := c.pick(16); {
		case n < 7:
			c.feed(session.Client, c.fromClient())
		case n < 12 && c.connected:
			c.feed(session.Broker, c.fromBroker())
		case n < 13:
			if c.connected {
				c.connected = false
				c.do(func() { c.r.Down(nil, &c.out) })
			}
			c.up()
		case n == 13:
			if c.connected {
				c.connected = false
				c.do(func() { c.r.Down(nil, &c.out) })
			}
		case n == 14:
			c.now = c.now.Add(time.Duration(c.pick(20)) * 100 * time.Millisecond)
			c.do(func() { c.r.Tick(&c.out) })
		case n == 15:
			switch c.pick(12) {
			case 0:
				c.wanted++
				c.feed(session.Client, fmt.Sprintf("DISCONNECT\nreceipt:r%d\n\n\x00", c.wanted))
			case 1:
				c.do(func() { c.r.ClientEOF(c.pick(2) == 0, &c.out) })
			default:
				if !c.connected {
					c.up()
				}
			}
		}
		c.do(func() { c.r.Wrote(session.Client, 1<<40, &c.out) })
		var r session.Report
		c.r.Report(&r)
		if len(c.r.log.entries) == 0 && (c.r.log.size != 0 || c.r.log.open != 0 || c.r.log.live != 0) && c.out.End == nil {
			t.Fatalf("nothing is kept, and counted are %d octets, %d open, %d effects", c.r.log.size, c.r.log.open, c.r.log.live)
		}
	}
	c.r.Close()
	c.out.Close()
	for i, k := range c.chunks {
		if k.Refs() != 1 {
			t.Fatalf("chunk %d %q has %d references after Close", i, k.Data, k.Refs())
		}
	}
}
