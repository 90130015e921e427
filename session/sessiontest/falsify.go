package sessiontest

import (
	"bytes"
	"strings"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// Falsity is a defect of a recorder, put between it and the shell: frames that it says are left out, said twice, changed, or said at the
// wrong time. Each is what a recorder with that bug would do.
type Falsity uint8

// Falsities.
const (
	Honest          Falsity = iota
	ForgetsReceipt          // a RECEIPT is not passed on
	AnswersTwice            // a RECEIPT is passed on twice
	AnswersEarly            // a SEND is confirmed as it comes
	CommitsEarly            // a COMMIT is confirmed as it comes, before what is in it
	PlaysTwice              // a SUBSCRIBE is played twice to the next broker
	ForgetsPlay             // a subscription is not played to the next broker
	Unstamped               // SENDs lose what a broker or a consumer could know a copy by
	ResendsBlindly          // what was not confirmed is sent again as it was, without asking
	DropsAck                // an ACK is swallowed and its receipt made up
	StaleAck                // what the client acknowledges by an earlier connection's id is forwarded as it is
	AcksEarly               // ack:auto is acknowledged before the client has the message
	ScopesAck               // acknowledgements upstream are cumulative
	SwapsSends              // two SENDs change places
	CommitsAborts           // ABORT becomes COMMIT
	ForgetsDeclares         // a queue's arguments are not repeated
	ShowsAgain              // a redelivery of what the client has is shown
	HidesReturned           // a message that was given back is not shown again
	HidesNew                // a message is not shown
	Lies                    // what is in doubt is said to be done
	endOfFalsities
)

var falsityNames = [...]string{"honest", "forgets-receipt", "answers-twice", "answers-early", "commits-early", "plays-twice", "forgets-play",
	"unstamped", "resends-blindly", "drops-ack", "stale-ack", "acks-early", "scopes-ack", "swaps-sends", "commits-aborts", "forgets-declares",
	"shows-again", "hides-returned", "hides-new", "lies"}

func (f Falsity) String() string { return falsityNames[f] }

// Falsities lists all of them but Honest.
func Falsities() []Falsity {
	var list []Falsity
	for f := Honest + 1; f < endOfFalsities; f++ {
		list = append(list, f)
	}
	return list
}

// Falsify wraps the recorder that make returns.
func Falsify(how Falsity, make Factory) Factory {
	return func(s *Script, id string) session.Recorder {
		f := &falsifier{Recorder: make(s, id), how: how, version: s.Version, shown: map[string]int{}, auto: map[string]bool{},
			early: map[string]bool{}}
		return f
	}
}

// falsifier is a recorder with a defect.
type falsifier struct {
	session.Recorder
	how     Falsity
	version frame.Version
	inner   session.Out
	legs    [2]falseLeg
	links   int
	count   int
	frames  int             // to the broker on this link
	shown   map[string]int  // bodies that the client was sent
	auto    map[string]bool // ack:auto subscriptions of the client
	early   map[string]bool // receipts answered by us
	open    [][]byte        // SENDs on their way, as they were sent
	owed    [][]byte        // of the last link
	swapped []byte
}

// falseLeg is one direction of what the recorder says.
type falseLeg struct {
	rest         []byte // of a frame that is not complete
	said, passed uint64 // octets
	marks        [][2]uint64
}

// call lets the recorder act, and passes on what it says.
func (f *falsifier) call(out *session.Out, act func(*session.Out)) {
	in := &f.inner
	in.Now, in.Listening = out.Now, out.Listening
	act(in)
	for leg := session.Client; leg <= session.Broker; leg++ {
		f.pass(leg, out)
	}
	out.Wake, out.Pause, out.Arrival = in.Wake, in.Pause, in.Arrival
	out.Live = out.Live || in.Live
	if in.Move != nil {
		out.Move = in.Move
	}
	if in.End != nil {
		out.End = in.End
	}
	in.Live, in.Move = false, nil
}

// pass takes the whole frames of what was said to a leg.
func (f *falsifier) pass(leg session.Leg, out *session.Out) {
	l := &f.legs[leg]
	for _, b := range f.inner.Take(leg, nil) {
		l.rest = append(l.rest, b.Bytes()...)
		b.Drop()
	}
	parser := frame.Parser{Version: f.version}
	var fr frame.Frame
	for len(l.rest) > 0 {
		n, _, err := parser.Next(l.rest, &fr)
		if n == 0 || err != nil {
			break
		}
		before := out.Queued(leg)
		switch {
		case fr.Command == frame.EOL:
			out.Append(leg, fr.Raw)
		case leg == session.Broker:
			f.toBroker(&fr, out)
		default:
			f.toClient(&fr, out)
		}
		l.said += uint64(n)
		l.passed += uint64(out.Queued(leg) - before)
		l.marks = append(l.marks, [2]uint64{l.passed, l.said})
		l.rest = append(l.rest[:0:0], l.rest[n:]...)
	}
}

// sometimes is true for one call in n.
func (f *falsifier) sometimes(n int) bool { f.count++; return f.count%n == 0 }

func (f *falsifier) toBroker(fr *frame.Frame, out *session.Out) {
	raw := bytes.Clone(fr.Raw)
	say := func(p []byte) { out.Append(session.Broker, p) }
	f.frames++
	if f.frames == 2 && f.how == ResendsBlindly {
		for _, p := range f.owed {
			say(p)
		}
		f.owed = nil
	}
	lookup := bytes.Contains(raw, []byte("browser:true"))
	switch {
	case fr.Command == frame.Subscribe && f.how == PlaysTwice && f.links > 1 && !lookup:
		say(raw)
	case fr.Command == frame.Subscribe && f.how == ForgetsPlay && f.links > 1 && !lookup:
		return
	case fr.Command == frame.Subscribe && f.how == ScopesAck:
		raw = bytes.Replace(raw, []byte("ack:client-individual\n"), []byte("ack:client\n"), 1)
	case f.how == ForgetsDeclares && f.links > 1:
		raw = bytes.ReplaceAll(raw, []byte("x-queue-type:quorum\n"), nil)
	case fr.Command == frame.Send && f.how == Unstamped:
		raw = without1(without1(raw, frame.PairedPrefix+"stamp:"), "_AMQ_DUPL_ID:")
	case fr.Command == frame.Send && f.how == SwapsSends:
		if f.swapped == nil && f.sometimes(4) {
			f.swapped = raw
			return
		}
	case fr.Command == frame.Send && f.how == ResendsBlindly:
		f.open = append(f.open, raw)
	case fr.Command == frame.Ack && f.how == DropsAck && f.sometimes(6):
		return
	case fr.Command == frame.Abort && f.how == CommitsAborts:
		raw = append([]byte("COMMIT"), raw[len("ABORT"):]...)
	}
	say(raw)
	if f.swapped != nil && f.how == SwapsSends {
		say(f.swapped)
		f.swapped = nil
	}
}

// without1 leaves a header line out.
func without1(raw []byte, header string) []byte {
	i := bytes.Index(raw, []byte("\n"+header))
	if i < 0 {
		return raw
	}
	return append(append([]byte(nil), raw[:i]...), raw[i+1+bytes.IndexByte(raw[i+1:], '\n'):]...)
}

func (f *falsifier) toClient(fr *frame.Frame, out *session.Out) {
	say := func(p []byte) { out.Append(session.Client, p) }
	id := string(fr.Value("receipt-id"))
	switch {
	case fr.Command == frame.Receipt && (f.early[id] || f.how == ForgetsReceipt && f.sometimes(6)):
		delete(f.early, id)
		return
	case fr.Command == frame.Receipt && f.how == AnswersTwice && f.sometimes(3):
		say(fr.Raw)
	case fr.Command == frame.Message:
		body := string(fr.Body)
		f.shown[body]++
		if f.how == HidesReturned && f.shown[body] > 1 || f.how == HidesNew && f.sometimes(9) {
			return
		}
	case fr.Command == frame.Error && f.how == Lies:
		for _, r := range strings.Split(string(fr.Value("in-doubt-receipts")), ",") {
			if r != "" {
				say([]byte("RECEIPT\nreceipt-id:" + r + "\n\n\x00"))
			}
		}
	}
	say(fr.Raw)
}

// Feed implements session.Recorder.
func (f *falsifier) Feed(leg session.Leg, in session.Buf, out *session.Out) (took, want int) {
	f.call(out, func(o *session.Out) { took, want = f.Recorder.Feed(leg, in, o) })
	parser := frame.Parser{Version: f.version}
	var fr frame.Frame
	for p := in.Bytes()[:took]; len(p) > 0; {
		n, _, err := parser.Next(p, &fr)
		if n == 0 || err != nil {
			break
		}
		if leg == session.Client {
			f.fromClient(&fr, out)
		} else {
			f.fromBroker(&fr, out)
		}
		p = p[n:]
	}
	return took, want
}

func (f *falsifier) fromClient(fr *frame.Frame, out *session.Out) {
	id := string(fr.Value("receipt"))
	switch {
	case fr.Command == frame.Subscribe:
		mode := string(fr.Value("ack"))
		f.auto[string(fr.Value("id"))] = mode == "" || mode == "auto"
	case id != "" && (fr.Command == frame.Send && fr.Value("transaction") == nil && f.how == AnswersEarly || fr.Command == frame.Commit && f.how == CommitsEarly):
		if !f.early[id] {
			f.early[id] = true
			out.Append(session.Client, []byte("RECEIPT\nreceipt-id:"+id+"\n\n\x00"))
			f.legs[session.Client].passed += uint64(len("RECEIPT\nreceipt-id:" + id + "\n\n\x00"))
		}
	case fr.Command == frame.Ack && f.how == StaleAck && f.links > 1 && fr.Value("transaction") == nil:
		raw := without1(bytes.Clone(fr.Raw), "receipt:")
		out.Append(session.Broker, raw)
	}
}

func (f *falsifier) fromBroker(fr *frame.Frame, out *session.Out) {
	switch {
	case fr.Command == frame.Message && f.how == ShowsAgain && f.links > 1 && f.shown[string(fr.Body)] == 1 && fr.Value("browser") == nil &&
		!bytes.Contains(fr.Value("subscription"), []byte("lookup")):
		f.shown[string(fr.Body)]++
		out.Append(session.Client, fr.Raw)
		f.legs[session.Client].passed += uint64(len(fr.Raw))
	case fr.Command == frame.Message && f.how == AcksEarly && f.auto[string(fr.Value("subscription"))]:
		b := []byte("ACK\n")
		if f.version == frame.V12 {
			b = frame.AppendHeader(b, "id", fr.Value("ack"))
		} else {
			b = frame.AppendHeader(b, "message-id", fr.Value("message-id"))
			b = frame.AppendHeader(b, "subscription", fr.Value("subscription"))
		}
		out.Append(session.Broker, append(b, '\n', 0))
	case fr.Command == frame.Receipt && len(f.open) > 0:
		id := append(append([]byte("receipt:"), fr.Value("receipt-id")...), '\n')
		for i, p := range f.open {
			if bytes.Contains(p, id) {
				f.open = f.open[i+1:]
				break
			}
		}
	}
}

// Wrote implements session.Recorder: the recorder is told in its own octets.
func (f *falsifier) Wrote(leg session.Leg, total uint64, out *session.Out) {
	l := &f.legs[leg]
	own := uint64(0)
	for i := len(l.marks) - 1; i >= 0; i-- {
		if l.marks[i][0] <= total {
			own = l.marks[i][1]
			l.marks = l.marks[i:]
			break
		}
	}
	f.call(out, func(o *session.Out) { f.Recorder.Wrote(leg, own, o) })
}

// Up implements session.Recorder.
func (f *falsifier) Up(p session.Peer, out *session.Out) {
	f.links++
	f.frames = 0
	f.owed, f.open = f.open, nil
	f.legs[session.Broker] = falseLeg{}
	f.call(out, func(o *session.Out) { f.Recorder.Up(p, o) })
}

// Down implements session.Recorder.
func (f *falsifier) Down(why error, out *session.Out) {
	f.call(out, func(o *session.Out) { f.Recorder.Down(why, o) })
	f.legs[session.Broker] = falseLeg{}
	f.swapped = nil
}

// ClientEOF implements session.Recorder.
func (f *falsifier) ClientEOF(half bool, out *session.Out) {
	f.call(out, func(o *session.Out) { f.Recorder.ClientEOF(half, o) })
}

// Tick implements session.Recorder.
func (f *falsifier) Tick(out *session.Out) {
	f.call(out, func(o *session.Out) { f.Recorder.Tick(o) })
}

// Close implements session.Recorder.
func (f *falsifier) Close() {
	f.Recorder.Close()
	f.inner.Close()
}
