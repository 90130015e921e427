package health

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// pair is a detector with the targets a and b, where a serves the stores s at 3 and u at 5, and knows v.
func pair(t *testing.T) *Detector {
	t.Helper()
	d := NewDetector(Thresholds{})
	d.Add("a", epoch0)
	d.Add("b", epoch0)
	v := d.Observe(Evidence{Target: "a", Kind: ProbeActive, At: at(1), Stores: []Served{{UUID: "u", Name: "orders", Epoch: 5}, {UUID: "s", Epoch: 3}, {UUID: "v", Name: "spare"}}}).Verdict
	if v.State != Active || !slices.Equal(v.Stores, []Served{{UUID: "s", Epoch: 3}, {UUID: "u", Name: "orders", Epoch: 5}, {UUID: "v", Name: "spare"}}) {
		t.Fatalf("a is %+v", v)
	}
	return d
}

func stores(t *testing.T, d *Detector, target Target) (State, string) {
	t.Helper()
	v, ok := d.Verdict(target)
	if !ok {
		t.Fatalf("no verdict on %s", target)
	}
	text := ""
	for _, s := range v.Stores {
		text += fmt.Sprint(s.UUID, s.Epoch)
		if s.Stale {
			text += "!"
		}
		text += " "
	}
	return v.State, text
}

func TestSeveralStores(t *testing.T) {
	all, b := []Target{"a", "b"}, []Target{"b"}
	for name, tc := range map[string]struct {
		seen  Evidence
		state State // of a
		has   string
		probe []Target
	}{
		"a session tells of its store and of no other":        {Evidence{Target: "a", Kind: ConnLive, Stores: at1("s", 4)}, Active, "s4 u5 v0 ", nil},
		"one that was stood for is taken over":                {Evidence{Target: "a", Kind: ConnLive, Stores: at1("v", 9)}, Active, "s3 u5 v9 ", nil},
		"one that nobody knew of":                             {Evidence{Target: "a", Kind: ConnLive, Stores: at1("w", 1)}, Active, "s3 u5 v0 w1 ", nil},
		"one is handed over, the other stays":                 {Evidence{Target: "a", Kind: NotServed, Stores: at1("u", 0)}, Active, "s3 u0 v0 ", all},
		"one is handed over, by name":                         {Evidence{Target: "a", Kind: NotServed, Stores: []Served{{Name: "orders"}}}, Active, "s3 u0 v0 ", all},
		"what it never served is not served":                  {Evidence{Target: "a", Kind: NotServed, Stores: at1("v", 0)}, Active, "s3 u5 v0 ", []Target{"a"}},
		"nothing is served":                                   {Evidence{Target: "a", Kind: NotServed}, Standby, "s0 u0 v0 ", all},
		"a probe tells of all":                                {Evidence{Target: "a", Kind: ProbeActive, Stores: at1("u", 5)}, Active, "u5 ", all},
		"a standby that tells of all":                         {Evidence{Target: "a", Kind: ProbeStandby, Stores: []Served{{UUID: "u"}, {UUID: "w"}}}, Standby, "u0 w0 ", all},
		"it lets in, and serves none":                         {Evidence{Target: "a", Kind: ProbeActive, Stores: at1("u", 0)}, Standby, "u0 ", all},
		"a higher epoch elsewhere takes the store":            {Evidence{Target: "b", Kind: ConnLive, Stores: at1("u", 6)}, Active, "s3 u5! v0 ", []Target{"a"}},
		"and every store that a probe finds":                  {Evidence{Target: "b", Kind: ProbeActive, Stores: []Served{{UUID: "u", Epoch: 6}, {UUID: "s", Epoch: 4}}}, Standby, "s3! u5! v0 ", []Target{"a"}},
		"a stale owner's login takes its store only":          {Evidence{Target: "a", Kind: ConnLive, Stores: at1("u", 4)}, Active, "s3 u4! v0 ", all},
		"what is down serves nothing":                         {Evidence{Target: "a", Kind: DialFailed}, Down, "s0 u0 v0 ", all},
		"a store that does not let in in time is looked into": {Evidence{Target: "a", Kind: HandshakeFailed, Stores: at1("u", 0)}, Active, "s3 u5 v0 ", []Target{"a"}},
		"nobody is let in":                                    {Evidence{Target: "a", Kind: HandshakeFailed}, Suspect, "s3 u5 v0 ", all},
		"what is suspect may":                                 {Evidence{Target: "a", Kind: ConnLost}, Suspect, "s3 u5 v0 ", all},
		"gossip of a higher epoch has both looked at":         {Evidence{Target: "b", Kind: GossipActive, Stores: []Served{{UUID: "u", Epoch: 9}}}, Active, "s3 u5 v0 ", []Target{"b", "a"}},
		"gossip of another store leaves a alone":              {Evidence{Target: "b", Kind: GossipActive, Stores: []Served{{UUID: "v", Epoch: 9}}}, Active, "s3 u5 v0 ", b},
		"gossip of a take-over by an active":                  {Evidence{Target: "a", Kind: GossipActive, Stores: []Served{{UUID: "s", Epoch: 3}, {UUID: "v", Epoch: 2}}}, Active, "s3 u5 v0 ", []Target{"a"}},
		"gossip of what is known":                             {Evidence{Target: "a", Kind: GossipActive, Stores: []Served{{UUID: "s", Epoch: 3}}}, Active, "s3 u5 v0 ", nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := pair(t)
			tc.seen.At = at(2)
			out := d.Observe(tc.seen)
			if state, has := stores(t, d, "a"); state != tc.state || has != tc.has || !slices.Equal(out.Probe, tc.probe) {
				t.Errorf("a is %v with %q, probe %v; want %v with %q, probe %v", state, has, out.Probe, tc.state, tc.has, tc.probe)
			}
		})
	}
}

// A probe that began before a session logged in still tells of the stores that the session knows nothing of.
func TestALateProbeTellsOfOtherStores(t *testing.T) {
	d := pair(t)
	d.Observe(Evidence{Target: "a", Kind: ConnLive, At: at(10), Stores: at1("s", 4)})
	out := d.Observe(Evidence{Target: "a", Kind: ProbeActive, At: at(9), Stores: []Served{{UUID: "s", Epoch: 3}, {UUID: "u"}}})
	if state, has := stores(t, d, "a"); state != Active || has != "s4 u0 " {
		t.Errorf("a is %v with %q", state, has)
	}
	if len(out.Changed) != 1 || !slices.Equal(out.Probe, []Target{"a"}) {
		t.Errorf("outcome is %+v", out)
	}
}

func TestFindPrefersUUIDAndTheOneThatIsServed(t *testing.T) {
	v := Verdict{Stores: []Served{{UUID: "1", Name: "a"}, {UUID: "2", Name: "a", Epoch: 7}, {UUID: "3", Name: "a"}, {UUID: "a", Name: "x"}}}
	for want, uuid := range map[string]string{"1": "1", "x": "a", "a": "a", "nobody": "", "": ""} {
		if s, ok := v.Find(want); s.UUID != uuid || ok != (uuid != "") {
			t.Errorf("%q finds %+v %v", want, s, ok)
		}
	}
	v.Stores = v.Stores[:3]
	if s, _ := v.Find("a"); s.UUID != "2" {
		t.Errorf("the name finds %+v", s)
	}
}

// What a session tells of its store changes no other store, at its target or elsewhere, and unseats no target that has another.
func TestASessionSpeaksOfItsStoreOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := anyDetector(t)
		for _, e := range rapid.SliceOfN(anyEvidence(), 0, 20).Draw(t, "what was seen") {
			d.Observe(e)
		}
		e := anyEvidence(ConnLive, NotServed).Draw(t, "session")
		e.At = at(time.Minute)
		e.Stores = []Served{{UUID: rapid.SampledFrom([]string{"s", "u", "v"}).Draw(t, "store"), Epoch: rapid.Uint64Range(1, 7).Draw(t, "at epoch")}}
		before := d.Verdicts()
		d.Observe(e)
		for target, v := range d.Verdicts() {
			others := func(v Verdict) []Served {
				return slices.DeleteFunc(slices.Clone(v.Stores), func(s Served) bool { return s.UUID == e.Stores[0].UUID })
			}
			if !slices.Equal(others(v), others(before[target])) {
				t.Fatalf("%v of %s at %s made %+v of %+v at %s", e.Kind, e.Stores[0].UUID, e.Target, v.Stores, before[target].Stores, target)
			}
			if before[target].State == Active && v.State != Active && live(others(v)) && !(target == e.Target && v.Reason == ReasonFlapping) {
				t.Fatalf("%v of %s at %s: %s was active, is %v, and serves %+v", e.Kind, e.Stores[0].UUID, e.Target, target, v.State, v.Stores)
			}
		}
	})
}

// Which stores a target serves does not depend on the order in which probes and sessions tell of it, as long as it is not lost.
func TestOrderOfStoresDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seen := rapid.SliceOfN(anyEvidence(ConnLive, ProbeActive, ProbeStandby, NotServed), 1, 10).Draw(t, "evidence")
		for i := range seen {
			seen[i].Target, seen[i].At = "a", at(time.Duration(i))
		}
		var results []string
		for _, order := range [][]Evidence{seen, rapid.Permutation(seen).Draw(t, "order")} {
			d := NewDetector(Thresholds{FlapLimit: -1})
			d.Add("a", epoch0)
			for _, e := range order {
				d.Observe(e)
			}
			v, _ := d.Verdict("a")
			results = append(results, fmt.Sprint(v.Stores))
		}
		if results[0] != results[1] {
			t.Fatalf("in order: %s; permuted: %s", results[0], results[1])
		}
	})
}

func TestStoresOfATargetAreBounded(t *testing.T) {
	d := NewDetector(Thresholds{})
	d.Add("a", epoch0)
	for i := range maxServed + 10 {
		d.Observe(Evidence{Target: "a", Kind: ConnLive, At: at(time.Duration(i)), Stores: at1(fmt.Sprint(i), 1)})
	}
	if v, _ := d.Verdict("a"); len(v.Stores) != maxServed {
		t.Errorf("%d stores remembered", len(v.Stores))
	}
}
