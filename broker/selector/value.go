package selector

import (
	"bytes"
	"strconv"
)

// value is what an expression comes to.
type value struct {
	kind kind
	b    bool
	i    int64
	f    float64
	s    []byte
}

type kind uint8

const (
	null kind = iota // and unknown
	boolean
	integer
	real
	text
)

// ternary is a truth value of SQL.
type ternary uint8

const (
	unknown ternary = iota
	yes
	no
)

func truth(b bool) value { return value{kind: boolean, b: b} }

// truth is v as a condition. Text is one if it says true or false.
func (v value) truth() ternary {
	switch {
	case v.kind == boolean && v.b, v.kind == text && bytes.EqualFold(v.s, []byte("true")):
		return yes
	case v.kind == boolean, v.kind == text && bytes.EqualFold(v.s, []byte("false")):
		return no
	}
	return unknown
}

// number is v as a number, or null if it is none.
func (v value) number() value {
	switch v.kind {
	case integer, real:
		return v
	case text:
		return parseNumber(v.s)
	}
	return value{}
}

func (v value) float() float64 {
	if v.kind == integer {
		return float64(v.i)
	}
	return v.f
}

// maxNumber bounds what is taken for a number: longer texts cost time and are none.
const maxNumber = 64

// parseNumber reads a decimal number; neither hexadecimal nor the names of infinities.
func parseNumber(s []byte) value {
	if len(s) == 0 || len(s) > maxNumber {
		return value{}
	}
	whole := true
	for i, c := range s {
		switch {
		case isDigit(c), i == 0 && (c == '-' || c == '+'):
		case c == '.' || c == 'e' || c == 'E' || c == '-' || c == '+':
			whole = false
		default:
			return value{}
		}
	}
	if whole {
		if i, err := strconv.ParseInt(string(s), 10, 64); err == nil {
			return value{kind: integer, i: i}
		}
	}
	if f, err := strconv.ParseFloat(string(s), 64); err == nil {
		return value{kind: real, f: f}
	}
	return value{}
}
