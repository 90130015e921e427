package fencemodel

import (
	"strings"
	"testing"
	"time"
)

func TestLockKeepsPeace(t *testing.T) {
	for _, c := range []struct {
		name string
		full bool
		lockScope
	}{
		{"the lock alone", false, lockScope{servers: 3, epochs: 4, freezes: 2, deaths: 1}},
		{"leases", false, lockScope{servers: 3, epochs: 4, freezes: 2, deaths: 0, lease: true}},
		{"leases and a death", false, lockScope{servers: 3, epochs: 4, freezes: 2, deaths: 1, lease: true}},
		{"leases, many stops", true, lockScope{servers: 3, epochs: 5, freezes: 3, deaths: 1, lease: true}},
	} {
		if c.full && !*full {
			continue
		}
		start := time.Now()
		r := explore(&c.lockScope, few)
		t.Logf("%-40s %v, in %v", c.name, r, time.Since(start).Round(10*time.Millisecond))
		if r.broken != "" || !r.whole && few == 0 {
			t.Errorf("%s: %s, after\n%s", c.name, r.broken, r.story())
		}
	}
}

func TestEveryLockRuleIsNeeded(t *testing.T) {
	for _, c := range []struct {
		name  string
		rules lockRules
		want  string
	}{
		{"a lock on a file that is not LOCK counts", lockRules{ghost: true}, "lives is fenced"},
		{"nobody looks at LOCK again before the claim", lockRules{asleep: true}, "lives is fenced"},
		{"a thief claims above whatever is highest", lockRules{freshTop: true}, "lives is fenced"},
		{"a thief leaves LOCK as it is", lockRules{noPut: true}, "lives is fenced"},
		{"an owner does not look after LOCK", lockRules{noKeep: true}, "does not have the LOCK"},
	} {
		sc := lockScope{lockRules: c.rules, servers: 3, epochs: 4, freezes: 2, deaths: 1, lease: true}
		r := explore(&sc, 0)
		t.Logf("%-52s after %d steps: %s (%d states)", c.name, len(r.trace), r.broken, r.states)
		if !strings.Contains(r.broken, c.want) || r.broken == "" {
			t.Errorf("%s: found %q, want %q\n%s", c.name, r.broken, c.want, r.story())
		}
	}
}
