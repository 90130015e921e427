package sessiontest

import (
	"time"

	"github.com/understudy-mq/understudy/session"
)

// linkActs collects what can happen on the broker's side of the shell.
func (w *World) linkActs() {
	s := &w.shell
	if w.due(w.broker.Wake()) {
		w.act(brokerSteps)
	}
	for i := 0; i < len(w.links); i++ {
		l := w.links[i]
		mine := l == s.link && !w.closed
		if l.gone && !mine {
			w.links = append(w.links[:i], w.links[i+1:]...)
			i--
			continue
		}
		if l.toBroker.len() > 0 && !l.stalled && !l.gone {
			w.on(l, brokerReads)
		}
		if l.broken && !l.gone && (l.toBroker.len() == 0 || l.stalled) && l.noticeAt <= w.now {
			w.on(l, brokerLearns)
		}
		if mine && !s.ended {
			w.mine(l)
		}
	}
}

// mine collects what can happen on the current link.
func (w *World) mine(l *link) {
	s := &w.shell
	if s.move != nil {
		w.on(l, shellLeaves)
		return
	}
	if s.queued(session.Broker) && l.toBroker.len() < wireRoom && (!l.broken || l.stalled) && !l.hung {
		w.act(shellWritesBroker)
	}
	if l.stalled && l.thawAt > 0 && l.thawAt <= w.now {
		// In login and replay a recorder may be more patient; once it runs, what comes now is from somebody who was replaced.
		l.stalled, l.woken, l.broken = false, w.live, true
		w.Tracef("link %d: wakes up with %d octets; the recorder is in state %s", l.id, l.toShell.len(), w.state())
	}
	if l.stalled {
		return
	}
	if l.toShell.len() > 0 && (!s.paused[session.Broker] || w.Rand.Uint32()&255 == 0) {
		w.on(l, shellReadsBroker)
	}
	if (l.broken || l.hung) && l.toShell.len() == 0 {
		w.on(l, shellLoses)
	}
}

// leave answers the recorder's wish to move: the connection is closed, with a FIN behind what was written, or cut.
func (w *World) leave(l *link) {
	if w.Rand.Chance(50) {
		l.toBroker.truncate(w.Rand.IntN(l.toBroker.len() + 1))
	}
	l.broken, l.noticeAt = true, w.now+w.Rand.Span(0, 100*time.Millisecond)
	l.toShell = fifo{}
	w.shell.down(w.shell.whyDown(l))
}

func (w *World) writeBroker() {
	s := &w.shell
	p := s.write(session.Broker, wireRoom)
	w.Moved[session.Broker][0] += len(p)
	s.wrote[session.Broker] += uint64(len(p))
	s.link.toBroker.push(p)
}

// brokerReads moves octets to the server, up to the octet at which a fault is due.
func (w *World) brokerReads(l *link) {
	n := w.Rand.Piece(l.toBroker.len())
	f := l.fault
	due := f != nil && !f.Down && !l.broken && l.read+n >= f.Octet
	if due {
		n = f.Octet - l.read
	}
	if n > 0 {
		l.read += n
		w.broker.Read(l.id, l.toBroker.pop(n))
	}
	if due && !l.gone {
		w.strike(l)
	}
}

func (w *World) readBroker(l *link) {
	n := w.Rand.Piece(l.toShell.len())
	f := l.fault
	due := f != nil && f.Down && !l.broken && l.got+n >= f.Octet
	if due {
		n = f.Octet - l.got
	}
	if n > 0 {
		l.got += n
		w.Moved[session.Broker][1] += n
		before := w.shell.backlog()
		w.shell.read(session.Broker, l.toShell.pop(n))
		if l.woken && w.shell.backlog() > before {
			w.Fail("woken", "the client is sent what came from a server after a silence in which it was replaced")
		}
	}
	if due && w.shell.link == l && w.shell.move == nil {
		w.strike(l)
	}
}

// strike lets the link's fault happen.
func (w *World) strike(l *link) {
	f := *l.fault
	l.fault = nil
	w.Struck++
	w.matrix.struck(w, l, f)
	w.Tracef("FAULT %v", f)
	w.downUntil = w.now + f.Downtime
	l.toBroker.truncate(l.toBroker.len() * f.KeepUp / 100)
	l.noticeAt = w.now + f.Notice
	switch f.Kind {
	case Reset:
		l.broken = true
		l.toShell.truncate(l.toShell.len() * f.KeepDown / 100)
	case Stall:
		l.stalled, l.broken = true, true
		l.toBroker = fifo{}
		l.noticeAt += 10 * time.Second
	case Crash:
		w.broker.Crash(f.Durable)
		l.toShell.truncate(l.toShell.len() * f.KeepDown / 100) // the server may have had a last word
		for _, o := range w.links {
			o.gone, o.broken, o.toBroker = true, true, fifo{}
		}
	case Freeze:
		w.broker.Crash(f.Durable)
		if w.Rand.Chance(50) { // the machine of the sidecar was stopped as well: its timers are as late as the octets
			w.lagUntil = w.now + f.Notice
		}
		l.stalled, l.gone, l.thawAt, l.toBroker = true, true, w.now+f.Notice, fifo{}
	case Handover:
		w.broker.Handover()
	}
	if f.Refuse > 0 {
		w.broker.Refuse(f.Refuse)
	}
	if f.Leave {
		w.leaveAt = w.now + w.Rand.Span(time.Millisecond, max(f.Downtime, 2*time.Millisecond))
	}
}
