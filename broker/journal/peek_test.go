package journal

import (
	"os"
	"path/filepath"
	"testing"
)

// sparesAhead is how many segments are prepared, the one that is being begun included.
func (j *Journal) sparesAhead() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return int(j.jan.claimed) + len(j.jan.spares) - int(j.cur.id)
}

func pulseOf(t testing.TB, dir string) pulse {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := readPulse(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
