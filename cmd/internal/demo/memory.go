package demo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// lookEvery is how often the memory of the brokers is looked at.
const lookEvery = 20 * time.Millisecond

// memoryWatch keeps the most resident memory that the owner and the standby were seen with. It needs /proc; elsewhere it sees zeros.
type memoryWatch struct {
	mu             sync.Mutex
	owner, standby int // pids; 0 for nobody
	begun          bool
	most           struct{ owner, standby, peak int64 }
}

// begin starts to keep what is seen.
func (w *memoryWatch) begin(owner, standby *child) {
	w.roles(owner, standby)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun = true
}

// roles says who is who from now on.
func (w *memoryWatch) roles(owner, standby *child) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owner, w.standby = 0, 0
	if owner != nil {
		w.owner = owner.pid()
	}
	if standby != nil {
		w.standby = standby.pid()
	}
}

// run looks until ctx ends.
func (w *memoryWatch) run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.look()
		}
	}
}

func (w *memoryWatch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range []struct {
		pid  int
		most *int64
	}{{w.owner, &w.most.owner}, {w.standby, &w.most.standby}} {
		if p.pid == 0 || !w.begun {
			continue
		}
		now, peak := resident(p.pid)
		*p.most, w.most.peak = max(*p.most, now), max(w.most.peak, peak)
	}
}

// into writes down what was seen.
func (w *memoryWatch) into(b *backlogResult) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b.Memory.Owner, b.Memory.Standby, b.Memory.Peak = w.most.owner, w.most.standby, w.most.peak
}

// resident is what a process has in memory now and had at most; zeros if that cannot be told.
func resident(pid int) (now, peak int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	return procOctets(text, "VmRSS:"), procOctets(text, "VmHWM:")
}

// procOctets finds a line such as "VmRSS:	  1234 kB".
func procOctets(text []byte, name string) int64 {
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			n, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 10, 64)
			if err != nil {
				return 0
			}
			return n << 10
		}
	}
	return 0
}
