package broker

import (
	"context"
	"os"
	"path/filepath"
	"slices"
)

// glance is what an entry of the root holds. It is taken by a goroutine of its own: the entry may be on a file system that hangs.
type glance struct {
	dir  string
	done chan struct{} // closed when the rest is known

	place      os.FileInfo
	uuid, name string
	store      bool  // it holds one
	err        error // no such directory, or no store in it, or none that can be read
}

func (g *glance) take() {
	defer close(g.done)
	if g.place, g.err = os.Stat(g.dir); g.err != nil {
		return
	}
	if _, g.err = os.Stat(filepath.Join(g.dir, storeFile)); g.err != nil {
		return
	}
	g.store = true
	if g.uuid, g.err = readWord(filepath.Join(g.dir, storeFile)); g.err == nil {
		g.name, _ = readWord(filepath.Join(g.dir, nameFile)) // without it the directory's own name says nothing
	}
}

func (g *glance) answered() bool { return isClosed(g.done) }

// isNamed reports whether the directory is called what its owner calls the store.
func (g *glance) isNamed() bool { return filepath.Base(g.dir) == g.name }

// glances looks at all entries at once. One that did not answer the last time is not asked again before it does.
func (d *discovery) glances(ctx context.Context, entries []os.DirEntry) map[string]*glance {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	all := map[string]*glance{}
	var fresh []*glance
	for _, e := range entries {
		g := d.hanging[e.Name()]
		if g == nil {
			g = &glance{dir: filepath.Join(d.root, e.Name()), done: make(chan struct{})}
			fresh = append(fresh, g)
			go g.take()
		}
		all[e.Name()] = g
	}
	for _, g := range fresh {
		select {
		case <-g.done:
		case <-ctx.Done():
		}
	}
	clear(d.hanging)
	for base, g := range all {
		if !g.answered() {
			d.hanging[base] = g
		}
	}
	return all
}

// original is the one of several directories with one UUID that is the store, and nil where that cannot be told.
func original(same []*glance, all map[string]*glance) *glance {
	var named []*glance
	for _, g := range same {
		if g.isNamed() {
			named = append(named, g)
		}
	}
	switch {
	case len(named) == 1:
		return named[0]
	case len(same) > 1:
		return nil
	}
	// One that has another store's name may be its copy, while the original's file system is not there.
	if namesake := all[same[0].name]; !same[0].isNamed() && namesake != nil && (!namesake.answered() || namesake.uuid == "") {
		return nil
	}
	return same[0]
}

// distinct leaves out directories that are there already under another name: a link is no copy.
func distinct(same []*glance) []*glance {
	slices.SortStableFunc(same, func(a, b *glance) int {
		if a.isNamed() == b.isNamed() {
			return 0
		}
		return before(a.isNamed())
	})
	var list []*glance
	for _, g := range same {
		if !slices.ContainsFunc(list, func(other *glance) bool { return os.SameFile(g.place, other.place) }) {
			list = append(list, g)
		}
	}
	return list
}
