package main

import (
	"runtime/debug"
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

var sink []byte

// Garbage is given back once, and not while the process is busy.
func TestHeapUse(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // nobody else collects meanwhile
	debug.FreeOSMemory()
	h := newHeapUse()
	sink = make([]byte, 2*quietBytes)
	sink = nil
	if h.look() {
		t.Error("a busy process is to give back what it needs again")
	}
	if !h.look() {
		t.Error("garbage is kept in a quiet one")
	}
	for try := 0; ; try++ { // what earlier tests left may take more than one
		debug.FreeOSMemory()
		if !h.look() {
			break
		}
		if try == 10 {
			t.Fatal("there is more to give back behind a collection")
		}
	}
}
