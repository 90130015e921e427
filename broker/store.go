package broker

import (
	"errors"
	"log/slog"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// store is everything that is decided in one journal directory: pure state, without I/O, clock or goroutines. Its methods are called under
// the server's mutex, with now set; LSN order is therefore the order of decisions. What connections are to be told lands in their
// peer's out, and wake names those that have something to do.
//
// State changes after the journal took the record, never before: a new segment begins with a snapshot of the sessions, made inside
// Append, which must not contain what its own trigger is about to do.
type store struct {
	*pool
	cfg   *Config
	uuid  string
	epoch uint64
	log   appender
	now   time.Time
	count *counters
	slog  *slog.Logger

	queues   map[string]*queue
	topics   map[string]*topic
	durables map[journal.LSN]*durable // by number
	backlogs map[journal.LSN]*queue   // those of topics that have a number
	named    map[durableKey]*durable
	sessions map[sessionID]*session
	waiting  map[*session]struct{} // those the clock has to look after
	returned time.Time             // when a session last claimed its place
	paging   paging
	filtered []*queue // those that have a filter
	indexes  []*queue // and those that have an index

	published uint64 // numbers publications of which copies are kept
	kept      int64  // octets of those

	last    journal.LSN // appended
	through journal.LSN // durable
	pending ring[pend]
	dirty   []*queue
	confirm []*session
	autoAck []*message
	wake    []*peer
	looks   int     // at messages by selectors in this call
	full    []*peer // wait for memory

	diskLow  bool    // no further segment can be made
	diskFull bool    // and the last has no room for messages
	diskSlow bool    // or the next has no file yet, of which it is not known that it cannot be made
	unstored []*peer // wait for space on the disk

	conns uint64 // numbers connections, never reused in an epoch
	err   error  // set when the journal can promise nothing any more

	holds   *hold // free list
	buffers [][]byte
	scratch []byte
	ends    []journal.Ending
	covered []*hold
	acked   []*message
}

// appender is the journal as the store sees it: Append copies the entry and returns at once.
type appender interface {
	Append(e journal.Entry) (journal.Position, error)
}

// pend is what waits for a record to be durable.
type pend struct {
	lsn     journal.LSN
	size    int   // octets charged to peer
	peer    *peer // who is charged and answered
	receipt []byte
	close   bool // end the connection after the answer
	session *session
	effect  uint64        // of session
	queue   *queue        // got messages
	publish *message      // of a topic
	start   *subscription // of peer, may be dispatched to
	welcome *hello        // of peer, to be answered
}

func newStore(cfg *Config, count *counters) *store {
	return &store{
		pool: newPool(), cfg: cfg, count: count, slog: cfg.Logger,
		queues: map[string]*queue{}, topics: map[string]*topic{}, durables: map[journal.LSN]*durable{}, named: map[durableKey]*durable{},
		backlogs: map[journal.LSN]*queue{}, sessions: map[sessionID]*session{}, waiting: map[*session]struct{}{},
		paging: paging{round: 1},
	}
}

// append writes a record and charges it to p, which may be nil. What waits for it is in w.
func (s *store) append(e journal.Entry, w pend) (journal.Position, error) {
	if s.err != nil {
		return journal.Position{}, s.err
	}
	at, err := s.log.Append(e)
	if err != nil {
		if errors.Is(err, journal.ErrFull) {
			s.noRoom(err)
		}
		return at, err
	}
	s.last, w.lsn, w.size = at.LSN, at.LSN, len(e.Payload)
	if w.peer != nil {
		w.peer.pending += int64(w.size)
		w.peer.last = at.LSN
	}
	s.pending.push(w)
	return at, nil
}

// when runs w as soon as lsn is durable: now, perhaps.
func (s *store) when(lsn journal.LSN, w pend) {
	if lsn <= s.through {
		s.settle(&w)
		return
	}
	// The ring is ordered by LSN; a later one delays nobody who could notice.
	w.lsn = s.last
	s.pending.push(w)
}

// advance is the journal's word that everything up to through counts.
func (s *store) advance(through journal.LSN) {
	if through > s.through {
		s.through = through
		s.paging.another()
	}
	for s.pending.len() > 0 && s.pending.front().lsn <= s.through {
		w := s.pending.pop()
		s.settle(&w)
	}
}

func (s *store) settle(w *pend) {
	if p := w.peer; p != nil {
		if w.close && p.session.confirm {
			s.cursorReceipt(p.session) // nothing can be said behind the last answer
		}
		p.pending -= int64(w.size)
		if p.stalled && p.pending <= s.cfg.MaxPending/2 {
			s.touch(p)
		}
		if w.start != nil {
			s.start(p, w.start, w.receipt)
		} else if w.receipt != nil {
			s.receipt(p, w.receipt)
		}
		if w.welcome != nil && !p.deaf() && p.session.peer == p {
			s.welcome(p, w.welcome)
		}
		if w.close {
			s.finish(p)
		}
	}
	if w.session != nil {
		w.session.durable = max(w.session.durable, w.effect)
		s.confirmSoon(w.session)
	}
	if w.queue != nil {
		s.soil(w.queue)
	}
	if w.publish != nil {
		s.fanOut(w.publish)
	}
}

// flush ends every call into the store: confirmations leave, queues that changed are dispatched.
func (s *store) flush() {
	s.looks = 0
	for _, c := range s.confirm {
		if c.confirm {
			s.cursorReceipt(c)
		}
	}
	s.confirm = s.confirm[:0]
	for len(s.dirty) > 0 || len(s.autoAck) > 0 {
		for i := 0; i < len(s.dirty); i++ { // dispatch may soil others
			q := s.dirty[i]
			q.dirty = false
			s.dispatch(q)
			s.forget(q)
		}
		clear(s.dirty)
		s.dirty = s.dirty[:0]
		if !s.acknowledgeAuto() {
			break
		}
	}
	if len(s.paging.dissolving) > 0 {
		s.dissolveSome()
	}
	s.evict(evictPages)
	if len(s.full) > 0 && s.memory < s.cfg.MaxMemory {
		for _, p := range s.full {
			s.touch(p)
		}
		s.full = s.full[:0]
	}
}

// soil marks a queue for dispatch.
func (s *store) soil(q *queue) {
	if !q.dirty {
		q.dirty = true
		s.dirty = append(s.dirty, q)
	}
}

// forget drops a queue that holds nothing and that nobody listens to.
func (s *store) forget(q *queue) {
	if q.idle() && s.queues[q.name] == q {
		delete(s.queues, q.name)
	}
}

// queue returns the queue of that name, made if there is none.
func (s *store) queue(name []byte) *queue {
	q := s.queues[string(name)]
	if q == nil {
		q = s.newQueue(string(name))
		s.queues[q.name] = q
	}
	return q
}

// dispatch hands out what may be handed out: durable, not waiting for anybody's claim, to whoever has credit, in turns.
func (s *store) dispatch(q *queue) {
	switch {
	case q.damage != nil, q.assigning && !s.assign(q):
		return
	case q.selecting > 0:
		s.dispatchSelected(q)
		return
	}
	for {
		m, at := q.peek()
		if m == nil && at.page != nil || m != nil && m.away {
			if q.listening() {
				s.wantNext(q, m, at)
			}
			return
		}
		if m == nil || !s.due(q, m) || s.expired(m) && !s.bury(m) {
			return
		}
		if m.state != ready {
			continue
		}
		sub := q.turn()
		if sub == nil {
			return
		}
		s.deliver(sub, m)
	}
}

// wantNext has what is next read for somebody who has credit: m, or what is in the slot at.
func (s *store) wantNext(q *queue, m *message, at slot) {
	switch {
	case m != nil && !s.due(q, m), m == nil && at.entry().flags&outRecovered != 0 && q.gated():
		return
	case m != nil:
		s.want(m.page, nil)
	default:
		s.want(at.page, nil)
	}
	s.ahead(q)
}

// due reports whether a message may be handed out as far as the disk and absent sessions are concerned.
func (s *store) due(q *queue, m *message) bool {
	return max(m.lsn, m.notBefore) <= s.through && !(m.recovered && q.gated())
}

// deliver sends m to sub, whose connection is there. An automatic acknowledgement happens here: the message was handed to the writer.
func (s *store) deliver(sub *subscription, m *message) {
	p := sub.session.peer
	m.ordinal++
	p.acks++
	if m.ordinal > 1 || m.redelivered {
		s.count.redelivered.Inc()
	}
	s.count.out.Inc()
	s.grow(p)
	p.out = appendMessage(p.out, p, sub, m, m.ordinal, p.acks)
	s.touch(p)
	if sub.mode == ackAuto {
		m.state = done
		s.autoAck = append(s.autoAck, m)
		return
	}
	if m.hold == nil {
		sub.take(m, s.newHold(), basis{})
	}
	m.hold.ack, m.hold.basis = p.acks, basis{s.epoch, uint64(m.ordinal)}
}

// acknowledgeAuto journals what automatic subscriptions were handed. It reports false if there was no room for that: then it is tried again.
func (s *store) acknowledgeAuto() bool {
	const most = 1024 // of one record
	for len(s.autoAck) > 0 {
		batch := s.autoAck[:min(len(s.autoAck), most)]
		s.scratch = appendOrigin(s.scratch[:0], origin{})
		s.scratch, s.ends = appendAcks(s.scratch, s.ends[:0], batch)
		if len(s.ends) > 0 {
			// A journal that cannot take it has failed or is closing: the message comes again, which automatic mode allows.
			_, err := s.append(journal.Entry{Type: recAck, Payload: s.scratch, Account: journal.Account{Ends: s.ends}}, pend{})
			if errors.Is(err, journal.ErrFull) {
				return false
			}
		}
		for _, m := range batch {
			s.remove(m)
		}
		s.autoAck = s.autoAck[len(batch):]
	}
	s.autoAck = s.autoAck[:0]
	return true
}

// remove forgets a message whose acknowledgement was journaled.
func (s *store) remove(m *message) {
	s.memory -= m.size()
	s.messages--
	s.unwatch(m)
	if m.common != nil {
		s.unshare(m)
	}
	m.queue.remove(m)
	s.soil(m.queue)
}

// add puts a new message on its queue.
func (s *store) add(q *queue, m *message) {
	after := m.lsn
	if after == 0 {
		after = s.last
	}
	q.push(m, after)
	s.watch(m)
	s.memory += m.size()
	s.messages++
	if m.common != nil {
		s.share(m)
	}
}

// requeue takes a message from its holder and puts it back in its place.
func (s *store) requeue(h *hold) {
	m := h.msg
	s.drop(h)
	if m.queue.gone {
		s.discard(m)
		return
	}
	m.queue.putBack(m)
	s.soil(m.queue)
}

// giveBack is requeue for a message that the effect recorded at lsn gives back.
func (s *store) giveBack(h *hold, lsn journal.LSN) {
	q := h.msg.queue
	h.msg.notBefore = lsn
	s.requeue(h)
	s.when(lsn, pend{queue: q})
}

// drop takes a hold from its subscription, which may have credit for it.
func (s *store) drop(h *hold) {
	sub := h.sub
	sub.release(h)
	*h = hold{next: s.holds}
	s.holds = h
	s.offer(sub)
}

func (s *store) newHold() *hold {
	h := s.holds
	if h == nil {
		return new(hold)
	}
	s.holds = h.next
	return h
}

// offer lets sub take part in its queue's turns if it has credit, after it was sent what it holds already.
func (s *store) offer(sub *subscription) {
	if sub.owed > 0 {
		s.drain(sub)
	}
	if sub.queue != nil && sub.queue.offer(sub) {
		s.soil(sub.queue)
	}
}

// confirmSoon schedules a cursor RECEIPT: one for all that is settled in this call.
func (s *store) confirmSoon(c *session) {
	if !c.confirm {
		c.confirm = true
		s.confirm = append(s.confirm, c)
	}
}

// cursorReceipt tells a sidecar how far its effects are durable.
func (s *store) cursorReceipt(c *session) {
	c.confirm = false
	p := c.peer
	if p == nil || p.closing || !p.welcomed {
		return // CONNECTED, when it comes, carries the cursor
	}
	s.grow(p)
	b := append(p.out, "RECEIPT\nreceipt-id:"+frame.ReceiptCursor+"\n"...)
	b = frame.AppendUint(b, frame.HeaderCursor, c.durable)
	b = appendRolled(b, c.rolled[min(c.told, len(c.rolled)):], c.durable)
	p.out = append(b, "\n\x00\n"...)
	for c.told < len(c.rolled) && c.rolled[c.told] <= c.durable {
		c.told++
	}
	s.count.receipts.Inc()
	s.touch(p)
}

// receipt answers a frame. id is in the connection's own encoding, as the client gave it.
func (s *store) receipt(p *peer, id []byte) {
	if p.closing {
		return
	}
	s.grow(p)
	b := append(p.out, "RECEIPT\nreceipt-id:"...)
	b = append(b, id...)
	p.out = append(b, "\n\n\x00\n"...)
	s.count.receipts.Inc()
	s.touch(p)
}
