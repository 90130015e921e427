package broker

import (
	"errors"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// The guard. A server that was stopped (SIGSTOP, a suspended machine, a long pause of its disk) wakes up as what it was, while the store may have a new
// owner. Its journal finds that out before it acknowledges anything new, but the server also says things that need no sync: a MESSAGE of what was durable
// before, because an ACK in a socket's buffer has made room for it; a RECEIPT for what changes nothing; a page of a browser; a topic's message. So
// everything that the server says passes the guard on its way out, and waits there while the journal's last look for a higher epoch is older than
// guardAge. What is decided behind the guard meanwhile harms nobody: records of it are never durable if the store is lost, and are true if it is not.
//
// It is asked immediately before each system call that writes, also in the middle of a frame. What the kernel was given before cannot be taken back,
// and neither can what a pause between that question and the system call lets through: to the client both are messages that were under way when the
// owner changed. It may see them twice, as after any take-over; a sidecar, which knows epochs, does not.

// guardAge is five beats of the journal: longer than an owner that lives ever goes without a look, unless its disk is in trouble.
const guardAge = 250 * time.Millisecond

var (
	errWithheld = errors.New("the store may have another owner by now")
	errVoid     = errors.New("the store was lost before this was said")
)

// ours reports whether the store was found to be ours a moment ago, or there is none. It takes no lock.
func (t *tenure) ours(now time.Time) bool {
	checked := t.checked.Load()
	return checked == nil || recent((*checked)(), now)
}

// recent compares both clocks: the monotonic one stands still while a machine is suspended, the other one may be set back.
func recent(checked, now time.Time) bool {
	return now.Sub(checked) <= guardAge && now.Round(0).Sub(checked.Round(0)) <= guardAge
}

// withhold reports, under the mutex, whether c may say nothing now. It will be woken when that changes.
func (t *tenure) withhold(c *conn) bool {
	if t.store == nil || t.store.err != nil || t.ours(t.store.now) {
		return false
	}
	if !c.peer.withheld {
		c.peer.withheld = true
		t.withheld = append(t.withheld, c)
		t.count.withheld.Inc()
	}
	return true
}

// letGo wakes, under the mutex, those that were withheld, if the store is known to be ours again.
func (t *tenure) letGo() {
	if len(t.withheld) == 0 || !t.ours(t.store.now) {
		return
	}
	t.log.Warn("the epoch was not checked in time: output was withheld until it was", "limit", guardAge.String(), "connections", len(t.withheld))
	for _, c := range t.withheld {
		c.peer.withheld = false
		c.kick()
	}
	clear(t.withheld)
	t.withheld = t.withheld[:0]
}

// fail ends what the server may say of the store: at once, for what a client would be told after this nobody would stand for. What was decided
// before and is not written yet is void if another owner may have decided otherwise.
func (t *tenure) fail(err error) {
	t.lock()
	defer t.unlock()
	st := t.store
	if st == nil || st.err != nil {
		return
	}
	void := errors.Is(err, journal.ErrFenced) || !t.ours(st.now)
	st.err, t.lost = err, true
	for c := range t.conns {
		if void { // what it was to end with, too: the loss of the store may have been met before it was told here
			c.peer.out, c.peer.closing = nil, false
		}
	}
	t.dismiss(fenced(err))
}
