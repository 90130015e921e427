package main

import (
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/routing/discover"
)

// openProcess gives p a listener on a free port and a silent log.
func openProcess(t *testing.T, p *process) *process {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p.listener, p.log, p.name = l, slog.New(slog.DiscardHandler), "test:"+l.Addr().String()
	return p
}

func sidecarForMetrics(t *testing.T) *sidecarSettings {
	t.Helper()
	static, err := discover.ParseStatic([]string{"stomp://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	return &sidecarSettings{groups: []groupSettings{{name: defaultGroup, static: static}}, probeInterval: time.Second, drainTimeout: time.Second, maxConnections: 10, maxFrame: 1 << 20}
}
