package journaltest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// failures is a test that says how often it failed.
type failures struct {
	testing.TB
	n    int
	last string
	end  func()
}

func (f *failures) Helper()                           {}
func (f *failures) Logf(string, ...any)               {}
func (f *failures) Errorf(format string, args ...any) { f.n++; f.last = fmt.Sprintf(format, args...) }
func (f *failures) Cleanup(end func())                { f.end = end }

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	at := &failures{TB: t}
	AtEnd(at, dir, nil)
	if at.end(); at.n != 0 {
		t.Errorf("no store: %s", at.last)
	}
	durable := make(chan struct{}, 10)
	j, err := journal.Open(t.Context(), dir, journal.Options{SegmentBytes: 8 << 10, Durable: func(journal.LSN) { durable <- struct{}{} }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		e := journal.Entry{Type: 1, Payload: []byte("what is to be kept"), Account: journal.Account{Live: 1}}
		_, err := j.Append(e)
		for ; errors.Is(err, journal.ErrBehind); time.Sleep(100 * time.Microsecond) {
			_, err = j.Append(e)
		}
		if err != nil {
			t.Fatal(err)
		}
		<-durable
	}
	if at.end(); at.n != 0 {
		t.Errorf("beside its owner: %s", at.last)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if at.end(); at.n != 0 {
		t.Errorf("a sound store: %s", at.last)
	}
	Check(at, dir, func(journal.Record) error { return errors.New("not mine") })
	if at.n != 1 {
		t.Errorf("a record that cannot be read: %d failures", at.n)
	}
	names, err := filepath.Glob(filepath.Join(dir, "seg-*"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	if err := os.Truncate(names[0], 4<<10+100); err != nil {
		t.Fatal(err)
	}
	if at.end(); at.n != 2 {
		t.Errorf("a damaged store: %d failures", at.n)
	}
}
