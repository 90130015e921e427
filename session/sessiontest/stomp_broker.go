package sessiontest

import (
	"strconv"
	"strings"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// storeUUID names the one store of the model.
const storeUUID = "5c1a9e3e-6c0a-4f2b-9d5e-0f0f6a1b2c3d"

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

// login handles CONNECT.
func (b *stompBroker) login(c *bconn, f *frame.Frame) {
	if f.Command != frame.Connect && f.Command != frame.Stomp {
		b.protocol(c, "the first frame is %s", f.Command)
		return
	}
	c.version = b.script.Version
	offered := string(f.Value("accept-version"))
	if c.version != frame.V10 && !strings.Contains(offered, c.version.String()) {
		b.protocol(c, "CONNECT offers versions %q, and the client speaks %s", offered, c.version)
		return
	}
	c.parser.Version = c.version
	if id := string(f.Value(frame.HeaderSession)); id != "" {
		b.loginSession(c, f, id)
		return
	}
	if !b.script.Plain {
		b.protocol(c, "CONNECT without %s", frame.HeaderSession)
		return
	}
	c.state = running
	b.negotiate(c, f)
	b.answer(c, answer{conn: true})
}

func (b *stompBroker) loginSession(c *bconn, f *frame.Frame, id string) {
	attempt, _ := b.number(c, f, frame.HeaderAttempt)
	known, _ := b.number(c, f, frame.HeaderCursor)
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || attempt == 0 || len(f.Value(frame.HeaderHold)) == 0 {
		b.protocol(c, "CONNECT of a session lacks something: %s", brief(f.Raw))
		return
	}
	if want := string(f.Value(frame.HeaderStore)); want != "" && want != storeUUID {
		b.protocol(c, "CONNECT wants store %q", want)
		return
	}
	x := b.session(id)
	if b.refuse > 0 {
		b.refuse--
		b.turnAway(c, x)
		return
	}
	if x != nil && attempt <= x.attempt {
		b.failure(c, frame.CodeStaleAttempt, "a higher attempt was connected")
		return
	}
	if x == nil {
		if len(b.sessions) > 0 {
			b.protocol(c, "the session came back as %s, and was %s", id, b.sessions[0].id)
			return
		}
		x = &bsession{id: id}
		b.sessions = append(b.sessions, x)
	}
	x.attempt = attempt
	if old := x.conn; old != nil && b.script.Fault != KeepsGhost {
		b.w.Tracef("broker: attempt %d ends link %d", attempt, old.link)
		b.w.Hangup(old.link)
		b.Lost(old.link)
	}
	if x.closed && b.script.Forgets {
		x.accepted, x.cursor, x.rolled = 0, 0, nil
	}
	if known > x.cursor {
		if !x.closed {
			b.w.Fail("false-cursor", "CONNECT says that effect %d is durable; the cursor is %d", known, x.cursor)
		}
		b.failure(c, frame.CodeLostState, "this store never saw effect "+strconv.FormatUint(known, 10))
		return
	}
	if x.closed {
		x.closed = false // a session that was closed and comes back is a new one
	}
	x.conn, c.sess, c.state, c.confirmed = c, x, running, known
	b.negotiate(c, f)
	lsn := len(b.log)
	if b.script.Prompt {
		lsn = b.durable
	}
	b.answer(c, answer{lsn: lsn, conn: true})
}

// negotiate agrees on heart-beats. [STOMP 1.2 Heart-beating]
func (b *stompBroker) negotiate(c *bconn, f *frame.Frame) {
	x, y, _ := strings.Cut(string(f.Value("heart-beat")), ",")
	sends, _ := frame.ParseUint([]byte(x))
	wants, _ := frame.ParseUint([]byte(y))
	if sends > 0 {
		c.expect = max(time.Duration(sends)*time.Millisecond, serverBeat)
	}
	if wants > 0 {
		c.beat = max(time.Duration(wants)*time.Millisecond, serverBeat)
	}
	c.lastOut = b.w.Now()
}

// serverBeat is what the server offers and asks for.
const serverBeat = time.Second

func (b *stompBroker) connected(c *bconn) string {
	h := "CONNECTED\nserver:model/1\n"
	if c.version != frame.V10 {
		h += "version:" + c.version.String() + "\n"
	}
	if c.sess == nil {
		return h + "heart-beat:1000,1000\nsession:plain\n\n\x00"
	}
	cursor := c.sess.cursor
	if b.script.Fault == ForgetsCursor && c.sess.attempt > 1 {
		cursor = 0
	}
	h += "heart-beat:1000,1000\nsession:s" + c.sess.id[:4] + "\n" + frame.HeaderStore + ":" + storeUUID + "\n" +
		frame.HeaderEpoch + ":" + strconv.FormatUint(b.epoch, 10) + "\n" + frame.HeaderCursor + ":" + strconv.FormatUint(cursor, 10) + "\n"
	if r := rolledAfter(c.sess, c.confirmed, cursor); r != "" {
		h += frame.HeaderRolledBack + ":" + r + "\n"
	}
	c.confirmed = cursor
	return h + "\n\x00"
}

// rolledAfter lists the rolled-back effects in (after, upTo].
func rolledAfter(x *bsession, after, upTo uint64) string {
	list := ""
	for _, n := range x.rolled {
		if n > after && n <= upTo {
			if list != "" {
				list += ","
			}
			list += strconv.FormatUint(n, 10)
		}
	}
	return list
}

// turnAway refuses a login in one of the ways that occur. x is nil if the session has not been here.
func (b *stompBroker) turnAway(c *bconn, x *bsession) {
	switch way := b.w.Rand.IntN(6); {
	case way == 0:
		b.w.Tracef("broker %d: closes", c.link)
		c.state = over
		b.w.Hangup(c.link)
		b.Lost(c.link)
	case way == 1:
		b.w.Tracef("broker %d: falls silent", c.link)
		c.state = mute
	case way == 2 && b.proven == b.epoch:
		// An owner that was put to sleep before this epoch and woke up. The sidecar has seen this epoch: it must not stay.
		c.state = stale
		b.say(c, "CONNECTED\nversion:"+c.version.String()+"\nserver:model/1\n"+frame.HeaderStore+":"+storeUUID+"\n"+
			frame.HeaderEpoch+":"+strconv.FormatUint(b.epoch-1, 10)+"\n"+frame.HeaderCursor+":"+strconv.FormatUint(x.cursor, 10)+"\n\n\x00")
	case way == 3 && x != nil && b.proven > 0:
		// A standby that does not know the user yet. The login was good before, so this is not for the client to hear.
		b.failure(c, "", "access refused")
	default:
		b.failure(c, frame.CodeStandby, "this server does not own the store")
	}
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
