package sessiontest

import (
	"fmt"
	"strings"
	"time"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// Matrix counts which cells of the cut-point matrix runs have struck: what was in the air, by what happened to the connection. It only
// looks; no verdict depends on it.
type Matrix struct {
	cells [len(airNames)][len(strokeNames)]int
	last  uint32 // what was in the air at the last fault, a bit for each element
}

// Elements that can be in the air.
var airNames = [...]string{"CONNECT sent", "CONNECTED seen", "SUBSCRIBE sent", "SEND half-written", "SEND written, no receipt", "SEND receipt lost",
	"BEGIN", "SEND in tx", "ACK in tx", "COMMIT half-written", "COMMIT written", "COMMIT reply lost", "ABORT reply lost", "MESSAGE half-received",
	"MESSAGE delivered, unacked", "ACK half-written", "ACK written", "NACK", "UNSUBSCRIBE reply lost", "temporary queue made", "durable detach",
	"DISCONNECT receipt lost", "heart-beat only"}

const (
	airConnect = iota
	airConnected
	airSubscribe
	airSendHalf
	airSend
	airSendReply
	airBegin
	airTxSend
	airTxAck
	airCommitHalf
	airCommit
	airCommitReply
	airAbort
	airMessageHalf
	airHeld
	airAckHalf
	airAck
	airNack
	airUnsubscribe
	airTemp
	airDetach
	airDisconnect
	airNothing
)

// Strokes are the faults as a connection meets them.
var strokeNames = [...]string{"RST", "FIN", "silent", "crash", "stop", "accept+stall", "refused", "dies in replay", "old returns", "auth rejected",
	"no address", "client leaves"}

const (
	strokeReset = iota
	strokeFin
	strokeSilent
	strokeCrash
	strokeStop
	strokeStalls
	strokeRefused
	strokeReplay
	strokeReturns
	strokeAuth
	strokeNoAddress
	strokeLeaves
)

type refusalWay uint8

const (
	waySlams refusalWay = iota
	wayStalls
	wayRejects
)

func (m *Matrix) mark(stroke int) {
	for i := range m.cells {
		if m.last>>i&1 == 1 {
			m.cells[i][stroke]++
		}
	}
}

// way notes how a dial behind a fault was refused.
func (m *Matrix) way(w refusalWay) {
	if m != nil {
		m.mark([...]int{waySlams: strokeRefused, wayStalls: strokeStalls, wayRejects: strokeAuth}[w])
	}
}

// struck notes a fault. It is called before anything is thrown away.
func (m *Matrix) struck(w *World, l *link, f Fault) {
	c, ok := w.client.(*stompClient)
	if m == nil || !ok {
		return
	}
	state := w.state()
	m.last = c.air(w, l, f, state)
	switch f.Kind {
	case Reset:
		m.mark([...]int{strokeFin, strokeReset}[b2i(f.KeepDown == 0)])
	case Stall:
		m.mark(strokeSilent)
	case Crash:
		m.mark(strokeCrash)
	case Handover:
		m.mark(strokeStop)
	case Freeze:
		m.mark(strokeReturns)
	}
	if f.Downtime > 20*time.Millisecond {
		m.mark(strokeRefused)
	}
	if f.Downtime >= 10*time.Second {
		m.mark(strokeNoAddress)
	}
	if f.Leave {
		m.mark(strokeLeaves)
	}
	if state == "login" || state == "replay" {
		m.mark(strokeReplay)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// air is what is in the air on a link.
func (c *stompClient) air(w *World, l *link, f Fault, state string) uint32 {
	bits := uint32(0)
	set := func(i int) { bits |= 1 << i }
	up, upHalf := cut(c.broker.rest(l.id), l.toBroker.buf[l.toBroker.head:], f.KeepUp, c.script.Version)
	in := &w.shell.in[session.Broker]
	var down []byte
	if in.chunk != nil {
		down = in.chunk.Data[in.off:in.end]
	}
	replies, downHalf := cut(down, l.toShell.buf[l.toShell.head:], f.KeepDown, c.script.Version)
	for cmd, i := range map[frame.Command]int{frame.Connect: airConnect, frame.Subscribe: airSubscribe, frame.Send: airSend, frame.Begin: airBegin,
		frame.Commit: airCommit, frame.Abort: airAbort, frame.Ack: airAck, frame.Nack: airNack, frame.Unsubscribe: airUnsubscribe} {
		if up[cmd] > 0 {
			set(i)
		}
	}
	if i, ok := map[string]int{"SEND": airSendHalf, "COMMIT": airCommitHalf, "ACK": airAckHalf}[upHalf]; ok {
		set(i)
	}
	if downHalf == "MESSAGE" {
		set(airMessageHalf)
	}
	for _, r := range c.requests {
		what, _, _ := strings.Cut(r.what, " ")
		lost := map[string][2]int{"SEND": {airSend, airSendReply}, "COMMIT": {airCommit, airCommitReply}, "ABORT": {airAbort, airAbort},
			"UNSUBSCRIBE": {airUnsubscribe, airUnsubscribe}, "DISCONNECT": {airDisconnect, airDisconnect}, "ACK": {airAck, airAck},
			"NACK": {airNack, airNack}, "SUBSCRIBE": {airSubscribe, airSubscribe}, "BEGIN": {airBegin, airBegin}}[what]
		set(lost[b2i(replies[frame.Receipt] > 0)])
	}
	switch state {
	case "login":
		set(airConnect)
	case "replay":
		set(airConnected)
	}
	if c.greeted && c.pc == 0 {
		set(airConnected)
	}
	for _, t := range c.txs {
		set(airBegin)
		if len(t.sends) > 0 {
			set(airTxSend)
		}
	}
	for _, s := range c.subs {
		if s == nil {
			continue
		}
		if len(s.held) > 0 {
			set(airHeld)
		}
		for _, h := range s.held {
			if h.tx != 0 {
				set(airTxAck)
			}
		}
	}
	if c.temp {
		set(airTemp)
	}
	if c.detaching {
		set(airDetach)
	}
	if bits == 0 {
		set(airNothing)
	}
	return bits
}

// cut counts the whole frames in what was read and what is on its way, and names the command of the one that is cut off if only keep per
// cent of the latter arrive.
func cut(read, coming []byte, keep int, v frame.Version) (whole map[frame.Command]int, half string) {
	whole = map[frame.Command]int{}
	p := append(append([]byte(nil), read...), coming...)
	last := len(read) + len(coming)*keep/100
	parser := frame.Parser{Version: v}
	var f frame.Frame
	for len(p) > 0 {
		n, _, err := parser.Next(p, &f)
		if n == 0 || err != nil {
			break
		}
		whole[f.Command]++
		if last -= n; last < 0 && last+n > 0 && half == "" {
			half = f.Command.String()
		}
		p = p[n:]
	}
	if half == "" && last > 0 {
		half, _, _ = strings.Cut(string(p), "\n")
	}
	return whole, half
}

// Add adds another run's cells.
func (m *Matrix) Add(o *Matrix) {
	for i := range m.cells {
		for j := range m.cells[i] {
			m.cells[i][j] += o.cells[i][j]
		}
	}
}

// Covered counts the cells that were struck at all, and names those that were not.
func (m *Matrix) Covered() (struck, of int, missing []string) {
	for i := range m.cells {
		for j, n := range m.cells[i] {
			if of++; n > 0 {
				struck++
			} else {
				missing = append(missing, airNames[i]+" × "+strokeNames[j])
			}
		}
	}
	return struck, of, missing
}

// String is the matrix as a table: how often each cell was struck.
func (m *Matrix) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%-28s", "")
	for _, n := range strokeNames {
		fmt.Fprintf(&s, "%15s", n)
	}
	for i, n := range airNames {
		fmt.Fprintf(&s, "\n%-28s", n)
		for j := range strokeNames {
			fmt.Fprintf(&s, "%15d", m.cells[i][j])
		}
	}
	return s.String()
}
