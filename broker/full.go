package broker

import (
	"errors"
	"strings"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// A full store. There are two ways to be full, and one answer. Memory is full when the messages in it exceed MaxMemory; the disk is, when the journal
// can make no further segment and the last one has no room for what a producer brings. A producer whose frame does not fit is no longer
// read, which TCP tells it; after FullTimeout it is told in words, and its connection ends. Everything else goes on: what was stored is delivered,
// acknowledgements are journaled (the journal keeps space for them), and that is what makes room again. Heart-beats flow all the time.
//
// Nothing is half done: a frame that does not fit changed nothing, and is handled from the beginning once there is room.

// accept applies r. It reports false if r does not fit, and then nothing of it has happened; p will be woken when that may have changed.
func (s *store) accept(p *peer, r *request) bool {
	if !s.fits(p, r) {
		return false
	}
	s.handle(p, r)
	if !p.untaken {
		return true
	}
	p.untaken, p.stuck = false, true
	s.fits(p, r) // have p woken
	return false
}

// fits reports whether there may be room for what r brings.
func (s *store) fits(p *peer, r *request) bool {
	if p.deaf() || r.fault != nil || !s.unstorable(p, r) {
		return s.admit(p, r)
	}
	if !p.unstored {
		p.unstored = true
		s.unstored = append(s.unstored, p)
	}
	return false
}

// unstorable reports whether r has to wait for space on the disk: because it brings something, or because not even the reserve had room for it.
func (s *store) unstorable(p *peer, r *request) bool {
	return s.diskFull && (p.stuck || s.keeps(p, r))
}

// keeps reports whether r brings something that the journal is to keep.
func (s *store) keeps(p *peer, r *request) bool {
	if p.sidecar && r.isEffect() && r.effect <= p.session.accepted {
		return false // it will only be confirmed
	}
	switch {
	case r.command == frame.Send && r.tx == nil:
		return r.message != nil && s.lasts(string(r.dest), r.message)
	case r.command == frame.Commit:
		if t := p.txs[string(r.tx)]; t != nil {
			for _, send := range t.sends {
				if s.lasts(send.dest, send.msg) {
					return true
				}
			}
		}
	}
	return false
}

// lasts reports whether a message to dest would outlive the server.
func (s *store) lasts(dest string, m *message) bool {
	if m.transient {
		return false
	}
	if strings.HasPrefix(dest, topicPrefix) {
		t := s.topics[dest]
		return t != nil && len(t.durables) > 0
	}
	q := s.queues[dest]
	return q == nil && !strings.HasPrefix(dest, remotePrefix) || q != nil && !q.fleeting()
}

// noRoom notes that the journal did not take a record. If it is only behind with its files, whoever appends too fast waits for a moment, and there is nothing
// to be said about that.
func (s *store) noRoom(err error) {
	if errors.Is(err, journal.ErrBehind) {
		s.diskSlow = s.diskSlow || !s.diskFull
		s.diskFull = true
		return
	}
	if !s.diskFull || s.diskSlow {
		s.diskFull, s.diskSlow = true, false
		s.slog.Warn("messages are held back, then refused: the disk is full, until there is space or enough was consumed", "timeout", s.cfg.FullTimeout.String())
	}
}

// space is the journal's word that the disk is full, or is no longer. Until a record does not fit, that holds nobody back.
func (s *store) space(full bool) {
	s.diskLow = full
	if !s.diskFull {
		return
	}
	if full {
		s.noRoom(journal.ErrFull)
		return
	}
	if !s.diskSlow {
		s.slog.Info("messages are taken again: the disk has space", "waiting", len(s.unstored))
	}
	s.diskFull, s.diskSlow = false, false
	for _, p := range s.unstored {
		p.unstored, p.stuck = false, false
		s.touch(p)
	}
	clear(s.unstored)
	s.unstored = s.unstored[:0]
}

// outOfSpace reports whether the disk is full, as far as is known.
func (s *store) outOfSpace() bool { return s.diskLow || s.diskFull && !s.diskSlow }

// overflow is what a producer hears that has waited long enough.
func (s *store) overflow(p *peer, r *request) *fault {
	const advice = "nothing of this frame was stored; send it again later"
	if s.unstorable(p, r) {
		return faultf("disk full", "%v, and has been for %v: %s, when messages have been consumed or the operator has made space",
			journal.ErrFull, s.cfg.FullTimeout.Round(time.Millisecond), advice)
	}
	return faultf("out of memory", "%v: %d octets of messages wait to be consumed, %d are allowed; %s", errFull, s.memory, s.cfg.MaxMemory, advice)
}
