package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// patience is the servers' --takeover-after.
const patience = 5 * time.Second

// stage is one store of a story: who owns it, who serves it now, and the clients that use it.
type stage struct {
	*crew
	name      string
	owner     *member
	holder    *member
	epoch     uint64
	silences  []time.Duration // over its take-overs
	pauses    []time.Duration // over its hand-overs
	connected bool
	result    StoreResult
}

// story is a run with several stores: as many servers as stores, each of which owns one and stands for the others, and standbys that own none. Each store has
// a crew of its own, behind a listener of its own in one sidecar.
type story struct {
	cfg      Config
	timeline timeline
	cluster  *cluster
	stages   []*stage
	down     []*member // killed and not brought back, in that order
	result   StoresResult

	mu sync.Mutex // guards holders and epochs of stages against the reports, and result.Problems
}

// RunStores runs the demo with cfg.Stores stores. Its result and its error are as those of Run.
func RunStores(ctx context.Context, cfg Config) (*StoresResult, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &story{cfg: cfg, timeline: timeline{out: cfg.Out, start: time.Now()}}
	var err error
	if s.cluster, err = newCluster(cfg, &s.timeline); err != nil {
		return nil, err
	}
	s.cast()
	err = s.play(ctx)
	s.cluster.close()
	s.each(func(st *stage) error { st.awaitWorkers(err != nil || st.brokenClients() > 0); return nil })
	s.conclude(ctx, err)
	s.timeline.end()
	if err != nil && !errors.Is(err, errClients) {
		return &s.result, err
	}
	return &s.result, nil
}

func (s *story) say(format string, args ...any) { s.timeline.say(format, args...) }

// problem takes down what must not be.
func (s *story) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.say("WRONG  %s", text)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result.Problems = append(s.result.Problems, text)
}

// cast says who plays: nothing runs yet.
func (s *story) cast() {
	root := s.root()
	// Whoever serves a store gives it back. Nobody freezes here: a server whose disk is slow to write is not to be ended for it.
	common := []string{"--stand-for-all", root, "--failback-after", s.cfg.FailbackAfter.String(), "--takeover-after", patience.String()}
	if s.cfg.Handovers > 0 {
		common = append(common, "--failback", "manual")
	}
	for i := range s.cfg.Stores {
		name := string(rune('a' + i))
		m := &member{host: "broker-" + name, stores: append([]string{"--store", name + "=" + filepath.Join(root, name)}, common...)}
		s.cluster.members = append(s.cluster.members, m)
		cfg := s.cfg
		cfg.Rate, cfg.Seed = max(1, s.cfg.Rate/s.cfg.Stores), s.cfg.Seed+uint64(i) // other bodies: what comes from another store is no message of this one
		st := &stage{name: name, owner: m}
		st.crew = newCrew(cfg, func(format string, args ...any) { s.say(format+" (store "+name+")", args...) },
			func(text string) { s.problem("store %s: %s", name, text) })
		st.prefix, st.mixed = name+"/", true
		s.stages = append(s.stages, st)
	}
	for i := range s.cfg.Standbys {
		host := fmt.Sprintf("standby-%d", i+1)
		s.cluster.members = append(s.cluster.members, &member{host: host, stores: append([]string{"--standby"}, common...)})
	}
}

// root is the folder whose sub-folders are the stores.
func (s *story) root() string { return filepath.Join(s.cluster.dir, "stores") }

// play is the story: start, connect, produce, whatever happens to the servers, drain, leave.
func (s *story) play(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	began := time.Now()
	reporting, stopReports := context.WithCancel(ctx)
	var reports sync.WaitGroup
	reports.Go(func() { s.report(reporting) })
	err := s.connect(ctx)
	if err == nil && s.cfg.Handovers > 0 {
		err = s.toAndFro(ctx)
	} else if err == nil {
		err = s.downAndUp(ctx)
	}
	s.connectedOnly(func(st *stage) error { st.endProduction(ctx, err); return nil })
	s.result.RatePerSecond = float64(s.totals().sent) / time.Since(began).Seconds()
	stopReports()
	reports.Wait()
	if err == nil {
		err = s.each(func(st *stage) error { return st.drain(ctx) })
	}
	if err == nil {
		err = s.each(func(st *stage) error { return st.sweep(ctx, s.addr(st)) })
	}
	s.connectedOnly(func(st *stage) error { st.disconnect(); return nil })
	if err == nil {
		s.checkHome(ctx)
	}
	if ctx.Err() == nil && s.cluster.sidecar.process != nil {
		sums, readErr := s.cluster.counters(ctx, metricHidden, metricResends)
		s.result.RedeliveriesHidden, s.result.Resends = sums[metricHidden], sums[metricResends]
		err = errors.Join(err, readErr)
	}
	if err == nil {
		err = s.cluster.stop(ctx)
	}
	return err
}

// start brings servers up, owners first, and the sidecar.
func (s *story) start(ctx context.Context) error {
	var err error
	if s.cluster.dns, err = startDNS(); err != nil {
		return err
	}
	if err := os.Mkdir(s.root(), 0o700); err != nil {
		return fmt.Errorf("make the folder of all stores: %w", err)
	}
	for i, m := range s.cluster.members {
		if err := s.cluster.startBroker(ctx, m); err != nil {
			return err
		}
		if i >= len(s.stages) {
			s.say("UP     %s (pid %d) owns nothing and stands for all stores", m.host, m.process.pid())
			continue
		}
		st := s.stages[i]
		found, err := s.cluster.awaitTenures(ctx, map[string]uint64{st.name: 0}, s.cluster.members[:i+1])
		if err != nil {
			return err
		}
		s.served(st, found[st.name])
		s.say("UP     %s (pid %d) owns store %s and stands for the others", m.host, m.process.pid(), st.name)
	}
	var groups []string
	for _, st := range s.stages[1:] {
		groups = append(groups, "--group", fmt.Sprintf("%s listen=127.0.0.1:0 store=%s srv=%s gossip=true", st.name, st.name, service))
	}
	if err := s.cluster.startSidecar(ctx, append(groups, "--store", s.stages[0].name)...); err != nil {
		return err
	}
	s.say("UP     sidecar (pid %d) finds brokers by SRV %s, and has a listener for each store", s.cluster.sidecar.process.pid(), service)
	return nil
}

// addr is where the clients of a store connect.
func (s *story) addr(st *stage) string {
	if st == s.stages[0] {
		return s.cluster.sidecar.listen
	}
	return s.cluster.sidecar.groups[st.name]
}

func (s *story) connect(ctx context.Context) error {
	for _, st := range s.stages {
		if err := st.connect(ctx, s.addr(st)); err != nil {
			return fmt.Errorf("store %s: %w", st.name, err)
		}
		st.connected = true
	}
	return nil
}

// each does something for all stores at once.
func (s *story) each(do func(*stage) error) error {
	errs := make([]error, len(s.stages))
	var all sync.WaitGroup
	for i, st := range s.stages {
		all.Go(func() { errs[i] = do(st) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// connectedOnly does it where clients are at work.
func (s *story) connectedOnly(do func(*stage) error) {
	_ = s.each(func(st *stage) error {
		if !st.connected {
			return nil
		}
		return do(st)
	})
}

// served notes who serves a store from now on.
func (s *story) served(st *stage, t tenure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.holder, st.epoch = t.holder, t.epoch
}

// alive are the servers that run.
func (s *story) alive() []*member {
	return slices.DeleteFunc(slices.Clone(s.cluster.members), func(m *member) bool { return slices.Contains(s.down, m) })
}

// servedBy are the stores that a server serves.
func (s *story) servedBy(m *member) (all []*stage) {
	for _, st := range s.stages {
		if st.holder == m {
			all = append(all, st)
		}
	}
	return all
}

// owned is the store of a server, nil for a standby.
func (s *story) owned(m *member) *stage {
	for _, st := range s.stages {
		if st.owner == m {
			return st
		}
	}
	return nil
}

// report writes a line each second.
func (s *story) report(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := rates{at: time.Now()}
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.say("       %s  %s", s.holders(), last.line(s.totals(), now))
		}
	}
}

// holders is who serves what, in a few words.
func (s *story) holders() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, st := range s.stages {
		all = append(all, fmt.Sprintf("%s:%s/%d", st.name, st.holder.host, st.epoch))
	}
	return strings.Join(all, " ")
}

func (s *story) totals() (sum counts) {
	for _, st := range s.stages {
		t := st.ledger.totals()
		sum.sent, sum.confirmed, sum.received = sum.sent+t.sent, sum.confirmed+t.confirmed, sum.received+t.received
	}
	return sum
}

// names are the stores' names, for a line.
func names(stages []*stage) string {
	var all []string
	for _, st := range stages {
		all = append(all, st.name)
	}
	if len(all) == 0 {
		return "nothing"
	}
	return "store " + strings.Join(all, ", ")
}
