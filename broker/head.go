package broker

import (
	"encoding/binary"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

func appendSession(b []byte, c *session) []byte {
	b = appendSessionID(b, c.id)
	b = binary.AppendUvarint(b, c.attempt)
	return binary.AppendUvarint(b, uint64(c.hold/time.Millisecond))
}

func appendSnapshot(b []byte, c *session) []byte {
	b = appendSessionID(append(b, itemSession), c.id)
	b = binary.AppendUvarint(b, c.attempt)
	b = binary.AppendUvarint(b, c.accepted)
	b = binary.AppendUvarint(b, uint64(c.hold/time.Millisecond))
	flags := byte(0)
	if c.closed {
		flags = flagClosed
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(len(c.rolled)))
	for _, n := range c.rolled {
		b = binary.AppendUvarint(b, n)
	}
	recorded := 0
	for _, sub := range c.subs {
		if sub.browse == nil {
			recorded++
		}
	}
	b = binary.AppendUvarint(b, uint64(recorded))
	for _, sub := range c.subs {
		if sub.browse == nil {
			b = appendFloors(appendSubscription(b, sub), sub)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(c.temps)))
	for name := range c.temps {
		b = appendText(b, name)
	}
	return b
}

// appendBacklogs writes which queues of the journal belong to subscriptions of a session to topics.
func appendBacklogs(b []byte, c *session) []byte {
	for _, sub := range c.subs {
		if sub.topic != nil && sub.queue != nil && sub.queue.number > 0 {
			b = binary.AppendUvarint(append(b, itemBacklog), uint64(sub.queue.number))
			b = appendBacklog(b, sub)
		}
	}
	return b
}

// head returns the snapshot of all sessions and durable subscriptions that a segment begins with, in parts of moderate size.
func (s *store) head() []journal.Entry {
	const partBytes = 256 << 10
	var parts [][]byte
	var part []byte
	for _, c := range s.sessions {
		if part = appendBacklogs(appendSnapshot(part, c), c); len(part) >= partBytes {
			parts, part = append(parts, part), nil
		}
	}
	for _, d := range s.durables {
		if part = appendDurable(appendErase(append(part, itemDurable), d), d); len(part) >= partBytes {
			parts, part = append(parts, part), nil
		}
	}
	if part != nil || parts == nil {
		parts = append(parts, part)
	}
	entries := make([]journal.Entry, len(parts))
	for i, p := range parts {
		b := binary.AppendUvarint(nil, uint64(i))
		b = binary.AppendUvarint(b, uint64(len(parts)))
		entries[i] = journal.Entry{Type: recHead, Payload: append(b, p...)}
	}
	return entries
}
