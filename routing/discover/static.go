package discover

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
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

// ParseURI reads stomp://host[:port][?priority=N&weight=N&store=S]. The port is 61613 unless given; priority (the tier, lower first) and
// weight are those of an SRV record, 0 to 65535; store is the UUID or name of what the broker serves, if that is fixed.
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
	if !strings.EqualFold(scheme, "stomp") {
		return routing.Endpoint{}, fmt.Errorf("scheme %q is not known: use stomp", scheme)
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
	target, err := parseHost(u)
	if err != nil {
		return routing.Endpoint{}, err
	}
	ep := routing.Endpoint{Target: target, Weight: 1}
	return ep, parseQuery(u, &ep)
}

func parseHost(u *url.URL) (health.Target, error) {
	host, port := u.Hostname(), uint64(DefaultPort)
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
		default:
			return fmt.Errorf("has a parameter %q: priority, weight and store are known", key)
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
