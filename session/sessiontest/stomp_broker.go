package sessiontest

import (
	"strings"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// storeUUID and storeName name the one store of the model.
const (
	storeUUID = "5c1a9e3e-6c0a-4f2b-9d5e-0f0f6a1b2c3d"
	storeName = "model"
)

// stompBroker models the broker's side of the paired protocol, and a plain STOMP server for clients without a sidecar.
type stompBroker struct {
	store
	w      *World
	book   *ledger
	script *Script
	refuse int
	serial int    // of messages that plain clients sent
	proven uint64 // the last epoch that the sidecar has certainly seen in CONNECTED

	conns   []*bconn
	absent  []*subscription // of sessions that are away, with what they held
	gates   []gate
	rivals  []*subscription
	upAt    time.Duration
	syncAt  time.Duration // when the pending batch is synced
	supply  []supply
	pending bool // something may be dispatched
	buf     []byte
	names   []byte
}

// bconn is one connection of the server.
type bconn struct {
	link      int
	parser    frame.Parser
	in        fifo
	version   frame.Version
	state     connState
	sess      *bsession
	subs      []*subscription
	txs       []*transaction
	answers   []answer
	confirmed uint64 // the cursor last told
	again     int    // log length at which a confirmed effect is to be confirmed again; 0 = not
	greeted   bool   // CONNECTED has gone out
	beat      time.Duration
	expect    time.Duration
	lastOut   time.Duration
	lastIn    time.Duration
}

type connState uint8

const (
	fresh connState = iota
	running
	stale // answered with an epoch that is over
	mute  // accepted, and will never answer
	over
)

// answer waits until the journal is durable up to lsn.
type answer struct {
	lsn  int
	head string // a whole frame
	sub  *subscription
	conn bool // CONNECTED
}

type transaction struct {
	name  string
	sends []*message
	acks  []txAck
}

type txAck struct {
	sub, id string
	nack    bool
	freed   *subscription // does not count it any more
}

func newStompBroker(w *World, script *Script, book *ledger) *stompBroker {
	b := &stompBroker{w: w, script: script, book: book}
	b.epoch = uint64(w.Rand.Between(1, 9))
	b.queues = make([][]*message, len(script.Queues))
	for dest, q := range script.Queues {
		for range q.Loaded {
			b.produce(dest)
		}
		if q.Trickle > 0 {
			b.supply = append(b.supply, supply{dest: dest, left: q.Trickle, at: w.Rand.Span(0, 50*time.Millisecond)})
		}
		if q.Rival {
			b.rivals = append(b.rivals, &subscription{name: "rival", dest: dest, prefetch: w.Rand.Between(1, 4), mode: Individual, rival: true, droppy: q.Droppy, paired: q.Paired})
		}
	}
	b.sync()
	return b
}

func (b *stompBroker) conn(link int) *bconn {
	for _, c := range b.conns {
		if c.link == link {
			return c
		}
	}
	return nil
}

func (b *stompBroker) Accept(link int) {
	c := &bconn{link: link, lastIn: b.w.Now()}
	c.parser.Version = frame.V10
	b.conns = append(b.conns, c)
}

func (b *stompBroker) Refuse(n int) { b.refuse = n }

func (b *stompBroker) Read(link int, p []byte) {
	c := b.conn(link)
	if c == nil || c.state >= mute {
		return
	}
	c.lastIn = b.w.Now()
	c.in.push(p)
	b.work(c)
}

// work handles the whole frames that a connection has read.
func (b *stompBroker) work(c *bconn) {
	var f frame.Frame
	for c.state < mute {
		rest := c.in.buf[c.in.head:]
		n, _, err := c.parser.Next(rest, &f)
		if err != nil {
			b.w.Fail("protocol", "link %d: the broker cannot parse what it was sent: %v: %.200q", c.link, err, rest)
			return
		}
		if n == 0 || b.mustWait(c, &f) {
			return
		}
		c.in.head += n
		if f.Command != frame.EOL {
			b.handle(c, &f)
		}
	}
	c.in = fifo{}
}

// mustWait reports whether a frame has to wait for claims that are not decided: an acknowledgement may name what they grant. The
// Parser has no state between frames, so the frame is simply cut again later.
func (b *stompBroker) mustWait(c *bconn, f *frame.Frame) bool {
	if f.Command != frame.Ack && f.Command != frame.Nack && f.Command != frame.Commit {
		return false
	}
	for _, s := range c.subs {
		if s.waits {
			return true
		}
	}
	return false
}

func (b *stompBroker) handle(c *bconn, f *frame.Frame) {
	if b.w.Tracing() {
		b.w.Tracef("broker %d <- %s", c.link, brief(f.Raw))
	}
	switch c.state {
	case fresh:
		b.login(c, f)
		return
	case stale:
		if f.Command != frame.Disconnect {
			b.w.Fail("stale-epoch", "link %d: %s was sent to an owner of epoch %d, and epoch %d was seen", c.link, f.Command, b.epoch-1, b.epoch)
		}
		return
	}
	b.proven = b.epoch
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
		b.protocol(c, "%s in the middle of a conversation", f.Command)
	}
}

// protocol notes that the broker was sent something that makes no sense there.
func (b *stompBroker) protocol(c *bconn, format string, args ...any) {
	b.w.Fail("protocol", "link %d: "+format, append([]any{c.link}, args...)...)
	c.state = over
}

// value is a header, decoded.
func (b *stompBroker) value(c *bconn, f *frame.Frame, name string) string {
	raw, ok := f.Get(name)
	if !ok {
		return ""
	}
	v, err := frame.Unescape(nil, raw, c.version)
	if err != nil {
		b.protocol(c, "%s: header %s: %v", f.Command, name, err)
	}
	return string(v)
}

func (b *stompBroker) number(c *bconn, f *frame.Frame, name string) (uint64, bool) {
	raw, ok := f.Get(name)
	if !ok {
		return 0, false
	}
	n, ok := frame.ParseUint(raw)
	if !ok {
		b.protocol(c, "%s: header %s is not a number: %q", f.Command, name, raw)
	}
	return n, ok
}

// failure sends an ERROR and closes.
func (b *stompBroker) failure(c *bconn, code, text string) {
	b.w.Tracef("broker %d -> ERROR %s", c.link, code)
	if code != "" {
		code = frame.HeaderError + ":" + code + "\n"
	}
	b.w.Send(c.link, []byte("ERROR\n"+code+"message:"+text+"\n\n\x00"))
	c.state = over
	b.w.Hangup(c.link)
	b.Lost(c.link)
}

// brief is a frame in one line.
func brief(raw []byte) string {
	s := strings.ReplaceAll(strings.TrimRight(string(raw), "\x00\n"), "\r", "")
	if len(s) > 400 {
		s = s[:400] + "…"
	}
	return strings.ReplaceAll(s, "\n", " | ")
}
