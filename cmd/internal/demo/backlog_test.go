package demo

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Brokers are killed without and with a backlog, and every message of it is there in the end.
func TestDemoBacklog(t *testing.T) {
	r, out := play(t, Config{Kills: 1, Interval: 300 * time.Millisecond, Receipts: true, Backlog: 3001})
	b := r.Backlog
	if !r.Clean() || r.Kills != 2 || r.Config.Payload != 1024 || b == nil {
		t.Fatalf("%+v", r)
	}
	if b.Messages != 3001 || b.Received != 3001 || b.Lost+b.Duplicated+b.Reordered+b.Phantom != 0 || b.Empty.P50 <= 0 || b.Silence.P50 <= 0 || b.Ratio <= 0 {
		t.Errorf("%+v", b)
	}
	if linux := runtime.GOOS == "linux"; linux && (b.Memory.Owner < 1<<20 || b.Memory.Standby < 1<<20 || b.Memory.Peak < b.Memory.Owner || len(b.Bars) != 4) {
		t.Errorf("%+v", b)
	}
	for _, want := range []string{"all confirmed", "WARM ", "lost 0, duplicated 0, reordered 0", "silence p50 with the backlog at most 50 ms", `"resident_octets":{"owner":`} {
		if !strings.Contains(out, want) {
			t.Errorf("the output has no %s", want)
		}
	}
}

func TestBacklogCheck(t *testing.T) {
	const author = 3
	for _, c := range []struct {
		name string
		got  []message
		want backlogResult
	}{
		{"all", []message{{3, 1}, {3, 2}, {3, 3}}, backlogResult{Received: 3}},
		{"one lost", []message{{3, 1}, {3, 3}}, backlogResult{Received: 2, Lost: 1}},
		{"one twice", []message{{3, 1}, {3, 2}, {3, 2}, {3, 3}}, backlogResult{Received: 3, Duplicated: 1}},
		{"out of order", []message{{3, 1}, {3, 3}, {3, 2}}, backlogResult{Received: 3, Reordered: 1}},
		{"never put there", []message{{3, 1}, {3, 2}, {3, 3}, {3, 4}, {2, 1}, {3, 0}}, backlogResult{Received: 3, Phantom: 3}},
		{"nothing", nil, backlogResult{Lost: 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			check, got := newBacklogCheck(3, author), backlogResult{}
			for _, m := range c.got {
				check.receive(m, true)
			}
			check.conclude(&got)
			if got.Received != c.want.Received || got.Lost != c.want.Lost || got.Duplicated != c.want.Duplicated || got.Reordered != c.want.Reordered || got.Phantom != c.want.Phantom {
				t.Errorf("%+v", got)
			}
			res := Result{Backlog: &got}
			if res.fill(Config{}, counts{}, 0, nil); res.Clean() != (c.name == "all") {
				t.Errorf("the verdict is %s", res.Verdict)
			}
		})
	}
	check := newBacklogCheck(3, author)
	if check.receive(message{3, 1}, false); check.received != 0 || check.phantom != 1 {
		t.Errorf("an altered body counts as received: %+v", check)
	}
}

func TestBacklogBars(t *testing.T) {
	met := func(empty, p50, most float64, peak int64) (met []bool) {
		b := backlogResult{Empty: spans{P50: empty}, Silence: spans{p50, most}}
		b.Memory.Peak = peak
		b.judge()
		for _, bar := range b.Bars {
			met = append(met, bar.Met)
		}
		return met
	}
	for _, c := range []struct {
		name string
		got  []bool
		want []bool
	}{
		{"met", met(25, 50, 250, 256<<20), []bool{true, true, true, true}},
		{"slow", met(40, 50.1, 250, 1<<20), []bool{false, true, true, true}},
		{"one long", met(40, 50, 250.1, 1<<20), []bool{true, false, true, true}},
		{"far from empty", met(20, 50, 60, 1<<20), []bool{true, true, false, true}},
		{"big", met(40, 50, 60, 256<<20+1), []bool{true, true, true, false}},
		{"memory unknown", met(40, 50, 60, 0), []bool{true, true, true}},
		{"nobody heard anything", met(0, 0, 0, 1<<20), []bool{false, false, false, true}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
}

func TestBacklogNeedsKills(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no kills": {Backlog: 1, Messages: 0}, "counted messages": {Backlog: 1, Kills: 1, Messages: 10}, "resets": {Backlog: 1, Kills: 1, Fault: FaultReset},
		"direct": {Backlog: 1, Kills: 1, Direct: true}, "too many": {Backlog: maxBacklog + 1, Kills: 1}, "negative": {Backlog: -1, Kills: 1},
	} {
		var wrong *FieldError
		if err := cfg.Validate(); !errors.As(err, &wrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (Config{Backlog: 1, Kills: 1}).Validate(); err != nil {
		t.Error(err)
	}
}

// What a broker says against the backlog is told, and nothing hangs.
func TestFillTellsRefusal(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		_, _ = in.ReadBytes(0)
		_, _ = io.WriteString(conn, "CONNECTED\nversion:1.2\n\n\x00")
		_, _ = in.ReadBytes(0)
		_, _ = io.WriteString(conn, "ERROR\nmessage:out of memory\n\n\x00")
		_, _ = io.Copy(io.Discard, in)
	}()
	r := &run{crew: &crew{cfg: Config{Backlog: 100_000, Payload: 100}}, timeline: timeline{out: io.Discard}}
	r.cluster = &cluster{members: []*member{{host: "broker-a", listen: ln.Addr().String()}}}
	r.result.Backlog = &backlogResult{}
	if err := r.fill(t.Context()); err == nil || !strings.Contains(err.Error(), "out of memory") {
		t.Errorf("error %v", err)
	}
}

func TestResident(t *testing.T) {
	if n := procOctets([]byte("Name:\tx\nVmHWM:\t   99 kB\nVmRSS:\t   12 kB\n"), "VmRSS:"); n != 12<<10 {
		t.Errorf("%d octets", n)
	}
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	if now, peak := resident(os.Getpid()); now < 1<<20 || peak < now {
		t.Errorf("%d octets now, %d at most", now, peak)
	}
	w := memoryWatch{owner: os.Getpid()}
	if w.look(); w.most.owner != 0 {
		t.Error("memory was kept before that was asked for")
	}
	w.begun = true
	if w.look(); w.most.owner == 0 || w.most.peak < w.most.owner || w.most.standby != 0 {
		t.Errorf("%+v", w.most)
	}
}
