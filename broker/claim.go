package broker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A store is its UUID, and a copy of its directory has the same one. Two directories with one UUID would be one store with two pasts: sidecars follow the
// higher epoch, which may be the copy's. So a server stands for one of them at most.

// lookPatience is how long others wait for a keeper to see which store its directory holds.
const lookPatience = time.Second

// claim makes the store the keeper's, unless another keeper has it, or a keeper that comes before it has the same store in its own directory.
func (s *Server) claim(k *keeper, uuid, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.all()
	at := slices.Index(list, k)
	k.mu.Lock()
	mine := k.status.UUID == uuid && uuid != ""
	place := k.place
	k.mu.Unlock()
	var taken error
	for i, other := range list {
		if other == k || mine || uuid == "" {
			continue
		}
		other.mu.Lock()
		if other.status.UUID == uuid || i < at && other.seen == uuid {
			what := "a copy of"
			if place != nil && other.place != nil && os.SameFile(place, other.place) {
				what = "the same directory as"
			}
			taken = fmt.Errorf("store %s: %s is %s %s, which this server stands for as %s: leave one of them out", uuid, k.given.Dir, what, other.given.Dir, other.given.Name)
		}
		other.mu.Unlock()
	}
	if taken != nil {
		uuid, name = "", k.given.Name
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.status.UUID, k.status.Name = uuid, name; uuid != "" {
		k.seen = uuid
	}
	k.publishLocked()
	return taken
}

// yield lets the keepers that come before this one look first: with several directories of one store, the first that was configured is meant, and not the
// fastest.
func (k *keeper) yield(ctx context.Context) {
	if isClosed(k.looked) {
		return
	}
	_, _, _ = k.read() // what is wrong with it will be said soon
	list := k.srv.all()
	k.srv.hear(ctx, list[:max(slices.Index(list, k), 0)])
}

// hear waits until the keepers have looked at their directories, but no longer than is fair to the others.
func (s *Server) hear(ctx context.Context, list []*keeper) {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	for _, k := range list {
		select {
		case <-k.looked:
		case <-ctx.Done():
			return
		}
	}
}

// sees is the UUID that the keeper saw last, whether or not it is the one that stands for that store.
func (k *keeper) sees() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen
}

// at reports whether the keeper's directory is that one, whatever it is called. It does not touch it.
func (k *keeper) at(dir string, place os.FileInfo) bool {
	if filepath.Clean(k.given.Dir) == filepath.Clean(dir) {
		return true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return place != nil && k.place != nil && os.SameFile(place, k.place)
}

// idle reports whether the keeper holds nothing, and has nothing to let go of.
func (k *keeper) idle() bool {
	role := k.view.Load().role
	return role != Active && role != Recovering && role != Stopped
}

// over reports whether the keeper has ended.
func (k *keeper) over() bool { return isClosed(k.done) }

// leaves waits for the keeper to end, and reports whether it did: one that is idle is given up then.
func (k *keeper) leaves(until time.Time) bool {
	for {
		select {
		case <-k.done:
			return true
		case <-time.After(10 * time.Millisecond):
			if k.idle() && time.Now().After(until) {
				return false
			}
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
