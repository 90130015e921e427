package overview

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Answer is what one server said, or why it did not.
type Answer struct {
	URL    string
	Report *Report
	Err    error
}

// View is one picture of all that answered.
type View struct {
	Stores   []StoreView   `json:"stores"`
	Servers  []ServerView  `json:"servers"`
	Sidecars []SidecarView `json:"sidecars,omitempty"`
	Silent   []Silence     `json:"silent,omitempty"` // did not answer, or were not asked
}

// State is whether a store is served.
type State string

// States of a store.
const (
	Served     State = "served"
	Recovering State = "recovering" // somebody has it, and will serve it when it has been read
	Frozen     State = "frozen"     // somebody has it, and shows no life
	Unheld     State = "unheld"     // nobody has it
)

// StoreView is one store, as all servers together see it.
type StoreView struct {
	Name        string        `json:"name"`
	UUID        string        `json:"uuid,omitempty"`
	State       State         `json:"state"`
	Holder      string        `json:"holder,omitempty"`  // node
	Hearsay     bool          `json:"hearsay,omitempty"` // the holder was not asked: others say so, who count neither its sessions nor its messages
	Admin       string        `json:"admin,omitempty"`   // of a holder that was asked
	Epoch       uint64        `json:"epoch,omitempty"`
	Since       time.Time     `json:"since,omitzero"`
	Owners      []string      `json:"owners"`     // nodes that own it and are there
	Candidates  []Candidate   `json:"candidates"` // in the order in which they would take it over
	Sessions    int           `json:"sessions"`   // of sidecars: present ones
	Absent      int           `json:"absent"`
	AbsentSince *time.Time    `json:"absent_since,omitempty"`
	Messages    int           `json:"messages"`
	Takeovers   uint64        `json:"takeovers"` // by those that were asked, in their lives
	Handovers   uint64        `json:"handovers"`
	Waiting     int           `json:"waiting,omitempty"` // clients of sidecars that wait for it
	Trouble     []StoreIssues `json:"trouble,omitempty"`
}

// StoreIssues is what is wrong with a store at one server.
type StoreIssues struct {
	Node  string     `json:"node,omitempty"`
	Text  string     `json:"text"`
	Again *time.Time `json:"again,omitempty"` // when the server tries next
}

// ServerView is a broker that answered.
type ServerView struct {
	Node        string `json:"node"`
	URL         string `json:"url"`
	Listen      string `json:"listen"`
	Serves      int    `json:"serves"`
	StandsFor   int    `json:"stands_for"`
	Connections int    `json:"connections"`
	Draining    bool   `json:"draining,omitempty"`
}

// SidecarView is a sidecar that answered.
type SidecarView struct {
	Name     string         `json:"name"`
	URL      string         `json:"url"`
	Sessions map[string]int `json:"sessions"` // by state
	Brokers  map[string]int `json:"brokers"`  // by state
	Draining bool           `json:"draining,omitempty"`
}

// Silence is a server of which nothing is known but this.
type Silence struct {
	URL string `json:"url"`
	Why string `json:"why"`
}

// Held reports whether every store is in somebody's hands, and there is somebody who could know.
func (v *View) Held() bool {
	return len(v.Servers)+len(v.Sidecars) > 0 && !slices.ContainsFunc(v.Stores, func(s StoreView) bool { return s.State == Frozen || s.State == Unheld })
}

// Store is the one of that name or UUID, nil if there is none; ambiguous is set when several have the name.
func (v *View) Store(want string) (found *StoreView, ambiguous bool) {
	for i := range v.Stores {
		s := &v.Stores[i]
		switch {
		case s.UUID != "" && strings.EqualFold(s.UUID, want):
			return s, false
		case s.Name == want && found != nil:
			ambiguous = true
		case s.Name == want:
			found = s
		}
	}
	return found, ambiguous
}

// share is what one server says of a store.
type share struct {
	url, node string
	*Store
}

// Merge makes one picture of what servers said. One that was reached in two ways counts once.
func Merge(answers []Answer) View {
	view := View{Stores: []StoreView{}, Servers: []ServerView{}}
	known := map[string]bool{}
	var shares []share
	var sidecars []*Report
	for _, a := range answers {
		if a.Err != nil {
			view.Silent = append(view.Silent, Silence{a.URL, a.Err.Error()})
			continue
		}
		id := fmt.Sprintf("%s %d %d", a.Report.Process.Name, a.Report.Process.PID, a.Report.Process.Started.UnixNano())
		if known[id] {
			continue
		}
		known[id] = true
		if b := a.Report.Broker; b != nil {
			view.Servers = append(view.Servers, server(a, b))
			for i := range b.Stores {
				shares = append(shares, share{a.URL, b.Node, &b.Stores[i]})
			}
			continue
		}
		view.Sidecars = append(view.Sidecars, sidecar(a))
		sidecars = append(sidecars, a.Report)
	}
	for _, group := range byStore(shares) {
		view.Stores = append(view.Stores, merge(group))
	}
	for _, r := range sidecars {
		view.hear(r)
	}
	slices.SortStableFunc(view.Stores, func(a, b StoreView) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.UUID, b.UUID)) })
	slices.SortStableFunc(view.Servers, func(a, b ServerView) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.URL, b.URL)) })
	return view
}

func server(a Answer, b *Broker) ServerView {
	s := ServerView{Node: b.Node, URL: a.URL, Listen: b.Listen, Connections: b.Connections, Draining: a.Report.Process.Draining}
	for _, store := range b.Stores {
		switch store.Role {
		case "active", "recovering":
			s.Serves++
		case "standby":
			s.StandsFor++
		}
	}
	return s
}

func sidecar(a Answer) SidecarView {
	s := SidecarView{Name: a.Report.Process.Name, URL: a.URL, Sessions: map[string]int{}, Brokers: map[string]int{}, Draining: a.Report.Process.Draining}
	for _, one := range a.Report.Sessions {
		s.Sessions[one.State]++
	}
	for _, one := range a.Report.Brokers {
		s.Brokers[one.State]++
	}
	return s
}

// byStore puts together what is about one store: what has its UUID, and what has its name from servers that could not read the UUID, if no other store has it.
func byStore(shares []share) [][]share {
	var groups [][]share
	named, ids := map[string][]int{}, map[string]int{} // groups
	for _, s := range shares {
		if s.UUID == "" {
			continue
		}
		i, ok := ids[s.UUID]
		if !ok {
			i = len(groups)
			ids[s.UUID], groups = i, append(groups, nil)
		}
		groups[i] = append(groups[i], s)
		if !slices.Contains(named[s.Name], i) {
			named[s.Name] = append(named[s.Name], i)
		}
	}
	for _, s := range shares {
		if s.UUID != "" {
			continue
		}
		if len(named[s.Name]) == 0 {
			named[s.Name], groups = []int{len(groups)}, append(groups, nil)
		}
		if at := named[s.Name]; len(at) == 1 {
			groups[at[0]] = append(groups[at[0]], s)
		} else {
			groups = append(groups, []share{s})
		}
	}
	return groups
}

// merge is one store, of which every share speaks.
func merge(shares []share) StoreView {
	v := StoreView{Name: shares[0].Name, State: Unheld, Owners: []string{}, Candidates: []Candidate{}}
	holder := v.findHolder(shares)
	for _, s := range shares {
		v.UUID = cmp.Or(v.UUID, s.UUID)
		v.Takeovers, v.Handovers = v.Takeovers+s.Takeovers, v.Handovers+s.Handovers
		if s.Own && s.Role != "stopped" {
			v.own(s.node)
		}
		// The holder knows all candidates. Where nobody holds the store, whoever sees most is right: a candidate is seen once it shows life.
		if holder == nil && len(s.Candidates) > len(v.Candidates) {
			v.Candidates = slices.Clone(s.Candidates)
		}
		v.Trouble = append(v.Trouble, issues(s)...)
		if claims(s) && s.node != v.Holder {
			v.Trouble = append(v.Trouble, StoreIssues{Node: s.node, Text: fmt.Sprintf("still believes that it serves the store, at epoch %d", s.Epoch)})
		}
	}
	if holder != nil {
		v.Name, v.Admin, v.Since = holder.Name, holder.url, holder.Since
		v.Candidates = append(v.Candidates, holder.Candidates...)
		v.Sessions, v.Absent, v.AbsentSince, v.Messages = holder.Sessions-holder.Absent, holder.Absent, holder.AbsentSince, holder.Messages
	}
	v.Candidates = slices.DeleteFunc(v.Candidates, func(c Candidate) bool { return c.Node == v.Holder }) // seen before it took over
	for _, c := range v.Candidates {
		if c.Own {
			v.own(c.Node)
		}
	}
	if v.State == Served && len(v.Owners) == 0 && !v.Hearsay {
		v.Trouble = append(v.Trouble, StoreIssues{Text: "its owner is away, and so " + v.Holder + " serves it"})
	}
	if v.State == Served && len(v.Candidates) == 0 && !v.Hearsay {
		v.Trouble = append(v.Trouble, StoreIssues{Text: "nobody stands by for it"})
	}
	return v
}

func claims(s share) bool { return s.Role == "active" || s.Role == "recovering" }

// findHolder says who has the store, and returns what that one says if it was asked. The highest epoch is right; who is recovering has claimed one that
// is higher than all before, unless somebody serves already.
func (v *StoreView) findHolder(shares []share) (holder *share) {
	for i := range shares {
		s := &shares[i]
		switch better := holder == nil || holder.Role != "active" && s.Role == "active" || holder.Role == s.Role && s.Epoch > holder.Epoch; {
		case claims(*s) && better:
			holder = s
		}
	}
	if holder != nil {
		v.Holder, v.Epoch, v.State = holder.node, holder.Epoch, Served
		if holder.Role == "recovering" {
			v.State = Recovering
		}
	}
	for _, s := range shares {
		o := s.Owner
		if s.Role != "standby" || o == nil || o.Epoch <= v.Epoch || v.State == Recovering {
			continue
		}
		holder, v.Holder, v.Epoch, v.Hearsay, v.State = nil, o.Node, o.Epoch, true, Served
		if o.SilentMS > 0 {
			v.State = Frozen
		}
	}
	if v.State == Frozen {
		v.Trouble = append(v.Trouble, StoreIssues{Node: v.Holder, Text: "has the store and shows no life: see --takeover"})
	}
	return holder
}

func (v *StoreView) own(node string) {
	if !slices.Contains(v.Owners, node) {
		v.Owners = append(v.Owners, node)
		slices.Sort(v.Owners)
	}
}

// issues are what a server says is wrong with a store.
func issues(s share) (list []StoreIssues) {
	add := func(format string, args ...any) {
		list = append(list, StoreIssues{Node: s.node, Text: fmt.Sprintf(format, args...), Again: s.Again})
	}
	switch {
	case s.Error != "":
		add("has given it up: %s", s.Error)
	case s.Trouble != "":
		add("does not stand for it: %s", s.Trouble)
	case s.Role == "unreachable":
		add("does not reach its directory %s", s.Dir)
	}
	if s.DiskFull {
		add("disk is full: producers are held back")
	}
	if s.MemoryFull {
		add("memory is full: producers are held back")
	}
	if s.Damaged > 0 {
		add("%d queues are damaged and stopped", s.Damaged)
	}
	return list
}

// hear adds what a sidecar knows of stores. It sees brokers from outside only: who holds a store it says only where no server has spoken for that.
func (v *View) hear(r *Report) {
	spoken := len(v.Stores)
	for _, t := range r.Brokers {
		for _, known := range t.Stores {
			at := v.find(known.UUID, known.Name)
			if s := &v.Stores[at]; at >= spoken && t.State == "active" && !known.Stale && known.Epoch > s.Epoch {
				s.Holder, s.Epoch, s.Hearsay, s.State = t.Target, known.Epoch, true, Served
			}
		}
	}
	for _, w := range r.Waiting {
		v.Stores[v.find(w.Store, w.Name)].Waiting += w.Sessions
	}
}

// uuidLength is that of a store's UUID as text; a name may be as long, which shows in the wrong place and is no worse.
const uuidLength = 36

// find is where the store of a UUID is, or of a name where that is all that is known; id may be either. One that is nowhere is added.
func (v *View) find(id, name string) int {
	at := slices.IndexFunc(v.Stores, func(s StoreView) bool {
		return id != "" && (s.UUID == id || s.Name == id) || name != "" && (id == "" || s.UUID == "") && s.Name == name
	})
	if at < 0 {
		added := StoreView{Name: cmp.Or(name, id), State: Unheld, Owners: []string{}, Candidates: []Candidate{}}
		if len(id) == uuidLength {
			added.UUID = id
		}
		at, v.Stores = len(v.Stores), append(v.Stores, added)
	}
	return at
}
