package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/relay"
)

// coded is a recorder's error.
type coded string

func (c coded) Error() string { return "refused: " + string(c) }
func (c coded) Code() string  { return string(c) }

func parse(t *testing.T, s string) float64 {
	t.Helper()
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		live bool
		want health.Kind
		says bool
	}{
		{"standby", coded("standby"), false, health.NotServed, true},
		{"wrapped", fmt.Errorf("login: %w", coded("standby")), false, health.NotServed, true},
		{"fenced while live", coded("fenced"), true, health.NotServed, true},
		{"moved", coded("moved"), true, health.NotServed, true},
		{"wrong store", coded("wrong-store"), false, 0, false},
		{"epoch", coded("epoch"), false, 0, false},
		{"fenced by us", staleEpoch{"s", 1, 2}, true, 0, false},
		{"its own words to this client", coded("error"), false, 0, false},
		{"silent", coded("silent"), true, health.ConnLost, true},
		{"login time-out", coded("login-timeout"), false, health.HandshakeFailed, true},
		{"reset", syscall.ECONNRESET, true, health.ConnLost, true},
		{"closed before it was live", io.EOF, false, health.HandshakeFailed, true},
		{"we left", fmt.Errorf("read: %w", context.Canceled), true, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if kind, says := judge(tt.err, tt.live); says != tt.says || says && kind != tt.want {
				t.Errorf("judge = %v, %v; want %v, %v", kind, says, tt.want, tt.says)
			}
		})
	}
}

// lives brings a session to a broker and lets it become live.
func (w *world) lives(l *link, try relay.Try, target health.Target, r session.Report) {
	w.t.Helper()
	w.dialFor(l, try, target)
	l.event(relay.Event{Kind: relay.Dialled, At: time.Now()})
	time.Sleep(3 * time.Millisecond)
	l.event(relay.Event{Kind: relay.Live, At: time.Now(), Report: r})
}

func TestTakeOverIsSeenCountedAndSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker("a:1", ownerOf(3), accept)
		l := w.link(nil)
		w.lives(l, relay.Try{}, "a:1", session.Report{State: "run", Store: "s", Epoch: 3, ReplayedFrames: 1})
		if strings.Contains(w.log.String(), "take-over") {
			t.Error("the first login is called a take-over")
		}
		time.Sleep(5 * time.Second)
		l.event(relay.Event{Kind: relay.Lost, At: time.Now(), Err: syscall.ECONNRESET, Report: session.Report{State: "park", Store: "s", Epoch: 3, ReplayedFrames: 1}})
		w.broker("a:1", health.Verdict{State: health.Down}, refuse)
		w.broker("b:1", standby, accept)
		time.AfterFunc(20*time.Millisecond, func() { w.verdict("b:1", ownerOf(4)) })
		time.Sleep(20 * time.Millisecond)
		synctest.Wait() // the verdict comes at the same instant
		w.lives(l, relay.Try{}, "b:1", session.Report{State: "run", Store: "s", Epoch: 4, Takeovers: 1, Hidden: 2, Resent: 7, ReplayedFrames: 9,
			LastSilence: 30 * time.Millisecond})

		var got []string
		for _, e := range w.evidence {
			got = append(got, fmt.Sprint(e.Target, " ", e.Kind, " ", e.Stores))
		}
		want := "a:1 conn-live [{s  3 false}], a:1 conn-lost [], b:1 conn-live [{s  4 false}]"
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("evidence\n got %s\nwant %s", s, want)
		}
		for _, part := range []string{"msg=take-over", "from=a:1 to=b:1", "epoch_from=3 epoch_to=4", "connection reset by peer", "detect=7ms dial=20ms replay=3ms silence=30ms",
			"attempts=1", "hidden=2 resent=7"} {
			if !strings.Contains(w.log.String(), part) {
				t.Errorf("%q is not in the log:\n%s", part, w.log.String())
			}
		}
		for name, want := range map[string]float64{
			`takeovers_total{listener="stomp"}`:                                          1,
			`redeliveries_hidden_total{listener="stomp"}`:                                2,
			`resends_total{listener="stomp"}`:                                            7,
			`replayed_frames_total{listener="stomp"}`:                                    9,
			`legs_lost_total{listener="stomp",code=""}`:                                  1,
			`takeover_phase_seconds_count{listener="stomp",phase="replay"}`:              1,
			`takeover_phase_seconds_sum{listener="stomp",phase="silence"}`:               0.03,
			`takeover_phase_seconds_bucket{listener="stomp",phase="silence",le="0.025"}`: 0,
			`takeover_phase_seconds_bucket{listener="stomp",phase="silence",le="0.05"}`:  1,
			`takeover_phase_seconds_bucket{listener="stomp",phase="silence",le="+Inf"}`:  1,
			`dials_total{listener="stomp",result="connected"}`:                           2,
			`sessions{listener="stomp",state="run"}`:                                     0, // the link has no relay to ask
			`takeover_phase_seconds_bucket{listener="stomp",phase="replay",le="0.0025"}`: 0,
			`takeover_phase_seconds_bucket{listener="stomp",phase="replay",le="0.005"}`:  1,
			`takeover_phase_seconds_bucket{listener="stomp",phase="dial",le="0.025"}`:    1,
			`takeover_phase_seconds_bucket{listener="stomp",phase="detect",le="0.005"}`:  0,
			`takeover_phase_seconds_bucket{listener="stomp",phase="detect",le="0.01"}`:   1,
			`client_connections_total{listener="stomp"}`:                                 0,
			`unsettled_in_doubt{listener="stomp"}`:                                       0,
		} {
			if got := w.metric("understudy_sidecar_" + name); got != want {
				t.Errorf("%s = %v, want %v", name, got, want)
			}
		}
	})
}

func TestRefusalIsEvidenceFromWhenTheDialBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker("a:1", active, accept)
		l := w.link(nil)
		began := time.Now()
		w.dialFor(l, relay.Try{}, "a:1")
		time.Sleep(time.Second)
		l.event(relay.Event{Kind: relay.Refused, At: time.Now(), Err: coded("login-timeout")})
		if len(w.evidence) != 1 || w.evidence[0].Kind != health.HandshakeFailed || !w.evidence[0].At.Equal(began) {
			t.Errorf("evidence %+v, want a failed handshake from %v", w.evidence, began)
		}
		l.event(relay.Event{Kind: relay.Refused, At: time.Now(), Err: coded("wrong-store")})
		if len(w.evidence) != 1 || len(w.probed) != 1 {
			t.Errorf("another store's owner: evidence %d, probes %d", len(w.evidence), len(w.probed))
		}
	})
}

// A leg that is closed because its session ends says nothing of the broker.
func TestEndOfASessionIsNoEvidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker("a:1", ownerOf(1), accept)
		l := w.link(nil)
		w.lives(l, relay.Try{}, "a:1", session.Report{Store: "s", Epoch: 1})
		l.event(relay.Event{Kind: relay.Lost, At: time.Now(), Err: errors.New("closed"), Report: session.Report{State: "end"}})
		l.event(relay.Event{Kind: relay.Ended, At: time.Now()})
		if len(w.evidence) != 1 || len(w.probed) != 0 {
			t.Errorf("evidence %v, probes %v", w.evidence, w.probed)
		}
	})
}

// When one session sees a higher epoch, those that are still with the old owner leave it, and no others.
func TestFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker("a:1", active, accept)
		session := func(store string, epoch uint64) (*fakeRelay, *link) {
			r := &fakeRelay{state: session.Report{Store: store, Epoch: epoch}}
			l := w.link(r)
			w.lives(l, relay.Try{}, "a:1", r.state)
			return r, l
		}
		old, _ := session("s", 3)
		other, _ := session("t", 1)
		parked, l := session("s", 3)
		l.event(relay.Event{Kind: relay.Lost, At: time.Now(), Err: errRefused})
		now, _ := session("s", 4)
		for name, r := range map[string]*fakeRelay{"other store": other, "parked": parked, "the new epoch": now} {
			if r.cuts() != 0 {
				t.Errorf("%s was severed", name)
			}
		}
		if old.cuts() != 1 || !strings.Contains(old.severed[0].Error(), "epoch 3, and epoch 4 was seen") {
			t.Errorf("the session with the old owner was severed %d times: %v", old.cuts(), old.severed)
		}
		if late, _ := session("s", 3); late.cuts() != 1 {
			t.Error("a session that became live on the old epoch was left there")
		}
	})
}

// Reports come from events and from scrapes, in either order; what they count is counted once.
func TestCountersCountOnce(t *testing.T) {
	w := newWorld(t, nil)
	l := w.link(nil)
	for _, hidden := range []uint64{3, 5, 3, 5, 6} {
		l.count(session.Report{Hidden: hidden, Takeovers: hidden})
	}
	for _, name := range []string{"redeliveries_hidden_total", "takeovers_total"} {
		if got := w.metric(fmt.Sprintf("understudy_sidecar_%s{listener=%q}", name, "stomp")); got != 6 {
			t.Errorf("%s = %v, want 6", name, got)
		}
	}
}

func TestGaugesAskSessionsOncePerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		a, b := &fakeRelay{}, &fakeRelay{}
		a.state = session.Report{State: "park", WindowBytes: 100, InDoubt: 2, Unacked: 1, Unconfirmed: 4, NotResumable: "said so"}
		b.state = session.Report{State: "run", WindowBytes: 11}
		w.link(a)
		w.link(b)
		check := func(name string, want float64) {
			t.Helper()
			if got := w.metric("understudy_sidecar_" + name); got != want {
				t.Errorf("%s = %v, want %v", name, got, want)
			}
		}
		check(`held_sessions{listener="stomp"}`, 1)
		check(`sessions{listener="stomp",state="park"}`, 1)
		check(`sessions{listener="stomp",state="run"}`, 1)
		check(`window_bytes{listener="stomp"}`, 111)
		check(`unsettled_in_doubt{listener="stomp"}`, 2)
		check(`unconfirmed_effects{listener="stomp"}`, 4)
		check(`not_resumable_sessions{listener="stomp"}`, 1)
		a.mu.Lock()
		a.state.State = "run"
		a.mu.Unlock()
		check(`held_sessions{listener="stomp"}`, 1)
		time.Sleep(sweepEvery)
		check(`held_sessions{listener="stomp"}`, 0)
	})
}
