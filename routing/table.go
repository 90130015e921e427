package routing

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/understudy-mq/understudy/health"
)

// MaxCandidates bounds what a Table keeps of one source; the rest is dropped and counted.
const MaxCandidates = 1024

// TableConfig of a Table. The zero value is useful: candidates without verdicts.
type TableConfig struct {
	// Verdicts returns all verdicts and a channel that is closed at their next change: the method Snapshot of a health.Monitor. The map is
	// only read. nil: everything is Unknown.
	Verdicts func() (map[health.Target]health.Verdict, <-chan struct{})
}

// Table is what is known of targets: what sources name, merged by target, with the verdicts of health.
type Table struct {
	cfg TableConfig

	mu      sync.Mutex
	sources map[string][]Endpoint
	merged  []Candidate // sorted by Target, without verdicts; replaced, never changed
	dropped int
	changed chan struct{}
}

// View is a Table at one moment. It is stale when either channel is closed.
type View struct {
	Candidates []Candidate     // the caller's
	Changed    <-chan struct{} // closed when a source says something else
	Verdicts   <-chan struct{} // closed when a verdict changes; nil without verdicts
}

// NewTable makes an empty Table.
func NewTable(cfg TableConfig) *Table {
	return &Table{cfg: cfg, sources: make(map[string][]Endpoint), changed: make(chan struct{})}
}

// Set replaces what a source says; no endpoints make it forgotten. It copies eps, and announces a change only if there is one.
func (t *Table) Set(source string, eps []Endpoint) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(eps); n > MaxCandidates {
		t.dropped += n - MaxCandidates
		eps = eps[:MaxCandidates]
	}
	if len(eps) == 0 {
		delete(t.sources, source)
	} else {
		t.sources[source] = slices.Clone(eps)
	}
	merged := Merge(t.sources)
	if slices.EqualFunc(merged, t.merged, equalCandidate) {
		return
	}
	t.merged = merged
	close(t.changed)
	t.changed = make(chan struct{})
}

// Dropped is the number of endpoints that were beyond MaxCandidates so far.
func (t *Table) Dropped() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dropped
}

// View is what is known now. The channels are taken before the content, so that no change is missed.
func (t *Table) View() View {
	var view View
	var verdicts map[health.Target]health.Verdict
	if t.cfg.Verdicts != nil {
		verdicts, view.Verdicts = t.cfg.Verdicts()
	}
	t.mu.Lock()
	merged := t.merged
	view.Changed = t.changed
	t.mu.Unlock()
	view.Candidates = slices.Clone(merged)
	for i := range view.Candidates {
		c := &view.Candidates[i]
		c.Verdict = verdicts[c.Target]
		c.Verdict.Target = c.Target
	}
	return view
}

// Find is what is known of one target, without its verdict.
func (t *Table) Find(target health.Target) (Endpoint, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, ok := slices.BinarySearchFunc(t.merged, target, func(c Candidate, want health.Target) int { return cmp.Compare(c.Target, want) })
	if !ok {
		return Endpoint{}, false
	}
	return t.merged[at].Endpoint, true
}

// Merge is the union of what sources say, by target and sorted by it. Where they differ the lowest tier wins, with the highest weight
// said for that tier; a store, a name, and the like are the first that any source gives, in order of the sources' names; TLS is spoken if any says so.
// The result does not depend on when who spoke.
func Merge(sources map[string][]Endpoint) []Candidate {
	byTarget := make(map[health.Target]*Candidate)
	for _, source := range slices.Sorted(maps.Keys(sources)) {
		for _, ep := range sources[source] {
			c := byTarget[ep.Target]
			if c == nil {
				byTarget[ep.Target] = &Candidate{Endpoint: ep, Sources: []string{source}}
				continue
			}
			if !slices.Contains(c.Sources, source) {
				c.Sources = append(c.Sources, source)
			}
			if ep.Tier < c.Tier || ep.Tier == c.Tier && ep.Weight > c.Weight {
				c.Tier, c.Weight = ep.Tier, ep.Weight
			}
			c.Store, c.Name, c.Protocol = cmp.Or(c.Store, ep.Store), cmp.Or(c.Name, ep.Name), cmp.Or(c.Protocol, ep.Protocol)
			c.TLS, c.ServerName, c.ConnectTimeout = c.TLS || ep.TLS, cmp.Or(c.ServerName, ep.ServerName), cmp.Or(c.ConnectTimeout, ep.ConnectTimeout)
		}
	}
	out := make([]Candidate, 0, len(byTarget))
	for _, target := range slices.Sorted(maps.Keys(byTarget)) {
		out = append(out, *byTarget[target])
	}
	return out
}

func equalCandidate(a, b Candidate) bool {
	return a.Endpoint == b.Endpoint && slices.Equal(a.Sources, b.Sources)
}
