// Package selector parses and evaluates message selectors: the conditional expressions of SQL-92 that JMS made the way to ask for some
// messages of a destination. [Jakarta Messaging 3.1, 3.8 Message selection]
//
//	selector   = or
//	or         = and { OR and }
//	and        = not { AND not }
//	not        = NOT not | condition
//	condition  = sum [ compare sum | IS [NOT] NULL | [NOT] ( BETWEEN sum AND sum | IN "(" literal { "," literal } ")" |
//	             LIKE string [ ESCAPE string ] ) ]
//	compare    = "=" | "<>" | "<" | "<=" | ">" | ">="
//	sum        = product { ( "+" | "-" ) product }
//	product    = sign { ( "*" | "/" ) sign }
//	sign       = ( "+" | "-" ) sign | primary
//	primary    = literal | identifier | "(" or ")"
//	identifier = a Java identifier that is no keyword, or any text in double quotes: header names with a hyphen need them
//
// Headers are text, so text becomes a number or a truth value where it meets one; where it cannot, the comparison is false. A header that is
// not there is NULL, what is computed from it is unknown, and a message is selected only where the whole is true.
//
// A Selector is immutable and evaluates without allocating. Everything a client can make large is bounded: the length of the text, its
// depth, the length of a LIKE pattern, which is what matching costs.
package selector

import "fmt"

// Limits of a selector's text.
const (
	MaxLength  = 4096 // octets
	MaxDepth   = 64   // of parentheses, NOT and signs within each other
	MaxPattern = 256  // characters of a LIKE pattern
)

// Headers are what a selector is evaluated on. Header returns the value of the first header of that name. It stays as it is while Matches runs, and
// is not kept.
type Headers interface {
	Header(name string) (value []byte, ok bool)
}

// Selector is a parsed selector. It may be used by several goroutines.
type Selector struct {
	text string
	root node
}

// SyntaxError says where a selector is wrong. Pos counts octets from 1.
type SyntaxError struct {
	Pos  int
	What string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("position %d: %s", e.Pos, e.What) }

// Parse reads a selector. Every error is a *SyntaxError.
func Parse(text string) (*Selector, error) {
	if len(text) > MaxLength {
		return nil, &SyntaxError{MaxLength + 1, fmt.Sprintf("a selector has at most %d octets", MaxLength)}
	}
	p := parser{lexer: lexer{text: text}}
	root, err := p.selector()
	if err != nil {
		return nil, err
	}
	return &Selector{text, root}, nil
}

// String returns the text that was parsed.
func (s *Selector) String() string { return s.text }

// Matches reports whether the selector is true, as opposed to false or unknown, for a message with these headers.
func (s *Selector) Matches(h Headers) bool { return s.root.eval(h).truth() == yes }
