package brokers

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// javaDir is where Debian keeps jars under names without a version.
const javaDir = "/usr/share/java"

// activemqJars is what a broker with a KahaDB store and STOMP needs.
var activemqJars = []string{
	"activemq-broker", "activemq-client", "activemq-openwire-legacy", "activemq-kahadb-store", "activemq-stomp", "activemq-spring", "activemq-console",
	"activemq-protobuf", "hawtbuf", "geronimo-jms_1.1_spec", "geronimo-jta-1.2-spec", "geronimo-j2ee-management-1.1-spec", "slf4j-api", "slf4j-jdk14",
	"jcl-over-slf4j", "spring3-core", "spring3-beans", "spring3-context", "spring3-expression", "spring3-aop", "xbean-spring",
}

// jdbcJars is what a store in PostgreSQL needs in addition.
var jdbcJars = []string{"activemq-jdbc-store", "commons-dbcp2", "commons-pool2", "postgresql"}

func jarPaths(names []string) []string {
	paths := make([]string, len(names))
	for i, name := range names {
		paths[i] = filepath.Join(javaDir, name+".jar")
	}
	return paths
}

func activemq() kind {
	return kind{
		about: "ActiveMQ Classic, master and slaves on one KahaDB directory", nodes: 2,
		missing: func() []string { return append(lackingProgram("java"), lacking(jarPaths(activemqJars)...)...) },
		build:   func(ctx context.Context, c *cluster) error { return buildActiveMQ(ctx, c, 0) },
		queue:   persistentQueue,
	}
}

func activemqJDBC() kind {
	return kind{
		about: "ActiveMQ Classic, master and slaves by a lease in a private PostgreSQL", nodes: 2,
		missing: func() []string {
			lacks := append(lackingProgram("java"), lacking(jarPaths(activemqJars)...)...)
			lacks = append(lacks, lacking(jarPaths(jdbcJars)...)...)
			return append(lacks, missingPostgres()...)
		},
		build: func(ctx context.Context, c *cluster) error {
			port, err := c.startPostgres(ctx)
			if err != nil {
				return err
			}
			return buildActiveMQ(ctx, c, port)
		},
		queue: persistentQueue,
	}
}

// persistentQueue is for brokers that forget what is not sent with persistent:true.
func persistentQueue(name string) (string, map[string]string, map[string]string) {
	return "/queue/" + name, map[string]string{"persistent": "true"}, nil
}

// buildActiveMQ starts brokers on a directory, or on the PostgreSQL at a port of 127.0.0.1 if it is not 0.
func buildActiveMQ(ctx context.Context, c *cluster, database int) error {
	jars := jarPaths(activemqJars)
	if database != 0 {
		jars = append(jars, jarPaths(jdbcJars)...)
	}
	c.version = "ActiveMQ " + jarVersion("activemq-broker")
	logging := filepath.Join(c.dir, "logging.properties")
	if err := render("logging.properties", logging, nil); err != nil {
		return err
	}
	for i := range c.opt.Nodes {
		n, dir, err := c.add(fmt.Sprintf("activemq-%d", i))
		if err != nil {
			return err
		}
		config := filepath.Join(dir, "activemq.xml")
		err = render("activemq.xml", config, map[string]any{
			"Name": n.name, "Addr": n.Addr(), "Data": dir, "Store": filepath.Join(c.dir, "store"), "Database": database, "Full": c.opt.Full,
		})
		if err != nil {
			return err
		}
		args := append(c.opt.jvm(), "-Djava.util.logging.config.file="+logging, "-Dactivemq.home="+dir, "-Dactivemq.base="+dir, "-Dactivemq.conf="+dir,
			"-Dactivemq.data="+dir, "-cp", strings.Join(jars, ":"), "org.apache.activemq.console.Main", "start", "xbean:file:"+config+"?validate=false")
		n.standsBy = "now in slave mode"
		if database != 0 {
			n.standsBy = "failed to acquire lease"
		}
		n.command = func() *exec.Cmd {
			cmd := exec.Command("java", args...)
			cmd.Dir = dir
			return cmd
		}
	}
	return c.startInOrder(ctx)
}

// jarVersion is the version of a Debian jar, which has a name with the version too.
func jarVersion(name string) string {
	found, _ := filepath.Glob(filepath.Join(javaDir, name+"-[0-9]*.jar")) // the pattern is well-formed
	if len(found) == 0 {
		return "?"
	}
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(found[0]), name+"-"), ".jar")
}
