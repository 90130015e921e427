package proxy

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-mq/understudy/session"
)

// SessionStatus is one session, for a status page.
type SessionStatus struct {
	ID      uint64 // from 1, in order of accept
	Client  string // address
	Since   time.Time
	Waiting string // why there is no broker for it now; "" if there is one, or it is on its way
	Report  session.Report
}

// Sessions is a snapshot, by ID.
func (p *Proxy) Sessions() []SessionStatus {
	links := p.all()
	out := make([]SessionStatus, 0, len(links))
	for _, l := range links {
		out = append(out, l.status())
	}
	return out
}

// Sever breaks the broker leg of sessions on purpose, as a fault would, and returns how many it asked: those with the ids, or all if none is named.
func (p *Proxy) Sever(why error, ids ...uint64) int {
	n := 0
	for _, l := range p.all() {
		if len(ids) == 0 || slices.Contains(ids, l.id) {
			l.sever(why)
			n++
		}
	}
	return n
}

// Shutdown stops accepting, waits for sessions to end by themselves until ctx is done (DrainTimeout if it has no deadline), then closes
// the rest, and returns when every goroutine has ended: nil if no session had to be closed, ErrDrained otherwise. Further calls wait as
// well, and the first deadline to pass counts.
func (p *Proxy) Shutdown(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.cfg.DrainTimeout)
		defer cancel()
	}
	// First nobody new: a client that is turned away now connects to the next sidecar, instead of being cut off in a moment.
	if left := p.stopAccepting(); left > 0 {
		p.cfg.Logger.Info("draining: no new clients", "sessions", left)
	}
	var err error
	select {
	case <-p.empty:
	case <-ctx.Done():
		// The time is over: what is left would be killed with the process, without the chance to write what is queued for its client.
		if left := len(p.all()); left > 0 {
			err = fmt.Errorf("%w: %d closed", ErrDrained, left)
			p.cfg.Logger.Warn("draining: closing the sessions that are left", "sessions", left)
		}
		p.cancel(ErrDrained)
		<-p.empty
	}
	// Also without sessions: an accept loop may be in its back-off.
	p.cancel(ErrClosed)
	p.joined.Wait()
	p.metrics.close()
	return err
}

func (p *Proxy) stopAccepting() (left int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closing {
		p.closing = true
		if err := p.cfg.Listener.Close(); err != nil {
			p.cfg.Logger.Warn("close the listener", "err", err)
		}
		if len(p.links) == 0 {
			close(p.empty)
		}
	}
	return len(p.links)
}
