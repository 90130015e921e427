package ops

import (
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/proxy/certtest"
)

func TestTLSFilesErrors(t *testing.T) {
	dir, ca := t.TempDir(), certtest.NewCA(t)
	caFile := ca.File(t, dir)
	cert, key := ca.Issue(t, time.Hour, "a").Files(t, dir)
	empty, large := filepath.Join(dir, "empty"), filepath.Join(dir, "large")
	for path, size := range map[string]int64{empty: 0, large: MaxPEM + 1} {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for name, tt := range map[string]struct {
		files TLSFiles
		want  string
	}{
		"none":                   {TLSFiles{}, ""},
		"all":                    {TLSFiles{CA: caFile, Cert: cert, Key: key}, ""},
		"no such CA":             {TLSFiles{CA: filepath.Join(dir, "none")}, "--broker-ca"},
		"not a certificate":      {TLSFiles{CA: empty}, "no certificate in PEM form"},
		"too large":              {TLSFiles{CA: large}, "the most is"},
		"a key without its own":  {TLSFiles{Key: key}, "belong together"},
		"a certificate likewise": {TLSFiles{Cert: cert}, "belong together"},
		"a key that is none":     {TLSFiles{Cert: cert, Key: caFile}, "--broker-key"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.files.Flags = "broker"
			err := tt.files.Check()
			if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || !IsUsage(err) || strings.Contains(err.Error(), "PRIVATE")) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// handshake is one over loopback; in memory both sides could wait for the other to read an alert.
func handshake(t *testing.T, client, server *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = near.SetDeadline(time.Now().Add(5 * time.Second))
	_ = far.SetDeadline(time.Now().Add(5 * time.Second))
	served := make(chan error, 1)
	go func() {
		s := tls.Server(far, server)
		err := s.HandshakeContext(t.Context())
		if err == nil {
			_, err = s.Write([]byte{1})
		}
		served <- err
		far.Close()
	}()
	c := tls.Client(near, client)
	if err = c.HandshakeContext(t.Context()); err == nil {
		_, err = c.Read(make([]byte, 1)) // the server's opinion of our certificate comes after the handshake
	}
	near.Close()
	<-served
	return c.ConnectionState(), err
}

// What is in the files counts from the next handshake on; half of a change, and nonsense, change nothing and are said.
func TestTLSFilesReload(t *testing.T) {
	dir, ca := t.TempDir(), certtest.NewCA(t)
	cert, key := ca.Issue(t, time.Hour, "a").Files(t, dir)
	log := new(strings.Builder)
	s, err := OpenTLS(TLSFiles{Flags: "listen", CA: ca.File(t, dir), Cert: cert, Key: key}, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	serial := func(client *tls.Config) string {
		t.Helper()
		state, err := handshake(t, client, s.Server())
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].SerialNumber.String()
	}
	ours := func() *tls.Config { return s.Client("a") } // shows the same certificate that it is shown
	first := serial(ours())
	if _, err := handshake(t, &tls.Config{RootCAs: ca.Pool, ServerName: "a"}, s.Server()); err == nil {
		t.Error("a client without a certificate was let in")
	}
	stranger := certtest.NewCA(t).Issue(t, time.Hour, "a").TLS(t)
	if _, err := handshake(t, &tls.Config{RootCAs: ca.Pool, ServerName: "a", Certificates: []tls.Certificate{stranger}}, s.Server()); err == nil {
		t.Error("a client with a certificate from elsewhere was let in")
	}
	if _, err := handshake(t, s.Client("b"), s.Server()); err == nil {
		t.Error("a certificate for a passes as b's")
	}

	next := ca.Issue(t, 2*time.Hour, "a")
	if err := os.WriteFile(cert, next.Cert, 0o600); err != nil { // as a renewal that is under way
		t.Fatal(err)
	}
	if err := s.Reload(); err == nil || serial(ours()) != first || !strings.Contains(log.String(), "the ones before stay in use") {
		t.Errorf("half of a change: %v\n%s", err, log)
	}
	if before := strings.Count(log.String(), "\n"); s.Reload() == nil || strings.Count(log.String(), "\n") != before {
		t.Error("the same error is said twice")
	}
	next.Files(t, dir)
	s.mu.Lock()
	s.checked = time.Now().Add(-checkFiles)
	s.mu.Unlock()
	if second := serial(ours()); second == first || time.Until(s.Expiry()) < 90*time.Minute {
		t.Error("a file that has changed was not read")
	}
	pinned, err := OpenTLS(TLSFiles{Flags: "broker", CA: s.files.CA, Cert: cert, Key: key, ServerName: "a"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := handshake(t, pinned.Client("whoever"), s.Server()); err != nil {
		t.Error(err)
	}
	trusting := TLSFiles{Flags: "broker", Insecure: true, Cert: cert, Key: key}
	if pinned, err = OpenTLS(trusting, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if _, err := handshake(t, pinned.Client("b"), s.Server()); err != nil {
		t.Error(err)
	}
}
