package session

import "time"

// Out is how a recorder speaks: octets for either leg, and wishes. It is the shell's and reused between calls; what a call queues on it is
// written after the call, in order. Now is set before each call.
type Out struct {
	Now time.Time
	// Listening is since when the shell has been waiting for octets of each leg; zero while it does something else. Silence of a leg that
	// nobody listens to is no evidence.
	Listening [2]time.Time

	// Wake is when Tick is wanted; zero means never. The recorder sets it; it stays until changed.
	Wake time.Time
	// Pause asks the shell not to read a leg. It stays until changed.
	Pause [2]bool
	// Arrival asks for Wrote(Client) as the client's kernel acknowledges octets, also when nothing more is written. It stays until changed.
	Arrival bool
	// Kept is how many octets the recorder keeps for a replay. The recorder sets it whenever that changes; the shell adds all sessions up, and may read a
	// client of whom something is kept no further until brokers have confirmed more.
	Kept int
	// Open says that the client has a transaction open: what is kept can only be let go when its end arrives, so it is read whatever Kept is. The
	// recorder sets it; it stays until changed.
	Open bool
	// Live is set when a replay (or the first login) is confirmed: the session runs on the current broker.
	Live bool
	// Move asks the shell to leave the current broker and dial again; the error says why. The shell clears it, calls Down, then Up.
	Move error
	// End ends the session once what is queued for the client was written.
	End *Fault

	legs   [2]queue
	inject injector
}

// Injected octets (receipts, acknowledgements, login) come from small chunks. The first is small, for most sessions are idle and say no more than a
// heart-beat; one that is still in use when there is no room left is followed by one of twice its size.
const (
	injectFirst = 64
	injectMost  = 4 << 10
)

type queue struct {
	bufs []Buf
	size int
}

// injector hands out small ranges from a chunk, from its beginning again when all that it handed out came back. Of the largest size it keeps one chunk
// that came back for the next.
type injector struct {
	chunk *Chunk
	used  int
	spare *Chunk
}

func (in *injector) take(n int) Buf {
	if in.chunk != nil && in.chunk.Refs() == 1 {
		in.used = 0 // nobody is left to see the octets change
	}
	if in.chunk == nil || len(in.chunk.Data)-in.used < n {
		size := injectFirst
		if in.chunk != nil {
			size = 2 * len(in.chunk.Data)
		}
		in.drop()
		for size < n {
			size *= 2
		}
		switch {
		case n > injectMost:
			in.chunk = NewChunk(make([]byte, n), nil)
		case size < injectMost:
			in.chunk = NewChunk(make([]byte, size), nil)
		case in.spare != nil:
			in.chunk, in.spare = in.spare, nil
			in.chunk.Revive()
		default:
			in.chunk = NewChunk(make([]byte, injectMost), func(c *Chunk) { in.spare = c })
		}
	}
	in.used += n
	return in.chunk.Range(in.used-n, in.used)
}

// trim lets go what a session that says little does not need.
func (in *injector) trim() {
	if in.spare = nil; in.chunk != nil && in.chunk.Refs() == 1 && len(in.chunk.Data) > injectFirst {
		in.drop()
		in.spare = nil // where the chunk may have gone
	}
}

func (in *injector) drop() {
	if in.chunk != nil {
		in.chunk.Release()
	}
	in.chunk, in.used = nil, 0
}

// Ref queues a range for a leg; Out takes its own reference. Ranges that continue each other become one.
func (o *Out) Ref(leg Leg, b Buf) {
	if b.Len() == 0 {
		return
	}
	q := &o.legs[leg]
	q.size += b.Len()
	if n := len(q.bufs); n > 0 {
		if last := &q.bufs[n-1]; last.chunk == b.chunk && last.end == b.off {
			last.end = b.end
			return
		}
	}
	q.bufs = append(q.bufs, b.Keep())
}

// Append queues a copy of p.
func (o *Out) Append(leg Leg, p []byte) { copy(o.Grow(leg, len(p)), p) }

// Grow queues n octets and returns them to be filled in before the call ends.
func (o *Out) Grow(leg Leg, n int) []byte {
	if n == 0 {
		return nil
	}
	b := o.inject.take(n)
	o.Ref(leg, b)
	return b.Bytes()
}

// Queued is the number of octets waiting for a leg.
func (o *Out) Queued(leg Leg) int { return o.legs[leg].size }

// Take hands the queued ranges of a leg to the shell, with their references, appended to dst.
func (o *Out) Take(leg Leg, dst []Buf) []Buf {
	q := &o.legs[leg]
	dst = append(dst, q.bufs...)
	q.empty()
	return dst
}

// Discard drops what is queued for a leg: its connection is gone.
func (o *Out) Discard(leg Leg) {
	q := &o.legs[leg]
	for _, b := range q.bufs {
		b.Drop()
	}
	q.empty()
}

// A queue that grew beyond this for a burst is not kept.
const keptBufs = 4 << 10

func (q *queue) empty() {
	clear(q.bufs)
	if q.bufs, q.size = q.bufs[:0], 0; cap(q.bufs) > keptBufs {
		q.bufs = nil
	}
}

// Trim gives back memory that was of use while there was more to say. It is for a session that is idle.
func (o *Out) Trim() {
	o.inject.trim()
	for l := range o.legs {
		if q := &o.legs[l]; len(q.bufs) == 0 && cap(q.bufs) > idleBufs {
			q.bufs = nil
		}
	}
}

// An idle session keeps a queue of this many ranges: that of its heart-beats.
const idleBufs = 1

// Close drops everything.
func (o *Out) Close() {
	o.Discard(Client)
	o.Discard(Broker)
	o.inject.drop()
	o.inject.spare = nil
}
