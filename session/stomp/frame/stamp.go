package frame

import (
	"bytes"
	"strconv"
)

// HeaderStamp: SEND →, MESSAGE ←, where the broker is not paired and cannot tell a copy. It is session.number.try: the producer's session id, the number
// of the message in that session, and which time it is sent. Recorders on the consumer's side show one of several tries of a message,
// and take the header off.
const HeaderStamp = "understudy-stamp"

// AppendStamp appends the header line of a stamp.
func AppendStamp(dst []byte, session string, number uint64, try uint32) []byte {
	dst = append(append(append(dst, HeaderStamp...), ':'), session...)
	dst = strconv.AppendUint(append(dst, '.'), number, 10)
	dst = strconv.AppendUint(append(dst, '.'), uint64(try), 10)
	return append(dst, '\n')
}

// CutStamp splits a stamp into the identity of the message and the try.
func CutStamp(v []byte) (id []byte, try uint32, ok bool) {
	i := bytes.LastIndexByte(v, '.')
	if i <= 0 {
		return nil, 0, false
	}
	n, ok := ParseUint(v[i+1:])
	return v[:i], uint32(n), ok && n < 1<<32
}
