//go:build linux

package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// cramped is a journal whose disk can be full.
type cramped struct {
	*actor
	err  error // of the last put
	full atomic.Bool
	more atomic.Int64 // so often it is not, yet
	at   opKind       // what meets it
	dull bool         // and space cannot be reserved
	made sync.Map     // names of files that were synced
	mu   sync.Mutex
	said []bool // by Space, without what only ends an ErrBehind
	ends int    // of those
}

const crampedSegment = 16 << 10

func (c *cramped) before(o op) error {
	_, ok := parsePlace(o.name)
	if o.kind == opCreate {
		c.made.Delete(o.name)
	}
	if o.kind == opSync && ok {
		if _, made := c.made.LoadOrStore(o.name, true); made {
			return nil // only the first sync, of a file that holds nothing, may fail so
		}
	}
	switch {
	case c.dull && o.kind == opAllocate:
		return errors.ErrUnsupported
	case !c.full.Load() || !ok || o.kind != c.at || o.kind == opWrite && !allZero(o.data):
		return nil
	}
	if c.more.Add(-1) >= 0 {
		return nil
	}
	return syscall.ENOSPC
}

func (c *cramped) open(t *testing.T, dir string) {
	t.Helper()
	st := newState()
	opt := Options{SegmentBytes: crampedSegment, Head: c.head, before: c.before, Space: func(full bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !full && (len(c.said) == 0 || !c.said[len(c.said)-1]) {
			c.ends++
			return
		}
		c.said = append(c.said, full)
	}}
	c.s = mustOpen(t, dir, opt, func(r Record) (Account, error) { return st.apply(r) })
	if !st.equal(c.state) {
		t.Fatalf("recovered %v, want %v", st, c.state)
	}
}

// put appends one record, waits for a file to be made if it must, and keeps the error.
func (c *cramped) put(items ...item) (Position, bool) { return c.try(c.s.Append, items...) }

func (c *cramped) try(to func(Entry) (Position, error), items ...item) (Position, bool) {
	payload, front := payloadOf(items)
	r := Record{Type: 1, Size: len(payload), Payload: payload}
	dry := c.state.clone()
	account, err := dry.apply(r)
	if err != nil {
		c.s.t.Fatal(err)
	}
	if r.Position, c.err = to(Entry{Type: 1, Payload: payload, Front: front, Account: account}); c.err != nil {
		return r.Position, false
	}
	c.state.apply(r)
	c.log = append(c.log, told{r, account})
	return r.Position, true
}

// fill begins things until there is no space.
func (c *cramped) fill() (n int) {
	c.s.t.Helper()
	for last := Segment(0); c.err == nil; {
		at, ok := c.put(c.begin())
		if ok {
			n++
		}
		if at.Segment != last || n%8 == 0 { // and the janitor keeps up
			last = at.Segment
			c.s.idle()
		}
		if n > 10_000 {
			c.s.t.Fatal("the disk does not become full")
		}
	}
	c.s.idle()
	c.refused()
	return n
}

// drain ends all things but a few.
func (c *cramped) drain() {
	c.s.t.Helper()
	for id := 1; len(c.state.alive) > 20; id++ {
		if _, ok := c.state.alive[id]; ok {
			c.put(c.end(id))
		}
		if c.err != nil {
			c.s.t.Fatal(c.err, c.s.Stats())
		}
		if id%8 == 0 {
			c.settle()
		}
	}
	c.settle()
}

// refused checks that the last Append was, and that nothing else is wrong.
func (c *cramped) refused() {
	c.s.t.Helper()
	if !errors.Is(c.err, ErrFull) || !strings.Contains(c.err.Error(), c.s.disk.path) {
		c.s.t.Fatal(c.err)
	}
	c.err = nil
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if len(c.s.failed) > 0 {
		c.s.t.Fatal("failed:", c.s.failed)
	}
}

// toldOf waits for Space.
func (c *cramped) toldOf(want ...bool) {
	c.s.t.Helper()
	c.s.idle()
	c.s.rest(fullRetry, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return slices.Equal(c.said, want)
	})
}

// A disk that becomes full stops what brings something, and nothing else; what was acknowledged is there; when there is space again all goes on.
func TestFullDisk(t *testing.T) {
	for _, tc := range []struct {
		name string
		at   opKind
		dull bool
	}{
		{"create", opCreate, false},
		{"allocate", opAllocate, false},
		{"sync", opSync, false},
		{"zeros, where nothing can be reserved", opWrite, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := quickDir(t)
			c := &cramped{actor: newActor(newRand(t)), at: tc.at, dull: tc.dull}
			c.open(t, dir)
			c.run(200)
			c.settle()
			c.s.idle()
			c.full.Store(true)
			c.fill()
			c.toldOf(true)
			st := c.s.Stats()
			if !st.Full || c.s.sparesAhead() < 1 {
				t.Fatalf("refused before it had to be: %+v", st)
			}
			for range 10 { // records that bring nothing, or are marked, are taken
				c.put(c.end(c.any()))
				at, err := c.s.Append(Entry{Type: 1, Payload: []byte("|"), Reserve: true, Account: Account{Live: 0}})
				if err != nil {
					t.Fatal(err)
				}
				c.s.durable(at.LSN)
			}
			if c.err != nil {
				t.Fatal(c.err)
			}
			c.drain() // so is what makes segments go
			if c.s.Stats().Deleted == 0 {
				t.Fatalf("%+v", c.s.Stats())
			}
			c.empty()
			c.full.Store(false)
			c.toldOf(true, false)
			for range 100 {
				c.put(c.begin())
			}
			c.settle()
			if c.err != nil {
				t.Fatal(c.err)
			}
			c.s.Close()
			c.open(t, dir)
		})
	}
}

// The reserve can be used up, by acknowledgements that free nothing. Then nothing is taken, nothing fails, nothing is lost.
func TestReserveUsedUp(t *testing.T) {
	dir := quickDir(t)
	c := &cramped{actor: newActor(newRand(t)), at: opAllocate}
	c.open(t, dir)
	for range 300 {
		c.put(c.begin())
	}
	c.settle()
	c.s.idle()
	c.full.Store(true)
	c.fill()
	c.toldOf(true)
	ended := 0
	var last Segment
	for id := c.ids; c.err == nil; id-- { // the newest first, and one of each segment is left
		at, ok := c.state.alive[id]
		if id == 0 {
			t.Fatalf("%d were ended, and the reserve was not used up: %+v", ended, c.s.Stats())
		}
		if !ok || at.Segment != last {
			last = at.Segment
			continue
		}
		if _, ok := c.put(c.end(id), item{op: '#', id: 1}, item{'~', id, at.Segment}); ok { // a little more than needed
			ended++
		}
		c.settle()
	}
	c.refused()
	if ended < 30 || c.s.sparesAhead() != 0 {
		t.Errorf("%d were ended with the reserve; %d segments are prepared", ended, c.s.sparesAhead())
	}
	c.full.Store(false)
	c.toldOf(true, false)
	c.put(c.begin())
	if c.err != nil {
		t.Fatal(c.err)
	}
	c.s.Close()
	c.open(t, dir)
}

// overrun begins things, and does not wait for files to be made, until the disk is known to be full. It returns how often there was no file yet.
func (c *cramped) overrun() (behind int) {
	c.s.t.Helper()
	for n := 0; ; n++ {
		item := c.begin()
		for patience := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Microsecond) {
			if _, ok := c.try(c.s.Journal.Append, item); ok || !errors.Is(c.err, ErrBehind) {
				break
			}
			if behind++; time.Now().After(patience) {
				c.s.t.Fatal("there is no file, and the disk is not full either")
			}
		}
		if c.err != nil {
			c.refused()
			return behind
		}
		if n > 10_000 {
			c.s.t.Fatal("the disk does not become full")
		}
	}
}

// Whoever appends faster than files are made waits for them, and is refused when there are none: nothing that was taken waits for space, and what frees space is
// taken, wherever the disk became full.
func TestFullDiskBehindAppend(t *testing.T) {
	for _, after := range []int{0, 1, 2, 3, 5, 8} { // files that are made before
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			dir := quickDir(t)
			c := &cramped{actor: newActor(newRand(t)), at: opCreate}
			c.more.Store(int64(after))
			c.open(t, dir)
			c.full.Store(true)
			t.Logf("behind %d times, %d things were taken", c.overrun(), len(c.log))
			c.toldOf(true)
			c.settled()     // in spite of the full disk
			for range 100 { // the reserve is there
				at, err := c.s.Append(Entry{Type: 1, Payload: []byte("|")})
				if err != nil {
					t.Fatal(err, c.s.Stats())
				}
				c.s.durable(at.LSN)
			}
			if len(c.state.alive) > 0 { // it may have been full from the beginning
				c.put(c.end(c.any()))
			}
			c.settled()
			c.full.Store(false)
			c.toldOf(true, false)
			c.put(c.begin())
			if c.settled(); c.err != nil {
				t.Fatal(c.err)
			}
			c.s.Close()
			c.open(t, dir)
		})
	}
}

// No record begins a segment that has no file, whatever it is for. All that was taken is durable while the file is being made, and Space says when it is, or
// cannot be.
func TestNoSegmentBeforeItsFile(t *testing.T) {
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprintf("full=%v", full), func(t *testing.T) {
			held, hold := make(chan struct{}), atomic.Bool{}
			release := sync.OnceFunc(func() { close(held) })
			defer release()
			space := make(chan bool, 10)
			opt := Options{SegmentBytes: crampedSegment, Space: func(full bool) { space <- full }, before: func(o op) error {
				if _, ok := parsePlace(o.name); !ok || o.kind != opCreate || !hold.Load() {
					return nil
				}
				if <-held; full && hold.Load() {
					return syscall.ENOSPC
				}
				return nil
			}}
			s := mustOpen(t, quickDir(t), opt, nil)
			s.idle()
			hold.Store(true)
			e := Entry{Type: 1, Payload: make([]byte, 100)} // brings nothing
			var last LSN
			for {
				at, err := s.Journal.Append(e)
				if errors.Is(err, ErrBehind) && errors.Is(err, ErrFull) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				if last = at.LSN; at.Segment > 1+spareSegments {
					t.Fatalf("segment %d has begun, of which there can be no file", at.Segment)
				}
			}
			s.durable(last)
			select {
			case full := <-space:
				t.Fatalf("told of space: %v", full)
			default:
			}
			release()
			if told := <-space; told != full {
				t.Fatalf("told of space: %v", told)
			}
			if full {
				if _, err := s.Journal.Append(e); !errors.Is(err, ErrFull) || errors.Is(err, ErrBehind) {
					t.Fatal(err)
				}
				hold.Store(false)
				if told := <-space; told {
					t.Fatal("still full")
				}
			}
			at, err := s.Journal.Append(e)
			if err != nil {
				t.Fatal(err)
			}
			s.durable(at.LSN)
		})
	}
}

// settled waits until all that was taken is durable.
func (c *cramped) settled() {
	c.s.t.Helper()
	var last LSN
	if n := len(c.log); n > 0 {
		last = c.log[n-1].LSN
	}
	c.s.until("what was taken", func() bool { return c.s.acked >= last || len(c.s.failed) > 0 })
	if len(c.s.failed) > 0 {
		c.s.t.Fatal(c.s.failed)
	}
}

// Close does not wait for space. What it could not write was never acknowledged.
func TestCloseOfFullStore(t *testing.T) {
	dir := quickDir(t)
	c := &cramped{actor: newActor(newRand(t)), at: opCreate}
	big := func() []Entry {
		return append(c.head(), Entry{Type: 2, Payload: []byte("|" + strings.Repeat("s", crampedSegment))})
	}
	opt := Options{SegmentBytes: crampedSegment, Head: big, before: func(o op) error {
		if c.full.Load() && o.kind == opAllocate && o.size > crampedSegment { // a head that has grown beyond the files that are prepared
			return syscall.ENOSPC
		}
		return nil
	}}
	c.s = mustOpen(t, dir, opt, nil)
	c.s.idle()
	c.full.Store(true)
	c.overrun()
	acked := c.s.acked
	if err := c.s.Close(); !errors.Is(err, ErrFull) {
		t.Errorf("close: %v", err)
	}
	st := newState()
	s := mustOpen(t, dir, Options{SegmentBytes: crampedSegment}, func(r Record) (Account, error) { return st.apply(r) })
	if s.base-1 < acked || !st.equal(c.through(s.base-1)) {
		t.Errorf("acknowledged %d, recovered %d", acked, s.base-1)
	}
}

// On a real file system that is full: everything that was acknowledged is there, the store is drained, and fills again; and it opens when hardly
// anything is left.
func TestSmallDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	base := t.TempDir()
	if err := syscall.Mount("tmpfs", base, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("cannot mount a small file system: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(base, 0); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(base, "store")
	c := &cramped{actor: newActor(newRand(t))}
	opt := Options{SegmentBytes: 128 << 10, Head: c.head}
	open := func() {
		st := newState()
		c.s = mustOpen(t, dir, opt, func(r Record) (Account, error) { return st.apply(r) })
		if !st.equal(c.state) {
			t.Fatalf("recovered %d things, want %d", len(st.alive), len(c.state.alive))
		}
	}
	open()
	for round := range 2 {
		n := c.fill()
		if round == 0 && n < 500 {
			t.Errorf("%d things in 1 MiB", n)
		}
		c.drain()
		c.empty()
		c.s.rest(fullRetry, func() bool { return !c.s.Stats().Full })
	}
	c.fill()
	c.s.Close()
	filler, err := os.Create(filepath.Join(base, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	for err == nil { // all but the last 100 KiB
		_, err = filler.Write(make([]byte, 4096))
	}
	size, err := filler.Seek(0, 2)
	if err == nil {
		err = filler.Truncate(size - 100<<10)
	}
	if err != nil {
		t.Fatal(err)
	}
	open()
	if c.s.cur.size >= opt.SegmentBytes {
		t.Fatalf("there was space: %+v", c.s.cur)
	}
	c.drain()
	if err := filler.Truncate(0); err != nil {
		t.Fatal(err)
	}
	c.s.rest(fullRetry, func() bool { return !c.s.Stats().Full && c.s.sparesAhead() == spareSegments })
	c.fill()
	c.s.Close()
	open()
	c.s.Close()
}
