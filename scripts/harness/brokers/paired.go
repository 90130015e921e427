package brokers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// paired is our own broker: any number of servers on one directory.
func paired() kind {
	return kind{
		about: "understudy broker, servers on one journal directory (needs Options.Understudy)", nodes: 2,
		missing: func() []string { return nil },
		build:   buildPaired,
		queue:   func(name string) (string, map[string]string, map[string]string) { return "/queue/" + name, nil, nil },
	}
}

func buildPaired(ctx context.Context, c *cluster) error {
	binary := c.opt.Understudy
	if binary == "" {
		return fmt.Errorf("Options.Understudy is empty: it must be the path of the built understudy binary")
	}
	if said, err := exec.CommandContext(ctx, binary, "version").Output(); err == nil {
		c.version = strings.TrimSpace(string(said))
	} else {
		return fmt.Errorf("ask %s for its version: %w", binary, err)
	}
	for i := range c.opt.Nodes {
		n, _, err := c.add(fmt.Sprintf("paired-%d", i))
		if err != nil {
			return err
		}
		args := append([]string{"broker", "--store", filepath.Join(c.dir, "store"), "--listen", n.Addr(), "--name", n.name,
			"--takeover", "kill", "--rank", fmt.Sprint(i), "--admin-listen", "127.0.0.1:0"}, c.opt.Args...)
		n.standsBy = "standing by"
		n.command = func() *exec.Cmd {
			cmd := exec.Command(binary, args...)
			cmd.Env = withoutOurs(os.Environ())
			return cmd
		}
	}
	return c.startInOrder(ctx)
}

// withoutOurs drops the settings of an understudy that the user runs elsewhere.
func withoutOurs(env []string) []string {
	kept := make([]string, 0, len(env))
	for _, e := range env {
		if !strings.HasPrefix(e, "UNDERSTUDY_") {
			kept = append(kept, e)
		}
	}
	return kept
}
