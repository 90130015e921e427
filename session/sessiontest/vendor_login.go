package sessiontest

import (
	"strconv"
	"strings"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// servers is what each make calls itself in CONNECTED.
var servers = [...]string{ActiveMQ: "ActiveMQ/5.17.2", Artemis: "ActiveMQ-Artemis/2.33.0 ActiveMQ Artemis Messaging Engine", RabbitMQ: "RabbitMQ/3.10.8", Unfamiliar: "tiny/0.1"}

// login handles CONNECT.
func (b *vendor) login(c *vconn, f *frame.Frame) {
	if f.Command != frame.Connect && f.Command != frame.Stomp {
		b.w.Fail("protocol", "link %d: the first frame is %s", c.link, f.Command)
		return
	}
	c.version = b.script.Version
	if c.version != frame.V10 && !strings.Contains(string(f.Value("accept-version")), c.version.String()) {
		b.w.Fail("protocol", "link %d: CONNECT offers versions %q, and the client speaks %s", c.link, f.Value("accept-version"), c.version)
		return
	}
	if string(f.Value("login")) != "user" || string(f.Value("passcode")) != "pass:word" || string(f.Value("client-id")) != b.script.ClientID {
		b.w.Fail("torn", "link %d: CONNECT comes with other credentials than the client gave: %s", c.link, brief(f.Raw))
		return
	}
	c.parser.Version = c.version
	if b.refuse > 0 {
		b.refuse--
		b.turnAway(c, f)
		return
	}
	c.id = "ID:model-" + strconv.Itoa(41000+b.run) + "-1700000000-3:" + strconv.Itoa(c.link)
	c.session = [...]string{ActiveMQ: c.id, Artemis: "a" + strconv.Itoa(7000+c.link), RabbitMQ: "session-" + strconv.Itoa(c.link) + "x",
		Unfamiliar: "tiny-" + strconv.Itoa(c.link)}[b.kind]
	if c.client = string(f.Value("client-id")); c.client != "" && !b.admit(c, f) {
		return
	}
	b.negotiate(c, f)
	c.state, c.greetedAt, b.loginAt = running, b.w.Now(), b.w.Now()
	h := "CONNECTED\n"
	if c.version != frame.V10 {
		h += "version:" + c.version.String() + "\n"
	}
	b.say(c, h+"server:"+servers[b.kind]+"\nsession:"+c.session+"\nheart-beat:"+b.beats(c)+"\n\n\x00")
	b.pending = true
}

// admit deals with a client-id. ActiveMQ answers the second connection with the same one with ERROR and closes it while the first lives; with
// allowLinkStealing on the connector's URI the new one wins and the old one sees EOF. With a client-id, session is that, and
// the connection id is not disclosed, so that message ids cannot be foretold.
func (b *vendor) admit(c *vconn, f *frame.Frame) bool {
	if b.kind != ActiveMQ {
		return true
	}
	for _, o := range b.conns {
		if o != c && o.client == c.client && o.state == running {
			if !b.script.Steals {
				b.failure(c, f, "Broker: model - Client: "+c.client+" already connected from tcp://127.0.0.1:1", true)
				return false
			}
			b.w.Tracef("broker %d: link is stolen by %d", o.link, c.link)
			b.hangup(o)
			break
		}
	}
	c.session = c.client
	return true
}

// negotiate agrees on heart-beats. ActiveMQ takes the client's numbers, and closes without a word when the client is silent for three intervals;
// RabbitMQ rounds to whole seconds; Artemis derives a time to live of twice the client's.
func (b *vendor) negotiate(c *vconn, f *frame.Frame) {
	x, y, _ := strings.Cut(string(f.Value("heart-beat")), ",")
	sends, _ := frame.ParseUint([]byte(x))
	wants, _ := frame.ParseUint([]byte(y))
	expect, beat := time.Duration(sends)*time.Millisecond, time.Duration(wants)*time.Millisecond
	switch b.kind {
	case RabbitMQ:
		round := func(d time.Duration) time.Duration {
			if d > 0 {
				d = max(d.Truncate(time.Second), time.Second)
			}
			return d
		}
		expect, beat = round(expect), round(beat)
	case Artemis:
		if beat > 0 {
			beat = max(beat, 500*time.Millisecond)
		}
		if expect > 0 {
			expect = max(expect, 500*time.Millisecond)
		}
	}
	c.expect, c.beat = expect, beat
	c.lastOut = b.w.Now()
	if b.kind == ActiveMQ {
		c.lastOut += beat // the first one comes after two intervals
	}
}

func (b *vendor) beats(c *vconn) string {
	return strconv.FormatInt(c.beat.Milliseconds(), 10) + "," + strconv.FormatInt(c.expect.Milliseconds(), 10)
}

// patience is how long the server bears a silent client.
func (b *vendor) patience(c *vconn) time.Duration {
	if b.kind == Artemis {
		return max(2*c.expect, time.Second)
	}
	return 3 * c.expect
}

// beatEvery is how often it beats: RabbitMQ at half the interval.
func (b *vendor) beatEvery(c *vconn) time.Duration {
	if b.kind == RabbitMQ {
		return c.beat / 2
	}
	return c.beat
}

// turnAway refuses a login in one of the ways that occur: the credentials are not known there yet, a frozen process takes the
// connection and says nothing, a process that goes down closes.
func (b *vendor) turnAway(c *vconn, f *frame.Frame) {
	switch way := b.w.Rand.IntN(3); {
	case way == 0:
		b.air.way(waySlams)
		b.hangup(c)
	case way == 1 || b.book.served == 0:
		b.air.way(wayStalls)
		b.w.Tracef("broker %d: falls silent", c.link)
		c.state = mute
	default:
		b.air.way(wayRejects)
		b.failure(c, f, "User name [user] or password is invalid.", true)
	}
}
