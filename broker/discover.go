package broker

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// discoverEvery is how often the root of all stores is looked at.
const discoverEvery = 2 * time.Second

// discover stands for each store in a sub-directory of the root, and has run keep it, until ctx ends. A store that has gone is forgotten, unless this server
// has ever served it: then it stays as one that cannot be reached.
func (s *Server) discover(ctx context.Context, run func(context.Context, *keeper)) {
	log := s.cfg.Logger.With("root", s.cfg.StandForAll)
	ends := map[*keeper]context.CancelFunc{}
	defer func() {
		for _, end := range ends {
			end()
		}
	}()
	trouble := ""
	for ctx.Err() == nil {
		found, err := stores(s.cfg.StandForAll)
		switch {
		case err != nil && err.Error() != trouble:
			log.Warn("cannot look for stores", "error", err)
			trouble = err.Error()
		case err == nil:
			trouble = ""
		}
		for _, dir := range found {
			if s.keeps(dir) {
				continue
			}
			given := StoreConfig{Name: s.label(filepath.Base(dir)), Dir: dir}
			log.Info("store found", "store", given.Name)
			k := newKeeper(s, given)
			s.add(k)
			own, end := context.WithCancel(ctx)
			ends[k] = end
			run(own, k)
			s.changed()
		}
		for k, end := range ends {
			if _, err := os.Stat(k.given.Dir); errors.Is(err, fs.ErrNotExist) && k.neverHeld() {
				log.Info("store is gone", "store", k.given.Name)
				end()
				delete(ends, k)
				s.drop(k)
				s.changed()
			}
		}
		_ = sleep(ctx, discoverEvery)
	}
}

// stores are the sub-directories that hold one.
func stores(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	var found []string
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		if _, err := os.Stat(filepath.Join(dir, storeFile)); err == nil {
			found = append(found, dir)
		}
	}
	return found, err
}

// keeps reports whether there is a keeper for that directory, whatever it is called.
func (s *Server) keeps(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil {
		return true // it went away: there is nothing to keep
	}
	return slices.ContainsFunc(s.all(), func(k *keeper) bool {
		other, err := os.Stat(k.given.Dir)
		return filepath.Clean(k.given.Dir) == filepath.Clean(dir) || err == nil && os.SameFile(info, other)
	})
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
