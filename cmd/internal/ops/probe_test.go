package ops

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// answering is a Prober whose broker reads one frame and then answers; after that it reads on until the prober has gone. asked receives
// what it read in all.
func answering(answer string) (p *Prober, asked chan string) {
	asked = make(chan string, 1)
	return &Prober{Dial: func(context.Context, health.Target) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			r := bufio.NewReader(far)
			connect, _ := r.ReadString(0)
			go func() {
				_, _ = io.Copy(far, iotest.OneByteReader(strings.NewReader(answer)))
				if answer == "" {
					far.Close()
				}
			}()
			rest, _ := io.ReadAll(r)
			asked <- connect + string(rest)
		}()
		return near, nil
	}}, asked
}

func TestProbeAnswers(t *testing.T) {
	const store = "6f1d7e0e-5d3a-4c57-9b2e-0a4c8f3b9d10"
	for _, c := range []struct {
		name, answer string
		want         health.Evidence
		detail       string
	}{
		{"paired and active", "\n\r\nCONNECTED\nversion:1.2\nunderstudy-store:" + store + "\nunderstudy-epoch:7\n\n\x00\n",
			health.Evidence{Kind: health.ProbeActive, Store: store, Epoch: 7}, ""},
		{"another broker", "CONNECTED\nversion:1.2\nserver:ActiveMQ/5.17\n\n\x00\n", health.Evidence{Kind: health.ProbeActive}, ""},
		{"standby", "ERROR\nmessage:standby\nunderstudy-error:standby\n\nb owns the store\x00", health.Evidence{Kind: health.ProbeStandby}, "standby"},
		{"fenced", "ERROR\nmessage:gone\nunderstudy-error:fenced\n\n\x00", health.Evidence{Kind: health.ProbeFailed}, "fenced: gone"},
		{"refuses strangers", "ERROR\nmessage:Bad CONNECT\n\nAccess refused\x00", health.Evidence{Kind: health.ProbeActive}, "answered ERROR: Bad CONNECT"},
		{"bad epoch", "CONNECTED\nunderstudy-epoch:-1\n\n\x00", health.Evidence{Kind: health.ProbeFailed}, "no number"},
		{"another frame", "MESSAGE\n\n\x00", health.Evidence{Kind: health.ProbeFailed}, "answered MESSAGE"},
		{"not STOMP", "HTTP/1.1 400 Bad Request\r\n\r\n", health.Evidence{Kind: health.ProbeFailed}, "not STOMP"},
		{"too long", "CONNECTED\nx:" + strings.Repeat("x", 2*probeBuffer), health.Evidence{Kind: health.ProbeFailed}, "limit exceeded"},
		{"end-of-lines for ever", strings.Repeat("\n", 2*probeBuffer), health.Evidence{Kind: health.ProbeFailed}, ""},
		{"hangs up", "", health.Evidence{Kind: health.ProbeFailed}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, asked := answering(c.answer)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				got := p.Probe(ctx, "mq.example:61613")
				if got.Kind != c.want.Kind || got.Store != c.want.Store || got.Epoch != c.want.Epoch || !strings.Contains(got.Detail, c.detail) {
					t.Errorf("%+v, want %+v with %q", got, c.want, c.detail)
				}
				said := <-asked
				if !strings.HasPrefix(said, "CONNECT\naccept-version:1.0,1.1,1.2\n") || !strings.Contains(said, "\n"+frame.HeaderProbe+":1\n") ||
					!strings.Contains(said, "\nhost:/\n") || strings.Contains(said, "login") {
					t.Errorf("said %q", said)
				}
				if got.Kind == health.ProbeActive && got.Detail == "" && !strings.HasSuffix(said, "DISCONNECT\n\n\x00") {
					t.Errorf("left without a word: %q", said)
				}
			})
		})
	}
}

// A frozen broker: its kernel accepts, and nothing is ever said.
func TestProbeGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := &Prober{Dial: func(context.Context, health.Target) (net.Conn, error) {
			near, far := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, far); far.Close() }()
			return near, nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		got := silent.Probe(ctx, "mq.example:61613")
		if got.Kind != health.ProbeFailed || !strings.Contains(got.Detail, "no answer") || time.Since(start) != time.Second {
			t.Errorf("%+v after %v", got, time.Since(start))
		}
	})
}

func TestProbeRefusedDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	got := new(Prober).Probe(t.Context(), health.Target(addr))
	if got.Kind != health.DialFailed || !strings.Contains(got.Detail, "refused") {
		t.Errorf("%+v", got)
	}
}
