package demo

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"time"

	"github.com/go-stomp/stomp/v3/frame"
)

// link is a plain STOMP connection.
type link struct {
	conn net.Conn
	in   *frame.Reader
	out  *bufio.Writer
	enc  *frame.Writer
}

// dialLink logs in. The link breaks when ctx ends.
func dialLink(ctx context.Context, addr string) (*link, func(), error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	l := &link{conn: conn, in: frame.NewReaderSize(conn, backlogBuffer), out: bufio.NewWriterSize(conn, backlogBuffer)}
	l.enc = frame.NewWriter(l.out)
	end := func() { stop(); conn.Close() }
	_ = conn.SetDeadline(time.Now().Add(dialTimeout))
	if err := l.say(frame.New(frame.CONNECT, frame.AcceptVersion, "1.2", frame.Host, "demo", frame.HeartBeat, "0,0")); err != nil {
		end()
		return nil, nil, err
	}
	if _, err := l.hear(frame.CONNECTED); err != nil {
		end()
		return nil, nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return l, end, nil
}

func (l *link) say(f *frame.Frame) error {
	if err := l.enc.Write(f); err != nil {
		return err
	}
	return l.out.Flush()
}

// hear returns the next frame, which must be the one expected.
func (l *link) hear(command string) (*frame.Frame, error) {
	for {
		f, err := l.in.Read()
		switch {
		case err != nil:
			return nil, fmt.Errorf("wait for %s: %w", command, err)
		case f == nil: // a heart-beat
		case f.Command != command:
			return nil, fmt.Errorf("%s came instead of %s: %s", f.Command, command, f.Header.Get(frame.Message))
		default:
			return f, nil
		}
	}
}

// receipts hears so many of them, and ends at the first error.
func (l *link) receipts(n int, confirmed chan<- error) {
	defer close(confirmed)
	for range n {
		_, err := l.hear(frame.RECEIPT)
		confirmed <- err
		if err != nil {
			return
		}
	}
}
