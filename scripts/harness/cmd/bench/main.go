// Command bench measures the product against what else could be in its place, as ratios of one run. scripts/bench starts it from anywhere.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/understudy-mq/understudy/scripts/harness/bench"
)

// Exit codes.
const (
	done    = 0
	missed  = 1 // with -strict only
	misused = 2 // or software that has to be there is not
	failed  = 3 // the report could not be made
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// settings are the flags.
type settings struct {
	root, binary, data, idle        string
	cases, peers                    string
	json, short, full, strict, held bool
	noRounds                        bool
	rounds, connections, heldCount  int
	seconds                         float64
}

func parse(args []string, errs io.Writer) (s settings, err error) {
	f := flag.NewFlagSet("bench sidecar", flag.ContinueOnError)
	f.SetOutput(errs)
	f.StringVar(&s.root, "root", ".", "directory of the repository")
	f.StringVar(&s.binary, "understudy", "", "path of a built understudy binary; built unless given")
	f.StringVar(&s.data, "data", "", "directory in which the broker's journal is made; on /dev/shm if there is one, unless given")
	f.BoolVar(&s.json, "json", false, "print one JSON object a line, one for each figure")
	f.BoolVar(&s.short, "short", false, "what fits a gate: short rounds, few clients; the figures say little")
	f.BoolVar(&s.full, "full", false, "20,000 idle clients, too")
	f.BoolVar(&s.held, "held", false, "only clients whose broker is killed")
	f.BoolVar(&s.strict, "strict", false, "exit 1 when a bar is missed")
	f.BoolVar(&s.noRounds, "no-rounds", false, "only memory, no throughput and latency")
	f.StringVar(&s.cases, "cases", strings.Join(bench.Cases(), ","), "loads, with commas between them")
	f.StringVar(&s.peers, "peers", strings.Join(bench.Peers(), ","), "what the loads are offered to, with commas between them")
	f.StringVar(&s.idle, "idle", "2000", "numbers of idle clients, with commas between them; none if empty")
	f.IntVar(&s.heldCount, "held-clients", 10000, "clients whose broker is killed; 0 leaves that out")
	f.IntVar(&s.rounds, "rounds", 5, "how often each load is offered by each way")
	f.Float64Var(&s.seconds, "seconds", 1, "how long each load is offered in a round")
	f.IntVar(&s.connections, "connections", 4, "connections of the bulk loads")
	if len(args) == 0 || args[0] != "sidecar" {
		if len(args) > 0 && (args[0] == "-h" || args[0] == "--help" || args[0] == "-help") {
			f.Usage()
			return s, flag.ErrHelp
		}
		return s, errors.New("say what to measure: bench sidecar")
	}
	if err := f.Parse(args[1:]); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	given := map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if s.short {
		preset := map[string]func(){
			"rounds": func() { s.rounds = 3 }, "seconds": func() { s.seconds = 0.1 }, "idle": func() { s.idle = "500" },
			"held-clients": func() { s.heldCount = 500 },
		}
		for name, set := range preset {
			if !given[name] {
				set()
			}
		}
	}
	if s.full && !given["idle"] {
		s.idle = "2000,20000"
	}
	if s.held {
		s.noRounds, s.idle = true, ""
	}
	if s.rounds < 1 || s.seconds <= 0 || s.connections < 1 || s.heldCount < 0 {
		return s, errors.New("-rounds, -seconds and -connections must be positive")
	}
	for flag, pair := range map[string][2][]string{"-cases": {list(s.cases), bench.Cases()}, "-peers": {list(s.peers), bench.Peers()}} {
		for _, name := range pair[0] {
			if !slices.Contains(pair[1], name) {
				return s, fmt.Errorf("%s: unknown %q, it must be one of %s", flag, name, strings.Join(pair[1], ", "))
			}
		}
	}
	return s, nil
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

func (s settings) plan() (p bench.Plan, err error) {
	p = bench.Plan{Rounds: !s.noRounds, Held: s.heldCount, Settle: 8 * time.Second}
	if s.short {
		p.Settle = 2 * time.Second
	}
	for _, text := range list(s.idle) {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return p, fmt.Errorf("-idle: %q is no number of clients", text)
		}
		p.Idle = append(p.Idle, n)
	}
	return p, nil
}

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	s, err := parse(args, errs)
	if errors.Is(err, flag.ErrHelp) {
		return done
	}
	var plan bench.Plan
	if err == nil {
		plan, err = s.plan()
	}
	if err != nil {
		fmt.Fprintln(errs, "bench:", err)
		return misused
	}
	code, err := s.run(ctx, plan, out, errs)
	if err != nil {
		fmt.Fprintln(errs, "bench:", err)
	}
	return code
}

func (s settings) run(ctx context.Context, plan bench.Plan, out, errs io.Writer) (int, error) {
	about := bench.About{Go: runtime.Version(), CPUs: runtime.NumCPU(), LoadFrom: bench.LoadAverage(), Date: time.Now().UTC().Format(time.RFC3339)}
	var err error
	if about.HAProxy, err = bench.HAProxyVersion(ctx); errors.Is(err, bench.ErrNoHAProxy) {
		return misused, err
	} else if err != nil {
		return failed, err
	}
	scratch, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return failed, fmt.Errorf("make a directory for logs: %w", err)
	}
	defer os.RemoveAll(scratch)
	data, err := s.dataDir()
	if err != nil {
		return failed, err
	}
	defer os.RemoveAll(data)
	about.Data = fileSystem(data)
	binary, err := s.build(ctx, scratch)
	if err != nil {
		return failed, err
	}
	opt := bench.Options{
		Understudy: binary, Scratch: scratch, Data: data, Cases: list(s.cases), Peers: list(s.peers), Rounds: s.rounds, Load: time.Duration(s.seconds * float64(time.Second)),
		Connections: s.connections, Threads: bench.Threads(),
		Logf: func(format string, args ...any) { fmt.Fprintf(errs, "# "+format+"\n", args...) },
	}
	lines, err := bench.Run(ctx, opt, plan)
	about.LoadTo = bench.LoadAverage()
	for i := range lines {
		lines[i].About = about
	}
	if len(lines) > 0 {
		if e := s.print(out, errs, about, lines); e != nil {
			return failed, e
		}
	}
	if err != nil {
		return failed, err
	}
	if n, _ := bench.Missed(lines); n > 0 && s.strict {
		return missed, nil
	}
	return done, nil
}

func (s settings) print(out, errs io.Writer, about bench.About, lines []bench.Line) error {
	missed, of := bench.Missed(lines)
	if s.json {
		fmt.Fprintf(errs, "# %d of %d bars met\n", of-missed, of)
		return bench.WriteJSON(out, lines)
	}
	if err := bench.WriteTable(out, about, lines); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d of %d bars met\n", of-missed, of)
	return err
}

// dataDir is a new directory for the broker. In memory its disk is no part of what is measured.
func (s settings) dataDir() (string, error) {
	parent := s.data
	if info, err := os.Stat("/dev/shm"); parent == "" && err == nil && info.IsDir() {
		parent = "/dev/shm"
	}
	dir, err := os.MkdirTemp(parent, "bench-")
	if err != nil {
		return "", fmt.Errorf("make a directory for the broker's journal: %w", err)
	}
	return dir, nil
}

func (s settings) build(ctx context.Context, scratch string) (string, error) {
	if s.binary != "" {
		return filepath.Abs(s.binary)
	}
	root, err := filepath.Abs(s.root)
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	binary := filepath.Join(scratch, "understudy")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/understudy")
	build.Dir = root
	if text, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build understudy: %w: %s", err, text)
	}
	return binary, nil
}
