package sessiontest

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/understudy-mq/understudy/session"
)

// Limits of a run. Reaching one is a violation of its own: something spins, or nothing moves any more.
const (
	maxSteps = 400_000
	maxTime  = 30 * time.Minute
	wireRoom = 32 << 10 // octets that a direction of a connection holds before the writer has to wait
)

// link is one connection between shell and broker.
type link struct {
	id       int
	toBroker fifo
	toShell  fifo
	read     int // octets the broker has read
	got      int // octets the shell has read
	fault    *Fault
	broken   bool // the shell learns it once toShell is empty
	hung     bool // the broker closed it behind what it sent
	gone     bool // the broker knows of the end
	stalled  bool
	thawAt   time.Duration // stalled: when it moves again; 0 is never
	woken    bool          // it did, long after its server was replaced
	noticeAt time.Duration // broken: when the broker learns it, once toBroker is empty
}

// World is one simulated run.
type World struct {
	Rand     *Rand
	Struck   int         // faults that happened
	Links    int         // dials that succeeded
	Downs    int         // of which have ended for the recorder
	Moved    [2][2]int   // octets moved: by leg, then 0 from the recorder, 1 to it
	EndCode  string      // of the recorder's Fault
	EndCause error       //
	Failures []Violation // what broke
	Log      []string    // the transcript, when asked for

	client Client
	broker Broker
	shell  shell
	matrix *Matrix // what was struck, when asked for
	faults []Fault
	trace  bool

	now       time.Duration
	toSidecar fifo
	toClient  fifo
	links     []*link
	downUntil time.Duration
	lagUntil  time.Duration // no Tick before
	leaveAt   time.Duration // the client is told to quit; 0 = never
	live      bool
	liveSince time.Duration
	downSince time.Duration
	closed    bool // the shell closed the client's connection
	acts      []action
	steps     int
	scratch   []byte
}

// Quitter is a Client that a Fault can make leave.
type Quitter interface{ Quit() }

// NewWorld prepares a run. The models may be nil until Run: they usually need the World themselves.
func NewWorld(seed uint64, faults []Fault, trace bool) *World {
	w := &World{Rand: NewRand(seed), faults: append([]Fault(nil), faults...), trace: trace}
	w.shell = shell{w: w, pool: newPool(w.Rand.Between(200, 3000))}
	return w
}

// Now is the virtual time since Start.
func (w *World) Now() time.Duration { return w.now }

// Live is whether the recorder runs on a broker, and since when it does or does not.
func (w *World) Live() (bool, time.Duration) {
	if w.live {
		return true, w.liveSince
	}
	return false, w.downSince
}

// Lag is until when the sidecar's timers were late.
func (w *World) Lag() time.Duration { return w.lagUntil }

// AllRead reports whether the recorder has been given everything that the client wrote.
func (w *World) AllRead() bool {
	return w.toSidecar.len() == 0 && w.shell.in[session.Client].len() == 0
}

// Cut reports whether the present link is cut and the recorder does not know it yet: what is on its way on it will not arrive.
func (w *World) Cut() bool {
	return w.shell.link != nil && (w.shell.link.broken || w.shell.link.stalled)
}

// Full reports whether the client has to wait with what it would write.
func (w *World) Full() bool { return w.toSidecar.len() >= wireRoom }

// Fail notes a violation; the run ends.
func (w *World) Fail(kind, format string, args ...any) {
	v := Violation{Kind: kind, Text: fmt.Sprintf(format, args...), At: w.now}
	w.Failures = append(w.Failures, v)
	w.Tracef("VIOLATION %v", v)
	if w.trace && w.shell.rec != nil {
		var r session.Report
		w.shell.rec.Report(&r)
		w.Tracef("the recorder says %+v", r)
	}
}

func (w *World) state() string {
	var r session.Report
	w.shell.rec.Report(&r)
	return r.State
}

// Tracing tells whether Tracef does anything.
func (w *World) Tracing() bool { return w.trace }

// Tracef adds a line to the transcript.
func (w *World) Tracef(format string, args ...any) {
	if w.trace {
		w.Log = append(w.Log, fmt.Sprintf("%12v  ", w.now)+fmt.Sprintf(format, args...))
	}
}

// Send queues octets of the broker for a link.
func (w *World) Send(id int, p []byte) {
	if l := w.find(id); l != nil && !l.broken && !l.hung {
		l.toShell.push(p)
	}
}

// Hangup closes a link behind what was sent on it.
func (w *World) Hangup(id int) {
	if l := w.find(id); l != nil {
		l.hung, l.gone = true, true
		l.toBroker = fifo{}
	}
}

func (w *World) find(id int) *link {
	for _, l := range w.links {
		if l.id == id {
			return l
		}
	}
	return nil
}

// Run plays the whole conversation.
func (w *World) Run(rec session.Recorder, client Client, broker Broker) {
	w.shell.rec, w.client, w.broker = rec, client, broker
	defer func() {
		if p := recover(); p != nil {
			w.Fail("panic", "%v\n%s", p, debug.Stack())
		}
	}()
	w.shell.tick()
	for w.steps = 0; len(w.Failures) == 0; w.steps++ {
		if w.steps == maxSteps {
			w.Fail("spin", "%d steps and no end; client waits for %q", w.steps, client.Waiting())
			break
		}
		if w.over() {
			break
		}
		w.acts = w.acts[:0]
		w.clientActs()
		w.shellActs()
		w.linkActs()
		if len(w.acts) == 0 {
			if w.over() || !w.advance() {
				break
			}
			continue
		}
		w.do(w.acts[w.Rand.IntN(len(w.acts))])
		if w.Rand.Uint32()&31 == 0 {
			w.now += w.Rand.Span(0, time.Millisecond)
		}
	}
	if wrong := w.shell.close(); wrong != "" && len(w.Failures) == 0 {
		w.Fail("chunks", "%s", wrong)
	}
}

// over reports that nothing can happen any more: session and conversation have ended and the broker has nothing left to do.
func (w *World) over() bool {
	return w.closed && w.client.Leaving() != Stay && w.client.Waiting() == "" && w.broker.Settled() && len(w.links) == 0
}

// advance moves time to the next timer.
func (w *World) advance() bool {
	next, ok := time.Duration(0), false
	at := func(t time.Duration, set bool) {
		if set && t > w.now && (!ok || t < next) {
			next, ok = t, true
		}
	}
	at(w.client.Wake())
	at(w.broker.Wake())
	at(w.shell.wake())
	at(w.shell.dialAt, w.shell.dialing)
	at(w.leaveAt, w.leaveAt > 0)
	for _, l := range w.links {
		at(l.noticeAt, l.broken && !l.gone)
		at(l.thawAt, l.stalled && l.thawAt > 0)
	}
	if !ok || next > maxTime {
		w.Fail("hang", "nothing moves any more; client waits for %q, session ended %v, broker settled %v",
			w.client.Waiting(), w.shell.ended, w.broker.Settled())
		return false
	}
	w.now = next
	return true
}

func (w *World) due(t time.Duration, ok bool) bool { return ok && t <= w.now }

func (w *World) clientActs() {
	s, c := &w.shell, w.client
	leaving := c.Leaving()
	if !w.closed && leaving == Stay && w.toSidecar.len() < wireRoom && w.due(c.Wake()) {
		w.act(clientSteps)
	}
	if w.toClient.len() > 0 && leaving < Gone && c.Reading() {
		w.act(clientTakes)
	}
	if w.leaveAt > 0 && w.leaveAt <= w.now {
		w.act(clientQuits)
	}
	if w.closed || s.ended {
		return
	}
	if leaving == Abort && !s.eof {
		w.act(clientAborts)
		return
	}
	if w.toSidecar.len() > 0 && !s.eof && (!s.paused[session.Client] || w.Rand.Uint32()&255 == 0) {
		w.act(shellReadsClient)
	}
	if w.toSidecar.len() == 0 && leaving != Stay && !s.eof && !s.paused[session.Client] && !s.in[session.Client].again {
		w.act(clientEnds)
	}
}

func (w *World) act(what step) { w.acts = append(w.acts, action{what: what}) }

func (w *World) clientTakes() {
	p := w.toClient.pop(w.Rand.Piece(w.toClient.len()))
	w.shell.wrote[session.Client] += uint64(len(p))
	w.client.Taken(p)
}

func (w *World) clientQuits() {
	w.leaveAt = 0
	if q, ok := w.client.(Quitter); ok {
		q.Quit()
	}
}

func (w *World) readClient() {
	p := w.toSidecar.pop(w.Rand.Piece(w.toSidecar.len()))
	w.Moved[session.Client][1] += len(p)
	w.shell.read(session.Client, p)
}

func (w *World) shellActs() {
	s := &w.shell
	if w.closed {
		return
	}
	if s.queued(session.Client) && w.toClient.len() < wireRoom && !s.deaf {
		w.act(shellWritesClient)
	}
	if s.ended {
		if !s.queued(session.Client) && w.toClient.len() == 0 || w.client.Leaving() >= Gone {
			w.act(shellFinishes)
		}
		return
	}
	for leg := session.Client; leg <= session.Broker; leg++ {
		if s.wrote[leg] != s.told[leg] && (leg == session.Client && (s.out.Arrival || s.queued(leg) || w.Rand.Uint32()&7 == 0) ||
			leg == session.Broker && s.link != nil) {
			w.acts = append(w.acts, action{what: shellTells, leg: leg})
		}
		if s.in[leg].again {
			w.acts = append(w.acts, action{what: shellFeeds, leg: leg})
		}
	}
	if w.due(s.wake()) {
		w.act(shellTicks)
	}
	if s.link == nil && !s.dialing && s.rec.Hints().Ready {
		s.dialing = true
		s.dialAt = max(w.downUntil, w.now) + w.Rand.Span(0, s.pace())
	}
	if s.dialing && s.dialAt <= w.now {
		w.act(shellDials)
	}
}

func (w *World) writeClient() {
	p := w.shell.write(session.Client, wireRoom)
	w.Moved[session.Client][0] += len(p)
	w.toClient.push(p)
}

// finish closes both legs of a session that has ended.
func (w *World) finish() {
	s := &w.shell
	w.closed = true
	w.client.Closed()
	if l := s.link; l != nil {
		l.broken, l.noticeAt = true, w.now
		l.toShell = fifo{}
		if w.Rand.Chance(50) && !l.stalled {
			l.toBroker.push(s.write(session.Broker, wireRoom))
		}
	}
}

func (w *World) dial() {
	s := &w.shell
	if w.downUntil > w.now {
		s.dialAt = w.downUntil
		return
	}
	w.Links++
	s.attempt++
	l := &link{id: w.Links}
	for i := range w.faults {
		if w.faults[i].Link == l.id {
			l.fault = &w.faults[i]
		}
	}
	w.links = append(w.links, l)
	w.broker.Accept(l.id)
	s.up(l)
	if l.fault != nil && l.fault.Octet == 0 {
		w.strike(l)
	}
}
