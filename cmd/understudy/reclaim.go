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
		if heap.look(heap.read()) {
			heap.giveBack()
		}
	}
}

// heapUse judges what the runtime says of the heap, from one look to the next.
type heapUse struct {
	samples   [4]metrics.Sample
	allocated uint64
	stuck     uint64
}

// heapFigures are octets: allocated since the process began; what lived at the last collection; objects, garbage or not; and what is free, but not given back.
type heapFigures struct{ allocated, live, objects, free uint64 }

func newHeapUse() *heapUse {
	h := new(heapUse)
	for i, name := range [...]string{"/gc/heap/allocs:bytes", "/gc/heap/live:bytes", "/memory/classes/heap/objects:bytes", "/memory/classes/heap/free:bytes"} {
		h.samples[i].Name = name
	}
	h.look(h.read())
	return h
}

func (h *heapUse) read() heapFigures {
	metrics.Read(h.samples[:])
	return heapFigures{
		allocated: h.samples[0].Value.Uint64(), live: h.samples[1].Value.Uint64(),
		objects: h.samples[2].Value.Uint64(), free: h.samples[3].Value.Uint64(),
	}
}

// look reports whether a collection would give enough back, and little was allocated since the last look.
func (h *heapUse) look(f heapFigures) bool {
	busy := f.allocated-h.allocated > quietBytes
	h.allocated = f.allocated
	h.stuck = min(h.stuck, f.free)
	return !busy && worthReclaiming(f.live, f.objects, f.free-h.stuck)
}

// giveBack collects, and gives to the system what is free. Some may stay: the runtime's scavenger, which works in the background from the end of a 4 MiB
// chunk to its start, takes the chunk for done even if more was freed behind it meanwhile, and a forced collection believes that until something else in the chunk
// is freed. A process that counted it as a gain would collect in vain for as long as it is quiet.
func (h *heapUse) giveBack() {
	debug.FreeOSMemory()
	h.stuck = h.read().free
}

// worthReclaiming weighs garbage, and what was collected and kept, against what lives; all in octets.
func worthReclaiming(live, objects, free uint64) bool {
	gain := free + objects - min(live, objects)
	return gain > worthBytes && gain > (objects+free)/8
}
