package journal

import (
	"log/slog"
	"sync"
	"testing"
	"time"
)

// stand puts a candidate beside a store that shows life and never takes it, until leave is called.
func stand(t testing.TB, dir, node string, s Standing) (leave func()) {
	t.Helper()
	d, err := openDisk(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := newPresence(d, node, slog.New(slog.DiscardHandler))
	quit, gone := make(chan struct{}), make(chan struct{})
	if err := p.show(time.Now(), s, false); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(gone)
		tick := time.NewTicker(showEvery / 4)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				p.end()
				d.close()
				return
			case now := <-tick.C:
				if err := p.show(now, s, false); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	leave = sync.OnceFunc(func() { close(quit); <-gone })
	t.Cleanup(leave)
	return leave
}
