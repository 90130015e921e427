package broker

import (
	"cmp"
	"encoding/binary"
	"errors"
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

// What is handed over under one lock: writers, and the sync that clients wait for, want it as well.
const (
	bequestBytes   = 1 << 20
	bequestRecords = 1024
	bequestLooks   = 16 << 10 // at messages, to list them
)

// legacy is a topic's message, and the backlogs that it is in.
type legacy struct {
	number uint64 // of the publication
	heirs  []heir
}

// heir is a backlog's copy of a message.
type heir struct {
	sub *subscription
	msg *message
}

// waits reports whether there is anything to be handed over, still.
func (h heir) waits(s *store) bool {
	return h.msg.common != nil && h.msg.state != done && !h.sub.gone && !s.expired(h.msg)
}

// bequeath writes the backlogs of topics to the journal, once nothing is taken from clients any more and nothing more is sent to them, and before the last
// sync. Whatever this server did of them afterwards would come again. It returns how many copies the journal did not take: those are lost.
//
// Backlogs may be larger than the files that the journal has prepared, so that it has to make more meanwhile. Only a disk that is full, or takes too long for
// that, loses any. bequeath calls pause to let others have the store, and if it is behind, to wait for a file: false says that there is no time left for that.
func (s *store) bequeath(pause func(behind bool) bool) (lost int) {
	all := s.estate(pause)
	copies := 0
	for left := all; len(left) > 0; {
		n, written, err := s.bequests(left)
		left, copies = left[n:], copies+written
		switch {
		case err == nil && len(left) > 0:
			pause(false)
		case err == nil, errors.Is(err, journal.ErrBehind) && pause(true):
		default:
			if lost == 0 {
				s.slog.Warn("what is kept of topics for sidecar sessions could not all be handed over, and is lost", "error", err)
			}
			lost += len(left[0].heirs)
			left = left[1:] // another may be small enough
		}
	}
	s.count.dropped.Add(lost)
	s.count.bequeathed.Add(copies)
	if copies > 0 {
		s.slog.Info("topic messages handed over for sidecar sessions", "messages", len(all), "copies", copies)
	}
	return lost
}

// estate lists what is to be handed over, in the order in which it was published.
func (s *store) estate(pause func(behind bool) bool) (all []*legacy) {
	found := map[*common]*legacy{}
	looks := 0
	for _, c := range s.sessions { // one that goes in a pause has nothing to be handed over
		for _, sub := range c.subs {
			if sub.topic == nil || sub.queue == nil {
				continue
			}
			if looks >= bequestLooks {
				looks = 0
				pause(false)
			}
			sub.queue.each(func(at slot) {
				looks++
				m := at.message()
				if m == nil || !(heir{sub, m}).waits(s) {
					return
				}
				l := found[m.common]
				if l == nil {
					l = &legacy{number: m.common.number}
					found[m.common] = l
					all = append(all, l)
				}
				l.heirs = append(l.heirs, heir{sub, m})
			})
		}
	}
	slices.SortFunc(all, func(a, b *legacy) int { return cmp.Compare(a.number, b.number) })
	return all
}

// bequests journals as many as is good under one lock. It returns how many are done with, and with how many copies.
func (s *store) bequests(all []*legacy) (n, copies int, err error) {
	for octets := 0; n < len(all) && n < bequestRecords && octets < bequestBytes; n++ {
		written, size, err := s.bequest(all[n])
		copies += written
		if err != nil {
			return n, copies, err
		}
		octets += size
	}
	return n, copies, nil
}

// bequest journals one message. It returns for how many it did, of which l knows nothing more then, and with how many octets.
func (s *store) bequest(l *legacy) (n, octets int, err error) {
	l.heirs = slices.DeleteFunc(l.heirs, func(h heir) bool { return !h.waits(s) }) // it may have expired in a pause
	for len(l.heirs) > 0 {
		m := l.heirs[0].msg
		names := max(min(maxBequest, s.cfg.MaxRecord-recordOverhead-len(m.data)), binary.MaxVarintLen64) / binary.MaxVarintLen64
		some := l.heirs[:min(len(l.heirs), names)]
		subs := make([]*subscription, len(some))
		for i, h := range some {
			subs[i] = h.sub
			if err := s.number(h.sub); err != nil {
				return n, octets, err
			}
		}
		s.scratch = appendBequest(s.scratch[:0], m, subs)
		live := len(some)
		e := journal.Entry{Type: recBequest, Payload: s.scratch, Front: m.front(s.scratch), Account: journal.Account{Live: live, Bytes: int64(live) * m.stored()}}
		if _, err := s.append(e, pend{}); err != nil {
			return n, octets, err
		}
		n += live
		octets += len(e.Payload)
		l.heirs = l.heirs[live:]
	}
	return n, octets, nil
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
