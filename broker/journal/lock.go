package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
)

const (
	lockName  = "LOCK"
	lockBytes = 512 // of LOCK: one sector, so that a reader sees one pulse
)

// lockFile is LOCK: the lock that keeps a second owner away while the first lives, and the pulse by which candidates see that it does. It is never
// deleted, and replaced only where a lock is stolen from an owner that shows no life (see lease.go). It is not what makes a store safe (that is the epoch); it keeps owners from fencing each other for nothing.
type lockFile struct {
	file   *os.File
	before pulse // the last owner's; zero if there was none, or none that could be read
	mu     sync.Mutex
	me     pulse
	epoch  *markFile
	// stolen: it was taken from an owner that may go on
	stolen, released bool
}

var errLongPulse = errors.New("write lock: a name is too long")

func openLock(d *disk) (*os.File, error) {
	f, err := os.OpenFile(d.at(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	return f, nil
}

func readPulse(f *os.File) (p pulse, err error) {
	var b [lockBytes]byte
	n, err := f.ReadAt(b[:], 0)
	if n == 0 {
		return p, err
	}
	return p, json.Unmarshal(bytes.TrimRight(b[:n], " \n\x00"), &p)
}

// beat shows life.
func (l *lockFile) beat() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released {
		return nil
	}
	l.me.Beat++
	return l.write()
}

func (l *lockFile) write() error {
	b, err := json.Marshal(l.me)
	if err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	if len(b) >= lockBytes && l.me.Admin != "" {
		l.me.Admin = ""
		return l.write()
	}
	if len(b) >= lockBytes {
		return fmt.Errorf("%w: node name %q", errLongPulse, l.me.Node)
	}
	b = append(b, bytes.Repeat([]byte{' '}, lockBytes-1-len(b))...)
	if _, err := l.file.WriteAt(append(b, '\n'), 0); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	return nil
}

// own tells candidates our epoch.
func (l *lockFile) own(m *markFile) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch, l.me.Epoch = m, m.epoch
	return l.write()
}

// witnessed says that the mark of an epoch is exact: its owner was the last, and wrote it on this machine since it was started, so that what that
// process had handed to the kernel is what we read, though it may not be on the disk. An owner whose lock was stolen may write it yet.
func (l *lockFile) witnessed(epoch uint64) bool {
	return !l.stolen && l.before.Boot != "" && l.before.Boot == l.me.Boot && l.before.Epoch == epoch && epoch != 0
}

// left says that the last owner ended in good order where its mark is, and that nobody has claimed an epoch between its and ours. What it vouches for stays true
// wherever it ran and whatever happened since: it was durable before, and nobody can append to the log of an epoch but its owner. LOCK has no
// checksum, the mark has; and LOCK may be older than the log after a power failure, the epochs are not.
func (l *lockFile) left(m mark, ours uint64) bool {
	return !l.stolen && m.lsn > 0 && l.before.PID == 0 && l.before.Epoch == m.epoch && l.before.Last == m.lsn && m.epoch == ours-1
}

// claimed is our epoch's file, once we have an epoch.
func (l *lockFile) claimed() *markFile {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}

// release frees the lock. The pulse says so first, lest a candidate takes the process, which goes on, for a frozen owner; it also says who is to be
// next. An owner that was fenced leaves the file to its successor. Release may be called again.
func (l *lockFile) release(fenced bool, last LSN, successor string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released {
		return nil
	}
	l.released = true
	var err error
	if !fenced {
		l.me.PID, l.me.Start, l.me.Last, l.me.Successor = 0, 0, last, successor
		if err = l.write(); errors.Is(err, errLongPulse) {
			l.me.Successor = ""
			err = l.write()
		}
	}
	return errors.Join(err, l.file.Close())
}
