package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A process that has become quiet gives back what it needed while it was busy. The collector by itself lets the heap grow to twice of what lives before it
// looks again, and keeps that much; with thousands of idle clients, whose heart-beats make next to no garbage, it would be kept for hours.
const (
	reclaimEvery = 30 * time.Second
	quietBytes   = 32 << 20 // allocated in that time, at most: who is busy would only have to ask for it again
	worthBytes   = 4 << 20  // and an eighth of what is in use: else it does not pay for a collection
)

// reclaim looks after that until ctx ends.
func reclaim(ctx context.Context) {
	ticker := time.NewTicker(reclaimEvery)
	defer ticker.Stop()
	heap := newHeapUse()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if heap.look() {
			debug.FreeOSMemory()
		}
	}
}

// heapUse is what the runtime says of the heap.
type heapUse struct {
	samples   [4]metrics.Sample
	allocated uint64
}

func newHeapUse() *heapUse {
	h := new(heapUse)
	for i, name := range [...]string{"/gc/heap/allocs:bytes", "/gc/heap/live:bytes", "/memory/classes/heap/objects:bytes", "/memory/classes/heap/free:bytes"} {
		h.samples[i].Name = name
	}
	h.look()
	return h
}

// look reports whether a collection would give enough back, and little was allocated since the last look.
func (h *heapUse) look() bool {
	metrics.Read(h.samples[:])
	allocated, live, objects, free := h.samples[0].Value.Uint64(), h.samples[1].Value.Uint64(), h.samples[2].Value.Uint64(), h.samples[3].Value.Uint64()
	busy := allocated-h.allocated > quietBytes
	h.allocated = allocated
	return !busy && worthReclaiming(live, objects, free)
}

// worthReclaiming weighs garbage, and what was collected and kept, against what lives; all in octets.
func worthReclaiming(live, objects, free uint64) bool {
	gain := free + objects - min(live, objects)
	return gain > worthBytes && gain > (objects+free)/8
}
