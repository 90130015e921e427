package fencemodel

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"
)

var full = flag.Bool("full", false, "explore larger scopes, for some minutes")

// scopes are what is enumerated. Each is about some of the rules, and holds what these need; all of them at once would be more states than there is time for.
var scopes = []struct {
	name string
	full bool // only with -full
	scope
}{
	{"two race to claim", false, scope{servers: 2, epochs: 3, files: 3, records: 2, messages: 1, batch: 1, crashes: 1, race: true}},
	{"three race to claim", false, scope{servers: 3, epochs: 3, files: 3, records: 2, messages: 1, batch: 1, race: true}},
	{"hand-overs and deaths", false, scope{servers: 2, epochs: 3, files: 3, records: 3, messages: 1, batch: 2, crashes: 1, release: true}},
	{"a power cut", false, scope{servers: 2, epochs: 3, files: 3, records: 2, messages: 1, batch: 1, crashes: 1, cuts: 1}},
	{"machines of their own", false, scope{apart: true, servers: 2, epochs: 3, files: 3, records: 3, messages: 1, batch: 2, crashes: 1}},
	{"deletion", false, scope{settled: true, servers: 2, epochs: 2, files: 4, records: 4, messages: 2, batch: 2, rolls: 1, consume: true}},
	{"deletion, and a successor's successor", false, scope{settled: true, servers: 2, epochs: 3, files: 4, records: 3, messages: 1, batch: 2, rolls: 1, consume: true}},
	{"a warm copy", false, scope{settled: true, servers: 3, epochs: 3, files: 3, records: 2, messages: 1, batch: 1, follow: true}},
	{"a warm copy and deletion", false, scope{settled: true, servers: 2, epochs: 2, files: 4, records: 4, messages: 1, batch: 2, rolls: 1, consume: true, follow: true}},

	{"deaths, and batches of two messages", true, scope{servers: 2, epochs: 3, files: 3, records: 3, messages: 2, batch: 2, crashes: 2, release: true}},
	{"two race, with batches of two messages", true, scope{servers: 2, epochs: 3, files: 3, records: 3, messages: 2, batch: 2, crashes: 1, race: true}},
	{"deletion in large batches", true, scope{settled: true, servers: 2, epochs: 2, files: 4, records: 4, messages: 2, batch: 3, rolls: 1, consume: true}},
	{"three race to claim, and die", true, scope{servers: 3, epochs: 3, files: 3, records: 2, messages: 1, batch: 1, crashes: 1, race: true}},
	{"four epochs", true, scope{servers: 2, epochs: 4, files: 4, records: 3, messages: 1, batch: 2, crashes: 2, release: true}},
	{"a power cut in batches", true, scope{servers: 2, epochs: 3, files: 4, records: 3, messages: 2, batch: 2, crashes: 1, cuts: 1}},
	{"deletion, among three", true, scope{settled: true, servers: 3, epochs: 3, files: 4, records: 3, messages: 1, batch: 2, rolls: 1, consume: true}},
	{"deletion on machines of their own", true, scope{apart: true, settled: true, servers: 2, epochs: 3, files: 4, records: 3, messages: 1, batch: 2, crashes: 1, rolls: 1, consume: true}},
	{"warm copies of machines of their own", true, scope{apart: true, settled: true, servers: 3, epochs: 3, files: 3, records: 2, messages: 1, batch: 1, crashes: 1, follow: true}},
	{"deletion and a power cut", true, scope{settled: true, servers: 2, epochs: 3, files: 4, records: 4, messages: 1, batch: 3, cuts: 1, rolls: 1, consume: true}},
	{"warm copies of two messages", true, scope{settled: true, servers: 3, epochs: 3, files: 3, records: 3, messages: 2, batch: 2, follow: true}},
	{"a warm copy over a successor", true, scope{settled: true, servers: 2, epochs: 3, files: 4, records: 3, messages: 1, batch: 2, rolls: 1, consume: true, follow: true}},
}

func TestFencingRulesHold(t *testing.T) {
	states, bad, began := 0, 0, time.Now()
	for _, c := range scopes {
		if c.full && !*full {
			continue
		}
		c.rules = proper()
		start := time.Now()
		r := explore(&c.scope, few)
		states += r.states
		t.Logf("%-40s %v, in %v", c.name, r, time.Since(start).Round(10*time.Millisecond))
		if r.broken != "" || !r.whole && few == 0 {
			bad++
			t.Errorf("%s: %s, after\n%s", c.name, r.broken, r.story())
		}
	}
	t.Logf("%d states, %d bad, in %v", states, bad, time.Since(began).Round(10*time.Millisecond))
}

// moved has one operation come right before another one.
func moved(list []op, what, before op) []op {
	list = slices.DeleteFunc(slices.Clone(list), func(o op) bool { return o == what })
	return slices.Insert(list, slices.Index(list, before), what)
}

func without(list []op, what op) []op {
	return slices.DeleteFunc(slices.Clone(list), func(o op) bool { return o == what })
}

// Each rule is needed: with it broken the same model finds what goes wrong.
func TestEveryFencingRuleIsNeeded(t *testing.T) {
	for _, c := range []struct {
		name  string
		scope string
		wrong func(*rules)
		want  string
	}{
		{"the check comes before the sync", "machines of their own", func(r *rules) { r.commit = moved(r.commit, opCheck, opSync) }, "lost"},
		{"the check comes before the write", "hand-overs and deaths", func(r *rules) { r.commit = moved(r.commit, opCheck, opWrite) }, "lost"},
		{"nobody checks", "hand-overs and deaths", func(r *rules) { r.commit, r.unjudged = without(r.commit, opCheck), true }, "lower epoch deletes"},
		{"receipts go out before the check", "hand-overs and deaths", func(r *rules) { r.commit = moved(r.commit, opAnswer, opCheck) }, "lost"},
		{"receipts go out before the sync", "a power cut", func(r *rules) { r.commit = moved(r.commit, opAnswer, opSync) }, "lost"},
		{"nobody syncs", "a power cut", func(r *rules) { r.commit, r.unjudged = without(r.commit, opSync), true }, "lost"},
		{"the store is read before the claim", "hand-overs and deaths", func(r *rules) {
			r.taking = moved(moved(moved(r.taking, opNames, opLookUp), opEnd, opLookUp), opReplay, opLookUp)
			r.unjudged = true
		}, "lost"},
		{"the segments are read for the end before the claim", "hand-overs and deaths", func(r *rules) {
			r.taking, r.unjudged = moved(moved(r.taking, opNames, opLookUp), opEnd, opLookUp), true
		}, "lost"},
		{"segments are listed before the claim", "deletion, and a successor's successor", func(r *rules) { r.taking, r.unjudged = moved(r.taking, opNames, opLookUp), true }, "came back"},
		{"an epoch file that exists is taken for one's own", "two race to claim", func(r *rules) { r.plainCreate = true }, "two servers hold one epoch"},
		{"epoch files are collected", "four epochs", func(r *rules) { r.collect = true }, "lower epoch deletes"},
		{"what was read is not synced", "a power cut", func(r *rules) { r.noSecure = true }, "damage"},
		{"the mark is put before the sync", "a power cut", func(r *rules) { r.commit = moved(r.commit, opMark, opSync) }, "a mark says"},
		{"the mark is put before the check", "a warm copy", func(r *rules) { r.commit, r.unjudged = moved(r.commit, opMark, opCheck), true }, "phantom"},
		{"a follower applies what no mark proves", "a warm copy", func(r *rules) { r.eager = true }, "phantom"},
		{"a new owner trusts its copy", "a warm copy", func(r *rules) { r.trusting = true }, "lost"},
		{"a segment is read beyond where the list ends it", "hand-overs and deaths", func(r *rules) { r.beyond = true }, "disagree"},
		{"the end of the log is the highest number", "deletion, and a successor's successor", func(r *rules) { r.byNumber = true }, "came back"},
		{"segments are unlinked when that is appended", "deletion", func(r *rules) { r.hasty = true }, "damage"},
		{"segments are unlinked before the check", "deletion", func(r *rules) { r.unchecked = true }, "damage"},
		{"files go before the first segment is begun", "deletion, and a successor's successor", func(r *rules) { r.sweepFirst = true }, "lower epoch deletes"},
		{"a segment goes while it ends what stays", "deletion", func(r *rules) { r.careless = true }, "came back"},
	} {
		i := slices.IndexFunc(scopes, func(s struct {
			name string
			full bool
			scope
		}) bool {
			return s.name == c.scope
		})
		sc := scopes[i].scope
		sc.rules = proper()
		c.wrong(&sc.rules)
		start := time.Now()
		r := explore(&sc, 0)
		t.Logf("%-52s after %d steps: %s (%d states, %v)", c.name, len(r.trace), r.broken, r.states, time.Since(start))
		if !strings.Contains(r.broken, c.want) || r.broken == "" {
			t.Errorf("%s: found %q, want %q\n%s", c.name, r.broken, c.want, r.story())
		}
	}
}
