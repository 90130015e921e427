package sessiontest

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// subscribe takes a SUBSCRIBE.
func (b *vendor) subscribe(c *vconn, f *frame.Frame) {
	id, given := b.value(c, f, "id"), f.Value("id") != nil
	s := &vsub{conn: c, id: id, given: given, browser: b.value(c, f, "browser") == "true"}
	if old := c.sub(id); old != nil && given {
		switch b.kind {
		case ActiveMQ: // accepted without a word: two consumers
		default:
			b.failure(c, f, "Duplicated subscription identifier "+id, true)
			return
		}
	}
	if !b.target(c, f, s) || s.temp == nil && !b.declare(c, f, s.dest) {
		return
	}
	s.mode = [...]AckMode{Auto, Cumulative, Individual}[max(0, slices.Index([]string{"auto", "client", "client-individual"}, b.value(c, f, "ack")))]
	switch b.kind {
	case ActiveMQ:
		s.sole = b.value(c, f, "activemq.exclusive") == "true"
		s.prefetch = b.number(f, "activemq.prefetchSize") // messages, strictly
	case RabbitMQ:
		if n := b.number(f, "prefetch-count"); n > 0 {
			c.prefetch = n // of the channel: later subscriptions inherit it
		}
		s.prefetch = c.prefetch
	}
	if text := b.value(c, f, "selector"); text != "" {
		if s.want = b.selector(text); s.want == nil {
			b.failure(c, f, "bad selector", false)
			return
		}
	}
	b.serial++
	s.number = b.serial
	for _, o := range c.subs {
		if o.dest == s.dest && !o.browser && !s.browser && o.temp == nil && s.temp == nil {
			b.book.shared[s.dest] = true
		}
	}
	c.subs = append(c.subs, s)
	a := vanswer{sub: s}
	if id, ok := f.Get("receipt"); ok {
		a.head = "RECEIPT\nreceipt-id:" + string(id) + "\n\n\x00"
	}
	if b.kind == RabbitMQ || b.kind == Unfamiliar {
		s.ready = true // the RECEIPT of a SUBSCRIBE may come behind the first MESSAGE
		if !b.w.Rand.Chance(50) {
			for range 3 {
				b.dispatch()
			}
		}
	}
	b.answer(c, a)
}

// target finds what a SUBSCRIBE is for.
func (b *vendor) target(c *vconn, f *frame.Frame, s *vsub) bool {
	name := b.value(c, f, "destination")
	if t := b.temp(c, name); t != nil {
		s.temp, s.dest = t, -1
		return true
	}
	dest, ok := queueOf(name)
	if !ok || dest >= len(b.queues) {
		b.w.Fail("torn", "link %d: SUBSCRIBE to a destination that the client did not name: %s", c.link, brief(f.Raw))
		return false
	}
	s.dest = dest
	return dest != topic || b.attach(c, f, s)
}

// attach takes up a durable subscription, which goes by client-id and name and has one consumer at a time. One that asks for it without
// the name would be an ordinary one, and lose what was published meanwhile.
func (b *vendor) attach(c *vconn, f *frame.Frame, s *vsub) bool {
	s.durable = b.value(c, f, durableHeader(b.kind))
	if s.durable == "" || c.client == "" {
		b.w.Fail("torn", "link %d: SUBSCRIBE to the topic lost its name or its client-id: %s", c.link, brief(f.Raw))
		return false
	}
	for _, o := range b.conns {
		for _, x := range o.subs {
			if x.durable == s.durable {
				b.failure(c, f, "Durable consumer is in use for client: "+c.client+" and subscriptionName: "+s.durable, false)
				return false
			}
		}
	}
	b.durable = true
	return true
}

// selector understands JMSMessageID IN ('…', …) and lane = '…', the only ones that are used.
func (b *vendor) selector(text string) func(*vmessage) bool {
	var quoted []string
	for i, part := range strings.Split(text, "'") {
		if i%2 == 1 {
			quoted = append(quoted, part)
		}
	}
	switch {
	case strings.HasPrefix(text, "JMSMessageID") && b.kind == ActiveMQ:
		return func(m *vmessage) bool { return slices.Contains(quoted, m.id) }
	case strings.HasPrefix(text, "lane") && len(quoted) == 1 && b.kind != RabbitMQ:
		return func(m *vmessage) bool { return laneOf(m.item) == "lane:"+quoted[0]+"\n" }
	}
	return nil
}

// browse shows a browser what is there: copies, delivered messages among them, and a frame that says so when it is through. ActiveMQ pages
// a cold queue in bit by bit, and a browser sees only what is paged in.
func (b *vendor) browse(s *vsub) {
	deep := len(b.queues[s.dest])
	if b.script.Page > 0 {
		b.paged[s.dest] += b.script.Page
		deep = min(deep, b.paged[s.dest])
	}
	seen := 0
	for _, m := range b.queues[s.dest] {
		if !m.live || !m.in.done { // what was being written to disk when a link broke is there by the time of the next login
			continue
		}
		if seen++; seen > deep {
			break
		}
		if s.want == nil || s.want(m) {
			b.show(s, m)
		}
	}
	b.say(s.conn, "MESSAGE\nsubscription:"+string(frame.Escape(nil, []byte(s.id), s.conn.version))+
		"\nmessage-id:0\nbrowser:end\ndestination:"+nameOf(s.dest)+"\n\n\x00")
	s.browsed = true
}

func (b *vendor) unsubscribe(c *vconn, f *frame.Frame) {
	id, dest := b.value(c, f, "id"), b.value(c, f, "destination")
	i := slices.IndexFunc(c.subs, func(s *vsub) bool {
		return f.Value("id") != nil && s.id == id || f.Value("id") == nil && !s.given && dest == nameOf(s.dest)
	})
	if i < 0 {
		b.failure(c, f, "No subscription matched", false)
		return
	}
	s := c.subs[i]
	c.subs = slices.Delete(c.subs, i, i+1)
	if b.kind == RabbitMQ {
		c.gone = append(c.gone, s) // what it holds goes back only when the connection closes
		for _, m := range s.sent {
			m.item.moved = true
		}
	} else {
		b.release(s, false)
	}
	b.pending = true
	b.receipt(c, f, nil)
}

// dispatch delivers one message, if one can be; the choice among consumers is free.
func (b *vendor) dispatch() bool {
	for _, c := range b.conns {
		for _, s := range c.subs {
			if s.browser && s.ready && !s.browsed {
				b.browse(s)
				return true
			}
		}
	}
	if b.electing > b.w.Now() {
		return false
	}
	first := b.w.Rand.IntN(len(b.queues))
	for i := range b.queues {
		dest := (first + i) % len(b.queues)
		if b.dispatchFrom(b.queues[dest], func(s *vsub) bool { return s.temp == nil && s.dest == dest }) {
			return true
		}
	}
	for _, t := range b.sortedTemps() {
		if b.dispatchFrom(t.queue, func(s *vsub) bool { return s.temp == t }) {
			return true
		}
	}
	return false
}

func (b *vendor) dispatchFrom(queue []*vmessage, of func(*vsub) bool) bool {
	for _, m := range queue {
		if !m.live || m.holder != nil {
			continue
		}
		// With concurrent store and dispatch, ActiveMQ's default, a MESSAGE may leave before its SEND is on disk.
		if (m.persistent || b.kind == RabbitMQ) && !m.in.done && (m.in.tx || !b.script.Early) {
			return false
		}
		if s := b.consumer(m, of); s != nil {
			b.deliver(s, m)
			return true
		}
	}
	return false
}

// consumer is one that may be given a message, or nil.
func (b *vendor) consumer(m *vmessage, of func(*vsub) bool) *vsub {
	var pick, sole *vsub
	n := 0
	for _, c := range b.conns { // of exclusive consumers the first has everything
		for _, s := range c.subs {
			if s.sole && of(s) && (sole == nil || s.number < sole.number) {
				sole = s
			}
		}
	}
	consider := func(s *vsub) {
		if sole != nil && s != sole {
			return
		}
		if of(s) && s.ready && !s.browser && b.room(s) && (s.want == nil || s.want(m)) {
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
		consider(s)
	}
	return pick
}

// window is Artemis's default consumer window, in octets. There is no prefetch in messages.
const window = 10240

// room reports whether a consumer may have another message.
func (b *vendor) room(s *vsub) bool {
	if b.kind == Artemis && !s.rival && s.mode != Auto {
		used := 0
		for _, m := range s.sent {
			used += m.item.size + 100
		}
		return used < window
	}
	if s.prefetch == 0 {
		return true
	}
	n := 0
	for _, m := range s.sent {
		if !m.inTx || !b.script.TxFrees {
			n++
		}
	}
	return n < s.prefetch
}

func (b *vendor) deliver(s *vsub, m *vmessage) {
	m.holder = s
	m.deliveries++
	defer func() { m.adrift = false }()
	s.sent = append(s.sent, m)
	if s.rival {
		s.actAt = b.w.Now() + b.w.Rand.Span(0, 10*time.Millisecond)
		b.rivalled(m)
		return
	}
	m.item.deliveries++
	m.cameOn = s.conn.link
	m.item.sent, m.item.cameAt, m.item.cameOn = true, b.w.Now(), s.conn.link
	s.conn.tags++
	m.tag = s.conn.tags
	switch b.kind {
	case ActiveMQ:
		b.ackIDs++ // one counter for the process, new with every delivery
		m.ack = "ID:model-" + strconv.Itoa(41000+b.run) + "-1700000000-4:" + strconv.Itoa(b.ackIDs)
	default:
		m.ack = b.messageID(s, m)
	}
	b.show(s, m)
	if s.mode == Auto {
		m.item.auto = true
		m.item.gone = true // consumed with the octets: what is lost on the way is lost
		b.commit(&change{ack: []*vmessage{m}})
	}
}

// rivalled judges a delivery to another consumer: it may have what the client holds only when a connection broke.
func (b *vendor) rivalled(m *vmessage) {
	it := m.item
	switch had := !it.moved && !b.book.left && !m.adrift && it.applied == 1; {
	case had && it.held:
		b.w.Fail("stolen", "%s was given to another consumer, and the client has it", it.key())
	case had && it.acked:
		b.book.suspects = append(b.book.suspects, it) // unless the client is told that its transaction was rolled back
	}
	it.moved = true
}

// show sends the MESSAGE.
func (b *vendor) show(s *vsub, m *vmessage) {
	c := s.conn
	esc := func(v string) []byte { return frame.Escape(nil, []byte(v), c.version) }
	h := append(b.buf[:0], "MESSAGE\n"...)
	if s.given {
		h = frame.AppendHeader(h, "subscription", esc(s.id))
	} else if b.kind == RabbitMQ {
		h = frame.AppendHeader(h, "subscription", esc("Q_"+nameOf(s.dest)))
	}
	h = frame.AppendHeader(h, "message-id", esc(b.messageID(s, m)))
	switch {
	case s.temp != nil:
		h = frame.AppendHeader(h, "destination", esc(s.temp.shownTo(c)))
	default:
		h = frame.AppendHeader(h, "destination", nameOf(m.item.dest))
	}
	if c.version == frame.V12 && s.mode != Auto && !s.browser {
		h = frame.AppendHeader(h, "ack", esc(m.ack))
	}
	switch {
	case b.kind == RabbitMQ:
		h = frame.AppendHeader(h, "redelivered", strconv.FormatBool(m.redelivered))
		if m.redelivered && m.deliveries > 1 {
			h = frame.AppendUint(h, "x-delivery-count", uint64(m.deliveries-1))
		}
	case m.redelivered && b.kind != Unfamiliar:
		h = append(h, "redelivered:true\n"...)
	}
	h = append(h, m.head...)
	body := m.body
	if body == nil {
		body = m.item.body(nil)
	}
	if m.sized || b.kind == RabbitMQ { // RabbitMQ always gives it
		h = frame.AppendUint(h, "content-length", uint64(len(body)))
	}
	h = append(append(append(h, '\n'), body...), 0, '\n')
	b.buf = h
	if b.w.Tracing() {
		b.w.Tracef("broker %d -> %s", c.link, brief(h))
	}
	c.lastOut = b.w.Now()
	b.w.Send(c.link, h)
}
