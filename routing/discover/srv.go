package discover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/routing"
)

// Limits of what is believed of one answer; the rest is left out and said.
const (
	MaxRecords   = 256 // SRV records of one name
	MaxAddresses = 16  // addresses of one target
	maxAlias     = 8   // CNAMEs in a row
	maxParallel  = 8   // hosts resolved at once
)

// addresses are those of hosts, by lower-case name with its final dot.
type addresses map[string][]netip.Addr

// found is a good answer.
type found struct {
	endpoints []routing.Endpoint
	addrs     addresses     // for the next lookup, in case a host then has no answer
	ttl       time.Duration // the least of the records used
	flaw      error         // what had to be left out; nil if nothing
}

// lookup asks for a name's SRV records and the addresses of their targets. known are addresses to fall back on.
func (r *resolver) lookup(ctx context.Context, name string, known addresses) (found, error) {
	servers, names, err := r.plan(name)
	if err != nil {
		return found{}, err
	}
	for _, full := range names {
		var msg *dns.Msg
		if msg, err = r.ask(ctx, servers, full, dns.TypeSRV); err != nil {
			return found{}, err
		}
		if msg.Rcode == dns.RcodeNameError {
			err = fmt.Errorf("look up SRV %s: %w", full, ErrNoName)
			continue
		}
		records := srvRecords(msg, full)
		if len(records) == 0 {
			err = fmt.Errorf("look up SRV %s: %w", full, ErrNoRecords)
			continue
		}
		return r.resolve(ctx, servers, full, msg, records, known)
	}
	return found{}, err
}

// srvRecords are those of name, or of what it is an alias of. Order follows the message.
func srvRecords(msg *dns.Msg, name string) []*dns.SRV {
	for range maxAlias {
		var records []*dns.SRV
		alias := ""
		for _, rr := range msg.Answer {
			if !strings.EqualFold(rr.Header().Name, name) {
				continue
			}
			switch rr := rr.(type) {
			case *dns.SRV:
				records = append(records, rr)
			case *dns.CNAME:
				alias = rr.Target
			}
		}
		if len(records) > 0 || alias == "" {
			return records
		}
		name = alias
	}
	return nil
}

// resolve turns records into endpoints.
func (r *resolver) resolve(ctx context.Context, servers []string, name string, msg *dns.Msg, records []*dns.SRV, known addresses) (found, error) {
	if len(records) == 1 && records[0].Target == "." {
		return found{ttl: seconds(records[0].Hdr.Ttl)}, ErrNoService
	}
	out := found{addrs: make(addresses), ttl: r.cfg.MaxTTL}
	var flaws []error
	if n := len(records); n > MaxRecords {
		flaws = append(flaws, fmt.Errorf("SRV %s has %d records, %d are used", name, n, MaxRecords))
		records = records[:MaxRecords]
	}
	hosts := make(map[string]answered)
	for _, rr := range records {
		if rr.Target != "." && rr.Port != 0 {
			hosts[strings.ToLower(rr.Target)] = answered{}
		}
	}
	r.resolveHosts(ctx, servers, hosts, msg)
	for host, a := range hosts {
		if a.err != nil {
			flaws = append(flaws, a.err)
			a.addrs = known[host]
			out.ttl = min(out.ttl, lastRetry)
		}
		out.addrs[host] = a.addrs
		if len(a.addrs) > 0 && a.err == nil {
			out.ttl = min(out.ttl, a.ttl)
		}
	}
	for _, rr := range records {
		out.ttl = min(out.ttl, seconds(rr.Hdr.Ttl))
		if rr.Port == 0 {
			flaws = append(flaws, fmt.Errorf("SRV %s names %s with port 0", name, rr.Target))
		}
		out.endpoints = append(out.endpoints, endpoints(rr, out.addrs[strings.ToLower(rr.Target)])...)
	}
	// Servers rotate their records; what means the same shall look the same.
	slices.SortFunc(out.endpoints, func(a, b routing.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Target, b.Target))
	})
	slices.SortFunc(flaws, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	out.flaw = errors.Join(flaws...)
	if len(out.endpoints) == 0 {
		return found{}, cmp.Or(out.flaw, fmt.Errorf("look up SRV %s: %w", name, ErrNoRecords))
	}
	return out, nil
}

func endpoints(rr *dns.SRV, addrs []netip.Addr) []routing.Endpoint {
	port := strconv.Itoa(int(rr.Port))
	if rr.Port == 0 {
		return nil
	}
	name := net.JoinHostPort(strings.ToLower(strings.TrimSuffix(rr.Target, ".")), port)
	eps := make([]routing.Endpoint, 0, len(addrs))
	for _, a := range addrs {
		target := health.Target(net.JoinHostPort(a.String(), port))
		eps = append(eps, routing.Endpoint{Target: target, Name: name, Tier: int(rr.Priority), Weight: rr.Weight})
	}
	return eps
}

// answered is what was found of one host.
type answered struct {
	addrs []netip.Addr
	ttl   time.Duration
	err   error
}

// resolveHosts fills in hosts: from the additional section of msg where that has them, by own questions otherwise [RFC 2782, usage rules].
func (r *resolver) resolveHosts(ctx context.Context, servers []string, hosts map[string]answered, msg *dns.Msg) {
	var mu sync.Mutex
	var joined sync.WaitGroup
	room := make(chan struct{}, maxParallel)
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		a := collect(msg.Extra, host)
		if addr, err := netip.ParseAddr(strings.TrimSuffix(host, ".")); err == nil {
			a = answered{addrs: []netip.Addr{addr.Unmap()}, ttl: r.cfg.MaxTTL} // not allowed, and there is only one way to mean it
		}
		if len(a.addrs) > 0 {
			mu.Lock()
			hosts[host] = a
			mu.Unlock()
			continue
		}
		room <- struct{}{}
		joined.Go(func() {
			defer func() { <-room }()
			a := r.resolveHost(ctx, servers, host)
			mu.Lock()
			defer mu.Unlock()
			hosts[host] = a
		})
	}
	joined.Wait()
}

// resolveHost asks for A and AAAA. One of the two failing matters only if the other has nothing.
func (r *resolver) resolveHost(ctx context.Context, servers []string, host string) answered {
	kinds := [...]uint16{dns.TypeA, dns.TypeAAAA}
	var parts [len(kinds)]answered
	var joined sync.WaitGroup
	for i, kind := range kinds {
		joined.Go(func() {
			msg, err := r.ask(ctx, servers, host, kind)
			if err != nil {
				parts[i].err = err
				return
			}
			parts[i] = collect(msg.Answer, host)
		})
	}
	joined.Wait()
	a := answered{ttl: r.cfg.MaxTTL}
	for _, p := range parts {
		if a.addrs = append(a.addrs, p.addrs...); len(p.addrs) > 0 {
			a.ttl = min(a.ttl, p.ttl)
		}
	}
	if a.addrs = a.addrs[:min(len(a.addrs), MaxAddresses)]; len(a.addrs) == 0 {
		a.err = cmp.Or(errors.Join(parts[0].err, parts[1].err), fmt.Errorf("look up %s: it has no address", host))
	}
	return a
}

// collect picks the addresses of host, or of what it is an alias of.
func collect(rrs []dns.RR, host string) answered {
	for range maxAlias {
		a, alias := answered{ttl: time.Duration(1<<63 - 1)}, ""
		for _, rr := range rrs {
			if !strings.EqualFold(rr.Header().Name, host) {
				continue
			}
			var ip net.IP
			switch rr := rr.(type) {
			case *dns.A:
				ip = rr.A
			case *dns.AAAA:
				ip = rr.AAAA
			case *dns.CNAME:
				alias = rr.Target
			}
			if addr, ok := netip.AddrFromSlice(ip); ok && len(a.addrs) < MaxAddresses {
				a.addrs = append(a.addrs, addr.Unmap())
				a.ttl = min(a.ttl, seconds(rr.Header().Ttl))
			}
		}
		if len(a.addrs) > 0 || alias == "" {
			return a
		}
		host = alias
	}
	return answered{}
}

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }
