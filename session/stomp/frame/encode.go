package frame

import (
	"bytes"
	"errors"
	"strconv"
)

// ErrEscape reports an escape sequence that the version does not have. [STOMP 1.2 Value Encoding]: "undefined escape sequences … MUST be
// treated as a fatal protocol error".
var ErrEscape = errors.New("undefined escape sequence in a header")

// Unescape appends the decoded form of a header name or value to dst. 1.0 has no escapes; 1.1 has \n, \c and \\; 1.2 adds \r.
func Unescape(dst, src []byte, v Version) ([]byte, error) {
	if v == V10 {
		return append(dst, src...), nil
	}
	for {
		i := bytes.IndexByte(src, '\\')
		if i < 0 {
			return append(dst, src...), nil
		}
		dst = append(dst, src[:i]...)
		if i+1 == len(src) {
			return dst, ErrEscape
		}
		switch c := src[i+1]; {
		case c == 'n':
			dst = append(dst, '\n')
		case c == 'c':
			dst = append(dst, ':')
		case c == '\\':
			dst = append(dst, '\\')
		case c == 'r' && v == V12:
			dst = append(dst, '\r')
		default:
			return dst, ErrEscape
		}
		src = src[i+2:]
	}
}

// Escape appends the encoded form of a header name or value to dst. Octets that a version cannot express are dropped: a line feed in
// 1.0, a NUL in all of them. A carriage return stays as it is before 1.2, where it belongs to the value. What else 1.0 cannot say
// comes out changed at the other end: a colon in a name ends the name there, and padding is lost.
func Escape(dst, src []byte, v Version) []byte {
	for _, c := range src {
		switch {
		case c == 0 || c == '\n' && v == V10:
		case v == V10:
			dst = append(dst, c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == ':':
			dst = append(dst, '\\', 'c')
		case c == '\\':
			dst = append(dst, '\\', '\\')
		case c == '\r' && v == V12:
			dst = append(dst, '\\', 'r')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// AppendHeader appends one header line. name and value must already be in wire form; numbers, ids made by us and octets taken from
// another frame of the same version are.
func AppendHeader[V string | []byte](dst []byte, name string, value V) []byte {
	dst = append(dst, name...)
	dst = append(dst, ':')
	dst = append(dst, value...)
	return append(dst, '\n')
}

// AppendUint appends one header line with a decimal value.
func AppendUint(dst []byte, name string, value uint64) []byte {
	dst = append(dst, name...)
	dst = append(dst, ':')
	dst = strconv.AppendUint(dst, value, 10)
	return append(dst, '\n')
}

// ParseUint reads a decimal header value: no sign, no space, no overflow.
func ParseUint(v []byte) (uint64, bool) {
	if len(v) == 0 || len(v) > 20 {
		return 0, false
	}
	n := uint64(0)
	for _, c := range v {
		d := uint64(c - '0')
		if d > 9 || n > (1<<64-1-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}
