package journal

import (
	"errors"
	"sync/atomic"
	"time"
)

// checked is when the store was last known to be ours. A process that was stopped does not notice: what it wakes up with may belong to a successor by
// now, and only a look for a higher epoch tells. So whoever lets anything out that rests on owning the store asks how old the last look is.
type checked struct {
	at   atomic.Pointer[time.Time]
	lost atomic.Bool
}

// look looks for a higher epoch. What counts is when the look began: the answer may be as old as that.
func (c *checked) look(m *markFile) error {
	began := time.Now()
	if err := m.fenced(); err != nil {
		if errors.Is(err, ErrFenced) {
			c.lost.Store(true)
		}
		return err
	}
	c.at.Store(&began)
	return nil
}

// Checked is when the last look for a higher epoch began that found none; there is one after each sync and, 50 ms apart, with each heart-beat. It is the
// zero time once a higher epoch was found. It takes no lock and does no I/O.
func (j *Journal) Checked() time.Time {
	if at := j.checked.at.Load(); at != nil && !j.checked.lost.Load() {
		return *at
	}
	return time.Time{}
}
