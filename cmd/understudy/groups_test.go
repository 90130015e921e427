package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/proxy/certtest"
)

// stands is a server on loopback that answers each connection with its name and then repeats what it hears, until it is told to stop.
func stands(t *testing.T, name string) (addr string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	conns := make(chan net.Conn, 1000)
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
			go func() {
				defer c.Close()
				fmt.Fprintln(c, name)
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	stop = func() {
		l.Close()
		<-done
		for len(conns) > 0 {
			(<-conns).Close()
		}
	}
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func hear(t *testing.T, addr string) (net.Conn, string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return c, strings.TrimSpace(line)
}

// Two sets of brokers, and a protocol that is not known, in one process: each listener leads to its own, before and after a broker is gone.
func TestGroups(t *testing.T) {
	orders := start(t, "broker", "--store", "orders="+t.TempDir(), "--listen", "127.0.0.1:0")
	billing := start(t, "broker", "--store", "billing="+t.TempDir(), "--listen", "127.0.0.1:0")
	first, stopFirst := stands(t, "first")
	second, _ := stands(t, "second")
	s := start(t, "sidecar", "--listen", "127.0.0.1:0", "--broker", "stomp://"+orders.addrs["listen"], "--probe-interval", "100ms", "--hold-timeout", "300ms",
		"--group", "billing listen=127.0.0.1:0 mode=redirect broker=stomp://"+billing.addrs["listen"],
		"--group", "raw listen=tcp://127.0.0.1:0 broker=tcp://"+first+"?priority=1 broker=tcp://"+second+"?priority=2")
	const life = hello + "SEND\ndestination:/queue/q\nreceipt:1\n\nhello\x00DISCONNECT\nreceipt:2\n\n\x00"
	if answer := say(t, s.addrs["listen"], life); !strings.Contains(answer, "receipt-id:2\n") {
		t.Errorf("default: %q", answer)
	}
	if answer := say(t, s.addrs["listen-billing"], life); !strings.Contains(answer, "receipt-id:2\n") {
		t.Errorf("billing: %q\n%s", answer, s.log)
	}
	for name, r := range map[string]*running{"orders": orders, "billing": billing} {
		if _, body := r.get(t, "/status"); !strings.Contains(body, `"messages": 1`) {
			t.Errorf("%s has not one message: %s", name, body)
		}
	}
	var c net.Conn
	for deadline, heard := time.Now().Add(5*time.Second), ""; heard != "first"; { // the second may be found active before the first
		if c, heard = hear(t, s.addrs["listen-raw"]); time.Now().After(deadline) {
			t.Fatal(heard)
		}
	}
	stopFirst()
	if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("%q, %v", rest, err)
	}
	if _, heard := hear(t, s.addrs["listen-raw"]); heard != "second" {
		t.Error(heard)
	}
	_, status := s.get(t, "/status")
	_, metrics := s.get(t, "/metrics")
	for _, want := range []string{`"group": "default"`, `"group": "billing"`, `"group": "raw"`} {
		if !strings.Contains(status, want) {
			t.Errorf("no %s in %s", want, status)
		}
	}
	for _, want := range []string{`understudy_sidecar_client_connections{listener="stomp",group="default"}`, `understudy_sidecar_client_connections{listener="raw",group="raw"}`,
		`understudy_health_targets{group="billing",state="active"} 1`, `understudy_discovery_candidates{group="raw",source="static"} 2`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s", want)
		}
	}
	// The brokers of the others are no use to a group that has lost its own.
	billing.stop(t)
	c, err := net.Dial("tcp", s.addrs["listen-billing"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, hello)
	if answer, err := io.ReadAll(c); len(answer) > 0 || os.IsTimeout(err) {
		t.Errorf("billing without its broker: %q %v", answer, err)
	}
	orders.stop(t)
	if answer := say(t, s.addrs["listen"], hello); !strings.Contains(answer, "ERROR\n") {
		t.Errorf("default without its broker: %q", answer)
	}
	s.stop(t)
}

// Clients speak TLS, show certificates, and get a renewed one without a restart.
func TestClientsSpeakTLS(t *testing.T) {
	dir, ca := t.TempDir(), certtest.NewCA(t)
	cert, key := ca.Issue(t, time.Hour, "127.0.0.1").Files(t, dir)
	b := start(t, "broker", "--store", t.TempDir(), "--listen", "127.0.0.1:0")
	s := start(t, "sidecar", "--listen", "127.0.0.1:0", "--broker", "stomp://"+b.addrs["listen"], "--listen-cert", cert, "--listen-key", key, "--listen-ca", ca.File(t, dir))
	mine := ca.Issue(t, time.Hour, "client").TLS(t)
	talk := func(certs ...tls.Certificate) (*x509.Certificate, string, error) {
		c, err := tls.Dial("tcp", s.addrs["listen"], &tls.Config{RootCAs: ca.Pool, Certificates: certs})
		if err != nil {
			return nil, "", err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c, hello+"SEND\ndestination:/queue/q\nreceipt:1\n\nhello\x00DISCONNECT\nreceipt:2\n\n\x00"); err != nil {
			return nil, "", err
		}
		answer, err := io.ReadAll(c)
		return c.ConnectionState().PeerCertificates[0], string(answer), err
	}
	first, answer, err := talk(mine)
	if err != nil || !strings.Contains(answer, "receipt-id:1\n") || !strings.Contains(answer, "receipt-id:2\n") {
		t.Fatalf("%q, %v\n%s", answer, err, s.log)
	}
	if _, answer, err := talk(); err == nil {
		t.Errorf("a client without a certificate hears %q", answer)
	}
	plain, err := net.Dial("tcp", s.addrs["listen"])
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	_ = plain.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(plain, hello)
	if answer, _ := io.ReadAll(plain); strings.Contains(string(answer), "CONNECTED") {
		t.Error("a client without TLS was let in")
	}

	if err := os.WriteFile(key, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	hangUp := func(text string) {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); !strings.Contains(s.log.String(), text); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("does not say %q:\n%s", text, s.log)
			}
		}
	}
	hangUp("the ones before stay in use")
	if still, answer, err := talk(mine); err != nil || still.SerialNumber.Cmp(first.SerialNumber) != 0 || !strings.Contains(answer, "receipt-id:2\n") {
		t.Errorf("after a change that cannot be used: %q, %v", answer, err)
	}
	ca.Issue(t, 2*time.Hour, "127.0.0.1").Files(t, dir)
	hangUp("\"certificates were read\" flags=--listen-") // those that are shown to brokers, which are none, were read before, too
	if next, _, err := talk(mine); err != nil || next.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Errorf("the renewed certificate is not shown: %v", err)
	}
	if _, metrics := s.get(t, "/metrics"); !strings.Contains(metrics, `understudy_tls_certificate_expiry_timestamp_seconds{side="client"}`) ||
		!strings.Contains(metrics, `understudy_sidecar_client_refused_total{listener="stomp",reason="tls"} 2`) {
		t.Error("figures are missing")
	}
	s.stop(t)
}
