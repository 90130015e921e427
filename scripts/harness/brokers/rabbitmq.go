package brokers

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// rabbitmqServer is the script that becomes the node. The one in the PATH would change to the package's user and directories.
const rabbitmqServer = "/usr/lib/rabbitmq/bin/rabbitmq-server"

func rabbitmq() kind {
	return kind{
		about: "RabbitMQ, a cluster of three with quorum queues", nodes: 3,
		missing: func() []string {
			return append(append(lacking(rabbitmqServer), lackingProgram("erl")...), lackingProgram("epmd")...)
		},
		build: buildRabbitMQ, user: "guest", pass: "guest", vhost: "/",
		queue: func(name string) (string, map[string]string, map[string]string) {
			quorum := map[string]string{"x-queue-type": "quorum"}
			return "/queue/" + name, map[string]string{"persistent": "true", "x-queue-type": "quorum"}, quorum
		},
	}
}

// buildRabbitMQ starts the nodes, which look for each other, and before them the port mapper that they would otherwise start for
// themselves and leave behind.
func buildRabbitMQ(ctx context.Context, c *cluster) error {
	mapper, err := freePort()
	if err != nil {
		return err
	}
	home := filepath.Join(c.dir, "home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(home, ".erlang.cookie"), []byte(rand.Text()), 0o400); err != nil {
		return err
	}
	epmd := exec.Command("epmd", "-port", strconv.Itoa(mapper), "-address", "127.0.0.1")
	if _, err := c.procs.start("epmd", filepath.Join(c.dir, "epmd.log"), epmd); err != nil {
		return err
	}
	for i := range c.opt.Nodes {
		n, dir, err := c.add(fmt.Sprintf("rabbitmq-%d", i))
		if err != nil {
			return err
		}
		env, err := rabbitmqFiles(n, dir, fmt.Sprintf("r%d@localhost", i), "r0@localhost")
		if err != nil {
			return err
		}
		env = append(env, "HOME="+home, fmt.Sprintf("ERL_EPMD_PORT=%d", mapper))
		n.command = func() *exec.Cmd {
			cmd := exec.Command(rabbitmqServer)
			cmd.Dir, cmd.Env = dir, env
			return cmd
		}
	}
	// The first founds the cluster alone and the others join it: all at once, they would spend most of the time waiting for each other.
	if err := c.nodes[0].Start(ctx); err != nil {
		return err
	}
	if err := c.startTogether(ctx, c.nodes[1:]); err != nil {
		return err
	}
	c.version = c.nodes[0].serverHeader(ctx)
	return nil
}

// rabbitmqFiles writes the configuration of a node, which joins the node seed unless it is that itself, and returns its environment.
func rabbitmqFiles(n *node, dir, name, seed string) ([]string, error) {
	amqp, err := freePort()
	if err != nil {
		return nil, err
	}
	distribution, err := freePort()
	if err != nil {
		return nil, err
	}
	err = render("rabbitmq.conf", filepath.Join(dir, "rabbitmq.conf"), map[string]any{
		"AMQP": net.JoinHostPort("127.0.0.1", strconv.Itoa(amqp)), "Addr": n.Addr(), "Seed": seed,
	})
	if err != nil {
		return nil, err
	}
	for file, text := range map[string]string{"advanced.config": "[].\n", "enabled_plugins": "[rabbitmq_stomp].\n"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	var env []string
	for _, e := range os.Environ() { // the user's own RabbitMQ must not shine through
		if !strings.HasPrefix(e, "RABBITMQ_") && !strings.HasPrefix(e, "ERL_") && !strings.HasPrefix(e, "HOME=") {
			env = append(env, e)
		}
	}
	under := func(file string) string { return filepath.Join(dir, file) }
	erlang := "-kernel inet_dist_use_interface {127,0,0,1}"
	if !n.cluster.opt.Full {
		erlang += " +S 2:2" // with one scheduler for each core the nodes together would fight for them
	}
	return append(env,
		"RUNNING_UNDER_SYSTEMD=1", // makes the script exec the Erlang machine, so that our child is the broker
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME="+name, "RABBITMQ_USE_LONGNAME=false", "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		fmt.Sprintf("RABBITMQ_NODE_PORT=%d", amqp), fmt.Sprintf("RABBITMQ_DIST_PORT=%d", distribution),
		"RABBITMQ_MNESIA_BASE="+under("mnesia"), "RABBITMQ_LOG_BASE="+under("log"), "RABBITMQ_CONFIG_FILE="+under("rabbitmq.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE="+under("advanced.config"), "RABBITMQ_CONF_ENV_FILE=/dev/null",
		"RABBITMQ_ENABLED_PLUGINS_FILE="+under("enabled_plugins"), "RABBITMQ_PID_FILE="+under("pid"),
		"RABBITMQ_GENERATED_CONFIG_DIR="+under("generated"),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+erlang,
	), nil
}
