package health

import (
	"cmp"
	"slices"
	"time"
)

// maxServed bounds the stores that are remembered of one target.
const maxServed = 64

// place is what is known of one store at one target.
type place struct {
	Served
	at    time.Time // beginning of the observation that it rests on
	owned uint64    // the highest epoch at which the target was Active with it
}

// shelf is what is known of a target's stores. Sessions and probes tell of it at overlapping times, and each of different stores: so every place
// has its own time, and what is newer stays in whatever order it comes in.
type shelf struct {
	places []place   // by UUID
	listed time.Time // beginning of the newest observation that told of all stores
	bare   time.Time // beginning of the newest one by which nothing was served
}

// apply puts what e says into the shelf.
func (h *shelf) apply(e Evidence) {
	switch {
	case e.Kind == ProbeStandby:
		h.clear(e.At)
		if len(e.Stores) > 0 { // else it may still know what it knew
			h.list(e)
		}
	case e.Kind == ProbeActive, e.Kind == ConnLive && !serves(e.Stores):
		h.list(e)
	case e.Kind == ConnLive:
		for _, s := range e.Stores {
			if s.Epoch > 0 {
				h.put(s, e.At)
			}
		}
	case e.Kind == NotServed && len(e.Stores) == 0:
		h.clear(e.At)
	case e.Kind == NotServed:
		for _, s := range e.Stores {
			if at := slices.IndexFunc(h.places, func(p place) bool { return p.Is(s.Name) }); s.UUID == "" && at >= 0 {
				s.UUID = h.places[at].UUID
			}
			s.Epoch = 0
			h.put(s, e.At)
		}
	}
}

// list takes e for all that there is.
func (h *shelf) list(e Evidence) {
	if e.At.Before(h.listed) {
		return
	}
	h.listed = e.At
	h.places = slices.DeleteFunc(h.places, func(p place) bool {
		return !p.at.After(e.At) && !slices.ContainsFunc(e.Stores, func(s Served) bool { return s.UUID == p.UUID })
	})
	for _, s := range e.Stores {
		h.put(s, e.At)
	}
}

// put notes one store.
func (h *shelf) put(s Served, at time.Time) {
	if at.Before(h.bare) {
		s.Epoch = 0
	}
	i, known := h.search(s.UUID)
	switch {
	case s.UUID == "":
	case known && h.places[i].at.After(at):
	case known:
		p := &h.places[i]
		p.Name, p.Epoch, p.at = cmp.Or(s.Name, p.Name), s.Epoch, at
	case at.Before(h.listed), len(h.places) >= maxServed:
		// A newer list does not have it, or there is no room.
	default:
		h.places = slices.Insert(h.places, i, place{Served: Served{UUID: s.UUID, Name: s.Name, Epoch: s.Epoch}, at: at})
	}
}

// clear says that nothing was served at a time.
func (h *shelf) clear(at time.Time) {
	if at.After(h.bare) {
		h.bare = at
	}
	for i := range h.places {
		if p := &h.places[i]; !p.at.After(at) {
			p.Epoch = 0
		}
	}
}

func (h *shelf) search(uuid string) (int, bool) {
	return slices.BinarySearchFunc(h.places, uuid, func(p place, want string) int { return cmp.Compare(p.UUID, want) })
}

// mark finds out which places are stale.
func (h *shelf) mark(highest map[string]uint64) {
	for i := range h.places {
		p := &h.places[i]
		p.Stale = p.Epoch > 0 && p.Epoch < highest[p.UUID]
	}
}

// show is the shelf as a verdict has it: before if nothing has changed.
func (h *shelf) show(before []Served) []Served {
	if slices.EqualFunc(h.places, before, func(p place, s Served) bool { return p.Served == s }) {
		return before
	}
	now := make([]Served, 0, len(h.places))
	for _, p := range h.places {
		now = append(now, p.Served)
	}
	return now
}

// won reports whether a store is served at a higher epoch than ever before here.
func (h *shelf) won() bool {
	return slices.ContainsFunc(h.places, func(p place) bool { return p.Live() && p.Epoch > p.owned })
}

func (h *shelf) own() {
	for i := range h.places {
		if p := &h.places[i]; p.Live() {
			p.owned = max(p.owned, p.Epoch)
		}
	}
}

// serves reports whether any of the stores has an epoch, over or not.
func serves(stores []Served) bool {
	return slices.ContainsFunc(stores, func(s Served) bool { return s.Epoch > 0 })
}

// live reports whether any of the stores is served.
func live(stores []Served) bool { return slices.ContainsFunc(stores, Served.Live) }

// others reports whether a store is served that is none of named; nobody can tell if none is named.
func others(stores, named []Served) bool {
	return len(named) > 0 && slices.ContainsFunc(stores, func(s Served) bool {
		return s.Live() && !slices.ContainsFunc(named, func(n Served) bool { return s.Is(n.UUID) || s.Is(n.Name) })
	})
}

// lostOne reports whether a store that was served is not any more.
func lostOne(before, now []Served) bool {
	return slices.ContainsFunc(before, func(s Served) bool {
		return s.Live() && !slices.ContainsFunc(now, func(n Served) bool { return n.UUID == s.UUID && n.Live() })
	})
}
