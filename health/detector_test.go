package health

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return epoch0.Add(d) }

func at1(store string, epoch uint64) []Served { return []Served{{UUID: store, Epoch: epoch}} }

// step is one observation, of target a unless to says otherwise, one second after the step before unless after says otherwise.
type step struct {
	to     Target
	kind   Kind
	epoch  uint64
	after  time.Duration
	want   State // of the observed target
	reason string
	probe  []Target
}

func TestDetector(t *testing.T) {
	const ms = time.Millisecond
	a, ab := []Target{"a"}, []Target{"a", "b"}
	for name, tc := range map[string]struct {
		limits Thresholds
		steps  []step
	}{
		"a login raises at once":          {steps: []step{{kind: ConnLive, epoch: 1, want: Active}}},
		"a probe raises at once":          {steps: []step{{kind: ProbeActive, epoch: 1, want: Active}}},
		"a standby is not active":         {steps: []step{{kind: ProbeStandby, want: Standby}}},
		"a demoted broker is standby":     {steps: []step{{kind: ConnLive, epoch: 1, want: Active}, {kind: ProbeStandby, want: Standby, probe: ab}}},
		"no TLS is down at once":          {steps: []step{{kind: ConnLive, epoch: 1, want: Active}, {kind: TLSFailed, want: Down, probe: ab}, {kind: ProbeActive, epoch: 1, want: Active}}},
		"a refused dial is down at once":  {steps: []step{{kind: ConnLive, epoch: 1, want: Active}, {kind: DialFailed, want: Down, probe: ab}}},
		"a dead standby needs two probes": {steps: []step{{kind: ProbeStandby, want: Standby}, {kind: ProbeFailed, want: Suspect, probe: a}, {kind: ProbeFailed, want: Down}}},
		"a lost connection is suspect, a failed probe confirms": {steps: []step{
			{kind: ConnLive, epoch: 1, want: Active}, {kind: ConnLost, want: Suspect, probe: ab}, {kind: ProbeFailed, want: Down}}},
		"however many connections are lost, a probe decides": {steps: []step{
			{kind: ConnLive, epoch: 1, want: Active}, {kind: ConnLost, want: Suspect, probe: ab}, {kind: ConnLost, want: Suspect, probe: a},
			{kind: ConnLost, want: Suspect, probe: a}, {kind: ProbeActive, epoch: 1, want: Active}}},
		"a handshake that is not answered counts like a probe": {steps: []step{
			{kind: ConnLive, epoch: 1, want: Active}, {kind: HandshakeFailed, want: Suspect, probe: ab}, {kind: HandshakeFailed, want: Down}}},
		"a good answer between failures starts the count again": {steps: []step{
			{kind: ProbeActive, epoch: 1, want: Active}, {kind: ProbeFailed, want: Suspect, probe: ab}, {kind: ProbeActive, epoch: 1, want: Active},
			{kind: ProbeFailed, want: Suspect, probe: ab}}},
		"a lost connection of a standby changes nothing": {steps: []step{{kind: ProbeStandby, want: Standby}, {kind: ConnLost, want: Standby, probe: a}}},
		"what is down stays down without an answer":      {steps: []step{{kind: DialFailed, want: Down}, {kind: ProbeFailed, want: Down}, {kind: ConnLost, want: Down, probe: a}}},
		"fall 3": {limits: Thresholds{Fall: 3}, steps: []step{
			{kind: ProbeFailed, want: Suspect, probe: a}, {kind: ProbeFailed, want: Suspect, probe: a}, {kind: ProbeFailed, want: Down}}},
		"rise 2, and a login needs no rise": {limits: Thresholds{Rise: 2}, steps: []step{
			{kind: DialFailed, want: Down}, {kind: ProbeActive, epoch: 1, want: Suspect, reason: ReasonRising}, {kind: ProbeActive, epoch: 1, want: Active},
			{kind: DialFailed, want: Down, probe: ab}, {kind: ConnLive, epoch: 1, want: Active}}},
		"rise 2 begins again after a failure": {limits: Thresholds{Rise: 2, Fall: 3}, steps: []step{
			{kind: DialFailed, want: Down}, {kind: ProbeActive, epoch: 1, want: Suspect, reason: ReasonRising}, {kind: ProbeFailed, want: Suspect, probe: a},
			{kind: ProbeActive, epoch: 1, want: Suspect, reason: ReasonRising}, {kind: ProbeActive, epoch: 1, want: Active}}},
		"old news does not count": {steps: []step{
			{kind: ConnLive, epoch: 2, want: Active}, {kind: ProbeStandby, after: -500 * ms, want: Active}, {kind: DialFailed, after: -ms, want: Active}}},
		"a lower epoch elsewhere is a stale owner": {steps: []step{
			{kind: ConnLive, epoch: 7, want: Active}, {to: "b", kind: ConnLive, epoch: 6, want: Standby, reason: ReasonStaleEpoch},
			{to: "b", kind: ProbeActive, epoch: 8, want: Active, probe: a}, {kind: ProbeActive, epoch: 7, want: Standby, reason: ReasonStaleEpoch},
			{kind: ProbeActive, epoch: 9, want: Active, probe: []Target{"b"}}}},
		"a standby's epoch raises nothing": {steps: []step{
			{to: "b", kind: ProbeStandby, epoch: 9, want: Standby}, {kind: ProbeActive, epoch: 7, want: Active}}},
		"gossip makes suspect, a probe decides": {steps: []step{
			{kind: ConnLive, epoch: 1, want: Active}, {kind: GossipLeft, want: Suspect, reason: ReasonGossip, probe: a}, {kind: GossipLeft, want: Suspect, reason: ReasonGossip, probe: a},
			{kind: ProbeFailed, want: Suspect, probe: a}, {kind: ProbeFailed, want: Down}}},
		"gossip of a standby makes an active suspect": {steps: []step{
			{kind: ConnLive, epoch: 1, want: Active}, {kind: GossipStandby, want: Suspect, reason: ReasonGossip, probe: a}, {kind: ProbeActive, epoch: 1, want: Active}}},
		"gossip older than what was seen says nothing": {steps: []step{{kind: ConnLive, epoch: 1, want: Active}, {kind: GossipLeft, after: -ms, want: Active}}},
		"gossip of an active asks for a probe":         {steps: []step{{kind: DialFailed, want: Down}, {kind: GossipActive, epoch: 4, want: Down, probe: a}}},
		"gossip of what is known is nothing":           {steps: []step{{kind: ConnLive, epoch: 4, want: Active}, {kind: GossipActive, epoch: 4, want: Active}}},
		"a gossiped epoch binds nobody, it makes us look at both": {steps: []step{
			{kind: ConnLive, epoch: 4, want: Active}, {to: "b", kind: GossipActive, epoch: 1 << 60, want: Unknown, probe: []Target{"b", "a"}},
			{kind: ProbeActive, epoch: 4, want: Active}}},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDetector(tc.limits)
			d.Add("a", epoch0)
			d.Add("b", epoch0)
			now := epoch0
			for i, s := range tc.steps {
				if s.to == "" {
					s.to = "a"
				}
				if s.after == 0 {
					s.after = time.Second
				}
				when := now.Add(s.after)
				if s.after > 0 {
					now = when
				}
				e := Evidence{Target: s.to, Kind: s.kind, At: when}
				if s.epoch != 0 {
					e.Stores = at1("store", s.epoch)
				}
				out := d.Observe(e)
				if v := out.Verdict; v.State != s.want || v.Reason != s.reason || !slices.Equal(out.Probe, s.probe) {
					t.Fatalf("step %d, %v of %s: %v %q, probe %v; want %v %q, probe %v", i, s.kind, s.to, v.State, v.Reason, out.Probe, s.want, s.reason, s.probe)
				}
			}
		})
	}
}

// What proves a target stale is named in its verdict, though it was seen elsewhere.
func TestStaleOwnerNamesItsEvidence(t *testing.T) {
	d := NewDetector(Thresholds{})
	d.Add("a", epoch0)
	d.Observe(Evidence{Target: "a", Kind: ConnLive, At: at(1), Stores: at1("s", 7), Detail: "first"})
	out := d.Observe(Evidence{Target: "not added", Kind: ConnLive, At: at(2), Stores: at1("s", 8)})
	if !out.Verdict.Equal(Verdict{}) || len(out.Changed) != 1 || !slices.Equal(out.Probe, []Target{"a"}) {
		t.Fatalf("outcome is %+v", out)
	}
	v, ok := d.Verdict("a")
	if !ok || !v.Equal(out.Changed[0]) || v.State != Standby || v.Reason != ReasonStaleEpoch || !slices.Equal(v.Stores, []Served{{UUID: "s", Epoch: 7, Stale: true}}) || v.Because.Target != "not added" || !v.Since.Equal(at(2)) {
		t.Errorf("verdict is %+v", v)
	}
	d.Forget("a")
	d.Add("a", at(3))
	if out := d.Observe(Evidence{Target: "a", Kind: ConnLive, At: at(4), Stores: at1("s", 7)}); out.Verdict.State != Standby {
		t.Errorf("removed and added, the stale owner is %v", out.Verdict.State)
	}
	// It says itself that it owns nothing now: its epoch is no claim any more, and nothing against it.
	if v := d.Observe(Evidence{Target: "a", Kind: ProbeStandby, At: at(4)}).Verdict; v.Reason != "" || !slices.Equal(v.Stores, at1("s", 0)) {
		t.Errorf("an honest standby is %+v", v)
	}
	// Without an epoch nobody is stale, and other stores have their own.
	if out := d.Observe(Evidence{Target: "a", Kind: ConnLive, At: at(5), Stores: at1("s", 0)}); out.Verdict.State != Active {
		t.Errorf("a broker that tells no epoch is %v", out.Verdict.State)
	}
	if out := d.Observe(Evidence{Target: "a", Kind: ConnLive, At: at(6), Stores: at1("other", 1)}); out.Verdict.State != Active {
		t.Errorf("another store's owner is %v", out.Verdict.State)
	}
}

// flap loses the target a and sees it come back, n times, a second each; it returns the time after it, and the last verdict.
func flap(d *Detector, n int, epoch uint64, now time.Duration) (time.Duration, Verdict) {
	var v Verdict
	for range n {
		now += time.Second
		d.Observe(Evidence{Target: "a", Kind: DialFailed, At: at(now)})
		now += time.Second
		v = d.Observe(Evidence{Target: "a", Kind: ProbeActive, At: at(now), Stores: at1("s", epoch)}).Verdict
	}
	return now, v
}

func good(d *Detector, epoch uint64, now time.Duration) Verdict {
	return d.Observe(Evidence{Target: "a", Kind: ConnLive, At: at(now), Stores: at1("s", epoch)}).Verdict
}

func TestFlapGuard(t *testing.T) {
	setup := func(limits Thresholds) (*Detector, time.Duration, Verdict) {
		d := NewDetector(limits)
		d.Add("a", epoch0)
		good(d, 1, 0)
		now, v := flap(d, 2, 1, 0)
		if v.State != Active {
			t.Fatalf("after 2 flaps: %v", v.State)
		}
		now, v = flap(d, 1, 1, now)
		return d, now, v
	}

	d, now, v := setup(Thresholds{})
	if v.State != Suspect || v.Reason != ReasonFlapping || !slices.Equal(v.Stores, at1("s", 1)) {
		t.Fatalf("after 3 flaps: %+v", v)
	}
	if v := good(d, 1, now+1900*time.Millisecond); v.State != Suspect {
		t.Errorf("good for 1.9 s: %v", v.State)
	}
	if v := good(d, 1, now+2*time.Second); v.State != Active || v.Reason != "" {
		t.Errorf("good for 2 s: %v %q", v.State, v.Reason)
	}
	if v := good(d, 1, now+2100*time.Millisecond); v.State != Active {
		t.Errorf("having proved itself, it has to again: %v", v.State)
	}
	d.Observe(Evidence{Target: "a", Kind: ConnLost, At: at(now + 2200*time.Millisecond)})
	if v := good(d, 1, now+2300*time.Millisecond); v.State != Active {
		t.Errorf("a broken connection counts as a flap: %v", v.State)
	}

	d, now, _ = setup(Thresholds{})
	d.Observe(Evidence{Target: "a", Kind: ConnLost, At: at(now + time.Second)})
	if v := good(d, 1, now+2*time.Second); v.State != Suspect {
		t.Errorf("a failure in the hold does not start it again: %v", v.State)
	}
	if v := good(d, 2, now+2*time.Second+1); v.State != Active {
		t.Errorf("a take-over at a higher epoch is held back: %v", v.State)
	}

	d, now, _ = setup(Thresholds{})
	if v := good(d, 1, now+30*time.Second); v.State != Active {
		t.Errorf("the window is over: %v", v.State)
	}
	if _, _, v := setup(Thresholds{FlapLimit: -1}); v.State != Active {
		t.Errorf("guard switched off: %v", v.State)
	}
}

// Lost connections to a broker that lives are no flaps, and neither is a chain of take-overs.
func TestWhatIsNoFlap(t *testing.T) {
	d := NewDetector(Thresholds{})
	d.Add("a", epoch0)
	for i := range time.Duration(20) {
		good(d, 1, i*time.Second)
		d.Observe(Evidence{Target: "a", Kind: ConnLost, At: at(i*time.Second + 1)})
	}
	if v := good(d, 1, 20*time.Second); v.State != Active {
		t.Errorf("after 20 broken connections: %v", v.State)
	}
	now, v := 20*time.Second, Verdict{}
	for e := uint64(2); e < 10; e++ {
		if now, v = flap(d, 1, e, now); v.State != Active {
			t.Errorf("after take-over %d: %v", e, v.State)
		}
	}
}

func TestDrainingIsHeardFromGossip(t *testing.T) {
	d := NewDetector(Thresholds{})
	d.Add("a", epoch0)
	draining := func(kind Kind, when time.Duration, says bool) bool {
		return d.Observe(Evidence{Target: "a", Kind: kind, At: at(when), Draining: says}).Verdict.Draining
	}
	if draining(ConnLive, 1, false) || !draining(GossipActive, 2, true) || !draining(ProbeActive, 3, false) {
		t.Error("an announced drain is not kept over a probe, which cannot know of it")
	}
	if !draining(GossipActive, 1, false) {
		t.Error("older gossip overrules newer")
	}
	if draining(GossipActive, 4, false) || !draining(GossipActive, 5, true) || draining(DialFailed, 6, false) {
		t.Error("a drain is not ended by its broker's word or end")
	}
}

// anyEvidence draws from few targets, stores, epochs and times, so that they collide.
func anyEvidence(kinds ...Kind) *rapid.Generator[Evidence] {
	if len(kinds) == 0 {
		for k := ConnLost; k <= GossipLeft; k++ {
			kinds = append(kinds, k)
		}
	}
	return rapid.Custom(func(t *rapid.T) Evidence {
		e := Evidence{
			Target:   Target(rapid.SampledFrom([]string{"a", "b", "c", "stranger"}).Draw(t, "target")),
			Kind:     rapid.SampledFrom(kinds).Draw(t, "kind"),
			At:       at(time.Duration(rapid.IntRange(0, 40).Draw(t, "at")) * time.Second),
			Stores:   anyStores(t),
			Draining: rapid.Bool().Draw(t, "draining"),
		}
		if (e.Kind == ConnLive || e.Kind == NotServed) && len(e.Stores) > 1 {
			e.Stores = e.Stores[:1]
		}
		return e
	})
}

func anyStores(t *rapid.T) []Served {
	return rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Served {
		return Served{UUID: rapid.SampledFrom([]string{"s", "u", "v"}).Draw(t, "store"), Epoch: rapid.Uint64Range(0, 5).Draw(t, "epoch")}
	}), 0, 3, func(s Served) string { return s.UUID }).Draw(t, "stores")
}

func anyDetector(t *rapid.T) *Detector {
	d := NewDetector(Thresholds{
		Rise: rapid.IntRange(0, 3).Draw(t, "rise"), Fall: rapid.IntRange(0, 3).Draw(t, "fall"), FlapLimit: rapid.IntRange(-1, 3).Draw(t, "flap limit"),
	})
	for _, target := range []Target{"a", "b", "c"} {
		d.Add(target, epoch0)
	}
	return d
}

// Whatever is observed: no owner of a lower epoch is Active, what changed is said, and every verdict carries evidence.
func TestDetectorInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := anyDetector(t)
		for _, e := range rapid.SliceOfN(anyEvidence(), 1, 60).Draw(t, "evidence") {
			before := d.Verdicts()
			out := d.Observe(e)
			after := d.Verdicts()
			for _, v := range out.Changed {
				if !after[v.Target].Equal(v) || before[v.Target].Equal(v) {
					t.Fatalf("%+v is said to have changed from %+v and is %+v", v, before[v.Target], after[v.Target])
				}
				before[v.Target] = v
			}
			if !maps.EqualFunc(before, after, Verdict.Equal) {
				t.Fatalf("not said to have changed: %+v to %+v", before, after)
			}
			for target, v := range after {
				for _, s := range v.Stores {
					if s.Live() && s.Epoch < d.Highest(s.UUID) {
						t.Fatalf("%s serves %s at epoch %d, and %d was seen", target, s.UUID, s.Epoch, d.Highest(s.UUID))
					}
				}
				if v.State == Active && serves(v.Stores) && !live(v.Stores) {
					t.Fatalf("%s is active with nothing but lost stores: %+v", target, v.Stores)
				}
				if (v.State == Down || v.State == Standby && v.Reason == "") && before[target].State != v.State && live(v.Stores) {
					t.Fatalf("%s is %v and serves %+v", target, v.State, v.Stores)
				}
				if v.State == Suspect && v.Because.Target == "" {
					t.Fatalf("%s has no evidence: %+v", target, v)
				}
				if v.State != Unknown && (v.Because.Target == "" || v.Target != target) {
					t.Fatalf("%s has no evidence: %+v", target, v)
				}
			}
		}
	})
}

// Gossip alone makes nothing Active or Down, moves nothing but to Suspect, and twice is as good as once.
func TestGossipNeverDecides(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := anyDetector(t)
		for _, e := range rapid.SliceOfN(anyEvidence(), 0, 10).Draw(t, "what was seen") {
			d.Observe(e)
		}
		for _, e := range rapid.SliceOfN(anyEvidence(GossipActive, GossipStandby, GossipLeft), 1, 20).Draw(t, "gossip") {
			before := d.Verdicts()
			highest := [...]uint64{d.Highest("s"), d.Highest("u"), d.Highest("v")}
			d.Observe(e)
			for target, v := range d.Verdicts() {
				if old := before[target]; v.State != old.State && v.State != Suspect || !slices.Equal(v.Stores, old.Stores) {
					t.Fatalf("%v made %+v of %+v", e.Kind, v, old)
				}
			}
			if now := [...]uint64{d.Highest("s"), d.Highest("u"), d.Highest("v")}; now != highest {
				t.Fatalf("a gossiped epoch binds: %d, was %d", now, highest)
			}
			if out := d.Observe(e); len(out.Changed) != 0 {
				t.Fatalf("heard twice, %+v changes %+v", e, out.Changed)
			}
		}
	})
}

// The highest epochs do not depend on the order of what was seen, and neither does what the newest definite observation makes of a
// target: what it overtook on the way is out of date.
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seen := rapid.SliceOfN(anyEvidence(ConnLost, ConnLive, DialFailed, HandshakeFailed, ProbeActive, ProbeStandby, ProbeFailed), 1, 12).Draw(t, "evidence")
		for i := range seen {
			seen[i].Target, seen[i].At = "a", at(time.Duration(i))
		}
		last := &seen[len(seen)-1]
		last.Kind = rapid.SampledFrom([]Kind{ConnLive, DialFailed, ProbeStandby}).Draw(t, "last")
		last.Stores = at1("s", 9)
		results := make([]string, 0, 2)
		for _, order := range [][]Evidence{seen, rapid.Permutation(seen).Draw(t, "order")} {
			d := NewDetector(Thresholds{FlapLimit: -1})
			d.Add("a", epoch0)
			for _, e := range order {
				d.Observe(e)
			}
			v, _ := d.Verdict("a")
			results = append(results, fmt.Sprint(v.State, v.Reason, d.Highest("s"), d.Highest("u")))
		}
		if results[0] != results[1] {
			t.Fatalf("in order: %s; permuted: %s", results[0], results[1])
		}
	})
}

func TestStoresAreBounded(t *testing.T) {
	d := NewDetector(Thresholds{})
	for i := range maxStores + 10 {
		d.Observe(Evidence{Target: "a", Kind: ConnLive, Stores: at1(fmt.Sprint(i), 1)})
	}
	d.Observe(Evidence{Target: "a", Kind: ConnLive, Stores: at1("0", 2)})
	if len(d.highest) != maxStores || d.Highest("0") != 2 {
		t.Errorf("%d stores remembered, epoch of a known one is %d", len(d.highest), d.Highest("0"))
	}
}
