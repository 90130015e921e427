package sessiontest

import (
	"strconv"
	"strings"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// Kind is the make of the broker behind the sidecar.
type Kind uint8

// Makes. All but the first know nothing of sidecars.
const (
	Paired     Kind = iota
	ActiveMQ        // Classic 5.17, a store that master and slave share
	Artemis         // 2.33 and later
	RabbitMQ        // 3.10, quorum queues
	Unfamiliar      // a minimal STOMP server whose ids mean nothing
)

func (k Kind) String() string {
	return [...]string{"paired", "activemq", "artemis", "rabbitmq", "unfamiliar"}[k]
}

// Kinds lists all of them.
func Kinds() []Kind { return []Kind{Paired, ActiveMQ, Artemis, RabbitMQ, Unfamiliar} }

// vendor models a broker that is not paired, and the rest of its users. What the makes have in common is here; what is peculiar to one
// stands in the file of its name, each peculiarity with the observation behind it.
type vendor struct {
	w      *World
	book   *ledger
	script *Script
	kind   Kind

	conns   []*vconn
	queues  [][]*vmessage // in store order; what is dead is swept now and then
	history [][]*item     // by queue: everything ever stored, and not undone by a crash
	journal []*change     // not durable yet
	run     int           // the server process
	serial  int           // of records
	ackIDs  int           // ActiveMQ: one counter per process
	ring    map[string]*vmessage
	temps   map[string]*vtemp
	private map[string]*vtemp // queues that the sidecar has made for itself, by destination
	durable bool              // there is a durable subscription to the topic
	paged   []int             // ActiveMQ: how deep each queue has been paged in
	refuse  int
	rivals  []*vsub
	supply  []supply
	dead    int

	upAt     time.Duration
	syncAt   time.Duration
	electing time.Duration // RabbitMQ: no leader before
	pending  bool
	loginAt  time.Duration // when the last connection was logged in
	buf      []byte
	air      *Matrix // cells of the cut-point matrix, when asked for
}

// vmessage is one stored message. With RabbitMQ an item may have several.
type vmessage struct {
	item        *item
	id          string // ActiveMQ: message-id; Artemis: record number
	head        []byte // header lines of the SEND that consumers see, as they stood on the wire
	dup         string // Artemis: _AMQ_DUPL_ID
	replyTo     string
	sized       bool
	persistent  bool
	live        bool    // stored and not acknowledged
	in          *change // that stored it
	temp        *vtemp  // it is in a temporary queue, or one of the sidecar's own
	body        []byte  // of a message that is nobody's but the sidecar's
	holder      *vsub
	deliveries  int
	redelivered bool
	tag         int    // of its last delivery
	cameOn      int    // the link of its last delivery to the session
	ack         string // ack header of its last delivery
	inTx        bool   // acknowledged in a transaction that is open
	adrift      bool   // its last holder's connection is gone
}

// change is what one frame did to the store.
type change struct {
	enq, ack, nack []*vmessage
	done           bool // durable
	tx             bool // a COMMIT: nothing of it is dispatched before it is durable
	slow           bool // RabbitMQ: only acknowledgements, for which nothing waits
}

// vconn is one connection of the server.
type vconn struct {
	link      int
	parser    frame.Parser
	in        fifo
	version   frame.Version
	state     connState
	session   string // CONNECTED says so
	id        string // ActiveMQ: connection id
	client    string // client-id
	subs      []*vsub
	gone      []*vsub // RabbitMQ: unsubscribed, and what they hold stays theirs
	txs       []*vtx
	answers   []vanswer
	waits     *change // ActiveMQ: nothing is processed before it is durable
	sends     int
	tags      int
	temps     int
	prefetch  int
	declared  map[int]bool
	beat      time.Duration
	expect    time.Duration
	lastOut   time.Duration
	lastIn    time.Duration
	asked     map[string]frame.Command // receipt ids asked for on this connection
	greetedAt time.Duration
}

// vanswer is a frame that waits for a change to be durable.
type vanswer struct {
	after *change
	head  string
	sub   *vsub
}

// vsub is a consumer: of a connection, or the rival.
type vsub struct {
	conn     *vconn
	id       string
	given    bool // the client named it
	dest     int
	temp     *vtemp
	durable  string
	mode     AckMode
	prefetch int // messages; 0 is none
	number   int // Artemis: consumerID
	want     func(*vmessage) bool
	browser  bool
	sole     bool // ActiveMQ: exclusive
	browsed  bool
	ready    bool
	sent     []*vmessage // delivered and not acknowledged, in order
	rival    bool
	droppy   bool
	actAt    time.Duration
	answers  bool // rival: replies to what asks for it
}

type vtx struct {
	name  string
	steps []vstep
}

type vstep struct {
	send    *vmessage
	acks    []*vmessage
	nack    bool
	receipt string
	// RabbitMQ: it has the queue's arguments, which count when the buffer is played.
	declares bool
}

func newVendor(w *World, script *Script, book *ledger) *vendor {
	n := len(script.Queues)
	b := &vendor{w: w, script: script, book: book, kind: script.Kind, queues: make([][]*vmessage, n), history: make([][]*item, n),
		paged: make([]int, n), ring: map[string]*vmessage{}, temps: map[string]*vtemp{}, private: map[string]*vtemp{}, run: 1, air: script.matrix}
	for dest, q := range script.Queues {
		for range q.Loaded {
			b.produce(dest)
		}
		if q.Trickle > 0 {
			b.supply = append(b.supply, supply{dest: dest, left: q.Trickle, at: w.Rand.Span(0, 50*time.Millisecond)})
		}
		if q.Rival || q.Answers {
			b.rivals = append(b.rivals, &vsub{id: "rival", dest: dest, prefetch: w.Rand.Between(1, 4), mode: Individual, rival: true,
				droppy: q.Droppy && !q.Answers, answers: q.Answers, ready: true})
		}
	}
	b.sync(true)
	return b
}

func (b *vendor) conn(link int) *vconn {
	for _, c := range b.conns {
		if c.link == link {
			return c
		}
	}
	return nil
}

func (b *vendor) Accept(link int) {
	b.conns = append(b.conns, &vconn{link: link, lastIn: b.w.Now(), declared: map[int]bool{}, asked: map[string]frame.Command{}})
}

func (b *vendor) Refuse(n int) { b.refuse = n }

func (b *vendor) Read(link int, p []byte) {
	c := b.conn(link)
	if c == nil || c.state >= mute {
		return
	}
	c.lastIn = b.w.Now()
	c.in.push(p)
	b.work(c)
}

// work handles the whole frames that a connection has read. ActiveMQ takes up a frame only when the one before it has been answered.
func (b *vendor) work(c *vconn) {
	var f frame.Frame
	for c.state < mute && (c.waits == nil || c.waits.done) && len(b.w.Failures) == 0 {
		rest := c.in.buf[c.in.head:]
		n, _, err := c.parser.Next(rest, &f)
		if err != nil {
			b.w.Fail("protocol", "link %d: the broker cannot parse what it was sent: %v: %.200q", c.link, err, rest)
			return
		}
		if n == 0 {
			return
		}
		c.in.head += n
		if f.Command != frame.EOL {
			b.handle(c, &f)
		}
	}
	if c.state >= mute {
		c.in = fifo{}
	}
}

func (b *vendor) handle(c *vconn, f *frame.Frame) {
	if b.w.Tracing() {
		b.w.Tracef("broker %d <- %s", c.link, brief(f.Raw))
	}
	if c.state == fresh {
		b.login(c, f)
		return
	}
	if strings.Contains(string(f.Block), frame.PairedPrefix+"effect") || strings.Contains(string(f.Block), frame.HeaderClaims) {
		b.w.Fail("protocol", "link %d: a header of the paired protocol goes to %v: %s", c.link, b.kind, brief(f.Raw))
		return
	}
	if id, ok := f.Get("receipt"); ok {
		c.asked[string(id)] = f.Command
	}
	switch f.Command {
	case frame.Send:
		b.send(c, f)
	case frame.Ack, frame.Nack:
		b.ack(c, f)
	case frame.Begin:
		b.begin(c, f)
	case frame.Commit, frame.Abort:
		b.finish(c, f)
	case frame.Subscribe:
		b.subscribe(c, f)
	case frame.Unsubscribe:
		b.unsubscribe(c, f)
	case frame.Disconnect:
		b.disconnect(c, f)
	default:
		b.w.Fail("protocol", "link %d: %s in the middle of a conversation", c.link, f.Command)
	}
}

// value is a header, decoded.
func (b *vendor) value(c *vconn, f *frame.Frame, name string) string {
	raw, ok := f.Get(name)
	if !ok {
		return ""
	}
	v, err := frame.Unescape(nil, raw, c.version)
	if err != nil {
		b.w.Fail("protocol", "link %d: %s: header %s: %v", c.link, f.Command, name, err)
	}
	return string(v)
}

// number is a header that is decimal, or 0.
func (b *vendor) number(f *frame.Frame, name string) int {
	n, _ := strconv.Atoi(string(f.Value(name)))
	return n
}

func (c *vconn) sub(id string) *vsub {
	for _, s := range c.subs {
		if s.id == id {
			return s
		}
	}
	return nil
}

func (c *vconn) tx(name string) *vtx {
	for _, t := range c.txs {
		if t.name == name {
			return t
		}
	}
	return nil
}

// failure sends an ERROR. Whether the connection survives it is peculiar to the make, and to the error: ActiveMQ and RabbitMQ keep it
// after most, Artemis closes after each in 1.2 and after those of the login otherwise.
func (b *vendor) failure(c *vconn, f *frame.Frame, text string, closes bool) {
	h := "ERROR\nmessage:" + string(frame.Escape(nil, []byte(text), c.version)) + "\n"
	if id, ok := f.Get("receipt"); ok {
		h += "receipt-id:" + string(id) + "\n"
	}
	body := "java.lang.Exception: " + text + "\n\tat somewhere"
	if b.kind == RabbitMQ {
		body = text
	}
	b.flush(c)
	b.say(c, h+"content-type:text/plain\n\n"+body+"\x00")
	if closes || b.kind == Artemis && c.version == frame.V12 || b.kind == Unfamiliar {
		b.hangup(c)
	}
}

// hangup closes a connection behind what was sent on it.
func (b *vendor) hangup(c *vconn) {
	b.w.Tracef("broker %d: closes", c.link)
	b.w.Hangup(c.link)
	c.state, c.in = over, fifo{}
	b.Lost(c.link)
}

func (b *vendor) say(c *vconn, text string) {
	if b.w.Tracing() {
		b.w.Tracef("broker %d -> %s", c.link, brief([]byte(text)))
	}
	c.lastOut = b.w.Now()
	b.w.Send(c.link, []byte(text))
}
