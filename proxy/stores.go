package proxy

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/routing"
)

// sharePatience is how long a session that takes its part of all stores waits, from its accept, for brokers that nobody has heard of yet: else the
// first to answer would get all who were there at the start.
const sharePatience = time.Second

var errNotProbed = errors.New("not every broker has said yet which stores it knows")

// settle says which store the session asks for: the one where it is at home, or that its client names; else what was configured.
func (l *link) settle(named string, view routing.View) (store string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case named != "":
		l.store = named
	case l.p.cfg.Store != Spread:
		l.store = l.p.cfg.Store
	case l.store == "":
		if time.Since(l.since) < sharePatience && slices.ContainsFunc(view.Candidates, func(c routing.Candidate) bool { return c.Verdict.State == health.Unknown }) {
			return "", errNotProbed
		}
		// Where no store is known the session asks without one: brokers of another kind have none, and who has several will say so.
		if s, ok := l.p.homes.share(routing.Stores(view.Candidates), l); ok {
			l.store, l.counts = s.UUID, s.UUID
		}
	}
	return l.store, nil
}

// belong has the session count for the store where it is at home; "" for none any more.
func (l *link) belong(store string) {
	l.mu.Lock()
	was := l.counts
	l.counts = store
	l.mu.Unlock()
	l.p.homes.move(was, store)
}

// homes counts sessions by the UUID of their store.
type homes struct {
	mu sync.Mutex
	at map[string]int
}

// share picks a store for l, and counts it.
func (h *homes) share(stores []routing.Store, l *link) (routing.Store, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := routing.Share(stores, h.at, l.rnd)
	if ok {
		h.add(s.UUID, 1)
	}
	return s, ok
}

func (h *homes) move(from, to string) {
	if from == to {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(from, -1)
	h.add(to, 1)
}

func (h *homes) add(store string, n int) {
	if store == "" {
		return
	}
	if h.at == nil {
		h.at = make(map[string]int)
	}
	if h.at[store] += n; h.at[store] <= 0 {
		delete(h.at, store)
	}
}

func (h *homes) count(store string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at[store]
}

// What there is to be done about an ErrWhichStore.
const (
	nameOne   = "start the sidecar with --store NAME, or with --store spread to share its connections over all"
	nameRight = "name the right one by its UUID (--store UUID), and see whether a file system was not mounted where the owner of the other one started"
)

// whichStore ends a session that named no store where there are several, or a name that several have.
type whichStore struct{ err error }

func (e whichStore) Error() string {
	if e.shared() {
		return e.err.Error() + ": " + nameRight
	}
	return e.err.Error() + ": " + nameOne
}

func (e whichStore) shared() bool {
	var n *routing.Namesakes
	return errors.As(e.err, &n)
}

// Code implements what evidence.go reads.
func (e whichStore) Code() string { return codeWhichStore }

func (e whichStore) Unwrap() []error { return []error{e.err, ErrWhichStore} }

// undecided is the end of a session that may not choose.
func (l *link) undecided(why error) error {
	err := whichStore{why}
	if !err.shared() && l.p.warned.allow(time.Now()) { // a name that is shared is the stores' trouble, of which watchStores tells
		l.p.cfg.Logger.Warn("client refused: no store was named", "session", l.id, "client", l.client, "why", err)
	}
	return err
}

// why says what a session waits for whom nobody took.
func (l *link) why(view routing.View, choice routing.Choice) string {
	best := choice.Targets[0]
	text := fmt.Sprintf("the best of %d is %s (%s)", len(choice.Targets), best.Target, best.Rank)
	want := l.wanted()
	if want == "" || best.Rank <= routing.Active {
		return "no broker took the session: " + text
	}
	for _, s := range routing.Stores(view.Candidates) {
		if s.UUID == want {
			want = s.String()
		}
	}
	return "store " + want + " is in nobody's hands: " + text
}

// lateAfter is how long a store may be in nobody's hands, as in a take-over, before that is worth a word.
const lateAfter = time.Second

// StoreStatus is one store that brokers know.
type StoreStatus struct {
	routing.Store
	// Unserved is since when it is in nobody's hands; zero while somebody serves it.
	Unserved time.Time
	Sessions int // that are at home in it, or want it
}

// vigil watches over the stores of a Proxy: which has a holder, and which has none since when.
type vigil struct {
	mu     sync.Mutex
	stores []routing.Store
	since  map[string]time.Time // by UUID: unserved since
	said   map[string]bool      // by UUID: that was logged
	shared []string             // names that several stores have which are served, sorted
}

// observe takes what is known at now, and returns the stores that have come to be known and those that are known no more.
func (v *vigil) observe(stores []routing.Store, now time.Time) (came, went []routing.Store) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.since == nil {
		v.since, v.said = map[string]time.Time{}, map[string]bool{}
	}
	missing := func(from, in []routing.Store) (out []routing.Store) {
		for _, s := range from {
			if !slices.ContainsFunc(in, func(o routing.Store) bool { return o.UUID == s.UUID && o.Name == s.Name }) {
				out = append(out, s)
			}
		}
		return out
	}
	came, went = missing(stores, v.stores), missing(v.stores, stores)
	v.stores = stores
	for _, s := range went {
		if !slices.ContainsFunc(stores, func(o routing.Store) bool { return o.UUID == s.UUID }) {
			delete(v.since, s.UUID)
			delete(v.said, s.UUID)
		}
	}
	for _, s := range stores {
		if _, waits := v.since[s.UUID]; s.Holder == "" && !waits {
			v.since[s.UUID] = now
		}
	}
	return came, went
}

// late are the stores that are in nobody's hands for long, once each, and those that were and are served again; next is when to look again.
func (v *vigil) late(now time.Time) (lost, found []StoreStatus, next time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	next = time.Hour
	for _, s := range v.stores {
		since, waits := v.since[s.UUID]
		st := StoreStatus{Store: s, Unserved: since}
		switch {
		case s.Holder != "" && waits:
			if v.said[s.UUID] {
				found = append(found, st)
			}
			delete(v.since, s.UUID)
			delete(v.said, s.UUID)
		case s.Holder != "" || v.said[s.UUID]:
		case now.Sub(since) >= lateAfter:
			v.said[s.UUID] = true
			lost = append(lost, st)
		default:
			next = min(next, lateAfter-now.Sub(since))
		}
	}
	return lost, found, next
}

// share takes which names are shared, and returns those that have come to be and those that are no more.
func (v *vigil) share(shared []*routing.Namesakes) (came []*routing.Namesakes, went []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	names := make([]string, 0, len(shared))
	for _, n := range shared {
		if names = append(names, n.Name); !slices.Contains(v.shared, n.Name) {
			came = append(came, n)
		}
	}
	for _, name := range v.shared {
		if !slices.Contains(names, name) {
			went = append(went, name)
		}
	}
	v.shared = names
	return came, went
}

// sharing is how many names are shared.
func (v *vigil) sharing() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.shared)
}

func (v *vigil) unserved(uuid string) time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.since[uuid]
}

// Stores is what is known of the brokers' stores, by UUID.
func (p *Proxy) Stores() []StoreStatus {
	p.vigil.mu.Lock()
	stores := slices.Clone(p.vigil.stores)
	p.vigil.mu.Unlock()
	out := make([]StoreStatus, 0, len(stores))
	for _, s := range stores {
		out = append(out, StoreStatus{s, p.vigil.unserved(s.UUID), p.wanting(s)})
	}
	return out
}

// stores are those that brokers know, and the one that was configured if none of them does.
func (p *Proxy) stores(cands []routing.Candidate) []routing.Store {
	all, want := routing.Stores(cands), p.cfg.Store
	if want == "" || want == Spread {
		return all
	}
	for _, s := range all {
		if s.UUID == want || s.Name == want {
			return all
		}
	}
	for _, c := range cands {
		if c.Store == want || c.Verdict.State == health.Active && len(c.Verdict.Stores) == 0 {
			return all // of another kind, whose stores are what an operator says
		}
	}
	wanted := routing.Wanted(want)
	return append(all, routing.Store{UUID: wanted.UUID, Name: wanted.Name})
}

// wanting is how many sessions are at home in a store; of one that no broker knows, how many wait for it.
func (p *Proxy) wanting(s routing.Store) int {
	if s.UUID == "" {
		return p.waiting.count()
	}
	return p.homes.count(s.UUID)
}

// watchStores says, once for each store and not for each session, that it is in nobody's hands, and that it is not any more.
func (p *Proxy) watchStores() {
	for {
		view := p.cfg.View()
		now := time.Now()
		stores := p.stores(view.Candidates)
		for _, s := range stores {
			// Epochs of verdicts are from CONNECTED as well: who is still with a lower one has been left behind.
			if s.Holder != "" && p.epochs.raise(s.UUID, s.Epoch) {
				p.fence(s.UUID)
			}
		}
		came, went := p.vigil.observe(stores, now)
		for _, s := range went {
			p.metrics.forgetStore(s)
		}
		for _, s := range came {
			p.metrics.store(p, s)
		}
		p.watchNames(view)
		lost, found, next := p.vigil.late(now)
		for _, s := range lost {
			p.cfg.Logger.Warn("nobody serves a store: its sessions wait until somebody does, or their hold is over", "store", s.String(), "uuid", s.UUID, "since", s.Unserved, "sessions", p.wanting(s.Store))
		}
		for _, s := range found {
			p.cfg.Logger.Info("a store is served again", "store", s.String(), "uuid", s.UUID, "broker", s.Holder, "epoch", s.Epoch, "after", now.Sub(s.Unserved))
		}
		timer := time.NewTimer(next)
		select {
		case <-view.Changed:
		case <-view.Verdicts:
		case <-timer.C:
		case <-p.ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// watchNames says, once for each name and not for each session that is refused, that several stores which are served have it.
func (p *Proxy) watchNames(view routing.View) {
	came, went := p.vigil.share(routing.Shared(view.Candidates, routing.Wants{Epochs: p.epochs.all()}))
	for _, n := range came {
		p.cfg.Logger.Error("stores share a name: clients that want it are refused, and those that are in one of them stay there", "store", n.Name, "error", whichStore{n})
	}
	for _, name := range went {
		p.cfg.Logger.Info("stores share a name no more", "store", name)
	}
}
