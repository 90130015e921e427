package sessiontest

import (
	"errors"
	"io"
	"time"

	"github.com/understudy-mq/understudy/session"
)

// Start is the virtual time of the beginning.
var Start = time.Unix(1_000_000_000, 0)

var errReset = errors.New("connection reset by peer")

// input is what was read from a leg and not taken yet.
type input struct {
	chunk    *session.Chunk
	off, end int
	want     int  // the recorder asked not to be called with less
	again    bool // the leg was paused with octets untaken, and is not paused any more
}

func (in *input) len() int { return in.end - in.off }

// shell drives one recorder as the contract of session.Recorder allows.
type shell struct {
	w      *World
	rec    session.Recorder
	out    session.Out
	pool   *pool
	in     [2]input
	queue  [2][]session.Buf // written in order, the first of them from skip on
	skip   [2]int
	wrote  [2]uint64 // octets that have left for the leg since it came up
	told   [2]uint64 // of which the recorder knows
	paused [2]bool   // after the last call

	link     *link
	attempt  uint64
	dialing  bool
	failures int // connections in a row that were lost before they had been live for long
	dialAt   time.Duration
	ended    bool
	eof      bool // ClientEOF was called
	deaf     bool // the client is gone: nothing can be written to it
	move     error
	scratch  []byte

	loses, releases bool // defects, to prove the verdicts
}

// before prepares out for a call.
func (s *shell) before() {
	s.out.Now = Start.Add(s.w.now)
	s.listen(session.Client, !s.paused[session.Client] && !s.eof)
	s.listen(session.Broker, !s.paused[session.Broker] && s.link != nil)
}

// listen tells the recorder since when the leg has been waited for.
func (s *shell) listen(leg session.Leg, now bool) {
	switch {
	case !now:
		s.out.Listening[leg] = time.Time{}
	case s.out.Listening[leg].IsZero():
		s.out.Listening[leg] = s.out.Now
	}
}

// after takes in what a call wished for.
func (s *shell) after() {
	for leg := session.Client; leg <= session.Broker; leg++ {
		s.queue[leg] = s.out.Take(leg, s.queue[leg])
		if s.paused[leg] != s.out.Pause[leg] {
			s.paused[leg] = s.out.Pause[leg]
			s.in[leg].again = !s.paused[leg] && s.in[leg].len() > 0
			s.w.Tracef("recorder pauses the %v leg: %v", leg, s.paused[leg])
		}
	}
	if s.link == nil || s.deaf {
		s.discard()
	}
	if s.out.Live {
		s.out.Live = false
		s.w.live, s.w.liveSince = true, s.w.now
		s.w.Tracef("recorder: live on link %d", s.attempt)
	}
	if s.out.Move != nil {
		s.move, s.out.Move = s.out.Move, nil
		s.w.Tracef("recorder wants to move: %v", s.move)
	}
	if s.out.End != nil && !s.ended {
		s.ended, s.w.EndCode, s.w.EndCause = true, s.out.End.Code, s.out.End.Cause
		s.w.Tracef("recorder ends the session: %s: %v", s.out.End.Code, s.out.End.Cause)
	}
}

// discard drops what waits for a leg that is not there.
func (s *shell) discard() {
	for leg := session.Client; leg <= session.Broker; leg++ {
		if leg == session.Broker && s.link == nil || leg == session.Client && s.deaf {
			for _, b := range s.queue[leg] {
				b.Drop()
			}
			s.queue[leg], s.skip[leg] = s.queue[leg][:0], 0
			s.out.Discard(leg)
		}
	}
}

// read hands octets that were read from a leg to the recorder.
func (s *shell) read(leg session.Leg, p []byte) {
	in := &s.in[leg]
	if s.loses && leg == session.Client && len(p) > 1 && s.w.Rand.Uint32()&31 == 0 {
		p = p[1:]
	}
	if in.chunk == nil || in.end+len(p) > len(in.chunk.Data) {
		c := s.pool.get(max(in.len()+len(p), min(in.want, 1<<20)))
		rest := 0
		if in.chunk != nil {
			rest = in.len()
			s.scratch = append(s.scratch[:0], in.chunk.Data[in.off:in.end]...)
			s.pool.fill(c, 0, s.scratch)
			in.chunk.Release()
		}
		in.chunk, in.off, in.end = c, 0, rest
	}
	s.pool.fill(in.chunk, in.end, p)
	in.end += len(p)
	if in.len() >= in.want || s.w.Rand.Uint32()&15 == 0 {
		s.feed(leg)
	}
}

// feed calls Feed for as long as it takes something.
func (s *shell) feed(leg session.Leg) {
	in := &s.in[leg]
	in.again = false
	for in.len() > 0 && !s.ended && (leg == session.Client || s.move == nil) {
		s.before()
		took, want := s.rec.Feed(leg, in.chunk.Range(in.off, in.end), &s.out)
		if took < 0 || took > in.len() || want < 0 {
			s.w.Fail("contract", "Feed(%v) of %d octets took %d and wants %d", leg, in.len(), took, want)
			return
		}
		if took < in.len() {
			s.w.Tracef("recorder leaves %d octets from the %v and wants %d", in.len()-took, leg, want)
		}
		in.off += took
		in.want = want
		s.after()
		if took == 0 || want > in.len() {
			break
		}
	}
	if s.releases && in.chunk != nil && in.len() == 0 && in.chunk.Refs() > 1 {
		in.chunk.Release()
	}
	if in.chunk != nil && in.len() == 0 && (in.end == len(in.chunk.Data) || s.w.Rand.Uint32()&1 == 0) {
		s.drop(leg)
	}
	if in.len() == 0 {
		in.want = 0
	}
}

func (s *shell) drop(leg session.Leg) {
	if in := &s.in[leg]; in.chunk != nil {
		in.chunk.Release()
		*in = input{}
	}
}

// write takes the next octets queued for a leg, at most room of them; they are valid until the next call.
func (s *shell) write(leg session.Leg, room int) []byte {
	s.scratch = s.scratch[:0]
	q, n := s.queue[leg], 0
	for n < len(q) && len(s.scratch) < room {
		p := q[n].Bytes()[s.skip[leg]:]
		k := min(s.w.Rand.Piece(len(p)), room-len(s.scratch))
		s.scratch = append(s.scratch, p[:k]...)
		if k < len(p) {
			s.skip[leg] += k
			break
		}
		q[n].Drop()
		s.skip[leg] = 0
		n++
	}
	s.queue[leg] = append(q[:0], q[n:]...)
	return s.scratch
}

func (s *shell) queued(leg session.Leg) bool { return len(s.queue[leg]) > 0 }

// backlog is the number of octets that wait for the client.
func (s *shell) backlog() int {
	n := -s.skip[session.Client]
	for _, b := range s.queue[session.Client] {
		n += b.Len()
	}
	return n
}

// tell reports written octets that the recorder does not know of yet.
func (s *shell) tell(leg session.Leg) {
	s.told[leg] = s.wrote[leg]
	s.before()
	s.rec.Wrote(leg, s.told[leg], &s.out)
	s.after()
}

func (s *shell) up(l *link) {
	s.dialing, s.link = false, l
	s.wrote[session.Broker], s.told[session.Broker] = 0, 0
	s.w.Tracef("link %d: up", l.id)
	s.before()
	s.rec.Up(session.Peer{Name: "broker:1", Attempt: s.attempt, Store: storeName}, &s.out)
	s.after()
}

func (s *shell) down(why error) {
	s.w.Tracef("link %d: down: %v", s.link.id, why)
	s.link, s.move = nil, nil
	s.w.Downs++
	s.failures++
	if s.w.live && s.w.now-s.w.liveSince >= time.Second {
		s.failures = 0
	}
	if s.w.live {
		s.w.downSince = s.w.now
	}
	s.w.live = false
	s.drop(session.Broker)
	s.discard()
	s.before()
	s.rec.Down(why, &s.out)
	s.after()
	s.discard()
}

func (s *shell) clientEOF(half bool) {
	s.w.Tracef("client leg: end of input, half %v", half)
	s.eof = true
	if !half {
		s.deaf = true
		s.drop(session.Client)
	}
	s.before()
	s.rec.ClientEOF(half, &s.out)
	s.after()
	s.discard()
}

func (s *shell) tick() {
	s.before()
	s.rec.Tick(&s.out)
	s.after()
}

// wake is when Tick is wanted.
func (s *shell) wake() (time.Duration, bool) {
	if s.out.Wake.IsZero() || s.ended {
		return 0, false
	}
	return max(s.out.Wake.Sub(Start), s.w.lagUntil), true
}

// close ends everything and returns what is wrong with the chunks.
func (s *shell) close() string {
	s.link, s.deaf = nil, true
	s.drop(session.Client)
	s.drop(session.Broker)
	s.rec.Close()
	s.discard()
	s.out.Close()
	return s.pool.check()
}

func (s *shell) whyDown(l *link) error {
	switch {
	case s.move != nil:
		return s.move
	case l.hung || s.w.Rand.Chance(50):
		return io.EOF
	}
	return errReset
}

// pace is the longest that the next dial waits, as the proxy paces itself: full jitter under a limit that doubles with each failure.
func (s *shell) pace() time.Duration {
	return max(20*time.Millisecond, min(5*time.Millisecond<<min(s.failures, 10), 500*time.Millisecond))
}
