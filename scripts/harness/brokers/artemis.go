package brokers

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// artemisUser is the one user of the pair.
const artemisUser = "understudy"

// artemisHome is the unpacked distribution: ARTEMIS_HOME, or the last of those in /opt; empty if there is none.
func artemisHome() string {
	if home := os.Getenv("ARTEMIS_HOME"); home != "" {
		return home
	}
	found, _ := filepath.Glob("/opt/apache-artemis-*") // the pattern is well-formed
	if len(found) == 0 {
		return ""
	}
	return slices.Max(found)
}

func artemis() kind {
	return kind{
		about: "Artemis, primary and backup on a shared store", nodes: 2,
		missing: func() []string {
			lacks := lackingProgram("java")
			home := artemisHome()
			if home == "" {
				return append(lacks, "Apache Artemis (ARTEMIS_HOME or /opt/apache-artemis-*)")
			}
			return append(lacks, lacking(filepath.Join(home, "lib", "artemis-boot.jar"))...)
		},
		build: buildArtemis, user: artemisUser, pass: artemisUser, queue: persistentQueue,
	}
}

func buildArtemis(ctx context.Context, c *cluster) error {
	if c.opt.Nodes != 2 {
		return fmt.Errorf("%d nodes asked for, but a primary has one backup", c.opt.Nodes)
	}
	home := artemisHome()
	c.version = "Artemis " + strings.TrimPrefix(filepath.Base(home), "apache-artemis-")
	var cores [2]string
	for i := range cores {
		port, err := freePort()
		if err != nil {
			return err
		}
		cores[i] = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	for i, role := range []string{"primary", "backup"} {
		n, dir, err := c.add("artemis-" + role)
		if err != nil {
			return err
		}
		etc := filepath.Join(dir, "etc")
		data := map[string]any{
			"Name": n.name, "Addr": n.Addr(), "Core": cores[i], "PeerCore": cores[1-i], "Store": filepath.Join(c.dir, "store"), "Backup": i == 1, "Etc": etc,
			"Permissions": []string{"createNonDurableQueue", "deleteNonDurableQueue", "createDurableQueue", "deleteDurableQueue", "createAddress",
				"deleteAddress", "consume", "browse", "send", "manage"},
		}
		for from, to := range map[string]string{
			"artemis-broker.xml": "broker.xml", "artemis-bootstrap.xml": "bootstrap.xml", "artemis-login.config": "login.config",
			"artemis-log4j2.properties": "log4j2.properties", "artemis-management.xml": "management.xml",
		} {
			if err := render(from, filepath.Join(etc, to), data); err != nil {
				return err
			}
		}
		for file, line := range map[string]string{"users.properties": artemisUser + "=" + artemisUser, "roles.properties": "users=" + artemisUser} {
			if err := os.WriteFile(filepath.Join(etc, file), []byte(line+"\n"), 0o600); err != nil {
				return err
			}
		}
		args := append(c.opt.jvm(), "-Djava.security.auth.login.config="+filepath.Join(etc, "login.config"), "-Dlog4j2.disableJmx=true",
			"-Dartemis.home="+home, "-Dartemis.instance="+dir, "-cp", filepath.Join(home, "lib", "artemis-boot.jar"),
			"org.apache.activemq.artemis.boot.Artemis", "run")
		n.standsBy = "AMQ221031" // "backup announced", which a primary says too that finds its backup serving
		n.command = func() *exec.Cmd {
			cmd := exec.Command("java", args...)
			cmd.Dir = dir
			return cmd
		}
	}
	return c.startInOrder(ctx)
}
