package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/understudy-mq/understudy/health"
)

// A message, as a user message or as the user state of memberlist's push/pull:
//
//	octet   'u'
//	octet   wireVersion
//	octet   announcement: | suspicion:          | state:
//	        record        | string  target      | uvarint count
//	                      | string  by          | count times: uvarint length, record
//	                      | uvarint Unix ms     |
//	                      | uvarint sequence    |
//
// A record:
//
//	string  node, member
//	uvarint incarnation, sequence
//	octet   kind
//	uvarint flags: 1 draining, 2 leaving
//	uvarint protocol
//	uvarint n, n times: string endpoint
//	uvarint n, n times: string uuid, string name, uvarint epoch, octet role
//
// A string is uvarint length, octets of UTF-8. A later version may append to a record and to a suspicion: what is behind the known fields is
// ignored, and passed on unread with the record. A message of another wireVersion is dropped.
const (
	wireMagic   = 'u'
	wireVersion = 1

	typeAnnouncement = 1
	typeSuspicion    = 2
	typeState        = 3

	flagDraining = 1
	flagLeaving  = 2
)

// Limits of what is decoded.
const (
	maxRecord      = 64 << 10
	maxState       = 8 << 20
	maxNodes       = 4096    // nodes known at a time
	maxIncarnation = 1 << 62 // leaves room above any clock for a refutation
)

// Errors of the decoder.
var (
	errMalformed = errors.New("malformed gossip message")
	errVersion   = errors.New("gossip message of another version")
)

// record is an announcement with the octets in which it came, which are passed on as they are.
type record struct {
	Announcement
	raw []byte
}

func newRecord(a Announcement) record { return record{a, appendRecord(nil, &a)} }

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendRecord(b []byte, a *Announcement) []byte {
	b = appendString(appendString(b, a.Node), a.Member)
	b = binary.AppendUvarint(binary.AppendUvarint(b, a.Incarnation), a.Sequence)
	b = append(b, byte(a.Kind))
	flags := uint64(0)
	if a.Draining {
		flags |= flagDraining
	}
	if a.Leaving {
		flags |= flagLeaving
	}
	b = binary.AppendUvarint(binary.AppendUvarint(b, flags), a.Protocol)
	b = binary.AppendUvarint(b, uint64(len(a.Endpoints)))
	for _, e := range a.Endpoints {
		b = appendString(b, e)
	}
	b = binary.AppendUvarint(b, uint64(len(a.Stores)))
	for _, s := range a.Stores {
		b = binary.AppendUvarint(appendString(appendString(b, s.UUID), s.Name), s.Epoch)
		b = append(b, byte(s.Role))
	}
	return b
}

func encodeAnnouncement(r record) []byte {
	return append([]byte{wireMagic, wireVersion, typeAnnouncement}, r.raw...)
}

func encodeSuspicion(s Suspicion, sequence uint64) []byte {
	b := appendString([]byte{wireMagic, wireVersion, typeSuspicion}, string(s.Target))
	b = binary.AppendUvarint(appendString(b, s.By), uint64(max(0, s.At.UnixMilli())))
	return binary.AppendUvarint(b, sequence)
}

// encodeState stops before maxState, so that a receiver never has to refuse all of it.
func encodeState(records []record) []byte {
	size, n := 0, 0
	for _, r := range records {
		if n == maxNodes || size+len(r.raw)+binary.MaxVarintLen64 > maxState-64 {
			break
		}
		size += len(r.raw) + binary.MaxVarintLen64
		n++
	}
	b := append(make([]byte, 0, size+16), wireMagic, wireVersion, typeState)
	b = binary.AppendUvarint(b, uint64(n))
	for _, r := range records[:n] {
		b = append(binary.AppendUvarint(b, uint64(len(r.raw))), r.raw...)
	}
	return b
}

// message is a decoded one.
type message struct {
	records   []record // of an announcement (one) or a state
	suspicion Suspicion
	sequence  uint64 // of the suspicion
	kind      byte
}

// decode reads any message. It copies what it keeps.
func decode(b []byte) (message, error) {
	if len(b) < 3 || b[0] != wireMagic {
		return message{}, errMalformed
	}
	if b[1] != wireVersion {
		return message{}, fmt.Errorf("%w: %d, ours is %d", errVersion, b[1], wireVersion)
	}
	m, d := message{kind: b[2]}, decoder{b: b[3:]}
	switch m.kind {
	case typeAnnouncement:
		m.records = []record{decodeRecord(&d, d.b)}
	case typeSuspicion:
		m.suspicion.Target, m.suspicion.By = health.Target(d.text()), d.text()
		m.suspicion.At = time.UnixMilli(int64(d.uvarint() & (1<<50 - 1)))
		m.sequence = d.uvarint()
		d.failed = d.failed || m.suspicion.Target == "" || m.suspicion.By == ""
	case typeState:
		if len(b) > maxState {
			return message{}, errMalformed
		}
		for range d.count(maxNodes) {
			raw := d.octets(maxRecord)
			inner := decoder{b: raw}
			m.records = append(m.records, decodeRecord(&inner, raw))
			d.failed = d.failed || inner.failed
			if d.failed {
				break
			}
		}
	default:
		return message{}, errMalformed
	}
	if d.failed {
		return message{}, errMalformed
	}
	return m, nil
}

func decodeRecord(d *decoder, raw []byte) record {
	if len(raw) > maxRecord {
		d.failed = true
		return record{}
	}
	var a Announcement
	a.Node, a.Member = d.text(), d.text()
	a.Incarnation, a.Sequence = d.uvarint(), d.uvarint()
	a.Kind = Kind(d.octet())
	flags := d.uvarint()
	a.Draining, a.Leaving = flags&flagDraining != 0, flags&flagLeaving != 0
	a.Protocol = d.uvarint()
	for range d.count(maxEndpoints) {
		a.Endpoints = append(a.Endpoints, d.text())
	}
	for range d.count(maxStores) {
		a.Stores = append(a.Stores, Store{UUID: d.text(), Name: d.text(), Epoch: d.uvarint(), Role: Role(d.octet())})
	}
	if d.failed || a.Node == "" || a.Member == "" || a.Incarnation >= maxIncarnation {
		d.failed = true
		return record{}
	}
	return record{a, append([]byte(nil), raw...)}
}

// decoder reads fields until something is wrong; then it only returns zeros.
type decoder struct {
	b      []byte
	failed bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if d.failed || n <= 0 {
		d.failed = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) count(limit uint64) uint64 {
	n := d.uvarint()
	if n > limit {
		d.failed = true
		return 0
	}
	return n
}

func (d *decoder) octet() byte {
	if d.failed || len(d.b) == 0 {
		d.failed = true
		return 0
	}
	o := d.b[0]
	d.b = d.b[1:]
	return o
}

func (d *decoder) octets(limit uint64) []byte {
	n := d.count(limit)
	if d.failed || n > uint64(len(d.b)) {
		d.failed = true
		return nil
	}
	o := d.b[:n]
	d.b = d.b[n:]
	return o
}

func (d *decoder) text() string {
	o := d.octets(maxString)
	if !utf8.Valid(o) {
		d.failed = true
		return ""
	}
	return string(o)
}
