package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// pollEvery is how often a process is asked for something that is awaited.
const pollEvery = 5 * time.Millisecond

// member is one broker: the host that it runs on as DNS sees it, and its process, which changes with every kill.
type member struct {
	host    string   // label in the zone, and name of the log
	stores  []string // the flags that say which stores it serves
	process *child
	listen  string // host:port, kept over restarts
	gossip  string
	admin   string
	front   *forwarder // what clients see instead of listen; nil for none
}

// endpoint is where the sidecar finds the broker.
func (m *member) endpoint() string {
	if m.front != nil {
		return m.front.addr()
	}
	return m.listen
}

// cluster is everything of a run that is not a client: brokers, DNS, and a sidecar.
type cluster struct {
	cfg     Config
	dir     string
	kids    *nursery
	dns     *nameServer
	members []*member
	sidecar struct {
		process               *child
		listen, admin, gossip string
		groups                map[string]string // where it listens for groups, by their names
	}
	http http.Client
}

// newCluster makes one in a folder of its own; nothing runs yet. With cfg.Verbose, what the processes log is shown between the lines of the timeline.
func newCluster(cfg Config, lines *timeline) (*cluster, error) {
	if cfg.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find own binary: %w", err)
		}
		cfg.Binary = self
	}
	dir, err := os.MkdirTemp("", "understudy-demo-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the demo: %w", err)
	}
	var tee io.Writer
	if cfg.Verbose {
		tee = lines
	}
	c := &cluster{cfg: cfg, dir: dir, kids: newNursery(cfg.Binary, dir, tee)}
	c.http.Transport = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 2}
	return c, nil
}

// startPair brings two brokers on one directory up, and then what looks for them. On an error the caller closes what there is.
func (c *cluster) startPair(ctx context.Context) error {
	var err error
	if c.dns, err = startDNS(); err != nil {
		return err
	}
	for _, host := range []string{"broker-a", "broker-b"} {
		m := &member{host: host, stores: []string{"--store", filepath.Join(c.dir, "store")}}
		c.members = append(c.members, m)
		if c.cfg.Fault == FaultReset {
			if m.front, err = startForwarder(); err != nil {
				return err
			}
		}
	}
	for _, m := range c.members {
		if err := c.startBroker(ctx, m); err != nil {
			return err
		}
		if m == c.members[0] { // let the first be the active one, so that the story begins the same way each time
			if _, _, err := c.awaitActive(ctx, m); err != nil {
				return err
			}
		}
	}
	if c.cfg.Direct {
		return nil
	}
	return c.startSidecar(ctx)
}

// startBroker starts m's process, on its old port if it had one, and publishes where it listens.
func (c *cluster) startBroker(ctx context.Context, m *member) error {
	listen := m.listen
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	err := c.tryBroker(ctx, m, listen)
	if err != nil && m.listen != "" && ctx.Err() == nil {
		err = c.tryBroker(ctx, m, "127.0.0.1:0") // somebody got the port in between: DNS will tell where it is now
	}
	if err != nil {
		return err
	}
	if m.front != nil {
		m.front.aim(m.listen)
	}
	return c.dns.set(m.host, m.endpoint())
}

func (c *cluster) tryBroker(ctx context.Context, m *member, listen string) error {
	file := filepath.Join(c.dir, m.host+".addr")
	_ = os.Remove(file)
	args := append([]string{"broker", "--listen", listen, "--name", m.host, "--takeover", "kill", "--gossip-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
		"--addr-file", file}, m.stores...)
	if m.front != nil {
		args = append(args, "--advertise", m.front.addr())
	}
	if c.cfg.MaxMemory > 0 {
		args = append(args, "--max-memory", strconv.FormatInt(c.cfg.MaxMemory, 10))
	}
	for _, other := range c.members {
		if other != m && other.gossip != "" {
			args = append(args, "--gossip-join", other.gossip)
		}
	}
	if c.sidecar.gossip != "" {
		args = append(args, "--gossip-join", c.sidecar.gossip)
	}
	var err error
	if m.process, err = c.kids.start(m.host, args...); err != nil {
		return err
	}
	addrs, err := c.awaitAddrs(ctx, m.process, file)
	if err != nil {
		return err
	}
	m.listen, m.gossip, m.admin = addrs["listen"], addrs["gossip"], addrs["admin"]
	return nil
}

// startSidecar starts one that finds the brokers by DNS and hears of them by gossip; more are flags beside these.
func (c *cluster) startSidecar(ctx context.Context, more ...string) error {
	file := filepath.Join(c.dir, "sidecar.addr")
	args := append([]string{"sidecar", "--listen", "127.0.0.1:0", "--srv", service, "--dns-server", c.dns.addr, "--gossip-listen", "127.0.0.1:0",
		"--admin-listen", "127.0.0.1:0", "--addr-file", file}, more...)
	for _, m := range c.members {
		args = append(args, "--gossip-join", m.gossip)
	}
	var err error
	if c.sidecar.process, err = c.kids.start("sidecar", args...); err != nil {
		return err
	}
	addrs, err := c.awaitAddrs(ctx, c.sidecar.process, file)
	if err != nil {
		return err
	}
	c.sidecar.listen, c.sidecar.admin, c.sidecar.gossip = addrs["listen"], addrs["admin"], addrs["gossip"]
	c.sidecar.groups = map[string]string{}
	for name, addr := range addrs {
		if group, ok := strings.CutPrefix(name, "listen-"); ok {
			c.sidecar.groups[group] = addr
		}
	}
	return nil
}

// awaitAddrs waits for a process to say where it listens.
func (c *cluster) awaitAddrs(ctx context.Context, p *child, file string) (map[string]string, error) {
	addrs := map[string]string{}
	err := await(ctx, c.cfg.StartTimeout, p.name+" to come up", func() (bool, error) {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			return false, p.ended()
		}
		for line := range strings.Lines(string(text)) {
			if name, addr, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				addrs[name] = addr
			}
		}
		return true, err
	})
	return addrs, err
}

// await polls until done says so; its error ends the wait.
func await(ctx context.Context, limit time.Duration, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("waited %v for %s", limit, what))
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// stop ends the processes as an operator would, sidecar first; each must end by itself, and well.
func (c *cluster) stop(ctx context.Context) error {
	if c.sidecar.process != nil {
		if err := c.sidecar.process.stop(ctx); err != nil {
			return err
		}
	}
	for _, m := range c.members {
		if m.process == nil {
			continue
		}
		if err := m.process.stop(ctx); err != nil {
			return err
		}
	}
	return nil
}

// close ends everything, the processes by SIGKILL; nothing of the cluster runs afterwards.
func (c *cluster) close() {
	c.kids.close()
	for _, m := range c.members {
		if m.front != nil {
			m.front.close()
		}
	}
	if c.dns != nil {
		c.dns.close()
	}
	c.http.CloseIdleConnections()
}
