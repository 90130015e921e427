package sessiontest

import "time"

// Mutation is a defect put into the broker model, to prove that the verdicts can fail.
type Mutation uint8

// Mutations.
const (
	Sound            Mutation = iota
	AppliesTwice              // a repeated effect is applied again
	ForgetsCursor             // CONNECTED says cursor 0 after a break
	IgnoresClaims             // claims are granted to nobody, and not reported gone
	ServesClaimed             // a claimed message is given to the next consumer all the same
	LosesDurable              // a crash loses the last durable records
	ConfirmsEarly             // the cursor RECEIPT does not wait for the sync
	KeepsGhost                // a lower attempt goes on after CONNECTED
	LosesCommit               // a COMMIT applies all but its first SEND
	CommitsAborted            // ABORT applies the transaction
	SwapsBatch                // two SENDs of a batch change places
	CorruptsBody              // an octet of a body changes
	GarblesMessageID          // a redelivery comes under another message-id
	Unconfirming              // no cursor RECEIPT is sent
	DropsOctet                // the shell loses an octet of the client's
	ReleasesEarly             // the shell gives chunks back that the recorder holds
	endOfMutations
)

var mutationNames = [...]string{"sound", "applies-twice", "forgets-cursor", "ignores-claims", "serves-claimed", "loses-durable", "confirms-early",
	"keeps-ghost", "loses-commit", "commits-aborted", "swaps-batch", "corrupts-body", "garbles-message-id", "unconfirming", "drops-octet",
	"releases-early"}

func (m Mutation) String() string { return mutationNames[m] }

// Mutations lists all of them but Sound.
func Mutations() []Mutation {
	var list []Mutation
	for m := Sound + 1; m < endOfMutations; m++ {
		list = append(list, m)
	}
	return list
}

// message is a stored message, and who has it.
type message struct {
	item  *item
	id    string // not escaped
	head  []byte // header lines of the SEND that consumers see, as they stood on the wire
	sized bool   // has content-length
	lsn   int
	given int  // the record of the NACK that gave it back
	live  bool // in its queue: stored and not acknowledged

	ordinal     uint64 // of its last delivery in this epoch
	holder      *subscription
	claimed     claim // the right by which holder has it, if it does by a claim
	redelivered bool
	nacks       int
}

// record is one journal record: an effect with the cursor it moves, or a change to a session.
type record struct {
	sess   *bsession
	effect uint64
	enq    []*message
	ack    []*message
	nack   []*message
	rolled bool
	sub    string // SUBSCRIBE, UNSUBSCRIBE
	dest   int
	unsub  bool
	close  bool
}

// bsession is what the journal knows of a sidecar session, and what the server remembers while it lives.
type bsession struct {
	id       string
	attempt  uint64
	accepted uint64   // the highest effect applied, durable or not
	cursor   uint64   // the highest durable one
	rolled   []uint64 // effects that were COMMITs and were rolled back
	subs     []journaledSub
	closed   bool
	conn     *bconn
	absent   bool
	deadline time.Duration // absent: when what it held goes back
}

type journaledSub struct {
	name string
	dest int
}

// store is the journal and the state that follows from it.
type store struct {
	log      []record
	durable  int // records that are synced
	epoch    uint64
	messages []*message
	queues   [][]*message // in the order of their records; dead ones are swept now and then
	sessions []*bsession
	dead     int
}

func (s *store) session(id string) *bsession {
	for _, x := range s.sessions {
		if x.id == id {
			return x
		}
	}
	return nil
}

func (s *store) append(r record) {
	s.log = append(s.log, r)
	s.apply(&s.log[len(s.log)-1], len(s.log))
}

func (s *store) apply(r *record, lsn int) {
	for _, m := range r.enq {
		m.lsn, m.live = lsn, true
		m.item.applied++
		s.queues[m.item.dest] = append(s.queues[m.item.dest], m)
	}
	for _, m := range r.ack {
		m.live, m.holder = false, nil
		s.dead++
	}
	for _, m := range r.nack {
		m.holder, m.redelivered, m.given = nil, true, lsn
		if m.nacks++; m.nacks >= 3 {
			m.live = false // dead letter
		}
	}
	x := r.sess
	if x == nil {
		return
	}
	if r.effect > 0 {
		x.accepted = r.effect
	}
	if r.rolled {
		x.rolled = append(x.rolled, r.effect)
	}
	switch {
	case r.close:
		x.closed, x.subs = true, nil
	case r.unsub:
		x.forget(r.sub)
	case r.sub != "":
		x.forget(r.sub)
		x.subs = append(x.subs, journaledSub{r.sub, r.dest})
	}
}

func (x *bsession) forget(sub string) {
	for i, j := range x.subs {
		if j.name == sub {
			x.subs = append(x.subs[:i], x.subs[i+1:]...)
			return
		}
	}
}

// sync makes everything that was appended durable.
func (s *store) sync() {
	for ; s.durable < len(s.log); s.durable++ {
		r := &s.log[s.durable]
		for _, m := range r.enq {
			m.item.durable = true
		}
		if r.sess != nil && r.effect > 0 {
			r.sess.cursor = r.effect
		}
	}
}

// recover starts the next epoch on the first n records.
func (s *store) recover(n int) {
	s.epoch++
	s.log = s.log[:n]
	s.durable = n
	for _, m := range s.messages {
		m.item.applied, m.item.durable = 0, false
		m.live, m.holder, m.ordinal, m.nacks, m.redelivered, m.lsn = false, nil, 0, 0, false, 0
		m.given = 0
	}
	for i := range s.queues {
		s.queues[i] = s.queues[i][:0]
	}
	for _, x := range s.sessions {
		x.accepted, x.cursor, x.rolled, x.subs, x.closed, x.conn = 0, 0, x.rolled[:0], x.subs[:0], false, nil
	}
	s.dead, s.durable = 0, 0
	for i := range s.log {
		s.apply(&s.log[i], i+1)
	}
	s.sync()
	for _, m := range s.messages {
		m.redelivered = true // nobody knows whether it was delivered before
	}
}

// sweep forgets acknowledged messages at the heads of the queues.
func (s *store) sweep() {
	if s.dead < 32 {
		return
	}
	s.dead = 0
	for i, q := range s.queues {
		kept := q[:0]
		for _, m := range q {
			if m.live {
				kept = append(kept, m)
			}
		}
		s.queues[i] = kept
	}
}

// find returns the live message with an id, or nil; known tells whether there ever was one.
func (s *store) find(dest int, id string) (m *message, known bool) {
	for _, m := range s.queues[dest] {
		if m.id == id && m.live {
			return m, true
		}
	}
	for _, m := range s.messages {
		if m.id == id && m.item.dest == dest && m.lsn > 0 {
			return m, true
		}
	}
	return nil, false
}

// stored lists, by queue, the items of all records in their order.
func (s *store) stored() [][]*item {
	all := make([][]*item, len(s.queues))
	for i := range s.log {
		for _, m := range s.log[i].enq {
			all[m.item.dest] = append(all[m.item.dest], m.item)
		}
	}
	return all
}
