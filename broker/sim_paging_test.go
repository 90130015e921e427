package broker

import (
	"pgregory.net/rapid"
)

// tight is a memory in which only a few messages have room: whatever can go out is out most of the time.
const tight = 2000

// load does what the loader does, a little of it: pages that the store wants are read, and handed in now or after other things have happened.
func (w *world) load(most int) {
	for ; most > 0; most-- {
		if len(w.errands) == 0 {
			w.errands = w.store.take(1)
		}
		if len(w.errands) == 0 {
			return
		}
		e := w.errands[0]
		if !w.fetched {
			e.fetch(w.log, w.store.hash, nil)
			if w.fetched = true; rapid.IntRange(0, 3).Draw(w.t, "busy disk") == 0 {
				return
			}
		}
		w.fetched, w.errands = false, nil
		w.store.handIn(e)
		w.store.flush()
		if w.store.paging.damaged > 0 {
			w.t.Fatal("a queue is damaged")
		}
	}
}
