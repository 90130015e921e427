package stomp

import "github.com/understudy-mq/understudy/session"

const (
	smallFrame = 512      // octets; a smaller frame that is kept is copied
	arenaChunk = 16 << 10 // octets
)

// arena packs small frames that are kept: held where they were read, a few of them could pin a read buffer each, many times what the
// window counts. Large ones are not copied.
type arena struct {
	chunk *session.Chunk
	used  int
}

// keep returns b with a reference of the caller's.
func (a *arena) keep(b session.Buf) session.Buf {
	n := b.Len()
	if n >= smallFrame {
		return b.Keep()
	}
	if a.chunk == nil || a.used+n > arenaChunk {
		a.drop()
		a.chunk = session.NewChunk(make([]byte, arenaChunk), nil)
	}
	copy(a.chunk.Data[a.used:], b.Bytes())
	a.used += n
	return a.chunk.Range(a.used-n, a.used).Keep()
}

// drop lets the current chunk go; what was kept in it stays.
func (a *arena) drop() {
	if a.chunk != nil {
		a.chunk.Release()
	}
	a.chunk, a.used = nil, 0
}
