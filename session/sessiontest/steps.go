package sessiontest

import "github.com/understudy-mq/understudy/session"

// step is one thing that can happen next.
type step uint8

const (
	clientSteps step = iota
	clientTakes
	clientQuits
	clientAborts
	clientEnds
	shellReadsClient
	shellWritesClient
	shellTells
	shellFeeds
	shellTicks
	shellDials
	shellLeaves
	shellLoses
	shellFinishes
	shellWritesBroker
	shellReadsBroker
	brokerSteps
	brokerReads
	brokerLearns
)

// action is a step with what it concerns.
type action struct {
	what step
	leg  session.Leg
	link *link
}

func (w *World) on(l *link, what step) { w.acts = append(w.acts, action{what: what, link: l}) }

func (w *World) do(a action) {
	s := &w.shell
	switch a.what {
	case clientSteps:
		w.scratch = w.client.Step(w.scratch[:0])
		w.toSidecar.push(w.scratch)
	case clientTakes:
		w.clientTakes()
	case clientQuits:
		w.clientQuits()
	case clientAborts:
		w.toSidecar = fifo{}
		s.clientEOF(false)
	case clientEnds:
		s.clientEOF(true)
	case shellReadsClient:
		w.readClient()
	case shellWritesClient:
		w.writeClient()
	case shellTells:
		s.tell(a.leg)
	case shellFeeds:
		s.feed(a.leg)
	case shellTicks:
		s.tick()
	case shellDials:
		w.dial()
	default:
		w.doLink(a)
	}
}

func (w *World) doLink(a action) {
	l := a.link
	switch a.what {
	case shellLeaves:
		w.leave(l)
	case shellLoses:
		w.shell.down(w.shell.whyDown(l))
	case shellFinishes:
		w.finish()
	case shellWritesBroker:
		w.writeBroker()
	case shellReadsBroker:
		w.readBroker(l)
	case brokerSteps:
		w.broker.Step()
	case brokerReads:
		w.brokerReads(l)
	case brokerLearns:
		w.Tracef("link %d: the broker learns of its end", l.id)
		l.gone = true
		w.broker.Lost(l.id)
	}
}
