package sessiontest

import (
	"bytes"
	"fmt"

	"github.com/understudy-mq/understudy/session"
)

// poison fills chunks that nobody holds: octets sent or shown from a chunk that was released too early are recognised at the other end.
const poison = 0xDB

// pool hands out chunks and accounts for them. Each chunk has a shadow of what was read into it, so that a recorder that writes into
// borrowed octets is found when the chunk comes back.
type pool struct {
	size   int
	idle   []*session.Chunk
	shadow map[*session.Chunk]*[]byte
	out    int
	broken string // first complaint
}

func newPool(size int) *pool { return &pool{size: size, shadow: map[*session.Chunk]*[]byte{}} }

// get returns a chunk of at least n octets with one reference. Idle chunks are reused oldest first: what was released too early stays
// poisoned for as long as possible.
func (p *pool) get(n int) *session.Chunk {
	p.out++
	if n <= p.size && len(p.idle) > 4 {
		c := p.idle[0]
		p.idle = append(p.idle[:0], p.idle[1:]...)
		c.Revive()
		return c
	}
	c := session.NewChunk(make([]byte, max(n, p.size)), p.free)
	p.shadow[c] = new([]byte)
	return c
}

// fill copies octets behind the used ones of a chunk.
func (p *pool) fill(c *session.Chunk, at int, octets []byte) {
	copy(c.Data[at:], octets)
	s := p.shadow[c]
	*s = append((*s)[:at], octets...)
}

func (p *pool) free(c *session.Chunk) {
	p.out--
	s := p.shadow[c]
	if !bytes.Equal(c.Data[:len(*s)], *s) && p.broken == "" {
		p.broken = fmt.Sprintf("octets of a chunk were changed after they were handed out: %q became %q", *s, c.Data[:len(*s)])
	}
	*s = (*s)[:0]
	for i := range c.Data {
		c.Data[i] = poison
	}
	if len(c.Data) == p.size {
		p.idle = append(p.idle, c)
	} else {
		delete(p.shadow, c)
	}
}

// check returns what is wrong once everybody should have let go.
func (p *pool) check() string {
	if p.broken == "" && p.out != 0 {
		return fmt.Sprintf("%d chunks are still referenced after Close", p.out)
	}
	return p.broken
}

// fifo is octets under way.
type fifo struct {
	buf  []byte
	head int
}

func (f *fifo) len() int { return len(f.buf) - f.head }

func (f *fifo) push(p []byte) {
	if f.head == len(f.buf) {
		f.buf, f.head = f.buf[:0], 0
	}
	f.buf = append(f.buf, p...)
}

// pop returns the first n octets; they are valid until the next push.
func (f *fifo) pop(n int) []byte {
	p := f.buf[f.head : f.head+n]
	f.head += n
	return p
}

func (f *fifo) truncate(n int) { f.buf = f.buf[:f.head+n] }
