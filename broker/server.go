package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// recordOverhead bounds what a record adds to the headers and the body of a message.
const recordOverhead = 4 << 10

// Server is one process's share in its stores.
type Server struct {
	cfg   Config
	lobby *tenure

	accepted    *tally       // connections
	refused     *tally       // of those: without a store
	connections atomic.Int64 // now
	serves      atomic.Int64 // stores that are served or being taken over now
	still       bool         // benchmarks: nobody wakes the mover
	turn        sync.Mutex   // whose store is taken over now; the journals'
	saying      sync.Mutex   // one call of Config.Changed at a time

	mu      sync.Mutex
	keepers atomic.Pointer[[]*keeper] // changed under mu
	doom    context.CancelCauseFunc   // nil until Run
	left    map[string]int            // stores that were left to a node when this server ended
	err     error                     // what ended the server
}

// New checks cfg and returns a Server; Run must be called for it to do anything, the listener's backlog excepted.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg.withDefaults(), left: map[string]int{}}
	s.accepted, s.refused = newServerMetrics(s)
	s.lobby = newTenure(&s.cfg, s.cfg.Logger, nil)
	s.keepers.Store(&[]*keeper{})
	for _, store := range s.cfg.Stores {
		s.add(newKeeper(s, store))
	}
	return s, nil
}

// all are the keepers now.
func (s *Server) all() []*keeper { return *s.keepers.Load() }

func (s *Server) add(k *keeper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := append(slices.Clone(s.all()), k)
	k.register()
	s.keepers.Store(&list)
}

// Status is what the server does now.
func (s *Server) Status() Status {
	status := Status{Node: s.cfg.Name, Addr: s.cfg.Listener.Addr().String(), Connections: int(s.connections.Load())}
	for _, k := range s.all() {
		status.Stores = append(status.Stores, k.snapshot())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	status.Err = s.err
	return status
}

// changed tells whoever wants to know.
func (s *Server) changed() {
	if s.cfg.Changed == nil {
		return
	}
	s.saying.Lock()
	defer s.saying.Unlock()
	s.cfg.Changed(s.Status())
}

// Run stands by for all stores, takes over those whose turn it is, and serves. It returns nil when ctx is cancelled, after an orderly end: nothing
// more is read, what was read is synced and answered, connections are closed, each store goes to the first that stands for it. An error of one store does not
// concern the others. A directory that does not answer, and in which nothing is held, is waited for no longer than leavePatience. Run returns one only when each of the stores that the server was given is damaged (journal.ErrDamaged), or has failed for good,
// or when it could not be let go of. Run may be called once.
func (s *Server) Run(ctx context.Context) error {
	ctx, doom := context.WithCancelCause(ctx)
	defer doom(nil)
	s.mu.Lock()
	s.doom = doom
	s.mu.Unlock()
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		s.acceptLoop()
	}()
	stopLobby := context.AfterFunc(ctx, func() { s.lobby.farewell(nil) })
	defer stopLobby()
	errs := s.keep(ctx)
	s.cfg.Listener.Close()
	<-accepting
	s.lobby.farewell(nil)
	s.lobby.wait()
	if cause := (*doomed)(nil); errors.As(context.Cause(ctx), &cause) {
		errs = append(errs, cause.err)
	}
	err := errors.Join(errs...)
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	s.changed()
	return err
}

// leavePatience is how long the end of a server waits for directories in which it holds nothing. No context ends a system call.
const leavePatience = 3 * time.Second

// keep has the keepers keep their stores until ctx ends, and returns what went wrong then. It waits for whoever holds a store; a keeper that only stands for
// one, and hangs in its file system, is left behind.
func (s *Server) keep(ctx context.Context) []error {
	var mu sync.Mutex
	var errs []error
	var running []*keeper
	run := func(ctx context.Context, k *keeper) {
		mu.Lock()
		running = append(slices.DeleteFunc(running, (*keeper).over), k)
		mu.Unlock()
		go func() {
			defer close(k.done)
			if err := k.run(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		}()
	}
	for _, k := range s.all() {
		run(ctx, k)
	}
	looking := make(chan struct{})
	go func() {
		defer close(looking)
		if s.cfg.StandForAll != "" {
			s.discover(ctx, run)
		}
	}()
	<-ctx.Done()
	until := time.Now().Add(leavePatience)
	select {
	case <-looking:
	case <-time.After(leavePatience):
		s.cfg.Logger.Warn("the directory of all stores does not answer: the server ends without it", "root", s.cfg.StandForAll, "waited", leavePatience.String())
	}
	mu.Lock()
	waited := slices.Clone(running)
	mu.Unlock()
	for _, k := range waited {
		if !k.leaves(until) {
			k.log.Warn("the store's directory does not answer: the server ends without it, and holds nothing there", "dir", k.given.Dir, "waited", leavePatience.String())
		}
	}
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(errs)
}

// doomed is why a server ends that nobody ended.
type doomed struct{ err error }

func (d *doomed) Error() string { return fmt.Sprint("no store can be served: ", d.err) }

// judge ends the server if nothing is left to serve. One that looks for stores may find another.
func (s *Server) judge() {
	var errs []error
	for _, k := range s.all() {
		k.mu.Lock()
		err := k.fatal
		k.mu.Unlock()
		if err == nil || s.cfg.StandForAll != "" {
			return
		}
		errs = append(errs, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doom(&doomed{errors.Join(errs...)})
}

// share divides the memory evenly among the stores that are served. A share is never less than the largest record, which could not be taken else.
func (s *Server) share() {
	total := s.cfg.MaxMemory
	part := max(total/max(s.serves.Load(), 1), min(total, int64(s.cfg.MaxRecord)))
	for _, k := range s.all() {
		if t := k.view.Load().tenure; t != nil {
			t.lock()
			t.cfg.MaxMemory = part
			t.store.flush()
			t.unlock()
		}
	}
}
