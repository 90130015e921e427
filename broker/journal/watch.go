package journal

import "time"

// pulse is what an owner writes into LOCK, as one line of JSON.
type pulse struct {
	Epoch uint64 `json:"epoch"` // 0 while it is claiming one
	Node  string `json:"node"`
	PID   int    `json:"pid"`   // 0: released in good order
	Start uint64 `json:"start"` // of the process, in clock ticks since boot
	Boot  string `json:"boot"`  // boot id of the machine
	Space string `json:"space"` // PID name space
	Beat  uint64 `json:"beat"`
	// Last is where the log ends, as an owner vouches for it that has released the lock in good order; 0: it does not.
	Last LSN `json:"last,omitempty"`
	// Successor is whom an owner that has released the lock wants to have it.
	Successor string `json:"successor,omitempty"`
	// Admin is where operators reach the owner, for those who ask a candidate who has the store. It is left out where there is no room.
	Admin string `json:"admin,omitempty"`
}

// same says whether two pulses come from one ownership.
func (p pulse) same(q pulse) bool {
	p.Beat, p.Epoch, p.Last, p.Successor, p.Admin = q.Beat, q.Epoch, q.Last, q.Successor, q.Admin
	return p == q
}

// maxStep is how much silence one look can add. A candidate that was itself stopped, or a machine that slept, has not listened meanwhile.
const maxStep = 2 * beatEvery

// watch judges the owner by what a candidate sees in LOCK. It is pure.
type watch struct {
	after  time.Duration // silence that counts
	seen   bool
	pulse  pulse
	looked time.Time
	silent time.Duration
	tell   time.Duration // silence to be reported next
}

// look takes in one reading of LOCK; ok is false when it could not be read, which is neither life nor silence. report: something changed that
// an operator would want to know.
func (w *watch) look(now time.Time, p pulse, ok bool) (report bool) {
	step := min(now.Sub(w.looked), maxStep)
	w.looked = now
	if !ok && w.seen {
		return false
	}
	if !w.seen || p != w.pulse { // an epoch is told between two beats, too
		report = !w.seen || !p.same(w.pulse) || p.Epoch != w.pulse.Epoch || w.silent >= w.after
		w.seen, w.pulse, w.silent, w.tell = true, p, 0, w.after
		return report
	}
	w.silent += step
	if w.silent >= w.tell {
		w.tell *= 2
		return true
	}
	return false
}

// alive takes in a sign of life that is not in LOCK.
func (w *watch) alive() { w.silent, w.tell = 0, w.after }

func (w *watch) owner() Owner {
	return Owner{Epoch: w.pulse.Epoch, Node: w.pulse.Node, PID: w.pulse.PID, Admin: w.pulse.Admin, Silent: w.silent}
}

// frozen says that the owner has been silent long enough to be ended.
func (w *watch) frozen() bool { return w.pulse.PID != 0 && w.silent >= w.after }
