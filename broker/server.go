package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// recordOverhead bounds what a record adds to the headers and the body of a message.
const recordOverhead = 4 << 10

// Server is one process's share in a store.
type Server struct {
	cfg    Config
	failed chan error // of one element: what ended the journal
	// toLoader, of one element, says that the store wants pages.
	toLoader chan struct{}
	toMover  chan struct{} // of one element: records were appended, so a segment may be sparse now
	count    *counters

	mu     sync.Mutex
	status StoreStatus
	store  *store // nil until active
	early  journal.LSN
	conns  map[*conn]struct{}
	ended  error         // why nothing is accepted any more
	synced chan struct{} // closed when everything is durable; nil unless somebody waits
	served sync.WaitGroup

	withheld []*conn                          // wait until the store is known to be ours; see guard.go
	checked  atomic.Pointer[func() time.Time] // when the journal began its last look for a higher epoch; nil until active
}

// New checks cfg and returns a Server; Run must be called for it to do anything, the listener's backlog excepted.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg.withDefaults(), failed: make(chan error, 1), toLoader: make(chan struct{}, 1), toMover: make(chan struct{}, 1), conns: map[*conn]struct{}{}}
	s.status = StoreStatus{StoreConfig: s.cfg.Stores[0], Role: Standby, Since: time.Now()}
	s.count = newCounters(s.cfg.Metrics)
	s.register(s.cfg.Metrics)
	return s, nil
}

// lock begins a call into the store; unlock ends it and wakes the connections that it concerned.
func (s *Server) lock() {
	s.mu.Lock()
	if s.store != nil {
		s.store.now = time.Now()
	}
}

func (s *Server) unlock() {
	if st := s.store; st != nil {
		if st.paging.wishes.len() > 0 {
			select {
			case s.toLoader <- struct{}{}:
			default:
			}
		}
		for _, p := range st.wake {
			p.touched = false
			p.conn.kick()
		}
		clear(st.wake)
		st.wake = st.wake[:0]
	}
	s.mu.Unlock()
}

// Status is what the server does now.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.status
	if st := s.store; st != nil {
		status.DiskFull, status.MemoryFull = st.diskLow || st.diskFull, len(st.full) > 0
		status.Queues, status.Messages, status.Bytes = len(st.queues), st.messages, st.memory
		status.Out, status.Damaged = st.outs, st.paging.damaged
		for _, c := range st.sessions {
			switch {
			case c.closed:
			case c.peer == nil:
				status.Absent++
				fallthrough
			default:
				status.Sessions++
			}
		}
	}
	return Status{Node: s.cfg.Name, Addr: s.cfg.Listener.Addr().String(), Connections: len(s.conns), Stores: []StoreStatus{status}, Err: status.Err}
}

// become changes the role and says so.
func (s *Server) become(role Role, change func(*StoreStatus)) {
	s.mu.Lock()
	s.status.Role, s.status.Since = role, time.Now()
	if change != nil {
		change(&s.status)
	}
	s.mu.Unlock()
	s.cfg.Logger.Info("role", "role", string(role), "node", s.cfg.Name)
	if s.cfg.Changed != nil {
		s.cfg.Changed(s.Status())
	}
}

// Run stands by, takes over when the lock is free, recovers and serves. It returns nil when ctx is cancelled, after an orderly end: nothing
// more is read, what was read is synced and answered, connections are closed, the lock is released. Otherwise it returns what
// ended it: journal.ErrDamaged, journal.ErrFenced, or an error of the disk. Run may be called once.
func (s *Server) Run(ctx context.Context) error {
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		s.acceptLoop()
	}()
	err := s.own(ctx)
	s.cfg.Listener.Close()
	<-accepting
	s.mu.Lock()
	s.status.Err = err
	s.mu.Unlock()
	s.become(Stopped, nil)
	return err
}

// own is the time from standing by to letting go of the store. What must be undone is undone by its defers, last the lock.
func (s *Server) own(ctx context.Context) (err error) {
	defer s.expel(nil) // those that stood by with us
	log, st, err := s.open(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("open store %s: %w", s.cfg.Stores[0].Dir, err)
	}
	defer func() {
		if closed := log.Close(); err == nil && closed != nil {
			err = fmt.Errorf("close store %s: %w", s.cfg.Stores[0].Dir, closed)
		}
	}()
	defer s.startMover(log)()
	defer s.startLoader(st, log)()
	every := max(min(50*time.Millisecond, s.cfg.ReclaimWindow/20), time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if err := s.drain(); err != nil {
				return s.lost(err)
			}
			return nil
		case err := <-s.failed:
			return s.lost(err)
		case <-tick.C:
			s.lock()
			if len(st.waiting) > 0 {
				st.tick()
			}
			st.expireMessages(maxLooks)
			st.paging.another()
			s.letGo()
			st.flush()
			s.unlock()
		}
	}
}

// open waits for the lock, recovers, and lets clients in. While it waits it may fold the owner's log already; then little is left to do.
func (s *Server) open(ctx context.Context) (*journal.Journal, *store, error) {
	var st *store
	var rc *recovery
	reset := func() {
		st = newStore(&s.cfg, s.count)
		rc = newRecovery(st)
	}
	reset()
	var began time.Time
	opt := journal.Options{
		SegmentBytes: s.cfg.SegmentBytes, MaxRecord: s.cfg.MaxRecord, Takeover: s.cfg.Takeover, TakeoverAfter: s.cfg.TakeoverAfter,
		Standing: func() journal.Standing { return journal.Standing{Rank: s.cfg.Rank} },
		Node:     s.cfg.Name, Logger: s.cfg.Logger, Metrics: newJournalMetrics(s.cfg.Metrics, s.cfg.Stores[0].Name),
		Head: func() []journal.Entry {
			if st.now.IsZero() { // all records were visited
				st.now = time.Now()
				rc.finish()
			}
			return st.head()
		},
		Follow: !s.cfg.Cold, Reset: reset, Copied: s.copied,
		Won: func() {
			began = time.Now()
			s.become(Recovering, nil)
		},
		Durable: s.durable, Concerns: Concerns,
		Failed: func(err error) {
			s.fail(err)
			select {
			case s.failed <- err:
			default:
			}
		},
		Space: func(full bool) {
			s.lock()
			st.space(full)
			s.unlock()
		},
		Waiting: func(o journal.Owner) {
			s.mu.Lock()
			s.status.Owner = o
			s.mu.Unlock()
			s.cfg.Logger.Info("standing by: the store has an owner", "owner", o.Node, "pid", o.PID, "epoch", o.Epoch, "silent", o.Silent)
		},
	}
	log, err := journal.Open(ctx, s.cfg.Stores[0].Dir, opt, func(r journal.Record) (journal.Account, error) { return rc.visit(r) })
	if err != nil {
		return nil, nil, err
	}
	st.log, st.uuid, st.epoch, st.now = log, log.Store(), log.Epoch(), time.Now()
	checked := log.Checked
	s.checked.Store(&checked)
	took := time.Since(began)
	s.activate(st, rc, log.Stats(), took)
	return log, st, nil
}

// copied is how far the warm copy is.
func (s *Server) copied(c journal.Copy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Copy = c
}

// activate lets clients in.
func (s *Server) activate(st *store, rc *recovery, journaled journal.Stats, took time.Duration) {
	s.mu.Lock()
	s.store = st
	s.mu.Unlock()
	s.lock()
	st.advance(s.early)
	st.flush()
	messages, sessions := st.messages, len(st.sessions)
	s.unlock()
	s.become(Active, func(status *StoreStatus) {
		status.UUID, status.Epoch, status.Recovered, status.Recovery = st.uuid, st.epoch, rc.records, took
		status.Owner, status.Copy, status.Copied = journal.Owner{}, journal.Copy{}, int(journaled.Copied)
	})
	how := "warm"
	if journaled.Cold != "" {
		how = "cold: " + journaled.Cold
	}
	s.cfg.Logger.Info("store is ours", "store", st.uuid, "epoch", st.epoch, "copy", how, "copied", journaled.Copied,
		"records", rc.records, "messages", messages, "sessions", sessions, "recovery", took.Round(time.Microsecond).String())
}

// durable is the journal's word; it comes from its commit goroutine.
func (s *Server) durable(through journal.LSN) {
	s.lock()
	if st := s.store; st != nil {
		st.advance(through)
		st.flush()
		select {
		case s.toMover <- struct{}{}:
		default:
		}
		if s.synced != nil && st.through >= st.last {
			close(s.synced)
			s.synced = nil
		}
	} else {
		s.early = max(s.early, through)
	}
	s.unlock()
}

// notServing says, under the mutex, why a CONNECT cannot be answered, or nil.
func (s *Server) notServing() *fault {
	if s.store != nil && s.ended == nil {
		return nil
	}
	f := faultf("standby", "this server does not own the store now")
	if s.status.Role == Recovering {
		f.detail = "this server is taking the store over and will serve it in a moment"
	}
	f.code = frame.CodeStandby
	return f
}

// syncTimeout bounds the wait for the disk at an orderly end. What is not durable then is not answered.
const syncTimeout = 5 * time.Second

var errStopped = errors.New("server is stopped")

// lost is the other end: what was read and not answered is in doubt.
func (s *Server) lost(err error) error {
	s.fail(err)
	s.expel(fenced(err))
	return fmt.Errorf("store %s: %w", s.cfg.Stores[0].Dir, err)
}

// drain is the orderly end: nothing more is taken from clients, what was taken becomes durable and is answered, then they are told to leave. It
// returns what ended the journal, if that came in between.
func (s *Server) drain() error {
	s.lock()
	s.ended = errStopped
	st := s.store
	for c := range s.conns {
		c.peer.quit = true
	}
	st.bequeath()
	synced := make(chan struct{})
	if s.synced = synced; st.through >= st.last || st.err != nil {
		close(synced)
		s.synced = nil
	}
	s.unlock()
	select {
	case <-synced:
	case err := <-s.failed:
		return err
	case <-time.After(syncTimeout):
		s.cfg.Logger.Warn("journal did not sync in time", "timeout", syncTimeout.String())
	}
	f := faultf("server stops", "everything before this was answered: connect again")
	f.header = frame.HeaderMoved + ":" + st.uuid + "\n"
	s.expel(f)
	return nil
}

// expel ends all connections, with an ERROR if why is not nil, and waits for them. A direct client is not told what only a sidecar can use.
func (s *Server) expel(why *fault) {
	s.lock()
	s.dismiss(why)
	s.unlock()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		s.served.Wait()
	}()
	tick := time.NewTicker(guardAge / 5)
	defer tick.Stop()
	for {
		select {
		case <-gone:
			return
		case <-tick.C:
			s.lock()
			s.letGo()
			s.unlock()
		}
	}
}

// dismiss is expel under the mutex, without the wait.
func (s *Server) dismiss(why *fault) {
	s.ended = errStopped
	for c := range s.conns {
		p := &c.peer
		if why == nil || p.session == nil {
			p.dead = true
		} else {
			f := *why
			if !p.sidecar {
				f.code, f.header = "", ""
			}
			s.store.refuse(p, nil, &f)
		}
		c.kick()
		_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// acceptLoop only accepts. It ends when the listener is closed.
func (s *Server) acceptLoop() {
	pause := 5 * time.Millisecond
	for {
		nc, err := s.cfg.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.cfg.Logger.Warn("accept failed", "error", err, "pause", pause.String())
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		s.admit(nc)
	}
}

// admit starts serving a connection, or turns it away.
func (s *Server) admit(nc net.Conn) {
	c := newConn(s, nc)
	s.lock()
	defer s.unlock()
	if s.ended != nil || len(s.conns) >= s.cfg.MaxConnections+spareConnections {
		nc.Close()
		return
	}
	full := len(s.conns) >= s.cfg.MaxConnections
	s.conns[c] = struct{}{}
	s.count.connections.Inc()
	s.served.Add(1)
	if full {
		c.turnAway(nil, faultf("too many connections", "this server has %d connections, the limit", s.cfg.MaxConnections))
	}
	go s.serve(c)
}

// spareConnections are admitted beyond the limit, to be told about it.
const spareConnections = 16

func (s *Server) serve(c *conn) {
	defer s.served.Done()
	c.serve()
	s.lock()
	delete(s.conns, c)
	s.unlock()
}
