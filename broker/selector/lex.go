package selector

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// token is a word of a selector.
type token struct {
	kind  tokenKind
	pos   int    // of its first octet, from 0
	text  string // as written; of a keyword in upper case; of a string or an identifier without its quotes
	value value  // of a number
}

type tokenKind uint8

const (
	tokEnd tokenKind = iota
	tokKeyword
	tokIdentifier
	tokString
	tokNumber
	tokSymbol
)

var keywords = map[string]bool{
	"NOT": true, "AND": true, "OR": true, "BETWEEN": true, "LIKE": true, "IN": true, "IS": true, "NULL": true, "ESCAPE": true,
	"TRUE": true, "FALSE": true,
}

// lexer cuts a selector into tokens.
type lexer struct {
	text string
	at   int
}

func (l *lexer) next() (token, error) {
	l.at += len(l.text[l.at:]) - len(strings.TrimLeft(l.text[l.at:], " \t\r\n\f"))
	t := token{pos: l.at}
	if l.at == len(l.text) {
		return t, nil
	}
	rest := l.text[l.at:]
	first, size := utf8.DecodeRuneInString(rest)
	switch {
	case first == '\'' || first == '"':
		return l.quoted(t, rest)
	case isDigit(rest[0]) || first == '.' && len(rest) > 1 && isDigit(rest[1]):
		return l.number(t, rest)
	case isStart(first):
		n := size
		for n < len(rest) {
			r, size := utf8.DecodeRuneInString(rest[n:])
			if !isStart(r) && !unicode.IsDigit(r) {
				break
			}
			n += size
		}
		t.kind, t.text = tokIdentifier, rest[:n]
		if word := strings.ToUpper(t.text); keywords[word] {
			t.kind, t.text = tokKeyword, word
		}
		l.at += n
		return t, nil
	}
	for _, symbol := range [...]string{"<>", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "(", ")", ","} {
		if strings.HasPrefix(rest, symbol) {
			t.kind, t.text = tokSymbol, symbol
			l.at += len(symbol)
			return t, nil
		}
	}
	return t, &SyntaxError{t.pos + 1, strconv.QuoteRune(first) + " begins nothing that a selector may contain"}
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isStart(r rune) bool { return r == '_' || r == '$' || unicode.IsLetter(r) }

// quoted reads a string literal or a quoted identifier; the quote in it is written twice.
func (l *lexer) quoted(t token, rest string) (token, error) {
	quote := rest[:1]
	t.kind = tokString
	if quote == `"` {
		t.kind = tokIdentifier
	}
	for n := 1; ; {
		i := strings.Index(rest[n:], quote)
		if i < 0 {
			return t, &SyntaxError{t.pos + 1, "the quote that begins here does not end"}
		}
		if n += i + 1; strings.HasPrefix(rest[n:], quote) {
			n++
			continue
		}
		t.text = strings.ReplaceAll(rest[1:n-1], quote+quote, quote)
		l.at += n
		if t.kind == tokIdentifier && t.text == "" {
			return t, &SyntaxError{t.pos + 1, "an identifier is not empty"}
		}
		return t, nil
	}
}

// number reads digits, a fraction, an exponent and Java's suffix. [Jakarta Messaging 3.1, 3.8.1.1 Literals]
func (l *lexer) number(t token, rest string) (token, error) {
	digits := func(n int) int {
		for n < len(rest) && isDigit(rest[n]) {
			n++
		}
		return n
	}
	whole := true
	n := digits(0)
	if n < len(rest) && rest[n] == '.' {
		n, whole = digits(n+1), false
	}
	if n < len(rest) && (rest[n] == 'e' || rest[n] == 'E') {
		e := n + 1
		if e < len(rest) && (rest[e] == '+' || rest[e] == '-') {
			e++
		}
		if end := digits(e); end > e {
			n, whole = end, false
		}
	}
	t.kind, t.text = tokNumber, rest[:n]
	l.at += n
	if n < len(rest) && strings.IndexByte("lL", rest[n]) >= 0 && whole {
		l.at++
	} else if n < len(rest) && strings.IndexByte("fFdD", rest[n]) >= 0 {
		l.at++
		whole = false
	}
	if r, _ := utf8.DecodeRuneInString(l.text[l.at:]); l.at < len(l.text) && (isStart(r) || unicode.IsDigit(r)) {
		return t, &SyntaxError{l.at + 1, "a number ends in the middle of a word"}
	}
	var err error
	if whole {
		t.value.kind = integer
		t.value.i, err = strconv.ParseInt(t.text, 10, 64)
	} else {
		t.value.kind = real
		t.value.f, err = strconv.ParseFloat(t.text, 64)
	}
	if err != nil {
		return t, &SyntaxError{t.pos + 1, "the number is too large"}
	}
	return t, nil
}
