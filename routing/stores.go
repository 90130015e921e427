package routing

import (
	"cmp"
	"fmt"
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
