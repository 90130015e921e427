package selector_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/understudy-mq/understudy/broker/selector"
)

// headers is a message's in these tests.
type headers map[string]string

func (h headers) Header(name string) ([]byte, bool) {
	v, ok := h[name]
	return []byte(v), ok
}

var message = headers{
	"color": "red", "size": "12", "weight": "2.5", "flag": "true", "off": "FALSE", "neg": "-3", "empty": "", "name": "O'Neil", "x-uid": "7",
	"path": "a_b%c", "city": "Zürich", "big": "9223372036854775807", "huge": "1e400", "hex": "0x10", "inf": "Inf",
}

// A selector's outcome is told from Matches of it and of its negation: both false is unknown.
func TestSelector(t *testing.T) {
	for _, c := range []struct {
		text string
		want string // t, f or u
	}{
		{"color = 'red'", "t"}, {"color <> 'red'", "f"}, {"color='blue'", "f"}, {"missing = 'red'", "u"}, {"missing <> 'red'", "u"},
		{"size = 12", "t"}, {"size > 11", "t"}, {"size >= 12.0", "t"}, {"size < 12", "f"}, {"size <= 12e0", "t"}, {"size <> 12", "f"}, {"12L = size", "t"},
		{"size = '12'", "t"}, {"size = '12.0'", "f"}, {"color > 1", "f"}, {"color <> 1", "f"}, {"missing > 1", "u"}, {"empty = 0", "f"},
		{"weight = 2.5f", "t"}, {"weight > 2 AND weight < 3.", "t"}, {"neg = -3", "t"}, {"neg = - - -3", "t"}, {"neg < +0", "t"}, {".5 < weight", "t"},
		{"flag = TRUE", "t"}, {"flag", "t"}, {"NOT flag", "f"}, {"off", "f"}, {"off <> true", "t"}, {"color", "u"}, {"flag = 1", "f"}, {"TRUE", "t"}, {"flag > 1", "f"},
		{"size > weight", "t"}, {"color > name", "f"}, {"size = weight", "f"},
		{"flag AND missing = 1", "u"}, {"off AND missing = 1", "f"}, {"missing = 1 AND off", "f"}, {"flag OR missing = 1", "t"}, {"missing = 1 OR flag", "t"},
		{"off OR missing = 1", "u"}, {"NOT missing = 1", "u"}, {"NOT NOT flag", "t"},
		{"off OR flag AND off", "f"}, {"(off OR flag) AND flag", "t"}, {"flag or off and off", "t"}, {"NOT off AND off", "f"}, {"NOT (off AND off)", "t"},
		{"size BETWEEN 12 AND 12", "t"}, {"size NOT BETWEEN 1 AND 11", "t"}, {"size between 13 and 20", "f"}, {"missing BETWEEN 1 AND 2", "u"},
		{"size BETWEEN 1 AND 20 AND flag", "t"},
		{"color IN ('blue', 'red')", "t"}, {"color NOT IN ('blue')", "t"}, {"color IN ('blue')", "f"}, {"missing IN ('x')", "u"}, {"missing NOT IN ('x')", "u"},
		{"size IN (1, 12.0)", "t"}, {"neg IN (-3)", "t"}, {"neg IN (3)", "f"},
		{"color LIKE 'r%'", "t"}, {"color LIKE 'r_d'", "t"}, {"color LIKE 'r_'", "f"}, {"color NOT LIKE '%e%'", "f"}, {"missing LIKE '%'", "u"}, {"empty LIKE '%'", "t"},
		{"empty LIKE ''", "t"}, {"empty LIKE '_'", "f"}, {`path LIKE 'a\_b\%c' ESCAPE '\'`, "t"}, {`path LIKE 'a\_c%' ESCAPE '\'`, "f"}, {"city LIKE 'Z_rich'", "t"},
		{"city LIKE '%ü%ch'", "t"}, {"color LIKE '%%%d'", "t"}, {"color LIKE '%d%d'", "f"}, {"color LIKE 'RED'", "f"}, {"name LIKE 'O''%'", "t"},
		{"missing IS NULL", "t"}, {"missing IS NOT NULL", "f"}, {"color IS NULL", "f"}, {"color is not null", "t"}, {"empty IS NULL", "f"},
		{"name = 'O''Neil'", "t"}, {`"x-uid" = 7`, "t"}, {`"x-uid" > 7`, "f"},
		{"size + 1 = 13", "t"}, {"size - 2 * 3 = 6", "t"}, {"(size - 2) * 3 = 30", "t"}, {"size / 5 = 2", "t"}, {"size / 5.0 = 2.4", "t"}, {"size / 0 = 1", "u"},
		{"color + 1 = 2", "u"}, {"-size = -12", "t"}, {"missing + 1 = 2", "u"}, {"size * weight = 30", "t"}, {"0.0 / 0 = 0", "u"}, {"1.0 / 0 > 5", "t"},
		{"big = 9223372036854775807", "t"}, {"big > 9223372036854775806", "t"}, {"big + 1 < 0", "t"}, {"huge > 1", "f"}, {"hex = 16", "f"}, {"inf > 1", "f"},
		{"1 = 1", "t"}, {"'a' = 'a'", "t"}, {"'a' = 1", "f"}, {"(size > 1) = TRUE", "t"}, {"\t flag \n", "t"}, {"$x IS NULL AND _y1 IS NULL", "t"},
	} {
		got := "u"
		if match(t, c.text) {
			got = "t"
		}
		if match(t, "NOT ("+c.text+")") {
			if got == "t" {
				t.Errorf("%s and its negation are both true", c.text)
			}
			got = "f"
		}
		if got != c.want {
			t.Errorf("%s is %s, want %s", c.text, got, c.want)
		}
	}
}

func match(t *testing.T, text string) bool {
	t.Helper()
	s, err := selector.Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if s.String() != text {
		t.Fatalf("%q became %q", text, s)
	}
	return s.Matches(message)
}

func TestSyntaxErrorsHaveAPosition(t *testing.T) {
	long := strings.Repeat("(", selector.MaxDepth+1)
	for _, c := range []struct {
		text string
		pos  int
	}{
		{"", 1}, {"  ", 3}, {"color =", 8}, {"color = 'red", 9}, {"color == 'red'", 8}, {"color ! 1", 7}, {"AND", 1}, {"a = 1 b = 2", 7}, {"(a = 1", 7}, {"a = 1)", 6},
		{"1", 1}, {"'a'", 1}, {"a + 1", 1}, {"NOT 1", 5}, {"a AND 'x'", 7}, {"1 OR a", 1}, {"a < 'x'", 5}, {"'x' >= a", 1}, {"a > TRUE", 5}, {"a BETWEEN 'x' AND 2", 11},
		{"a BETWEEN 1 OR 2", 13}, {"a BETWEEN 1", 12}, {"'a' BETWEEN 1 AND 2", 1}, {"a IN ()", 7}, {"a IN ('x' 'y')", 11}, {"a IN (b)", 7}, {"a IN (-'x')", 8}, {"a IN 'x'", 6},
		{"a LIKE b", 8}, {"a LIKE '%' ESCAPE 'ab'", 19}, {"a LIKE 'x!' ESCAPE '!'", 8}, {"1 LIKE '1'", 1}, {"a NOT = 1", 7}, {"a IS 1", 6}, {"a IS NOT 1", 10},
		{"1 IS NULL", 1}, {"a + 'x' = 1", 5}, {"'x' * 2 = 1", 1}, {"-'x' = 1", 2}, {"a = 99999999999999999999", 5}, {"a = 1e999", 5}, {"a = 12ab", 7}, {`"" = 1`, 1}, {"a = b = c", 7},
		{long + "a", selector.MaxDepth + 1}, {strings.Repeat("NOT ", selector.MaxDepth+1) + "a", 4*selector.MaxDepth + 5},
		{strings.Repeat("-", selector.MaxDepth+1) + "1 = a", selector.MaxDepth + 1}, {strings.Repeat("a", selector.MaxLength+1), selector.MaxLength + 1},
		{"a LIKE '" + strings.Repeat("x", selector.MaxPattern+1) + "'", 8}, {"caf\xe9\xff = 1", 4},
	} {
		_, err := selector.Parse(c.text)
		var syntax *selector.SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%q: %v, want an error", c.text, err)
		} else if syntax.Pos != c.pos {
			t.Errorf("%q: %v, want position %d", c.text, err, c.pos)
		}
	}
}

// The worst pattern for backtracking stays within the product of both lengths.
func TestLikeDoesNotExplode(t *testing.T) {
	s, err := selector.Parse("a LIKE '" + strings.Repeat("%a", selector.MaxPattern/2-1) + "%b'")
	if err != nil {
		t.Fatal(err)
	}
	if s.Matches(headers{"a": strings.Repeat("a", 64<<10)}) {
		t.Error("it matches")
	}
}

func FuzzSelector(f *testing.F) {
	for _, seed := range []string{
		"color = 'red' AND size > 3", "NOT (a IS NULL OR b NOT IN ('x', -1))", `"x-uid" LIKE '%a!_b' ESCAPE '!'`, "-a * 3.5e2 / (b + 7L) BETWEEN 1 AND 2f", "flag", "''''",
	} {
		f.Add(seed, "12")
	}
	f.Fuzz(func(t *testing.T, text, header string) {
		s, err := selector.Parse(text)
		if err != nil {
			var syntax *selector.SyntaxError
			if !errors.As(err, &syntax) || syntax.Pos < 1 || syntax.Pos > len(text)+1 {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		h := headers{"a": header, "b": header, "color": header, "flag": header}
		is := s.Matches(h)
		if s.Matches(h) != is {
			t.Fatalf("%q is not the same twice", text)
		}
		if not, err := selector.Parse("NOT (" + text + ")"); err == nil && is && not.Matches(h) {
			t.Fatalf("%q and its negation are both true", text)
		}
	})
}

// lines is a message with its headers in two slices, as a broker has them.
type lines struct {
	names  []string
	values [][]byte
}

func (l *lines) Header(name string) ([]byte, bool) {
	for i, n := range l.names {
		if n == name {
			return l.values[i], true
		}
	}
	return nil, false
}

func BenchmarkMatches(b *testing.B) {
	s, err := selector.Parse("color IN ('blue', 'red') AND size * 2 BETWEEN 20 AND 30 AND NOT name LIKE '%x%' AND weight > 2.4")
	if err != nil {
		b.Fatal(err)
	}
	l := &lines{}
	for name, value := range message {
		l.names, l.values = append(l.names, name), append(l.values, []byte(value))
	}
	b.ReportAllocs()
	for b.Loop() {
		if !s.Matches(l) {
			b.Fatal("no match")
		}
	}
}

func TestMatchingDoesNotAllocate(t *testing.T) {
	s, err := selector.Parse("color IN ('blue', 'red') AND size * 2 BETWEEN 20 AND 30 AND NOT color LIKE '%x%' AND weight > 2.4")
	if err != nil {
		t.Fatal(err)
	}
	l := &lines{[]string{"color", "size", "weight"}, [][]byte{[]byte("red"), []byte("12"), []byte("2.5")}}
	if n := testing.AllocsPerRun(100, func() { s.Matches(l) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func Example() {
	s, err := selector.Parse("color = 'red' AND size > 10")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Matches(headers{"color": "red", "size": "12"}), s.Matches(headers{"color": "red"}))
	_, err = selector.Parse("color = ")
	fmt.Println(err)
	// Output:
	// true false
	// position 9: the end where a value was expected
}
