package broker

import (
	"fmt"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/broker/selector"
)

// recovery folds journal records into a store. It keeps, while it runs, what the store will have: lanes of messages that are out, sessions, durable
// subscriptions; so what it takes follows what is alive, not what was ever read, and it can go on for as long as another owner writes.
type recovery struct {
	store   *store
	records int
	last    journal.LSN
	digest  digest
	recent  *queue                 // of the last message
	queues  map[journal.LSN]*queue // of durable subscriptions and backlogs, by number; some may be gone
	empty   int                    // queues that became empty since they were last looked through
	head    *snapshot
	seen    map[sessionID]map[*queue]*floors // the last messages that a session has acknowledged
	floored map[*queue]bool                  // queues for which the last head says such; their messages may come behind it, relocated
	// What visit returns, which is good until it is called again.
	ends  []journal.Ending
	again []journal.Segment
}

// newRecovery begins with nothing, whatever was folded into s before.
func newRecovery(s *store) *recovery {
	s.clear()
	return &recovery{store: s, queues: map[journal.LSN]*queue{}, seen: map[sessionID]map[*queue]*floors{}}
}

// clear makes a store as it was before anything was folded into it.
func (s *store) clear() {
	*s.pool = pool{seed: s.seed, slots: s.slots}
	s.paging = paging{}
	s.queues, s.topics, s.durables, s.named = map[string]*queue{}, map[string]*topic{}, map[journal.LSN]*durable{}, map[durableKey]*durable{}
	s.backlogs, s.published, s.kept = map[journal.LSN]*queue{}, 0, 0
	s.sessions, s.waiting = map[sessionID]*session{}, map[*session]struct{}{}
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
	case recSend, recAck, recCommit, recCommitTopics, recPublish, recMove, recRelocate, recForward, recBequest:
		var err error
		if a, err = rc.messages(&r); err != nil {
			return a, fmt.Errorf("record %d: %w", r.LSN, err)
		}
		rd.b = nil
	case recCursor:
		o := rd.origin()
		if c := rc.applied(o); c != nil && rd.octet()&flagRolledBack != 0 {
			c.addRolled(o.effect)
		}
	case recSession, recSubscribe, recUnsubscribe, recTemporary, recClose, recBacklog:
		rc.session(&rd, &r)
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
