package stomp

import "hash/maphash"

// memory knows messages that the client has had, for as long as there is room: those acknowledged in a way that may not have held, and, by
// their stamps, those whose copies may still come. It keeps 128 bits of each, so a steady flow allocates nothing; that two of the messages it
// knows share them does not happen.
type memory struct {
	known map[fingerprint]remembered
	ring  []fingerprint
	next  int
	seed  [2]maphash.Seed
}

type fingerprint [2]uint64

// remembered is what is known of a message.
type remembered struct {
	try     uint32 // which copy the client was shown
	acked   bool
	refused bool // by NACK, where that is for good
}

// maxRemembered messages are known at once; the oldest is forgotten.
const maxRemembered = 8192

func (m *memory) of(sub, id []byte) fingerprint {
	if m.known == nil {
		m.known = map[fingerprint]remembered{}
		m.seed = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	}
	var short [128]byte // for long ones append goes elsewhere
	key := append(append(append(short[:0], sub...), 0), id...)
	return fingerprint{maphash.Bytes(m.seed[0], key), maphash.Bytes(m.seed[1], key)}
}

// put remembers a message, or what has become of it.
func (m *memory) put(sub, id []byte, what remembered) {
	f := m.of(sub, id)
	if _, ok := m.known[f]; !ok {
		if len(m.ring) < maxRemembered {
			m.ring = append(m.ring, f)
		} else {
			delete(m.known, m.ring[m.next])
			m.ring[m.next] = f
			m.next = (m.next + 1) % maxRemembered
		}
	}
	m.known[f] = what
}

// get says what is known of a message.
func (m *memory) get(sub, id []byte) (remembered, bool) {
	if len(m.known) == 0 {
		return remembered{}, false
	}
	what, ok := m.known[m.of(sub, id)]
	return what, ok
}
