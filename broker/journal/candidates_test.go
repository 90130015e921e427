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

// A server that is started again under its old name finds the card of the one that was killed, which may have been longer.
func TestCardOverALongerOne(t *testing.T) {
	dir := t.TempDir()
	d, err := openDisk(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	log := slog.New(slog.DiscardHandler)
	killed := newPresence(d, "standby-1", log)
	if err := killed.show(time.Now(), Standing{Serves: 12, Load: 3, Endpoint: "127.0.0.1:61613"}, true); err != nil {
		t.Fatal(err)
	}
	killed.close() // the kernel lets go of the lock, and the file stays
	again := newPresence(d, "standby-1", log)
	defer again.end()
	if err := again.show(time.Now(), Standing{}, false); err != nil {
		t.Fatal(err)
	}
	seen, err := (&lister{disk: d}).list(time.Now())
	if err != nil || len(seen) != 1 || !seen[0].ok || seen[0].Serves != 0 {
		t.Errorf("the others see %+v, %v", seen, err)
	}
}
