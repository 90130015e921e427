package interop

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/understudy-mq/understudy/scripts/harness/brokers"
)

// suitePackage is a client library whose tests want nothing but a broker's host and port.
const suitePackage = "github.com/gmallard/stompngo"

const (
	suiteLimit = 4 * time.Minute        // one run takes some seconds; with take-overs a test may wait for its own time-outs
	resetEvery = 250 * time.Millisecond // between forced take-overs
)

// Mode is how the suite reaches the broker.
type Mode string

// The modes. A run in another mode must have the results of the direct one.
const (
	ModeDirect    Mode = "direct"
	ModeSidecar   Mode = "sidecar"
	ModeTakeOvers Mode = "sidecar with take-overs" // every connection to the brokers is reset again and again
)

// suiteEnv is what the suite wants to know of a kind of broker.
var suiteEnv = map[string][]string{
	"activemq":      {"STOMP_AMQ=1"},
	"activemq-jdbc": {"STOMP_AMQ=1"},
	"artemis":       {}, // what it has for Artemis are names of queues as they were in its first version
	"rabbitmq":      {"STOMP_RMQ=1", "STOMP_VHOST=/"},
	"paired":        {"STOMP_AMQ=1"}, // names of destinations and headers are ActiveMQ's
}

// SuiteResult is one run of the suite.
type SuiteResult struct {
	Suite     string  `json:"suite"`
	Broker    string  `json:"broker"`
	Version   string  `json:"version"` // of STOMP
	Mode      Mode    `json:"mode"`
	Passed    int     `json:"passed"`
	Failed    int     `json:"failed"`
	Skipped   int     `json:"skipped"`
	Seconds   float64 `json:"seconds"`
	TakeOvers int     `json:"takeovers"`
	// Differences are tests that passed, or were skipped, in the direct run and did not here.
	Differences []string `json:"differences"`
	// Better are tests that failed in the direct run and did not here: a broker that forgets an ack:auto makes some fail now and then.
	Better   []string `json:"better"`
	Failures []string `json:"failures"` // names
	Log      string   `json:"log,omitempty"`
}

// Suite runs the tests of suitePackage.
type Suite struct {
	*Runner
	Tests string // the compiled tests
	Dir   string // where they run: the package's own directory
}

// BuildSuite compiles the tests once into dir.
func (r *Runner) BuildSuite(ctx context.Context, dir string) (*Suite, error) {
	s := &Suite{Runner: r, Tests: filepath.Join(dir, "suite.test")}
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", s.Tests, suitePackage)
	build.Dir = r.Programs.Dir
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile the tests of %s: %w: %s", suitePackage, err, out)
	}
	find := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", suitePackage)
	find.Dir = r.Programs.Dir
	out, err := find.Output()
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", suitePackage, err)
	}
	s.Dir = strings.TrimSpace(string(out))
	return s, nil
}

// Run runs the suite at one kind of broker in every version of STOMP and every mode.
func (s *Suite) Run(ctx context.Context, kind string, line func(SuiteResult)) (err error) {
	env, known := suiteEnv[kind]
	if !known {
		return fmt.Errorf("broker %s: nothing is known of what the suite wants for it: add it to suiteEnv", kind)
	}
	cluster, err := s.startCluster(ctx, kind)
	if err != nil {
		return err
	}
	defer func() {
		if cluster != nil {
			err = errors.Join(err, cluster.Close())
		}
	}()
	for _, version := range []string{"1.0", "1.1", "1.2"} {
		var direct map[string]string
		for _, mode := range []Mode{ModeDirect, ModeSidecar, ModeTakeOvers} {
			result, outcomes, err := s.once(ctx, cluster, env, version, mode)
			if err != nil {
				return fmt.Errorf("suite at %s, STOMP %s, %s: %w", kind, version, mode, err)
			}
			if mode == ModeDirect {
				direct = outcomes
			}
			result.Differences, result.Better = differences(direct, outcomes)
			if s.Keep == "" && len(result.Differences) == 0 {
				if err := os.RemoveAll(filepath.Dir(result.Log)); err != nil {
					return fmt.Errorf("remove the logs of a run: %w", err)
				}
				result.Log = ""
			}
			line(result)
			if result.Failed == 0 {
				continue
			}
			// A test that fails leaves messages in queues that the next run uses, too.
			if err := cluster.Close(); err != nil {
				return err
			}
			if cluster, err = s.startCluster(ctx, kind); err != nil {
				return err
			}
		}
	}
	return nil
}

// once is one run.
func (s *Suite) once(ctx context.Context, cluster brokers.Cluster, env []string, version string, mode Mode) (r SuiteResult, outcomes map[string]string, err error) {
	r = SuiteResult{Suite: suitePackage, Broker: cluster.Kind(), Version: version, Mode: mode}
	dir, err := os.MkdirTemp(s.Keep, "suite-"+cluster.Kind()+"-"+version+"-")
	if err != nil {
		return r, nil, fmt.Errorf("make a directory for logs: %w", err)
	}
	o := &round{Runner: s.Runner, cluster: cluster, fault: Reset, dir: dir}
	defer func() { err = errors.Join(err, o.close()) }()
	var cells []Cell
	if mode != ModeDirect {
		cells = []Cell{{Via: ViaSidecar}}
	}
	if err := o.prepare(ctx, cells); err != nil {
		return r, nil, err
	}
	addr := o.tcp[o.active].addr()
	if o.sidecar != nil {
		addr = o.sidecar.listen
	}
	stop := make(chan struct{})
	var striking sync.WaitGroup
	if mode == ModeTakeOvers {
		striking.Go(func() { o.resetAgainAndAgain(stop) })
	}
	begun := time.Now()
	said, err := s.tests(ctx, cluster, addr, env, version)
	r.Seconds = time.Since(begun).Seconds()
	close(stop)
	striking.Wait()
	if err != nil {
		return r, nil, err
	}
	if o.sidecar != nil {
		if r.TakeOvers, err = o.sidecar.metric("takeovers_total"); err != nil {
			return r, nil, err
		}
	}
	r.Log = filepath.Join(dir, "tests.log")
	if err := os.WriteFile(r.Log, said, 0o644); err != nil {
		return r, nil, fmt.Errorf("keep what the tests said: %w", err)
	}
	outcomes = parseTests(said)
	if len(outcomes) == 0 {
		return r, nil, fmt.Errorf("no test ran: %s", bytes.TrimSpace(said[max(0, len(said)-maxErrors):]))
	}
	r.count(outcomes)
	return r, outcomes, nil
}

func (o *round) resetAgainAndAgain(stop <-chan struct{}) {
	tick := time.NewTicker(resetEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, f := range o.tcp {
				f.reset()
			}
		case <-stop:
			return
		}
	}
}

// tests runs the compiled tests and returns what they said. That some fail is no error.
func (s *Suite) tests(ctx context.Context, cluster brokers.Cluster, addr string, env []string, version string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, suiteLimit)
	defer cancel()
	host, port, _ := strings.Cut(addr, ":")
	cmd := exec.CommandContext(ctx, s.Tests, "-test.v", "-test.timeout", (suiteLimit - 5*time.Second).String())
	cmd.Dir = s.Dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Env = append(cmd.Env, "STOMP_HOST="+host, "STOMP_PORT="+port, "STOMP_HOSTBV="+host, "STOMP_PORTBV="+port, "STOMP_PROTOCOL="+version)
	if version != "1.0" {
		cmd.Env = append(cmd.Env, "STOMP_TEST11p="+version)
	}
	if user, pass := cluster.Login(); user != "" {
		cmd.Env = append(cmd.Env, "STOMP_LOGIN="+user, "STOMP_PASSCODE="+pass)
	}
	out, err := cmd.CombinedOutput()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		return nil, fmt.Errorf("run the tests: %w", err)
	}
	return out, nil
}

func (r *SuiteResult) count(outcomes map[string]string) {
	r.Failures = []string{}
	for _, name := range slices.Sorted(maps.Keys(outcomes)) {
		switch outcomes[name] {
		case "PASS":
			r.Passed++
		case "SKIP":
			r.Skipped++
		default:
			r.Failed++
			r.Failures = append(r.Failures, name)
		}
	}
}

var (
	testRun = regexp.MustCompile(`=== RUN +(\S+)`)
	testEnd = regexp.MustCompile(`--- (PASS|FAIL|SKIP): (\S+) \(`)
)

// parseTests reads the output of go test -v: by test, PASS, FAIL, SKIP, or "did not end" where the program ended within it. The library logs
// without regard to lines, so the words may stand anywhere.
func parseTests(out []byte) map[string]string {
	outcomes := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, len(out)+1)
	for lines.Scan() {
		for _, m := range testRun.FindAllStringSubmatch(lines.Text(), -1) {
			if _, seen := outcomes[m[1]]; !seen {
				outcomes[m[1]] = "did not end"
			}
		}
		for _, m := range testEnd.FindAllStringSubmatch(lines.Text(), -1) {
			outcomes[m[2]] = m[1]
		}
	}
	return outcomes
}

// differences says which tests ended otherwise than in the direct run, apart for those that failed only there.
func differences(direct, other map[string]string) (worse, better []string) {
	worse, better = []string{}, []string{}
	names := maps.Clone(direct)
	maps.Copy(names, other)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		a, b := outcome(direct, name), outcome(other, name)
		what := fmt.Sprintf("%s: direct %s, now %s", name, a, b)
		switch {
		case a == b:
		case a == "FAIL" && b == "PASS":
			better = append(better, what)
		default:
			worse = append(worse, what)
		}
	}
	return worse, better
}

func outcome(of map[string]string, name string) string {
	if o, ran := of[name]; ran {
		return o
	}
	return "did not run"
}
