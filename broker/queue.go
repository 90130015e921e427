package broker

import (
	"container/heap"
	"slices"

	"github.com/understudy-mq/understudy/broker/journal"
)

// queue is the state of one queue. Messages have a place in it for life: lanes hold them all in that order, back those that were met and
// returned, and the one with the highest priority and, of those, the lowest place is next. A message taken out of the middle (claimed, say) is
// skipped when it is met.
type queue struct {
	destination
	number    journal.LSN // of the durable subscription whose queue it is; 0: it is one that has a name of its own
	places    uint64      // the last one given
	lanes     []*lane     // highest priority first; most queues have one
	back      byPlace
	count     int // ready and held
	subs      []*subscription
	selecting int                 // of subs, those that have a selector
	turns     ring[*subscription] // those that may have credit, in their order of service
	gates     int                 // absent sessions whose claims recovered messages wait for
	dirty     bool                // waits for dispatch
	owner     *session            // of a temporary one; nil otherwise
	gone      bool                // with its owner; what is left of it is discarded when it is let go
	assigning bool                // recovered messages wait for assign
	damage    *fault              // what was found where its messages lie: nothing goes out any more, nothing comes in
	pool      *pool
	kept      int64   // octets of copies of what was published
	index     index   // while claims are expected
	filter    *filter // of the ids, while claims are expected that go to messages which are not there
}

func (pl *pool) newQueue(name string) *queue {
	return &queue{destination: newDestination(name), pool: pl}
}

// A record has so many places. No record of what was sent holds more messages, for none is so short; but a COMMIT to topics has one for each durable
// subscription, and is refused if they are more.
const (
	placeBits    = 19
	recordPlaces = 1 << placeBits
)

// push adds a new message at the end. Its place comes from where the journal is, after, so that a restart does not change it: a browser may
// go on from there. Messages that are in no journal share the places of the record before them.
func (q *queue) push(m *message, after journal.LSN) {
	q.places = max(q.places+1, uint64(after)<<placeBits|uint64(m.index))
	m.pos, m.queue, m.dest, m.state, m.unmet = q.places, q, &q.destination, ready, true
	q.lane(m.prio).push(m)
	q.count++
	if q.filter != nil {
		q.filter.add(q.pool.hash(m.id))
	}
}

// putBack returns a held message to its old place.
func (q *queue) putBack(m *message) {
	m.state, m.redelivered, m.returned = ready, true, true
	if !m.unmet && !m.inBack {
		m.inBack = true
		heap.Push(&q.back, m)
		q.back.trim(q.count, func(m *message) { m.inBack = false })
	}
	if q.selecting > 0 {
		for _, sub := range q.subs {
			if sub.pick != nil {
				sub.pick.returned(m)
			}
		}
	}
}

// peek returns the message that is next, or nil; or, if that has to be read first, where it is.
func (q *queue) peek() (*message, slot) {
	for len(q.back) > 0 && q.back[0].state != ready {
		heap.Pop(&q.back).(*message).inBack = false
	}
	for _, l := range q.lanes {
		m, at := l.peek()
		if m == nil && at.page == nil {
			continue
		}
		if len(q.back) > 0 && q.back[0].ahead(l.prio, at) {
			break
		}
		return m, at
	}
	if len(q.back) > 0 {
		return q.back[0], slot{}
	}
	return nil, slot{}
}

// ahead reports whether a returned message comes before what a lane has next.
func (m *message) ahead(prio int8, next slot) bool {
	return m.prio > prio || m.prio == prio && m.pos < next.page.pos(next.i)
}

// lane returns the one of a priority, made if there is none.
func (q *queue) lane(prio int8) *lane {
	i := 0
	for i < len(q.lanes) && q.lanes[i].prio > prio {
		i++
	}
	if i == len(q.lanes) || q.lanes[i].prio != prio {
		q.lanes = slices.Insert(q.lanes, i, &lane{prio: prio, queue: q})
	}
	return q.lanes[i]
}

// each calls f with every message that is not done.
func (q *queue) each(f func(slot)) {
	for _, l := range q.lanes {
		l.each(f)
	}
}

// turn returns the subscription whose turn it is among those with credit, or nil. A subscription without credit drops out until
// offer brings it back.
func (q *queue) turn() *subscription {
	for q.turns.len() > 0 {
		sub := q.turns.pop()
		if sub.inTurn && sub.credit() {
			q.turns.push(sub)
			return sub
		}
		sub.inTurn = false
	}
	return nil
}

// offer lets a subscription that may have credit again take part, and reports whether that is news.
func (q *queue) offer(sub *subscription) bool {
	if sub.inTurn || !sub.credit() {
		return false
	}
	sub.inTurn = true
	q.turns.push(sub)
	return true
}

// gated reports whether recovered messages have to wait for sessions that are expected back.
func (q *queue) gated() bool { return q.gates > 0 || q.assigning }

// listening reports whether a subscription has credit. Those at the front that have none drop out, as from turn.
func (q *queue) listening() bool {
	for q.turns.len() > 0 {
		if sub := q.turns.front(); sub.inTurn && sub.credit() {
			return true
		}
		q.turns.pop().inTurn = false
	}
	return false
}

// remove forgets an acknowledged message. Its mention, if any, goes when it is met.
func (q *queue) remove(m *message) {
	octets := int64(m.octets())
	m.state, m.data, m.split = done, nil, 0
	q.count--
	m.page.lane.remove(m, octets)
}

// idle reports whether nothing would be lost if the queue were forgotten.
func (q *queue) idle() bool {
	return q.count == 0 && q.owner == nil && len(q.subs) == 0 && !q.gated() && !q.dirty && q.damage == nil
}

// byPlace is a heap of messages in the order of their queue.
type byPlace []*message

func (h byPlace) Len() int           { return len(h) }
func (h byPlace) Less(i, j int) bool { return h[i].before(h[j]) }
func (h byPlace) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *byPlace) Push(x any)        { *h = append(*h, x.(*message)) }
func (h *byPlace) Pop() any {
	last := len(*h) - 1
	m := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return m
}

// trim lets messages go that are done, when they are the most. kept is how many others there are at most.
func (h *byPlace) trim(kept int, gone func(*message)) {
	if len(*h) <= 2*kept+1024 {
		return
	}
	rest := (*h)[:0]
	for _, m := range *h {
		if m.state == done {
			gone(m)
		} else {
			rest = append(rest, m)
		}
	}
	clear((*h)[len(rest):])
	*h = rest
	heap.Init(h)
}

// ring is a growing first-in first-out buffer.
type ring[T any] struct {
	buf  []T // length is a power of two, or zero
	head int
	n    int
}

func (r *ring[T]) len() int { return r.n }

func (r *ring[T]) front() T { return r.buf[r.head] }

func (r *ring[T]) at(i int) T { return r.buf[(r.head+i)&(len(r.buf)-1)] }

func (r *ring[T]) push(v T) {
	if r.n == len(r.buf) {
		grown := make([]T, max(8, 2*r.n))
		k := copy(grown, r.buf[r.head:])
		copy(grown[k:], r.buf[:r.head])
		r.buf, r.head = grown, 0
	}
	r.buf[(r.head+r.n)&(len(r.buf)-1)] = v
	r.n++
}

// pop removes the front. A buffer that has become far too large is let go once it is empty.
func (r *ring[T]) pop() T {
	var zero T
	v := r.buf[r.head]
	r.buf[r.head] = zero
	r.head = (r.head + 1) & (len(r.buf) - 1)
	if r.n--; r.n == 0 && len(r.buf) > 1024 {
		r.buf, r.head = nil, 0
	}
	return v
}

func (r *ring[T]) each(f func(T)) {
	for i := range r.n {
		f(r.at(i))
	}
}
