package broker

import (
	"time"
)

// What the loader does at once, and how it meets an error that may pass: too many open files, say.
const (
	loadPages  = 2
	loadPause  = 20 * time.Millisecond
	loadBuffer = 64 << 10
)

// startLoader begins to read the pages that the store wants, and returns what ends that.
func (t *tenure) startLoader(st *store, from source) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		t.loadLoop(st, from, quit)
	}()
	return func() {
		close(quit)
		<-done
	}
}

// loadLoop reads pages without the mutex and hands them in.
func (t *tenure) loadLoop(st *store, from source, quit <-chan struct{}) {
	buf := make([]byte, 0, loadBuffer)
	for {
		select {
		case <-quit:
			return
		case <-t.toLoader:
		}
		for {
			t.lock()
			list := st.take(loadPages)
			t.unlock()
			if len(list) == 0 {
				break // unlock says when there is more, or when what has to be read is durable
			}
			pause := time.Duration(0)
			for _, e := range list {
				e.fetch(from, st.hash, buf)
				t.lock()
				if st.handIn(e) {
					pause = loadPause
				}
				st.flush()
				t.unlock()
			}
			select {
			case <-quit:
				return
			default:
			}
			if pause > 0 {
				time.Sleep(pause)
			}
		}
	}
}
