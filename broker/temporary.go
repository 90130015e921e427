package broker

import (
	"bytes"
	"errors"
	"strconv"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// A temporary queue is its session's: /temp-queue/NAME to the owner, who alone may subscribe, and /remote-temp-queue/OWNER/NAME to everybody, who
// may send. Behind the decoder it has only the second name. It is there from its first use as a destination or a reply-to, and lives as long as
// the session: that of a sidecar through absence and take-over, with what is in it, so that an answer may come before the one who asked is back; a
// direct client's as long as the connection, and its messages are in no journal.
//
// A message to one that is not there any more is dropped and counted. An ERROR would end the connection of whoever answers, because one of those
// that asked has left.
const (
	tempPrefix   = "/temp-queue/"
	remotePrefix = "/remote-temp-queue/"
	// maxTemp is the longest NAME: with a session for its OWNER it is as long as a destination may be.
	maxTemp = maxName - len(remotePrefix) - sessionText - 1
)

var (
	errTempName  = errors.New("the name of a temporary queue has 1 to " + strconv.Itoa(maxTemp) + " octets")
	errTempTopic = errors.New("this broker has no temporary topics")
)

// owner is the session's in the names of its temporary queues.
func (c *session) owner() string {
	if c.direct {
		return c.name
	}
	return c.id.String()
}

func (c *session) remoteName(name string) string { return remotePrefix + c.owner() + "/" + name }

// temporary turns a client's name of one of its temporary queues into everybody's, and leaves other names as they are. The queue is noted in r, to
// be there when the frame is handled.
func (d *decoder) temporary(dest []byte, r *request) ([]byte, error) {
	if bytes.HasPrefix(dest, []byte("/temp-topic/")) || bytes.HasPrefix(dest, []byte("/remote-temp-topic/")) {
		return nil, errTempTopic
	}
	name, ok := bytes.CutPrefix(dest, []byte(tempPrefix))
	if !ok {
		return dest, nil
	}
	if len(name) == 0 || len(name) > maxTemp {
		return nil, errTempName
	}
	if r.command != frame.Unsubscribe {
		r.temps = append(r.temps, name)
	}
	return []byte(remotePrefix + d.owner + "/" + string(name)), nil
}

// replyTo keeps a reply-to with the name that is good for whoever answers.
func (d *decoder) replyTo(value []byte, r *request) error {
	plain, err := d.text(value)
	if err != nil {
		return err
	}
	if plain, err = d.temporary(plain, r); err != nil {
		return err
	}
	d.lines = append(d.lines, "reply-to:"...)
	d.lines = append(frame.Escape(d.lines, plain, frame.V12), '\n')
	return nil
}

// provide makes the temporary queue of p's session if it is not there. It reports whether the frame may go on.
func (s *store) provide(p *peer, r *request, name string) bool {
	c := p.session
	if c.temps[name] != nil {
		return true
	}
	if n := len(c.temps); n >= s.cfg.MaxTemporary {
		s.refuse(p, r.receipt, faultf("too many temporary queues", "this connection has %d temporary queues, the limit", n))
		return false
	}
	if len(s.queues) >= s.cfg.MaxQueues {
		s.refuse(p, r.receipt, s.tooManyQueues())
		return false
	}
	if !c.direct {
		s.scratch = appendText(appendSessionID(s.scratch[:0], c.id), name)
		if _, err := s.append(journal.Entry{Type: recTemporary, Payload: s.scratch}, pend{peer: p}); err != nil {
			s.broken(p, r, err)
			return false
		}
	}
	s.own(c, name)
	return true
}

// own gives a session a temporary queue. It is shown under its owner's name, for nobody else is shown it.
func (s *store) own(c *session, name string) {
	q := s.queue([]byte(c.remoteName(name)))
	q.owner = c
	q.destination.line = newDestination(tempPrefix + name).line
	if c.temps == nil {
		c.temps = map[string]*queue{}
	}
	c.temps[name] = q
}

// disown ends the temporary queues of a session, with what is in them.
func (s *store) disown(c *session) {
	for _, q := range c.temps {
		delete(s.queues, q.name)
		s.dissolve(q)
	}
	clear(c.temps)
}

// reach returns the queue that a message is sent to, made if there is none; nil if it is a temporary one that has gone.
func (s *store) reach(dest []byte) *queue {
	if q := s.queues[string(dest)]; q != nil || bytes.HasPrefix(dest, []byte(remotePrefix)) {
		return q
	}
	return s.queue(dest)
}

// fleeting reports whether messages of the queue are in no journal: its owner would not survive the server.
func (q *queue) fleeting() bool { return q.owner != nil && q.owner.direct }

// mayListen reports whether p may subscribe to a destination, and refuses the frame if not.
func (s *store) mayListen(p *peer, r *request) bool {
	if !bytes.HasPrefix(r.dest, []byte(remotePrefix)) {
		return true
	}
	if q := s.queues[string(r.dest)]; q != nil && q.owner == p.session {
		return true
	}
	s.refuse(p, r.receipt, faultf("not your temporary queue", "only the connection that made a temporary queue may subscribe to it"))
	return false
}
