package broker

import (
	"context"
	"errors"
	"sync"
	"time"
)

// recordOverhead bounds what a record adds to the headers and the body of a message.
const recordOverhead = 4 << 10

// Server is one process's share in a store.
type Server struct {
	cfg Config

	mu     sync.Mutex
	status Status
}

// New checks cfg and returns a Server; Run must be called for it to do anything, the listener's backlog excepted.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg.withDefaults()}
	s.status = Status{Role: Standby, Since: time.Now(), Node: s.cfg.Name, Addr: s.cfg.Listener.Addr().String()}
	return s, nil
}

// Run stands by, takes over when the lock is free, recovers and serves. It returns nil when ctx is cancelled, after an orderly end: nothing
// more is read, what was read is synced and answered, connections are closed, the lock is released. Otherwise it returns what
// ended it: journal.ErrDamaged, journal.ErrFenced, or an error of the disk. Run may be called once.
func (s *Server) Run(ctx context.Context) error { return errors.ErrUnsupported }

// Status is what the server does now.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}
