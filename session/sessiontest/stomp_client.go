package sessiontest

import (
	"strconv"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// server is what the client's verdicts ask of a broker model.
type server interface {
	Broker
	stored() [][]*item      // by queue, all that was ever stored, in order
	left() []*item          // what is in the queues
	heldBySession() []*item // delivered on the current connection, and not acknowledged
	calm() bool             // nothing of an earlier connection is left
	rest(link int) []byte   // read and not taken up
}

// stompClient is a program that follows a Script over STOMP.
type stompClient struct {
	w      *World
	book   *ledger
	script *Script
	broker server

	parser frame.Parser
	in     fifo
	phase  phase
	pc     int
	at     time.Duration // nothing is done before
	deaf   time.Duration // nothing is read before
	until  time.Duration // how long the operation at pc waits for a message
	leave  Leave
	closed bool

	subs      [4]*clientSub // two of its own; what comes back to requests; a browser
	gens      int
	seq       int
	txs       []*clientTx // open
	committed []*clientTx
	requests  []request     // not answered yet, in order
	receipts  int           // asked for so far
	answered  int           // the highest receipt of an effect that was answered
	byeID     int           // the receipt of DISCONNECT
	byeAt     time.Duration // when it was said
	greeted   bool          // CONNECTED was read
	failure   string        // an ERROR that the client was sent
	failedAt  time.Duration

	lastOut, lastIn time.Duration
	beat, expect    time.Duration
	quiet           time.Duration // since when nothing has come and nothing is owed
	frames, wrote   int           // read, written
	scratch         []byte
	fleeting        map[int]*clientSub // nameless: ended, by queue; such a queue is not subscribed to again
	unsubscribed    []string           // confirmed
	drained         bool               // DISCONNECT was answered
	temp, detaching bool               // it has a temporary queue; it is ending a durable subscription
	forgotten       []*item            // held, or on their way, when their subscription was ended
	declared        map[int]bool       // RabbitMQ: queues used before on this connection
}

type phase uint8

const (
	toConnect phase = iota
	connecting
	talking
	draining
	leavingPhase
	done
)

// clientSub is a subscription as the client sees it.
type clientSub struct {
	id       string
	gen      int
	dest     int
	mode     AckMode
	prefetch int
	held     []holding
	ended    bool           // UNSUBSCRIBE was said
	browsed  map[*item]bool // a browser: what it has seen
	lane     int            // selects half of the messages
	loose    bool           // an acknowledgement was taken back: more may be held than the prefetch
}

// holding is a message that the client has and has not let go of.
type holding struct {
	item *item
	mid  string // message-id as it stood on the wire
	ack  string // ack header as it stood on the wire
	tx   int    // acknowledged in an open transaction
	sub  *clientSub
	seq  int // in the order of the MESSAGEs
	nack bool
}

type clientTx struct {
	n       int
	sends   []*item
	holds   []holding     // what its COMMIT acknowledged
	receipt int           // that its COMMIT asked for; 0 is none
	at      time.Duration // of its COMMIT
	begun   int           // how many connections the sidecar had lost at its BEGIN
}

// request is a receipt that the client waits for.
type request struct {
	n      int
	at     time.Duration
	effect bool    // effects are answered in their order; STOMP promises no order between, say, a SUBSCRIBE's receipt and a SEND's
	items  []*item // SENDs that it confirms
	what   string
}

func newStompClient(w *World, script *Script, book *ledger, broker server) *stompClient {
	return &stompClient{w: w, book: book, script: script, broker: broker, fleeting: map[int]*clientSub{}, declared: map[int]bool{}}
}

func (c *stompClient) Leaving() Leave { return c.leave }

// Reading is false while the program is busy with something else.
func (c *stompClient) Reading() bool { return c.deaf <= c.w.Now() }

// Quit makes the program go away at once, whatever it was doing.
func (c *stompClient) Quit() {
	if c.phase < done && c.leave == Stay {
		c.w.Tracef("client: leaves")
		c.goAway([...]Leave{Gone, Abort}[c.w.Rand.IntN(2)])
	}
}

func (c *stompClient) goAway(how Leave) {
	c.leave, c.phase = max(c.leave, how), done
	c.book.left = c.book.left || !c.drained
	c.letGo()
}

// letGo forgets what is held: its fate is the broker's again.
func (c *stompClient) letGo() {
	for _, s := range c.subs {
		if s != nil {
			for _, h := range s.held {
				h.item.held = false
			}
			s.held = nil
		}
	}
}

func (c *stompClient) Waiting() string {
	switch {
	case c.phase == done && c.leave >= Gone:
		return ""
	case c.phase == toConnect || c.phase == connecting:
		return "CONNECTED"
	case len(c.requests) > 0:
		return "the receipt of " + c.requests[0].what
	}
	return "nothing, in phase " + strconv.Itoa(int(c.phase))
}

// Closed is the end of the connection from the other side.
func (c *stompClient) Closed() {
	c.w.Tracef("client: the connection is closed")
	if c.in.len() > 0 && c.leave < Gone {
		c.w.Fail("half-frame", "the connection ended within a frame: %.200q", c.in.buf[c.in.head:])
	}
	if c.phase < done && c.failure == "" && c.leave < Gone {
		c.w.Fail("ended", "the connection was closed without an ERROR; the client waits for %q", c.Waiting())
	}
	c.closed = true
	c.goAway(Gone)
}

// excused reports that the recorder had reason to give up: no broker for as long as it may hold.
func (c *stompClient) excused() bool {
	if live, _ := c.w.Live(); live {
		return false
	}
	if !c.greeted && c.w.Now() >= c.script.Hold-time.Second {
		return true // CONNECT is a request as well
	}
	return c.book.outage() >= c.script.Hold*IdleHold-time.Second || len(c.requests) > 0 && c.w.Now()-c.requests[0].at >= c.script.Hold-time.Second
}

// Wake is when the program has something to do.
func (c *stompClient) Wake() (at time.Duration, ok bool) {
	if c.leave != Stay {
		return c.deaf, c.leave == Half && c.deaf > c.w.Now()
	}
	earliest := func(t time.Duration) {
		if !ok || t < at {
			at, ok = t, true
		}
	}
	switch full := c.w.Full(); {
	case full: // it could not write
	case c.phase == toConnect || c.phase == talking:
		if c.failure == "" {
			earliest(c.at)
		}
	case c.phase == draining:
		earliest(c.at)
	}
	if c.phase > toConnect {
		if c.beat > 0 && !c.w.Full() {
			earliest(c.lastOut + c.beat)
		}
		if c.expect > 0 {
			earliest(max(c.lastIn, c.deaf, c.w.Lag()) + c.expect*5/2)
		}
		if c.deaf > c.w.Now() {
			earliest(c.deaf)
		}
		if len(c.requests) > 0 {
			earliest(c.requests[0].at + c.script.Hold + 10*time.Second)
		}
		if c.failure != "" {
			earliest(c.failedAt + 5*time.Second)
		}
	}
	return at, ok
}

// Step acts.
func (c *stompClient) Step(dst []byte) []byte {
	now := c.w.Now()
	c.watch(now)
	n := len(dst)
	if c.failure == "" {
		switch c.phase {
		case toConnect:
			dst = c.connect(dst)
		case talking:
			if c.at <= now {
				dst = c.talk(dst)
			}
		case draining:
			if c.at <= now {
				dst = c.drain(dst)
			}
		}
	}
	if len(dst) == n && c.beat > 0 && c.lastOut+c.beat <= now {
		dst = append(dst, '\n')
	}
	if len(dst) > n {
		c.lastOut = now
		if dst[n] != '\n' {
			c.wrote++
		}
		if c.w.Tracing() {
			c.w.Tracef("client -> %s", brief(dst[n:]))
		}
	}
	return dst
}

// watch judges what did not happen.
func (c *stompClient) watch(now time.Duration) {
	if c.expect > 0 && max(c.lastIn, c.deaf, c.w.Lag())+c.expect*5/2 <= now && c.failure == "" {
		c.w.Fail("silence", "nothing has come for %v, and heart-beats were promised every %v", now-c.lastIn, c.expect)
	}
	if len(c.requests) > 0 && now-c.requests[0].at >= c.script.Hold+10*time.Second {
		c.w.Fail("held", "the receipt of %s has been owed for %v", c.requests[0].what, now-c.requests[0].at)
	}
	if c.failure != "" && now-c.failedAt >= 5*time.Second {
		c.w.Fail("open", "the connection was not closed behind an ERROR: %s", c.failure)
	}
}

func (c *stompClient) connect(dst []byte) []byte {
	dst = append(dst, "CONNECT\n"...)
	if c.script.Version != frame.V10 {
		dst = append(dst, [...]string{"", "accept-version:1.0,1.1\n", "accept-version:1.1,1.2\n"}[c.script.Version]...)
	}
	dst = append(dst, "host:mq\nlogin:user\npasscode:pass:word\n"...)
	if c.script.ClientID != "" {
		dst = frame.AppendHeader(dst, "client-id", c.script.ClientID)
	}
	if ms := c.script.HeartBeat.Milliseconds(); ms > 0 && c.script.Version != frame.V10 {
		dst = append(dst, "heart-beat:"...)
		dst = append(strconv.AppendInt(dst, ms, 10), ',')
		dst = append(strconv.AppendInt(dst, ms, 10), '\n')
	}
	c.phase = connecting
	if c.script.Pipelined {
		c.phase = talking
	}
	return append(dst, '\n', 0)
}

// Taken is called when octets have reached the kernel; the program reads at once.
func (c *stompClient) Taken(p []byte) {
	c.lastIn = c.w.Now()
	c.in.push(p)
	var f frame.Frame
	for len(c.w.Failures) == 0 {
		n, _, err := c.parser.Next(c.in.buf[c.in.head:], &f)
		if err != nil {
			c.w.Fail("torn", "the client cannot parse what it was sent: %v: %.200q", err, c.in.buf[c.in.head:])
			return
		}
		if n == 0 {
			return
		}
		c.in.head += n
		if f.Command != frame.EOL {
			c.handle(&f)
		}
	}
}

func (c *stompClient) handle(f *frame.Frame) {
	c.frames++
	if c.w.Tracing() {
		c.w.Tracef("client <- %s", brief(f.Raw))
	}
	if c.failure != "" {
		c.w.Fail("protocol", "the client was sent %s behind an ERROR", f.Command)
		return
	}
	f.Headers(func(name, _ []byte) bool {
		if len(name) >= len(frame.PairedPrefix) && string(name[:len(frame.PairedPrefix)]) == frame.PairedPrefix {
			c.w.Fail("leak", "the client was sent header %s in %s", name, f.Command)
		}
		return true
	})
	if c.phase == done {
		return
	}
	c.quiet = c.w.Now()
	switch f.Command {
	case frame.Connected:
		c.connected(f)
	case frame.Message:
		c.message(f)
	case frame.Receipt:
		c.receipt(f)
	case frame.Error:
		c.error(f)
	default:
		c.w.Fail("protocol", "the client was sent %s", f.Command)
	}
}
