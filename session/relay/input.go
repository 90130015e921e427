package relay

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/understudy-mq/understudy/session"
)

// A chunk with less room than this is not read into any more, unless what is missing fits; the rest of a frame moves to a fresh one.
const minRoom = 4 << 10

// input is the read side of a leg: a chunk, and the range of it that was read and not taken yet. An idle leg holds no chunk.
type input struct {
	pool       *chunkPool
	mu         *sync.Mutex // Conn.mu: references are counted under it
	conn       net.Conn
	raw        syscall.RawConn // nil where the connection is not a socket: TLS
	idle       []byte          // where that is waited for
	chunk      *session.Chunk
	start, end int
	want       int  // octets from start that the recorder waits for
	parked     bool // the chunk was put into lent

	try func(fd uintptr) bool // made once, so that reading allocates nothing
	n   int
	err error

	lent atomic.Pointer[session.Chunk] // the chunk of a reader that waits with nothing unread in it: whoever swaps it out has it
}

func (in *input) init(pool *chunkPool, mu *sync.Mutex, conn net.Conn) {
	in.pool, in.mu, in.conn, in.raw = pool, mu, conn, nil
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			in.raw = raw
		}
	}
	if in.try == nil {
		in.try = in.tryRead
	}
	if in.raw == nil && in.idle == nil {
		in.idle = make([]byte, idleBytes)
	}
}

func (in *input) have() int           { return in.end - in.start }
func (in *input) unread() session.Buf { return in.chunk.Range(in.start, in.end) }
func (in *input) room() []byte        { return in.chunk.Data[in.end:] }

// took notes what the recorder took, and lets a chunk go that has nothing left and no room or no other holder. Under mu.
func (in *input) took(n, want int) {
	in.start += n
	if in.want = want; in.start == in.end && (in.chunk.Refs() == 1 || len(in.room()) < minRoom) {
		in.release()
	}
}

// release lets the chunk go. Under mu.
func (in *input) release() {
	if in.chunk != nil {
		in.chunk.Release()
	}
	in.chunk, in.start, in.end, in.want = nil, 0, 0, 0
}

// idleBytes is what a connection that cannot be waited for without a buffer is given while nothing was read of a frame: a heart-beat or
// a small frame fits, and the rest of a larger one is read into the chunk that it then gets.
const idleBytes = 512

// fill blocks until something was read. An idle connection is waited for without a chunk in hand.
func (in *input) fill() error {
	in.grow()
	if in.raw == nil {
		if in.chunk != nil {
			n, err := in.conn.Read(in.room())
			in.end += n
			return err
		}
		n, err := in.conn.Read(in.idle)
		if n > 0 {
			in.chunk = in.pool.get()
			in.end = copy(in.chunk.Data, in.idle[:n])
		}
		return err
	}
	in.n, in.err = 0, nil
	err := in.raw.Read(in.try)
	in.reclaim()
	if err != nil {
		return err
	}
	in.end += max(in.n, 0)
	return in.err
}

// surrender lets go the chunk of a reader that waits with one in hand, because what was read into it is still in use elsewhere. It is called
// under mu; the reader can hold no lock while it waits.
func (in *input) surrender() {
	if c := in.lent.Swap(nil); c != nil {
		c.Release()
	}
}

// tryRead is one non-blocking read; false makes the runtime wait for readiness and call again.
func (in *input) tryRead(fd uintptr) bool {
	in.reclaim()
	fresh := in.chunk == nil
	if fresh {
		in.chunk = in.pool.get()
	}
	for {
		if in.n, in.err = syscall.Read(int(fd), in.room()); in.err != syscall.EINTR {
			break
		}
	}
	switch {
	case in.err == syscall.EAGAIN:
		if fresh {
			in.pool.put(in.chunk)
			in.chunk = nil
		} else if in.start == in.end {
			in.parked = true
			in.lent.Store(in.chunk)
		}
		return false
	case in.err == nil && in.n == 0:
		in.err = io.EOF
	}
	return true
}

// reclaim makes the chunk the reader's again after a wait, or forgets it.
func (in *input) reclaim() {
	if !in.parked {
		return
	}
	if in.parked = false; in.lent.Swap(nil) == nil {
		in.chunk, in.start, in.end = nil, 0, 0
	}
}

// grow makes room for what the recorder waits for. No announced length is believed: room grows with what has arrived, by doubling.
func (in *input) grow() {
	if in.chunk == nil {
		return
	}
	have, room := in.have(), len(in.room())
	if room >= minRoom || room >= max(in.want-have, 1) {
		return
	}
	size := 2 * have // the recorder does not know how much is missing
	if in.want > have+1 {
		size = min(in.want, 2*have+in.pool.size)
	}
	size = max(in.pool.size, have+minRoom, size)
	next := in.pool.getSize(size)
	copy(next.Data, in.chunk.Data[in.start:in.end])
	in.mu.Lock()
	in.chunk.Release()
	in.mu.Unlock()
	in.chunk, in.start, in.end = next, 0, have
}

// chunkPool holds read buffers of one size for all connections.
type chunkPool struct {
	size int
	free sync.Pool
	back func(*session.Chunk)
}

var pools sync.Map // of int to *chunkPool

func poolOf(size int) *chunkPool {
	p := &chunkPool{size: size}
	p.back = p.put
	p.free.New = func() any { return session.NewChunk(make([]byte, size), p.back) }
	actual, _ := pools.LoadOrStore(size, p)
	return actual.(*chunkPool)
}

// get returns a chunk whose only reference is the caller's.
func (p *chunkPool) get() *session.Chunk {
	c := p.free.Get().(*session.Chunk)
	c.Revive()
	return c
}

// getSize is get for frames that do not fit the usual size.
func (p *chunkPool) getSize(size int) *session.Chunk {
	if size == p.size {
		return p.get()
	}
	return session.NewChunk(make([]byte, size), nil)
}

func (p *chunkPool) put(c *session.Chunk) { p.free.Put(c) }
