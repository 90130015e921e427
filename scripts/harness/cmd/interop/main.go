// Command interop makes the table of broker × client library × fault: what is lost, doubled, reordered and noticed, through the sidecar and
// direct. scripts/interop starts it from anywhere.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/understudy-mq/understudy/scripts/harness/brokers"
	"github.com/understudy-mq/understudy/scripts/harness/interop"
)

// Exit codes.
const (
	kept    = 0
	broken  = 1 // a promise was not kept, or software that has to be there is not
	misused = 2
	failed  = 3 // the table could not be made
)

// allBrokers is the order of the table.
const allBrokers = "paired,activemq,activemq-jdbc,artemis,rabbitmq"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// settings are the flags.
type settings struct {
	root, binary, keep, brokers, clients, faults, via, suite, sidecarArgs string
	json, table, short                                                    bool
	seconds, rate                                                         float64
	together                                                              int
}

func parse(args []string, errs io.Writer) (settings, error) {
	var s settings
	f := flag.NewFlagSet("interop", flag.ContinueOnError)
	f.SetOutput(errs)
	f.StringVar(&s.root, "root", ".", "directory of the repository")
	f.StringVar(&s.binary, "understudy", "", "path of a built understudy binary; built unless given")
	f.StringVar(&s.keep, "keep", "", "directory in which the logs of all cells are kept; only those of broken cells are, in the system's temporary directory, unless given")
	f.StringVar(&s.brokers, "brokers", allBrokers, "kinds of brokers, with commas between them")
	f.StringVar(&s.clients, "clients", "", "client libraries, with commas between them; all unless given")
	f.StringVar(&s.faults, "faults", "kill,freeze,stop,reset", "faults, with commas between them; none is one, too")
	f.StringVar(&s.via, "via", "both", "sidecar, direct or both")
	f.StringVar(&s.suite, "suite", "", "stompngo: run that library's own tests instead, direct, through the sidecar, and through the sidecar with take-overs")
	f.StringVar(&s.sidecarArgs, "sidecar-args", "", "further arguments of understudy sidecar, with spaces between them")
	f.BoolVar(&s.json, "json", false, "print one JSON object a line, one for each cell")
	f.BoolVar(&s.table, "table", false, "print a Markdown table at the end")
	f.BoolVar(&s.short, "short", false, "what fits a gate: two clients, fault kill, through the sidecar only")
	f.Float64Var(&s.seconds, "seconds", 5, "how long each producer sends, if nothing holds it up")
	f.Float64Var(&s.rate, "rate", 150, "messages a second of each cell")
	f.IntVar(&s.together, "together", 8, "cells that run at the same time and are struck by one fault")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	if s.seconds <= 0 || s.rate <= 0 || s.together < 1 {
		return s, errors.New("-seconds, -rate and -together must be positive")
	}
	if s.short {
		given := map[string]bool{}
		f.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, value := range map[string]*string{"clients": &s.clients, "faults": &s.faults, "via": &s.via} {
			if !given[name] {
				*value = map[string]string{"clients": "go-stomp,python", "faults": "kill", "via": "sidecar"}[name]
			}
		}
	}
	return s, nil
}

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	s, err := parse(args, errs)
	if errors.Is(err, flag.ErrHelp) {
		return kept
	}
	if err != nil {
		fmt.Fprintln(errs, "interop:", err)
		return misused
	}
	scratch, err := os.MkdirTemp("", "interop-")
	if err != nil {
		fmt.Fprintln(errs, "interop:", err)
		return failed
	}
	defer os.RemoveAll(scratch)
	code, err := s.run(ctx, scratch, out, errs)
	if err != nil {
		fmt.Fprintln(errs, "interop:", err)
	}
	return code
}

func (s settings) run(ctx context.Context, scratch string, out, errs io.Writer) (int, error) {
	plan, err := s.plan()
	if err != nil {
		return misused, err
	}
	runner, err := s.runner(ctx, scratch, errs)
	if err != nil {
		return failed, err
	}
	absent, err := s.skipMissing(ctx, &plan, runner.Programs, errs)
	if err != nil {
		return failed, err
	}
	code := kept
	if absent && os.Getenv("CI") == "true" {
		code = broken
	}
	if s.suite != "" {
		return s.runSuite(ctx, runner, plan, scratch, out, code)
	}
	var results []interop.Result
	err = runner.Run(ctx, plan, func(r interop.Result) {
		results = append(results, r)
		if len(r.Broken) > 0 {
			code = broken
		}
		s.print(out, r)
	})
	if err != nil {
		return failed, err
	}
	if s.table {
		if err := interop.WriteTable(out, results); err != nil {
			return failed, err
		}
	}
	if !s.json && !s.table {
		bad := 0
		for _, r := range results {
			if len(r.Broken) > 0 {
				bad++
			}
		}
		fmt.Fprintf(out, "%d passed, %d failed\n", len(results)-bad, bad)
	}
	return code, nil
}

// plan is what the flags ask for.
func (s settings) plan() (interop.Plan, error) {
	p := interop.Plan{Together: s.together, Brokers: list(s.brokers)}
	for _, kind := range p.Brokers {
		if !slices.Contains(brokers.Kinds(), kind) {
			return p, fmt.Errorf("unknown kind of broker %q: it must be one of %s", kind, strings.Join(brokers.Kinds(), ", "))
		}
	}
	var err error
	if p.Clients, err = interop.FindClients(list(s.clients)); err != nil {
		return p, err
	}
	for _, name := range list(s.faults) {
		f := interop.Fault(name)
		if f != interop.None && !slices.Contains(interop.Faults(), f) {
			return p, fmt.Errorf("unknown fault %q: it must be kill, freeze, stop, reset or none", name)
		}
		p.Faults = append(p.Faults, f)
	}
	switch s.via {
	case "both":
		p.Ways = []interop.Way{interop.ViaSidecar, interop.Direct}
	case "sidecar", "direct":
		p.Ways = []interop.Way{interop.Way(s.via)}
	default:
		return p, fmt.Errorf("unknown way %q: -via must be sidecar, direct or both", s.via)
	}
	return p, nil
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

// runner builds what has to be built.
func (s settings) runner(ctx context.Context, scratch string, errs io.Writer) (*interop.Runner, error) {
	root, err := filepath.Abs(s.root)
	if err != nil {
		return nil, fmt.Errorf("find the repository: %w", err)
	}
	r := &interop.Runner{
		Binary: s.binary, Rate: s.rate, Load: time.Duration(s.seconds * float64(time.Second)), More: strings.Fields(s.sidecarArgs), Keep: s.keep,
		Logf:     func(format string, args ...any) { fmt.Fprintf(errs, "# "+format+"\n", args...) },
		Programs: interop.Programs{Dir: filepath.Join(root, "scripts", "harness", "clients"), Built: scratch},
	}
	if r.Programs.Modules, err = interop.NodeModules(); err != nil {
		return nil, err
	}
	if err := r.Programs.Build(ctx); err != nil {
		return nil, err
	}
	if s.keep != "" {
		if err := os.MkdirAll(s.keep, 0o755); err != nil {
			return nil, fmt.Errorf("make the directory for logs: %w", err)
		}
	}
	if r.Binary != "" {
		return r, nil
	}
	r.Binary = filepath.Join(scratch, "understudy")
	build := exec.CommandContext(ctx, "go", "build", "-o", r.Binary, "./cmd/understudy")
	build.Dir = root
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build understudy: %w: %s", err, text)
	}
	return r, nil
}

// skipMissing takes out of the plan what is not installed, and says so; it reports whether anything was.
func (s settings) skipMissing(ctx context.Context, p *interop.Plan, programs interop.Programs, errs io.Writer) (bool, error) {
	absent := false
	skip := func(err error) bool {
		if err != nil {
			absent = true
			fmt.Fprintf(errs, "interop: SKIPPED: %v\n", err)
		}
		return err != nil
	}
	p.Brokers = slices.DeleteFunc(p.Brokers, func(kind string) bool { return skip(brokers.Missing(kind)) })
	if s.suite == "" {
		p.Clients = slices.DeleteFunc(p.Clients, func(c interop.Client) bool { return skip(programs.Missing(ctx, c)) })
	}
	if len(p.Brokers) == 0 || len(p.Clients) == 0 {
		return absent, errors.New("nothing is left to run")
	}
	return absent, ctx.Err()
}

// print shows a result while the others run.
func (s settings) print(out io.Writer, r interop.Result) {
	if s.json {
		_ = json.NewEncoder(out).Encode(r)
		return
	}
	if s.table {
		return
	}
	word := "ok  "
	if len(r.Broken) > 0 {
		word = "FAIL"
	}
	fmt.Fprintf(out, "%s %-13s %-9s %-6s %-7s sent %d, confirmed %d, received %d, lost %d, duplicated %d, reordered %d, in doubt %d, client errors %d, silence %s\n",
		word, r.Broker, r.Client, r.Fault, r.Via, r.Sent, r.Confirmed, r.Received, r.Lost, r.Duplicated, r.Reordered, r.InDoubt, r.ClientErrors, r.Silence())
	for _, b := range r.Broken {
		fmt.Fprintf(out, "     %s\n", b)
	}
	if r.Logs != "" {
		fmt.Fprintf(out, "     logs: %s\n", r.Logs)
	}
}
