package broker

import (
	"container/heap"
	"slices"
	"sort"

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
	// index finds messages by id while claims are expected; nil otherwise, for it costs on every message.
	index map[msgID]*message
}

func newQueue(name string) *queue { return &queue{destination: newDestination(name)} }

// placeBits is how many places a record has: no record holds more messages, for none is so short.
const placeBits = 19

// push adds a new message at the end. Its place comes from where the journal is, after, so that a restart does not change it: a browser may
// go on from there. Messages that are in no journal share the places of the record before them.
func (q *queue) push(m *message, after journal.LSN) {
	q.places = max(q.places+1, uint64(after)<<placeBits|uint64(m.index))
	m.pos, m.queue, m.dest, m.state, m.unmet = q.places, q, &q.destination, ready, true
	q.lane(m.prio).all.push(m)
	q.count++
	if q.index != nil {
		q.index[m.id] = m
	}
}

// putBack returns a held message to its old place.
func (q *queue) putBack(m *message) {
	m.state, m.redelivered = ready, true
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
	if q.index != nil {
		q.index[m.id] = m // its holder may have left the queue before the index was built
	}
}

// peek returns the message that is next, or nil.
func (q *queue) peek() *message {
	for len(q.back) > 0 && q.back[0].state != ready {
		heap.Pop(&q.back).(*message).inBack = false
	}
	var first *message
	for _, l := range q.lanes {
		if first = l.peek(); first != nil {
			break
		}
	}
	if len(q.back) > 0 && (first == nil || q.back[0].before(first)) {
		return q.back[0]
	}
	return first
}

// lane returns the one of a priority, made if there is none.
func (q *queue) lane(prio int8) *lane {
	i := 0
	for i < len(q.lanes) && q.lanes[i].prio > prio {
		i++
	}
	if i == len(q.lanes) || q.lanes[i].prio != prio {
		q.lanes = slices.Insert(q.lanes, i, &lane{prio: prio})
	}
	return q.lanes[i]
}

// each calls f with every message, some of which are done.
func (q *queue) each(f func(*message)) {
	for _, l := range q.lanes {
		l.all.each(f)
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

// gated reports whether m has to wait for sessions that are expected back.
func (q *queue) gated(m *message) bool { return m.recovered && q.gates > 0 }

// remove forgets an acknowledged message. Its mention, if any, goes when it is met.
func (q *queue) remove(m *message) {
	m.state, m.data, m.split = done, nil, 0
	q.count--
	q.lane(m.prio).trim(q.count)
	if q.index != nil {
		delete(q.index, m.id)
	}
}

// find looks a message up by id, for claims. The first call builds the index.
func (q *queue) find(id msgID) *message {
	if q.index == nil {
		q.index = make(map[msgID]*message, q.count)
		add := func(m *message) {
			if m.state != done {
				q.index[m.id] = m
			}
		}
		q.each(add)
	}
	return q.index[id]
}

// idle reports whether nothing would be lost if the queue were forgotten.
func (q *queue) idle() bool {
	return q.count == 0 && q.owner == nil && len(q.subs) == 0 && q.gates == 0 && !q.dirty
}

// lane is messages of one priority in the order of their places: those that are ready or held, and some that are done.
type lane struct {
	prio int8
	all  ring[*message]
	met  int // how many at the front peek has passed
}

// peek returns the first message that is ready and was never met, or nil.
func (l *lane) peek() *message {
	for ; l.met < l.all.len(); l.met++ {
		m := l.all.at(l.met)
		if m.state == ready {
			return m
		}
		m.unmet = false
	}
	return nil
}

// from returns the index of the first message behind a place.
func (l *lane) from(pos uint64) int {
	return sort.Search(l.all.len(), func(i int) bool { return l.all.at(i).pos > pos })
}

// trim lets messages go that are done: at the front always, elsewhere when they are the most. kept is how many there should be.
func (l *lane) trim(kept int) {
	for l.all.len() > 0 && l.all.front().state == done {
		l.all.pop()
		l.met = max(0, l.met-1)
	}
	if l.all.len() <= 2*kept+1024 {
		return
	}
	var rest ring[*message]
	met := 0
	for i := range l.all.len() {
		if m := l.all.at(i); m.state != done {
			rest.push(m)
			if i < l.met {
				met++
			}
		}
	}
	l.all, l.met = rest, met
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
