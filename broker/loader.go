package broker

import (
	"errors"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// What the loader does at once, and how it meets an error that may pass.
const (
	loadPages  = 2
	loadTries  = 4
	loadPause  = 5 * time.Millisecond
	loadBuffer = 64 << 10
)

// startLoader begins to read the pages that the store wants, and returns what ends that.
func (s *Server) startLoader(st *store, from source) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		s.loadLoop(st, &patient{from, quit}, quit)
	}()
	return func() {
		close(quit)
		<-done
	}
}

// loadLoop reads pages without the mutex and hands them in.
func (s *Server) loadLoop(st *store, from source, quit <-chan struct{}) {
	buf := make([]byte, 0, loadBuffer)
	for {
		select {
		case <-quit:
			return
		case <-s.toLoader:
		}
		for {
			s.lock()
			list := st.take(loadPages)
			s.unlock()
			if len(list) == 0 {
				break // unlock says when there is more, or when what has to be read is durable
			}
			for _, e := range list {
				e.fetch(from, st.hash, buf)
				s.lock()
				st.handIn(e)
				st.flush()
				s.unlock()
			}
			select {
			case <-quit:
				return
			default:
			}
		}
	}
}

// patient is a source that tries again when an error may pass: too many open files, say. Damage does not.
type patient struct {
	from source
	quit <-chan struct{}
}

func (p *patient) Read(at journal.Position, buf []byte) (r journal.Record, err error) {
	for try := range loadTries {
		if try > 0 {
			select {
			case <-p.quit:
			case <-time.After(loadPause << try):
			}
		}
		if r, err = p.from.Read(at, buf); err == nil || errors.Is(err, journal.ErrDamaged) {
			break
		}
	}
	return r, err
}
