package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/urfave/cli/v2"

	"github.com/understudy-mq/understudy/cmd/internal/admin"
	"github.com/understudy-mq/understudy/cmd/internal/ops"
)

// adminGrace is what answers under way on the admin listener get at the end.
const adminGrace = time.Second

// processSettings are the flags that every long-running command has.
type processSettings struct {
	listen, admin, addrFile, name, logFormat, logLevel string
	allowRemote                                        bool
	tcp                                                bool // the listener is for a protocol that is not known here
}

func processFlags() []cli.Flag {
	return []cli.Flag{
		text("name", "", "Name of this process in gossip, logs and status; the host name and the port when empty."),
		text("admin-listen", "127.0.0.1:0", "host:port for /metrics, /livez, /readyz and /status; port 0 takes a free one, empty means none."),
		text("addr-file", "", "File to write the bound addresses to, as name=host:port lines, once all are bound."),
		yes("allow-remote", false, "Let listeners be on addresses that other machines can reach; without TLS and a gossip key everything crosses the network in the clear."),
		text("log-format", "text", "Format of the log on standard error: text or json."),
		text("log-level", "info", "Least level that is logged: debug, info, warn or error."),
	}
}

func (v *values) process() processSettings {
	addr, tcp := listenScheme(v.text("listen"))
	v.check(ops.CheckListen("listen", addr, v.c.Bool("allow-remote")))
	return processSettings{
		listen: addr, tcp: tcp, admin: v.optionalListen("admin-listen"), addrFile: v.text("addr-file"), name: v.text("name"),
		logFormat: v.text("log-format"), logLevel: v.text("log-level"), allowRemote: v.c.Bool("allow-remote"),
	}
}

// process is what a long-running command stands on: its log, its listener, its metrics, and why it would not be ready.
type process struct {
	settings processSettings
	log      *slog.Logger
	metrics  *metrics.Set
	listener net.Listener
	more     ops.Addresses // of other listeners
	name     string
	bound    net.Listener // for admin, until that serves
	commands map[string]admin.Command
	admin    *admin.Server
	started  time.Time
	draining atomic.Bool
}

// open makes the log and binds the listener.
func (s processSettings) open(c *cli.Context) (*process, error) {
	log, err := ops.NewLogger(c.App.ErrWriter, s.logFormat, s.logLevel)
	if err != nil {
		return nil, err
	}
	l, err := ops.Listen(c.Context, "listen", s.listen)
	if err != nil {
		return nil, err
	}
	p := &process{settings: s, log: log, metrics: newMetrics(), listener: l, name: s.name, started: time.Now()}
	if p.name == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "localhost"
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		p.name = host + ":" + port
	}
	return p, nil
}

// bindAdmin takes the address of the admin listener, for those who must be told of it before it serves.
func (p *process) bindAdmin(ctx context.Context) (err error) {
	if p.settings.admin != "" && p.bound == nil {
		p.bound, err = ops.Listen(ctx, "admin-listen", p.settings.admin)
	}
	return err
}

// adminURL is where others find the admin listener, "" when they cannot. host is where they find the process: it stands in for a listener on every address of
// this machine, and one on loopback is for others only if that is loopback too.
func (p *process) adminURL(host string) string {
	if p.bound == nil {
		return ""
	}
	own, port, _ := net.SplitHostPort(p.bound.Addr().String())
	local := ops.Loopback(host)
	if !unspecified(own) {
		host = own
	}
	if host == "" || unspecified(host) || ops.Loopback(host) && !local {
		return ""
	}
	return "http://" + net.JoinHostPort(host, port)
}

// serveAdmin starts the admin listener, with the process's own part of the status added.
func (p *process) serveAdmin(ctx context.Context, status map[string]func() any) error {
	if p.settings.admin == "" {
		return nil
	}
	if err := p.bindAdmin(ctx); err != nil {
		return err
	}
	status["process"] = p.describe
	p.admin = admin.Serve(p.bound, admin.Config{
		Metrics: p.metrics, Ready: p.ready, Status: status, Commands: p.commands, AnyHost: p.settings.allowRemote, Logger: p.log,
	})
	return nil
}

// ready is about this process only: whoever asks wants to know whether to send clients here.
func (p *process) ready() error {
	if p.draining.Load() {
		return errDraining
	}
	return nil
}

var errDraining = fmt.Errorf("draining")

// announce tells the log and the address file where everything listens.
func (p *process) announce(what, gossip string) error {
	addrs := ops.Addresses{{Name: "listen", Addr: p.listener.Addr().String()}}
	attrs := []any{"listen", p.listener.Addr().String(), "name", p.name, "pid", os.Getpid(), "version", version()}
	for _, a := range p.more {
		addrs = append(addrs, a)
		attrs = append(attrs, a.Name, a.Addr)
	}
	if p.admin != nil {
		addrs = append(addrs, ops.Address{Name: "admin", Addr: p.admin.Addr().String()})
		attrs = append(attrs, "admin", p.admin.Addr().String())
	}
	if gossip != "" {
		addrs = append(addrs, ops.Address{Name: "gossip", Addr: gossip})
		attrs = append(attrs, "gossip", gossip)
	}
	p.log.Info(what+" is listening", attrs...)
	if p.settings.addrFile == "" {
		return nil
	}
	return ops.WriteAddrFile(p.settings.addrFile, addrs)
}

// closeAdmin ends the admin listener, last of all: until then it tells how the end goes.
func (p *process) closeAdmin() {
	if p.admin == nil {
		if p.bound != nil {
			p.bound.Close()
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), adminGrace)
	defer cancel()
	_ = p.admin.Shutdown(ctx)
}

// processStatus is the part of /status that every process has.
type processStatus struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid"`
	Version  string    `json:"version"`
	Go       string    `json:"go"`
	Started  time.Time `json:"started"`
	Draining bool      `json:"draining"`
}

func (p *process) describe() any {
	return processStatus{p.name, os.Getpid(), version(), runtime.Version(), p.started, p.draining.Load()}
}
