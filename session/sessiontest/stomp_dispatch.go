package sessiontest

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// subscription is a consumer: of a connection, of a session that is away, or the rival.
type subscription struct {
	conn     *bconn
	name     string
	dest     int
	mode     AckMode
	prefetch int // 0 is none
	unacked  int
	ready    bool       // its RECEIPT has gone out
	owed     []*message // held, lost on the way, to be delivered again
	sent     []*message // in the order of delivery; some are settled
	wanted   []claim    // to be decided
	receipt  string     // receipt-id line of its RECEIPT, "" for none
	waits    bool       // for the claims of other sessions
	plain    bool       // of a client without a sidecar
	rival    bool
	droppy   bool
	paired   bool          // rival: with a sidecar
	actAt    time.Duration // rival: when it acknowledges
	back     time.Duration // rival: when it comes back and claims what is wanted; 0 if it is there
}

type claim struct {
	id      string
	epoch   uint64
	ordinal uint64
}

// beats reports whether a claim is by a later delivery than one that was granted.
func (c claim) beats(o claim) bool {
	return o.id != "" && (c.epoch > o.epoch || c.epoch == o.epoch && c.ordinal > o.ordinal)
}

// gate holds the recovered messages of a queue back until a session's subscription is there again, or time is up.
type gate struct {
	sess  *bsession
	sub   string
	dest  int
	until time.Duration
}

type supply struct {
	dest, left int
	at         time.Duration
}

// produce stores a message of the other producer.
func (b *stompBroker) produce(dest int) {
	it := b.book.add(false, dest, 4+b.w.Rand.IntN(60))
	it.place = 1
	m := &message{item: it, id: "p:" + strconv.Itoa(it.n), sized: it.binary(), head: []byte(noteOf(it, b.script.Version))}
	b.messages = append(b.messages, m)
	b.append(record{enq: []*message{m}})
}

func (b *stompBroker) subscribe(c *bconn, f *frame.Frame) {
	dest, ok := queueOf(b.value(c, f, "destination"))
	s := &subscription{conn: c, name: b.value(c, f, "id"), dest: dest, plain: c.sess == nil}
	if !ok || s.name == "" || c.sub(s.name) != nil || dest >= len(b.queues) {
		b.protocol(c, "SUBSCRIBE without a destination, without an id, or with one that is in use: %s", brief(f.Raw))
		return
	}
	if n, ok := b.number(c, f, "activemq.prefetchSize"); ok {
		s.prefetch = int(n)
	}
	switch mode := b.value(c, f, "ack"); {
	case mode == "client-individual":
		s.mode = Individual
	case c.sess != nil:
		b.protocol(c, "SUBSCRIBE of a session with ack:%s", mode)
		return
	case mode == "client":
		s.mode = Cumulative
	}
	if id, ok := f.Get("receipt"); ok {
		s.receipt = "receipt-id:" + string(id) + "\n"
	}
	for _, o := range c.subs {
		if o.dest == dest {
			b.book.shared[dest] = true
		}
	}
	c.subs = append(c.subs, s)
	if c.sess == nil {
		b.opened(c, s, "")
		return
	}
	for _, part := range strings.Split(b.value(c, f, frame.HeaderClaims), ",") {
		if part == "" {
			continue
		}
		id, at, _ := strings.Cut(part, "=")
		e, o, _ := strings.Cut(at, ".")
		epoch, ok1 := frame.ParseUint([]byte(e))
		ordinal, ok2 := frame.ParseUint([]byte(o))
		if !ok1 || !ok2 || epoch > b.epoch {
			b.protocol(c, "SUBSCRIBE with a malformed claim %q", part)
			return
		}
		s.wanted = append(s.wanted, claim{id, epoch, ordinal})
	}
	b.append(record{sess: c.sess, sub: s.name, dest: dest})
	b.liftGate(c.sess, s.name)
	if s.waits = b.script.Waits && b.othersGate(c.sess, dest) && len(s.wanted) > 0; !s.waits {
		b.decide(c, s)
	}
}

// decide answers a SUBSCRIBE of a session; dispatch to it begins behind the answer.
func (b *stompBroker) decide(c *bconn, s *subscription) {
	s.waits = false
	b.opened(c, s, b.grant(c, s))
}

func (b *stompBroker) opened(c *bconn, s *subscription, extra string) {
	a := answer{lsn: len(b.log), sub: s}
	if s.receipt != "" {
		a.head = "RECEIPT\n" + s.receipt + extra + "\n\x00"
	}
	b.answer(c, a)
}

// grant decides the claims of a subscription that is there again, and returns the header that names those not granted.
func (b *stompBroker) grant(c *bconn, s *subscription) string {
	old := b.takeAbsent(c.sess, s.name)
	var gone []string
	for _, cl := range s.wanted {
		m, known := b.find(s.dest, cl.id)
		refused := !known || !m.live || m.holder != nil && m.holder != old && !cl.beats(m.claimed) ||
			m.given > b.durable // by a NACK that was accepted, and is not known to be
		if b.script.Fault == IgnoresClaims || known && m.holder == s {
			continue // claimed twice: under two deliveries
		}
		if refused {
			gone = append(gone, cl.id)
			if known && !m.item.acked {
				m.item.moved = true
			}
			continue
		}
		if m.holder != nil && m.holder != old {
			m.holder.unacked--
		}
		if b.script.Fault != ServesClaimed {
			m.holder, m.claimed = s, cl
		}
		s.sent = append(s.sent, m)
		s.unacked++
	}
	s.wanted = nil
	if old != nil {
		b.resend(old, s)
	}
	if c.sess.absent {
		c.sess.deadline = max(c.sess.deadline, b.w.Now()+b.script.Reclaim)
	}
	if len(gone) == 0 {
		return ""
	}
	list := frame.Escape(nil, []byte(strings.Join(gone, ",")), c.version)
	return frame.HeaderGone + ":" + string(list) + "\n"
}

func (b *stompBroker) takeAbsent(x *bsession, name string) *subscription {
	for i, s := range b.absent {
		if s.conn.sess == x && s.name == name {
			b.absent = append(b.absent[:i], b.absent[i+1:]...)
			return s
		}
	}
	return nil
}

func (b *stompBroker) liftGate(x *bsession, name string) {
	for i, g := range b.gates {
		if g.sess == x && g.sub == name {
			b.gates = append(b.gates[:i], b.gates[i+1:]...)
			return
		}
	}
}

// resend hands on what a subscription held before the break and did not claim: it was lost on the way, and is delivered again in its place.
func (b *stompBroker) resend(old, s *subscription) {
	for _, m := range append(old.sent, old.owed...) {
		if m.holder == old && m.live {
			m.holder, m.redelivered, m.claimed = s, true, claim{}
			s.owed = append(s.owed, m)
			s.unacked++
		}
	}
	slices.SortFunc(s.owed, func(x, y *message) int { return x.lsn - y.lsn })
	old.sent, old.owed, old.unacked = nil, nil, 0
}

// release gives what a subscription holds back to its queue; late means that its session was away for too long.
func (b *stompBroker) release(s *subscription, late bool) {
	for _, m := range append(s.sent, s.owed...) {
		if m.holder == s && m.live {
			m.holder, m.redelivered = nil, true
			m.item.moved = m.item.moved || late
		}
	}
	s.sent, s.owed, s.unacked = nil, nil, 0
	b.pending = true
}

func (b *stompBroker) unsubscribe(c *bconn, f *frame.Frame) {
	name := b.value(c, f, "id")
	for i, s := range c.subs {
		if s.name == name {
			b.release(s, false)
			c.subs = append(c.subs[:i], c.subs[i+1:]...)
			break
		}
	}
	if c.sess != nil {
		if s := b.takeAbsent(c.sess, name); s != nil {
			b.release(s, false)
		}
		b.liftGate(c.sess, name)
		b.append(record{sess: c.sess, sub: name, unsub: true})
	}
	b.receipt(c, f, "")
}

// gated reports whether the queue waits for absent sessions, or for claims that are not decided.
func (b *stompBroker) gated(dest int) bool {
	for _, c := range b.conns {
		for _, s := range c.subs {
			if s.dest == dest && s.waits {
				return true
			}
		}
	}
	for _, g := range b.gates {
		if g.dest == dest {
			return true
		}
	}
	return false
}

// othersGate is gated by sessions other than x: their claims could be higher.
func (b *stompBroker) othersGate(x *bsession, dest int) bool {
	for _, g := range b.gates {
		if g.dest == dest && g.sess != x {
			return true
		}
	}
	return false
}

// dispatch delivers one message, if one can be; the choice among consumers is free.
func (b *stompBroker) dispatch() bool {
	for _, c := range b.conns {
		for _, s := range c.subs {
			for s.ready && len(s.owed) > 0 {
				m := s.owed[0]
				s.owed = s.owed[1:]
				if m.holder == s && m.live {
					s.unacked--
					b.deliver(s, m)
					return true
				}
			}
		}
	}
	first := b.w.Rand.IntN(len(b.queues))
	for i := range b.queues {
		dest := (first + i) % len(b.queues)
		if b.gated(dest) {
			continue
		}
		for _, m := range b.queues[dest] {
			if !m.live || m.holder != nil || max(m.lsn, m.given) > b.durable {
				continue
			}
			if s := b.consumer(dest); s != nil {
				b.deliver(s, m)
				return true
			}
			break
		}
	}
	return false
}

// consumer is one that may be given a message of a queue, or nil.
func (b *stompBroker) consumer(dest int) *subscription {
	var pick *subscription
	n := 0
	consider := func(s *subscription) {
		if s.dest == dest && s.ready && (s.prefetch == 0 || s.unacked < s.prefetch) && len(s.owed) == 0 {
			if n++; b.w.Rand.IntN(n) == 0 {
				pick = s
			}
		}
	}
	for _, c := range b.conns {
		if c.state == running {
			for _, s := range c.subs {
				consider(s)
			}
		}
	}
	for _, s := range b.rivals {
		s.ready = s.back == 0
		consider(s)
	}
	return pick
}

func (b *stompBroker) deliver(s *subscription, m *message) {
	kept := s.sent[:0]
	for _, x := range s.sent {
		if x != m && x.holder == s && x.live {
			kept = append(kept, x)
		}
	}
	s.sent = append(kept, m)
	m.ordinal++
	if m.holder != s {
		m.holder, m.claimed = s, claim{}
	}
	s.unacked++
	if s.rival {
		s.actAt = b.w.Now() + b.w.Rand.Span(0, 10*time.Millisecond)
		b.book.rivalled(m.item)
		return
	}
	m.item.sent = true
	b.show(s, m)
	if s.plain && s.mode == Auto {
		s.unacked--
		m.item.auto = true
		b.append(record{ack: []*message{m}})
	}
}

// ackID is what a 1.2 client acknowledges by; it differs from delivery to delivery.
func (b *stompBroker) ackID(m *message) string {
	return "a" + strconv.FormatUint(b.epoch, 10) + "-" + strconv.FormatUint(m.ordinal, 10) + "-" + m.id
}

// show sends the MESSAGE.
func (b *stompBroker) show(s *subscription, m *message) {
	c := s.conn
	h := append(b.buf[:0], "MESSAGE\n"...)
	if !s.plain && (m.ordinal > 1 || b.w.Rand.Uint32()&3 == 0) {
		h = frame.AppendUint(h, frame.HeaderDelivery, m.ordinal)
	}
	id := m.id
	if b.script.Fault == GarblesMessageID && m.redelivered {
		id += "x"
	}
	h = frame.AppendHeader(h, "subscription", frame.Escape(nil, []byte(s.name), c.version))
	h = frame.AppendHeader(h, "message-id", frame.Escape(nil, []byte(id), c.version))
	h = frame.AppendHeader(h, "destination", nameOf(m.item.dest))
	if c.version == frame.V12 {
		h = frame.AppendHeader(h, "ack", frame.Escape(nil, []byte(b.ackID(m)), c.version))
	}
	if m.redelivered {
		h = append(h, "redelivered:true\n"...)
	}
	h = append(h, m.head...)
	b.names = m.item.body(b.names[:0])
	if b.script.Fault == CorruptsBody && m.item.n%5 == 4 {
		b.names[len(b.names)-1] ^= 1
	}
	if m.sized {
		h = frame.AppendUint(h, "content-length", uint64(len(b.names)))
	}
	h = append(append(append(h, '\n'), b.names...), 0)
	if b.w.Rand.Uint32()&7 == 0 {
		h = append(h, '\n')
	}
	b.buf = h
	if b.w.Tracing() {
		b.w.Tracef("broker %d -> %s", c.link, brief(h))
	}
	c.lastOut = b.w.Now()
	b.w.Send(c.link, h)
}
