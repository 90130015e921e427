package broker

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/understudy-mq/understudy/broker/journal"
)

// world is a store, sidecars that keep the contract, and what their clients have seen.
type world struct {
	t       *rapid.T
	cfg     Config
	log     *memory
	store   *store
	now     time.Time
	lapse   bool // windows may end: then a message may be shown again
	actors  []*actor
	sent    map[string]int // body: how often it may be shown
	shown   map[string]int
	errands []*errand       // that the loader has taken
	fetched bool            // the first of them was read
	last    map[string]int  // consumer, producer and queue: the last number that was shown
	lossy   map[string]bool // what was published to a topic and may never be shown: the owner has died, or dropped it, since
	dropped uint64          // by this owner
}

func TestStoreKeepsTheContract(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { simulate(t, false) })
}

func TestStoreLosesNothingWhenWindowsEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { simulate(t, true) })
}

func simulate(t *rapid.T, lapse bool) {
	w := &world{t: t, now: time.Unix(1e9, 0), lapse: lapse, sent: map[string]int{}, shown: map[string]int{}, last: map[string]int{}, lossy: map[string]bool{}}
	w.cfg = Config{MaxMemory: rapid.SampledFrom([]int64{1 << 30, tight}).Draw(t, "memory"), MaxOut: rapid.SampledFrom([]int{200, 1 << 20}).Draw(t, "out"), Listener: unbound{}, Prefetch: 3}.withDefaults()
	w.log = &memory{t: t, next: 1, deleted: map[journal.Segment]bool{}}
	if rapid.IntRange(0, 3).Draw(t, "small disk") == 0 {
		w.log.full = func() bool { return rapid.IntRange(0, 5).Draw(t, "full") == 0 }
	}
	w.store = w.log.recovered(0, w.now, &w.cfg)
	for i, session := range []string{sessionX, sessionY, strings.Repeat("5", 32)} {
		a := &actor{w: w, session: session, holds: map[string]*simHold{}, numbers: map[string]int{}, next: 1}
		a.subs = [][]string{{"/queue/one", "/queue/both", "/queue/split odd = TRUE", "/topic/t odd = TRUE", "/topic/plain odd = TRUE", "/temp-queue/r", "/queue/prio"}, {"/queue/both", "/queue/split NOT odd", "/topic/t NOT odd", "/topic/plain NOT odd", "/queue/prio"}, nil}[i]
		w.actors = append(w.actors, a)
		a.connect() // from here on the durable subscriptions and the temporary queue exist
	}
	w.log.sync(w.log.next - 1)
	w.store.advance(w.log.durable)
	w.store.flush()
	for range rapid.IntRange(1, 120).Draw(t, "steps") {
		w.step()
		w.forgiveDrops()
		w.load(rapid.IntRange(0, 2).Draw(t, "pages"))
	}
	w.settle()
}

func (w *world) step() {
	a := w.actors[rapid.IntRange(0, len(w.actors)-1).Draw(w.t, "actor")]
	switch what := rapid.IntRange(0, 99).Draw(w.t, "what"); {
	case what < 3:
		a.browse()
	case what < 20:
		a.produce()
	case what < 32:
		a.acknowledge()
	case what < 42:
		a.transact()
	case what < 62:
		a.read(rapid.IntRange(0, 5).Draw(w.t, "frames"))
	case what < 73:
		w.sync()
	case what < 81:
		w.evacuate()
	case what < 86:
		a.breakOff()
	case what < 94:
		a.connect()
	case what < 96:
		w.crash()
	case what < 98:
		w.handOver()
	default:
		w.now = w.now.Add(100 * time.Millisecond)
		if w.lapse {
			w.now = w.now.Add(time.Second)
		}
		w.store.now = w.now
		if w.lapse {
			w.store.tick()
			w.store.flush()
		}
	}
}

func (w *world) sync() {
	if from := w.log.durable; w.log.next-1 > from {
		through := journal.LSN(rapid.Uint64Range(uint64(from), uint64(w.log.next-1)).Draw(w.t, "durable"))
		w.log.sync(through)
		w.store.advance(through)
		w.store.flush()
	}
}

func (w *world) crash() {
	if rapid.IntRange(0, 3).Draw(w.t, "in a hand-over") == 0 {
		w.barrier()
	}
	last := journal.LSN(rapid.Uint64Range(uint64(w.log.durable), uint64(w.log.next-1)).Draw(w.t, "kept"))
	for _, a := range w.actors {
		if a.peer != nil {
			a.read(rapid.IntRange(0, 3).Draw(w.t, "frames before the crash"))
		}
		a.peer, a.ghost = nil, nil
	}
	w.forgive()
	w.recover(last)
}

func (w *world) recover(last journal.LSN) {
	w.store, w.errands, w.fetched, w.dropped = w.log.recovered(last, w.now, &w.cfg), nil, false, 0
}

// barrier is the begin of an orderly end.
func (w *world) barrier() {
	for _, a := range w.actors {
		for _, p := range []*peer{a.peer, a.ghost} {
			if p != nil {
				p.quit = true
			}
		}
	}
	if rapid.IntRange(0, 2).Draw(w.t, "the journal is behind with its files") == 0 {
		w.log.behind = func() bool { return rapid.IntRange(0, 2).Draw(w.t, "behind") == 0 }
		defer func() { w.log.behind = nil }()
	}
	if w.store.bequeath(w.pause) > 0 {
		w.forgive() // the disk is full
	}
}

// pause is what others do while the journal makes a file.
func (w *world) pause(bool) bool {
	w.log.sync(journal.LSN(rapid.Uint64Range(uint64(w.log.durable), uint64(w.log.next-1)).Draw(w.t, "durable at the barrier")))
	w.store.advance(w.log.durable)
	w.load(rapid.IntRange(0, 2).Draw(w.t, "pages at the barrier"))
	w.store.flush()
	return rapid.IntRange(0, 9).Draw(w.t, "time is left") > 0
}

// handOver is the orderly end of an owner: everything is durable and answered, and each client reads some of what it was sent.
func (w *world) handOver() {
	w.barrier()
	w.log.sync(w.log.next - 1)
	w.store.advance(w.log.durable)
	w.store.flush()
	for _, a := range w.actors {
		a.read(rapid.SampledFrom([]int{0, 1, 3, 1 << 20}).Draw(w.t, "frames before the hand-over"))
		a.peer, a.ghost = nil, nil
	}
	w.recover(w.log.next - 1)
}

const plainTopic = "/topic/plain"

// forgive notes that what was published to the topic and not shown yet may never be.
func (w *world) forgive() {
	for body := range w.sent {
		if strings.Contains(body, plainTopic) && w.shown[body] == 0 {
			w.lossy[body] = true
		}
	}
}

// forgiveDrops does so if the store has dropped something.
func (w *world) forgiveDrops() {
	if n := w.store.count.dropped.Get(); n > w.dropped {
		w.dropped = n
		w.forgive()
	}
}

// settle lets everybody finish, and then judges.
func (w *world) settle() {
	for round := 0; ; round++ {
		busy := w.store.messages > 0
		for _, a := range w.actors {
			a.connect()
			a.read(1 << 20)
			for _, h := range a.unacked() {
				a.add([]*simHold{h}, h.frame("ACK", ""))
			}
			busy = busy || len(a.effects) > 0 || a.browser != nil
		}
		w.log.sync(w.log.next - 1)
		w.store.advance(w.log.durable)
		w.store.flush()
		w.load(1 << 20)
		w.forgiveDrops()
		if w.lapse {
			w.now = w.now.Add(time.Second)
			w.store.now = w.now
			w.store.tick()
			w.store.flush()
		}
		if !busy {
			break
		}
		if round > 200 {
			for _, a := range w.actors {
				w.t.Logf("%s: effects %v, holds %v", a.session[:2], a.effects, a.unacked())
			}
			for _, q := range w.store.queues {
				w.t.Logf("queue %s: %d messages, %d gates, next %+v", q.name, q.count, q.gates, q.first())
				for _, sub := range q.subs {
					w.t.Logf("subscription %+v", *sub)
				}
			}
			w.t.Fatalf("it never ends: %d messages", w.store.messages)
		}
	}
	w.store.tick() // nobody is expected any more
	for body, may := range w.sent {
		if n := w.shown[body]; n < 1 && !w.lossy[body] || n > may && !w.lapse {
			w.t.Fatalf("%s was shown %d times, may be %d", body, n, may)
		}
	}
	if w.store.memory != 0 || len(w.store.queues) > 5 {
		w.t.Fatalf("%d octets in %d queues are left", w.store.memory, len(w.store.queues))
	}
}
