package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/proxy/certtest"
	"github.com/understudy-mq/understudy/routing"
	"github.com/understudy-mq/understudy/session/relay"
)

// peer listens on loopback and does the same with each connection; it is closed with the test.
func peer(t *testing.T, do func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			do(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// echo is a TLS server that answers one octet.
func echo(cfg *tls.Config) func(net.Conn) {
	return func(c net.Conn) {
		s := tls.Server(c, cfg)
		var b [1]byte
		if _, err := io.ReadFull(s, b[:]); err == nil {
			_, _ = s.Write(b[:])
			_, _ = s.Read(b[:])
		}
	}
}

func TestDialerTLS(t *testing.T) {
	ca, other := certtest.NewCA(t), certtest.NewCA(t)
	good := ca.Issue(t, time.Hour, "mq.example", "127.0.0.1").TLS(t)
	server := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
	trusting := func(pool *x509.CertPool) func(string) *tls.Config {
		return func(name string) *tls.Config { return &tls.Config{RootCAs: pool, ServerName: name} }
	}
	silent := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for _, tt := range []struct {
		name   string
		do     func(net.Conn)
		ep     routing.Endpoint
		config func(string) *tls.Config
		want   string // of the error; "" is none
	}{
		{"by address", echo(server(good)), routing.Endpoint{}, trusting(ca.Pool), ""},
		{"by the name of the SRV target", echo(server(ca.Issue(t, time.Hour, "b.mq.example").TLS(t))), routing.Endpoint{Name: "b.mq.example:61612"}, trusting(ca.Pool), ""},
		{"the SRV target and not its address", echo(server(ca.Issue(t, time.Hour, "127.0.0.1").TLS(t))), routing.Endpoint{Name: "b.mq.example:61612"}, trusting(ca.Pool), "somebody else"},
		{"by the name that was asked for", echo(server(good)), routing.Endpoint{Name: "else:1", ServerName: "mq.example"}, trusting(ca.Pool), ""},
		{"another name", echo(server(good)), routing.Endpoint{ServerName: "evil.example"}, trusting(ca.Pool), "somebody else"},
		{"another CA", echo(server(other.Issue(t, time.Hour, "127.0.0.1").TLS(t))), routing.Endpoint{}, trusting(ca.Pool), "not trusted here"},
		{"expired", echo(server(ca.Issue(t, -time.Minute, "127.0.0.1").TLS(t))), routing.Endpoint{}, trusting(ca.Pool), "renew"},
		{"no TLS", func(c net.Conn) { _, _ = io.WriteString(c, "ERROR\nmessage:no\n\n\x00") }, routing.Endpoint{}, trusting(ca.Pool), "does not speak TLS"},
		{"too old a TLS", echo(&tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}), routing.Endpoint{}, trusting(ca.Pool), "refuses"},
		{"no word", silent, routing.Endpoint{}, trusting(ca.Pool), "no answer in time"},
		{"hangs up", func(net.Conn) {}, routing.Endpoint{}, trusting(ca.Pool), "TLS handshake: "},
		{"nothing known", silent, routing.Endpoint{}, nil, "certificates"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.ep.Target, tt.ep.TLS = health.Target(peer(t, tt.do)), true
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			conn, err := (&Dialer{TLS: tt.config}).Connect(ctx, tt.ep)
			if tt.want != "" {
				var failed *TLSError
				if !errors.As(err, &failed) || code(err) != codeTLS || !strings.Contains(err.Error(), tt.want) || conn != nil {
					t.Fatalf("%v, %v; want %q", conn, err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			var b [1]byte
			if _, err := conn.Write([]byte{7}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, b[:]); err != nil || b[0] != 7 {
				t.Fatal(b, err)
			}
		})
	}
}

// A refused connect is no failure of TLS, and TLS is not spoken where it is not asked for.
func TestDialerPlain(t *testing.T) {
	gone := peer(t, func(net.Conn) {})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := l.Addr().String()
	l.Close()
	d := &Dialer{TLS: func(string) *tls.Config { t.Error("asked for TLS"); return nil }}
	if _, err := d.Connect(t.Context(), routing.Endpoint{Target: health.Target(refused), TLS: true}); code(err) == codeTLS || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
	conn, err := d.Connect(t.Context(), routing.Endpoint{Target: health.Target(gone)})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// What fails a handshake reaches health as such, in the words that help; a broker that takes TCP and says nothing costs no more than the bound on a connect.
func TestHandshakeIsEvidence(t *testing.T) {
	ca := certtest.NewCA(t)
	stranger := certtest.NewCA(t).Issue(t, time.Hour, "127.0.0.1").TLS(t)
	for name, tt := range map[string]struct {
		do   func(net.Conn)
		want string
	}{
		"certificate": {echo(&tls.Config{Certificates: []tls.Certificate{stranger}}), "not trusted here"},
		"silence":     {func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "no answer in time"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &Dialer{TLS: func(name string) *tls.Config { return &tls.Config{RootCAs: ca.Pool, ServerName: name} }}
			w := newWorld(t, func(c *Config) { c.Dial = d.Connect })
			w.table.Set("static", []routing.Endpoint{{Target: health.Target(peer(t, tt.do)), TLS: true, Weight: 1, ConnectTimeout: 100 * time.Millisecond}})
			ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
			defer cancel()
			if conn, err := w.link(nil).dial(ctx, relay.Try{}); err == nil {
				conn.Close()
				t.Fatal("connected")
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(w.evidence) == 0 || w.evidence[0].Kind != health.TLSFailed || !strings.Contains(w.evidence[0].Detail, tt.want) {
				t.Fatalf("%+v", w.evidence)
			}
		})
	}
}
