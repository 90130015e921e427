package sessiontest

import (
	"strconv"
	"strings"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// talk does the operation at pc, or waits for what it needs.
func (c *stompClient) talk(dst []byte) []byte {
	if c.pc == len(c.script.Ops) {
		return c.ending(dst)
	}
	now, o := c.w.Now(), &c.script.Ops[c.pc]
	if o.Wait > 0 && c.until == 0 && o.Kind != OpDeaf && o.Kind != OpReceipts {
		c.until = now + o.Wait
		if o.Kind != OpAck && o.Kind != OpNack {
			c.at = c.until
			return dst
		}
	}
	if (o.Kind == OpAck || o.Kind == OpNack) && c.pick(o) < 0 && now < c.until {
		c.at = min(c.until, now+time.Millisecond)
		return dst
	}
	if o.Kind == OpReceipts && len(c.requests) > 0 {
		c.at = now + 5*time.Millisecond
		return dst
	}
	c.pc++
	c.until = 0
	return c.perform(dst, o)
}

func (c *stompClient) perform(dst []byte, o *Op) []byte {
	switch o.Kind {
	case OpSubscribe:
		return c.subscribe(dst, o)
	case OpUnsubscribe:
		return c.unsubscribe(dst, o)
	case OpSend:
		return c.send(dst, o)
	case OpAck, OpNack:
		return c.ack(dst, o, c.pick(o))
	case OpBegin, OpCommit, OpAbort:
		return c.transaction(dst, o)
	case OpRequest:
		return c.ask(dst, o)
	case OpBrowse:
		return c.browse(dst, o)
	case OpDeaf:
		if c.frames > 0 { // before CONNECTED it would not know that it has to send heart-beats
			c.deaf = c.w.Now() + o.Wait
		}
	}
	return dst
}

// request adds a receipt header if the operation asks for one.
func (c *stompClient) request(dst []byte, wanted bool, effect bool, what string, items ...*item) []byte {
	if !wanted {
		return dst
	}
	c.receipts++
	c.requests = append(c.requests, request{n: c.receipts, at: c.w.Now(), effect: effect, items: items, what: what})
	return append(strconv.AppendInt(append(dst, "receipt:r-"...), int64(c.receipts), 10), '\n')
}

func (c *stompClient) tx(n int) *clientTx {
	for _, t := range c.txs {
		if t.n == n {
			return t
		}
	}
	return nil
}

func txHeader(dst []byte, n int) []byte {
	if n == 0 {
		return dst
	}
	return append(strconv.AppendInt(append(dst, "transaction:t"...), int64(n), 10), '\n')
}

func (c *stompClient) subscribe(dst []byte, o *Op) []byte {
	other := c.subs[1-o.Sub]
	shared := other != nil && other.dest == o.Dest
	// An ACK of 1.0 does not say which subscription it means: what came on both could not be told apart.
	if c.subs[o.Sub] != nil || shared && c.script.Version == frame.V10 || c.script.Nameless && (len(c.requests) > 0 || c.fleeting[o.Dest] != nil) {
		return dst
	}
	c.gens++
	s := &clientSub{id: "s" + strconv.Itoa(o.Sub) + "-" + strconv.Itoa(c.gens), gen: c.gens, dest: o.Dest, mode: o.Mode, prefetch: o.Prefetch}
	if o.Dest == topic && shared {
		return dst // a durable subscription has one consumer
	}
	c.subs[o.Sub] = s
	if shared {
		c.book.shared[o.Dest] = true
	}
	c.book.subs[s.id] = s
	c.book.subs["/"+strconv.Itoa(s.dest)] = s // by which a nameless one is found; there is only one of each
	dst = c.name(append(dst, "SUBSCRIBE\n"...), s, true)
	if o.Mode != Auto || c.w.Rand.Chance(50) {
		dst = frame.AppendHeader(dst, "ack", o.Mode.String())
	}
	dst = c.options(dst, s, o)
	dst = c.request(dst, o.Receipt, false, "SUBSCRIBE "+s.id)
	return append(dst, '\n', 0)
}

func (c *stompClient) unsubscribe(dst []byte, o *Op) []byte {
	s := c.subs[o.Sub]
	if s == nil {
		return dst
	}
	for _, h := range s.held {
		if h.tx != 0 {
			return dst // what an open transaction acknowledges stays this subscription's
		}
	}
	for _, h := range s.held {
		h.item.held = false
		c.forgotten = append(c.forgotten, h.item)
	}
	c.detaching = c.detaching || s.dest == topic
	c.subs[o.Sub], s.ended = nil, true
	if c.script.Nameless {
		c.fleeting[s.dest] = s
	}
	dst = c.name(append(dst, "UNSUBSCRIBE\n"...), s, false)
	dst = c.request(dst, o.Receipt, false, "UNSUBSCRIBE "+s.id)
	return append(dst, '\n', 0)
}

// name adds the headers by which a subscription goes.
func (c *stompClient) name(dst []byte, s *clientSub, dest bool) []byte {
	if !c.script.Nameless {
		dst = frame.AppendHeader(dst, "id", s.id)
	}
	if dest || c.script.Nameless {
		dst = frame.AppendHeader(dst, "destination", nameOf(s.dest))
	}
	return dst
}

func (c *stompClient) send(dst []byte, o *Op) []byte {
	t := c.tx(o.Tx)
	if o.Tx != 0 && t == nil {
		return dst
	}
	it := c.book.add(true, o.Dest, o.Size)
	it.tx = o.Tx
	if t != nil {
		t.sends = append(t.sends, it)
	} else {
		it.place = c.book.nextPlace()
	}
	dst = frame.AppendHeader(append(dst, "SEND\n"...), "destination", nameOf(o.Dest))
	dst = txHeader(append(dst, noteOf(it, c.script.Version)...), o.Tx)
	dst = c.vendorHeaders(dst, it, o)
	if t == nil {
		dst = c.request(dst, o.Receipt, true, "SEND "+it.key(), it)
	} else if c.script.Kind != RabbitMQ { // which answers only behind COMMIT: a program that waits for it first waits for ever
		dst = c.request(dst, o.Receipt, false, "SEND "+it.key()+" in a transaction")
	}
	c.scratch = it.body(c.scratch[:0])
	if it.binary() {
		dst = frame.AppendUint(dst, "content-length", uint64(len(c.scratch)))
	}
	return append(append(append(dst, '\n'), c.scratch...), 0)
}

// pick finds what an ACK or NACK names: an index into held that is not in a transaction, or -1.
func (c *stompClient) pick(o *Op) int {
	s := c.subs[o.Sub]
	if s == nil || s.mode == Auto {
		return -1
	}
	free := 0
	for _, h := range s.held {
		if h.tx == 0 {
			free++
		}
	}
	if free == 0 {
		return -1
	}
	k := o.Pick % free
	for i, h := range s.held {
		if h.tx == 0 {
			if k--; k < 0 {
				return i
			}
		}
	}
	return -1
}

// ack acknowledges held message i of the subscription, and with ack:client those shown before it.
func (c *stompClient) ack(dst []byte, o *Op, i int) []byte {
	if i < 0 || o.Tx != 0 && c.tx(o.Tx) == nil {
		return dst
	}
	s := c.subs[o.Sub]
	h := s.held[i]
	if c.script.Kind == RabbitMQ && s.mode == Cumulative && (o.Tx != 0 || c.holdsInTx()) {
		return dst // its scope is the connection: what it means for other subscriptions' transactions is nobody's guess
	}
	nack := o.Kind == OpNack && c.script.Version != frame.V10
	name := "ACK\n"
	if nack {
		name = "NACK\n"
	}
	dst = append(dst, name...)
	switch c.script.Version {
	case frame.V12:
		dst = frame.AppendHeader(dst, "id", h.ack)
	case frame.V11:
		dst = frame.AppendHeader(dst, "subscription", s.id)
		fallthrough
	default:
		dst = frame.AppendHeader(dst, "message-id", h.mid)
	}
	dst = txHeader(dst, o.Tx)
	// Behind a broker that is not paired an acknowledgement may have to wait until its message is delivered again.
	dst = c.request(dst, o.Receipt, o.Tx == 0 && c.script.Kind == Paired, strings.TrimSpace(name)+" "+h.item.key())
	if c.script.Kind != Paired {
		c.vendorAck(s, i, o, nack)
		return append(dst, '\n', 0)
	}
	first := i
	if s.mode == Cumulative {
		first = 0
	}
	if o.Tx != 0 {
		for k := first; k <= i; k++ {
			if s.held[k].tx == 0 {
				s.held[k].tx, s.held[k].nack = o.Tx, nack
			}
		}
		return append(dst, '\n', 0)
	}
	c.settle(s, func(k int, h *holding) bool { return k >= first && k <= i && h.tx == 0 }, func(*holding) bool { return nack })
	return append(dst, '\n', 0)
}

// settle lets go of held messages for good.
func (c *stompClient) settle(s *clientSub, which func(int, *holding) bool, nack func(*holding) bool) {
	kept := s.held[:0]
	for k := range s.held {
		h := s.held[k]
		if !which(k, &h) {
			kept = append(kept, h)
			continue
		}
		h.item.held = false
		h.item.nacked = nack(&h)
		h.item.acked = !h.item.nacked
		h.item.saidAck, h.item.saidNack = h.item.saidAck || h.item.acked, h.item.saidNack || h.item.nacked
	}
	clear(s.held[len(kept):])
	s.held = kept
}

func (c *stompClient) transaction(dst []byte, o *Op) []byte {
	t := c.tx(o.Tx)
	if (t != nil) == (o.Kind == OpBegin) {
		return dst
	}
	switch o.Kind {
	case OpBegin:
		c.txs = append(c.txs, &clientTx{n: o.Tx, begun: c.w.Downs})
		dst = txHeader(append(dst, "BEGIN\n"...), o.Tx)
		dst = c.request(dst, o.Receipt, false, "BEGIN")
		return append(dst, '\n', 0)
	case OpCommit:
		for _, it := range t.sends {
			it.place = c.book.nextPlace()
		}
		for _, s := range c.subs {
			if s != nil {
				for _, h := range s.held {
					if h.tx == o.Tx {
						t.holds = append(t.holds, h)
					}
				}
				c.settle(s, func(_ int, h *holding) bool { return h.tx == o.Tx }, func(h *holding) bool { return h.nack })
			}
		}
		dst = txHeader(append(dst, "COMMIT\n"...), o.Tx)
		dst = c.request(dst, o.Receipt, c.script.Kind == Paired, "COMMIT", t.sends...)
		if o.Receipt {
			t.receipt = c.receipts
		}
		t.at = c.w.Now()
		c.committed = append(c.committed, t)
	case OpAbort:
		for _, it := range t.sends {
			it.aborted = true
		}
		for _, s := range c.subs {
			if s != nil {
				for k := range s.held {
					if s.held[k].tx == o.Tx {
						s.held[k].tx, s.loose = 0, true
					}
				}
			}
		}
		dst = txHeader(append(dst, "ABORT\n"...), o.Tx)
		dst = c.request(dst, o.Receipt, c.script.Kind == Paired, "ABORT")
	}
	for i := range c.txs {
		if c.txs[i] == t {
			c.txs = append(c.txs[:i], c.txs[i+1:]...)
			break
		}
	}
	return append(dst, '\n', 0)
}

// ending is what comes behind the last operation.
func (c *stompClient) ending(dst []byte) []byte {
	switch c.script.End {
	case EndClose:
		c.goAway(Gone)
		return dst
	case EndAbort:
		c.goAway(Abort)
		return dst
	case EndDrained:
		c.phase, c.quiet = draining, c.w.Now()
		return c.drain(dst)
	}
	return c.disconnect(dst)
}

func (c *stompClient) disconnect(dst []byte) []byte {
	dst = append(dst, "DISCONNECT\n"...)
	dst = c.request(dst, true, false, "DISCONNECT")
	c.byeID, c.byeAt = c.receipts, c.w.Now()
	c.phase = leavingPhase
	c.letGo()
	if c.script.End == EndHalf {
		c.leave = Half
	}
	return append(dst, '\n', 0)
}

// calm is how long nothing must have happened before a client that drains says good-bye: longer than any window of the broker's.
const calm = 3 * time.Second

// drain acknowledges what is held, message by message, and says DISCONNECT once nothing comes any more.
func (c *stompClient) drain(dst []byte) []byte {
	now := c.w.Now()
	for slot, s := range c.subs {
		if s == nil || s.mode == Auto || c.script.Kind == RabbitMQ && s.mode == Cumulative && c.holdsInTx() {
			continue
		}
		o := Op{Kind: OpAck, Sub: slot, Pick: c.w.Rand.IntN(4), Receipt: c.w.Rand.Chance(30)}
		if i := c.pick(&o); i >= 0 {
			c.quiet, c.at = now, now
			return c.ack(dst, &o, i)
		}
	}
	live, since := c.w.Live()
	if !c.broker.calm() || c.w.Cut() {
		c.quiet = now
	}
	if wait := max(c.quiet, since) + calm; len(c.requests) > 0 || !live || now < wait {
		c.at = now + 100*time.Millisecond
		if live && wait > c.at {
			c.at = wait
		}
		return dst
	}
	c.judge()
	c.starved()
	return c.disconnect(dst)
}

// judge compares, in the calm before DISCONNECT, what the broker thinks the client has with what it has.
func (c *stompClient) judge() {
	for _, it := range c.broker.heldBySession() {
		switch {
		case it.acked && !it.moved:
			c.w.Fail("lost-ack", "%s was acknowledged by the client, and the broker still waits for it", it.key())
		case !it.held && !it.auto:
			c.w.Fail("swallowed", "%s was delivered to the session and the client was not shown it", it.key())
		case it.auto:
			c.w.Fail("lost-ack", "%s on an ack:auto subscription is still unacknowledged at the broker", it.key())
		}
	}
}
