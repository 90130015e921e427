package health

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fleet is what a probe finds: scripted answers, and a count of questions. A target without an answer is frozen.
type fleet struct {
	mu      sync.Mutex
	answers map[Target]Kind
	epoch   uint64
	asked   map[Target][]time.Time
	running atomic.Int32
	most    atomic.Int32
	delay   time.Duration
}

func newFleet(answers map[Target]Kind) *fleet {
	return &fleet{answers: answers, asked: make(map[Target][]time.Time), epoch: 1}
}

func (f *fleet) set(t Target, k Kind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[t] = k
}

func (f *fleet) probe(ctx context.Context, t Target) Evidence {
	f.most.Store(max(f.most.Load(), f.running.Add(1)))
	defer f.running.Add(-1)
	f.mu.Lock()
	f.asked[t] = append(f.asked[t], time.Now())
	kind, ok := f.answers[t]
	epoch := f.epoch
	f.mu.Unlock()
	if !ok {
		<-ctx.Done()
		return Evidence{Kind: ProbeFailed, Detail: ctx.Err().Error()}
	}
	time.Sleep(f.delay)
	return Evidence{Kind: kind, Stores: at1("s", epoch)}
}

// count returns how often t was asked since the last count.
func (f *fleet) count(t Target) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.asked[t])
	f.asked[t] = nil
	return n
}

func (m *Monitor) state(t Target) State {
	all, _ := m.Snapshot()
	return all[t].State
}

func TestMonitorIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(map[Target]Kind{"a": ProbeActive, "b": ProbeStandby})
		m := NewMonitor(Config{Probe: f.probe})
		defer m.Close()
		m.SetTargets([]Target{"a", "b"})
		synctest.Wait()
		if m.state("a") != Active || m.state("b") != Standby || f.count("a") != 1 || f.count("b") != 1 {
			t.Fatalf("not probed at once: %v, %v", m.state("a"), m.state("b"))
		}
		time.Sleep(20 * time.Second)
		if n := f.count("a"); n < 10 || n > 13 {
			t.Errorf("%d probes of an active target in 20 s", n)
		}
		f.count("b")

		done := m.Hurry()
		synctest.Wait()
		if a, b := f.count("a"), f.count("b"); a != 0 || b != 1 {
			t.Errorf("%d probes of the active, %d of the standby when somebody begins to wait", a, b)
		}
		time.Sleep(5 * time.Second)
		if n := f.count("b"); n < 20 || n > 26 {
			t.Errorf("%d probes of a standby in 5 s while somebody waits", n)
		}
		done()
		done()
		time.Sleep(20 * time.Second)
		if n := f.count("b"); n > 14 {
			t.Errorf("%d probes in 20 s when nobody waits any more", n)
		}
	})
}

// A lost connection is looked into at once, everywhere: the new owner may be anybody.
func TestMonitorActsOnEvidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(map[Target]Kind{"a": ProbeActive, "b": ProbeStandby})
		m := NewMonitor(Config{Probe: f.probe})
		defer m.Close()
		m.SetTargets([]Target{"a", "b"})
		time.Sleep(time.Second)
		f.count("a")
		f.count("b")
		f.set("a", DialFailed)
		f.set("b", ProbeActive)
		f.epoch = 2
		_, changed := m.Snapshot()
		m.Observe(Evidence{Target: "a", Kind: ConnLost, Detail: "connection reset"})
		select {
		case <-changed:
		default:
			t.Error("the change is not announced when Observe returns")
		}
		if all, _ := m.Snapshot(); all["a"].State != Suspect || all["a"].Because.Detail != "connection reset" {
			t.Errorf("verdict is %+v", all["a"])
		}
		synctest.Wait()
		if m.state("a") != Down || m.state("b") != Active {
			t.Errorf("a is %v, b is %v", m.state("a"), m.state("b"))
		}
		if a, b := f.count("a"), f.count("b"); a != 1 || b != 1 {
			t.Errorf("%d and %d probes", a, b)
		}
	})
}

func TestMonitorFrozenTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(map[Target]Kind{"a": ProbeActive})
		m := NewMonitor(Config{Probe: f.probe, Interval: time.Second})
		defer m.Close()
		m.Add("a")
		synctest.Wait()
		f.mu.Lock()
		delete(f.answers, "a")
		f.mu.Unlock()
		began := time.Now()
		for m.state("a") != Down {
			_, changed := m.Snapshot()
			<-changed
		}
		if took := time.Since(began); took < 2*time.Second || took > 3100*time.Millisecond {
			t.Errorf("frozen broker found after %v, want one interval and two time-outs at most", took)
		}
	})
}

// A machine that is too busy to hear an answer blames nobody for it, but not for ever.
func TestMonitorBlamesNobodyWhenBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		m := NewMonitor(Config{Probe: func(ctx context.Context, _ Target) Evidence {
			if asked.Add(1) == 1 {
				return Evidence{Kind: ProbeActive}
			}
			<-ctx.Done()
			time.Sleep(time.Second) // nobody ran
			return Evidence{Kind: DialFailed}
		}})
		defer m.Close()
		m.Add("a")
		for asked.Load() <= maxLate {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(2100 * time.Millisecond)
		if m.state("a") != Active {
			t.Errorf("after %d late answers it is %v", asked.Load()-1, m.state("a"))
		}
		time.Sleep(10 * time.Second)
		if m.state("a") != Down {
			t.Errorf("after %d late answers it is still %v", asked.Load()-1, m.state("a"))
		}
	})
}

func TestMonitorStormOfRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(map[Target]Kind{"a": ProbeActive})
		m := NewMonitor(Config{Probe: f.probe})
		defer m.Close()
		m.Add("a")
		synctest.Wait()
		time.Sleep(time.Second)
		f.count("a")
		for range 100 {
			for range 10 {
				m.ProbeNow("a")
			}
			m.ProbeNow("nobody")
			time.Sleep(time.Millisecond)
		}
		if n := f.count("a"); n < 9 || n > 11 {
			t.Errorf("%d probes in a storm of 100 ms", n)
		}
	})
}

func TestMonitorBoundsConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(make(map[Target]Kind))
		f.delay = 100 * time.Millisecond
		var ts []Target
		for i := range 40 {
			target := Target(rune('A' + i))
			ts = append(ts, target)
			f.answers[target] = ProbeStandby
		}
		m := NewMonitor(Config{Probe: f.probe, Concurrency: 4})
		m.SetTargets(ts)
		time.Sleep(1100 * time.Millisecond)
		all, _ := m.Snapshot()
		for target, v := range all {
			if v.State != Standby {
				t.Errorf("%s is %v", target, v.State)
			}
		}
		m.Close()
		if f.most.Load() != 4 || f.running.Load() != 0 {
			t.Errorf("%d probes at once, %d after Close", f.most.Load(), f.running.Load())
		}
	})
}

// An answer that was on its way when a session logged in says what was, not what is.
func TestMonitorLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(map[Target]Kind{"a": ProbeStandby})
		f.delay = 500 * time.Millisecond
		m := NewMonitor(Config{Probe: f.probe})
		defer m.Close()
		m.Add("a")
		time.Sleep(100 * time.Millisecond)
		m.Observe(Evidence{Target: "a", Kind: ConnLive, Stores: at1("s", 1)})
		_, changed := m.Snapshot()
		time.Sleep(500 * time.Millisecond)
		select {
		case <-changed:
			t.Error("a change is announced")
		default:
		}
		if m.state("a") != Active {
			t.Errorf("state is %v", m.state("a"))
		}
	})
}

func TestMonitorRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(map[Target]Kind{"b": ProbeActive})
		m := NewMonitor(Config{Probe: f.probe})
		m.SetTargets([]Target{"a", "b"})
		synctest.Wait()
		if f.running.Load() != 1 {
			t.Fatal("a is not being probed")
		}
		_, changed := m.Snapshot()
		m.Remove("a")
		m.Remove("a")
		<-changed
		synctest.Wait()
		if f.running.Load() != 0 {
			t.Error("the probe goes on")
		}
		// An answer that was cut short says nothing about what has the name now.
		m.Add("a")
		synctest.Wait()
		m.Remove("a")
		m.Add("a")
		synctest.Wait()
		if m.state("a") != Unknown {
			t.Errorf("removed and added, a is %v", m.state("a"))
		}
		m.SetTargets([]Target{"b"})
		m.Observe(Evidence{Target: "a", Kind: ConnLive, Stores: at1("s", 9)})
		all, _ := m.Snapshot()
		if len(all) != 1 {
			t.Errorf("verdicts on %d targets", len(all))
		}
		// The epoch seen at a target that is not monitored counts all the same.
		if all["b"].State != Standby || all["b"].Reason != ReasonStaleEpoch {
			t.Errorf("b is %+v", all["b"])
		}
		m.Close()
		m.Close()
		m.Add("c")
		m.ProbeNow("b")
		time.Sleep(10 * time.Second)
		if all, _ := m.Snapshot(); len(all) != 1 || f.count("c") != 0 {
			t.Error("a closed monitor goes on")
		}
	})
}

func TestMonitorMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := newSet()
		f := newFleet(map[Target]Kind{"a:1": ProbeActive, "b:1": ProbeStandby})
		m := NewMonitor(Config{Probe: f.probe, Metrics: NewMetrics(set, "g")})
		m.SetTargets([]Target{"a:1", "b:1"})
		synctest.Wait()
		m.Observe(Evidence{Target: "b:1", Kind: GossipActive})
		synctest.Wait()
		for _, want := range []string{
			`understudy_health_target_active{group="g",target="a:1"} 1`, `understudy_health_target_active{group="g",target="b:1"} 0`,
			`understudy_health_targets{group="g",state="active"} 1`, `understudy_health_targets{group="g",state="standby"} 1`,
			`understudy_health_probes_total{group="g",result="probe-active"} 1`, `understudy_health_evidence_total{group="g",kind="gossip-active"} 1`,
			`understudy_health_verdict_changes_total{group="g",state="active"} 1`, `understudy_health_probe_duration_seconds_count{group="g"}`,
		} {
			if !metricsHave(set, want) {
				t.Errorf("no %s in\n%s", want, metricsText(set))
			}
		}
		m.Remove("a:1")
		if metricsHave(set, `target="a:1"`) {
			t.Error("a removed target is still exported")
		}
		m.Close()
	})
}
