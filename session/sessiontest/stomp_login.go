package sessiontest

import (
	"strconv"
	"strings"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

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
	want := string(f.Value(frame.HeaderStore))
	if want != storeName && want != storeUUID || want == storeUUID && b.session(id) == nil { // only who was at home here can know that
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
		b.w.matrix.way(waySlams)
		b.w.Tracef("broker %d: closes", c.link)
		c.state = over
		b.w.Hangup(c.link)
		b.Lost(c.link)
	case way == 1:
		b.w.matrix.way(wayStalls)
		b.w.Tracef("broker %d: falls silent", c.link)
		c.state = mute
	case way == 2 && b.proven == b.epoch:
		// An owner that was put to sleep before this epoch and woke up. The sidecar has seen this epoch: it must not stay.
		c.state = stale
		b.say(c, "CONNECTED\nversion:"+c.version.String()+"\nserver:model/1\n"+frame.HeaderStore+":"+storeUUID+"\n"+
			frame.HeaderEpoch+":"+strconv.FormatUint(b.epoch-1, 10)+"\n"+frame.HeaderCursor+":"+strconv.FormatUint(x.cursor, 10)+"\n\n\x00")
	case way == 3 && x != nil && b.proven > 0:
		// A standby that does not know the user yet. The login was good before, so this is not for the client to hear.
		b.w.matrix.way(wayRejects)
		b.failure(c, "", "access refused")
	default:
		b.failure(c, frame.CodeStandby, "this server does not own the store")
	}
}
