package demo

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// message identifies one message of the run: its producer, and its number there, from 1.
type message struct{ producer, seq int }

// String is producer:seq, as bodies begin.
func (m message) String() string { return fmt.Sprintf("%d:%d", m.producer, m.seq) }

// record is what is known of one message.
type record struct {
	confirmed bool
	received  int // deliveries that a consumer saw
}

// ledger is the book of the whole run: every SEND is written down before it leaves, every confirmation and every delivery when it is
// there. It knows nothing of brokers; the verdict is arithmetic on it.
type ledger struct {
	mu        sync.Mutex
	producers [][]record            // by producer, then seq-1
	highest   map[[2]int]int        // consumer, producer: the highest number first delivered there
	open      map[message]time.Time // sent (when) and unsettled: no receipt yet or, without receipts, not received yet
	unacked   map[message]struct{}  // delivered and not acknowledged by the consumer yet; with auto: sent and not delivered yet
	receipts  bool
	auto      bool
	began     time.Time
	progress  time.Time
	sum       counts
	odd       []string // what went wrong, in words; the first maxOdd
}

// maxOdd bounds what is remembered in words: where everything goes wrong a few examples do.
const maxOdd = 10

// counts are the ledger's totals.
type counts struct {
	sent, confirmed, received int // messages, each counted once
	duplicated                int // deliveries beyond the first of each message
	reordered                 int // first deliveries behind a later message of the same producer to the same consumer
	phantom                   int // deliveries of what nobody sent, or of an altered body
}

// newLedger makes the book for a number of producers. Without receipts a message is settled when a consumer has it; with auto consumers
// owe no acknowledgement, and a message is in the air until it is delivered.
func newLedger(producers int, receipts, auto bool) *ledger {
	return &ledger{
		producers: make([][]record, producers), highest: map[[2]int]int{}, open: map[message]time.Time{},
		unacked: map[message]struct{}{}, receipts: receipts, auto: auto, began: time.Now(), progress: time.Now(),
	}
}

// send writes down the producer's next message, which may leave only afterwards.
func (l *ledger) send(producer int) message {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.producers[producer] = append(l.producers[producer], record{})
	m := message{producer, len(l.producers[producer])}
	l.open[m] = time.Now()
	if l.auto {
		l.unacked[m] = struct{}{}
	}
	l.sum.sent++
	return m
}

// confirm writes down the receipt of a message, or of the transaction that it was in.
func (l *ledger) confirm(m message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.find(m); r != nil && !r.confirmed {
		r.confirmed = true
		l.sum.confirmed++
		delete(l.open, m)
	}
}

// receive writes down a delivery. Unless acknowledging is automatic the consumer now owes an acknowledgement.
func (l *ledger) receive(consumer int, m message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.progress = time.Now()
	r := l.find(m)
	if r == nil {
		l.sum.phantom++
		l.note("consumer %d received %v, which was never sent", consumer, m)
		return
	}
	if l.auto {
		delete(l.unacked, m)
	} else {
		l.unacked[m] = struct{}{}
	}
	if r.received++; r.received > 1 {
		l.sum.duplicated++
		l.note("consumer %d received %v, which had been received before", consumer, m)
		return
	}
	l.sum.received++
	if !l.receipts {
		delete(l.open, m)
	}
	key := [2]int{consumer, m.producer}
	if m.seq < l.highest[key] {
		l.sum.reordered++
		l.note("consumer %d received %v after %v", consumer, m, message{m.producer, l.highest[key]})
	} else {
		l.highest[key] = m.seq
	}
}

// phantom writes down a delivery that is none of ours.
func (l *ledger) phantom(consumer int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum.phantom++
	l.note("consumer %d received a body that nobody sent", consumer)
}

// note puts into words what went wrong; the caller holds mu.
func (l *ledger) note(format string, args ...any) {
	if len(l.odd) < maxOdd {
		l.odd = append(l.odd, fmt.Sprintf("%.3fs ", time.Since(l.began).Seconds())+fmt.Sprintf(format, args...))
	}
}

// oddities are the first things that went wrong, in words, with the time since the ledger was begun.
func (l *ledger) oddities() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.odd)
}

// acknowledge writes down that a consumer's acknowledgement has left it.
func (l *ledger) acknowledge(m message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.unacked, m)
}

func (l *ledger) find(m message) *record {
	if m.producer < 0 || m.producer >= len(l.producers) || m.seq < 1 || m.seq > len(l.producers[m.producer]) {
		return nil
	}
	return &l.producers[m.producer][m.seq-1]
}

// totals returns the counts so far.
func (l *ledger) totals() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sum
}

// due says whether a message has to arrive to arrive: its sender was told that it is safe or, without receipts, it was sent.
func (l *ledger) due(r record) bool { return r.confirmed || !l.receipts }

// missing returns up to limit messages that are due and were not received, how many there are, and when the last delivery was.
func (l *ledger) missing(limit int) (some []message, n int, progress time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, records := range l.producers {
		for i, r := range records {
			if r.received > 0 || !l.due(r) {
				continue
			}
			if n++; len(some) < limit {
				some = append(some, message{p, i + 1})
			}
		}
	}
	return some, n, l.progress
}

// inFlight is what was in the air at one moment.
type inFlight struct {
	sends   map[message]time.Time
	unacked map[message]struct{}
}

// fresh counts the sends that were begun no longer ago than age: those that are hardly confirmed in the next moment.
func (f inFlight) fresh(age time.Duration) (n int) {
	for _, at := range f.sends {
		if time.Since(at) <= age {
			n++
		}
	}
	return n
}

// flying reports how much is in the air.
func (l *ledger) flying() (sends, unacked int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open), len(l.unacked)
}

// snapshot returns what is in the air.
func (l *ledger) snapshot() inFlight {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := inFlight{make(map[message]time.Time, len(l.open)), make(map[message]struct{}, len(l.unacked))}
	maps.Copy(f.sends, l.open)
	maps.Copy(f.unacked, l.unacked)
	return f
}

// still counts what of f is in the air even now. Taken before and after a kill it gives what certainly was while it happened.
func (l *ledger) still(f inFlight) (sends, unacked int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for m := range f.sends {
		if _, ok := l.open[m]; ok {
			sends++
		}
	}
	for m := range f.unacked {
		if _, ok := l.unacked[m]; ok {
			unacked++
		}
	}
	return sends, unacked
}
