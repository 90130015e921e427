package broker

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// discoverEvery is how often the root of all stores is looked at.
const discoverEvery = 2 * time.Second

// goneWithin bounds the wait for a keeper that is dropped.
const goneWithin = time.Second

// discovery stands for each store in a sub-directory of the root. A store that has gone is forgotten, unless this server has ever served it: then it stays as
// one that cannot be reached. Of several directories with one UUID it stands for one at most.
type discovery struct {
	srv     *Server
	root    string
	log     *slog.Logger
	run     func(context.Context, *keeper)
	ends    map[*keeper]context.CancelFunc // of those that it has found
	hanging map[string]*glance             // by what the directory is called
	said    map[string]string              // of a directory, in the last round
	saying  map[string]string              // in this one
}

// discover looks for stores, and has run keep them, until ctx ends.
func (s *Server) discover(ctx context.Context, run func(context.Context, *keeper)) {
	root := s.cfg.StandForAll
	d := &discovery{srv: s, root: root, log: s.cfg.Logger.With("root", root), run: run, ends: map[*keeper]context.CancelFunc{}, hanging: map[string]*glance{}}
	defer func() {
		for _, end := range d.ends {
			end()
		}
	}()
	s.hear(ctx, s.all()) // what is configured comes first
	for ctx.Err() == nil {
		d.round(ctx)
		_ = sleep(ctx, discoverEvery)
	}
}

// round looks at the root once.
func (d *discovery) round(ctx context.Context) {
	d.saying = map[string]string{}
	entries, err := os.ReadDir(d.root)
	if err != nil {
		d.say(d.root, "cannot be searched for stores: "+err.Error())
	}
	all := d.glances(ctx, entries)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		d.forget(all)
	}
	for _, g := range d.choose(all) {
		if ctx.Err() != nil {
			break
		}
		d.start(ctx, g.dir)
	}
	d.said = d.saying
}

// say warns of a directory, once.
func (d *discovery) say(dir, text string) {
	if d.saying[dir] = text; d.said[dir] != text {
		d.log.Warn(dir + " " + text)
	}
}

func (d *discovery) start(ctx context.Context, dir string) {
	given := StoreConfig{Name: d.srv.label(filepath.Base(dir)), Dir: dir}
	d.log.Info("store found", "store", given.Name)
	k := newKeeper(d.srv, given)
	d.srv.add(k)
	own, end := context.WithCancel(ctx)
	d.ends[k] = end
	d.run(own, k)
	d.srv.changed()
}

// forget ends the keepers of stores that have gone, and of those that turn out to be configured in another directory.
func (d *discovery) forget(all map[string]*glance) {
	for k, end := range d.ends {
		g := all[filepath.Base(k.given.Dir)]
		gone := (g == nil || g.answered() && g.place == nil && errors.Is(g.err, fs.ErrNotExist)) && k.neverHeld()
		if !gone && !(k.idle() && d.configured(k.sees())) {
			continue
		}
		end()
		select {
		case <-k.done:
		case <-time.After(goneWithin): // it may hang, or have won the store just now: again the next time
			continue
		}
		d.log.Info("store is gone", "store", k.given.Name)
		delete(d.ends, k)
		d.srv.drop(k)
		d.srv.changed()
	}
}

// configured reports whether a keeper that the server was given has seen that store.
func (d *discovery) configured(uuid string) bool {
	return uuid != "" && slices.ContainsFunc(d.srv.all(), func(k *keeper) bool { return d.ends[k] == nil && k.sees() == uuid })
}

// choose finds the directories that nobody keeps yet and that are to be kept.
func (d *discovery) choose(all map[string]*glance) []*glance {
	var chosen []*glance
	same := map[string][]*glance{}
	for _, base := range slices.Sorted(maps.Keys(all)) {
		g := all[base]
		if d.srv.keeper(func(k *keeper) bool { return k.at(g.dir, nil) }) != nil {
			continue
		}
		switch {
		case !g.answered():
			d.say(g.dir, "does not answer: this server does not stand for what is in it until it does")
		case !g.store:
		case g.err != nil:
			chosen = append(chosen, g) // its keeper says what is wrong with it
		case d.srv.keeper(func(k *keeper) bool { return k.at(g.dir, g.place) }) != nil:
		default:
			same[g.uuid] = append(same[g.uuid], g)
		}
	}
	for _, uuid := range slices.Sorted(maps.Keys(same)) {
		list := distinct(same[uuid])
		if k := d.srv.keeper(func(k *keeper) bool { return k.sees() == uuid }); k != nil {
			d.copies(list, k.given.Dir)
			continue
		}
		g := original(list, all)
		switch {
		case g != nil:
			chosen = append(chosen, g)
			d.copies(slices.DeleteFunc(list, func(other *glance) bool { return other == g }), g.dir)
		case len(list) == 1:
			d.say(list[0].dir, "is the store "+list[0].name+" by its own account, and may be a copy of "+filepath.Join(d.root, list[0].name)+
				", which cannot be read now: not stood for; "+d.advice())
		default:
			for i, g := range list {
				d.say(g.dir, "is a copy of "+list[(i+1)%len(list)].dir+", or that of it, and their names do not tell: neither is stood for; "+d.advice())
			}
		}
	}
	return chosen
}

// copies warns of directories that are not stood for.
func (d *discovery) copies(list []*glance, of string) {
	for _, g := range list {
		d.say(g.dir, "is a copy of "+of+": not stood for; "+d.advice())
	}
}

func (d *discovery) advice() string {
	return "move the copy out of " + d.root + ", or give the directory that is meant as a store of its own (--stand-for)"
}

// keeper finds one.
func (s *Server) keeper(is func(*keeper) bool) *keeper {
	list := s.all()
	if i := slices.IndexFunc(list, is); i >= 0 {
		return list[i]
	}
	return nil
}

// label is a name that no other keeper has; a store is told apart by it in metrics and logs.
func (s *Server) label(base string) string {
	name := base
	if !frame.ValidStoreName(name) {
		name = "store"
	}
	taken := func(k *keeper) bool { return k.given.Name == name }
	for list := s.all(); slices.ContainsFunc(list, taken); {
		name += "_"
	}
	return name
}

// neverHeld reports whether the keeper is of no use any more.
func (k *keeper) neverHeld() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status.Role == Unreachable && k.status.Takeovers == 0
}

// drop forgets a keeper.
func (s *Server) drop(k *keeper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(s.all()), func(other *keeper) bool { return other == k })
	s.keepers.Store(&list)
	k.unregister()
}
