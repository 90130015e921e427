package discover

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/routing"
)

// DefaultPort is the port that IANA has for STOMP.
const DefaultPort = 61613

// MaxURI bounds one URI, in octets.
const MaxURI = 1024

// ParseStatic reads a list of broker URIs. All are of tier 0 and weight 1 unless they say otherwise; a broker may be listed once.
func ParseStatic(uris []string) ([]routing.Endpoint, error) {
	if len(uris) > routing.MaxCandidates {
		return nil, fmt.Errorf("%d brokers are listed, the most is %d: use an SRV record", len(uris), routing.MaxCandidates)
	}
	seen := make(map[health.Target]string, len(uris))
	eps := make([]routing.Endpoint, 0, len(uris))
	for _, uri := range uris {
		ep, err := ParseURI(uri)
		if err != nil {
			return nil, err
		}
		if first, twice := seen[ep.Target]; twice {
			return nil, fmt.Errorf("broker %s is listed twice: as %q and as %q", ep.Target, first, uri)
		}
		seen[ep.Target] = uri
		eps = append(eps, ep)
	}
	return eps, nil
}

// schemes are what a URI may begin with. Only STOMP without TLS has a port that everybody uses.
var schemes = map[string]struct {
	protocol string
	tls      bool
	port     uint64
}{
	"stomp":     {"", false, DefaultPort},
	"stomp+ssl": {"", true, 0},
	"tcp":       {"tcp", false, 0},
}

// MaxConnectTimeout bounds connect-timeout: a session tries brokers in turn.
const MaxConnectTimeout = time.Minute

// ParseURI reads scheme://host[:port][?priority=N&weight=N&store=S&connect-timeout=D&server-name=H]. The scheme is stomp, stomp+ssl (STOMP
// inside TLS) or tcp (whatever the clients speak); the port is 61613 for stomp unless given. priority (the tier, lower first) and weight are those
// of an SRV record, 0 to 65535; store is the UUID or name of what the broker serves, if that is fixed; connect-timeout, such as 500ms, bounds a
// connect, TLS included; server-name is whom the broker's certificate must be for, if that is not the host.
func ParseURI(uri string) (routing.Endpoint, error) {
	ep, err := parseURI(uri)
	if err != nil {
		return routing.Endpoint{}, fmt.Errorf("broker %q: %w", redact(uri), err)
	}
	return ep, nil
}

func parseURI(uri string) (routing.Endpoint, error) {
	if len(uri) > MaxURI {
		return routing.Endpoint{}, fmt.Errorf("is %d octets long, the most is %d", len(uri), MaxURI)
	}
	scheme, _, found := strings.Cut(uri, "://")
	if !found {
		return routing.Endpoint{}, errors.New("is not a URI: write stomp://host:port")
	}
	known, ok := schemes[strings.ToLower(scheme)]
	if !ok {
		return routing.Endpoint{}, fmt.Errorf("scheme %q is not known: use stomp, stomp+ssl or tcp", scheme)
	}
	u, err := url.Parse(uri)
	if err != nil {
		// The error of url.Parse repeats the whole URI, and with it a password that somebody wrote there.
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err
		}
		return routing.Endpoint{}, fmt.Errorf("cannot be read: %s", scrub(err.Error(), uri))
	}
	switch {
	case u.User != nil:
		return routing.Endpoint{}, errors.New("carries credentials: the client's own are used, leave these out")
	case u.Path != "" && u.Path != "/":
		return routing.Endpoint{}, fmt.Errorf("has a path %q, which means nothing here", u.Path)
	case u.Fragment != "":
		return routing.Endpoint{}, fmt.Errorf("has a fragment %q, which means nothing here", u.Fragment)
	}
	target, err := parseHost(u, known.port)
	if err != nil {
		return routing.Endpoint{}, err
	}
	ep := routing.Endpoint{Target: target, Weight: 1, Protocol: known.protocol, TLS: known.tls}
	if err := parseQuery(u, &ep); err != nil {
		return routing.Endpoint{}, err
	}
	if ep.ServerName != "" && !ep.TLS {
		return routing.Endpoint{}, errors.New("has a server-name, and no certificate to find it in: write stomp+ssl")
	}
	return ep, nil
}

func parseHost(u *url.URL, port uint64) (health.Target, error) {
	host := u.Hostname()
	if host == "" {
		return "", errors.New("names no host: write stomp://host:port")
	}
	// One spelling for each host, since targets are compared.
	if addr, err := netip.ParseAddr(host); err == nil && isName(addr.Zone()+"x") {
		host = addr.Unmap().String()
	} else if host = strings.ToLower(host); !isName(host) || host[0] == '.' || len(host) > 253 {
		return "", fmt.Errorf("host %q is neither a name nor an address", host)
	}
	if text := u.Port(); text != "" {
		var err error
		if port, err = strconv.ParseUint(text, 10, 16); err != nil || port == 0 {
			return "", fmt.Errorf("port %q is not a number from 1 to 65535", text)
		}
	}
	if port == 0 {
		return "", fmt.Errorf("names no port, and brokers have none in common for %s: write %s://host:port", u.Scheme, u.Scheme)
	}
	return health.Target(net.JoinHostPort(host, strconv.FormatUint(port, 10))), nil
}

// isName is generous: what resolvers take, underscores and letters of other alphabets included, and nothing that a URI or an address is made of.
func isName(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool {
		return !unicode.IsLetter(c) && !unicode.IsDigit(c) && c != '.' && c != '-' && c != '_'
	})
}

func parseQuery(u *url.URL, ep *routing.Endpoint) error {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errors.New("its query cannot be read: write ?priority=N&weight=N&store=S")
	}
	for key, values := range query {
		value := values[len(values)-1]
		if len(values) > 1 {
			return fmt.Errorf("says %s %d times", key, len(values))
		}
		switch key {
		case "priority", "weight":
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				return fmt.Errorf("%s %q is not a number from 0 to 65535", key, value)
			}
			if key == "priority" {
				ep.Tier = int(n)
			} else {
				ep.Weight = uint16(n)
			}
		case "store":
			if value == "" || strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c == 0x7f }) {
				return fmt.Errorf("store %q is not a name", value)
			}
			ep.Store = value
		case "server-name":
			if _, err := netip.ParseAddr(value); err != nil && (!isName(value) || value == "" || len(value) > 253) {
				return fmt.Errorf("server-name %q is neither a name nor an address", value)
			}
			ep.ServerName = value
		case "connect-timeout":
			d, err := time.ParseDuration(value)
			if err != nil || d <= 0 || d > MaxConnectTimeout {
				return fmt.Errorf("connect-timeout %q is not a time from 1ns to %v, such as 500ms", value, MaxConnectTimeout)
			}
			ep.ConnectTimeout = d
		default:
			return fmt.Errorf("has a parameter %q: priority, weight, store, connect-timeout and server-name are known", key)
		}
	}
	return nil
}

// redact hides what stands between the scheme and the last @ of a URI, and cuts what is too long to print.
func redact(uri string) string {
	if len(uri) > MaxURI {
		uri = uri[:MaxURI] + "…"
	}
	at := strings.LastIndexByte(uri, '@')
	if at < 0 {
		return uri
	}
	start := 0
	if i := strings.Index(uri[:at], "://"); i >= 0 {
		start = i + len("://")
	}
	return uri[:start] + "***" + uri[at:]
}

// scrub drops an error text that might quote what redact hides.
func scrub(text, uri string) string {
	if strings.Contains(uri, "@") {
		return "host, port or query are malformed"
	}
	return text
}
