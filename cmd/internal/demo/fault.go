package demo

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// inFlightWait bounds the wait for a moment with something in the air.
const inFlightWait = 10 * time.Second

// freshSend is the age up to which a SEND is certainly still on its way: less than what a sync to disk takes.
const freshSend = 200 * time.Microsecond

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

// awaitInFlight waits for the moment, and returns what is in the air then. Sends that have only just begun are waited for, so that they are not
// confirmed in the little time that is left until the fault; a load that has none is taken as it is after a while.
func (r *run) awaitInFlight(ctx context.Context) (inFlight, error) {
	began := time.Now()
	for {
		f := r.ledger.snapshot()
		waited := time.Since(began)
		if len(f.unacked) >= 2 && (f.fresh(freshSend) > 0 || len(f.sends) > 0 && waited > inFlightWait/2) {
			return f, nil
		}
		switch {
		case r.brokenClients() > 0:
			return f, errClients
		case waited > inFlightWait:
			return f, fmt.Errorf("no fault was brought about: in %v there never was a moment with a SEND unconfirmed and 2 messages unacknowledged; raise --rate", inFlightWait)
		}
		if !sleepUntil(ctx, r.produced, time.Now().Add(50*time.Microsecond)) {
			return f, errors.Join(ctx.Err(), errNoMore)
		}
	}
}

// awaitReconnect waits for the sidecar's first connection after a reset.
func (r *run) awaitReconnect(ctx context.Context, m *member, after time.Time) (first time.Time, err error) {
	err = r.cluster.await(ctx, r.cfg.TakeoverTimeout, "the sidecar to connect again", func() (bool, error) {
		first = m.front.latest()
		return first.After(after), m.process.ended()
	})
	return first, err
}

// awaitClients waits until every client has heard something of the new epoch, and notes how long each was without.
func (r *run) awaitClients(ctx context.Context, claimed time.Time) error {
	var each []time.Duration
	err := r.cluster.await(ctx, r.cfg.TakeoverTimeout, "every client to hear of the new epoch", func() (bool, error) {
		waiting := 0
		each, waiting = r.silence.since(claimed)
		if r.brokenClients() > 0 {
			return false, errClients
		}
		select {
		case <-r.produced: // nothing more will come to those that still wait
			return true, nil
		default:
			return waiting == 0, nil
		}
	})
	if err != nil {
		return err
	}
	var heard []time.Duration
	for i, d := range each {
		if d > 0 {
			heard = append(heard, d)
			if r.cfg.Verbose {
				r.say("       %-11s silent for %6.1f ms", r.clients()[i].name, milliseconds(d))
			}
		}
	}
	r.silences = append(r.silences, heard...)
	p50, most := spread(heard)
	r.say("HEARD  by %d of %d listening clients: silence p50 %.1f ms, max %.1f ms", len(heard), len(each), milliseconds(p50), milliseconds(most))
	return nil
}

// revive starts the killed broker again; it finds the store taken and stands by.
func (r *run) revive(ctx context.Context, m *member) error {
	if err := r.cluster.startBroker(ctx, m); err != nil {
		return err
	}
	err := r.cluster.await(ctx, r.cfg.StartTimeout, m.host+" to stand by", func() (bool, error) {
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
