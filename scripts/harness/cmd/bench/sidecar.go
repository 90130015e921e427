package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-mq/understudy/scripts/harness/bench"
)

// sidecar is measured against a direct connection and HAProxy.
type sidecar struct {
	common
	full, held, noRounds   bool
	idle                   string
	connections, heldCount int
	cases, peers           []string
	plan                   bench.Plan
}

func (s *sidecar) parse(args []string, errs io.Writer) error {
	f := s.flags("sidecar", errs)
	f.StringVar(&s.data, "data", "", "directory in which the broker's journal is made; on /dev/shm if there is one, unless given")
	f.BoolVar(&s.full, "full", false, "20,000 idle clients, too")
	f.BoolVar(&s.held, "held", false, "only clients whose broker is killed")
	f.BoolVar(&s.noRounds, "no-rounds", false, "only memory, no throughput and latency")
	cases := f.String("cases", strings.Join(bench.Cases(), ","), "loads, with commas between them")
	peers := f.String("peers", strings.Join(bench.Peers(), ","), "what the loads are offered to, with commas between them")
	f.StringVar(&s.idle, "idle", "2000", "numbers of idle clients, with commas between them; none if empty")
	f.IntVar(&s.heldCount, "held-clients", 10000, "clients whose broker is killed; 0 leaves that out")
	f.IntVar(&s.connections, "connections", 4, "connections of the bulk loads")
	given, err := s.finish(f, args, map[string]string{"rounds": "3", "seconds": "0.1", "idle": "500", "held-clients": "500"})
	if err != nil {
		return err
	}
	if s.full && !given["idle"] {
		s.idle = "2000,20000"
	}
	if s.held {
		s.noRounds, s.idle = true, ""
	}
	if s.connections < 1 || s.heldCount < 0 {
		return errors.New("-connections must be positive")
	}
	if s.cases, err = among("-cases", *cases, bench.Cases()); err != nil {
		return err
	}
	if s.peers, err = among("-peers", *peers, bench.Peers()); err != nil {
		return err
	}
	return s.makePlan()
}

func (s *sidecar) makePlan() error {
	s.plan = bench.Plan{Rounds: !s.noRounds, Held: s.heldCount, Settle: 8 * time.Second}
	if s.short {
		s.plan.Settle = 2 * time.Second
	}
	for _, text := range list(s.idle) {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("-idle: %q is no number of clients", text)
		}
		s.plan.Idle = append(s.plan.Idle, n)
	}
	return nil
}

func (s *sidecar) run(ctx context.Context, out, errs io.Writer) (int, error) {
	version, err := bench.HAProxyVersion(ctx)
	if errors.Is(err, bench.ErrNoHAProxy) {
		return misused, err
	} else if err != nil {
		return failed, err
	}
	opt, about, clean, err := s.newRun(ctx, s.dataParent(), errs)
	if err != nil {
		return failed, err
	}
	defer clean()
	opt.Cases, opt.Peers, opt.Connections, about.HAProxy = s.cases, s.peers, s.connections, version
	lines, err := bench.Run(ctx, opt, s.plan)
	about.LoadTo = bench.LoadAverage()
	for i := range lines {
		lines[i].About = about
	}
	return report(&s.common, out, errs, lines, func(w io.Writer, l []bench.Line) error { return bench.WriteTable(w, about, l) }, err)
}

// dataParent is where the broker's directory is made. In memory its disk is no part of what is measured.
func (s *sidecar) dataParent() string {
	if info, err := os.Stat("/dev/shm"); s.data == "" && err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return s.data
}
