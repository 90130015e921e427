package health

import (
	"slices"
	"time"
)

// maxStores bounds the epochs that a Detector remembers, so that a peer which invents stores cannot fill the memory. Stores beyond it
// are served, and not guarded against a stale owner.
const maxStores = 4096

// Thresholds are how much evidence a change of mind takes. The zero value is right for fail-over: up at the first proof, down at the
// second failure, or at the first if nobody listens.
type Thresholds struct {
	// Rise is how many probes in a row must find a target active before one that was Down is Active; 0 means 1. A session that logs in
	// raises it at once.
	Rise int
	// Fall is how many failures in a row make a target Down; 0 means 2. The first makes it Suspect. A failed dial makes it Down at once.
	// Broken connections of live sessions count as one failure however many they are, for they can share one cause on the way.
	Fall int
	// FlapLimit is how many times within FlapWindow an active target may go Down before it is guarded; 0 means 3, negative means never.
	// A take-over at a higher epoch is no flap.
	FlapLimit int
	// FlapWindow is the time in which FlapLimit counts; 0 means 30 s.
	FlapWindow time.Duration
	// FlapHold is how long a guarded target must look active without a failure before it is Active again; 0 means 2 s.
	FlapHold time.Duration
}

func (t Thresholds) withDefaults() Thresholds {
	if t.Rise <= 0 {
		t.Rise = 1
	}
	if t.Fall <= 0 {
		t.Fall = 2
	}
	if t.FlapLimit == 0 {
		t.FlapLimit = 3
	}
	if t.FlapWindow <= 0 {
		t.FlapWindow = 30 * time.Second
	}
	if t.FlapHold <= 0 {
		t.FlapHold = 2 * time.Second
	}
	return t
}

// Outcome is what an observation amounts to.
type Outcome struct {
	Verdict Verdict   // of the observed target; zero if the target was not added
	Changed []Verdict // every verdict that is different now: the target's own first, then those that it proved stale
	Probe   []Target  // what is to be probed now
}

// Detector turns evidence into verdicts. It is pure: no clock, no goroutine, no lock. Not safe for concurrent use.
type Detector struct {
	limits  Thresholds
	targets map[Target]*subject
	highest map[string]uint64 // store UUID → highest epoch seen in CONNECTED; outlives targets
}

// subject is what is remembered of one target.
type subject struct {
	verdict   Verdict
	stores    shelf
	seen      time.Time   // beginning of the newest direct observation
	heard     time.Time   // time of the newest gossip
	fails     int         // failures in a row
	goods     int         // active answers in a row
	rising    bool        // was Down and has not been Active since
	owned     bool        // Active, or Suspect since it was
	downs     []time.Time // when it was lost while owned; at most FlapLimit, oldest first
	goodSince time.Time   // first active answer of the present row, while guarded
}

// NewDetector makes a Detector without targets.
func NewDetector(limits Thresholds) *Detector {
	return &Detector{limits: limits.withDefaults(), targets: make(map[Target]*subject), highest: make(map[string]uint64)}
}

// Add makes t known, as Unknown; it reports false if it was known already.
func (d *Detector) Add(t Target, at time.Time) bool {
	if d.targets[t] != nil {
		return false
	}
	d.targets[t] = &subject{verdict: Verdict{Target: t, Since: at}}
	return true
}

// Forget drops a target. The epochs seen stay: a stale owner does not become acceptable because it was removed and added again.
func (d *Detector) Forget(t Target) bool {
	known := d.targets[t] != nil
	delete(d.targets, t)
	return known
}

// Verdict is the verdict on t, and whether t is known.
func (d *Detector) Verdict(t Target) (Verdict, bool) {
	s := d.targets[t]
	if s == nil {
		return Verdict{}, false
	}
	return s.verdict, true
}

// Verdicts makes a map of all of them, which is the caller's.
func (d *Detector) Verdicts() map[Target]Verdict {
	all := make(map[Target]Verdict, len(d.targets))
	for t, s := range d.targets {
		all[t] = s.verdict
	}
	return all
}

// Highest is the highest epoch seen in CONNECTED for a store; 0 if none was.
func (d *Detector) Highest(store string) uint64 { return d.highest[store] }

// Observe weighs one observation. Evidence of a target that was not added teaches the epochs of its stores and nothing else.
func (d *Detector) Observe(e Evidence) Outcome {
	var out Outcome
	raised := d.learn(e)
	if s := d.targets[e.Target]; s != nil {
		before := s.verdict
		switch {
		case e.Kind.Gossip():
			d.hear(s, e, &out)
		case !e.At.IsZero() && e.At.Before(s.seen):
			// Out of date: what it says may have been true before what the verdict rests on. Not so of stores that nothing newer speaks of.
			if d.shelve(s, e) {
				out.Probe = append(out.Probe, e.Target)
			}
			d.unseat(s, e)
		default:
			if !e.At.IsZero() {
				s.seen = e.At
			}
			news := d.shelve(s, e)
			d.see(s, e, news, &out)
			if before.State == Active && (s.verdict.State != Active || lostOne(before.Stores, s.verdict.Stores)) {
				// Somebody else may own the store in a moment: look everywhere, not only here.
				out.Probe = d.all()
			}
		}
		if !s.verdict.Equal(before) {
			out.Changed = append(out.Changed, s.verdict)
		}
	}
	if len(raised) > 0 {
		d.demote(raised, e, &out)
	}
	out.Verdict, _ = d.Verdict(e.Target)
	return out
}

// learn keeps the highest epoch of each store, and says of which stores e raised it.
func (d *Detector) learn(e Evidence) (raised []string) {
	if !e.Kind.connected() {
		return nil
	}
	for _, s := range e.Stores {
		if s.UUID == "" || s.Epoch <= d.highest[s.UUID] {
			continue
		}
		if _, known := d.highest[s.UUID]; !known && len(d.highest) >= maxStores {
			continue
		}
		d.highest[s.UUID] = s.Epoch
		raised = append(raised, s.UUID)
	}
	return raised
}

// shelve puts what e says of stores into the verdict, and reports whether that is anything new.
func (d *Detector) shelve(s *subject, e Evidence) bool {
	if e.At.IsZero() {
		e.At = s.seen
	}
	s.stores.apply(e)
	return d.restock(s)
}

func (d *Detector) restock(s *subject) bool {
	s.stores.mark(d.highest)
	before := s.verdict.Stores
	s.verdict.Stores = s.stores.show(before)
	return !slices.Equal(before, s.verdict.Stores)
}

// demote takes the stores that e raised from everybody who has them at a lower epoch, and Active from who is left with none.
func (d *Detector) demote(raised []string, e Evidence, out *Outcome) {
	for _, t := range d.all() {
		s := d.targets[t]
		has := func(p place) bool { return p.Live() && slices.Contains(raised, p.UUID) }
		if !slices.ContainsFunc(s.stores.places, has) || !d.restock(s) {
			continue
		}
		d.unseat(s, e)
		out.Changed = append(out.Changed, s.verdict)
		out.Probe = append(out.Probe, t)
	}
}

// unseat takes Active from a target that has nothing but stores whose epoch is over.
func (d *Detector) unseat(s *subject, e Evidence) {
	if s.verdict.State == Active && serves(s.verdict.Stores) && !live(s.verdict.Stores) {
		s.owned, s.goods = false, 0
		s.enter(Standby, ReasonStaleEpoch, e, false)
	}
}

func (d *Detector) all() []Target {
	ts := make([]Target, 0, len(d.targets))
	for t := range d.targets {
		ts = append(ts, t)
	}
	slices.Sort(ts)
	return ts
}

// see weighs what was observed directly; news says that it told something of the target's stores.
func (d *Detector) see(s *subject, e Evidence, news bool, out *Outcome) {
	switch e.Kind {
	case ConnLive, ProbeActive:
		if e.Kind == ProbeActive && len(e.Stores) > 0 && !serves(e.Stores) {
			s.standBy(e, news) // it lets anybody in, and has no store to serve
			return
		}
		d.good(s, e, news)
	case ProbeStandby:
		s.standBy(e, news)
	case NotServed:
		out.Probe = append(out.Probe, e.Target)
		if !live(s.verdict.Stores) {
			s.standBy(e, news)
			return
		}
		s.fails = 0
		s.enter(s.verdict.State, s.verdict.Reason, e, news)
	case DialFailed, TLSFailed:
		d.down(s, e)
	case ConnLost:
		s.goods, s.goodSince = 0, time.Time{}
		s.fails = max(s.fails, 1)
		if v := s.verdict; v.State == Active || v.State == Unknown || v.Reason == ReasonGossip {
			s.enter(Suspect, "", e, news)
		}
		out.Probe = append(out.Probe, e.Target)
	case HandshakeFailed, ProbeFailed:
		if e.Kind == HandshakeFailed && s.verdict.State == Active && others(s.verdict.Stores, e.Stores) {
			// It may be that store's disk that hangs, or its loading that takes long: the probe, which waits for no store, decides.
			out.Probe = append(out.Probe, e.Target)
			return
		}
		s.goods, s.goodSince = 0, time.Time{}
		s.fails++
		switch {
		case s.fails >= d.limits.Fall:
			d.down(s, e)
		case s.verdict.State != Down:
			s.enter(Suspect, "", e, news)
			out.Probe = append(out.Probe, e.Target)
		}
	}
}

// standBy notes that a target is well and serves nothing.
func (s *subject) standBy(e Evidence, news bool) {
	s.fails, s.goods, s.rising, s.owned, s.goodSince = 0, 0, false, false, time.Time{}
	s.enter(Standby, "", e, news)
}

// good weighs an answer of an active broker.
func (d *Detector) good(s *subject, e Evidence, news bool) {
	s.fails = 0
	if serves(s.verdict.Stores) && !live(s.verdict.Stores) {
		s.goods, s.owned = 0, false
		s.enter(Standby, ReasonStaleEpoch, e, news)
		return
	}
	s.goods++
	if s.stores.won() {
		// A new ownership of a store is a fresh fact, not the old one coming back.
		s.downs = s.downs[:0]
	}
	state, reason := Active, ""
	switch {
	case d.guarded(s, e.At):
		if s.goodSince.IsZero() {
			s.goodSince = e.At
		}
		if e.At.Sub(s.goodSince) < d.limits.FlapHold {
			state, reason = Suspect, ReasonFlapping
		}
	case s.rising && e.Kind == ProbeActive && s.goods < d.limits.Rise:
		state, reason = Suspect, ReasonRising
	}
	s.enter(state, reason, e, news)
	s.verdict.Draining = s.verdict.Draining || e.Draining
	if state == Active {
		s.rising, s.owned, s.goodSince = false, true, time.Time{}
		s.stores.own()
	}
}

// guarded reports whether s was lost so often lately that one good answer does not count.
func (d *Detector) guarded(s *subject, at time.Time) bool {
	if s.owned || d.limits.FlapLimit < 0 || len(s.downs) < d.limits.FlapLimit {
		return false
	}
	return at.Sub(s.downs[0]) < d.limits.FlapWindow
}

func (d *Detector) down(s *subject, e Evidence) {
	s.fails, s.goods, s.goodSince = max(s.fails, d.limits.Fall), 0, time.Time{}
	if s.owned && d.limits.FlapLimit > 0 {
		if len(s.downs) == d.limits.FlapLimit {
			s.downs = slices.Delete(s.downs, 0, 1)
		}
		s.downs = append(s.downs, e.At)
	}
	s.owned, s.rising = false, true
	s.stores.clear(e.At)
	d.restock(s)
	if s.verdict.State != Down {
		s.enter(Down, "", e, false)
		s.verdict.Draining = false // whoever comes back here is another process
	}
}

// hear weighs gossip. It can cast doubt on what was seen and ask for a probe; it decides nothing, and its epoch binds nobody.
func (d *Detector) hear(s *subject, e Evidence, out *Outcome) {
	if !e.At.IsZero() {
		if e.At.Before(s.heard) {
			return
		}
		s.heard = e.At
	}
	if e.Kind != GossipLeft {
		// The one thing only gossip can tell: the broker's own wish, which it may follow by leaving but not by lying.
		s.verdict.Draining = e.Draining
	}
	if !e.At.IsZero() && e.At.Before(s.seen) {
		return
	}
	switch state := s.verdict.State; {
	case e.Kind == GossipActive:
		if state != Active || slices.ContainsFunc(e.Stores, func(told Served) bool { known, _ := s.verdict.Find(told.UUID); return told.Epoch > known.Epoch }) {
			out.Probe = append(out.Probe, e.Target)
		}
		for _, told := range e.Stores {
			if told.UUID != "" && told.Epoch > d.highest[told.UUID] {
				out.Probe = append(out.Probe, d.owners(told.UUID, e.Target)...)
			}
		}
	case state == Active:
		s.enter(Suspect, ReasonGossip, e, false)
		out.Probe = append(out.Probe, e.Target)
	case state == Unknown, state == Suspect, state == Standby && e.Kind == GossipLeft:
		out.Probe = append(out.Probe, e.Target)
	}
}

// owners are the targets other than but that count as owners of a store.
func (d *Detector) owners(store string, but Target) []Target {
	return slices.DeleteFunc(d.all(), func(t Target) bool {
		s := d.targets[t]
		i, known := s.stores.search(store)
		return t == but || !s.owned || !known || s.stores.places[i].Epoch == 0
	})
}

// enter sets the state and what it rests on. What the verdict rests on stays the first observation of a state, so that Because and
// Since belong together, unless the reason is new, or what the target serves.
func (s *subject) enter(state State, reason string, e Evidence, news bool) {
	v := &s.verdict
	if news || v.State != state || v.Reason != reason {
		v.Because = e
	}
	if v.State != state {
		v.Since = e.At
	}
	v.State, v.Reason = state, reason
}
