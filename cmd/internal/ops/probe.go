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

// Limits of a probe's answer: it is a few header lines, or an ERROR with a short text.
const (
	probeBuffer = 16 << 10
	probeDetail = 200
)

// Prober asks brokers what they are by a STOMP handshake: TCP alone proves nothing, for the kernel of a frozen broker accepts too.
type Prober struct {
	// Dial makes a connection; nil means a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Probe asks one broker. It ends with ctx at the latest, and leaves no session behind.
func (p *Prober) Probe(ctx context.Context, t health.Target) health.Evidence {
	dial := p.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, "tcp", string(t))
	if err != nil {
		return health.Evidence{Kind: health.DialFailed, Detail: clip(rootCause(err).Error())}
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })() // unblocks what is reading or writing
	e, err := ask(conn, string(t))
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("no answer: %w", cause)
		}
		return health.Evidence{Kind: health.ProbeFailed, Detail: clip(err.Error())}
	}
	return e
}

// ask makes the conversation: CONNECT, one answer, DISCONNECT.
func ask(conn net.Conn, host string) (health.Evidence, error) {
	request := append([]byte(nil), "CONNECT\naccept-version:1.2\nheart-beat:0,0\n"...)
	request = frame.AppendHeader(request, "host", host) // CONNECT is exempt from escaping
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
	buf := make([]byte, 0, probeBuffer)
	for {
		n, err := conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
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
		case len(buf) == cap(buf):
			return nil, errors.New("answer is too long")
		}
	}
}

// connected reads the answer of a broker that serves. One that is not paired names no store.
func connected(f *frame.Frame) health.Evidence {
	e := health.Evidence{Kind: health.ProbeActive, Store: string(f.Value(frame.HeaderStore))}
	if v, ok := f.Get(frame.HeaderEpoch); ok {
		if e.Epoch, ok = frame.ParseUint(v); !ok {
			return health.Evidence{Kind: health.ProbeFailed, Detail: "answered with an epoch that is no number"}
		}
	}
	return e
}

// refused reads an ERROR. One without a code of ours comes from a broker that is well and does not let strangers in: it serves.
func refused(f *frame.Frame) health.Evidence {
	text := clip(string(f.Value("message")))
	switch code := string(f.Value(frame.HeaderError)); code {
	case "":
		return health.Evidence{Kind: health.ProbeActive, Detail: "answered ERROR: " + text}
	case frame.CodeStandby:
		return health.Evidence{Kind: health.ProbeStandby, Detail: text}
	default:
		return health.Evidence{Kind: health.ProbeFailed, Detail: code + ": " + text}
	}
}

func clip(s string) string {
	if len(s) > probeDetail {
		return s[:probeDetail] + "…"
	}
	return s
}
