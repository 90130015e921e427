// Package journaltest looks after the stores that tests make: whatever a test is about, the journal that it leaves must be one that opens. It is imported by
// tests only.
package journaltest

import (
	"errors"
	"testing"

	"github.com/understudy-mq/understudy/broker/journal"
)

// Check fails the test if the store in dir is damaged, or holds a record of which verify (it may be nil) complains. A directory without a store is none's
// fault, and a torn tail is what a crash may leave. It works beside an owner, too.
func Check(t testing.TB, dir string, verify func(journal.Record) error) {
	t.Helper()
	r, err := journal.Check(dir, journal.CheckOptions{Verify: verify})
	switch {
	case errors.Is(err, journal.ErrNoStore):
	case err != nil:
		t.Errorf("check %s: %v", dir, err)
	case r.Verdict == journal.Damaged:
		t.Errorf("the test leaves a damaged journal: %v", r.Err())
		for _, p := range r.Problems {
			t.Logf("%+v", p)
		}
	}
}

// AtEnd checks the store in dir when the test ends. Cleanups run in reverse order: call it before whatever is to be closed first is opened. A test that damages
// its store does not call it.
func AtEnd(t testing.TB, dir string, verify func(journal.Record) error) {
	t.Helper()
	t.Cleanup(func() {
		t.Helper()
		Check(t, dir, verify)
	})
}
