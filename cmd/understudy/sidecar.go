package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/understudy-mq/understudy/cmd/internal/ops"
	"github.com/understudy-mq/understudy/proxy"
	"github.com/understudy-mq/understudy/routing"
	"github.com/understudy-mq/understudy/session/stomp"
)

const sidecarDescription = `Stands between a STOMP client on this machine and its broker. Point the client at --listen; say where the brokers are by --broker,
--srv or --gossip-join, in any combination. When the broker dies the client's conversation goes on at the next one.`

func sidecarCommand() *cli.Command {
	own := []cli.Flag{
		text("listen", "127.0.0.1:61613", "host:port for STOMP clients, tcp://host:port for those of another protocol, whose octets are passed on; port 0 takes a free one."),
		texts("broker", "stomp://host:port of a broker, stomp+ssl:// for TLS; repeatable, ?priority=N&weight=N as in SRV records, store, connect-timeout, server-name."),
		texts("group", "Another listener with brokers of its own: NAME listen=host:port broker=URI…, and srv=, store=, mode=, gossip=true; in one value, repeatable."),
		text("mode", "resume", "What a client sees when its broker dies: resume is nothing, redirect is a close at once, and the next connect goes to the next broker."),
		yes("cut-when-down", true, "Close connections that are not recorded (redirect, tcp://) when their broker is marked down, though they look whole."),
		text("listen-cert", "", "PEM file with the certificate that is shown to clients, which then must speak TLS; read again when it changes."),
		text("listen-key", "", "PEM file with the private key of --listen-cert."),
		text("listen-ca", "", "PEM file with the CAs of which every client must show a certificate; none is asked for when empty."),
		texts("srv", "Name of SRV records with the brokers, such as _stomp._tcp.mq.example; repeatable, waited for while it does not resolve."),
		texts("dns-server", "host:port of a resolver for --srv; repeatable, the system's resolvers unless given."),
		yes("broker-tls", false, "Speak TLS to brokers that are found by --srv or gossip; those of --broker have it in their scheme."),
		text("broker-ca", "", "PEM file with the CAs that brokers' certificates must come from; the system's CAs when empty."),
		text("broker-cert", "", "PEM file with the certificate that is shown to brokers, what leads to its CA behind it; read again when it changes."),
		text("broker-key", "", "PEM file with the private key of --broker-cert."),
		text("broker-server-name", "", "Name that every broker's certificate must be for; the host of --broker, or the target of the SRV record, when empty."),
		yes("broker-insecure", false, "Take any certificate of a broker: whoever can get in between can read and change everything, passwords included; for tests."),
		text("credentials", "", "JSON file with logins for brokers, instead of the clients' own: a list of broker (host:port, * for any), login and passcode."),
		text("store", "", "UUID or name of the store that clients want, or spread to share them over all stores; must be said where brokers know several."),
		duration("hold-timeout", 20*time.Second, "How old a client's oldest unanswered request may grow while there is no broker, before the client hears ERROR."),
		duration("hold-idle", 5*time.Minute, "How long a client without an unanswered request is held while there is no broker."),
		octets("window", 4<<20, "Unconfirmed frames kept of one client, outside transactions, before it is no longer read."),
		octets("max-transaction", 16<<20, "Frames kept of one transaction; a larger one cannot be played again."),
		duration("broker-heart-beat", time.Second, "Heart-beat asked of brokers; one that is silent for two and a half of them is left."),
		duration("broker-timeout", 0, "How long a broker's machine may acknowledge nothing that it is sent before the connection is left; 0 means three --broker-heart-beat."),
		duration("client-timeout", proxy.DefaultClientTimeout, "How long a client's machine may acknowledge nothing that it is sent before the client counts as gone."),
		text("in-doubt", "", "What becomes of a SEND or COMMIT that broke off: lookup asks the broker, resend sends again, error tells the client; what the broker can best when empty."),
		text("replay", "tx", "How much is played to the next broker: none, session (login, subscriptions), sends (unconfirmed ones too), or tx (transactions too)."),
		text("auto-ack", "safe", "Who acknowledges for ack:auto clients: safe is the sidecar, once the client's kernel has the message; broker is the broker, as it sends."),
		octets("window-total", 256<<20, "Unconfirmed frames kept of all clients together before those who have some are no longer read; 0 is no bound."),
		duration("probe-interval", 2*time.Second, "Time between two probes of a broker that is well."),
		duration("drain-timeout", 25*time.Second, "How long clients get to end by themselves after SIGTERM."),
		number("max-connections", 20000, "Clients at once; one more is closed."),
		octets("max-frame", 16<<20, "Largest body of a client's frame."),
	}
	return &cli.Command{
		Name: "sidecar", Usage: "keep the clients of this machine connected while brokers come and go", Description: sidecarDescription,
		Flags: append(append(own, gossipFlags()...), processFlags()...), Action: runSidecar,
	}
}

type sidecarSettings struct {
	processSettings
	gossip         gossipSettings
	groups         []groupSettings // the first one's listener is the process's
	cut            bool
	listenFiles    ops.TLSFiles
	brokerTLS      bool // of brokers that are found
	brokerFiles    ops.TLSFiles
	credentials    string // file
	brokerTimeout  time.Duration
	clientTimeout  time.Duration
	windowTotal    int64
	dns            []string
	recorder       stomp.Config
	probeInterval  time.Duration
	drainTimeout   time.Duration
	maxConnections int
	maxFrame       int
}

func readSidecar(c *cli.Context) (sidecarSettings, error) {
	v := &values{c: c}
	s := sidecarSettings{
		processSettings: v.process(), gossip: v.gossip(), cut: c.Bool("cut-when-down"), dns: c.StringSlice("dns-server"),
		probeInterval: v.positive("probe-interval"), drainTimeout: v.positive("drain-timeout"), maxConnections: v.count("max-connections", 1),
		maxFrame: int(v.octets("max-frame", 1<<10)),
	}
	s.recorder = stomp.Config{
		Hold: v.positive("hold-timeout"), HoldIdle: v.positive("hold-idle"), Window: int(v.octets("window", 64<<10)),
		MaxTransaction: int(v.octets("max-transaction", 64<<10)), BrokerHeartBeat: v.positive("broker-heart-beat"),
	}
	s.recorder.Limits.Body = s.maxFrame
	s.recorder.InDoubt, s.recorder.Replay = choice(v, "in-doubt", stomp.ParseInDoubt), choice(v, "replay", stomp.ParseReplay)
	switch who := v.text("auto-ack"); who {
	case "safe":
	case "broker":
		s.recorder.BrokerAutoAck = true
	default:
		v.fail("auto-ack", who, "must be safe or broker")
	}
	s.brokerTimeout, s.clientTimeout = v.notNegative("broker-timeout"), v.positive("client-timeout")
	if s.brokerTimeout == 0 {
		s.brokerTimeout = 3 * s.recorder.BrokerHeartBeat
	}
	if s.windowTotal = v.octets("window-total", 0); s.windowTotal > 0 && s.windowTotal < int64(s.recorder.Window) {
		v.fail("window-total", strconv.FormatInt(s.windowTotal, 10), "is less than the --window of one client")
	}
	first := groupSettings{
		name: defaultGroup, listen: s.listen, tcp: s.tcp, redirect: v.mode("mode", v.text("mode")), gossip: s.gossip.listen != "", srv: c.StringSlice("srv"), store: v.wantedStore("store", v.text("store")),
	}
	for _, text := range c.StringSlice("group") {
		s.groups = append(s.groups, v.readGroup(text))
	}
	if first.gossip && slices.ContainsFunc(s.groups, func(g groupSettings) bool { return g.gossip }) && len(c.StringSlice("broker"))+len(first.srv) == 0 {
		first.gossip = false // it is said whose brokers are gossiped
	}
	v.brokers("broker", &first, c.StringSlice("broker"))
	if first.sources() || len(s.groups) == 0 || c.IsSet("listen") {
		s.groups = slices.Insert(s.groups, 0, first)
	}
	s.checkGroups(v)
	s.tls(v)
	if s.credentials = v.text("credentials"); v.err == nil {
		_, err := ops.OpenCredentials(s.credentials, slog.New(slog.DiscardHandler))
		v.check(err)
	}
	for _, addr := range s.dns {
		if !plausibleServer(addr) {
			v.fail("dns-server", addr, "must be ip:port of a resolver; the port is 53 if absent")
		}
	}
	if first.name == s.groups[0].name && !first.sources() && v.err == nil {
		v.err = &ops.UsageError{Hint: "no broker is configured: give --broker stomp://host:port, --srv _stomp._tcp.domain, or --gossip-join host:port"}
	}
	return s, v.err
}

// tls reads what concerns TLS.
func (s *sidecarSettings) tls(v *values) {
	s.brokerTLS = v.c.Bool("broker-tls")
	s.brokerFiles = ops.TLSFiles{
		Flags: "broker", CA: v.text("broker-ca"), Cert: v.text("broker-cert"), Key: v.text("broker-key"), ServerName: v.text("broker-server-name"),
		Insecure: v.c.Bool("broker-insecure"),
	}
	named, found := false, false
	for _, g := range s.groups {
		named = named || slices.ContainsFunc(g.static, func(ep routing.Endpoint) bool { return ep.TLS })
		found = found || !g.tcp && (len(g.srv) > 0 || g.gossip)
	}
	if named && found && !v.c.IsSet("broker-tls") {
		v.fail("broker-tls", "", "must be said, true or false: a --broker has stomp+ssl, and brokers found by --srv or gossip do not say what they speak")
	}
	if f := s.brokerFiles; !named && !s.brokerTLS && (f.CA != "" || f.Cert != "" || f.Key != "" || f.ServerName != "" || f.Insecure) {
		v.fail("broker-tls", "", "no broker would be spoken to over TLS, and other --broker-… flags want it: write --broker stomp+ssl://host:port, or add this flag")
	}
	s.listenFiles = ops.TLSFiles{Flags: "listen", CA: v.text("listen-ca"), Cert: v.text("listen-cert"), Key: v.text("listen-key")}
	if f := s.listenFiles; f.CA != "" && f.Cert == "" {
		v.fail("listen-ca", f.CA, "asks clients for certificates, which takes TLS: give --listen-cert and --listen-key")
	}
	if v.err == nil {
		v.check(s.brokerFiles.Check())
		v.check(s.listenFiles.Check())
	}
}

// checkGroups looks at all groups together.
func (s *sidecarSettings) checkGroups(v *values) {
	if len(s.groups) > maxGroups {
		v.fail("group", "", fmt.Sprintf("there are %d listeners, the most is %d", len(s.groups), maxGroups))
	}
	names, listens := map[string]bool{}, map[string]bool{}
	for _, g := range s.groups {
		_, port, _ := net.SplitHostPort(g.listen)
		if names[g.name] || listens[g.listen] && port != "0" {
			v.fail("group", g.name, "has the name or the listener of another group")
		}
		names[g.name], listens[g.listen] = true, true
		if g.gossip && s.gossip.listen == "" {
			v.fail("group", g.name, "has gossip=true, and gossip is off: give --gossip-listen or --gossip-join")
		}
	}
	s.listen = s.groups[0].listen
}

// choice is a flag with a few words as values.
func choice[T any](v *values, name string, parse func(string) (T, error)) T {
	chosen, err := parse(v.text(name))
	if err != nil {
		v.fail(name, "", err.Error())
	}
	return chosen
}

func runSidecar(c *cli.Context) error {
	s, err := readSidecar(c)
	if err != nil {
		return err
	}
	p, err := s.open(c)
	if err != nil {
		return err
	}
	orderly, now, stop := ops.Signals(c.Context)
	defer stop()
	return s.serve(p, orderly, now)
}

// serve runs the sidecar until orderly ends, drains it, but no longer than now.
func (s *sidecarSettings) serve(p *process, orderly, now context.Context) error {
	car, err := s.assemble(p)
	if err != nil {
		p.listener.Close()
		return err
	}
	defer car.close()
	defer ops.Hangups(car.reload)()
	if err := p.serveAdmin(orderly, car.status()); err != nil {
		p.listener.Close()
		return err
	}
	defer p.closeAdmin()
	if err := p.announce("sidecar", car.gossipAddr()); err != nil {
		p.listener.Close()
		return err
	}
	ended := car.serve()
	idle, stop := context.WithCancel(context.Background())
	var reclaims sync.WaitGroup
	reclaims.Go(func() { reclaim(idle) })
	defer func() { stop(); reclaims.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-orderly.Done():
	}
	p.draining.Store(true)
	p.log.Info("sidecar drains", "because", context.Cause(orderly), "sessions", car.sessions(), "at_most", s.drainTimeout)
	car.drains()
	ctx, cancel := context.WithTimeout(now, s.drainTimeout)
	defer cancel()
	if err := car.shutdown(ctx); err != nil {
		p.log.Warn("sessions were closed", "error", err)
	}
	for range car.groups {
		<-ended
	}
	if cause := context.Cause(now); errors.Is(cause, ops.ErrSecondSignal) {
		return cause
	}
	return nil
}

// plausibleName catches slips; whether the name exists only DNS knows, and it may come to exist later.
func plausibleName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for _, r := range name {
		if r <= ' ' || r == ':' || r == '/' || r == '@' || r > '~' {
			return false
		}
	}
	return true
}

func plausibleServer(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	return net.ParseIP(host) != nil
}
