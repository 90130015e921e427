package demo

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// zone is what the sidecar is told to look up.
const (
	zone     = "mq.example."
	service  = "_stomp._tcp.mq.example"
	ttl      = 1 // seconds; the brokers of a demo may move from port to port
	dnsStart = 5 * time.Second
	dnsPorts = 20 // how many ports are tried
)

// nameServer is a DNS server with the SRV records of the demo's brokers. All have the same priority: whichever is active serves.
type nameServer struct {
	mu      sync.Mutex
	ports   map[string]uint16 // by host label
	servers []*dns.Server
	addr    string
	serving sync.WaitGroup
}

// startDNS listens on a free loopback port, UDP and TCP; close must be called.
func startDNS() (*nameServer, error) {
	udp, tcp, err := bindBoth()
	if err != nil {
		return nil, err
	}
	s := &nameServer{ports: map[string]uint16{}, addr: udp.LocalAddr().String()}
	mux := dns.NewServeMux()
	mux.HandleFunc(zone, s.answer)
	ready := make(chan struct{}, 2)
	for _, d := range []*dns.Server{{PacketConn: udp}, {Listener: tcp}} {
		d.Handler, d.NotifyStartedFunc = mux, func() { ready <- struct{}{} }
		s.servers = append(s.servers, d)
		s.serving.Add(1)
		go func() { defer s.serving.Done(); _ = d.ActivateAndServe() }()
	}
	timeout := time.After(dnsStart)
	for range s.servers {
		select {
		case <-ready:
		case <-timeout:
			udp.Close()
			tcp.Close()
			return nil, fmt.Errorf("start DNS server on %s: not up after %v", s.addr, dnsStart)
		}
	}
	return s, nil
}

// bindBoth binds one port for UDP and TCP. That it is free for one does not say that it is for the other.
func bindBoth() (net.PacketConn, net.Listener, error) {
	var err error
	for range dnsPorts {
		var udp net.PacketConn
		var tcp net.Listener
		if tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			break
		}
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			return udp, tcp, nil
		}
		tcp.Close()
	}
	return nil, nil, fmt.Errorf("listen for DNS: %w", err)
}

// set publishes where a host's broker listens.
func (s *nameServer) set(host, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("publish %s: %w", host, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("publish %s: %w", host, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports[host] = uint16(n)
	return nil
}

// answer is the whole zone: one SRV record for each host under the service's name, and the hosts' addresses.
func (s *nameServer) answer(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative = true
	s.mu.Lock()
	known := false
	for host, port := range s.ports {
		target := host + "." + zone
		a := &dns.A{Hdr: header(target, dns.TypeA), A: net.IPv4(127, 0, 0, 1)}
		switch name, kind := q.Question[0].Name, q.Question[0].Qtype; {
		case dns.CanonicalName(name) == service+".":
			known = true
			if kind == dns.TypeSRV {
				m.Answer = append(m.Answer, &dns.SRV{Hdr: header(name, dns.TypeSRV), Priority: 10, Weight: 1, Port: port, Target: target})
				m.Extra = append(m.Extra, a)
			}
		case dns.CanonicalName(name) == target:
			known = true
			if kind == dns.TypeA {
				m.Answer = append(m.Answer, a)
			}
		}
	}
	s.mu.Unlock()
	if !known {
		m.Rcode = dns.RcodeNameError
	}
	_ = w.WriteMsg(m)
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

func (s *nameServer) close() {
	for _, d := range s.servers {
		_ = d.Shutdown()
	}
	s.serving.Wait()
}
