package journal

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Whoever is overtaken while it reads may meet what its successor left, which would be damage to an owner. It is none to it, and must not pass for any.
func TestOvertakenReaderFindsNoDamage(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(t.Context(), dir, Options{SegmentBytes: 8 << 10}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for {
		_, err := j.Append(Entry{Type: 1, Payload: []byte("acknowledged"), Account: Account{Live: 1}})
		if err == nil {
			break
		}
		if !errors.Is(err, ErrBehind) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for _, overtaken := range []bool{true, false} { // the second time, all is gone already
		before := func(o op) error {
			if o.kind != opWrite || parsedEpoch(o.name) == 0 { // the claim is there, and nothing was read
				return nil
			}
			segments, _ := filepath.Glob(filepath.Join(dir, "seg-*"))
			for _, s := range segments {
				if err := os.Remove(s); err != nil {
					return err
				}
			}
			if overtaken {
				return os.WriteFile(filepath.Join(dir, epochName(parsedEpoch(o.name)+1)), nil, 0o600)
			}
			return nil
		}
		_, err := Open(t.Context(), dir, Options{SegmentBytes: 8 << 10, before: before}, nil)
		if errors.Is(err, ErrFenced) != overtaken || errors.Is(err, ErrDamaged) == overtaken {
			t.Errorf("overtaken %v: %v", overtaken, err)
		}
	}
}

func parsedEpoch(name string) uint64 {
	e, _ := parseEpoch(name)
	return e
}
