package discover

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/understudy-mq/understudy/routing"
)

// nameserver answers on loopback, over UDP and TCP, from a zone that a test changes.
type nameserver struct {
	t    *testing.T
	addr string

	mu    sync.Mutex
	zone  []dns.RR
	extra []dns.RR
	rcode int
	twist func(q, m *dns.Msg, network string) *dns.Msg // changes an answer; nil message: none is sent
	asked []string                                     // "udp SRV name"
}

func startNameserver(t *testing.T, zone ...string) *nameserver {
	n := &nameserver{t: t}
	n.set(zone...)
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.addr = packets.LocalAddr().String()
	ln, err := net.Listen("tcp", n.addr)
	if err != nil {
		packets.Close()
		t.Skipf("the TCP port of the same number is taken: %v", err)
	}
	var joined sync.WaitGroup
	t.Cleanup(joined.Wait) // runs last: after the shutdowns
	for network, s := range map[string]*dns.Server{"udp": {PacketConn: packets}, "tcp": {Listener: ln}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		s.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { n.serve(w, q, network) })
		joined.Go(func() { _ = s.ActivateAndServe() })
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return n
}

func (n *nameserver) serve(w dns.ResponseWriter, q *dns.Msg, network string) {
	n.mu.Lock()
	m := new(dns.Msg).SetRcode(q, n.rcode)
	question := q.Question[0]
	n.asked = append(n.asked, fmt.Sprint(network, " ", dns.TypeToString[question.Qtype], " ", question.Name))
	exists := false
	for _, rr := range n.zone {
		same := strings.EqualFold(rr.Header().Name, question.Name)
		exists = exists || same
		if n.rcode == dns.RcodeSuccess && same && (rr.Header().Rrtype == question.Qtype || rr.Header().Rrtype == dns.TypeCNAME) {
			m.Answer = append(m.Answer, dns.Copy(rr)) // packing writes to a record
		}
	}
	if !exists && n.rcode == dns.RcodeSuccess {
		m.Rcode = dns.RcodeNameError
	}
	if question.Qtype == dns.TypeSRV {
		for _, rr := range n.extra {
			m.Extra = append(m.Extra, dns.Copy(rr))
		}
	}
	if n.twist != nil {
		m = n.twist(q, m, network)
	}
	n.mu.Unlock()
	if m != nil {
		_ = w.WriteMsg(m)
	}
}

func records(t *testing.T, zone []string) (rrs []dns.RR) {
	t.Helper()
	for _, line := range zone {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}
	return rrs
}

// set replaces the zone; it also makes the server answer again.
func (n *nameserver) set(zone ...string) {
	rrs := records(n.t, zone)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.zone, n.rcode, n.twist = rrs, dns.RcodeSuccess, nil
}

func (n *nameserver) fail(rcode int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rcode = rcode
}

func (n *nameserver) change(twist func(q, m *dns.Msg, network string) *dns.Msg) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.twist = twist
}

func silent(_, _ *dns.Msg, _ string) *dns.Msg { return nil }

// count is how many questions began so.
func (n *nameserver) count(prefix string) (c int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range n.asked {
		if strings.HasPrefix(a, prefix) {
			c++
		}
	}
	return c
}

func show(eps []routing.Endpoint) string {
	var out []string
	for _, ep := range eps {
		out = append(out, fmt.Sprintf("%s(%s)%d/%d", ep.Target, ep.Name, ep.Tier, ep.Weight))
	}
	return strings.Join(out, " ")
}

// eventually waits, in real time because sockets are involved, until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func leaked(t *testing.T, before int) {
	t.Helper()
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
}
