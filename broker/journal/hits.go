package journal

import (
	"cmp"
	"errors"
	"path/filepath"
	"slices"
	"strings"
)

// Hits says whom damage concerns: names that Options.Concerns found in records, each with how it is known. It is empty where nothing is known.
type Hits []Hit

// Hit is one of those that damage concerns.
type Hit struct {
	Name  string   `json:"name"`
	Known Evidence `json:"known"`
}

// Evidence is how one knows whom an unreadable record concerned.
type Evidence string

// Evidence, from the best to the weakest.
const (
	ByIndex      Evidence = "index"      // the segment's index, which is checked by itself, holds the front of the record
	ByRecord     Evidence = "record"     // what is left of the record itself says so, though its checksum is wrong
	ByNeighbours Evidence = "neighbours" // it is one of those that readable records of the same segment concern
)

func (e Evidence) rank() int { return slices.Index([]Evidence{ByIndex, ByRecord, ByNeighbours}, e) }

// add takes in names, each with its best evidence.
func (h *Hits) add(by Evidence, names ...string) {
	for _, name := range names {
		i := slices.IndexFunc(*h, func(have Hit) bool { return have.Name == name })
		switch {
		case i < 0:
			*h = append(*h, Hit{name, by})
		case by.rank() < (*h)[i].Known.rank():
			(*h)[i].Known = by
		}
	}
	slices.SortFunc(*h, func(a, b Hit) int {
		return cmp.Or(cmp.Compare(a.Known.rank(), b.Known.rank()), cmp.Compare(a.Name, b.Name))
	})
}

// maxNamed bounds how many names an error spells out.
const maxNamed = 10

// String is what an error says of them behind its reason; it is empty if there are none.
func (h Hits) String() string {
	if len(h) == 0 {
		return ""
	}
	var b strings.Builder
	var last Evidence
	for i, hit := range h {
		switch {
		case i == maxNamed:
			b.WriteString(" and others")
			return b.String()
		case hit.Known == last:
			b.WriteString(", ")
		case hit.Known == ByIndex:
			b.WriteString("; hit: ")
		case hit.Known == ByRecord:
			b.WriteString("; hit, probably: ")
		default:
			b.WriteString("; in this segment are: ")
		}
		last = hit.Known
		b.WriteString(hit.Name)
	}
	return b.String()
}

// blame adds whom it hits to an error that names damage. It reads one segment beyond the damage for it; the store is refused anyway, and an operator must
// decide about it.
func (r *recovery) blame(err error) error {
	var d *DamageError
	if r.concerns == nil || !errors.As(err, &d) {
		return err
	}
	p, ok := parsePlace(filepath.Base(d.File))
	if !ok {
		return err
	}
	var bound *sealed
	if i := slices.IndexFunc(r.end.manifest, func(s sealed) bool { return s.place == p }); i >= 0 {
		bound = &r.end.manifest[i]
	}
	e, failed := r.examine(p, bound, 0, nil)
	if failed != nil {
		return err
	}
	for _, g := range e.gaps {
		if g.from <= d.To && d.From <= g.to {
			for _, hit := range g.hits {
				d.Hits.add(hit.Known, hit.Name)
			}
		}
	}
	return err
}
