package broker

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/understudy-mq/understudy/broker/journal"
)

// A bequest is what an orderly hand-over does for subscriptions of sidecar sessions to topics: their backlogs, which are in no journal, are written to it,
// for the next holder. From then on they are messages like all others: found by claims, read when somebody comes to them, relocated, and ended by
// records, so that none comes twice, whatever happens next.
//
// A crash leaves none, or a front of one. That is no worse than a crash is anyway: what a topic's subscriber has not got is lost.

// maxBequest bounds the names of those that one record is for. A message that more have to get is in several.
const maxBequest = 64 << 10

// legacy is a topic's message, and the backlogs that it is in.
type legacy struct {
	msg  *message
	subs []*subscription
}

// bequeath writes the backlogs of topics to the journal, once nothing is taken from clients any more and nothing more is sent to them, and before the last
// sync. Whatever this server did of them afterwards would come again. It returns how many copies the journal did not take: those are lost.
func (s *store) bequeath() (lost int) {
	all := s.estate()
	copies := 0
	for _, l := range all {
		n, err := s.bequest(l)
		if err != nil && lost == 0 {
			s.slog.Warn("what is kept of topics for sidecar sessions could not all be handed over, and is lost", "error", err)
		}
		lost += len(l.subs) - n
		copies += n
	}
	s.count.dropped.Add(lost)
	s.count.bequeathed.Add(copies)
	if copies > 0 {
		s.slog.Info("topic messages handed over for sidecar sessions", "messages", len(all), "copies", copies)
	}
	return lost
}

// estate lists what is to be handed over, in the order in which it was published.
func (s *store) estate() (all []*legacy) {
	found := map[*common]*legacy{}
	for _, c := range s.sessions {
		for _, sub := range c.subs {
			if sub.topic == nil || sub.queue == nil {
				continue
			}
			sub.queue.each(func(at slot) {
				m := at.message()
				if m == nil || m.common == nil || m.state == done || s.expired(m) {
					return
				}
				l := found[m.common]
				if l == nil {
					l = &legacy{msg: m}
					found[m.common] = l
					all = append(all, l)
				}
				l.subs = append(l.subs, sub)
			})
		}
	}
	slices.SortFunc(all, func(a, b *legacy) int { return cmp.Compare(a.msg.common.number, b.msg.common.number) })
	return all
}

// bequest journals one message. It returns for how many it did.
func (s *store) bequest(l *legacy) (n int, err error) {
	names := max(min(maxBequest, s.cfg.MaxRecord-recordOverhead-len(l.msg.data)), binary.MaxVarintLen64) / binary.MaxVarintLen64
	for n < len(l.subs) {
		some := l.subs[n:min(n+names, len(l.subs))]
		for _, sub := range some {
			if err := s.number(sub); err != nil {
				return n, err
			}
		}
		s.scratch = appendBequest(s.scratch[:0], l.msg, some)
		live := len(some)
		e := journal.Entry{Type: recBequest, Payload: s.scratch, Front: l.msg.front(s.scratch), Account: journal.Account{Live: live, Bytes: int64(live) * l.msg.stored()}}
		if _, err := s.append(e, pend{}); err != nil {
			return n, err
		}
		n += live
	}
	return n, nil
}

// number gives a backlog a name in the journal.
func (s *store) number(sub *subscription) error {
	if sub.queue.number > 0 {
		return nil
	}
	s.scratch = appendBacklog(s.scratch[:0], sub)
	at, err := s.append(journal.Entry{Type: recBacklog, Payload: s.scratch}, pend{})
	if err != nil {
		return err
	}
	sub.queue.number = at.LSN
	s.backlogs[at.LSN] = sub.queue
	return nil
}

func appendBacklog(b []byte, sub *subscription) []byte {
	return appendText(appendSessionID(b, sub.session.id), sub.id)
}

func appendBequest(b []byte, m *message, subs []*subscription) []byte {
	b = appendText(appendID(b, m.id), m.dest.name)
	b = binary.AppendUvarint(b, uint64(len(subs)))
	for _, sub := range subs {
		b = binary.AppendUvarint(b, uint64(sub.queue.number))
	}
	b = appendText(b, m.data[:m.split])
	return append(b, m.data[m.split:]...)
}
