package proxy

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-mq/understudy/health"
)

// maxStores bounds the epochs remembered: their keys come from brokers. Stores beyond it are not guarded here; each session still guards its own.
const maxStores = 1024

// epochs is the highest epoch that any session saw in a login, by store.
type epochs struct {
	mu   sync.Mutex
	seen map[string]uint64 // replaced, never changed
}

// raise notes an epoch. over is true when sessions may still be with an older one: the store was known at a lower epoch.
func (e *epochs) raise(store string, epoch uint64) (over bool) {
	if store == "" || epoch == 0 {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	was, known := e.seen[store]
	if epoch <= was || !known && len(e.seen) >= maxStores {
		return false
	}
	next := maps.Clone(e.seen)
	if next == nil {
		next = make(map[string]uint64)
	}
	next[store] = epoch
	e.seen = next
	return known
}

// all is only to be read.
func (e *epochs) all() map[string]uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen
}

// maxScouts is how many sessions at a time may try a target that is not known to be active, and that many at one moment; the next gets the place after
// scoutGap, or after movingGap while its store was served a moment ago. The others wait for what these find: a thousand logins at a standby
// only keep it from taking over.
const (
	maxScouts = 4
	movingGap = time.Millisecond
	scoutGap  = 10 * time.Millisecond
)

// quest is what a scout asks: whether a target serves a store.
type quest struct {
	target health.Target
	store  string
}

// scouts counts them.
type scouts struct {
	mu sync.Mutex
	at map[quest]*posts
}

// posts are the places of one quest.
type posts struct {
	taken int
	spent float64 // places that cannot be had again yet, as of at
	at    time.Time
}

// enter takes a place; leave, which may be called more than once, gives it back. It is nil if there is none.
func (s *scouts) enter(q quest, now time.Time, gap time.Duration) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.at[q]
	if p == nil {
		p = new(posts)
		if s.at == nil {
			s.at = make(map[quest]*posts)
		}
		for old, o := range s.at { // those of whom nothing is left to know
			if o.taken == 0 && now.Sub(o.at) >= maxScouts*scoutGap {
				delete(s.at, old)
			}
		}
		s.at[q] = p
	}
	p.spent, p.at = max(0, p.spent-float64(now.Sub(p.at))/float64(gap)), now
	if p.taken >= maxScouts || p.spent > maxScouts-1 {
		return nil
	}
	p.taken++
	p.spent++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		p.taken--
	})
}

// maxLogins is how many sessions at a time may be on their way into one target, from the dial until they are live. A fleet that comes back at one
// moment is as fast in turns, and all at once it would keep each other, its heart-beats, and the broker waiting until the time for a login is over, and
// begin again.
const maxLogins = 128

// gates let sessions into targets in turns: first come, first served.
type gates struct {
	mu sync.Mutex
	at map[health.Target]*gate
}

type gate struct {
	inside int
	queue  []*turn
}

// turn is a place inside, or in the queue; come is closed when it is one inside.
type turn struct {
	come chan struct{}
	in   bool
	gone bool
}

// enter takes a place at t; leave, which may be called more than once, gives it back.
func (g *gates) enter(t health.Target) (mine *turn, leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.at == nil {
		g.at = make(map[health.Target]*gate)
	}
	at := g.at[t]
	if at == nil {
		at = new(gate)
		g.at[t] = at
	}
	mine = &turn{come: make(chan struct{})}
	at.queue = append(at.queue, mine)
	at.admit()
	return mine, sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if mine.gone = true; mine.in {
			at.inside--
		}
		if at.admit(); at.inside == 0 && len(at.queue) == 0 && g.at[t] == at {
			delete(g.at, t)
		}
	})
}

// admit lets in as many as there is room for. Who has left is skipped when its turn comes.
func (a *gate) admit() {
	for len(a.queue) > 0 && (a.inside < maxLogins || a.queue[0].gone) {
		next := a.queue[0]
		a.queue[0] = nil
		if a.queue = a.queue[1:]; !next.gone {
			next.in = true
			a.inside++
			close(next.come)
		}
	}
}

// waiting counts the sessions that wait for a broker, and has health hurry as long as there is one.
type waiting struct {
	hurry func() (done func())

	mu   sync.Mutex
	n    int
	done func()
}

func (w *waiting) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n++; w.n == 1 && w.hurry != nil {
		w.done = w.hurry()
	}
}

func (w *waiting) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n--; w.n == 0 && w.done != nil {
		w.done()
		w.done = nil
	}
}

func (w *waiting) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

// throttle lets one log line through in ten seconds.
type throttle struct{ last atomic.Int64 }

func (t *throttle) allow(now time.Time) bool {
	last, at := t.last.Load(), now.UnixNano()
	return at-last >= int64(10*time.Second) && t.last.CompareAndSwap(last, at)
}
