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
	"github.com/understudy-mq/understudy/broker/journal"
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
			c.Subcommands[0].Action = func(c *cli.Context) error { read++; _, err := oneArgument(c, "STORE"); return err }
		case "sidecar":
			c.Action = func(c *cli.Context) error { read++; _, err := readSidecar(c); return err }
		case "status":
			c.Action = func(c *cli.Context) error { read++; v := &values{c: c}; v.admins(); return v.err }
		}
	}
	if err := app.RunContext(t.Context(), append([]string{"understudy"}, args...)); err != nil || read != 1 {
		t.Errorf("%q: %v (read %d times) %s", args, err, read, out.String())
	}
}

func TestSystemdUnits(t *testing.T) {
	exec := regexp.MustCompile(`(?m)^ExecStart=\S*/understudy (.*)$`)
	for unit, env := range map[string]string{"understudy-broker@.service": "topologies/pair/mq1.env", "understudy-sidecar.service": ""} {
		t.Run(unit, func(t *testing.T) {
			found := exec.FindAllStringSubmatch(sample(t, "systemd/"+unit), -1)
			if len(found) != 1 {
				t.Fatalf("%d ExecStart lines", len(found))
			}
			if env != "" {
				environment(t, env)
			}
			accepts(t, strings.Fields(strings.ReplaceAll(found[0][1], "%i", "mq1")))
		})
	}
}

// Every topology has what its name says: who owns which store, who stands for whom, nobody listens where another does.
func TestTopologies(t *testing.T) {
	names := func(stores []broker.StoreConfig, own bool) (list []string) {
		for _, s := range stores {
			if s.Own == own {
				list = append(list, s.Name)
			}
		}
		return list
	}
	for topology, servers := range map[string]map[string]string{ // what each owns, then what it stands for; / is all of the tree
		"pair":           {"mq1": "orders", "mq2": "orders"},
		"three-plus-two": {"mq1": "orders /", "mq2": "billing /", "mq3": "audit /", "standby1": " /", "standby2": " /"},
		"all-active":     {"mq1": "orders billing audit", "mq2": "billing orders audit", "mq3": "audit orders billing"},
	} {
		t.Run(topology, func(t *testing.T) {
			listens := map[string]string{}
			files, err := filepath.Glob(filepath.Join("..", "..", "configs", "topologies", topology, "*.env"))
			if err != nil || len(files) != len(servers)+1 {
				t.Errorf("%v %v: want one for each of %d servers, and a sidecar's", files, err, len(servers))
			}
			for server, want := range servers {
				t.Run(server, func(t *testing.T) {
					environment(t, "topologies/"+topology+"/"+server+".env")
					s := settingsOf(t, "--name", server)
					got := strings.Join(append([]string{strings.Join(names(s.broker.Stores, true), ",")}, names(s.broker.Stores, false)...), " ")
					if s.broker.StandForAll == "/srv/understudy" {
						got += " /"
					}
					if got != want {
						t.Errorf("owns and stands for %q, want %q", got, want)
					}
					for _, addr := range []string{s.listen, s.admin, s.gossip.listen} {
						if other := listens[addr]; other != "" {
							t.Errorf("listens where %s does: %s", other, addr)
						}
						listens[addr] = server
					}
					for _, peer := range s.gossip.join {
						if peer == s.gossip.listen {
							t.Error("joins itself")
						}
					}
				})
			}
			for _, peer := range gossiped(t, topology, servers) {
				if listens[peer] == "" {
					t.Errorf("%s is joined, and nobody's", peer)
				}
			}
			t.Run("sidecar", func(t *testing.T) {
				environment(t, "topologies/"+topology+"/sidecar.env")
				accepts(t, []string{"sidecar"})
			})
		})
	}
}

// gossiped are the members that the servers of a topology join.
func gossiped(t *testing.T, topology string, servers map[string]string) (peers []string) {
	t.Helper()
	for server := range servers {
		for line := range strings.Lines(sample(t, "topologies/"+topology+"/"+server+".env")) {
			if list, ok := strings.CutPrefix(strings.TrimSpace(line), "UNDERSTUDY_GOSSIP_JOIN="); ok {
				peers = append(peers, strings.Split(list, ",")...)
			}
		}
	}
	return peers
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
	accepts(t, containerArgs(t, pod))
	if !strings.Contains(pod, "restartPolicy: Always") || strings.Contains(pod, "\t") {
		t.Error("not a native sidecar, or not YAML")
	}
}

// A StatefulSet's pods differ by what Kubernetes puts into their arguments.
func TestKubernetesBrokers(t *testing.T) {
	set := sample(t, "kubernetes/brokers.yaml")
	var args []string
	for _, arg := range containerArgs(t, set) {
		for name, value := range map[string]string{"$(POD_NAME)": "understudy-0", "$(POD_IP)": "192.0.2.11"} {
			arg = strings.ReplaceAll(arg, name, value)
		}
		if strings.Contains(arg, "$") {
			t.Errorf("%s is not filled in", arg)
		}
		args = append(args, arg)
	}
	if args[0] != "broker" {
		t.Fatal(args)
	}
	s := settingsOf(t, args[1:]...)
	if own := s.broker.Stores; len(own) != 1 || own[0] != (broker.StoreConfig{Name: "understudy-0", Dir: "/stores/understudy-0", Own: true}) || s.broker.StandForAll != "/stores" || s.broker.Takeover != journal.Lease {
		t.Errorf("%+v", s.broker)
	}
	if !strings.Contains(set, "mountPath: /stores}") || !strings.Contains(set, "accessModes: [ReadWriteMany]") || strings.Contains(set, "\t") {
		t.Error("the stores are not where the arguments say, or not on a volume for all pods")
	}
}

// containerArgs are the arguments of the first container that has some.
func containerArgs(t *testing.T, text string) (line []string) {
	t.Helper()
	_, args, ok := strings.Cut(text, " args:\n")
	if !ok {
		t.Fatal("no args")
	}
	for arg := range strings.Lines(args) {
		value, ok := strings.CutPrefix(strings.TrimSpace(arg), "- ")
		if !ok {
			break
		}
		line = append(line, value)
	}
	return line
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
	for _, part := range []string{"sum", "count"} {         // written when the first store was handed over
		there["understudy_broker_handover_seconds_"+part] = true
	}
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

// What the README has a reader paste is read by the real flags.
func TestReadmeCommands(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^ +\./understudy ((?:broker|sidecar|status) .*)$`)
	pasted := line.FindAllStringSubmatch(string(text), -1)
	if len(pasted) < 10 {
		t.Errorf("only %d command lines were found", len(pasted))
	}
	for _, found := range pasted {
		accepts(t, strings.Fields(found[1]))
	}
}
