package history

import (
	"time"

	"github.com/anishathalye/porcupine"
)

// state is that of one message.
type state struct {
	at     int
	holder string
}

const (
	absent = iota
	ready
	held
	over
)

// Messages judges each message by itself.
func Messages(ops []Op, within time.Duration) Verdict {
	parts := parted(ops, func(o Op) string { return o.Queue + " " + o.Message })
	v := judge(parts, porcupine.Model{
		Init: func() any { return state{} },
		Step: func(s, in, _ any) (bool, any) {
			ok, after := s.(state).step(in.(Op))
			return ok, after
		},
	}, within)
	v.Messages = len(parts)
	return v
}

// step is what an operation does to a message, and whether it can.
func (s state) step(o Op) (bool, state) {
	mine := s.at == held && s.holder == o.Client
	switch o.Kind {
	case Send:
		return s.at == absent, state{at: ready}
	case Receive:
		return s.at == ready, state{held, o.Client}
	case Ack:
		if mine {
			return true, state{at: over}
		}
		return o.open, s
	case Return:
		if mine {
			return true, state{at: ready}
		}
		return true, s
	case Drained:
		return s.at != ready, s
	}
	return false, s
}
