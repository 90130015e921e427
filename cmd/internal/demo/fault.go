package demo

import (
	"context"
	"time"
)

// fault kills the active broker (or breaks the connections to it) at a moment when a SEND is unconfirmed and a MESSAGE unacknowledged, waits
// until every client has heard of the new epoch, and brings the killed one back as standby.
func (r *run) fault(ctx context.Context) error {
	victim, heir := r.cluster.members[r.active], r.cluster.members[1-r.active]
	before, err := r.awaitInFlight(ctx)
	if err != nil {
		return err
	}
	r.silence.begin(r.listeners())
	defer r.silence.end()
	at := time.Now()
	var sends, unacked int
	var claimed time.Time
	if r.cfg.Fault == FaultReset {
		n := victim.front.reset()
		sends, unacked = r.ledger.still(before)
		r.say("RESET  %d connections to %s, which lives on: %d sends unconfirmed, %d messages unacknowledged", n, victim.host, sends, unacked)
		claimed, err = r.awaitReconnect(ctx, victim, at)
	} else {
		pid := victim.process.pid()
		_ = victim.process.cmd.Process.Kill()
		r.memory.roles(nil, heir.process)
		sends, unacked = r.ledger.still(before)
		<-victim.process.gone
		dead := time.Now()
		r.serving("nobody")
		r.say("KILL   %s (pid %d, SIGKILL): %d sends unconfirmed, %d messages unacknowledged", victim.host, pid, sends, unacked)
		if r.epoch, claimed, err = r.cluster.awaitActive(ctx, heir); err == nil {
			r.active = 1 - r.active
			r.memory.roles(heir.process, nil)
			r.serving("%s epoch %d", heir.host, r.epoch)
			r.say("ACTIVE %s, epoch %d, %.1f ms after the kill", heir.host, r.epoch, milliseconds(claimed.Sub(at)))
		}
		if claimed.Before(dead) {
			claimed = dead
		}
	}
	r.result.Kills++
	r.result.InFlight.Sends += sends
	r.result.InFlight.Unacked += unacked
	if err != nil {
		return err
	}
	if err := r.awaitClients(ctx, claimed); err != nil {
		return err
	}
	if r.cfg.Fault == FaultReset {
		return nil
	}
	return r.revive(ctx, victim)
}

// awaitReconnect waits for the sidecar's first connection after a reset.
func (r *run) awaitReconnect(ctx context.Context, m *member, after time.Time) (first time.Time, err error) {
	err = await(ctx, r.cfg.TakeoverTimeout, "the sidecar to connect again", func() (bool, error) {
		first = m.front.latest()
		return first.After(after), m.process.ended()
	})
	return first, err
}

// awaitClients waits until every client has heard something of the new epoch, and notes how long each was without.
func (r *run) awaitClients(ctx context.Context, claimed time.Time) error {
	heard, err := r.awaitHeard(ctx, claimed)
	if err != nil {
		return err
	}
	r.silences = append(r.silences, heard...)
	p50, most := spread(heard)
	r.say("HEARD  by %d of %d listening clients: silence p50 %.1f ms, max %.1f ms", len(heard), r.listeners(), milliseconds(p50), milliseconds(most))
	return nil
}

// revive starts the killed broker again; it finds the store taken and stands by.
func (r *run) revive(ctx context.Context, m *member) error {
	if err := r.cluster.startBroker(ctx, m); err != nil {
		return err
	}
	err := await(ctx, r.cfg.StartTimeout, m.host+" to stand by", func() (bool, error) {
		state, err := r.cluster.state(ctx, m)
		return err == nil && state.Role == "standby", m.process.ended()
	})
	if err == nil {
		r.memory.roles(r.cluster.members[r.active].process, m.process)
		r.say("BACK   %s stands by (pid %d)", m.host, m.process.pid())
	}
	if err == nil && r.result.Backlog != nil {
		err = r.awaitCopy(ctx, m)
	}
	return err
}
