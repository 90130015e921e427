package broker

import (
	"bytes"
	"strconv"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// hello is what a CONNECT says. Login and passcode are not looked at: there are no users yet.
type hello struct {
	version frame.Version
	in, out time.Duration // heart-beats that the client offers and wants; 0: none
	paired  bool          // speaks headers of ours, as a sidecar or a probe does
	probe   bool          // only asks what this server is
	sidecar bool
	session sessionID
	attempt uint64
	cursor  uint64
	store   string
	client  string // client-id
	hold    time.Duration
}

// parseHello reads the first frame of a connection. [STOMP 1.2 CONNECT]
func parseHello(f *frame.Frame) (h hello, bad *fault) {
	if f.Command != frame.Connect && f.Command != frame.Stomp {
		return h, faultf("not connected", "the first frame of a connection is CONNECT, not %s", f.Command)
	}
	if h.version, bad = negotiate(f.Get("accept-version")); bad != nil {
		return h, bad
	}
	if v, ok := f.Get("heart-beat"); ok && h.version > frame.V10 {
		offers, wants, _ := bytes.Cut(v, []byte{','})
		out, ok1 := frame.ParseUint(offers)
		in, ok2 := frame.ParseUint(wants)
		if !ok1 || !ok2 {
			return h, faultf("malformed heart-beat", "heart-beat is two numbers of milliseconds with a comma between")
		}
		const most = 24 * 3600 * 1000
		h.in, h.out = time.Duration(min(out, most))*time.Millisecond, time.Duration(min(in, most))*time.Millisecond
	}
	for name := range f.Headers {
		h.paired = h.paired || bytes.HasPrefix(name, []byte(frame.PairedPrefix))
	}
	_, h.probe = f.Get(frame.HeaderProbe)
	h.store, h.client = string(f.Value(frame.HeaderStore)), string(f.Value("client-id")) // CONNECT has no escapes
	if len(h.client) > maxName {
		return h, faultf("malformed CONNECT", "the client-id has %v", errName)
	}
	id, ok := f.Get(frame.HeaderSession)
	if !ok {
		return h, nil
	}
	h.sidecar = true
	return h, h.parseSession(f, id)
}

func (h *hello) parseSession(f *frame.Frame, id []byte) *fault {
	malformed := func(name string) *fault {
		return faultf("malformed CONNECT", "%s is missing or malformed", name)
	}
	var ok bool
	if h.session, ok = parseSessionID(id); !ok {
		return malformed(frame.HeaderSession)
	}
	if h.attempt, ok = frame.ParseUint(f.Value(frame.HeaderAttempt)); !ok {
		return malformed(frame.HeaderAttempt)
	}
	if v, there := f.Get(frame.HeaderCursor); there {
		if h.cursor, ok = frame.ParseUint(v); !ok {
			return malformed(frame.HeaderCursor)
		}
	}
	if v, there := f.Get(frame.HeaderHold); there {
		ms, ok := frame.ParseUint(v)
		if !ok {
			return malformed(frame.HeaderHold)
		}
		h.hold = time.Duration(min(ms, maxHold*1000)) * time.Millisecond
	}
	return nil
}

// negotiate picks the highest version both have. [STOMP 1.2 Protocol Negotiation]
func negotiate(accept []byte, given bool) (frame.Version, *fault) {
	if !given {
		return frame.V10, nil
	}
	best, ok := frame.V10, false
	for one := range bytes.SplitSeq(accept, []byte{','}) {
		if v, known := frame.ParseVersion(bytes.Trim(one, " \r")); known {
			best, ok = max(best, v), true
		}
	}
	if !ok {
		f := faultf("no common version", "this server speaks STOMP 1.0, 1.1 and 1.2")
		f.header = "version:1.0,1.1,1.2\n"
		return 0, f
	}
	return best, nil
}

// beats are the agreed intervals: how often we send, how often the client does; 0: never.
func (h *hello) beats(b HeartBeat) (send, receive time.Duration) {
	if h.out > 0 {
		send = max(h.out, b.Min)
	}
	if h.in > 0 {
		receive = max(h.in, b.Min)
	}
	return send, receive
}

// connect lets a connection in. When it returns, no other connection of the session can have any effect, whatever it has sent already.
func (s *store) connect(p *peer, h *hello) {
	s.conns++
	p.number, p.epoch, p.version, p.sidecar = s.conns, s.epoch, h.version, h.sidecar
	p.maxOut, p.subs = s.cfg.MaxOut, map[uint64]*subscription{}
	if !h.sidecar {
		name := strconv.FormatUint(s.epoch, 10) + "-" + strconv.FormatUint(p.number, 10)
		p.session = &session{direct: true, name: name, peer: p, subs: map[string]*subscription{}}
	} else if f := s.resume(p, h); f != nil {
		s.refuse(p, nil, f)
		return
	}
	p.session.client = h.client
	if c := p.session; h.sidecar && c.accepted > c.durable {
		// The cursor in CONNECTED must be exact: what was accepted and is not durable yet would be played again while it holds already, and a
		// message that was NACKed would be claimed by the very session that gave it back.
		s.when(s.last, pend{peer: p, welcome: h})
		return
	}
	s.welcome(p, h)
}

// resume gives p the session it asks for, and takes it from whoever had it.
func (s *store) resume(p *peer, h *hello) *fault {
	c := s.sessions[h.session]
	if c == nil {
		if h.cursor > 0 {
			return lost(h.cursor, 0)
		}
		if len(s.sessions) >= s.cfg.MaxSessions {
			return faultf("too many sessions", "this store has %d sessions, the limit", len(s.sessions))
		}
		c = &session{id: h.session, subs: map[string]*subscription{}}
	} else if h.attempt <= c.attempt {
		f := faultf("stale attempt", "attempt %d of this session is or was connected; this is attempt %d", c.attempt, h.attempt)
		f.code = frame.CodeStaleAttempt
		return f
	} else if h.cursor > c.durable {
		return lost(h.cursor, c.durable)
	}
	if old := c.peer; old != nil {
		s.park(c)
		old.dead, old.out = true, nil
		s.touch(old)
		s.count.evicted.Inc()
	}
	for len(c.rolled) > 0 && c.rolled[0] <= h.cursor {
		c.rolled = c.rolled[1:]
		c.told = max(0, c.told-1)
	}
	if c.attempt > 0 {
		s.count.resumed.Inc()
	}
	c.peer, c.attempt, c.hold, c.closed, c.fresh = p, h.attempt, h.hold, false, false
	p.session, s.sessions[c.id] = c, c
	return nil
}

func lost(claimed, known uint64) *fault {
	f := faultf("lost state", "the session has confirmation up to effect %d, this store knows of %d: it has lost data, or the session has expired", claimed, known)
	f.code = frame.CodeLostState
	return f
}

// welcome writes CONNECTED. What is only for sidecars a client never sees.
func (s *store) welcome(p *peer, h *hello) {
	send, receive := h.beats(s.cfg.HeartBeat)
	s.grow(p)
	b := appendConnected(p.out, p.version, s.cfg.Version, strconv.FormatUint(s.epoch, 10)+"-"+strconv.FormatUint(p.number, 10), send, receive)
	if h.paired {
		b = frame.AppendHeader(b, frame.HeaderStore, s.uuid)
		b = frame.AppendUint(b, frame.HeaderEpoch, s.epoch)
	}
	if c := p.session; h.sidecar {
		b = frame.AppendUint(b, frame.HeaderCursor, c.durable)
		b = appendRolled(b, c.rolled, c.durable)
		for c.told = 0; c.told < len(c.rolled) && c.rolled[c.told] <= c.durable; {
			c.told++
		}
	}
	p.out = append(b, "\n\x00\n"...)
	p.welcomed = true
	s.touch(p)
}

// appendConnected writes CONNECTED, as far as any client knows it.
func appendConnected(b []byte, v frame.Version, server, session string, send, receive time.Duration) []byte {
	b = append(append(b, "CONNECTED\nversion:"...), v.String()...)
	b = append(append(b, "\nserver:understudy/"...), server...)
	b = append(append(b, "\nsession:"...), session...)
	b = append(b, "\nheart-beat:"...)
	b = append(strconv.AppendInt(b, send.Milliseconds(), 10), ',')
	return append(strconv.AppendInt(b, receive.Milliseconds(), 10), '\n')
}

// appendRolled writes the rolled-back effects that are durable.
func appendRolled(b []byte, rolled []uint64, durable uint64) []byte {
	sep := frame.HeaderRolledBack + ":"
	for _, n := range rolled {
		if n > durable {
			break
		}
		b = append(b, sep...)
		b = strconv.AppendUint(b, n, 10)
		sep = ","
	}
	if sep == "," {
		b = append(b, '\n')
	}
	return b
}
