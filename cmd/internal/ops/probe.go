package ops

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// Limits of a probe's answer: it is a few header lines, or an ERROR with a text, in which brokers written in Java put a whole stack trace.
const (
	probeFirst  = 2 << 10
	probeBuffer = 64 << 10
	probeDetail = 320
)

// Prober asks brokers what they are by a STOMP handshake: TCP alone proves nothing, for the kernel of a frozen broker accepts too.
type Prober struct {
	// Dial makes a connection that is ready for STOMP; nil means TCP. An error with a method Code() that says "tls" came after TCP was connected.
	Dial func(ctx context.Context, t health.Target) (net.Conn, error)
	// Credentials are what a broker is told; empty ones are left out, and the broker's refusal is an answer as well. nil means none.
	Credentials func(t health.Target) (login, passcode string)
}

// Probe asks one broker. It ends with ctx at the latest, and leaves no session behind.
func (p *Prober) Probe(ctx context.Context, t health.Target) health.Evidence {
	conn, failed := p.connect(ctx, t)
	if conn == nil {
		return failed
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })() // unblocks what is reading or writing
	e, err := p.ask(conn, t)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("no answer: %w", cause)
		}
		kind := health.ProbeFailed
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "remote error" {
			kind = health.TLSFailed // a broker that wants a client certificate says so only after the handshake [RFC 8446, 4.4.2.4]
		}
		return health.Evidence{Kind: kind, Detail: clip(err.Error())}
	}
	return e
}

// ProbeTCP asks no more than whether somebody takes connections: all there is to know of a protocol that is not known here.
func (p *Prober) ProbeTCP(ctx context.Context, t health.Target) health.Evidence {
	conn, failed := p.connect(ctx, t)
	if conn == nil {
		return failed
	}
	_ = conn.Close()
	return health.Evidence{Kind: health.ProbeActive, Detail: "takes connections"}
}

func (p *Prober) connect(ctx context.Context, t health.Target) (net.Conn, health.Evidence) {
	dial := p.Dial
	if dial == nil {
		dial = func(ctx context.Context, t health.Target) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", string(t))
		}
	}
	conn, err := dial(ctx, t)
	var coded interface{ Code() string }
	switch {
	case err == nil:
		return conn, health.Evidence{}
	case errors.As(err, &coded) && coded.Code() == "tls":
		return nil, health.Evidence{Kind: health.TLSFailed, Detail: clip(err.Error())}
	}
	return nil, health.Evidence{Kind: health.DialFailed, Detail: clip(rootCause(err).Error())}
}

// ask makes the conversation: CONNECT, one answer, DISCONNECT. The host is what RabbitMQ calls the virtual host that it always has; others do not
// care.
func (p *Prober) ask(conn net.Conn, t health.Target) (health.Evidence, error) {
	request := append([]byte(nil), "CONNECT\naccept-version:1.0,1.1,1.2\nheart-beat:0,0\nhost:/\n"...)
	if p.Credentials != nil {
		if login, passcode := p.Credentials(t); login != "" {
			request = frame.AppendHeader(request, "login", login) // CONNECT is exempt from escaping
			request = frame.AppendHeader(request, "passcode", passcode)
		}
	}
	request = frame.AppendHeader(request, frame.HeaderProbe, "1")
	if _, err := conn.Write(append(request, "\n\x00"...)); err != nil {
		return health.Evidence{}, err
	}
	f, err := readAnswer(conn)
	if err != nil {
		return health.Evidence{}, err
	}
	switch f.Command {
	case frame.Connected:
		_, _ = conn.Write([]byte("DISCONNECT\n\n\x00")) // to the paired broker it says nothing; another one then ends its session at once
		return connected(f), nil
	case frame.Error:
		return refused(f), nil
	}
	return health.Evidence{}, fmt.Errorf("answered %s to CONNECT", f.Command)
}

// readAnswer reads up to the first frame that is not an end-of-line.
func readAnswer(conn net.Conn) (*frame.Frame, error) {
	parser := frame.Parser{Limits: frame.Limits{Block: probeBuffer / 2, Body: probeBuffer / 2}, Version: frame.V12}
	var buf []byte
	for total := 0; ; {
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, max(probeFirst, 2*len(buf))), buf...)
		}
		n, err := conn.Read(buf[len(buf):cap(buf)])
		buf, total = buf[:len(buf)+n], total+n
		for len(buf) > 0 {
			f := new(frame.Frame)
			took, _, err := parser.Next(buf, f)
			if err != nil {
				return nil, err
			}
			if took == 0 {
				break
			}
			if f.Command != frame.EOL {
				return f, nil
			}
			buf = buf[took:]
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("connection ended before an answer: %w", err)
		case total >= probeBuffer:
			return nil, errors.New("answer is too long")
		}
	}
}

// connected reads the answer of a broker that serves. One that is not paired names no store.
func connected(f *frame.Frame) health.Evidence {
	return tell(f, health.Evidence{Kind: health.ProbeActive})
}

// refused reads an ERROR. One without a code of ours comes from a broker that is well and does not let strangers in: it serves.
func refused(f *frame.Frame) health.Evidence {
	text := clip(string(f.Value("message")))
	switch code := string(f.Value(frame.HeaderError)); code {
	case "":
		return health.Evidence{Kind: health.ProbeActive, Detail: "answered ERROR: " + text}
	case frame.CodeStandby:
		return tell(f, health.Evidence{Kind: health.ProbeStandby, Detail: text})
	default:
		return health.Evidence{Kind: health.ProbeFailed, Detail: code + ": " + text}
	}
}

// tell adds the stores that an answer names.
func tell(f *frame.Frame, e health.Evidence) health.Evidence {
	stores, ok := frame.ParseStores(f.Value(frame.HeaderStores))
	if !ok {
		return health.Evidence{Kind: health.ProbeFailed, Detail: "answered with a list of stores that cannot be read: " + clip(string(f.Value(frame.HeaderStores)))}
	}
	for _, s := range stores {
		e.Stores = append(e.Stores, health.Served{UUID: s.UUID, Name: s.Name, Epoch: s.Epoch})
	}
	return e
}

func clip(s string) string {
	if len(s) > probeDetail {
		return s[:probeDetail] + "…"
	}
	return s
}
