package stomp

import "github.com/understudy-mq/understudy/session"

// Report implements session.Recorder.
func (r *Recorder) Report(p *session.Report) {
	*p = session.Report{
		State: [...]string{"park", "login", "replay", "run"}[r.phase], Broker: r.peer.Name, Store: r.store, Epoch: r.epoch, Since: r.since,
		WindowBytes: r.log.size, Unconfirmed: r.log.live, Unacked: r.held.count, Subscriptions: len(r.subs.list), Transactions: len(r.txs),
		Hidden: r.stats.hidden, Resent: r.stats.resent, LateAcks: r.stats.late, RolledBack: r.stats.rolledBack,
		LastSilence: r.stats.silence, ReplayedFrames: r.stats.played,
	}
	p.Takeovers = max(r.stats.lives, 1) - 1
	switch {
	case r.stage == ended:
		p.State = "end"
	case r.stage == leaving:
		p.State = "drain"
	}
	switch d := r.dialect; {
	case r.verbatim():
		p.NotResumable = "--replay=none"
	case d == nil:
	case r.marks.refused != "":
		p.NotResumable = "a SEND or COMMIT in doubt would stay unknown: " + r.marks.refused
	case d == &anyBroker:
		p.NotResumable = "a SEND or COMMIT in doubt would stay unknown: nothing is known of this kind of broker"
	}
	for _, t := range r.temps.names {
		if t.global != nil && string(t.global) == string(t.local) {
			p.NotResumable = "temporary queues of a client with a client-id end with their connection"
		}
	}
	for e := range r.log.all() {
		if e.doubt && e.effect != 0 {
			p.InDoubt++
		}
		if e.kind == beginEntry && e.tx.unplayable {
			p.NotResumable = "a transaction is too large to be played again; until its COMMIT"
		}
		if e.tx != nil {
			p.WindowBytes += e.frame.Len()
		}
	}
}
