package selector

import (
	"bytes"
	"unicode/utf8"
)

// node is an expression. What it returns may point into a header.
type node interface {
	eval(h Headers) value
}

type (
	constant   struct{ v value }
	identifier string
	negation   struct{ of node }
	logical    struct {
		left, right node
		or          bool
	}
	compared struct {
		left, right node
		op          comparison
	}
	computed struct {
		left, right node
		op          byte
	}
	isNull struct {
		of      node
		inverse bool
	}
	oneOf struct {
		of   node
		list []value
	}
	like struct {
		of      node
		pattern []rune
	}
)

// comparison is an operator; those from less on need numbers.
type comparison uint8

const (
	equal comparison = iota
	unequal
	less
	atMost
	more
	atLeast
)

var comparisons = map[string]comparison{"=": equal, "<>": unequal, "<": less, "<=": atMost, ">": more, ">=": atLeast}

func (n constant) eval(Headers) value { return n.v }

func (n identifier) eval(h Headers) value {
	v, ok := h.Header(string(n))
	if !ok {
		return value{}
	}
	return value{kind: text, s: v}
}

func (n negation) eval(h Headers) value {
	switch n.of.eval(h).truth() {
	case yes:
		return truth(false)
	case no:
		return truth(true)
	}
	return value{}
}

// eval is SQL's three-valued AND and OR: what decides it alone decides it, else unknown spreads.
func (n logical) eval(h Headers) value {
	decides := no
	if n.or {
		decides = yes
	}
	left := n.left.eval(h).truth()
	if left == decides {
		return truth(n.or)
	}
	right := n.right.eval(h).truth()
	switch {
	case right == decides:
		return truth(n.or)
	case left == unknown || right == unknown:
		return value{}
	}
	return truth(!n.or)
}

func (n isNull) eval(h Headers) value { return truth((n.of.eval(h).kind == null) != n.inverse) }

func (n oneOf) eval(h Headers) value {
	v := n.of.eval(h)
	if v.kind == null {
		return value{}
	}
	for _, one := range n.list {
		if compare(v, one, equal).b {
			return truth(true)
		}
	}
	return truth(false)
}

func (n compared) eval(h Headers) value { return compare(n.left.eval(h), n.right.eval(h), n.op) }

// compare has the rules of conversion: text yields to what it meets, and where it cannot the answer is false, whatever the operator.
// Two texts have an order only if both are numbers. [3.8.1.2 Comparison of unlike types]
func compare(a, b value, op comparison) value {
	if a.kind == null || b.kind == null {
		return value{}
	}
	if a.kind == text && b.kind == text && op < less {
		return truth(bytes.Equal(a.s, b.s) == (op == equal))
	}
	if a.kind == boolean || b.kind == boolean {
		x, y := a.truth(), b.truth()
		return truth(op < less && x != unknown && y != unknown && (x == y) == (op == equal))
	}
	a, b = a.number(), b.number()
	if a.kind == null || b.kind == null {
		return truth(false)
	}
	var order int
	if a.kind == integer && b.kind == integer {
		order = compareOrdered(a.i, b.i)
	} else {
		order = compareOrdered(a.float(), b.float())
	}
	switch op {
	case equal:
		return truth(order == 0)
	case unequal:
		return truth(order != 0)
	case less:
		return truth(order < 0)
	case atMost:
		return truth(order <= 0)
	case more:
		return truth(order > 0)
	}
	return truth(order >= 0)
}

func compareOrdered[T int64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// eval computes as Java does: integers wrap, and one that is divided by zero, where Java has an exception, is unknown.
func (n computed) eval(h Headers) value {
	a, b := n.left.eval(h).number(), n.right.eval(h).number()
	switch {
	case a.kind == null || b.kind == null:
		return value{}
	case a.kind == integer && b.kind == integer:
		switch n.op {
		case '+':
			a.i += b.i
		case '-':
			a.i -= b.i
		case '*':
			a.i *= b.i
		default:
			if b.i == 0 {
				return value{}
			}
			a.i /= b.i
		}
		return a
	}
	x, y := a.float(), b.float()
	switch n.op {
	case '+':
		x += y
	case '-':
		x -= y
	case '*':
		x *= y
	default:
		x /= y
	}
	if x != x {
		return value{} // not a number, and so unlike every number
	}
	return value{kind: real, f: x}
}

// Runes that no text contains stand for the wildcards.
const (
	anyOne rune = -1 - iota
	anyRun
)

func (n like) eval(h Headers) value {
	v := n.of.eval(h)
	switch v.kind {
	case null:
		return value{}
	case text:
		return truth(matches(n.pattern, v.s))
	}
	return truth(false)
}

// matches is a backtracking match that only ever goes back to the last run: what is before it has matched as early as it can.
func matches(pattern []rune, s []byte) bool {
	p, i := 0, 0
	run, resume := -1, 0 // the last run, and where what follows it was tried last
	for i < len(s) {
		r, size := utf8.DecodeRune(s[i:])
		switch {
		case p < len(pattern) && pattern[p] == anyRun:
			run, resume = p, i
			p++
		case p < len(pattern) && (pattern[p] == anyOne || pattern[p] == r):
			p++
			i += size
		case run >= 0:
			_, skip := utf8.DecodeRune(s[resume:])
			resume += skip
			p, i = run+1, resume
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == anyRun {
		p++
	}
	return p == len(pattern)
}
