package journal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// tape records every change to the disk, and what the owner was told, in order.
type tape struct {
	mu   sync.Mutex
	list []event
}

type event struct {
	op
	acked LSN // an acknowledgement, if not 0
}

func (tp *tape) before(o op) error {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	o.data = bytes.Clone(o.data)
	tp.list = append(tp.list, event{op: o})
	return nil
}

func (tp *tape) add(e event) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	tp.list = append(tp.list, e)
}

// take ends the recording.
func (tp *tape) take() []event {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	return tp.list
}

// at is the first event from on of that kind whose file's name begins so, or -1.
func (tp *tape) at(from int, kind opKind, prefix string) int {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	for i := from; i < len(tp.list); i++ {
		if e := tp.list[i]; e.acked == 0 && e.kind == kind && strings.HasPrefix(e.name, prefix) {
			return i
		}
	}
	return -1
}

var opNames = [...]string{"create", "allocate", "write", "sync", "rename", "remove", "sync directory", "mkdir"}

func (o op) String() string {
	s := opNames[o.kind] + " " + o.name
	switch o.kind {
	case opWrite:
		s += fmt.Sprintf(" %d+%d", o.off, len(o.data))
	case opRename:
		s += " to " + o.to
	}
	return s
}

// fate is what becomes of what was not synced.
type fate uint8

const (
	died      fate = iota // the process ended: the kernel has all it was given
	dropped               // power failed: nothing unsynced is there
	kept                  // power failed: all of it is there
	scattered             // power failed: each unsynced sector, size and name is there or not
	torn                  // power failed: all but a part of the last write is there
	nameless              // power failed: contents are there, unsynced names are not, unsynced removals neither
	fates
)

var fateNames = [fates]string{"process died", "unsynced dropped", "unsynced kept", "random sectors", "torn last write", "directory entry lost"}

func (f fate) String() string { return fateNames[f] }

// inode is a file as a crashed machine may remember it.
type inode struct {
	synced  []byte // survives everything
	current []byte // what the kernel holds
	pending []op   // changes since the last sync
}

// world replays a tape as far as a crash. It is stricter than a memory file system that forgets whole writes (pebble's): each name, each size and each
// sector of 512 octets survives for itself, and so does what lies between two syncs of a file in any mixture of old and new.
type world struct {
	files  map[string]*inode // names that the kernel holds
	synced map[string]*inode // names that survive
	last   *inode            // written last
	claim  uint64            // epoch that the owner has claimed
}

// remains are what a crash leaves: contents by name.
type remains map[string][]byte

// newWorld holds what a crash left, all of it on the disk.
func newWorld(im remains) *world {
	w := &world{files: map[string]*inode{}}
	for name, b := range im {
		w.files[name] = &inode{synced: b, current: bytes.Clone(b)}
	}
	delete(w.files, lockName) // not written through the disk: survive adds it
	w.synced = maps.Clone(w.files)
	return w
}

// clone is the same world, to go on in another way.
func (w *world) clone() *world {
	c := &world{files: map[string]*inode{}, synced: map[string]*inode{}, claim: w.claim}
	known := map[*inode]*inode{}
	same := func(f *inode) *inode {
		if known[f] == nil {
			known[f] = &inode{synced: f.synced, current: bytes.Clone(f.current), pending: slices.Clone(f.pending)}
		}
		return known[f]
	}
	for name, f := range w.files {
		c.files[name] = same(f)
	}
	for name, f := range w.synced {
		c.synced[name] = same(f)
	}
	return c
}

func grow(b []byte, n int64) []byte {
	if int64(len(b)) < n {
		b = append(b, make([]byte, n-int64(len(b)))...)
	}
	return b
}

func (w *world) apply(o op) {
	f := w.files[o.name]
	switch o.kind {
	case opCreate:
		w.files[o.name] = &inode{}
		if e, ok := parseEpoch(o.name); ok {
			w.claim = max(w.claim, e)
		}
	case opAllocate:
		f.current = grow(f.current, o.size)
		f.pending = append(f.pending, o)
	case opWrite:
		f.current = grow(f.current, o.off+int64(len(o.data)))
		copy(f.current[o.off:], o.data)
		f.pending = append(f.pending, o)
		w.last = f
	case opSync:
		f.synced, f.pending = f.written(), nil
	case opRename:
		w.files[o.to] = f
		delete(w.files, o.name)
	case opRemove:
		delete(w.files, o.name)
	case opSyncDir:
		w.synced = maps.Clone(w.files)
	}
}

// forget is a sync of a file that fails: the kernel takes for clean what it could not write. Whoever reads sees it, and no later sync writes it.
func (w *world) forget(name string) { w.files[name].pending = nil }

// written is what the disk holds once the kernel has written all that it knows to be dirty. After a sync that failed that is less than what it shows.
func (f *inode) written() []byte { return f.after(len(f.pending)) }

// after is what was synced, and the first n changes since.
func (f *inode) after(n int) []byte {
	b := bytes.Clone(f.synced)
	for _, o := range f.pending[:n] {
		if o.kind == opAllocate {
			b = grow(b, o.size)
		} else {
			b = grow(b, o.off+int64(len(o.data)))
			copy(b[o.off:], o.data)
		}
	}
	return b
}

// survive is what is left when the crash comes now.
func (w *world) survive(rng *rand.Rand, how fate) remains {
	names, keep := maps.Clone(w.files), rng.Float64()
	switch how {
	case dropped, nameless:
		names = maps.Clone(w.synced)
	case scattered:
		names = maps.Clone(w.synced)
		for name, f := range w.files {
			if rng.Float64() < keep {
				names[name] = f
			}
		}
		for name := range w.synced { // a removal that may have reached the disk
			if w.files[name] == nil && rng.Float64() < keep {
				delete(names, name)
			}
		}
	}
	im := remains{}
	for name, f := range names {
		switch {
		case how == dropped:
			im[name] = bytes.Clone(f.synced)
		case how == scattered:
			im[name] = f.scatter(rng, keep)
		case how == torn && f == w.last:
			im[name] = f.tear(rng)
		case how == died:
			im[name] = bytes.Clone(f.current)
		default:
			im[name] = f.written()
		}
	}
	im[lockName] = w.pulse(how)
	return im
}

var thisMachine = sync.OnceValues(func() (pulse, error) { return selfPulse("the owner that crashed") })

// pulse is the content of LOCK. Only where the machine is still the same one does recovery trust the mark to be exact.
func (w *world) pulse(how fate) []byte {
	p, err := thisMachine()
	p.PID, p.Epoch, p.Start, p.Beat = 1<<30, w.claim, 1, 7
	if how != died || err != nil {
		p.Boot = "the boot before"
	}
	b, _ := json.Marshal(p)
	return append(bytes.TrimRight(b, " "), bytes.Repeat([]byte{' '}, lockBytes-len(b))...)
}

// scatter is what was synced, and a random part of the sectors written since.
func (f *inode) scatter(rng *rand.Rand, keep float64) []byte {
	b := bytes.Clone(f.synced)
	for _, o := range f.pending {
		if o.kind == opAllocate {
			if rng.Float64() < keep {
				b = grow(b, o.size)
			}
			continue
		}
		o.sectors(func(off int64, data []byte) {
			if rng.Float64() < keep {
				b = grow(b, off+int64(len(data)))
				copy(b[off:], data)
			}
		})
	}
	return b
}

// tear is all but a part of the last write: its front, or its end, or what is around a hole.
func (f *inode) tear(rng *rand.Rand) []byte {
	n := len(f.pending)
	if n == 0 || f.pending[n-1].kind != opWrite {
		return f.written()
	}
	b, all := f.after(n-1), 0
	last := f.pending[n-1]
	last.sectors(func(int64, []byte) { all++ })
	from, to := rng.IntN(all), all // lost
	if rng.IntN(2) == 0 {
		to = from + rng.IntN(all-from) + 1
	}
	i := 0
	last.sectors(func(off int64, data []byte) {
		if i < from || i >= to {
			b = grow(b, off+int64(len(data)))
			copy(b[off:], data)
		}
		i++
	})
	return b
}

// sectors cuts a write where a disk does.
func (o op) sectors(part func(off int64, data []byte)) {
	for at := 0; at < len(o.data); {
		off := o.off + int64(at)
		n := min(len(o.data)-at, sectorSize-int(off%sectorSize))
		part(off, o.data[at:at+n])
		at += n
	}
}

// write puts them into a directory.
func (im remains) write(t testing.TB, dir string) {
	t.Helper()
	for name, b := range im {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
