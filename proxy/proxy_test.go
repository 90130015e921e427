package proxy

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/relay"
)

func TestNewRefusesWhatCannotWork(t *testing.T) {
	w := newWorld(t, nil)
	whole := w.proxy.cfg
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no listener", func(c *Config) { c.Listener = nil }, "required"},
		{"no health", func(c *Config) { c.Health = nil }, "required"},
		{"negative", func(c *Config) { c.MaxConnections = -1 }, "negative"},
		{"reachable from outside", func(c *Config) { c.Listener = &pipeListener{addr: &net.TCPAddr{IP: net.IPv4zero, Port: 1}} }, "loopback"},
		{"an address of the network", func(c *Config) { c.Listener = &pipeListener{addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}} }, "192.0.2.1:1"},
		{"remote on purpose", func(c *Config) {
			c.AllowRemote, c.Listener = true, &pipeListener{addr: &net.TCPAddr{IP: net.IPv4zero, Port: 1}}
		}, ""},
		{"a Unix socket", func(c *Config) { c.Listener = &pipeListener{addr: &net.UnixAddr{Name: "s", Net: "unix"}} }, ""},
		{"IPv6", func(c *Config) { c.Listener = &pipeListener{addr: &net.TCPAddr{IP: net.IPv6loopback, Port: 1}} }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := whole
			tt.change(&cfg)
			_, err := New(cfg)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want %q", err, tt.want)
			}
		})
	}
}

// serve starts a proxy with fake relays; the test must shut it down.
func serve(t *testing.T, change func(*Config)) (w *world, ln *pipeListener, relays <-chan *fakeRelay, served <-chan error) {
	w = newWorld(t, change)
	relays = w.fakeRelays()
	done := make(chan error, 1)
	go func() { done <- w.proxy.Serve() }()
	return w, w.proxy.cfg.Listener.(*pipeListener), relays, done
}

func TestServeLimitsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, ln, relays, served := serve(t, func(c *Config) { c.MaxConnections = 2 })
		first, second, third := ln.connect(), ln.connect(), ln.connect()
		a := <-relays
		<-relays
		synctest.Wait()
		if hungUp(first) || hungUp(second) || !hungUp(third) {
			t.Error("want two served and one closed")
		}
		if n := w.metric(`understudy_sidecar_client_refused_total{listener="stomp",reason="limit"}`); n != 1 {
			t.Errorf("%v refusals counted", n)
		}
		a.stop <- nil
		synctest.Wait()
		if fourth := ln.connect(); hungUp(fourth) {
			t.Error("room was made, and not given away")
		}
		w.proxy.cancel(nil)
		_ = w.proxy.Shutdown(t.Context())
		if err := <-served; !errors.Is(err, ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
}

func TestServeSurvivesABusyMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, ln, relays, served := serve(t, nil)
		began := time.Now()
		for range 12 {
			ln.errs <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		}
		ln.connect()
		(<-relays).stop <- nil
		// 5, 10, … 640 ms, 1 s, 1 s, …: it neither spins nor sleeps long.
		if d := time.Since(began); d < 4*time.Second || d > 6*time.Second {
			t.Errorf("12 failures took %v", d)
		}
		broken := errors.New("the socket is gone")
		ln.errs <- broken
		if err := <-served; !errors.Is(err, broken) {
			t.Errorf("Serve: %v", err)
		}
		if err := w.proxy.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestShutdownWaitsForSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, ln, relays, served := serve(t, nil)
		ln.connect()
		r := <-relays
		time.AfterFunc(10*time.Second, func() { r.stop <- nil })
		began := time.Now()
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				if err := w.proxy.Shutdown(context.Background()); err != nil || time.Since(began) != 10*time.Second {
					t.Errorf("Shutdown: %v after %v", err, time.Since(began))
				}
			})
		}
		if err := <-served; !errors.Is(err, ErrClosed) || time.Since(began) != 0 {
			t.Errorf("Serve: %v after %v", err, time.Since(began))
		}
		both.Wait()
		if err := w.proxy.Shutdown(context.Background()); err != nil {
			t.Errorf("once more: %v", err)
		}
		if err := w.proxy.Serve(); !errors.Is(err, ErrClosed) {
			t.Errorf("Serve after Shutdown: %v", err)
		}
	})
}

func TestShutdownClosesWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, ln, relays, served := serve(t, func(c *Config) { c.DrainTimeout = 7 * time.Second })
		client := ln.connect()
		<-relays
		ln.connect()
		quiet := <-relays
		quiet.stop <- nil
		began := time.Now()
		err := w.proxy.Shutdown(context.Background())
		if !errors.Is(err, ErrDrained) || !strings.Contains(err.Error(), "1 closed") || time.Since(began) != 7*time.Second {
			t.Errorf("Shutdown: %v after %v", err, time.Since(began))
		}
		if !hungUp(client) {
			t.Error("the client is still connected")
		}
		<-served
		if n := len(w.proxy.Sessions()); n != 0 {
			t.Errorf("%d sessions left", n)
		}
	})
}

// A session that waits for a broker does not outlast Shutdown.
func TestShutdownWhileParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, ln, _, served := serve(t, func(c *Config) { c.DrainTimeout = time.Second })
		w.proxy.newRelay = func(c net.Conn, _ session.Recorder, cfg relay.Config) relayed {
			return parked{c, cfg}
		}
		ln.connect()
		synctest.Wait()
		if err := w.proxy.Shutdown(context.Background()); !errors.Is(err, ErrDrained) {
			t.Errorf("Shutdown: %v", err)
		}
		<-served
		if n := w.proxy.waiting.count(); n != 0 || w.hurrying != 0 {
			t.Errorf("%d still wait, %d hurry", n, w.hurrying)
		}
	})
}

type parked struct {
	conn net.Conn
	cfg  relay.Config
}

func (p parked) Start(ctx context.Context, ended func(error)) {
	_, err := p.cfg.Dial(ctx, relay.Try{})
	p.conn.Close()
	ended(err)
}
func (parked) Report() session.Report { return session.Report{State: "park"} }
func (parked) Sever(error)            {}
func (parked) Trim(time.Time)         {}

func TestSeverAndSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, ln, relays, served := serve(t, nil)
		var all []*fakeRelay
		for range 3 {
			ln.connect()
			all = append(all, <-relays)
		}
		synctest.Wait()
		drill := errors.New("drill")
		if n := w.proxy.Sever(drill, 2, 99); n != 1 {
			t.Errorf("severed %d of sessions 2 and 99", n)
		}
		if n := w.proxy.Sever(drill); n != 3 {
			t.Errorf("severed %d of all", n)
		}
		cuts := 0
		for _, r := range all {
			cuts += r.cuts()
		}
		if cuts != 4 {
			t.Errorf("%d cuts, want 4", cuts)
		}
		sessions := w.proxy.Sessions()
		if len(sessions) != 3 || sessions[0].ID != 1 || sessions[2].ID != 3 || sessions[0].Client == "" || sessions[0].Since.IsZero() {
			t.Errorf("sessions %+v", sessions)
		}
		for _, r := range all {
			r.stop <- &relay.EndError{Code: "hold-timeout"}
		}
		synctest.Wait()
		if n := w.metric(`understudy_sidecar_sessions_ended_total{listener="stomp",code="hold-timeout"}`); n != 3 {
			t.Errorf("%v sessions ended by the hold", n)
		}
		_ = w.proxy.Shutdown(t.Context())
		<-served
		var b strings.Builder
		w.set.WritePrometheus(&b)
		if strings.Contains(b.String(), "understudy_sidecar_window_bytes") {
			t.Error("gauges of a proxy that is no more are still there")
		}
	})
}
