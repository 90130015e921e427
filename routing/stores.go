package routing

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/understudy-mq/understudy/health"
)

// Wanted is a store as a session names it: by UUID, or by name.
func Wanted(store string) health.Served {
	if isUUID(store) {
		return health.Served{UUID: store}
	}
	return health.Served{Name: store}
}

// Store is one that brokers know.
type Store struct {
	UUID, Name string
	Holder     health.Target // who serves it, as far as is known; "" if nobody does
	Epoch      uint64        // at which the holder serves it; 0 without one
}

// String is what a user calls it.
func (s Store) String() string { return cmp.Or(s.Name, s.UUID) }

// Stores are all that brokers have said they serve or stand for, also those that are gone now, by UUID.
func Stores(cands []Candidate) []Store {
	var all []Store
	for _, c := range cands {
		for _, s := range c.Verdict.Stores {
			at, known := slices.BinarySearchFunc(all, s.UUID, func(have Store, want string) int { return cmp.Compare(have.UUID, want) })
			if !known {
				all = slices.Insert(all, at, Store{UUID: s.UUID})
			}
			have := &all[at]
			if have.Name == "" || s.Live() && s.Name != "" {
				have.Name = s.Name
			}
			if c.Verdict.State == health.Active && s.Live() && s.Epoch > have.Epoch {
				have.Holder, have.Epoch = c.Target, s.Epoch
			}
		}
	}
	return all
}

// several is len(Stores(cands)) > 1, for every session at every change.
func several(cands []Candidate) bool {
	first := ""
	for _, c := range cands {
		for _, s := range c.Verdict.Stores {
			if first == "" {
				first = s.UUID
			}
			if s.UUID != first {
				return true
			}
		}
	}
	return false
}

// Namesakes are different stores that are served under one name, as when an owner whose file system is not mounted makes a store where its own should
// be. Sessions that name them cannot all be right, and no message is in both. It is an ErrWhichStore.
type Namesakes struct {
	Name   string
	Stores []Store // by UUID, each with a holder
}

func (e *Namesakes) Error() string {
	held := make([]string, 0, len(e.Stores))
	for _, s := range e.Stores[:min(len(e.Stores), maxListed)] {
		held = append(held, fmt.Sprintf("%s served by %s at epoch %d", s.UUID, s.Holder, s.Epoch))
	}
	return fmt.Sprintf("%v: %d stores have the name %s: %s", ErrWhichStore, len(e.Stores), e.Name, strings.Join(held, ", "))
}

// Unwrap makes it an ErrWhichStore.
func (e *Namesakes) Unwrap() error { return ErrWhichStore }

// Shared are the names under which several stores are served, in order of name; of w it reads Epochs, and Store: "" is all names.
func Shared(cands []Candidate, w Wants) []*Namesakes {
	byName := make(map[string]*Namesakes)
	for holder, s := range served(cands, w) {
		n := byName[s.Name]
		if n == nil {
			n = &Namesakes{Name: s.Name}
			byName[s.Name] = n
		}
		at, known := slices.BinarySearchFunc(n.Stores, s.UUID, func(have Store, want string) int { return cmp.Compare(have.UUID, want) })
		if !known {
			n.Stores = slices.Insert(n.Stores, at, Store{UUID: s.UUID, Name: s.Name})
		}
		if have := &n.Stores[at]; s.Epoch > have.Epoch {
			have.Holder, have.Epoch = holder, s.Epoch
		}
	}
	var shared []*Namesakes
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if n := byName[name]; len(n.Stores) > 1 {
			shared = append(shared, n)
		}
	}
	return shared
}

// namesakes is Shared for one session: at every change, and there is hardly ever anything to find.
func namesakes(cands []Candidate, w Wants) error {
	if w.Store == "" || isUUID(w.Store) {
		return nil
	}
	first := ""
	for _, s := range served(cands, w) {
		if first != "" && s.UUID != first {
			return Shared(cands, w)[0]
		}
		first = s.UUID
	}
	return nil
}

// served are the stores with a name that somebody serves, those of the name in w if there is one. A holder that is suspect counts: else each doubt about
// the one store would let sessions into its namesake.
func served(cands []Candidate, w Wants) iter.Seq2[health.Target, health.Served] {
	return func(yield func(health.Target, health.Served) bool) {
		for _, c := range cands {
			if c.Verdict.State != health.Active && c.Verdict.State != health.Suspect {
				continue
			}
			for _, s := range c.Verdict.Stores {
				if s.Name != "" && (w.Store == "" || s.Name == w.Store) && w.live(s) && !yield(c.Target, s) {
					return
				}
			}
		}
	}
}

// maxListed is how many stores an error names.
const maxListed = 16

func list(stores []Store) string {
	var b strings.Builder
	for i, s := range stores[:min(len(stores), maxListed)] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(s.String())
	}
	if more := len(stores) - maxListed; more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	return b.String()
}

// Share picks a store for a session that takes its part of all of them: one with the fewest sessions, counted by UUID, at random where several
// have as few. As long as any is served, those that are in nobody's hands are left out. ok is false if no store is known.
func Share(stores []Store, sessions map[string]int, rnd *rand.Rand) (picked Store, ok bool) {
	served := slices.ContainsFunc(stores, func(s Store) bool { return s.Holder != "" })
	ties := 0
	for _, s := range stores {
		if served && s.Holder == "" {
			continue
		}
		n, least := sessions[s.UUID], sessions[picked.UUID]
		switch {
		case ties == 0 || n < least:
			picked, ties = s, 1
		case n == least:
			if ties++; rnd.IntN(ties) == 0 {
				picked = s
			}
		}
	}
	return picked, ties > 0
}
