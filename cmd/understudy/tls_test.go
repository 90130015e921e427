package main

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/proxy/certtest"
)

// terminate takes TLS connections and passes their octets on to addr, as a broker's TLS port or a terminator in front of it does.
func terminate(t *testing.T, cfg *tls.Config, addr string) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	var joined sync.WaitGroup
	joined.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			joined.Go(func() {
				defer in.Close()
				_ = in.SetDeadline(time.Now().Add(20 * time.Second))
				out, err := net.Dial("tcp", addr)
				if err != nil {
					return
				}
				defer out.Close()
				joined.Go(func() { _, _ = io.Copy(out, in); out.Close() })
				_, _ = io.Copy(in, out)
			})
		}
	})
	t.Cleanup(func() { l.Close(); joined.Wait() })
	return l.Addr().String()
}

const hello = "CONNECT\naccept-version:1.2\nhost:x\n\n\x00"

// A sidecar speaks TLS to its broker, shows its certificate, and believes only the CA that it was told of; probes do likewise.
func TestSidecarSpeaksTLSToBrokers(t *testing.T) {
	dir, ca := t.TempDir(), certtest.NewCA(t)
	cert, key := ca.Issue(t, time.Hour, "sidecar").Files(t, dir)
	b := start(t, "broker", "--store", t.TempDir(), "--listen", "127.0.0.1:0")
	front := terminate(t, &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, time.Hour, "127.0.0.1").TLS(t)}, ClientCAs: ca.Pool, ClientAuth: tls.RequireAndVerifyClientCert}, b.addrs["listen"])
	s := start(t, "sidecar", "--listen", "127.0.0.1:0", "--broker", "stomp+ssl://"+front, "--broker-ca", ca.File(t, dir), "--broker-cert", cert, "--broker-key", key)
	const life = hello + "SEND\ndestination:/queue/q\nreceipt:1\n\nhello\x00DISCONNECT\nreceipt:2\n\n\x00"
	if answer := say(t, s.addrs["listen"], life); !strings.Contains(answer, "receipt-id:1\n") || !strings.Contains(answer, "receipt-id:2\n") {
		t.Errorf("through TLS: %q\n%s", answer, s.log)
	}
	if _, status := s.get(t, "/status"); !strings.Contains(status, `"state": "active"`) || !strings.Contains(status, `"tls": true`) {
		t.Errorf("the probe: %s", status)
	}
	s.stop(t)

	for name, tt := range map[string]struct {
		flags []string
		want  string
	}{
		"no CA":             {[]string{"--broker-cert", cert, "--broker-key", key}, "name the file with the certificate of its CA"},
		"no certificate":    {[]string{"--broker-ca", ca.File(t, dir)}, "certificate required"},
		"another name":      {[]string{"--broker-ca", ca.File(t, dir), "--broker-server-name", "mq.example"}, "somebody else"},
		"insecure is taken": {[]string{"--broker-insecure", "--broker-cert", cert, "--broker-key", key}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, append([]string{"sidecar", "--listen", "127.0.0.1:0", "--broker", "stomp+ssl://" + front, "--hold-timeout", "200ms"}, tt.flags...)...)
			answer := say(t, s.addrs["listen"], hello+"DISCONNECT\nreceipt:2\n\n\x00")
			_, status := s.get(t, "/status")
			if tt.want == "" {
				if !strings.Contains(answer, "CONNECTED") || !strings.Contains(s.log.String(), "not verified") {
					t.Errorf("%q\n%s", answer, s.log)
				}
				return
			}
			for deadline := time.Now().Add(10 * time.Second); !strings.Contains(status, "tls-failed ") && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
				_, status = s.get(t, "/status") // the client's own attempt may have ended with its time, before it had an answer
			}
			if !strings.Contains(answer, "ERROR\n") || !strings.Contains(status, "tls-failed ") || !strings.Contains(status, tt.want) {
				t.Errorf("client: %q\nstatus: %s", answer, status)
			}
		})
	}
}
