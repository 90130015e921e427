package broker

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// tenure is a time of a server with a store: from standing by for it to the end of the last connection that was bound to it. Nothing of it outlives it, so
// the next one of the same keeper begins with nothing but the journal, while connections of this one still hear their last word.
//
// The lobby is a tenure without a store. Every connection begins there.
type tenure struct {
	cfg    Config // MaxMemory is this store's share, and guarded by mu once the store is active
	log    *slog.Logger
	count  *counters
	failed chan error // of one element: what ended the journal
	// toLoader, of one element, says that the store wants pages.
	toLoader chan struct{}
	toMover  chan struct{} // of one element: records were appended, so a segment may be sparse now

	mu      sync.Mutex
	store   *store // nil until active, as journal is
	journal *journal.Journal
	early   journal.LSN
	conns   map[*conn]struct{}
	ended   error         // why nobody is taken any more
	lost    bool          // the store may be another's: what is half written stays so
	synced  chan struct{} // closed when everything is durable; nil unless somebody waits
	served  sync.WaitGroup

	withheld []*conn                          // wait until the store is known to be ours; see guard.go
	checked  atomic.Pointer[func() time.Time] // when the journal began its last look for a higher epoch; nil until active, and when it was let go in order
}

var errStopped = errors.New("the server has let go of the store")

func newTenure(cfg *Config, log *slog.Logger, count *counters) *tenure {
	return &tenure{cfg: *cfg, log: log, count: count, failed: make(chan error, 1), toLoader: make(chan struct{}, 1), toMover: make(chan struct{}, 1),
		conns: map[*conn]struct{}{}}
}

// lock begins a call into the store; unlock ends it and wakes the connections that it concerned.
func (t *tenure) lock() {
	t.mu.Lock()
	if t.store != nil {
		t.store.now = time.Now()
	}
}

func (t *tenure) unlock() {
	if st := t.store; st != nil {
		if st.paging.wishes.len() > 0 {
			select {
			case t.toLoader <- struct{}{}:
			default:
			}
		}
		for _, p := range st.wake {
			p.touched = false
			p.conn.kick()
		}
		clear(st.wake)
		st.wake = st.wake[:0]
	}
	t.mu.Unlock()
}

// durable is the journal's word; it comes from its commit goroutine.
func (t *tenure) durable(through journal.LSN) {
	t.lock()
	if st := t.store; st != nil {
		st.advance(through)
		st.flush()
		select {
		case t.toMover <- struct{}{}:
		default:
		}
		if t.synced != nil && st.through >= st.last {
			close(t.synced)
			t.synced = nil
		}
	} else {
		t.early = max(t.early, through)
	}
	t.unlock()
}

// begin lets clients in.
func (t *tenure) begin(st *store, log *journal.Journal) (messages, sessions int) {
	t.mu.Lock()
	t.store, t.journal = st, log
	t.mu.Unlock()
	t.lock()
	defer t.unlock()
	st.advance(t.early)
	st.flush()
	return st.messages, len(st.sessions)
}

// tick is what time brings about.
func (t *tenure) tick() {
	t.lock()
	defer t.unlock()
	st := t.store
	if len(st.waiting) > 0 {
		st.tick()
	}
	st.expireMessages(maxLooks)
	st.paging.another()
	t.letGo()
	st.flush()
}

// bar ends what clients may do: nothing that they say has an effect any more. What it returns is closed when all that they did is durable, and what is kept
// for them; for that it waits at times, until the end of the time that it is given.
func (t *tenure) bar(end time.Time) (synced <-chan struct{}) {
	t.lock()
	defer t.unlock()
	t.ended = errStopped
	st := t.store
	for c := range t.conns {
		c.peer.quit = true
	}
	st.bequeath(func(behind bool) bool { return t.pause(behind, end) })
	done := make(chan struct{})
	if t.synced = done; st.through >= st.last || st.err != nil {
		close(done)
		t.synced = nil
	}
	return done
}

// pause lets others have the store for a moment, or for about as long as the journal takes for a file. It reports false if the time for that is over. A look
// is cheap, and hears of a store that is lost and of a disk that is full as well.
func (t *tenure) pause(behind bool, end time.Time) bool {
	if behind && !time.Now().Before(end) {
		return false
	}
	t.unlock()
	defer t.lock()
	if behind {
		time.Sleep(time.Millisecond)
	}
	return true
}

// farewell ends all connections, with an ERROR if why is not nil. A direct client is not told what only a sidecar can use.
func (t *tenure) farewell(why *fault) {
	t.lock()
	defer t.unlock()
	t.dismiss(why)
}

// dismiss is farewell under the mutex.
func (t *tenure) dismiss(why *fault) {
	t.ended = errStopped
	for c := range t.conns {
		p := &c.peer
		if why == nil || p.session == nil {
			p.dead = true
		} else {
			f := *why
			if !p.sidecar {
				f.code, f.header = "", ""
			}
			t.store.refuse(p, nil, &f)
		}
		c.kick()
		_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// release says that the journal was let go of in good order: what is still to be said was true before, and needs nobody's word any more.
func (t *tenure) release() {
	t.lock()
	defer t.unlock()
	if t.store.err == nil {
		t.store.err = errStopped
		t.checked.Store(nil)
	}
	t.letGo()
}

// wait waits for the last connection to end.
func (t *tenure) wait() { t.served.Wait() }
