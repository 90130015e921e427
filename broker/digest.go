package broker

import (
	"math/bits"

	"github.com/understudy-mq/understudy/broker/journal"
)

// digest is what a record says of messages: recovery folds it, the mover looks whether it still matters. What it has is borrowed from the payload.
type digest struct {
	origin origin
	brings []brought
	copies []copied
	ends   []mention
}

// brought is one message, or its copies for several durable subscriptions.
type brought struct {
	lsn    journal.LSN // of the record that brought it first
	id     msgID
	copies int    // in digest.copies, behind those of the ones before
	lines  []byte // its headers
	body   []byte // the front of it, where only the front of the record was read
	size   int    // octets of lines and body
}

// copied is one message of those that share headers and body.
type copied struct {
	in    queueName
	index uint32
}

// mention names a message that the record ends, or moves: home is where it was last.
type mention struct {
	in   queueName
	at   place
	home journal.Segment
}

// queueName is how records name queues. That of a durable subscription has a number; its name is that of the topic, if it is said.
type queueName struct {
	name   []byte
	number journal.LSN
}

// is reports whether two names are of one queue.
func (n queueName) is(o queueName) bool {
	return n.number == o.number && (n.number > 0 || string(n.name) == string(o.name))
}

// ofMessages reports whether records of a type have a digest.
func ofMessages(kind byte) bool {
	const all = 1<<recSend | 1<<recAck | 1<<recCommit | 1<<recCommitTopics | 1<<recPublish | 1<<recMove | 1<<recRelocate | 1<<recForward | 1<<recBequest
	return kind < bits.UintSize && uint(all)>>kind&1 != 0
}

// read takes a record of such a type apart. What was read before is forgotten.
func (d *digest) read(r *journal.Record) error {
	d.origin, d.brings, d.copies, d.ends = origin{}, d.brings[:0], d.copies[:0], d.ends[:0]
	rd := reader{b: r.Payload}
	missing := r.Size - len(r.Payload) // of the body, which comes last
	switch r.Type {
	case recSend:
		d.origin = rd.origin()
		d.copies = append(d.copies, copied{in: queueName{name: rd.text()}})
		d.last(&rd, brought{lsn: r.LSN, id: d.origin.messageOf(r.Epoch, rd.uint(), false), copies: 1}, missing)
	case recAck:
		d.origin = rd.origin()
		d.mentions(&rd)
	case recForward:
		d.mentions(&rd)
	case recCommit, recCommitTopics:
		d.origin = rd.origin()
		d.sends(&rd, r)
		d.mentions(&rd)
	case recPublish:
		d.origin = rd.origin()
		dest := rd.text()
		b := brought{lsn: r.LSN, id: d.origin.messageOf(r.Epoch, rd.uint(), false)}
		b.copies = d.targets(&rd, dest)
		d.last(&rd, b, missing)
	case recBequest:
		b := brought{lsn: r.LSN, id: rd.id()}
		b.copies = d.targets(&rd, rd.text())
		d.last(&rd, b, missing)
	case recMove:
		m := mention{in: rd.queue()}
		m.at, m.home = rd.mention()
		d.ends = append(d.ends, m)
		d.copies = append(d.copies, copied{in: queueName{name: rd.text()}})
		d.last(&rd, brought{lsn: r.LSN, id: rd.id(), copies: 1}, missing)
	case recRelocate:
		lsn, home := journal.LSN(rd.uint()), journal.Segment(rd.uint())
		b := brought{lsn: lsn, id: rd.id(), copies: rd.count(2)}
		for range b.copies {
			to := copied{rd.queue(), uint32(rd.uint())}
			d.copies = append(d.copies, to)
			d.ends = append(d.ends, mention{to.in, place{lsn, to.index}, home})
		}
		d.last(&rd, b, missing)
	default:
		rd.fail()
	}
	return rd.end(r.Type)
}

// last reads headers and body of what is the only thing that a record brings.
func (d *digest) last(rd *reader, b brought, missing int) {
	b.lines = rd.text()
	b.body, rd.b = rd.b, nil
	b.size = len(b.lines) + len(b.body) + missing
	d.brings = append(d.brings, b)
}

// sends reads what a COMMIT brings: messages are numbered across all that they are for.
func (d *digest) sends(rd *reader, r *journal.Record) {
	for range rd.count(4) {
		number, dest := rd.uint(), rd.text()
		b := brought{lsn: r.LSN, id: d.origin.messageOf(r.Epoch, number, true)}
		if r.Type == recCommitTopics {
			b.copies = d.targets(rd, dest)
		}
		if b.copies == 0 {
			b.copies = 1
			d.copies = append(d.copies, copied{queueName{name: dest}, uint32(len(d.copies))})
		}
		b.lines, b.body = rd.text(), rd.text()
		b.size = len(b.lines) + len(b.body)
		d.brings = append(d.brings, b)
	}
}

func (d *digest) targets(rd *reader, dest []byte) int {
	n := rd.count(1)
	for range n {
		d.copies = append(d.copies, copied{queueName{dest, journal.LSN(rd.uint())}, uint32(len(d.copies))})
	}
	return n
}

func (d *digest) mentions(rd *reader) {
	for range rd.count(4) {
		m := mention{in: rd.queue()}
		for range rd.count(3) {
			m.at, m.home = rd.mention()
			d.ends = append(d.ends, m)
		}
	}
}

// queue reads the name of one.
func (r *reader) queue() queueName {
	if name := r.text(); len(name) > 0 {
		return queueName{name: name}
	}
	return queueName{number: journal.LSN(r.uint())}
}
