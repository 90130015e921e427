package stomp

import (
	"hash/maphash"
	"iter"
	"time"
)

// deliveryState is what has become of a message that the client was shown.
type deliveryState uint8

const (
	free    deliveryState = iota
	unacked               // the client holds it
	acking                // acknowledged by an effect that is not settled
	nacking               // the same with NACK
	inTx                  // acknowledged inside a transaction that is not settled
)

// delivery is one message that the client was shown and that is not settled. It lives in a slot of the table.
type delivery struct {
	state   deliveryState
	claimed bool // on the current connection, and not answered yet
	gone    bool // not ours on the current connection: nothing the client says of it has an effect, unless it comes back
	sub     *subscription
	id      octets        // by which it is recognised when it comes back: message-id, for most
	key     octets        // what the client will name it by, if that is not id
	name    octets        // what the broker names it by since it came back, if that is not key
	via     *subscription // on which it came back, if that is not sub
	stamp   octets        // of the producer's recorder, if that is not id
	try     uint32        // of that stamp
	epoch   uint64        // of the connection that delivered it last
	ordinal uint64        // of that delivery
	serial  uint64        // tells this use of the slot from later ones
	tx      *transaction
	hash    uint64
	prev    int32 // shown before it on the same subscription
	next    int32 // shown after it
	chain   int32 // next in the hash chain, or in the free list
}

// octets is a short string held in place, so that remembering an id costs no allocation.
type octets struct {
	n     uint8
	short [55]byte
	long  []byte
}

func (o *octets) set(p []byte) {
	o.long = nil
	if o.n = uint8(copy(o.short[:], p)); int(o.n) < len(p) {
		o.long = append([]byte(nil), p...)
	}
}

func (o *octets) bytes() []byte {
	if o.long != nil {
		return o.long
	}
	return o.short[:o.n]
}

// deliveries is the table. A slab with a free list, chained in a map by the hash of what the client names a message by, and linked per
// subscription in the order shown. In a steady state it allocates nothing.
type deliveries struct {
	slots []delivery
	free  int32
	index map[uint64]int32
	seed  maphash.Seed
	count int // unacked ones
	added uint64
	gone  map[goneKey]int32 // what is gone; nil when nothing is
}

// goneKey names a message: by its id, among those of its subscription's scope.
type goneKey struct{ scope, id string }

const none = int32(-1)

func (t *deliveries) init() {
	t.free, t.index, t.seed = none, map[uint64]int32{}, maphash.MakeSeed()
}

// shown is the name that the client knows it by.
func (d *delivery) shown() []byte {
	if p := d.key.bytes(); len(p) > 0 {
		return p
	}
	return d.id.bytes()
}

// upstream is the name that the broker knows it by on the current connection.
func (d *delivery) upstream() []byte {
	if p := d.name.bytes(); len(p) > 0 {
		return p
	}
	return d.shown()
}

func (t *deliveries) at(slot int32) *delivery { return &t.slots[slot] }

// add remembers a message shown on sub.
func (t *deliveries) add(sub *subscription, id, key []byte, epoch, ordinal uint64) int32 {
	slot := t.free
	if slot == none {
		t.slots = append(t.slots, delivery{})
		slot = int32(len(t.slots) - 1)
	} else {
		t.free = t.slots[slot].chain
	}
	d := &t.slots[slot]
	t.added++
	d.state, d.sub, d.epoch, d.ordinal, d.serial, d.tx, d.claimed, d.gone = unacked, sub, epoch, ordinal, t.added, nil, false, false
	d.id.set(id)
	d.key.set(key)
	d.name.set(nil)
	d.stamp.set(nil)
	d.via = nil
	if key == nil {
		key = id
	}
	d.hash = maphash.Bytes(t.seed, key)
	d.chain = none
	if head, ok := t.index[d.hash]; ok {
		d.chain = head
	}
	t.index[d.hash] = slot
	d.prev, d.next = sub.last, none
	if sub.last != none {
		t.slots[sub.last].next = slot
	} else {
		sub.first = slot
	}
	sub.last = slot
	t.hold(d, 1)
	return slot
}

// find looks up what the client names: by ack id in 1.2, else by message-id and, if given, subscription. Of several that match it
// returns the newest that the client holds. [STOMP 1.2 ACK; 1.1 ACK; 1.0 ACK]
func (t *deliveries) find(name []byte, sub *subscription) (int32, bool) {
	slot, ok := t.index[maphash.Bytes(t.seed, name)]
	if !ok {
		return none, false
	}
	for ; slot != none; slot = t.slots[slot].chain {
		d := &t.slots[slot]
		if d.state == unacked && string(d.shown()) == string(name) && (sub == nil || sub == d.sub) {
			return slot, true
		}
	}
	return none, false
}

// remove forgets a slot for good.
func (t *deliveries) remove(slot int32) {
	d := &t.slots[slot]
	if d.state == free {
		return
	}
	if d.state == unacked {
		t.hold(d, -1)
	}
	t.unlink(d)
	if head := t.index[d.hash]; head == slot {
		if d.chain == none {
			delete(t.index, d.hash)
		} else {
			t.index[d.hash] = d.chain
		}
	} else {
		for t.slots[head].chain != slot {
			head = t.slots[head].chain
		}
		t.slots[head].chain = d.chain
	}
	if d.gone {
		t.found(slot)
	}
	d.state, d.sub, d.via, d.tx = free, nil, nil, nil
	d.chain = t.free
	t.free = slot
}

func (t *deliveries) unlink(d *delivery) {
	if d.prev != none {
		t.slots[d.prev].next = d.next
	} else {
		d.sub.first = d.next
	}
	if d.next != none {
		t.slots[d.next].prev = d.prev
	} else {
		d.sub.last = d.prev
	}
}

// setState moves a delivery between states and keeps count of what the client holds.
func (t *deliveries) setState(slot int32, s deliveryState) {
	d := &t.slots[slot]
	if d.state == unacked {
		t.hold(d, -1)
	}
	if d.state = s; s == unacked {
		t.hold(d, 1)
	}
}

func (t *deliveries) hold(d *delivery, n int) {
	t.count += n
	d.sub.unacked += n
}

// through yields the unacked slots of a subscription in the order shown, up to and including last: what a cumulative
// acknowledgement means. [STOMP 1.2 SUBSCRIBE ack Header]
func (t *deliveries) through(sub *subscription, last int32) iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for slot := sub.first; slot != none; {
			d := &t.slots[slot]
			next := d.next
			if d.state == unacked && !yield(slot) {
				return
			}
			if slot == last {
				return
			}
			slot = next
		}
	}
}

// of yields every slot of a subscription in the order shown.
func (t *deliveries) of(sub *subscription) iter.Seq2[int32, *delivery] {
	return func(yield func(int32, *delivery) bool) {
		for slot := sub.first; slot != none; {
			next := t.slots[slot].next
			if !yield(slot, &t.slots[slot]) {
				return
			}
			slot = next
		}
	}
}

// lose marks a slot as gone: its message is no longer this client's. Of several with one message the newest is the one that may come back.
func (t *deliveries) lose(slot int32) {
	if t.gone == nil {
		t.gone = map[goneKey]int32{}
	}
	d := &t.slots[slot]
	d.gone = true
	if other, ok := t.gone[d.goneKey()]; !ok || t.slots[other].serial < d.serial {
		t.gone[d.goneKey()] = slot
	}
}

func (d *delivery) goneKey() goneKey { return goneKey{string(d.sub.scope), string(d.id.bytes())} }

// found forgets that a slot is gone.
func (t *deliveries) found(slot int32) {
	d := &t.slots[slot]
	if t.gone[d.goneKey()] == slot {
		delete(t.gone, d.goneKey())
	}
	d.gone = false
}

// all yields every slot in use.
func (t *deliveries) all(yield func(int32, *delivery) bool) {
	for i := range t.slots {
		if d := &t.slots[i]; d.state != free && !yield(int32(i), d) {
			return
		}
	}
}

// returned finds the gone slot whose message a MESSAGE brings back.
func (t *deliveries) returned(scope, id []byte) (int32, bool) {
	if len(t.gone) == 0 {
		return none, false
	}
	slot, ok := t.gone[goneKey{string(scope), string(id)}]
	return slot, ok
}

// regain takes back that a slot is gone.
func (t *deliveries) regain(slot int32, epoch, ordinal uint64) {
	t.found(slot)
	d := &t.slots[slot]
	d.epoch, d.ordinal = epoch, ordinal
}

// autoAcks is the queue of messages shown on ack:auto subscriptions, in stream order, waiting for the client's kernel to have had them.
type autoAcks struct {
	queue []autoAck
	head  int
	seen  int // queue[head:seen] have arrived
}

type autoAck struct {
	slot    int32
	serial  uint64    // the slot may have been given up meanwhile
	end     uint64    // position in the client's stream behind its last octet
	arrived time.Time // when the kernel was seen to have it
}

func (a *autoAcks) push(q autoAck) {
	if a.head > 256 && a.head > len(a.queue)/2 {
		a.queue = a.queue[:copy(a.queue, a.queue[a.head:])]
		a.seen -= a.head
		a.head = 0
	}
	a.queue = append(a.queue, q)
}

// arrive notes that the client's kernel has everything up to total.
func (a *autoAcks) arrive(total uint64, now time.Time) {
	for ; a.seen < len(a.queue) && a.queue[a.seen].end <= total; a.seen++ {
		a.queue[a.seen].arrived = now
	}
}

// due pops the next message that arrived at or before limit.
func (a *autoAcks) due(limit time.Time) (autoAck, bool) {
	if a.head == a.seen || a.queue[a.head].arrived.After(limit) {
		return autoAck{}, false
	}
	a.head++
	return a.queue[a.head-1], true
}

// oldest is when the first of the arrived messages arrived; zero when there is none.
func (a *autoAcks) oldest() time.Time {
	if a.head == a.seen {
		return time.Time{}
	}
	return a.queue[a.head].arrived
}
