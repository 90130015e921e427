package selector

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// parser is recursive descent over the grammar in the package comment, one method a rule, with one token looked at ahead.
type parser struct {
	lexer
	tok   token
	depth int
}

// class is what can be said of an expression before it is evaluated.
type class uint8

const (
	open   class = iota // a header: whatever its text becomes
	truths              // true, false or unknown
	numbers
	texts
)

func (p *parser) selector() (node, error) {
	if err := p.advance(); err != nil {
		return nil, err
	}
	pos := p.tok.pos
	n, c, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.tok.kind != tokEnd {
		return nil, p.unexpected("AND, OR or the end")
	}
	return n, want(c, pos, truths)
}

func (p *parser) advance() (err error) {
	p.tok, err = p.next()
	return err
}

// accept takes the token if it is this keyword or symbol.
func (p *parser) accept(text string) (bool, error) {
	if !p.is(text) {
		return false, nil
	}
	return true, p.advance()
}

func (p *parser) is(text string) bool {
	return (p.tok.kind == tokKeyword || p.tok.kind == tokSymbol) && p.tok.text == text
}

func (p *parser) expect(text string) error {
	if ok, err := p.accept(text); ok || err != nil {
		return err
	}
	return p.unexpected(text)
}

func (p *parser) unexpected(wanted string) error {
	what := strconv.Quote(p.tok.text)
	if p.tok.kind == tokEnd {
		what = "the end"
	}
	return &SyntaxError{p.tok.pos + 1, fmt.Sprintf("%s where %s was expected", what, wanted)}
}

// want refuses an expression that can never be of a class.
func want(c class, pos int, wanted class) error {
	if c == open || c == wanted {
		return nil
	}
	return &SyntaxError{pos + 1, [...]string{truths: "a condition", numbers: "a number", texts: "a text"}[wanted] + " is needed here"}
}

// nest counts a level of recursion; the caller's defer un-counts it.
func (p *parser) nest() error {
	if p.depth++; p.depth > MaxDepth {
		return &SyntaxError{p.tok.pos + 1, fmt.Sprintf("a selector is at most %d levels deep", MaxDepth)}
	}
	return nil
}

func (p *parser) or() (node, class, error) { return p.chain("OR", p.and) }

func (p *parser) and() (node, class, error) { return p.chain("AND", p.not) }

func (p *parser) chain(op string, operand func() (node, class, error)) (node, class, error) {
	pos := p.tok.pos
	left, c, err := operand()
	for err == nil && p.is(op) {
		if err = want(c, pos, truths); err != nil {
			break
		}
		if err = p.advance(); err != nil {
			break
		}
		pos = p.tok.pos
		var right node
		if right, c, err = operand(); err != nil {
			break
		}
		if err = want(c, pos, truths); err != nil {
			break
		}
		left, c = logical{left, right, op == "OR"}, truths
	}
	return left, c, err
}

func (p *parser) not() (node, class, error) {
	if ok, err := p.accept("NOT"); !ok || err != nil {
		if err != nil {
			return nil, 0, err
		}
		return p.condition()
	}
	defer func() { p.depth-- }()
	if err := p.nest(); err != nil {
		return nil, 0, err
	}
	pos := p.tok.pos
	n, c, err := p.not()
	if err == nil {
		err = want(c, pos, truths)
	}
	return negation{n}, truths, err
}

func (p *parser) condition() (node, class, error) {
	pos := p.tok.pos
	left, c, err := p.sum()
	if err != nil {
		return nil, 0, err
	}
	if p.tok.kind == tokSymbol {
		if op, ok := comparisons[p.tok.text]; ok {
			return p.comparison(left, c, pos, op)
		}
	}
	if ok, err := p.accept("IS"); ok || err != nil {
		return p.null(left, c, pos, err)
	}
	inverse, err := p.accept("NOT")
	if err != nil {
		return nil, 0, err
	}
	var n node
	switch {
	case p.is("BETWEEN"):
		n, err = p.between(left, c, pos)
	case p.is("IN"):
		n, err = p.in(left)
	case p.is("LIKE"):
		if err = want(c, pos, texts); err == nil {
			n, err = p.like(left)
		}
	case inverse:
		return nil, 0, p.unexpected("BETWEEN, IN or LIKE")
	default:
		return left, c, nil
	}
	if inverse {
		n = negation{n}
	}
	return n, truths, err
}

func (p *parser) comparison(left node, c class, pos int, op comparison) (node, class, error) {
	if err := p.advance(); err != nil {
		return nil, 0, err
	}
	rightPos := p.tok.pos
	right, rc, err := p.sum()
	if err == nil && op >= less { // only numbers have an order [3.8.1.2]
		if err = want(c, pos, numbers); err == nil {
			err = want(rc, rightPos, numbers)
		}
	}
	return compared{left, right, op}, truths, err
}

func (p *parser) null(left node, c class, pos int, err error) (node, class, error) {
	if err != nil {
		return nil, 0, err
	}
	inverse, err := p.accept("NOT")
	if err == nil {
		err = p.expect("NULL")
	}
	if err == nil && c != open {
		err = &SyntaxError{pos + 1, "IS NULL is for identifiers"}
	}
	return isNull{left, inverse}, truths, err
}

func (p *parser) between(left node, c class, pos int) (node, error) {
	err := want(c, pos, numbers)
	if err != nil {
		return nil, err
	}
	if err = p.advance(); err != nil {
		return nil, err
	}
	bound := func() (node, error) {
		pos := p.tok.pos
		n, c, err := p.sum()
		if err == nil {
			err = want(c, pos, numbers)
		}
		return n, err
	}
	low, err := bound()
	if err != nil {
		return nil, err
	}
	if err = p.expect("AND"); err != nil {
		return nil, err
	}
	high, err := bound()
	return logical{compared{left, low, atLeast}, compared{left, high, atMost}, false}, err
}

func (p *parser) in(left node) (node, error) {
	err := p.advance()
	if err == nil {
		err = p.expect("(")
	}
	n := oneOf{of: left}
	for err == nil {
		sign := p.is("-")
		if sign {
			if err = p.advance(); err != nil {
				break
			}
		}
		switch v := p.tok.value; {
		case p.tok.kind == tokNumber:
			if sign {
				v.i, v.f = -v.i, -v.f
			}
			n.list = append(n.list, v)
		case p.tok.kind == tokString && !sign:
			n.list = append(n.list, value{kind: text, s: []byte(p.tok.text)})
		default:
			return nil, p.unexpected("a text or a number")
		}
		if err = p.advance(); err != nil {
			break
		}
		if more, err := p.accept(","); err != nil {
			return nil, err
		} else if !more {
			return n, p.expect(")")
		}
	}
	return nil, err
}

func (p *parser) like(left node) (node, error) {
	if err := p.advance(); err != nil {
		return nil, err
	}
	pattern := p.tok
	if pattern.kind != tokString {
		return nil, p.unexpected("a pattern in quotes")
	}
	if utf8.RuneCountInString(pattern.text) > MaxPattern {
		return nil, &SyntaxError{pattern.pos + 1, fmt.Sprintf("a pattern has at most %d characters", MaxPattern)}
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	escape, escapes := rune(0), false
	if ok, err := p.accept("ESCAPE"); err != nil {
		return nil, err
	} else if ok {
		if p.tok.kind != tokString || utf8.RuneCountInString(p.tok.text) != 1 {
			return nil, p.unexpected("one character in quotes")
		}
		escape, _ = utf8.DecodeRuneInString(p.tok.text)
		escapes = true
		if err := p.advance(); err != nil {
			return nil, err
		}
	}
	n := like{of: left}
	literal := false
	for _, r := range pattern.text {
		switch {
		case literal:
			literal = false
		case escapes && r == escape:
			literal = true
			continue
		case r == '%':
			r = anyRun
		case r == '_':
			r = anyOne
		}
		n.pattern = append(n.pattern, r)
	}
	if literal {
		return nil, &SyntaxError{pattern.pos + 1, "the pattern ends with its escape character"}
	}
	return n, nil
}

func (p *parser) sum() (node, class, error) { return p.arithmetic("+", "-", p.product) }

func (p *parser) product() (node, class, error) { return p.arithmetic("*", "/", p.sign) }

func (p *parser) arithmetic(one, other string, operand func() (node, class, error)) (node, class, error) {
	pos := p.tok.pos
	left, c, err := operand()
	for err == nil && (p.is(one) || p.is(other)) {
		op := p.tok.text[0]
		if err = want(c, pos, numbers); err != nil {
			break
		}
		if err = p.advance(); err != nil {
			break
		}
		pos = p.tok.pos
		var right node
		if right, c, err = operand(); err != nil {
			break
		}
		if err = want(c, pos, numbers); err != nil {
			break
		}
		left, c = computed{left, right, op}, numbers
	}
	return left, c, err
}

func (p *parser) sign() (node, class, error) {
	minus := p.is("-")
	if !minus && !p.is("+") {
		return p.primary()
	}
	defer func() { p.depth-- }()
	if err := p.nest(); err != nil {
		return nil, 0, err
	}
	if err := p.advance(); err != nil {
		return nil, 0, err
	}
	pos := p.tok.pos
	n, c, err := p.sign()
	if err == nil {
		err = want(c, pos, numbers)
	}
	zero := constant{value{kind: integer}}
	if minus {
		return computed{zero, n, '-'}, numbers, err
	}
	return computed{zero, n, '+'}, numbers, err
}

func (p *parser) primary() (node, class, error) {
	t := p.tok
	switch {
	case t.kind == tokNumber:
		return constant{t.value}, numbers, p.advance()
	case t.kind == tokString:
		return constant{value{kind: text, s: []byte(t.text)}}, texts, p.advance()
	case t.kind == tokIdentifier:
		return identifier(t.text), open, p.advance()
	case p.is("TRUE"), p.is("FALSE"):
		return constant{value{kind: boolean, b: t.text == "TRUE"}}, truths, p.advance()
	case p.is("("):
		defer func() { p.depth-- }()
		if err := p.nest(); err != nil {
			return nil, 0, err
		}
		if err := p.advance(); err != nil {
			return nil, 0, err
		}
		n, c, err := p.or()
		if err == nil {
			err = p.expect(")")
		}
		return n, c, err
	}
	return nil, 0, p.unexpected("a value")
}
