package sessiontest

import (
	"strconv"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// answer queues a frame behind what the journal has to make durable first.
func (b *stompBroker) answer(c *bconn, a answer) {
	c.answers = append(c.answers, a)
	b.dirty()
	b.flush(c)
}

// dirty arms the sync of what was appended.
func (b *stompBroker) dirty() {
	if b.durable < len(b.log) && b.syncAt <= b.w.Now() {
		slow := 3 * time.Millisecond
		if b.script.Prompt {
			slow = 40 * time.Millisecond // longer than a dial: else CONNECT never comes first
		}
		b.syncAt = b.w.Now() + b.w.Rand.Span(0, slow)
	}
	b.pending = true
}

// flush sends what the journal allows: answers in their order, and one cursor RECEIPT before or behind them.
func (b *stompBroker) flush(c *bconn) {
	first := b.w.Rand.Uint32()&1 == 0
	if first {
		b.confirm(c)
	}
	n := 0
	for ; n < len(c.answers) && c.answers[n].lsn <= b.durable; n++ {
		a := c.answers[n]
		if a.conn {
			a.head, c.greeted = b.connected(c), true
		}
		if a.sub != nil {
			a.sub.ready, b.pending = true, true
		}
		if a.head != "" {
			b.say(c, a.head)
		}
	}
	c.answers = append(c.answers[:0], c.answers[n:]...)
	if !first {
		b.confirm(c)
	}
}

func (b *stompBroker) say(c *bconn, text string) {
	if b.w.Tracing() {
		b.w.Tracef("broker %d -> %s", c.link, brief([]byte(text)))
	}
	c.lastOut = b.w.Now()
	b.w.Send(c.link, []byte(text))
}

// confirm sends the cursor if it moved, or if a confirmed effect was repeated.
func (b *stompBroker) confirm(c *bconn) {
	if !c.greeted || c.sess == nil || c.sess.conn != c || b.script.Fault == Unconfirming {
		return
	}
	cursor := c.sess.cursor
	if b.script.Fault == ConfirmsEarly {
		cursor = c.sess.accepted
	}
	if cursor <= c.confirmed && (c.again == 0 || c.again > b.durable) {
		return
	}
	h := append(b.buf[:0], "RECEIPT\nreceipt-id:"+frame.ReceiptCursor+"\n"...)
	h = frame.AppendUint(h, frame.HeaderCursor, cursor)
	if r := rolledAfter(c.sess, c.confirmed, cursor); r != "" {
		h = frame.AppendHeader(h, frame.HeaderRolledBack, r)
	}
	c.confirmed, c.again = max(cursor, c.confirmed), 0
	b.buf = append(h, '\n', 0)
	b.say(c, string(b.buf))
}

// Lost ends a connection. What a session held waits for it; what a plain client held goes back at once.
func (b *stompBroker) Lost(link int) {
	for i, c := range b.conns {
		if c.link != link {
			continue
		}
		b.conns = append(b.conns[:i], b.conns[i+1:]...)
		c.state = over
		x := c.sess
		if x == nil {
			for _, s := range c.subs {
				b.release(s, false)
			}
		} else if x.conn == c {
			x.conn, x.absent, x.deadline = nil, true, b.w.Now()+b.script.Reclaim
			b.absent = append(b.absent, c.subs...)
			for _, s := range c.subs {
				if s.waits { // its claims were never decided: the queue waits for them again
					b.gates = append(b.gates, gate{x, s.name, s.dest, x.deadline})
				}
			}
		}
		return
	}
}

func (b *stompBroker) Crash(keep int) {
	n := b.durable + (len(b.log)-b.durable)*keep/100
	if b.script.Fault == LosesDurable {
		n = max(b.durable-3, 0)
	}
	if b.w.Rand.Chance(20) {
		for _, c := range b.conns {
			if c.greeted {
				b.w.Send(c.link, []byte("ERROR\n"+frame.HeaderError+":"+frame.CodeFenced+"\nmessage:lost the store\n\n\x00"))
			}
		}
	}
	b.succeed(n)
}

// succeed is the take-over by the next epoch, on the first n records.
func (b *stompBroker) succeed(n int) {
	b.conns, b.absent, b.gates, b.syncAt = nil, nil, nil, 0
	for _, r := range b.rivals {
		b.loseRival(r)
	}
	b.recover(n)
	b.upAt = max(b.w.downUntil, b.w.Now())
	b.w.Tracef("broker: epoch %d begins with %d records", b.epoch, n)
	until := b.upAt + b.script.Reclaim
	for _, x := range b.sessions {
		x.absent, x.deadline = !x.closed, until
		for _, j := range x.subs {
			b.gates = append(b.gates, gate{x, j.name, j.dest, until})
		}
	}
	if dest := b.w.Rand.IntN(len(b.queues)); b.w.Rand.Chance(15) { // somebody else is away as well, and holds nothing
		b.gates = append(b.gates, gate{nil, "somebody", dest, b.upAt + b.w.Rand.Span(0, b.script.Reclaim)})
	}
	for _, r := range b.rivals {
		if r.paired {
			b.gates = append(b.gates, gate{nil, r.name, r.dest, until})
			r.back = b.upAt + b.w.Rand.Span(0, b.script.Reclaim*5/4)
		}
	}
	b.pending = true
}

func (b *stompBroker) Handover() {
	b.sync()
	for _, c := range append([]*bconn(nil), b.conns...) {
		b.flush(c)
		if c.greeted {
			b.say(c, "ERROR\n"+frame.HeaderMoved+":broker-2\nmessage:the store moves\n\n\x00")
		}
		b.w.Hangup(c.link)
	}
	b.succeed(len(b.log))
}

func (b *stompBroker) Settled() bool {
	return b.durable == len(b.log) && (!b.pending || b.upAt > b.w.Now()) && len(b.conns) == 0 && len(b.gates) == 0 && len(b.absent) == 0
}

func (b *stompBroker) Wake() (at time.Duration, ok bool) {
	earliest := func(t time.Duration) {
		if !ok || t < at {
			at, ok = t, true
		}
	}
	if b.pending {
		earliest(max(b.upAt, 0))
	}
	if b.durable < len(b.log) {
		earliest(b.syncAt)
	}
	for _, s := range b.supply {
		if s.left > 0 {
			earliest(max(s.at, b.upAt))
		}
	}
	for _, r := range b.rivals {
		if r.unacked > 0 {
			earliest(max(r.actAt, b.upAt))
		}
	}
	for _, r := range b.rivals {
		if r.back > 0 {
			earliest(r.back)
		}
	}
	for _, g := range b.gates {
		earliest(g.until)
	}
	if len(b.absent) > 0 {
		earliest(b.absent[0].conn.sess.deadline)
	}
	for _, c := range b.conns {
		if c.beat > 0 && c.greeted {
			earliest(c.lastOut + c.beat)
		}
		if c.expect > 0 {
			earliest(c.lastIn + c.expect*5/2)
		}
	}
	return at, ok
}

// Step does one thing that is due.
func (b *stompBroker) Step() {
	now := b.w.Now()
	if b.durable < len(b.log) && b.syncAt <= now && (!b.pending || b.w.Rand.Uint32()&1 == 0) {
		b.sync()
		b.pending = true
		for _, c := range b.conns {
			b.flush(c)
		}
		return
	}
	if b.pending && b.upAt <= now {
		b.sweep()
		b.decideWaiting()
		b.pending = b.dispatch()
		return
	}
	b.timers(now)
}

func (b *stompBroker) timers(now time.Duration) {
	for i := range b.supply {
		if s := &b.supply[i]; s.left > 0 && s.at <= now && b.upAt <= now {
			s.left--
			s.at = now + b.w.Rand.Span(0, 30*time.Millisecond)
			b.produce(s.dest)
			b.dirty()
		}
	}
	for _, r := range b.rivals {
		if r.back > 0 && r.back <= now {
			b.returnRival(r)
		}
		if r.unacked > 0 && r.actAt <= now && b.upAt <= now {
			b.rival(r)
		}
	}
	b.windows(now)
	for i := 0; i < len(b.conns); i++ {
		c := b.conns[i]
		if c.beat > 0 && c.greeted && c.lastOut+c.beat <= now {
			c.lastOut = now
			b.w.Send(c.link, []byte{'\n'})
		}
		if c.expect > 0 && c.lastIn+c.expect*5/2 <= now {
			b.w.Tracef("broker %d: silent for too long", c.link)
			b.w.Hangup(c.link)
			b.Lost(c.link)
			i--
		}
	}
}

// windows ends absences that have lasted long enough.
func (b *stompBroker) windows(now time.Duration) {
	for i := 0; i < len(b.gates); i++ {
		if g := b.gates[i]; g.until <= now {
			b.w.Tracef("broker: queue %d waits no longer for %q", g.dest, g.sub)
			b.gates = append(b.gates[:i], b.gates[i+1:]...)
			i--
			for _, m := range b.queues[g.dest] {
				if g.sess != nil && m.live && m.holder == nil && m.item.sent {
					m.item.moved = true
				}
			}
			b.pending = true
		}
	}
	for i := 0; i < len(b.absent); i++ {
		if s := b.absent[i]; s.conn.sess.deadline <= now {
			b.w.Tracef("broker: what %q held goes back", s.name)
			b.absent = append(b.absent[:i], b.absent[i+1:]...)
			i--
			b.release(s, true)
		}
	}
}

// decideWaiting answers the SUBSCRIBEs whose claims had to wait, and goes on with what came behind them.
func (b *stompBroker) decideWaiting() {
	for _, c := range append([]*bconn(nil), b.conns...) {
		for _, s := range c.subs {
			if s.waits && !b.othersGate(c.sess, s.dest) {
				b.decide(c, s)
				b.work(c)
				break
			}
		}
	}
}

// rival lets the other consumer acknowledge what it holds, or lose its connection.
func (b *stompBroker) rival(r *subscription) {
	if r.droppy && b.w.Rand.Chance(20) {
		b.release(r, false)
		return
	}
	for _, m := range r.sent {
		if m.holder == r && m.live {
			b.append(record{ack: []*message{m}})
		}
	}
	r.sent, r.unacked = nil, 0
	b.dirty()
}

// loseRival is the other consumer at the end of an epoch: one with a sidecar remembers what it held.
func (b *stompBroker) loseRival(r *subscription) {
	r.wanted = r.wanted[:0]
	for _, m := range r.sent {
		if r.paired && m.holder == r && m.live {
			r.wanted = append(r.wanted, claim{m.id, b.epoch, m.ordinal})
		}
	}
	r.sent, r.unacked = nil, 0
}

// returnRival lets it claim. It may take a message from a session whose claim was granted before, by an earlier delivery.
func (b *stompBroker) returnRival(r *subscription) {
	r.back = 0
	for _, cl := range r.wanted {
		m, _ := b.find(r.dest, cl.id)
		if m == nil || !m.live || m.holder != nil && !cl.beats(m.claimed) {
			continue
		}
		if m.holder != nil {
			m.holder.unacked--
			m.item.moved = true
		}
		b.w.Tracef("broker: the other consumer comes back with %s", m.item.key())
		m.holder, m.claimed = r, cl
		r.sent = append(r.sent, m)
		r.unacked++
	}
	b.liftGate(nil, r.name)
	r.actAt = b.w.Now() + b.w.Rand.Span(0, 10*time.Millisecond)
	b.pending = true
}

// plainAck finds what a client without a sidecar acknowledges.
func (b *stompBroker) plainAck(c *bconn, f *frame.Frame, a txAck) txAck {
	id := b.value(c, f, "id")
	for _, s := range c.subs {
		for _, m := range s.sent {
			if m.holder == s && m.live && (c.version == frame.V12 && id == b.ackID(m) || c.version != frame.V12 && a.id == m.id) {
				return txAck{sub: s.name, id: m.id, nack: a.nack}
			}
		}
	}
	return a
}

// rest is what a connection has read and the server has not taken up.
func (b *stompBroker) rest(link int) []byte {
	if c := b.conn(link); c != nil {
		return c.in.buf[c.in.head:]
	}
	return nil
}

// calm is always so: the paired protocol ends earlier connections before it answers.
func (b *stompBroker) calm() bool { return true }

// heldBySession lists what the session has on its current connection, delivered and not acknowledged.
func (b *stompBroker) heldBySession() (list []*item) {
	for _, c := range b.conns {
		for _, s := range c.subs {
			for _, m := range s.sent {
				if m.holder == s && m.live {
					list = append(list, m.item)
				}
			}
		}
	}
	return list
}

// left lists what is in the queues.
func (b *stompBroker) left() (list []*item) {
	for _, q := range b.queues {
		for _, m := range q {
			if m.live {
				list = append(list, m.item)
			}
		}
	}
	return list
}

// plainName is a subscription's name for the transcript.
func (s *subscription) String() string { return s.name + " on queue " + strconv.Itoa(s.dest) }
