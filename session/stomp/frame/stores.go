package frame

import (
	"bytes"
	"strconv"
)

// HeaderStores: ← in what answers a probe (CONNECTED; ERROR standby), in ERROR wrong-store and in ERROR which-store. All stores that the server
// serves or stands for, comma-separated, those that it serves first:
//
//	UUID ';' EPOCH ';' NAME
//
// EPOCH is decimal; 0 says that the store is not served here. NAME is empty where the server does not know it. Neither UUID nor NAME holds
// anything but letters, digits, dot, underscore and dash, so that the value needs no escapes in any version.
const HeaderStores = "understudy-stores"

// Limits of HeaderStores, for whoever writes it and for whoever reads it.
const (
	MaxStores    = 64 // entries
	MaxStoreName = 64 // octets of a UUID, and of a name
)

// Store is one entry of HeaderStores.
type Store struct {
	UUID, Name string
	Epoch      uint64 // 0: not served by this server
}

// AppendStores appends the header line of HeaderStores, and nothing if there are no stores. What no entry can hold, and what is beyond MaxStores,
// is left out: a name that is not ValidStoreName is sent as none, a store whose UUID is not is not named at all.
func AppendStores(dst []byte, stores []Store) []byte {
	n := 0
	for _, s := range stores {
		if n == MaxStores || !ValidStoreName(s.UUID) {
			continue
		}
		sep := byte(',')
		if n == 0 {
			dst, sep = append(dst, HeaderStores...), ':'
		}
		dst = append(append(dst, sep), s.UUID...)
		dst = strconv.AppendUint(append(dst, ';'), s.Epoch, 10)
		dst = append(dst, ';')
		if ValidStoreName(s.Name) {
			dst = append(dst, s.Name...)
		}
		n++
	}
	if n > 0 {
		dst = append(dst, '\n')
	}
	return dst
}

// ParseStores reads the value of HeaderStores; ok is false, and nothing is returned, if any of it is malformed, a UUID comes twice, or there are
// more than MaxStores. An empty value is no stores.
func ParseStores(v []byte) (stores []Store, ok bool) {
	if len(v) == 0 {
		return nil, true
	}
	n := 1 + bytes.Count(v, []byte{','})
	if n > MaxStores {
		return nil, false
	}
	stores = make([]Store, 0, n)
	for entry := range bytes.SplitSeq(v, []byte{','}) {
		id, rest, _ := bytes.Cut(entry, []byte{';'})
		number, name, two := bytes.Cut(rest, []byte{';'})
		epoch, decimal := ParseUint(number)
		s := Store{UUID: string(id), Name: string(name), Epoch: epoch}
		if !two || !decimal || !ValidStoreName(s.UUID) || s.Name != "" && !ValidStoreName(s.Name) {
			return nil, false
		}
		for _, before := range stores {
			if before.UUID == s.UUID {
				return nil, false
			}
		}
		stores = append(stores, s)
	}
	return stores, true
}

// ValidStoreName: 1 to MaxStoreName letters, digits, dots, underscores and dashes of ASCII. A UUID is one as well.
func ValidStoreName(s string) bool {
	if len(s) == 0 || len(s) > MaxStoreName {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
