package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/understudy-mq/understudy/routing"
)

// Dialer makes connections to brokers: TCP, and TLS in it where the endpoint says so. The zero value has no TLS. Safe for concurrent use.
type Dialer struct {
	// KeepAlive of the connections. The zero value: on, first probe after 15 s of silence, then every 5 s, 3 of them.
	KeepAlive net.KeepAliveConfig
	// TLS makes the configuration for one handshake with a broker whose certificate must be for name. Calls are concurrent. nil: brokers that want
	// TLS cannot be reached.
	TLS func(name string) *tls.Config
	// Dial makes a TCP connection; nil means a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Connect reaches a broker. The connection is ready for its protocol: a handshake is done, and its certificate was found good. An error of that is
// a *TLSError.
func (d *Dialer) Connect(ctx context.Context, ep routing.Endpoint) (net.Conn, error) {
	dial := d.Dial
	if dial == nil {
		dial = (&net.Dialer{KeepAliveConfig: keepAlive(d.KeepAlive)}).DialContext
	}
	if ep.TLS && d.TLS == nil {
		return nil, &TLSError{errors.New("nothing is known of certificates here")}
	}
	conn, err := dial(ctx, "tcp", string(ep.Target))
	if err != nil || !ep.TLS {
		return conn, err
	}
	name := ep.ServerName
	if name == "" {
		name = ep.Host()
	}
	secured := tls.Client(conn, d.TLS(name))
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer in time: %w", context.Cause(ctx))
		}
		return nil, &TLSError{err}
	}
	return secured, nil
}

func keepAlive(k net.KeepAliveConfig) net.KeepAliveConfig {
	if k == (net.KeepAliveConfig{}) {
		return net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}
	}
	return k
}

// TLSError is a broker that took the connection and could not be brought to TLS.
type TLSError struct{ Err error }

// Error implements error; it says what to do where that is known.
func (e *TLSError) Error() string {
	text := "TLS handshake: " + e.Err.Error()
	if hint := e.Hint(); hint != "" {
		text += " (" + hint + ")"
	}
	return text
}

// Unwrap returns what crypto/tls says.
func (e *TLSError) Unwrap() error { return e.Err }

// Code makes it known to whoever does not know the type.
func (e *TLSError) Code() string { return codeTLS }

// Hint is what an operator may do about it; "" if that is not known.
func (e *TLSError) Hint() string {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		alert     *net.OpError
	)
	switch {
	case errors.As(e.Err, &authority):
		return "who signed its certificate is not trusted here: name the file with the certificate of its CA"
	case errors.As(e.Err, &name):
		return "it shows a certificate for somebody else: name the broker as the certificate does, or say which server name to expect"
	case errors.As(e.Err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the certificate, or set the clock"
	case errors.As(e.Err, &record):
		return "what answers there does not speak TLS: use the port that does, or the scheme without ssl"
	case errors.As(e.Err, &alert) && alert.Op == "remote error":
		return "the broker refuses: it may want a client certificate, or another TLS version"
	}
	return ""
}
