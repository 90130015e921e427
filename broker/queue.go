package broker

import "container/heap"

// queue is the state of one queue. Messages have a place in it for life: fresh holds those never delivered in the order they came,
// back those that returned, and the one with the lowest place is next. A message taken out of the middle (claimed, say) leaves its
// mention behind; peek skips what is not ready.
type queue struct {
	destination
	places uint64
	fresh  ring[*message]
	back   byPlace
	count  int // ready and held
	subs   []*subscription
	turns  ring[*subscription] // those that may have credit, in their order of service
	gates  int                 // absent sessions whose claims recovered messages wait for
	dirty  bool                // waits for dispatch
	// index finds messages by id while claims are expected; nil otherwise, for it costs on every message.
	index map[msgID]*message
}

func newQueue(name string) *queue { return &queue{destination: newDestination(name)} }

// push adds a new message at the end.
func (q *queue) push(m *message) {
	q.places++
	m.pos, m.queue, m.dest, m.state, m.inFresh = q.places, q, &q.destination, ready, true
	q.fresh.push(m)
	q.count++
	if q.index != nil {
		q.index[m.id] = m
	}
}

// putBack returns a held message to its old place.
func (q *queue) putBack(m *message) {
	m.state, m.redelivered = ready, true
	if !m.inFresh && !m.inBack {
		m.inBack = true
		heap.Push(&q.back, m)
	}
	if q.index != nil {
		q.index[m.id] = m // its holder may have left the queue before the index was built
	}
}

// peek returns the message that is next, or nil.
func (q *queue) peek() *message {
	for q.fresh.len() > 0 && q.fresh.front().state != ready {
		q.fresh.pop().inFresh = false
	}
	for len(q.back) > 0 && q.back[0].state != ready {
		heap.Pop(&q.back).(*message).inBack = false
	}
	switch {
	case len(q.back) > 0: // was at the front of fresh once
		return q.back[0]
	case q.fresh.len() > 0:
		return q.fresh.front()
	}
	return nil
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
		q.fresh.each(add)
		for _, m := range q.back {
			add(m)
		}
		for _, sub := range q.subs {
			for h := sub.first; h != nil; h = h.next {
				add(h.msg)
			}
		}
	}
	return q.index[id]
}

// idle reports whether nothing would be lost if the queue were forgotten.
func (q *queue) idle() bool { return q.count == 0 && len(q.subs) == 0 && q.gates == 0 && !q.dirty }

// byPlace is a heap of messages, lowest place first.
type byPlace []*message

func (h byPlace) Len() int           { return len(h) }
func (h byPlace) Less(i, j int) bool { return h[i].pos < h[j].pos }
func (h byPlace) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *byPlace) Push(x any)        { *h = append(*h, x.(*message)) }
func (h *byPlace) Pop() any {
	last := len(*h) - 1
	m := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return m
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
