package broker

import (
	"bytes"
	"container/heap"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// Expiry. A message whose expires header, in milliseconds since 1970, has passed is delivered to nobody. As ActiveMQ has it, a durable one goes to
// the queue of dead letters, with the header original-destination, and one that is in no journal, or came from a topic to a session that is away, is dropped. One that somebody holds, or may
// hold for all that is known after a take-over, is left alone until it comes back.

// deadline is when a message expires, and where the store's heap of them has it.
type deadline struct {
	at    time.Time
	index int
	msg   *message // or, of what is out in it:
	page  *page
}

// deadlineOf reads an expires header; nil if the message does not expire.
func deadlineOf(v []byte) *deadline {
	ms, ok := frame.ParseUint(v)
	if !ok || ms == 0 || ms > 1<<53 {
		return nil
	}
	return &deadline{at: time.UnixMilli(int64(ms))}
}

// recheck is how long a message that may not be touched yet is left alone.
const recheck = time.Second

func (s *store) expired(m *message) bool { return m.deadline != nil && !s.now.Before(m.deadline.at) }

// watch has the clock look after a message that is on a queue now.
func (s *store) watch(m *message) {
	if d := m.deadline; d != nil {
		own := *d // copies of a topic's message have one each
		own.msg, m.deadline = m, &own
		heap.Push(&s.deadlines, &own)
	}
}

func (s *store) unwatch(m *message) {
	if m.deadline != nil {
		heap.Remove(&s.deadlines, m.deadline.index)
		m.deadline = nil
	}
}

// expireMessages ends what has expired and is in nobody's hands. At most limit messages are looked at.
func (s *store) expireMessages(limit int) {
	for ; limit > 0 && len(s.deadlines) > 0 && !s.now.Before(s.deadlines[0].at); limit-- {
		d := s.deadlines[0]
		if d.page != nil {
			if q := d.page.lane.queue; !q.gated() && q.damage == nil {
				s.want(d.page, nil)
			}
		} else if m := d.msg; m.state == ready && !(m.recovered && m.queue.gated()) {
			if m.away {
				s.want(m.page, nil)
			} else if s.bury(m) {
				continue
			}
		}
		d.at = s.now.Add(recheck)
		heap.Fix(&s.deadlines, d.index)
	}
}

// bury takes an expired message from its queue. It reports whether it could: the journal may not take more.
func (s *store) bury(m *message) bool {
	q := m.queue
	s.count.expired.Inc()
	if m.transient || s.backlogs[q.number] == q || q.name == s.cfg.DeadLetters {
		s.discard(m)
		s.unwatch(m)
		return true
	}
	dead := &message{id: m.id, prio: m.prio}
	dead.data, dead.split = obituary(m)
	s.scratch = appendMove(s.scratch[:0], m, s.cfg.DeadLetters, dead)
	s.ends = append(s.ends[:0], m.ending())
	e := journal.Entry{Type: recMove, Payload: s.scratch, Front: dead.front(s.scratch), Reserve: true, Account: journal.Account{Live: 1, Bytes: dead.stored(), Ends: s.ends}}
	at, err := s.append(e, pend{})
	if err != nil {
		return false
	}
	s.enqueue(s.queue([]byte(s.cfg.DeadLetters)), dead, at, 0)
	m.state = done
	s.remove(m)
	return true
}

// obituary is the headers and the body of a dead letter: it expires no more, and says where it was.
func obituary(m *message) (data []byte, split int32) {
	for lines := m.data[:m.split]; len(lines) > 0; {
		end := bytes.IndexByte(lines, '\n') + 1
		if end == 0 {
			break // in a record that this broker did not write
		}
		if !bytes.HasPrefix(lines, []byte("expires:")) && !bytes.HasPrefix(lines, []byte("original-destination:")) {
			data = append(data, lines[:end]...)
		}
		lines = lines[end:]
	}
	data = append(data, "original-destination:"...)
	data = append(frame.Escape(data, []byte(m.dest.name), frame.V12), '\n')
	return append(data, m.data[m.split:]...), int32(len(data))
}

// deadlines is a heap, the earliest first.
type deadlines []*deadline

func (h deadlines) Len() int           { return len(h) }
func (h deadlines) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h deadlines) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *deadlines) Push(x any) {
	d := x.(*deadline)
	d.index = len(*h)
	*h = append(*h, d)
}

func (h *deadlines) Pop() any {
	last := len(*h) - 1
	d := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return d
}
