package journal

import "testing"

// What lies behind the end of the log may be left unread only where the mark is exact and nothing acknowledged is missing.
func TestCompleteNeedsAnExactMark(t *testing.T) {
	const boot = "b1"
	for _, tc := range []struct {
		name   string
		before pulse
		found  found
		want   bool
	}{
		{"same machine, all acknowledged records found", pulse{Boot: boot, Epoch: 7}, found{place: place{7, 3}, begun: true, last: 100}, true},
		{"more than was acknowledged", pulse{Boot: boot, Epoch: 7}, found{place: place{7, 3}, begun: true, last: 105}, true},
		{"an acknowledged record is missing", pulse{Boot: boot, Epoch: 7}, found{place: place{7, 3}, begun: true, last: 99}, false},
		{"the machine was restarted since", pulse{Boot: "b0", Epoch: 7}, found{place: place{7, 3}, begun: true, last: 100}, false},
		{"the last owner had no epoch yet", pulse{Boot: boot}, found{place: place{7, 3}, begun: true, last: 100}, false},
		{"the mark is not the last owner's", pulse{Boot: boot, Epoch: 8}, found{place: place{7, 3}, begun: true, last: 100}, false},
		{"LOCK could not be read", pulse{}, found{place: place{7, 3}, begun: true, last: 100}, false},
		{"a segment of an older epoch", pulse{Boot: boot, Epoch: 7}, found{place: place{6, 2}, begun: true, last: 100}, false},
		{"prepared, not begun", pulse{Boot: boot, Epoch: 7}, found{place: place{7, 4}}, true},
		{"not begun, yet the mark is in it", pulse{Boot: boot, Epoch: 7}, found{place: place{7, 3}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := lockFile{before: tc.before, me: pulse{Boot: boot, Epoch: 9}}
			r := recovery{mark: mark{lsn: 100, segment: 3, end: 8192, epoch: 7}}
			r.exact = l.witnessed(r.mark.epoch)
			if got := r.complete(&tc.found); got != tc.want {
				t.Errorf("complete is %v, want %v", got, tc.want)
			}
		})
	}
}
