package gossip

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/health"
	"pgregory.net/rapid"
)

// anyAnnouncement draws from few names, incarnations and sequences, so that they collide, two nodes of one name included.
func anyAnnouncement() *rapid.Generator[Announcement] {
	store := rapid.Custom(func(t *rapid.T) Store {
		return Store{rapid.String().Draw(t, "uuid"), rapid.String().Draw(t, "name"), rapid.Uint64().Draw(t, "epoch"), Role(rapid.Byte().Draw(t, "role"))}
	})
	return rapid.Custom(func(t *rapid.T) Announcement {
		a := Announcement{
			Node:        rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "node"),
			Member:      rapid.SampledFrom([]string{"m1", "m2"}).Draw(t, "member"),
			Kind:        Kind(rapid.Byte().Draw(t, "kind")),
			Protocol:    rapid.Uint64Range(0, 3).Draw(t, "protocol"),
			Draining:    rapid.Bool().Draw(t, "draining"),
			Leaving:     rapid.Bool().Draw(t, "leaving"),
			Incarnation: rapid.Uint64Range(0, 3).Draw(t, "incarnation"),
			Sequence:    rapid.Uint64Range(0, 3).Draw(t, "sequence"),
		}
		if n := rapid.IntRange(0, 3).Draw(t, "n"); n > 0 {
			a.Endpoints = rapid.SliceOfN(rapid.StringN(0, 20, 60), n, n).Draw(t, "endpoints")
			a.Stores = rapid.SliceOfN(store, n, n).Draw(t, "stores")
		}
		return a
	})
}

func records(t *rapid.T, name string) []record {
	var rs []record
	for _, a := range rapid.SliceOfN(anyAnnouncement(), 0, 8).Draw(t, name) {
		if a.validate() == nil {
			rs = append(rs, newRecord(a))
		}
	}
	return rs
}

func same(a, b ledger) bool {
	return maps.EqualFunc(a, b, func(x, y record) bool { return bytes.Equal(x.raw, y.raw) })
}

func TestMergeIsASemilattice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := records(t, "a"), records(t, "b"), records(t, "c")
		one, _ := ledger(nil).merge(a)
		before := maps.Clone(one)
		ab, learnt := one.merge(b)
		if !same(one, before) {
			t.Fatal("merge changed what it was given")
		}
		if changed := !same(ab, one); changed != (len(learnt) > 0) {
			t.Fatalf("changed %v, and says it learnt %v", changed, learnt)
		}
		two, _ := ledger(nil).merge(b)
		ba, _ := two.merge(a)
		if !same(ab, ba) {
			t.Fatalf("not commutative: %v and %v", ab, ba)
		}
		if again, learnt := ab.merge(slices.Concat(b, a, b)); len(learnt) != 0 || !same(again, ab) {
			t.Fatalf("not idempotent: learnt %v", learnt)
		}
		left, _ := ab.merge(c)
		bc, _ := two.merge(c)
		right, _ := one.merge(slices.Collect(maps.Values(bc)))
		if !same(left, right) {
			t.Fatalf("not associative: %v and %v", left, right)
		}
		for node, r := range left {
			for _, other := range slices.Concat(a, b, c) {
				if other.Node == node && other.compare(r) > 0 {
					t.Fatalf("%+v won over %+v", r, other)
				}
			}
		}
	})
}

func TestWireRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs := records(t, "records")
		b := encodeState(rs)
		m, err := decode(b)
		clear(b) // decode must have copied what it keeps
		if err != nil || len(m.records) != len(rs) {
			t.Fatalf("state of %d records: %d, %v", len(rs), len(m.records), err)
		}
		for i, r := range rs {
			if !reflect.DeepEqual(r, m.records[i]) {
				t.Fatalf("sent %+v, got %+v", r, m.records[i])
			}
			one, err := decode(encodeAnnouncement(r))
			if err != nil || !reflect.DeepEqual(one.records, []record{r}) {
				t.Fatalf("sent %+v, got %+v, %v", r, one.records, err)
			}
		}
	})
	s := Suspicion{Target: "10.0.0.1:61613", By: "a", At: time.UnixMilli(1234567)}
	m, err := decode(encodeSuspicion(s, 42))
	if err != nil || m.suspicion != s || m.sequence != 42 {
		t.Errorf("sent %+v, got %+v, %v", s, m, err)
	}
}

// What a later version appends is not read, and not lost when the record is passed on.
func TestLaterVersionPassesThrough(t *testing.T) {
	r := newRecord(Announcement{Node: "a", Member: "m", Sequence: 1})
	r.raw = append(r.raw, "something new"...)
	m, err := decode(encodeAnnouncement(r))
	if err != nil {
		t.Fatal(err)
	}
	m, err = decode(encodeState(m.records))
	if err != nil || !reflect.DeepEqual(m.records, []record{r}) {
		t.Errorf("got %+v, %v", m.records, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := Announcement{Node: "a", Member: "m", Endpoints: []string{"h:1"}, Stores: []Store{{UUID: "u"}}}
	encoded := func(change func(*Announcement)) []byte {
		a := good
		change(&a)
		return encodeAnnouncement(newRecord(a))
	}
	if _, err := decode(encoded(func(*Announcement) {})); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":            {},
		"another magic":      {'x', wireVersion, typeState, 0},
		"another version":    {'u', wireVersion + 1, typeState, 0},
		"unknown type":       {'u', wireVersion, 9},
		"no node":            encoded(func(a *Announcement) { a.Node = "" }),
		"no member":          encoded(func(a *Announcement) { a.Member = "" }),
		"long name":          encoded(func(a *Announcement) { a.Node = string(make([]byte, maxString+1)) }),
		"not UTF-8":          encoded(func(a *Announcement) { a.Stores[0].Name = "\xff" }),
		"many endpoints":     encoded(func(a *Announcement) { a.Endpoints = make([]string, maxEndpoints+1) }),
		"many stores":        encoded(func(a *Announcement) { a.Stores = make([]Store, maxStores+1) }),
		"the last life":      encoded(func(a *Announcement) { a.Incarnation = maxIncarnation }),
		"many records":       {'u', wireVersion, typeState, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"endless number":     append([]byte{'u', wireVersion, typeState}, slices.Repeat([]byte{0xff}, 11)...),
		"suspicion of none":  encodeSuspicion(Suspicion{By: "a"}, 1),
		"suspicion by noone": encodeSuspicion(Suspicion{Target: "t"}, 1),
		"half a suspicion":   encodeSuspicion(Suspicion{Target: "t", By: "a"}, 1)[:6],
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := decode(b); err == nil {
				t.Errorf("accepted as %+v", m)
			}
		})
	}
	good.Stores[0].Name = ""
	whole := encodeAnnouncement(newRecord(good))
	for n := range len(whole) {
		if _, err := decode(whole[:n]); err == nil {
			t.Errorf("the first %d of %d octets are accepted", n, len(whole))
		}
	}
}

func FuzzDecode(f *testing.F) {
	r := newRecord(Announcement{Node: "a", Member: "m", Kind: Broker, Endpoints: []string{"h:1"}, Stores: []Store{{UUID: "u", Name: "n", Epoch: 300, Role: Active}}})
	f.Add(encodeAnnouncement(r))
	f.Add(encodeState([]record{r, r}))
	f.Add(encodeSuspicion(Suspicion{Target: "h:1", By: "a", At: time.UnixMilli(1)}, 1))
	f.Add([]byte{'u', wireVersion, typeState, 0xff, 0xff, 0x03})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			return
		}
		if len(m.records) > maxNodes {
			t.Fatalf("%d records", len(m.records))
		}
		for _, r := range m.records {
			if err := r.validate(); err != nil {
				t.Fatalf("decoded what may not be announced: %v", err)
			}
			// What was accepted is accepted when passed on, and is the same.
			again, err := decode(encodeState([]record{r}))
			if err != nil || len(again.records) != 1 || !reflect.DeepEqual(again.records[0], r) {
				t.Fatalf("passed on, %+v is %+v, %v", r, again.records, err)
			}
		}
	})
}

func TestHintsAreBounded(t *testing.T) {
	h, now := newHints(), time.Unix(1000, 0)
	s := Suspicion{Target: "t", By: "a"}
	if !h.accept(s, 5, now) || h.accept(s, 5, now.Add(time.Hour)) || h.accept(s, 4, now.Add(time.Hour)) {
		t.Error("a suspicion is not passed on once")
	}
	other := Suspicion{Target: "t", By: "b"}
	if h.accept(other, 1, now.Add(hintGap-1)) {
		t.Error("two hints on one target at once")
	}
	if !h.accept(other, 2, now.Add(hintGap)) || !h.accept(Suspicion{Target: "u", By: "b"}, 1, now.Add(hintGap)) {
		t.Error("news is withheld")
	}
	for i := range 10 * maxHints {
		h.accept(Suspicion{Target: health.Target(rune(i)), By: "c"}, 1, now)
	}
	if len(h.last) > maxHints || len(h.at) > maxHints {
		t.Errorf("%d sources, %d targets remembered", len(h.last), len(h.at))
	}
}

func TestPeerEvidence(t *testing.T) {
	heard := time.Unix(1000, 0)
	broker := Announcement{Node: "n", Kind: Broker, Endpoints: []string{"h:1", "i:2"}, Draining: true,
		Stores: []Store{{UUID: "a", Epoch: 3}, {UUID: "b", Name: "orders", Epoch: 4, Role: Active}, {UUID: "c", Epoch: 5, Role: Active}}}
	for name, tc := range map[string]struct {
		presence Presence
		role     Role
		want     health.Kind
	}{
		"active":  {Alive, Active, health.GossipActive},
		"standby": {Alive, Standby, health.GossipStandby},
		"lost":    {Lost, Active, health.GossipLeft},
		"left":    {Left, Standby, health.GossipLeft},
	} {
		t.Run(name, func(t *testing.T) {
			var active []health.Served
			if broker.Stores[1].Role, broker.Stores[2].Role = tc.role, tc.role; tc.role == Active {
				active = []health.Served{{UUID: "b", Name: "orders", Epoch: 4}, {UUID: "c", Epoch: 5}}
			}
			got := Peer{broker, tc.presence, heard}.Evidence()
			if len(got) != 2 || got[0].Target != "h:1" || got[1].Target != "i:2" {
				t.Fatalf("evidence is %+v", got)
			}
			if e := got[1]; e.Kind != tc.want || !e.Draining || !e.At.Equal(heard) || !slices.Equal(e.Stores, active) {
				t.Errorf("evidence is %+v", e)
			}
		})
	}
	if e := (Peer{Announcement: Announcement{Kind: Sidecar, Endpoints: []string{"h:1"}}}).Evidence(); e != nil {
		t.Errorf("a sidecar's evidence is %+v", e)
	}
}
