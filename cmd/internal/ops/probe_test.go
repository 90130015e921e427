package ops

import (
	"bufio"
	"context"
	"io"
	"net"
	"slices"
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
		{"paired and active", "\n\r\nCONNECTED\nversion:1.2\nunderstudy-stores:" + store + ";7;orders,u-2;0;\n\n\x00\n",
			health.Evidence{Kind: health.ProbeActive, Stores: []health.Served{{UUID: store, Name: "orders", Epoch: 7}, {UUID: "u-2"}}}, ""},
		{"another broker", "CONNECTED\nversion:1.2\nserver:ActiveMQ/5.17\n\n\x00\n", health.Evidence{Kind: health.ProbeActive}, ""},
		{"standby", "ERROR\nmessage:standby\nunderstudy-error:standby\nunderstudy-stores:u-2;0;bills\n\nb owns the store\x00",
			health.Evidence{Kind: health.ProbeStandby, Stores: []health.Served{{UUID: "u-2", Name: "bills"}}}, "standby"},
		{"standby for nothing", "ERROR\nmessage:standby\nunderstudy-error:standby\n\n\x00", health.Evidence{Kind: health.ProbeStandby}, "standby"},
		{"fenced", "ERROR\nmessage:gone\nunderstudy-error:fenced\n\n\x00", health.Evidence{Kind: health.ProbeFailed}, "fenced: gone"},
		{"refuses strangers", "ERROR\nmessage:Bad CONNECT\n\nAccess refused\x00", health.Evidence{Kind: health.ProbeActive}, "answered ERROR: Bad CONNECT"},
		{"bad epoch", "CONNECTED\nunderstudy-stores:u;-1;\n\n\x00", health.Evidence{Kind: health.ProbeFailed}, "cannot be read: u;-1;"},
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
				if got.Kind != c.want.Kind || !slices.Equal(got.Stores, c.want.Stores) || !strings.Contains(got.Detail, c.detail) {
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

// What brokers answer that nobody here wrote. Whatever they refuse, they are there and serve somebody.
func TestProbeForeignBrokers(t *testing.T) {
	trace := strings.Repeat("\tat org.apache.activemq.broker.BrokerFilter.addConnection(BrokerFilter.java:99)\n", 150)
	for _, c := range []struct{ name, answer, detail string }{
		{"RabbitMQ", "CONNECTED\nserver:RabbitMQ/3.10.8\nsession:session-x\nheart-beat:0,0\nversion:1.2\n\n\x00", ""},
		{"RabbitMQ with another login", "ERROR\nmessage:Bad CONNECT\ncontent-type:text/plain\nversion:1.0,1.1,1.2\ncontent-length:31\n\nAccess refused for user 'guest'\x00\n", "Bad CONNECT"},
		{"RabbitMQ without the virtual host", "ERROR\nmessage:Bad CONNECT\ncontent-type:text/plain\nversion:1.0,1.1,1.2\ncontent-length:32\n\nVirtual host '/' access denied!!\x00", "Bad CONNECT"},
		{"ActiveMQ", "CONNECTED\nserver:ActiveMQ/5.17.2\nheart-beat:0,0\nsession:ID:h-1-2\nversion:1.2\n\n\x00\n", ""},
		{"ActiveMQ with another login", "ERROR\ncontent-type:text/plain\nmessage:User name [null] or password is invalid.\n\njava.lang.SecurityException: User name [null] or password is invalid.\n" + trace + "\x00\n",
			"password is invalid"},
		{"Artemis", "CONNECTED\nversion:1.2\nsession:123\nserver:ActiveMQ-Artemis/2.31.2 ActiveMQ Artemis Messaging Engine\nheart-beat:0,0\n\n\x00\n", ""},
		{"Artemis with another login", "ERROR\nversion:1.2\nmessage:Security Error occurred: User name [null] or password is invalid\ncontent-type:text/plain\n\nx\x00\n", "password is invalid"},
		{"one of long ago", "CONNECTED\nsession:1\n\n\x00", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, asked := answering(c.answer)
				p.Credentials = func(to health.Target) (string, string) { return "probe@" + string(to), "s:e,c" }
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				got := p.Probe(ctx, "mq.example:61613")
				if got.Kind != health.ProbeActive || got.Stores != nil || !strings.Contains(got.Detail, c.detail) || (c.detail == "") != (got.Detail == "") {
					t.Errorf("%+v, want active with %q", got, c.detail)
				}
				if said := <-asked; !strings.Contains(said, "\nlogin:probe@mq.example:61613\npasscode:s:e,c\n") || strings.Contains(got.Detail, "s:e,c") {
					t.Errorf("said %q, and then %+v", said, got)
				}
			})
		})
	}
}

// A slave on shared storage opens no port: it is down until it is the master, and then active at the first answer.
func TestProbeTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := health.Target(l.Addr().String())
	if got := new(Prober).ProbeTCP(t.Context(), target); got.Kind != health.ProbeActive {
		t.Errorf("%+v", got)
	}
	l.Close()
	if got := new(Prober).ProbeTCP(t.Context(), target); got.Kind != health.DialFailed || !strings.Contains(got.Detail, "refused") {
		t.Errorf("%+v", got)
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
