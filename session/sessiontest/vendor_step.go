package sessiontest

import (
	"slices"
	"time"
)

func (b *vendor) Settled() bool {
	if len(b.conns) > 0 || b.pending && b.upAt <= b.w.Now() {
		return false
	}
	for _, ch := range b.journal {
		if !ch.slow {
			return false
		}
	}
	return true
}

func (b *vendor) Wake() (at time.Duration, ok bool) {
	earliest := func(t time.Duration) {
		if !ok || t < at {
			at, ok = t, true
		}
	}
	if b.pending {
		earliest(b.upAt)
	}
	if len(b.journal) > 0 {
		earliest(b.syncAt)
	}
	if b.electing > b.w.Now() {
		earliest(b.electing)
	}
	for _, s := range b.supply {
		if s.left > 0 {
			earliest(max(s.at, b.upAt))
		}
	}
	for _, r := range b.rivals {
		if len(r.sent) > 0 {
			earliest(max(r.actAt, b.upAt))
		}
	}
	for _, c := range b.conns {
		if c.beat > 0 && c.state == running {
			earliest(c.lastOut + b.beatEvery(c))
		}
		if c.expect > 0 && c.state == running {
			earliest(c.lastIn + b.patience(c))
		}
	}
	return at, ok
}

// Step does one thing that is due.
func (b *vendor) Step() {
	now := b.w.Now()
	if len(b.journal) > 0 && b.syncAt <= now && (!b.pending || b.w.Rand.Uint32()&1 == 0) {
		b.sync(false)
		return
	}
	if b.pending && b.upAt <= now {
		b.sweep()
		b.pending = b.dispatch()
		return
	}
	if b.electing > 0 && b.electing <= now {
		b.electing, b.pending = 0, true
	}
	for i := range b.supply {
		if s := &b.supply[i]; s.left > 0 && s.at <= now && b.upAt <= now {
			s.left--
			s.at = now + b.w.Rand.Span(0, 30*time.Millisecond)
			b.produce(s.dest)
		}
	}
	for _, r := range b.rivals {
		if len(r.sent) > 0 && r.actAt <= now && b.upAt <= now {
			b.rival(r)
		}
	}
	b.timers(now)
}

func (b *vendor) timers(now time.Duration) {
	for _, c := range slices.Clone(b.conns) {
		if c.state != running {
			continue
		}
		if c.beat > 0 && c.lastOut+b.beatEvery(c) <= now {
			c.lastOut = now
			b.w.Send(c.link, []byte{'\n'})
		}
		if c.expect > 0 && c.lastIn+b.patience(c) <= now {
			b.w.Tracef("broker %d: silent for too long", c.link)
			b.hangup(c)
		}
	}
}

// rival lets the other consumer acknowledge what it holds, or lose its connection.
func (b *vendor) rival(r *vsub) {
	if r.droppy && b.w.Rand.Chance(20) {
		b.release(r, true)
		return
	}
	list := slices.Clone(r.sent)
	for _, m := range list {
		m.item.gone = true
		if r.answers {
			b.reply(m)
		}
	}
	b.commit(&change{ack: list})
}
