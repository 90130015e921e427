package sessiontest_test

import (
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session"
	. "github.com/understudy-mq/understudy/session/sessiontest"
	"github.com/understudy-mq/understudy/session/stomp"
)

// recorder is the one under test, set as the script says.
func recorder(s *Script, id string) session.Recorder {
	return stomp.New(stomp.Config{Session: id, Hold: s.Hold, HoldIdle: s.Hold * IdleHold, Window: s.Window, ReclaimWait: 2 * time.Second})
}

// TestMutants puts defects into the broker model and the shell and asks that each is noticed: verdicts that cannot fail prove nothing.
func TestMutants(t *testing.T) {
	caught := 0
	for _, m := range Mutations() {
		found := false
		for seed := uint64(1); seed <= 200 && !found; seed++ {
			c := RandomCase(seed, 120, 2)
			c.Script.Prompt = m == AppliesTwice // else no effect is ever repeated
			if len(RunSTOMP(c, recorder, false).Violations) > 0 {
				continue
			}
			c.Script.Fault = m
			if v := RunSTOMP(c, recorder, false).Violations; len(v) > 0 {
				found = true
				caught++
				t.Logf("%v: seed %d: %.160v", m, seed, v[0])
			}
		}
		if !found {
			t.Errorf("%v was not noticed in 200 runs", m)
		}
	}
	t.Logf("%d of %d caught", caught, len(Mutations()))
}

// relay passes octets on and remembers nothing: what a client has without a recorder.
type relay struct{ live bool }

func (r *relay) Feed(leg session.Leg, in session.Buf, out *session.Out) (took, want int) {
	if !r.live {
		return 0, 0
	}
	out.Ref(1-leg, in)
	return in.Len(), 0
}
func (r *relay) Wrote(session.Leg, uint64, *session.Out) {}
func (r *relay) Up(_ session.Peer, out *session.Out) {
	r.live, out.Live = true, true
	out.Pause[session.Client] = false
}
func (r *relay) Down(why error, out *session.Out) {
	out.End = &session.Fault{Code: "broker-lost", Cause: why}
}
func (r *relay) Nowhere(why error, out *session.Out) {
	out.End = &session.Fault{Code: "no-broker", Cause: why}
}
func (r *relay) ClientEOF(half bool, out *session.Out) { out.End = &session.Fault{Code: "left"} }
func (r *relay) Tick(out *session.Out)                 { out.Pause[session.Client] = !r.live }
func (r *relay) Hints() session.Hints                  { return session.Hints{Ready: true} }
func (r *relay) Report(*session.Report)                {}
func (r *relay) Close()                                {}
func plain(*Script, string) session.Recorder           { return new(relay) }

// TestPlain plays the same conversations through a relay without memory. Without faults the models must agree with each other and with
// the verdicts; with faults the verdicts must object.
func TestPlain(t *testing.T) {
	objected, struck := 0, 0
	for seed := uint64(1); seed <= 60; seed++ {
		c := RandomCase(seed, 120, 2)
		c.Script.Plain = true
		c.Script.End, c.Script.Nameless = EndDrained, false // the relay gives no subscription a name
		faults := c.Faults
		c.Faults = nil
		if r := RunSTOMP(c, plain, false); len(r.Violations) > 0 {
			t.Fatalf("seed %d, no fault: %v\n%s", seed, r.Violations[0], RunSTOMP(c, plain, true).Transcript)
		}
		c.Faults = faults
		r := RunSTOMP(c, plain, false)
		if r.Struck > 0 {
			struck++
			if len(r.Violations) > 0 {
				objected++
			}
		}
	}
	if objected != struck {
		t.Errorf("%d of %d runs with a fault were objected to", objected, struck)
	}
}
