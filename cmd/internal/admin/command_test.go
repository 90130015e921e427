package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

func TestCommands(t *testing.T) {
	var done atomic.Int32
	commands := map[string]Command{"move": func(ctx context.Context, args url.Values) (any, error) {
		if _, limited := ctx.Deadline(); !limited {
			t.Error("a command without an end")
		}
		switch args.Get("what") {
		case "":
			return nil, &Refusal{http.StatusNotFound, errors.New("there is no such thing")}
		case "wrapped":
			return nil, fmt.Errorf("move it: %w", &Refusal{http.StatusConflict, errors.New("it is held")})
		case "broken":
			return nil, errors.New("the disk failed")
		}
		done.Add(1)
		return map[string]string{"moved": args.Get("what")}, nil
	}}
	strict := start(t, Config{Commands: commands})
	open := start(t, Config{Commands: commands, AnyHost: true})
	for _, c := range []struct {
		name, addr, method, query, host string
		header                          []string
		code                            int
		contains                        string
	}{
		{"done", strict, "POST", "?what=a", "", nil, 200, `"moved": "a"`},
		{"refused", strict, "POST", "", "", nil, 404, `"error": "there is no such thing"`},
		{"refused below", strict, "POST", "?what=wrapped", "", nil, 409, `"error": "move it: it is held"`},
		{"failed", strict, "POST", "?what=broken", "", nil, 500, `"error": "the disk failed"`},
		{"GET does nothing", strict, "GET", "?what=a", "", nil, 405, ""},
		{"from our own page", strict, "POST", "?what=a", "", []string{"Sec-Fetch-Site", "same-origin"}, 200, `"moved"`},
		{"from another page", strict, "POST", "?what=a", "", []string{"Sec-Fetch-Site", "cross-site"}, 403, ""},
		{"from a page of another port", strict, "POST", "?what=a", "", []string{"Sec-Fetch-Site", "same-site"}, 403, ""},
		{"from another page, by an old browser", strict, "POST", "?what=a", "", []string{"Origin", "http://evil.example"}, 403, ""},
		{"from a sandboxed page", strict, "POST", "?what=a", "", []string{"Origin", "null"}, 403, ""},
		{"through a rebound name", strict, "POST", "?what=a", "evil.example", nil, 403, ""},
		{"by name, where names are let in", open, "POST", "?what=a", "mq1.example", nil, 200, `"moved"`},
		{"by a page at a rebound name there", open, "POST", "?what=a", "evil.example", []string{"Origin", "http://evil.example"}, 403, "IP address or localhost"},
		{"by a page at a rebound name there, by a new browser", open, "POST", "?what=a", "evil.example", []string{"Sec-Fetch-Site", "same-origin"}, 403, "IP address or localhost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := done.Load()
			code, body, _ := ask(t, c.method, c.addr, "/move"+c.query, c.host, c.header...)
			if code != c.code || !strings.Contains(body, c.contains) {
				t.Errorf("%d %q, want %d with %q", code, body, c.code, c.contains)
			}
			if did := done.Load() - before; (did == 1) != (c.code == 200) {
				t.Errorf("done %d times for %d", did, c.code)
			}
		})
	}
}
