package broker

import (
	"fmt"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/broker/selector"
)

// recovery folds journal records into a store. Its message list is in LSN order, which is the order of every queue; an acknowledged
// message stays in it, without its octets, until the next compaction.
type recovery struct {
	store   *store
	list    []*message
	live    int
	hint    int // where the last message was found: acknowledgements come in about the order of sends
	head    *snapshot
	temps   map[string]*queue      // temporary ones, by everybody's name; some may be gone
	queues  map[journal.LSN]*queue // of durable subscriptions, by number; some may be gone
	records int
	last    journal.LSN
	// seen is the last message of a queue that a session has acknowledged.
	seen map[sessionID]map[*queue]*floors
	// What visit returns, which is good until it is called again.
	ends  []journal.Ending
	again []journal.Segment
}

func newRecovery(s *store) *recovery {
	return &recovery{store: s, queues: map[journal.LSN]*queue{}, temps: map[string]*queue{}, seen: map[sessionID]map[*queue]*floors{}}
}

// visit folds one record and says again what it meant for the life of segments: an ending ends what is found alive, and is only mentioned where that was
// ended before. What it returns is borrowed until the next call.
func (rc *recovery) visit(r journal.Record) (journal.Account, error) {
	rc.records++
	rc.last = r.LSN
	rc.ends, rc.again = rc.ends[:0], rc.again[:0]
	rd := reader{b: r.Payload}
	var a journal.Account
	switch r.Type {
	case recSend:
		o := rd.origin()
		a.Live, a.Bytes = 1, rc.send(&rd, &r, o)
	case recAck:
		o := rd.origin()
		rc.applied(o)
		rc.acks(&rd, o)
	case recCommit, recCommitTopics:
		o := rd.origin()
		a.Live, a.Bytes = rc.sends(&rd, &r, o)
		rc.acks(&rd, o)
		rc.applied(o)
	case recCursor:
		o := rd.origin()
		if c := rc.applied(o); c != nil && rd.octet()&flagRolledBack != 0 {
			c.addRolled(o.effect)
		}
	case recSession, recSubscribe, recUnsubscribe, recTemporary, recClose:
		rc.session(&rd, r.Type)
	case recPublish:
		o := rd.origin()
		a.Live, a.Bytes = rc.publish(&rd, &r, o)
	case recMove:
		a.Live, a.Bytes = 1, rc.move(&rd, &r)
	case recRelocate:
		a.Live, a.Bytes = rc.relocate(&rd, &r)
	case recForward:
		rc.forward(&rd)
	case recDurable:
		if d := rc.durable(&rd, r.LSN); rd.err == nil {
			rc.store.durables[d.number] = d
		}
	case recErase:
		delete(rc.store.durables, journal.LSN(rd.uint()))
	case recHead:
		rc.heads(&rd)
	default:
		return a, fmt.Errorf("read record %d: type %d is unknown: was the store written by a newer version?", r.LSN, r.Type)
	}
	if err := rd.end(r.Type); err != nil {
		return a, fmt.Errorf("record %d: %w", r.LSN, err)
	}
	a.Ends, a.Again = rc.ends, rc.again
	return a, nil
}

// applied moves a session's cursor. A session may be known by its effects alone.
func (rc *recovery) applied(o origin) *session {
	if o.kind != bySession {
		return nil
	}
	c := rc.known(o.session)
	c.accepted = max(c.accepted, o.effect)
	return c
}

func (rc *recovery) known(id sessionID) *session {
	c := rc.store.sessions[id]
	if c == nil {
		c = &session{id: id, subs: map[string]*subscription{}}
		rc.store.sessions[id] = c
	}
	return c
}

func (rc *recovery) durable(rd *reader, number journal.LSN) *durable {
	d := &durable{number: number, durableKey: durableKey{string(rd.text()), string(rd.text())}, dest: string(rd.text())}
	if text := rd.text(); len(text) > 0 {
		var err error
		if d.selector, err = selector.Parse(string(text)); err != nil {
			rd.fail() // it decides what is stored
		}
	}
	return d
}
