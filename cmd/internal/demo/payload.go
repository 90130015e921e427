package demo

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// A body is "producer:seq " and then octets that follow from the seed and the message, NULs and line feeds among them, so that a torn,
// mixed or altered body does not pass for the message that it claims to be.
//
//	p3:000042 <noise>

const bodyHead = 20

// body makes the body of m, size octets long (at least bodyHead).
func body(seed uint64, m message, size int) []byte {
	b := make([]byte, 0, max(size, bodyHead)+8)
	b = fmt.Appendf(b, "p%d:%06d ", m.producer, m.seq)
	noise := rand.NewPCG(seed, uint64(m.producer)<<40|uint64(m.seq))
	for len(b) < max(size, bodyHead) {
		b = binary.LittleEndian.AppendUint64(b, noise.Uint64())
	}
	return b[:max(size, bodyHead)]
}

// identify reads which message a body of that size claims to be, and reports whether every octet of it is right.
func identify(seed uint64, b []byte, size int) (m message, ok bool) {
	if n, err := fmt.Sscanf(string(b[:min(len(b), bodyHead)]), "p%d:%d ", &m.producer, &m.seq); n != 2 || err != nil {
		return message{}, false
	}
	return m, bytes.Equal(b, body(seed, m, size))
}
