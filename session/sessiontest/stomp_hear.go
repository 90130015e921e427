package sessiontest

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

func (c *stompClient) connected(f *frame.Frame) {
	if c.frames != 1 {
		c.w.Fail("protocol", "the client was sent CONNECTED as frame %d", c.frames)
		return
	}
	if v := string(f.Value("version")); c.script.Version != frame.V10 && v != c.script.Version.String() {
		c.w.Fail("protocol", "CONNECTED says version %q", v)
	}
	c.greeted = true
	c.book.served++
	c.parser.Version = c.script.Version
	if c.phase == connecting {
		c.phase = talking
	}
	x, y, _ := strings.Cut(string(f.Value("heart-beat")), ",")
	sends, _ := strconv.Atoi(x)
	wants, _ := strconv.Atoi(y)
	own := c.script.HeartBeat
	if c.script.Version == frame.V10 {
		own = 0
	}
	if own > 0 && sends > 0 {
		c.expect = max(own, time.Duration(sends)*time.Millisecond)
	}
	if own > 0 && wants > 0 {
		c.beat = max(own, time.Duration(wants)*time.Millisecond)
	}
}

func (c *stompClient) message(f *frame.Frame) {
	if c.script.Kind != Paired && !c.clean(f) {
		return
	}
	var s *clientSub
	id := string(f.Value("subscription"))
	dest, _ := queueOf(string(f.Value("destination")))
	for _, x := range c.subs {
		if x != nil && (x.id == id || c.script.Nameless && x.dest == dest) {
			s = x
		}
	}
	if old := c.fleeting[dest]; old != nil {
		id = old.id
	}
	if s != nil && s.browsed != nil {
		c.glance(s, f)
		return
	}
	it := c.book.find(f.Body)
	switch {
	case c.frames == 1:
		c.w.Fail("protocol", "the first frame is a MESSAGE")
		return
	case it == nil:
		c.w.Fail("torn", "a MESSAGE holds what nobody sent: %.200q", f.Raw)
		return
	case it.own && (it.aborted || it.place == 0):
		c.w.Fail("ghost", "%s was sent in a transaction that was not committed, and is delivered", it.key())
		return
	case s == nil && c.knew(id):
		// It crossed the UNSUBSCRIBE. On an ack:auto subscription it may be consumed all the same.
		if old := c.book.subs[id]; old != nil && old.mode == Auto {
			it.taken, it.auto = true, true
		}
		c.forgotten = append(c.forgotten, it)
		return
	case s == nil:
		c.w.Fail("protocol", "a MESSAGE for subscription %q, which is not there", id)
		return
	case s.dest != it.dest:
		c.w.Fail("phantom", "%s is of queue %d and came on a subscription to %d", it.key(), it.dest, s.dest)
		return
	case s.lane > 0 && laneOf(it) != "lane:"+strconv.Itoa(s.lane-1)+"\n":
		c.w.Fail("phantom", "%s came on a subscription that does not select it", it.key())
		return
	case it.binary() != f.HasContentLength && (c.script.Kind != RabbitMQ || !f.HasContentLength) || !strings.Contains(string(f.Block), noteOf(it, c.script.Version)):
		c.w.Fail("torn", "%s came with other headers than it was sent with: %s", it.key(), brief(f.Raw))
		return
	}
	it.taken, it.auto = true, s.mode == Auto
	if c.phase == leavingPhase {
		return // it crossed the DISCONNECT: whether it counts as consumed is the broker's business
	}
	c.book.delivered(it, s.gen)
	c.book.inOrder(it)
	if s.mode == Auto {
		it.held, it.acked = false, true
		return
	}
	c.seq++
	h := holding{item: it, sub: s, seq: c.seq, mid: string(f.Value("message-id")), ack: string(f.Value("ack"))}
	if h.mid == "" || h.ack == "" && c.script.Version == frame.V12 {
		c.w.Fail("protocol", "a MESSAGE that cannot be acknowledged: %s", brief(f.Raw))
	}
	c.hold(s, h)
	unacked := 0
	for _, x := range s.held {
		if x.tx == 0 { // whether an acknowledgement in an open transaction counts is the broker's business
			unacked++
		}
	}
	if s.prefetch > 0 && unacked > s.prefetch && !s.loose {
		c.w.Fail("overshoot", "the client holds %d messages on %s, and asked for %d", unacked, s.id, s.prefetch)
	}
	if c.at > c.w.Now() && (c.phase == draining || c.phase == talking && c.pc < len(c.script.Ops) &&
		(c.script.Ops[c.pc].Kind == OpAck || c.script.Ops[c.pc].Kind == OpNack)) {
		c.at = c.w.Now()
	}
}

// hold adds a message; one that had to be given up and came again replaces the old holding.
func (c *stompClient) hold(s *clientSub, h holding) {
	s.held = append(slices.DeleteFunc(s.held, func(o holding) bool { return o.item == h.item }), h)
}

// knew reports whether a subscription of this name existed once, and its end has not been confirmed for certain.
func (c *stompClient) knew(id string) bool {
	_, gen, _ := strings.Cut(id, "-")
	n, err := strconv.Atoi(gen)
	if err != nil || n > c.gens {
		return false
	}
	for _, r := range c.requests {
		if r.what == "UNSUBSCRIBE "+id {
			return true
		}
	}
	return !c.closedSub(id)
}

func (c *stompClient) closedSub(id string) bool {
	for _, x := range c.unsubscribed {
		if x == id {
			return true
		}
	}
	return false
}

func (c *stompClient) receipt(f *frame.Frame) {
	id := string(f.Value("receipt-id"))
	n, err := strconv.Atoi(strings.TrimPrefix(id, "r-"))
	if err != nil || n < 1 || n > c.receipts {
		c.w.Fail("phantom-receipt", "the client was sent receipt %q, and did not ask for it", id)
		return
	}
	for i, r := range c.requests {
		if r.n != n {
			continue
		}
		c.requests = append(c.requests[:i], c.requests[i+1:]...)
		c.judgeReceipt(i, r)
		return
	}
	c.w.Fail("answered-twice", "receipt %q came a second time", id)
}

func (c *stompClient) judgeReceipt(i int, r request) {
	switch {
	case r.effect && r.n < c.answered && c.script.Kind != RabbitMQ: // whose confirms are per queue
		c.w.Fail("receipt-order", "the receipt of %s came behind one that was asked for later", r.what)
	case r.n == c.byeID && len(c.requests) > 0 && !(c.script.Plain && c.script.Kind == RabbitMQ):
		c.w.Fail("receipt-order", "DISCONNECT was answered before %s", c.requests[0].what)
	}
	if r.effect {
		c.answered = r.n
	}
	for _, it := range r.items {
		if !it.durable && !it.volatile && !(c.script.Plain && c.script.Kind == RabbitMQ && r.what == "COMMIT") {
			c.w.Fail("early-receipt", "%s was confirmed before it was durable", r.what)
		}
		it.receipted = true
	}
	if id, ok := strings.CutPrefix(r.what, "UNSUBSCRIBE "); ok {
		c.unsubscribed = append(c.unsubscribed, id)
	}
	if r.n == c.byeID {
		c.drained = true
		c.goAway(Gone)
	}
}

// error judges an ERROR: the session must have had a reason to end. One that says "rolled back" answers a COMMIT; the connection may
// go on behind it.
func (c *stompClient) error(f *frame.Frame) {
	text := string(f.Value("message")) + " " + string(f.Body)
	if strings.Contains(text, "rolled back") && c.rolledBack(f) {
		return
	}
	c.failure, c.failedAt = text, c.w.Now()
	c.letGo()
	if !c.excused() && !c.vendorExcuse(f) {
		c.w.Fail("ended", "the client was sent an ERROR: %s", brief(f.Raw))
	}
	for i, r := range c.requests {
		if id := "r-" + strconv.Itoa(r.n); i < 8 && c.w.AllRead() && !strings.Contains(string(f.Raw), id) {
			c.w.Fail("silent-error", "the ERROR that ends the session does not name receipt %s of %s: %s", id, r.what, brief(f.Raw))
		}
	}
}

// rolledBack takes a transaction back: what it acknowledged the client holds again, as far as it has not moved.
func (c *stompClient) rolledBack(f *frame.Frame) bool {
	var t *clientTx
	for _, x := range c.committed {
		if name := string(f.Value("transaction")); name == "t"+strconv.Itoa(x.n) || x.receipt > 0 && string(f.Value("receipt-id")) == "r-"+strconv.Itoa(x.receipt) {
			t = x
		}
	}
	if c.script.Kind != Paired && t != nil {
		c.vendorRollback(t)
	} else if c.book.told++; t == nil || c.book.told > c.book.rolled {
		c.w.Fail("false-rollback", "the client was told %d times that a transaction was rolled back, and %d were: %s", c.book.told, c.book.rolled, brief(f.Raw))
		return false
	}
	for _, it := range t.sends {
		it.aborted = true
		if it.applied > 0 {
			c.w.Fail("false-rollback", "%s is stored, and the client was told that its transaction was rolled back", it.key())
		}
	}
	for i, r := range c.requests {
		if r.n == t.receipt {
			c.requests = append(c.requests[:i], c.requests[i+1:]...)
			break
		}
	}
	if c.script.Kind != Paired {
		for _, h := range t.holds {
			h.item.acked, h.item.nacked = false, false
		}
	}
	for _, s := range c.subs {
		if s == nil || c.phase > draining {
			continue
		}
		for _, h := range t.holds {
			if h.sub == s {
				h.tx, h.item.held, h.item.acked, h.item.nacked, s.loose = 0, true, false, false, true
				s.held = append(s.held, h)
			}
		}
		slices.SortFunc(s.held, func(a, b holding) int { return a.seq - b.seq })
	}
	return true
}
