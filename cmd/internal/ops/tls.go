package ops

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// MaxPEM bounds a file with certificates, in octets.
const MaxPEM = 4 << 20

// checkFiles is how often, at most, handshakes look whether files have changed.
const checkFiles = time.Second

// TLSFiles are the PEM files of one side of TLS.
type TLSFiles struct {
	// Flags is what the flags that name the files begin with, for errors: --broker-ca is that of "broker".
	Flags string
	// CA, of one or more, whose certificates are trusted; "": towards a server those of the system, and of clients none is asked for.
	CA string
	// Cert is what we show, with what leads to its CA behind it; Key is its private key. Both or none.
	Cert, Key string
	// ServerName is whom every certificate of a server must be for; "": whoever was meant.
	ServerName string
	// Insecure takes any certificate of a server.
	Insecure bool
}

// Secrets hold what TLSFiles say. When a file changes they read all of them again; as long as that fails they stay what they were, and say so.
// Safe for concurrent use.
type Secrets struct {
	files TLSFiles
	log   *slog.Logger

	mu      sync.Mutex
	checked time.Time
	stamps  [3]stamp
	now     material
	flaw    string
}

type material struct {
	roots  *x509.CertPool
	shown  []tls.Certificate
	expiry time.Time
}

// stamp tells a file's versions apart.
type stamp struct {
	size int64
	at   time.Time
}

func stampOf(path string) (s stamp) {
	if info, err := os.Stat(path); err == nil {
		s = stamp{info.Size(), info.ModTime()}
	}
	return s
}

// OpenTLS reads the files. What is wrong with them is a UsageError.
func OpenTLS(files TLSFiles, log *slog.Logger) (*Secrets, error) {
	s := &Secrets{files: files, log: log}
	now, err := s.read()
	if err != nil {
		return nil, err
	}
	s.now, s.checked = now, time.Now()
	return s, nil
}

// Check reads the files without keeping what is in them.
func (f TLSFiles) Check() error {
	_, err := OpenTLS(f, slog.New(slog.DiscardHandler))
	return err
}

// Reload reads the files again, whether they have changed or not. After an error everything stays as it was.
func (s *Secrets) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reload()
}

func (s *Secrets) reload() error {
	s.checked = time.Now()
	now, err := s.read()
	if err != nil {
		if text := err.Error(); text != s.flaw {
			s.flaw = text
			s.log.Error("certificates cannot be read: the ones before stay in use", "error", err, "certificate", s.files.Cert, "valid_until", s.now.expiry)
		}
		return err
	}
	s.now, s.flaw = now, ""
	s.log.Info("certificates were read", "flags", "--"+s.files.Flags+"-…", "certificate", s.files.Cert, "valid_until", now.expiry)
	return nil
}

// latest is what handshakes use.
func (s *Secrets) latest() material {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.checked) >= checkFiles {
		s.checked = time.Now()
		if s.stamps != s.stamp() {
			_ = s.reload() // it was logged, and the next change is the next occasion
		}
	}
	return s.now
}

// Expiry is when the certificate that we show ends; zero if we show none.
func (s *Secrets) Expiry() time.Time { return s.latest().expiry }

func (s *Secrets) stamp() [3]stamp {
	return [3]stamp{stampOf(s.files.CA), stampOf(s.files.Cert), stampOf(s.files.Key)}
}

func (s *Secrets) read() (m material, err error) {
	f := s.files
	s.stamps = s.stamp() // before the content: what changes in between is a change
	if f.CA != "" {
		pem, err := f.pem("ca", f.CA)
		if err != nil {
			return m, err
		}
		if m.roots = x509.NewCertPool(); !m.roots.AppendCertsFromPEM(pem) {
			return m, &UsageError{f.Flags + "-ca", f.CA, "holds no certificate in PEM form"}
		}
	}
	switch {
	case f.Cert == "" && f.Key == "":
		return m, nil
	case f.Cert == "" || f.Key == "":
		return m, &UsageError{Hint: fmt.Sprintf("--%s-cert and --%s-key belong together", f.Flags, f.Flags)}
	}
	cert, err := f.pem("cert", f.Cert)
	if err != nil {
		return m, err
	}
	key, err := f.pem("key", f.Key)
	if err != nil {
		return m, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return m, &UsageError{f.Flags + "-cert", f.Cert, fmt.Sprintf("cannot be used with --%s-key %s: %v", f.Flags, f.Key, err)}
	}
	m.shown, m.expiry = []tls.Certificate{pair}, pair.Leaf.NotAfter
	return m, nil
}

func (f TLSFiles) pem(flag, path string) ([]byte, error) {
	text, err := ReadSmall(path, MaxPEM)
	if err != nil {
		return nil, &UsageError{f.Flags + "-" + flag, path, "cannot be read: " + err.Error()}
	}
	return text, nil
}

// ReadSmall reads a file that has no business to be larger than most octets.
func ReadSmall(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, pathless(err)
	case info.Size() > most:
		return nil, fmt.Errorf("it has %d octets, the most is %d", info.Size(), most)
	}
	text, err := os.ReadFile(path)
	return text, pathless(err)
}

// pathless drops what the message around it says already.
func pathless(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Client is for one handshake with a server whose certificate must be for name.
func (s *Secrets) Client(name string) *tls.Config {
	m := s.latest()
	if s.files.ServerName != "" {
		name = s.files.ServerName
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: m.roots, Certificates: m.shown, ServerName: name, InsecureSkipVerify: s.files.Insecure}
}

// Server is for a listener: each handshake uses what the files say then. With a CA, clients must show a certificate that it signed.
func (s *Secrets) Server() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		m := s.latest()
		cfg := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: m.shown}
		if m.roots != nil {
			cfg.ClientCAs, cfg.ClientAuth = m.roots, tls.RequireAndVerifyClientCert
		}
		return cfg, nil
	}}
}
