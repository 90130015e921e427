package broker

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// Description is a journal record in the words of those who operate a broker. It names no more of a message than its destination, its id and its sizes,
// unless it was asked for: what clients send may be secret.
type Description struct {
	LSN      journal.LSN     `json:"lsn"`
	Segment  journal.Segment `json:"segment"`
	Offset   int64           `json:"offset"`
	Epoch    uint64          `json:"epoch"`
	Type     string          `json:"type"`
	Size     int             `json:"size"`         // octets of payload
	By       string          `json:"by,omitempty"` // whose effect it is
	Messages []Told          `json:"messages,omitempty"`
	Ends     []Ended         `json:"ends,omitempty"` // messages that leave the queue where they are
	About    string          `json:"about,omitempty"`
	Err      string          `json:"error,omitempty"` // what is wrong with the payload; what was read before that is there
}

// Told is a message in a record.
type Told struct {
	Destination string   `json:"destination,omitempty"`
	Queues      []string `json:"queues,omitempty"`   // of a relocated one: where its copies are
	Durables    []uint64 `json:"durables,omitempty"` // durable subscriptions for which a message to a topic is kept, by number
	ID          string   `json:"id,omitempty"`
	Headers     int      `json:"header_bytes"`
	Body        int      `json:"body_bytes"`
	Lines       string   `json:"headers,omitempty"` // if asked for, as the next
	Content     []byte   `json:"body,omitempty"`
}

// Ended names messages of one queue by the records that brought them.
type Ended struct {
	Queue    string   `json:"queue"`
	Messages []string `json:"messages"` // LSN/index@segment
}

// recordNames are the types of records in words.
var recordNames = map[byte]string{
	recSend: "send", recAck: "ack", recCommit: "commit", recCursor: "cursor", recUnsubscribe: "unsubscribe", recClose: "close", recSession: "session",
	recSubscribe: "subscribe", recHead: "head", recDurable: "durable", recErase: "erase", recPublish: "publish", recCommitTopics: "committopics",
	recTemporary: "temporary", recMove: "move", recRelocate: "relocate", recForward: "forward",
	recBacklog: "backlog", recBequest: "bequest",
}

// Describe reads a record of a broker's journal, or of the journal itself. The payload may be damaged, or only the front of one. With contents it has
// headers and bodies of messages too.
func Describe(r journal.Record, contents bool) Description {
	d := describer{
		Description: Description{LSN: r.LSN, Segment: r.Segment, Offset: r.Offset, Epoch: r.Epoch, Size: r.Size, Type: recordNames[r.Type]},
		r:           r, rd: reader{b: r.Payload}, contents: contents,
	}
	if kind, about, own := r.Own(); own {
		d.Type, d.About = kind, about
		return d.Description
	}
	if d.Type == "" {
		d.Type, d.Err = fmt.Sprintf("type %d", r.Type), "unknown: was it written by a newer version?"
		return d.Description
	}
	d.record()
	if err := d.rd.end(r.Type); err != nil {
		d.Err = err.Error()
	}
	return d.Description
}

// Concerns names the destinations that a record is about, as far as its payload, which may be damaged or only the front of one, says so. It is for
// journal.Options and journal.CheckOptions.
func Concerns(r journal.Record) []string {
	d := Describe(r, false)
	var names []string
	add := func(name string) {
		if plausibleName(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, m := range d.Messages {
		add(m.Destination)
		for _, q := range m.Queues {
			add(q)
		}
	}
	for _, e := range d.Ends {
		add(e.Queue)
	}
	switch r.Type {
	case recSession, recSubscribe, recUnsubscribe, recClose, recCursor, recTemporary, recHead, recDurable, recErase, recBacklog:
		names = append(names, "subscriptions and cursors of sessions")
	}
	return names
}

// maxNameBytes bounds what is taken for the name of a destination where a record is damaged.
const maxNameBytes = 1 << 10

// plausibleName says whether a name that was read from a record that may be damaged can be that of a destination.
func plausibleName(name string) bool {
	known := strings.HasPrefix(name, "/") || strings.HasPrefix(name, numberedQueueName)
	return known && len(name) <= maxNameBytes && utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// numberedQueueName is how the queue of a durable subscription, or of a session's to a topic, is named where only its number is known.
const numberedQueueName = "subscription "

// describer reads one record.
type describer struct {
	Description
	r        journal.Record
	rd       reader
	contents bool
}

func (d *describer) record() {
	rd := &d.rd
	switch d.r.Type {
	case recSend, recPublish:
		o := d.origin()
		m := Told{Destination: string(rd.text())}
		id := o.messageOf(d.Epoch, rd.uint(), false)
		if d.r.Type == recPublish {
			m.Durables = d.durables()
		}
		d.message(m, id)
	case recAck:
		d.origin()
		d.ends()
	case recCommit, recCommitTopics:
		o := d.origin()
		d.sends(o)
		d.ends()
	case recCursor:
		d.origin()
		if rd.octet()&flagRolledBack != 0 {
			d.About = "the COMMIT was rolled back"
		}
	case recMove:
		q := d.queue()
		at, home := rd.mention()
		if rd.err == nil {
			d.Ends = append(d.Ends, Ended{q, []string{mentionText(at, home)}})
		}
		m := Told{Destination: string(rd.text())}
		d.message(m, rd.id())
	case recRelocate:
		lsn, home := rd.uint(), rd.uint()
		d.About = fmt.Sprintf("from record %d, last in segment %d", lsn, home)
		id := rd.id()
		var m Told
		for range rd.count(2) {
			m.Queues = append(m.Queues, d.queue())
			rd.uint()
		}
		d.message(m, id)
	case recForward:
		d.ends()
	case recBequest:
		id := rd.id()
		m := Told{Destination: string(rd.text())}
		for range rd.count(1) {
			m.Queues = append(m.Queues, fmt.Sprint(numberedQueueName, rd.uint()))
		}
		d.message(m, id)
	default:
		d.state()
	}
}

// message reads lines and body, which is the rest.
func (d *describer) message(m Told, id msgID) {
	lines, body := d.rd.text(), d.rd.b
	d.rd.b = nil
	d.told(m, id, lines, body)
}

func (d *describer) told(m Told, id msgID, lines, body []byte) {
	if m.Destination == "" && m.Queues == nil {
		return // nothing was read
	}
	if d.rd.err == nil {
		m.ID = string(id.append(nil, frame.V10))
		m.Headers, m.Body = len(lines), len(body)
		if d.contents {
			m.Lines, m.Content = string(lines), slices.Clone(body)
		}
	}
	d.Messages = append(d.Messages, m)
}

func (d *describer) sends(o origin) {
	for range d.rd.count(4) {
		number := d.rd.uint()
		m := Told{Destination: string(d.rd.text())}
		if d.r.Type == recCommitTopics {
			m.Durables = d.durables()
		}
		lines, body := d.rd.text(), d.rd.text()
		d.told(m, o.messageOf(d.Epoch, number, true), lines, body)
		if d.rd.err != nil {
			return
		}
	}
}

func (d *describer) durables() (list []uint64) {
	for range d.rd.count(1) {
		list = append(list, d.rd.uint())
	}
	return list
}

func (d *describer) queue() string {
	if name := d.rd.text(); len(name) > 0 {
		return string(name)
	}
	return fmt.Sprint(numberedQueueName, d.rd.uint())
}

func mentionText(at place, home journal.Segment) string {
	return fmt.Sprintf("%d/%d@%d", at.lsn, at.index, home)
}

func (d *describer) ends() {
	for range d.rd.count(5) {
		e := Ended{Queue: d.queue()}
		for range d.rd.count(3) {
			if at, home := d.rd.mention(); d.rd.err == nil {
				e.Messages = append(e.Messages, mentionText(at, home))
			}
		}
		if d.rd.err == nil || len(e.Messages) > 0 {
			d.Ends = append(d.Ends, e)
		}
	}
}

func (d *describer) origin() origin {
	o := d.rd.origin()
	switch {
	case d.rd.err != nil:
	case o.kind == bySession:
		d.By = fmt.Sprintf("session %s, effect %d", o.session, o.effect)
	case o.kind == byDirect:
		d.By = fmt.Sprintf("connection %d", o.conn)
	}
	return o
}

var modeNames = [...]string{ackAuto: "auto", ackClient: "client", ackEach: "client-individual"}

// state reads records about sessions and durable subscriptions.
func (d *describer) state() {
	rd := &d.rd
	switch d.r.Type {
	case recDurable:
		client, name, dest, sel := rd.text(), rd.text(), rd.text(), rd.text()
		d.About = fmt.Sprintf("durable subscription %d: client %q, name %q, of %s", d.LSN, client, name, dest) + selectedBy(sel)
		return
	case recErase:
		d.About = fmt.Sprint("durable subscription ", rd.uint(), " is deleted")
		return
	case recHead:
		part, parts := rd.uint(), rd.uint()
		d.About = fmt.Sprintf("part %d of %d of all sessions and durable subscriptions", part+1, parts)
		if rd.err == nil {
			rd.b = nil
		}
		return
	}
	d.By = "session " + rd.session().String()
	switch d.r.Type {
	case recSession:
		attempt, hold := rd.uint(), rd.millis()
		d.About = fmt.Sprintf("connected, attempt %d, held for %s", attempt, hold)
	case recSubscribe:
		d.subscription()
	case recTemporary:
		d.About = fmt.Sprintf("temporary queue %q", rd.text())
	case recUnsubscribe:
		d.About = fmt.Sprintf("subscription %q ends", rd.text())
	case recBacklog:
		d.About = fmt.Sprintf("messages of its topic are kept for subscription %q, in the queue of %s%d", rd.text(), numberedQueueName, d.LSN)
	case recClose:
		d.About = "ends"
	}
}

func (d *describer) subscription() {
	rd := &d.rd
	id, dest, mode, prefetch, sel, number := rd.text(), rd.text(), rd.octet(), rd.uint(), rd.text(), rd.uint()
	if rd.err != nil {
		return
	}
	ack := fmt.Sprint("mode ", mode)
	if int(mode) < len(modeNames) {
		ack = modeNames[mode]
	}
	d.About = fmt.Sprintf("subscription %q of %s, ack %s, prefetch %d", id, dest, ack, prefetch) + selectedBy(sel)
	if number > 0 {
		d.About += fmt.Sprint(", for durable ", numberedQueueName, number)
	}
}

func selectedBy(sel []byte) string {
	if len(sel) == 0 {
		return ""
	}
	return fmt.Sprintf(", selector %q", sel)
}
