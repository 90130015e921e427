package discover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const service = "_stomp._tcp.mq.example"

func (n *nameserver) resolver(more ...string) *resolver {
	n.t.Helper()
	r, err := newResolver(DNS{Servers: append([]string{n.addr}, more...), Timeout: 400 * time.Millisecond})
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

func TestLookup(t *testing.T) {
	const a, b = "a.mq.example. 60 IN A 127.0.0.1", "b.mq.example. 60 IN A 127.0.0.2"
	for _, tt := range []struct {
		name  string
		zone  []string
		extra []string
		want  string
		ttl   time.Duration
		err   error
	}{
		{name: "priorities, weights and ports", zone: []string{
			service + ". 20 IN SRV 10 60 61613 a.mq.example.", service + ". 20 IN SRV 10 40 61614 a.mq.example.", service + ". 20 IN SRV 20 0 61613 b.mq.example.", a, b,
		}, want: "127.0.0.1:61613(a.mq.example:61613)10/60 127.0.0.1:61614(a.mq.example:61614)10/40 127.0.0.2:61613(b.mq.example:61613)20/0", ttl: 20 * time.Second},
		{name: "all addresses of a host, IPv6 too", zone: []string{
			service + ". 60 IN SRV 0 1 1 a.mq.example.", a, "a.mq.example. 9 IN AAAA ::1", "a.mq.example. 60 IN A 127.0.0.9",
		}, want: "127.0.0.1:1(a.mq.example:1)0/1 127.0.0.9:1(a.mq.example:1)0/1 [::1]:1(a.mq.example:1)0/1", ttl: 9 * time.Second},
		{name: "case does not matter", zone: []string{service + ". 7 IN SRV 0 1 1 A.MQ.example.", a}, want: "127.0.0.1:1(a.mq.example:1)0/1", ttl: 7 * time.Second},
		{name: "aliases of name and host", zone: []string{
			service + ". 60 IN CNAME real.example.", "real.example. 60 IN SRV 0 1 1 alias.example.", "alias.example. 60 IN CNAME a.mq.example.", a,
		}, err: ErrNoRecords}, // this server does not follow aliases, and a question about the first is all that is asked
		{name: "the additional section saves questions", zone: []string{service + ". 60 IN SRV 0 1 1 a.mq.example."}, extra: []string{"a.mq.example. 5 IN A 127.0.0.5"},
			want: "127.0.0.5:1(a.mq.example:1)0/1", ttl: 5 * time.Second},
		{name: "what else is there does not count", zone: []string{service + ". 60 IN SRV 0 1 1 a.mq.example.", a}, extra: []string{"c.mq.example. 5 IN A 127.0.0.5"},
			want: "127.0.0.1:1(a.mq.example:1)0/1", ttl: DefaultMaxTTL},
		{name: "decidedly none", zone: []string{service + ". 11 IN SRV 0 0 0 ."}, err: ErrNoService, ttl: 11 * time.Second},
		{name: "a dot beside others is nothing", zone: []string{service + ". 60 IN SRV 0 0 0 .", service + ". 60 IN SRV 0 1 1 a.mq.example.", a},
			want: "127.0.0.1:1(a.mq.example:1)0/1", ttl: DefaultMaxTTL},
		{name: "an address as target", zone: []string{service + ". 60 IN SRV 0 1 1 127.0.0.1."}, want: "127.0.0.1:1(127.0.0.1:1)0/1", ttl: DefaultMaxTTL},
		{name: "no such name", zone: []string{a}, err: ErrNoName},
		{name: "other records only", zone: []string{service + ". 60 IN TXT x"}, err: ErrNoRecords},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := startNameserver(t, tt.zone...)
			n.mu.Lock()
			n.extra = records(t, tt.extra)
			n.mu.Unlock()
			got, err := n.resolver().lookup(t.Context(), service, nil)
			if !errors.Is(err, tt.err) || show(got.endpoints) != tt.want {
				t.Fatalf("got  %s, %v\nwant %s, %v", show(got.endpoints), err, tt.want, tt.err)
			}
			if (err == nil || tt.ttl > 0) && got.ttl != tt.ttl {
				t.Errorf("TTL %v, want %v", got.ttl, tt.ttl)
			}
			if len(tt.extra) > 0 && strings.HasPrefix(tt.name, "the additional") && n.count("udp A ") > 0 {
				t.Errorf("asked all the same: %v", n.asked)
			}
		})
	}
}

// A resolver sends the whole chain of aliases in one answer [RFC 1034 3.6.2].
func TestAliases(t *testing.T) {
	msg := &dns.Msg{Answer: records(t, []string{
		"real.example. 60 IN SRV 0 1 1 alias.example.", "mid.example. 60 IN CNAME real.example.", service + ". 60 IN CNAME mid.example.", "other.example. 60 IN SRV 0 1 1 evil.example.",
	})}
	if rrs := srvRecords(msg, service+"."); len(rrs) != 1 || rrs[0].Target != "alias.example." {
		t.Errorf("records %v", rrs)
	}
	chain := records(t, []string{"alias.example. 50 IN CNAME a.example.", "a.example. 60 IN A 127.0.0.1", "evil.example. 60 IN A 127.0.0.66"})
	if got := collect(chain, "alias.example."); len(got.addrs) != 1 || got.addrs[0] != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("addresses %v", got.addrs)
	}
	loop := records(t, []string{"x.example. 1 IN CNAME y.example.", "y.example. 1 IN CNAME x.example."})
	if got := collect(loop, "x.example."); len(got.addrs) != 0 {
		t.Errorf("a loop leads to %v", got.addrs)
	}
	if rrs := srvRecords(&dns.Msg{Answer: loop}, "x.example."); rrs != nil {
		t.Errorf("a loop leads to %v", rrs)
	}
}

func zoneOf(n int) (zone []string) {
	for i := range n {
		zone = append(zone, fmt.Sprintf("%s. 60 IN SRV %d 1 61613 broker-number-%d.with-a-long-name.mq.example.", service, i, i),
			fmt.Sprintf("broker-number-%d.with-a-long-name.mq.example. 60 IN A 127.0.%d.%d", i, i/200, 1+i%200))
	}
	return zone
}

func TestLookupOverTCPWhenTruncated(t *testing.T) {
	n := startNameserver(t, zoneOf(60)...)
	n.change(func(q, m *dns.Msg, network string) *dns.Msg {
		if network == "udp" {
			size := dns.MinMsgSize
			if opt := q.IsEdns0(); opt != nil {
				size = int(opt.UDPSize())
			}
			m.Truncate(size)
		}
		return m
	})
	got, err := n.resolver().lookup(t.Context(), service, nil)
	if err != nil || len(got.endpoints) != 60 || n.count("tcp SRV") != 1 || n.count("udp SRV") != 1 {
		t.Errorf("%d endpoints, %v, %d questions over TCP", len(got.endpoints), err, n.count("tcp"))
	}
}

func TestLookupIsBounded(t *testing.T) {
	n := startNameserver(t, zoneOf(MaxRecords+20)...)
	n.change(func(q, m *dns.Msg, network string) *dns.Msg {
		if network == "udp" {
			m.Truncate(dns.MinMsgSize)
		}
		return m
	})
	got, err := n.resolver().lookup(t.Context(), service, nil)
	if err != nil || len(got.endpoints) != MaxRecords || got.flaw == nil || !strings.Contains(got.flaw.Error(), "256 are used") {
		t.Errorf("%d endpoints, %v, flaw %v", len(got.endpoints), err, got.flaw)
	}
}

func TestLookupWithoutEDNS0(t *testing.T) {
	n := startNameserver(t, zoneOf(1)...)
	n.change(func(q, m *dns.Msg, _ string) *dns.Msg {
		if q.IsEdns0() != nil {
			return new(dns.Msg).SetRcode(q, dns.RcodeFormatError)
		}
		return m
	})
	if got, err := n.resolver().lookup(t.Context(), service, nil); err != nil || len(got.endpoints) != 1 {
		t.Errorf("%v, %v", got.endpoints, err)
	}
}

func TestLookupAsksTheNextServer(t *testing.T) {
	closed, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for name, prepare := range map[string]func(*nameserver) string{
		"nobody there": func(*nameserver) string { return closed.LocalAddr().String() },
		"SERVFAIL":     func(n *nameserver) string { n.fail(dns.RcodeServerFailure); return n.addr },
		"REFUSED":      func(n *nameserver) string { n.fail(dns.RcodeRefused); return n.addr },
		"silent":       func(n *nameserver) string { n.change(silent); return n.addr },
		"other question": func(n *nameserver) string {
			n.change(func(_, m *dns.Msg, _ string) *dns.Msg { m.Question[0].Name = "evil.example."; return m })
			return n.addr
		},
		"another's answer": func(n *nameserver) string {
			n.change(func(_, m *dns.Msg, _ string) *dns.Msg { m.Id++; return m })
			return n.addr
		},
	} {
		t.Run(name, func(t *testing.T) {
			bad, good := startNameserver(t, zoneOf(1)...), startNameserver(t, zoneOf(2)...)
			r, err := newResolver(DNS{Servers: []string{prepare(bad), good.addr}, Timeout: 400 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			got, err := r.lookup(t.Context(), service, nil)
			if err != nil || len(got.endpoints) != 2 {
				t.Fatalf("%v, %v", got.endpoints, err)
			}
			if d := time.Since(began); d > 350*time.Millisecond {
				t.Errorf("took %v: the second server is to be asked after a quarter of the time-out", d)
			}
		})
	}
}

func TestLookupFailure(t *testing.T) {
	n := startNameserver(t, zoneOf(1)...)
	n.fail(dns.RcodeServerFailure)
	_, first := n.resolver().lookup(t.Context(), service, nil)
	_, second := n.resolver().lookup(t.Context(), service, nil)
	if first == nil || !strings.Contains(first.Error(), "SERVFAIL") || !strings.Contains(first.Error(), n.addr) || !sameText(first, second) {
		t.Errorf("errors %q and %q", first, second)
	}
	n.change(silent)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	began := time.Now()
	if _, err := n.resolver().lookup(ctx, service, nil); err == nil || time.Since(began) > 300*time.Millisecond {
		t.Errorf("cancelled: %v after %v", err, time.Since(began))
	}
}

// The address of one host cannot be found: the others are used, and for it the address that it had.
func TestLookupKeepsAddressesOfAHost(t *testing.T) {
	n := startNameserver(t, service+". 60 IN SRV 0 1 1 a.mq.example.", service+". 60 IN SRV 0 1 1 b.mq.example.", "a.mq.example. 60 IN A 127.0.0.1")
	known := addresses{"b.mq.example.": {netip.MustParseAddr("127.0.0.2")}, "gone.": {netip.MustParseAddr("127.0.0.3")}}
	for _, tt := range []struct {
		known addresses
		want  string
	}{{nil, "127.0.0.1:1(a.mq.example:1)0/1"}, {known, "127.0.0.1:1(a.mq.example:1)0/1 127.0.0.2:1(b.mq.example:1)0/1"}} {
		got, err := n.resolver().lookup(t.Context(), service, tt.known)
		if err != nil || show(got.endpoints) != tt.want || got.flaw == nil || !strings.Contains(got.flaw.Error(), "b.mq.example") {
			t.Errorf("got %s, %v, flaw %v; want %s", show(got.endpoints), err, got.flaw, tt.want)
		}
		if got.ttl > lastRetry {
			t.Errorf("the host is asked for again only after %v", got.ttl)
		}
	}
}

func TestResolvConf(t *testing.T) {
	n := startNameserver(t, "broker.mq.example. 60 IN SRV 0 1 1 a.mq.example.", "a.mq.example. 60 IN A 127.0.0.1")
	host, port, err := net.SplitHostPort(n.addr)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "resolv.conf")
	r, err := newResolver(DNS{ResolvConf: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.lookup(t.Context(), "broker", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	if err := os.WriteFile(path, []byte("search else.example mq.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.lookup(t.Context(), "broker", nil); err == nil || !strings.Contains(err.Error(), "names no resolver") {
		t.Errorf("without a server: %v", err)
	}
	// A resolv.conf cannot say a port, so what it says is put together with the one that the test's server has.
	if err := os.WriteFile(path, []byte("nameserver "+host+"\nsearch else.example mq.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	servers, names, err := r.plan("broker")
	if err != nil || len(servers) != 1 || servers[0] != net.JoinHostPort(host, "53") {
		t.Fatalf("servers %v, %v", servers, err)
	}
	if want := "[broker.else.example. broker.mq.example. broker.]"; fmt.Sprint(names) != want {
		t.Errorf("names %v, want %s", names, want)
	}
	if _, err := r.ask(t.Context(), []string{net.JoinHostPort(host, port)}, names[1], dns.TypeSRV); err != nil {
		t.Error(err)
	}
}

func TestNewResolver(t *testing.T) {
	r, err := newResolver(DNS{Servers: []string{"127.0.0.1", "::1", "[::1]", "ns.example", "127.0.0.1:5353", "[::1]:5353"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := "[127.0.0.1:53 [::1]:53 [::1]:53 ns.example:53 127.0.0.1:5353 [::1]:5353]"; fmt.Sprint(r.cfg.Servers) != want {
		t.Errorf("servers %v, want %s", r.cfg.Servers, want)
	}
	for _, cfg := range []DNS{{Servers: []string{":53"}}, {Servers: []string{"a:b:c"}}, {Servers: []string{"h:"}}, {Servers: make([]string, MaxServers+1)},
		{Timeout: -1}, {MinTTL: time.Minute}} {
		if _, err := newResolver(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

// Whatever a server sends, what is believed of it is bounded and can be dialled.
func FuzzAnswer(f *testing.F) {
	for _, zone := range [][]string{zoneOf(2), {service + ". 1 IN SRV 0 0 0 ."}, {service + ". 1 IN CNAME " + service + "."}} {
		m := &dns.Msg{}
		m.SetQuestion(service+".", dns.TypeSRV)
		for _, line := range zone {
			rr, err := dns.NewRR(line)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer, m.Extra = append(m.Answer, rr), append(m.Extra, rr)
		}
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	r, err := newResolver(DNS{Servers: []string{"127.0.0.1:1"}})
	if err != nil {
		f.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	f.Fuzz(func(t *testing.T, data []byte) {
		m := new(dns.Msg)
		if m.Unpack(data) != nil {
			return
		}
		rrs := srvRecords(m, service+".")
		if len(rrs) == 0 {
			return
		}
		got, err := r.resolve(cancelled, r.cfg.Servers, service+".", m, rrs, nil)
		if err != nil {
			return
		}
		if len(got.endpoints) == 0 || len(got.endpoints) > MaxRecords*MaxAddresses || got.ttl < 0 || got.ttl > DefaultMaxTTL {
			t.Fatalf("%d endpoints, TTL %v", len(got.endpoints), got.ttl)
		}
		for _, ep := range got.endpoints {
			if a, err := netip.ParseAddrPort(string(ep.Target)); err != nil || a.Port() == 0 {
				t.Fatalf("endpoint %+v", ep)
			}
		}
	})
}
