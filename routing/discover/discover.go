// Package discover finds brokers: from a static list, from DNS SRV records (RFC 2782), and from what brokers announce by gossip. Each
// source runs by itself, tells a Sink (routing.Table) what it knows whenever that changes, and never takes back what it knew because it
// can no longer ask: the last good answer stays until there is a better one, since health, not DNS, decides who is alive.
//
// SRV targets become addresses here, so that every part of the program names a broker by the same host:port; host names of a static
// list are left as they are, for the dialler to resolve each time.
package discover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/understudy-mq/understudy/routing"
)

// Why a source has no answer.
var (
	// ErrNoSource: neither a list, nor a name to look up, nor gossip was configured.
	ErrNoSource = errors.New("no source of brokers is configured: name a broker, an SRV record, or a gossip peer")
	// ErrNoService: the SRV record's target is ".", which says that the service is decidedly not available (RFC 2782).
	ErrNoService = errors.New("the domain says that it has no such service (SRV target is \".\")")
	// ErrNoName: the name does not exist (NXDOMAIN).
	ErrNoName = errors.New("the name does not exist")
	// ErrNoRecords: the name exists and has no records of the type asked for.
	ErrNoRecords = errors.New("the name has no such records")
)

// Sink receives what a source knows now, as a whole. *routing.Table is one. It must not block.
type Sink interface {
	Set(source string, eps []routing.Endpoint)
}

// Config of a Discovery. Sink and at least one source are required.
type Config struct {
	Sink Sink
	// Static is a list as ParseStatic returns it.
	Static []routing.Endpoint
	// SRV are names to look up, such as _stomp._tcp.mq.example.
	SRV []string
	// TLS is spoken to brokers that SRV names: a record cannot say so. Their certificates must be for the target's host name.
	TLS bool
	// Gossip returns what brokers announce and a channel that is closed at the next change. nil: there is no gossip.
	Gossip func() ([]routing.Endpoint, <-chan struct{})
	// Group is a label of metrics, where a process has several Discoveries; "" is no label.
	Group string
	// DNS says whom to ask and how long to believe it.
	DNS     DNS
	Logger  *slog.Logger // nil: silent
	Metrics *metrics.Set // nil: none
}

// Status is one source, for a status page.
type Status struct {
	Source    string             // static, srv:<name>, gossip
	Endpoints []routing.Endpoint // what it says now; only to be read
	Good      time.Time          // of the last good answer; zero: there was none
	Asked     time.Time          // when it was asked last; zero for a source that is not asked
	Err       error              // why the last attempt failed; nil if it did not. Endpoints are then those of Good
}

// Discovery is the running sources.
type Discovery struct {
	cfg     Config
	stop    context.CancelFunc
	joined  sync.WaitGroup
	sources []*source
	metrics *sourceMetrics
}

// source is one of them: what it is, how it is woken, and what it last said.
type source struct {
	name    string
	refresh chan struct{} // nil: cannot be asked

	mu     sync.Mutex
	status Status
}

// Start validates cfg and starts a goroutine for each source; Close ends them.
func Start(cfg Config) (*Discovery, error) {
	if cfg.Sink == nil {
		return nil, errors.New("start discovery: Config.Sink is missing")
	}
	if len(cfg.Static) == 0 && len(cfg.SRV) == 0 && cfg.Gossip == nil {
		return nil, ErrNoSource
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	resolver, err := newResolver(cfg.DNS)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(cfg.SRV))
	for _, name := range cfg.SRV {
		if name, err = checkName(name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	ctx, stop := context.WithCancel(context.Background())
	d := &Discovery{cfg: cfg, stop: stop, metrics: newSourceMetrics(cfg.Metrics, cfg.Group)}
	if len(cfg.Static) > 0 {
		d.publish(d.add("static", false), cfg.Static, time.Now(), nil)
	}
	for _, name := range names {
		s := d.add("srv:"+name, true)
		d.joined.Go(func() { d.runSRV(ctx, s, name, resolver) })
	}
	if cfg.Gossip != nil {
		s := d.add("gossip", false)
		d.joined.Go(func() { d.runGossip(ctx, s) })
	}
	return d, nil
}

func (d *Discovery) add(name string, asked bool) *source {
	s := &source{name: name, status: Status{Source: name}}
	if asked {
		s.refresh = make(chan struct{}, 1)
	}
	d.sources = append(d.sources, s)
	d.metrics.add(s)
	return s
}

// Refresh has every source that can be asked asked again now: a broker was lost. It does not wait; calls in quick succession are one.
func (d *Discovery) Refresh() {
	for _, s := range d.sources {
		select {
		case s.refresh <- struct{}{}:
		default:
		}
	}
}

// Status is what each source knows, in the order of Config.
func (d *Discovery) Status() []Status {
	out := make([]Status, 0, len(d.sources))
	for _, s := range d.sources {
		out = append(out, s.snapshot())
	}
	return out
}

// Close stops the sources and waits for them. What they said stays in the Sink.
func (d *Discovery) Close() error {
	d.stop()
	d.joined.Wait()
	d.metrics.close()
	return nil
}

func (s *source) snapshot() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *source) asked(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Asked = at
}

// publish notes a good answer and passes it on; flaw is what is wrong with it all the same. Log lines are for changes only.
func (d *Discovery) publish(s *source, eps []routing.Endpoint, at time.Time, flaw error) {
	s.mu.Lock()
	before := s.status
	s.status.Endpoints, s.status.Good, s.status.Err = eps, at, flaw
	s.mu.Unlock()
	d.cfg.Sink.Set(s.name, eps)
	if !slices.Equal(before.Endpoints, eps) {
		d.cfg.Logger.Info("discovery has a new answer", "source", s.name, "brokers", targets(eps))
	}
	if flaw != nil && !sameText(before.Err, flaw) {
		d.cfg.Logger.Warn("discovery's answer is flawed", "source", s.name, "err", flaw)
	}
}

// fail notes why there is no new answer: a resolver that is away is asked again and again.
func (d *Discovery) fail(s *source, err error) {
	s.mu.Lock()
	before := s.status.Err
	s.status.Err = err
	kept := len(s.status.Endpoints)
	s.mu.Unlock()
	if !sameText(before, err) {
		d.cfg.Logger.Warn("discovery has no new answer", "source", s.name, "err", err, "kept", kept)
	}
}

func sameText(a, b error) bool { return a != nil && b != nil && a.Error() == b.Error() }

// targets are for a log line, which a long list must not fill.
func targets(eps []routing.Endpoint) []string {
	const most = 16
	var out []string
	for _, ep := range eps {
		if len(out) == most {
			return append(out, fmt.Sprintf("and %d more", len(eps)-most))
		}
		out = append(out, string(ep.Target))
	}
	return out
}

// runGossip passes announcements on. They carry no tier: what an operator ranked goes first.
func (d *Discovery) runGossip(ctx context.Context, s *source) {
	for {
		eps, changed := d.cfg.Gossip()
		d.publish(s, eps, time.Now(), nil)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
