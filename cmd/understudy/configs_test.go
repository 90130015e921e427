package main

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/understudy-mq/understudy/broker"
	"github.com/understudy-mq/understudy/cmd/internal/ops"
)

// Every sample in configs is read here by what would read it in earnest, as far as that is part of this program: command lines and
// environment by the real flags, metric names by the metrics that are there. (The DNS zone is read in package demo.)

func sample(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "configs", filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// accepts parses a command line with the real flags, and reads them, without starting anything.
func accepts(t *testing.T, args []string) {
	t.Helper()
	var out bytes.Buffer
	app := newApp(&out, &out)
	read := 0
	for _, c := range app.Commands {
		switch c.Name {
		case "broker":
			c.Action = func(c *cli.Context) error { read++; _, err := readBroker(c); return err }
		case "sidecar":
			c.Action = func(c *cli.Context) error { read++; _, err := readSidecar(c); return err }
		}
	}
	if err := app.RunContext(t.Context(), append([]string{"understudy"}, args...)); err != nil || read != 1 {
		t.Errorf("%q: %v (read %d times) %s", args, err, read, out.String())
	}
}

func TestSystemdUnits(t *testing.T) {
	exec := regexp.MustCompile(`(?m)^ExecStart=\S*/understudy (.*)$`)
	for _, unit := range []string{"understudy-broker.service", "understudy-sidecar.service"} {
		found := exec.FindAllStringSubmatch(sample(t, "systemd/"+unit), -1)
		if len(found) != 1 {
			t.Fatalf("%s: %d ExecStart lines", unit, len(found))
		}
		accepts(t, strings.Fields(found[0][1]))
	}
}

func TestEnvironmentFile(t *testing.T) {
	environment(t, "systemd/sidecar.env")
	accepts(t, []string{"sidecar", "--srv", "_stomp._tcp.mq.example"})
}

func TestGroupsEnvironmentFile(t *testing.T) {
	environment(t, "systemd/sidecar-groups.env")
	accepts(t, []string{"sidecar"})
}

func TestCredentialsSample(t *testing.T) {
	c, err := ops.OpenCredentials(filepath.Join("..", "..", "configs", "credentials.json"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if login, _ := c.For("10.0.0.1:61613", "a.billing.example:61613"); login != "billing" {
		t.Error(login)
	}
}

// environment sets what a file says, which must be variables of ours.
func environment(t *testing.T, path string) {
	t.Helper()
	known := map[string]bool{}
	for _, c := range newApp(nil, nil).Commands {
		for _, f := range c.Flags {
			known[f.(cli.DocGenerationFlag).GetEnvVars()[0]] = true
		}
	}
	for line := range strings.Lines(sample(t, path)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || !known[name] {
			t.Errorf("%q is no variable of ours", line)
		}
		t.Setenv(name, value)
	}
}

func TestKubernetesPod(t *testing.T) {
	pod := sample(t, "kubernetes/pod.yaml")
	_, args, ok := strings.Cut(pod, "      args:\n")
	if !ok {
		t.Fatal("no args")
	}
	var line []string
	for arg := range strings.Lines(args) {
		value, ok := strings.CutPrefix(strings.TrimRight(arg, "\n"), "        - ")
		if !ok {
			break
		}
		line = append(line, value)
	}
	accepts(t, line)
	if !strings.Contains(pod, "restartPolicy: Always") || strings.Contains(pod, "\t") {
		t.Error("not a native sidecar, or not YAML")
	}
}

// Alerts on metrics that do not exist never fire.
func TestPrometheusRules(t *testing.T) {
	p := &process{metrics: newMetrics()}
	settings, there := sidecarForMetrics(t), map[string]bool{}
	car, err := settings.assemble(openProcess(t, p))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	p.metrics.WritePrometheus(&out)
	car.close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	set := newMetrics()
	if _, err := broker.New(broker.Config{Stores: []broker.StoreConfig{{Name: "orders", Dir: t.TempDir(), Own: true}}, Listener: listener, Metrics: set}); err != nil {
		t.Fatal(err)
	}
	set.WritePrometheus(&out)
	name := regexp.MustCompile(`understudy_[a-z_]+`)
	for _, n := range name.FindAllString(out.String(), -1) {
		there[n] = true
	}
	there["understudy_sidecar_sessions_ended_total"] = true // made when the first session ends
	used := name.FindAllString(sample(t, "prometheus/rules.yaml"), -1)
	if len(used) < 5 {
		t.Fatal("only", used)
	}
	for _, n := range used {
		if !there[n] {
			t.Errorf("the rules use %s, which neither a sidecar nor a broker has", n)
		}
	}
}
