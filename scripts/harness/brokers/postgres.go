package brokers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// initdbLimit covers a slow disk: initdb writes and syncs about 40 MB.
const initdbLimit = time.Minute

// postgresBin is the directory of PostgreSQL's programs, which Debian keeps out of the PATH; empty if there is none.
func postgresBin() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is well-formed
	if len(found) == 0 {
		return ""
	}
	return filepath.Dir(slices.Max(found))
}

func missingPostgres() []string {
	if postgresBin() == "" {
		return []string{"PostgreSQL (/usr/lib/postgresql/*/bin/initdb)"}
	}
	if _, err := postgresUser(); err != nil {
		return []string{err.Error()}
	}
	return nil
}

// postgresUser is whom PostgreSQL runs as: it refuses to be run by root. Nil means the user that we are.
func postgresUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("the user postgres, whom the database must run as because root may not: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// startPostgres starts a database of the cluster's own, on loopback without passwords, and returns its port.
func (c *cluster) startPostgres(ctx context.Context) (int, error) {
	as, err := postgresUser()
	if err != nil {
		return 0, err
	}
	data, log := filepath.Join(c.dir, "postgres"), filepath.Join(c.dir, "postgres.log")
	if err := os.Mkdir(data, 0o700); err != nil {
		return 0, err
	}
	if as != nil {
		if err := os.Chown(data, int(as.Uid), int(as.Gid)); err != nil {
			return 0, err
		}
		if err := os.Chmod(c.dir, 0o711); err != nil { // it has to reach its directory
			return 0, err
		}
	}
	program := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(postgresBin(), name), args...)
		cmd.Dir, cmd.SysProcAttr = data, &syscall.SysProcAttr{Credential: as}
		return cmd
	}
	if err := c.procs.run("initdb", filepath.Join(c.dir, "initdb.log"), initdbLimit,
		program("initdb", "--pgdata", data, "--username", "postgres", "--auth", "trust", "--no-locale", "--encoding", "UTF8", "--no-instructions")); err != nil {
		return 0, err
	}
	port, err := freePort()
	if err != nil {
		return 0, err
	}
	p, err := c.procs.startEnding("postgres", log, program("postgres", "-D", data, "-p", strconv.Itoa(port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "shared_buffers=16MB", "-c", "max_connections=50"), syscall.SIGQUIT)
	if err != nil {
		return 0, err
	}
	if err := p.awaitLog(ctx, log, 0, "ready to accept connections"); err != nil {
		return 0, fmt.Errorf("start postgres: %w; its log: %s", err, log)
	}
	c.opt.Logf("postgres started as pid %d on port %d", p.pid(), port)
	return port, nil
}
