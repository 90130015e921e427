package sessiontest

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// item is one message in the books: what its producer, the broker, and the client know of it.
type item struct {
	own  bool // the client sent it; else another producer did
	n    int  // its number with its producer, from 0
	dest int
	size int

	// As a SEND of the client.
	tx        int // 0 is none
	place     int // in the order in which the client's effects count, from 1; 0 while its transaction is open
	aborted   bool
	applied   int  // how often the broker has stored it
	durable   bool // its record is durable
	receipted bool // the client was told so

	// As a MESSAGE to the client.
	sent              bool // the broker delivered it to the session
	shown             int
	taken             bool // all of it has reached the client's kernel
	held              bool // the client holds it unacknowledged
	auto              bool // on an ack:auto subscription
	sub               int  // generation of the subscription
	acked             bool // the client acknowledged it, for good
	nacked            bool
	saidAck, saidNack bool // ever
	moved             bool // the session had to give it up: absent for too long, or another consumer had the higher delivery

	// Behind a broker that is not paired.
	volatile   bool          // sent without persistent:true
	evaporated bool          // it was, and a crash took it
	gone       bool          // another consumer, or an ack:auto delivery, took it for good
	doubtful   bool          // the client was told that its fate is unknown
	storedAt   time.Duration // when the broker stored it last
	sentAfter  int           // how many connections the sidecar had lost when the client sent it
	cameAt     time.Duration // when the broker last delivered it to the session
	deliveries int           // to the session, shown or not
	cameOn     int           // and on which link
	answerTo   *item         // the request that it replies to
	request    bool          // it asks for a reply
}

func (it *item) key() string {
	if it.own {
		return "X" + strconv.Itoa(it.n)
	}
	return "P" + strconv.Itoa(it.n)
}

// body is what the message says; every octet follows from its name and size.
func (it *item) body(dst []byte) []byte {
	dst = append(append(dst, it.key()...), '|')
	for i := len(dst); i < it.size; i++ {
		dst = append(dst, byte('a'+(i*7+it.n)%26))
	}
	if it.binary() {
		dst = append(dst, 0, '\n', 0xC3)
	}
	return dst
}

// laneOf is a header line by which the messages behind a broker that is not paired can be selected.
func laneOf(it *item) string { return "lane:" + strconv.Itoa(it.n%2) + "\n" }

// binary bodies hold a NUL, and need content-length.
func (it *item) binary() bool { return it.n%3 == 0 }

// ledger is where client and broker note what they see, and compare.
type ledger struct {
	w        *World
	script   *Script
	own      []*item
	foreign  []*item
	places   int
	rolled   int // COMMITs that the broker rolled back
	told     int // of which the client was told
	served   int // CONNECTED that the client has read
	crashes  int
	suspects []*item // given to another consumer though the client has acknowledged them
	closed   bool
	left     bool                  // the client is gone without a word: nothing it had said last is owed
	subs     map[string]*clientSub // all that there ever were, by id
	shared   map[int]bool          // queues that had two consumers at a time
	first    map[[2]int]int        // by queue and producer: the place of the last message that was shown for the first time
	scratch  []byte
}

func newLedger(w *World, script *Script) *ledger {
	return &ledger{w: w, script: script, subs: map[string]*clientSub{}, shared: map[int]bool{}, first: map[[2]int]int{}}
}

func (b *ledger) add(own bool, dest, size int) *item {
	list := &b.foreign
	if own {
		list = &b.own
	}
	it := &item{own: own, n: len(*list), dest: dest, size: size}
	*list = append(*list, it)
	return it
}

// find returns the item that a body belongs to, and checks every octet.
func (b *ledger) find(body []byte) *item {
	i := bytes.IndexByte(body, '|')
	if i < 2 || body[0] != 'X' && body[0] != 'P' {
		return nil
	}
	n, err := strconv.Atoi(string(body[1:i]))
	list := b.own
	if body[0] == 'P' {
		list = b.foreign
	}
	if err != nil || n < 0 || n >= len(list) {
		return nil
	}
	b.scratch = list[n].body(b.scratch[:0])
	if !bytes.Equal(body, b.scratch) {
		return nil
	}
	return list[n]
}

func (b *ledger) nextPlace() int { b.places++; return b.places }

// delivered judges a MESSAGE that the client was shown.
func (b *ledger) delivered(it *item, sub int) {
	switch again := it.shown > 0 && !it.nacked && !it.moved && it.sub == sub; {
	case it.held && !it.moved:
		b.w.Fail("resurrected", "%s was shown to the client, which holds it already", it.key())
	case it.acked && !it.moved:
		b.w.Fail("resurrected", "%s was shown to the client, which has acknowledged it", it.key())
	case again:
		b.w.Fail("resurrected", "%s was shown to the client twice", it.key())
	case it.nacked && !it.moved && it.sub == sub && b.script.Kind.refuses():
		b.w.Fail("resurrected", "%s was shown to the client, which has refused it for good", it.key())
	}
	it.shown++
	it.held, it.acked, it.nacked, it.sub = true, false, false, sub
}

// inOrder judges the order of first deliveries from one producer, where there was only one consumer.
func (b *ledger) inOrder(it *item) {
	if it.shown > 1 || it.answerTo != nil || b.shared[it.dest] || b.script.Queues[it.dest].Rival {
		return
	}
	if it.volatile && b.crashes > 0 || b.script.Kind != Paired && (it.moved || it.deliveries > 1) {
		return
	}
	from, place := [2]int{it.dest, 0}, it.n
	if it.own {
		from[1], place = 1, it.place
	}
	if place < b.first[from] {
		b.w.Fail("reordered", "%s was shown behind a later message of its producer", it.key())
	}
	b.first[from] = place
}

// rivalled judges a delivery to another consumer.
func (b *ledger) rivalled(it *item) {
	if (it.held || it.acked) && !it.moved && !b.left {
		b.w.Fail("stolen", "%s was given to another consumer, and the client has it", it.key())
	}
}

// settled judges an acknowledgement that the broker applies.
func (b *ledger) settled(it *item, sub string, nack bool) {
	x := b.subs[sub]
	if b.script.Nameless {
		x = b.subs["/"+strconv.Itoa(it.dest)]
	}
	switch {
	case !nack && b.script.Kind != Paired && b.autoEnded(it.dest):
		// The same; it may have come again on another subscription.
	case !nack && x != nil && x.mode == Auto && x.ended:
		// With the UNSUBSCRIBE said, what is on its way is consumed, as it is without a sidecar.
	case nack && !it.saidNack:
		b.w.Fail("phantom-nack", "the broker was told NACK for %s, which the client did not say", it.key())
	case !nack && it.auto && !it.taken:
		b.w.Fail("early-ack", "%s on an ack:auto subscription was acknowledged before the client's kernel had it all", it.key())
	case !nack && !it.auto && !it.saidAck:
		b.w.Fail("phantom-ack", "the broker was told ACK for %s, which the client did not say", it.key())
	}
	if nack && (it.held || it.acked) {
		it.moved = true // the client refused it, got it again, and had its say before the first refusal was applied
	}
}

// autoEnded reports whether the client has ended an ack:auto subscription to a queue.
func (b *ledger) autoEnded(dest int) bool {
	for _, x := range b.subs {
		if x.dest == dest && x.mode == Auto && x.ended {
			return true
		}
	}
	return false
}

// final judges the whole run. drained says that the client ended in good order and was told so.
func (b *ledger) final(drained bool, stored [][]*item) {
	for dest, items := range stored {
		last := 0
		for _, it := range items {
			if !it.own || it.volatile && b.crashes > 0 {
				continue
			}
			switch {
			case it.dest != dest:
				b.w.Fail("phantom", "%s is in queue %d and was sent to %d", it.key(), dest, it.dest)
			case it.aborted || it.place == 0:
				b.w.Fail("ghost", "%s was sent in a transaction that was not committed, and is stored", it.key())
			case it.place < last && b.script.Kind == RabbitMQ && it.applied > 1: // a copy
				continue
			case it.place < last:
				b.w.Fail("reordered", "%s was sent before the message stored ahead of it in queue %d", it.key(), dest)
			}
			last = it.place
		}
	}
	for _, it := range b.own {
		switch {
		case it.applied > 1 && b.script.Kind != RabbitMQ:
			b.w.Fail("duplicated", "%s was stored %d times", it.key(), it.applied)
		case it.evaporated || it.doubtful:
		case it.applied == 0 && it.receipted:
			b.w.Fail("lost", "%s was confirmed to the client and is not stored", it.key())
		case it.applied == 0 && drained && it.place > 0 && !it.aborted:
			b.w.Fail("lost", "%s was sent and is not stored, though the client ended in good order", it.key())
		}
	}
}

// unheld judges acknowledgements at the end of a conversation in good order.
func (b *ledger) unacked(left []*item) {
	for _, it := range left {
		if it.nacked && !it.moved && b.script.Kind.refuses() {
			b.w.Fail("lost-ack", "%s was refused by the client for good and is still in its queue", it.key())
		}
		if it.acked && !it.moved {
			b.w.Fail("lost-ack", "%s was acknowledged by the client and is still in its queue", it.key())
		}
	}
}

// outage tells for how long the recorder has been without a broker.
func (b *ledger) outage() time.Duration {
	live, since := b.w.Live()
	if live {
		return 0
	}
	return b.w.Now() - since
}

func (b *ledger) String() string {
	return fmt.Sprintf("%d own and %d foreign messages, %d rolled back", len(b.own), len(b.foreign), b.rolled)
}
