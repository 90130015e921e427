package bench

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
)

// answerer is a STOMP peer that does as little as can be done: it confirms what it has read and keeps nothing. A SUBSCRIBE is sent messages
// without end, as many as its window has room for.
type answerer struct {
	ln     net.Listener
	paired bool     // speaks the paired contract to sessions that do
	log    *bareLog // what it reads of SENDs is durable there before it confirms; nil for none
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool // nil once closed
}

const (
	answererStore = "5b7c2f10-8a54-4c55-9a3e-6f0d1c2b3a49"
	epochOf       = "1"
)

func startAnswerer(paired bool) (*answerer, error) { return startLogging(paired, nil) }

func startLogging(paired bool, log *bareLog) (*answerer, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the answering peer: %w", err)
	}
	a := &answerer{ln: ln, paired: paired, log: log, conns: map[net.Conn]bool{}}
	a.wg.Go(a.accept)
	return a, nil
}

func (a *answerer) addr() string { return a.ln.Addr().String() }

func (a *answerer) accept() {
	for {
		conn, err := a.ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		if !a.add(conn) {
			_ = conn.Close()
			return
		}
		a.wg.Go(func() {
			defer a.drop(conn)
			p := &peerConn{paired: a.paired, log: a.log, br: bufio.NewReaderSize(conn, readBuffer), bw: bufio.NewWriterSize(conn, readBuffer)}
			for p.turn() == nil {
			}
		})
	}
}

func (a *answerer) add(conn net.Conn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conns == nil {
		return false
	}
	a.conns[conn] = true
	return true
}

func (a *answerer) drop(conn net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.conns, conn)
	_ = conn.Close()
}

func (a *answerer) close() {
	_ = a.ln.Close()
	a.mu.Lock()
	for conn := range a.conns {
		_ = conn.Close()
	}
	a.conns = nil
	a.mu.Unlock()
	a.wg.Wait()
}

// peerConn is one connection to an answerer.
type peerConn struct {
	paired  bool // the peer can
	log     *bareLog
	last    *bareBatch // that a SEND of this connection is in
	session bool       // this connection does: effects are numbered, and confirmed by a cursor
	br      *bufio.Reader
	bw      *bufio.Writer
	f       stompFrame
	out     []byte

	cursor, told uint64 // effects applied, and confirmed

	subscription string // empty: none
	destination  string
	sent, acked  int
}

var errBye = errors.New("the peer has disconnected")

// turn reads one frame and answers it. Before it would wait for the next one, everything said so far leaves.
func (p *peerConn) turn() error {
	if drained(p.br) {
		if p.last != nil {
			if <-p.last.done; p.last.err != nil {
				return p.last.err
			}
		}
		p.confirm()
		p.deliver()
		if err := p.bw.Flush(); err != nil {
			return err
		}
	}
	if err := p.f.next(p.br); err != nil {
		return err
	}
	switch string(p.f.command) {
	case "CONNECT", "STOMP":
		return p.connected()
	case "SEND":
		if p.log != nil {
			p.last = p.log.hand(body)
		}
	case "SUBSCRIBE":
		p.subscription, p.destination = string(p.f.value[hID]), string(p.f.value[hDestination])
	case "ACK", "NACK":
		p.acked++
	case "DISCONNECT":
		p.answer()
		_ = p.bw.Flush()
		return errBye
	}
	p.answer()
	return nil
}

func (p *peerConn) connected() error {
	var b strings.Builder
	b.WriteString("CONNECTED\nversion:1.2\nsession:bench\nserver:bench\nheart-beat:0,0\n")
	if p.paired && (p.f.has(hSession) || p.f.has(hProbe)) {
		p.session = p.f.has(hSession)
		p.cursor = p.f.number(hCursor)
		p.told = p.cursor
		fmt.Fprintf(&b, "understudy-store:%s\nunderstudy-epoch:%s\nunderstudy-cursor:%d\n", answererStore, epochOf, p.cursor)
	}
	b.WriteString("\n\x00")
	_, err := p.bw.WriteString(b.String())
	return err
}

// answer confirms the frame just read.
func (p *peerConn) answer() {
	if p.session && p.f.has(hEffect) {
		p.cursor = p.f.number(hEffect)
		return
	}
	if !p.f.has(hReceipt) {
		return
	}
	p.out = append(p.out[:0], "RECEIPT\nreceipt-id:"...)
	p.out = append(p.out, p.f.value[hReceipt]...)
	p.out = append(p.out, "\n\n\x00"...)
	_, _ = p.bw.Write(p.out) // Flush reports the error
}

// confirm tells a sidecar's session how far its effects have got.
func (p *peerConn) confirm() {
	if p.cursor == p.told {
		return
	}
	p.told = p.cursor
	p.out = append(p.out[:0], "RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:"...)
	p.out = strconv.AppendUint(p.out, p.cursor, 10)
	p.out = append(p.out, "\n\n\x00"...)
	_, _ = p.bw.Write(p.out)
}

// deliver fills the subscription's window.
func (p *peerConn) deliver() {
	for ; p.subscription != "" && p.sent-p.acked < window; p.sent++ {
		p.out = append(p.out[:0], "MESSAGE\nsubscription:"...)
		p.out = append(p.out, p.subscription...)
		p.out = append(p.out, "\nmessage-id:m-"...)
		p.out = strconv.AppendInt(p.out, int64(p.sent), 10)
		p.out = append(p.out, "\nack:m-"...)
		p.out = strconv.AppendInt(p.out, int64(p.sent), 10)
		p.out = append(p.out, "\ndestination:"...)
		p.out = append(p.out, p.destination...)
		p.out = append(p.out, "\ncontent-type:text/plain\ncontent-length:"...)
		p.out = strconv.AppendInt(p.out, bodyBytes, 10)
		p.out = append(p.out, "\n\n"...)
		p.out = append(p.out, body...)
		_, _ = p.bw.Write(append(p.out, 0))
	}
}
