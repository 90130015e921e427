package session

// Chunk is a pooled block of octets that several Bufs may point into. Octets once handed out are never changed; a reader may append
// behind them. Reference counts are not atomic: a Chunk belongs to one connection and is touched under its mutex.
type Chunk struct {
	Data []byte // the shell's: it fills this and hands out ranges
	refs int
	free func(*Chunk)
}

// NewChunk returns a chunk with one reference, the maker's. free is called when the last reference is dropped; it may be nil.
func NewChunk(data []byte, free func(*Chunk)) *Chunk { return &Chunk{Data: data, refs: 1, free: free} }

// Revive gives a chunk that came back through free its first reference again.
func (c *Chunk) Revive() { c.refs = 1 }

// Refs is the number of references, for tests and for the shell to see whether it is the only holder.
func (c *Chunk) Refs() int { return c.refs }

// Hold adds a reference.
func (c *Chunk) Hold() { c.refs++ }

// Release drops a reference.
func (c *Chunk) Release() {
	if c.refs--; c.refs == 0 && c.free != nil {
		c.free(c)
	} else if c.refs < 0 {
		panic("session: chunk released more often than held")
	}
}

// Buf is a range of a Chunk. The zero Buf is empty. Copying a Buf copies no octets and no reference.
type Buf struct {
	chunk    *Chunk
	off, end int
}

// Range is the Buf of c.Data[off:end].
func (c *Chunk) Range(off, end int) Buf { return Buf{c, off, end} }

// Bytes is the octets themselves: read only, and valid while a reference is held.
func (b Buf) Bytes() []byte {
	if b.chunk == nil {
		return nil
	}
	return b.chunk.Data[b.off:b.end:b.end]
}

// Len is the number of octets.
func (b Buf) Len() int { return b.end - b.off }

// Slice is the sub-range [i:j), under the same reference.
func (b Buf) Slice(i, j int) Buf { return Buf{b.chunk, b.off + i, b.off + j} }

// Keep takes a reference and returns b.
func (b Buf) Keep() Buf {
	if b.chunk != nil {
		b.chunk.Hold()
	}
	return b
}

// Drop gives the reference back.
func (b Buf) Drop() {
	if b.chunk != nil {
		b.chunk.Release()
	}
}
