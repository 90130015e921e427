package main

import (
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestWorthReclaiming(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name                string
		live, objects, free uint64
		want                bool
	}{
		{"small", 2 * mib, 3 * mib, 2 * mib, false},
		{"garbage", 20 * mib, 30 * mib, 0, true},
		{"kept", 20 * mib, 20 * mib, 10 * mib, true},
		{"little beside what lives", 200 * mib, 205 * mib, 5 * mib, false},
		{"grown since", 20 * mib, 10 * mib, 0, false}, // what lives was counted before a sweep
	} {
		if got := worthReclaiming(c.live, c.objects, c.free); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// What a collection could not give back is no reason for another one, until it was in use again.
func TestStuckHeapIsNoGain(t *testing.T) {
	const mib = 1 << 20
	h := &heapUse{stuck: 10 * mib}
	for _, c := range []struct {
		name                string
		live, objects, free uint64
		want                bool
	}{
		{"the same", 20 * mib, 20 * mib, 10 * mib, false},
		{"more is free", 20 * mib, 20 * mib, 15 * mib, true},
		{"garbage besides", 20 * mib, 25 * mib, 10 * mib, true},
		{"in use", 20 * mib, 22 * mib, 3 * mib, false},
		{"free once more", 20 * mib, 20 * mib, 10 * mib, true},
	} {
		if got := h.look(heapFigures{live: c.live, objects: c.objects, free: c.free}); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// aloneEnv says that this is a process for one test.
const aloneEnv = "UNDERSTUDY_TEST_ALONE"

var sink []byte

// Garbage is given back once, all of it, and not while the process is busy. That goes on in a process of its own: neither what other tests have left nor the
// runtime's scavenger, which has a goal only where the collector has one, touches the heap meanwhile.
func TestHeapUse(t *testing.T) {
	if os.Getenv(aloneEnv) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHeapUse$", "-test.v")
		cmd.Env = append(os.Environ(), aloneEnv+"=1", "GOGC=off", "GOMEMLIMIT=off")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestHeapUse") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	debug.FreeOSMemory()
	h := newHeapUse()
	sink = make([]byte, 2*quietBytes)
	sink = nil
	look := func(when string) (bool, heapFigures) {
		f := h.read()
		t.Logf("%s: %+v, stuck %d, on %d processors", when, f, h.stuck, runtime.GOMAXPROCS(0))
		return h.look(f), f
	}
	if worth, _ := look("busy"); worth {
		t.Error("a busy process is to give back what it needs again")
	}
	if worth, _ := look("quiet"); !worth {
		t.Error("garbage is kept in a quiet one")
	}
	h.giveBack()
	worth, f := look("given back")
	if worth || worthReclaiming(f.live, f.objects, f.free) {
		t.Error("there is more to give back behind a collection")
	}
}
