package discover

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/routing"
)

func TestParseURI(t *testing.T) {
	for uri, want := range map[string]routing.Endpoint{
		"stomp://mq.example:61620":                        {Target: "mq.example:61620", Weight: 1},
		"stomp://mq.example":                              {Target: "mq.example:61613", Weight: 1},
		"STOMP://MQ.Example:1/":                           {Target: "mq.example:1", Weight: 1},
		"stomp://10.0.0.1:61613?priority=10&weight=60":    {Target: "10.0.0.1:61613", Tier: 10, Weight: 60},
		"stomp://10.0.0.1?weight=0":                       {Target: "10.0.0.1:61613"},
		"stomp://[::1]:61613?store=orders":                {Target: "[::1]:61613", Weight: 1, Store: "orders"},
		"stomp://[2001:DB8:0::1]":                         {Target: "[2001:db8::1]:61613", Weight: 1},
		"stomp://[::ffff:10.0.0.1]:7":                     {Target: "10.0.0.1:7", Weight: 1},
		"stomp://b_1.internal:65535?priority=0&priority=": {},
		"stomp+ssl://mq.example:61612":                    {Target: "mq.example:61612", Weight: 1, TLS: true},
		"stomp+SSL://10.0.0.1:61612?server-name=mq.example&connect-timeout=500ms": {Target: "10.0.0.1:61612", Weight: 1, TLS: true,
			ServerName: "mq.example", ConnectTimeout: 500 * time.Millisecond},
		"tcp://mq.example:5672?priority=1":                 {Target: "mq.example:5672", Tier: 1, Weight: 1, Protocol: "tcp"},
		"stomp://localhost:61613?store=a%20b&priority=100": {Target: "localhost:61613", Tier: 100, Weight: 1, Store: "a b"},
	} {
		ep, err := ParseURI(uri)
		if want == (routing.Endpoint{}) {
			if err == nil {
				t.Errorf("%s: accepted as %+v", uri, ep)
			}
			continue
		}
		if err != nil || ep != want {
			t.Errorf("%s: got %+v, %v; want %+v", uri, ep, err, want)
		}
	}
}

func TestParseURIErrors(t *testing.T) {
	for uri, want := range map[string]string{
		"":                                     "not a URI",
		"localhost:61613":                      "write stomp://host:port",
		"amqp://localhost:61613":               `scheme "amqp" is not known: use stomp`,
		"tcp://localhost":                      "names no port",
		"stomp+ssl://localhost":                "write stomp+ssl://host:port",
		"stomp://h?server-name=x":              "stomp+ssl",
		"stomp+ssl://h:1?server-name=a/b":      "neither a name",
		"stomp+ssl://h:1?server-name=":         "neither a name",
		"stomp://h?connect-timeout=5":          "500ms",
		"stomp://h?connect-timeout=0s":         "500ms",
		"stomp://h?connect-timeout=1h":         "1m0s",
		"stomp://":                             "names no host",
		"stomp://:61613":                       "names no host",
		"stomp://h:0":                          "1 to 65535",
		"stomp://h:65536":                      "1 to 65535",
		"stomp://h:http":                       "cannot be read",
		"stomp://h/queue":                      "path",
		"stomp://h#x":                          "fragment",
		"stomp://h?weight=65536":               "0 to 65535",
		"stomp://h?weight=-1":                  "0 to 65535",
		"stomp://h?priority=high":              "0 to 65535",
		"stomp://h?prio=1":                     `parameter "prio": priority, weight, store,`,
		"stomp://h?weight=1&weight=2":          "2 times",
		"stomp://h?store=":                     "store",
		"stomp://h?a;b":                        "query",
		"stomp://a b:1":                        "",
		"stomp://..:1":                         "neither a name nor an address",
		"stomp://[::1":                         "cannot be read",
		"stomp://h,i:1":                        "neither",
		"stomp://u:secret@h:1":                 "carries credentials",
		"stomp://u:secret@h:x":                 "malformed",
		"stomp://u:sec%zzret@h":                "malformed",
		"ftp://u:secret@h":                     "scheme",
		"u:secret@h":                           "not a URI",
		"stomp://" + strings.Repeat("h", 2000): "octets long",
	} {
		ep, err := ParseURI(uri)
		if err == nil {
			t.Errorf("%q: accepted as %+v", uri, ep)
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "ret@") {
			t.Errorf("%q: %v; want %q and no secret", uri, err, want)
		}
		if len(err.Error()) > 2*MaxURI {
			t.Errorf("%.20q: an error of %d octets", uri, len(err.Error()))
		}
	}
}

func TestParseStatic(t *testing.T) {
	eps, err := ParseStatic([]string{"stomp://a:1?priority=2", "stomp://b:1"})
	if err != nil || len(eps) != 2 || eps[0].Target != "a:1" || eps[1].Tier != 0 {
		t.Errorf("%+v, %v", eps, err)
	}
	if _, err := ParseStatic([]string{"stomp://a", "stomp://A:61613"}); err == nil || !strings.Contains(err.Error(), "listed twice") {
		t.Errorf("twice: %v", err)
	}
	if _, err := ParseStatic(make([]string, routing.MaxCandidates+1)); err == nil || !strings.Contains(err.Error(), "SRV") {
		t.Errorf("too many: %v", err)
	}
	if _, err := ParseStatic([]string{"stomp://a", "x"}); err == nil {
		t.Error("a list with a fault was taken")
	}
}

// What is accepted is a target that can be dialled, in the one spelling that it has, and its error never shows a password.
func FuzzParseURI(f *testing.F) {
	for _, s := range []string{"stomp://h", "stomp://[::1]:1?priority=1&weight=2&store=x", "stomp://u:p@h", "stomp://h:99999", "stomp://%41", "stomp://[fe80::1%25eth0]:1",
		"://", "stomp://h?priority=%zz", "stomp://h:1/", "STOMP://H:01"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		ep, err := ParseURI(uri)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "broker ") || ep != (routing.Endpoint{}) {
				t.Fatalf("%+v with %v", ep, err)
			}
			return
		}
		host, port, err := net.SplitHostPort(string(ep.Target))
		n, _ := strconv.Atoi(port)
		if err != nil || host == "" || n < 1 || n > 65535 || ep.Tier < 0 || ep.Tier > 65535 {
			t.Fatalf("%q became %+v", uri, ep)
		}
		again, err := ParseURI("stomp://" + strings.ReplaceAll(string(ep.Target), "%", "%25"))
		if err != nil || again.Target != ep.Target {
			t.Fatalf("%q became %s, which becomes %s, %v", uri, ep.Target, again.Target, err)
		}
	})
}
