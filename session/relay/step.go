package relay

import (
	"net"
	"time"

	"github.com/understudy-mq/understudy/session"
)

// leg is one side of the connection. Fields are guarded by Conn.mu but for what its reader and its writer own.
type leg struct {
	conn    net.Conn // nil while there is none
	name    string
	raw     socket    // for what only sockets can tell
	writing bool      // a goroutine is draining the queue
	since   time.Time // when its reader began to wait for octets; zero while it does something else
	busy    time.Time // when it began to do something else
	inline  bool      // the reader of the other leg is writing it
	deep    bool      // its reader has had something to do since it last began with a fresh stack
	poked   bool      // its reader was woken to begin with one: the deadline of reads is in the past
	written uint64    // octets the kernel took since the leg came up
	arrived uint64    // octets reported by Wrote
	gone    bool      // write errors were reported, what is queued is discarded
	secure  bool      // TLS: a write that was interrupted cannot go on, and the kernel counts other octets

	in input // owned by the reader, chunk references under mu
	vec
}

// neither is the natural leg of a goroutine that reads none.
const neither = session.Leg(2)

// While the client is paused or its kernel is watched, its socket is looked at this often: a close cannot be seen by reading then.
const (
	pausedPoll  = time.Second
	arrivalPoll = 2 * time.Millisecond // at first; while nothing arrives it doubles
	arrivalMost = 100 * time.Millisecond
	movingPoll  = 100 * time.Millisecond
	busyPoll    = 500 * time.Millisecond
)

// step calls the recorder under the mutex and carries out what it asked for. natural is the leg that the calling goroutine does not
// read and so may block on; it writes that one itself.
func (c *Conn) step(natural session.Leg, call func(out *session.Out)) {
	c.mu.Lock()
	c.stepLocked(natural, true, call)
}

// stepLocked is step for who holds the mutex already, which it lets go. A caller that is not the reader of a leg must not be held.
func (c *Conn) stepLocked(natural session.Leg, reader bool, call func(out *session.Out)) {
	if c.closed {
		c.mu.Unlock()
		return
	}
	now := time.Now()
	c.out.Now = now
	c.out.Listening = [2]time.Time{c.legs[session.Client].since, c.legs[session.Broker].since}
	call(&c.out)
	c.account()
	live := c.obey(now)
	var event *Event
	if live {
		event = c.describe(Live, c.legs[session.Broker].name, nil, now)
	}
	mine := false
	for l := range c.legs {
		leg := &c.legs[l]
		if c.sealed {
			c.out.Discard(session.Leg(l))
		}
		if leg.writing || c.out.Queued(session.Leg(l)) == 0 {
			continue
		}
		leg.writing = true
		if session.Leg(l) == natural && !(natural == session.Client && leg.secure) {
			mine, leg.inline = true, true
		} else {
			c.startDrain(session.Leg(l))
		}
	}
	if !live && reader {
		c.hold(natural, mine)
	}
	c.mu.Unlock()
	if live {
		c.tell(event)
	}
	if mine {
		c.drain(natural)
	}
}

// startDrain has a goroutine of its own write what is queued for a leg.
func (c *Conn) startDrain(l session.Leg) {
	c.wg.Go(func() { c.drain(l) })
}

// maxQueued is how many octets may wait for a leg that somebody else is writing before the reader of the other leg waits too. Without it
// a client that reads nothing would be buffered for without a limit.
const maxQueued = 256 << 10

// hold is the back-pressure of a reader that does not write itself. It is called under the mutex.
func (c *Conn) hold(natural session.Leg, mine bool) {
	for natural != neither && !mine && c.legs[natural].writing && c.out.Queued(natural) > maxQueued && c.fault == nil && c.moving == nil {
		c.changed.Wait()
	}
}

// obey carries out what the recorder wished for besides octets; live reports that the session has just come up.
func (c *Conn) obey(now time.Time) (live bool) {
	if c.out.Live {
		c.out.Live, c.live, live = false, true, true
	}
	if why := c.out.Move; why != nil {
		c.out.Move = nil
		c.abandon(why)
	}
	if c.out.End != nil {
		c.setFault(c.out.End)
	}
	c.arm(now)
	c.changed.Broadcast()
	return live
}

// abandon makes the broker connection end; its reader then calls Down. It is called under the mutex.
func (c *Conn) abandon(why error) {
	if leg := &c.legs[session.Broker]; leg.conn != nil && c.moving == nil {
		c.moving = why
		c.hangUp(leg.conn)
	}
}

// hangUp closes a broker connection: by a reset when the session goes on elsewhere, so that nothing it sent is applied late, and in order when
// the session is over. It is called under the mutex, and never blocks.
func (c *Conn) hangUp(conn net.Conn) {
	switch {
	case c.fault == nil:
		Reset(conn)
	case secure(conn) && !c.sealed:
		c.wg.Go(func() { _ = conn.Close() }) // says good-bye, for which it may have to wait
	default:
		_ = conn.Close()
	}
}

// arm sets the timer to the recorder's wish or our own need, whichever is first. Wishes move with every frame, so a later one leaves the
// timer alone: it fires early, finds nothing due, and is armed again.
func (c *Conn) arm(now time.Time) {
	wake := c.out.Wake
	sooner := func(d time.Duration) {
		if t := now.Add(d); wake.IsZero() || t.Before(wake) {
			wake = t
		}
	}
	client := &c.legs[session.Client]
	if c.out.Arrival && client.arrived < client.written {
		sooner(max(c.arrivalWait, arrivalPoll))
	}
	if c.out.Pause[session.Client] {
		sooner(pausedPoll)
	}
	if c.overdraft {
		sooner(budgetPoll)
	}
	if broker := &c.legs[session.Broker]; broker.conn != nil && broker.since.IsZero() {
		sooner(busyPoll)
	}
	if wait := now.Add(movingPoll); c.moving != nil && wake.Before(wait) {
		wake = wait // what is due is that connection's end, and its reader may have to finish a write to the client first
	}
	if c.fault != nil || wake.IsZero() || !c.armed.IsZero() && !wake.Before(c.armed) {
		return
	}
	c.armed = wake
	c.timer.Reset(max(wake.Sub(now), 0))
}

// tick is the timer's. Its goroutine writes to the broker itself: what is due is a heart-beat, most often.
func (c *Conn) tick() {
	c.mu.Lock()
	c.armed = time.Time{}
	if c.fault != nil {
		c.mu.Unlock()
		return
	}
	c.wg.Add(1) // close waits only once the fault is set
	defer c.wg.Done()
	client := &c.legs[session.Client]
	if c.out.Pause[session.Client] || c.overdraft {
		// What it sent before it left still counts. It is no more than the kernel has of it, so the pause need not be kept.
		c.hungUp = c.hungUp || client.raw.hungUp()
	}
	c.freeReader(time.Now())
	c.stepLocked(session.Broker, false, func(out *session.Out) {
		if c.fault != nil {
			return
		}
		c.observeArrival(out)
		if !out.Wake.IsZero() && !out.Now.Before(out.Wake) {
			c.rec.Tick(out)
		}
	})
}

// freeReader looks after a broker connection whose reader has long been held up by a client that does not read. It cannot notice the
// broker's end, nor act on the wish to leave it, and messages that the client holds have to be claimed in time: the write is taken
// from it. It is called under the mutex.
func (c *Conn) freeReader(now time.Time) {
	broker, client := &c.legs[session.Broker], &c.legs[session.Client]
	if c.fault != nil || broker.conn == nil || !broker.since.IsZero() || now.Sub(broker.busy) < busyPoll {
		return
	}
	if c.moving == nil && broker.raw.hungUp() {
		c.abandon(errClosed)
	}
	if c.moving != nil && client.inline {
		c.interrupted = true
		_ = client.conn.SetWriteDeadline(time.Unix(1, 0))
	}
}

// observeArrival tells the recorder how far the client's kernel has got. It is called under the mutex.
func (c *Conn) observeArrival(out *session.Out) {
	client := &c.legs[session.Client]
	if client.gone || client.arrived == client.written || !out.Arrival {
		return
	}
	held := uint64(client.raw.unacknowledged())
	if client.secure && held > 0 {
		held = client.written // a record is of use only when all of it is there, and where it ends in the kernel's queue nobody knows
	}
	total := client.written - min(held, client.written)
	c.arrivalWait = min(2*max(c.arrivalWait, arrivalPoll), arrivalMost)
	if total > client.arrived {
		c.arrivalWait = arrivalPoll
		client.arrived = total
		c.rec.Wrote(session.Client, total, out)
	}
}
