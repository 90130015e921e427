package discover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Defaults and limits of DNS.
const (
	DefaultTimeout    = 2 * time.Second
	DefaultMinTTL     = time.Second
	DefaultMaxTTL     = 30 * time.Second
	DefaultResolvConf = "/etc/resolv.conf"

	MaxServers = 8
	// udpSize is what we say that we take over UDP: the size that crosses every network unfragmented. [RFC 6891 6.2.5, DNS flag day 2020]
	udpSize = 1232
)

// DNS says whom to ask and how long to believe it. The zero value asks the system's resolvers.
type DNS struct {
	// Servers are resolvers, host:port (port 53 if absent). None: those of ResolvConf, which is read again before each lookup.
	Servers []string
	// ResolvConf is the path of a resolv.conf; "" means /etc/resolv.conf. Its search list applies only when its servers do.
	ResolvConf string
	// Timeout of one question to one resolver; 0 means 2 s. The next resolver is asked as well after a quarter of it.
	Timeout time.Duration
	// TTLs are taken as no less than MinTTL (0 means 1 s) and no more than MaxTTL (0 means 30 s). MinTTL also keeps Refresh from asking more often.
	MinTTL, MaxTTL time.Duration
}

// resolver puts questions to servers.
type resolver struct{ cfg DNS }

func newResolver(cfg DNS) (*resolver, error) {
	cfg.Timeout = cmp.Or(cfg.Timeout, DefaultTimeout)
	cfg.MinTTL, cfg.MaxTTL = cmp.Or(cfg.MinTTL, DefaultMinTTL), cmp.Or(cfg.MaxTTL, DefaultMaxTTL)
	cfg.ResolvConf = cmp.Or(cfg.ResolvConf, DefaultResolvConf)
	if cfg.Timeout < 0 || cfg.MinTTL < 0 || cfg.MaxTTL < cfg.MinTTL {
		return nil, fmt.Errorf("DNS: time-out %v, least TTL %v, greatest TTL %v: each must be positive, and the least not above the greatest",
			cfg.Timeout, cfg.MinTTL, cfg.MaxTTL)
	}
	if len(cfg.Servers) > MaxServers {
		return nil, fmt.Errorf("DNS: %d servers are named, the most is %d", len(cfg.Servers), MaxServers)
	}
	servers := make([]string, 0, len(cfg.Servers))
	for _, s := range cfg.Servers {
		server, err := checkServer(s)
		if err != nil {
			return nil, err
		}
		servers = append(servers, server)
	}
	cfg.Servers = servers
	return &resolver{cfg}, nil
}

func checkServer(s string) (string, error) {
	if net.ParseIP(strings.Trim(s, "[]")) != nil || !strings.Contains(s, ":") {
		s = net.JoinHostPort(strings.Trim(s, "[]"), "53")
	}
	if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" {
		return "", fmt.Errorf("DNS server %q is not host:port", s)
	}
	return s, nil
}

func checkName(name string) (string, error) {
	labels, ok := dns.IsDomainName(name)
	if !ok || labels == 0 {
		return "", fmt.Errorf("SRV name %q is not a domain name: name it as _service._proto.domain, for example _stomp._tcp.mq.example", name)
	}
	return strings.ToLower(name), nil
}

// sources of one lookup: whom to ask, and under which full names.
func (r *resolver) plan(name string) (servers, names []string, err error) {
	if len(r.cfg.Servers) > 0 {
		return r.cfg.Servers, []string{dns.Fqdn(name)}, nil
	}
	conf, err := dns.ClientConfigFromFile(r.cfg.ResolvConf)
	if err != nil {
		return nil, nil, fmt.Errorf("read the system's resolvers: %w", err)
	}
	if len(conf.Servers) == 0 {
		return nil, nil, fmt.Errorf("%s names no resolver: name one yourself", r.cfg.ResolvConf)
	}
	for _, s := range conf.Servers[:min(len(conf.Servers), MaxServers)] {
		servers = append(servers, net.JoinHostPort(s, conf.Port))
	}
	return servers, conf.NameList(name), nil
}

// ask puts one question to the servers, in turn: the next one is asked when one failed, and as well when one is slow. The first usable
// answer counts, and NXDOMAIN is one. All goroutines have ended when it returns.
func (r *resolver) ask(ctx context.Context, servers []string, name string, kind uint16) (*dns.Msg, error) {
	type result struct {
		msg *dns.Msg
		err error
	}
	results := make(chan result, len(servers))
	var joined sync.WaitGroup
	defer joined.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asked, pending := 0, 0
	next := func() {
		if asked < len(servers) {
			server := servers[asked]
			asked, pending = asked+1, pending+1
			joined.Go(func() {
				msg, err := r.askOne(ctx, server, name, kind)
				results <- result{msg, err}
			})
		}
	}
	slow := time.NewTicker(max(r.cfg.Timeout/4, time.Millisecond))
	defer slow.Stop()
	var errs []error
	for next(); pending > 0; {
		select {
		case got := <-results:
			if pending--; got.err == nil {
				return got.msg, nil
			}
			errs = append(errs, got.err)
			next()
		case <-slow.C:
			next()
		}
	}
	return nil, errors.Join(errs...)
}

// askOne asks one server, over UDP with EDNS0; over TCP when the answer did not fit [RFC 2181 9, RFC 7766]; and without EDNS0 when
// the server does not know it [RFC 6891 7].
func (r *resolver) askOne(ctx context.Context, server, name string, kind uint16) (*dns.Msg, error) {
	question := new(dns.Msg).SetQuestion(name, kind)
	question.SetEdns0(udpSize, false)
	msg, err := r.exchange(ctx, "udp", server, question)
	if err == nil && (msg.Rcode == dns.RcodeFormatError || msg.Rcode == dns.RcodeNotImplemented) {
		question.Extra = nil
		msg, err = r.exchange(ctx, "udp", server, question)
	}
	if err == nil && msg.Truncated {
		msg, err = r.exchange(ctx, "tcp", server, question)
	}
	if err == nil && msg.Rcode != dns.RcodeSuccess && msg.Rcode != dns.RcodeNameError {
		err = fmt.Errorf("answered %s", dns.RcodeToString[msg.Rcode])
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s %s: %w", server, name, dns.TypeToString[kind], plain(err))
	}
	return msg, nil
}

// plain takes our own port out of an error, so that the same fault has the same text each time.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%s %s: %w", op.Op, op.Net, op.Err)
	}
	return err
}

func (r *resolver) exchange(ctx context.Context, network, server string, question *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	client := dns.Client{Net: network, Timeout: r.cfg.Timeout}
	conn, err := client.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	// The library honours a deadline but not a cancellation; Close does not wait for a slow server.
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	msg, _, err := client.ExchangeWithConnContext(ctx, question, conn)
	switch {
	case err != nil && msg != nil && msg.Truncated && network == "udp":
		return msg, nil // cut in the middle of a record: TCP will have the rest
	case err != nil:
		return nil, cmp.Or(context.Cause(ctx), err)
	case !msg.Response || len(msg.Question) != 1 || msg.Question[0].Qtype != question.Question[0].Qtype ||
		!strings.EqualFold(msg.Question[0].Name, question.Question[0].Name):
		return nil, errors.New("the answer is to another question")
	}
	return msg, nil
}
