package broker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// nomad is the least of a sidecar: a session that follows its store from server to server, and plays again what is in doubt. Its methods return errors, for it
// runs beside the test.
type nomad struct {
	addrs   []string
	session string
	attempt int
	epoch   int

	c       *client
	at      int      // the address that it tries next
	pending []effect // in order, not known to be durable
	open    string   // an open transaction
	effects int      // numbered so far
	cursor  int      // known to be durable
	moved   int      // ERRORs that said so
	broke   int      // connections that ended otherwise
	left    time.Time
	pauses  []time.Duration // from the end of a connection to the first confirmation or message of the next one
	greet   func() error    // what follows CONNECTED
	durable func(id string) // an acknowledgement is
}

type effect struct {
	n    int
	text string
	id   string // of the message that it acknowledges
}

func newNomad(session int, addrs ...string) *nomad {
	return &nomad{addrs: addrs, session: fmt.Sprintf("%032x", session), greet: func() error { return nil }, durable: func(string) {}}
}

// settle finds the server that has the store.
func (n *nomad) settle() error {
	for end := time.Now().Add(patience); n.c == nil; {
		if time.Now().After(end) {
			return errors.New("nobody has the store")
		}
		nc, err := net.Dial("tcp", n.addrs[n.at%len(n.addrs)])
		n.at++
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		n.attempt++
		c := &client{nc: nc}
		c.parser.Version = frame.V12
		if _, err = nc.Write([]byte(text("CONNECT", "accept-version:1.2", "understudy-session:"+n.session, "understudy-attempt:"+strconv.Itoa(n.attempt),
			"understudy-cursor:"+strconv.Itoa(n.cursor), "understudy-hold:20000"))); err != nil {
			nc.Close()
			continue
		}
		r, err := c.read(patience)
		switch {
		case err != nil:
			nc.Close()
			continue
		case r.command == "ERROR" && r.headers[frame.HeaderError] == frame.CodeStandby:
			nc.Close()
			time.Sleep(time.Millisecond)
			continue
		case r.command != "CONNECTED":
			return fmt.Errorf("got %v", r)
		}
		epoch, _ := strconv.Atoi(r.headers[frame.HeaderEpoch])
		if epoch < n.epoch {
			return fmt.Errorf("epoch %d after %d", epoch, n.epoch)
		}
		n.epoch, n.at, n.c = epoch, n.at-1, c
		n.settled(r)
		if err := n.greet(); err != nil {
			return err
		}
		if n.c == nil {
			continue
		}
		for _, e := range n.pending {
			n.write(e.text)
		}
		n.write(n.open)
	}
	return nil
}

// settled takes in a cursor.
func (n *nomad) settled(r *reply) bool {
	cursor, err := strconv.Atoi(r.headers[frame.HeaderCursor])
	if err != nil || cursor < n.cursor {
		return false
	}
	advanced := cursor > n.cursor
	n.cursor = cursor
	for len(n.pending) > 0 && n.pending[0].n <= cursor {
		n.durable(n.pending[0].id)
		n.pending = n.pending[1:]
	}
	return advanced
}

// write may fail: then the next read says so.
func (n *nomad) write(octets string) {
	if octets != "" && n.c != nil {
		_ = n.c.nc.SetWriteDeadline(time.Now().Add(patience))
		_, _ = n.c.nc.Write([]byte(octets))
	}
}

// do is an effect.
func (n *nomad) do(command, id string, headers ...string) {
	n.effects++
	octets := n.open + text(command, append([]string{"understudy-effect:" + strconv.Itoa(n.effects)}, headers...)...)
	n.pending = append(n.pending, effect{n.effects, octets, id})
	n.write(octets[len(n.open):])
	n.open = ""
}

// begin opens a transaction and puts messages into it; do("COMMIT") ends it.
func (n *nomad) begin(octets string) {
	n.open = octets
	n.write(octets)
}

// next reads a frame, and moves if the server says so. It returns nil when nothing came in time, or the connection is a new one.
func (n *nomad) next(wait time.Duration) (*reply, error) {
	if n.c == nil {
		return nil, n.settle()
	}
	r, err := n.c.read(wait)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, nil
	case err != nil:
		n.broke++
	case r.command != "ERROR":
		if r.command == "RECEIPT" && n.settled(r) || r.command == "MESSAGE" {
			n.back()
		}
		return r, nil
	case r.headers[frame.HeaderMoved] != "":
		n.depart()
		return nil, n.settle()
	case r.headers[frame.HeaderError] != frame.CodeFenced:
		return nil, fmt.Errorf("got %v", r)
	}
	n.away()
	return nil, n.settle()
}

// depart is what a session does that hears that its store moves.
func (n *nomad) depart() {
	n.moved++
	n.away()
}

func (n *nomad) away() {
	if n.left.IsZero() {
		n.left = time.Now()
	}
	n.c.nc.Close()
	n.c = nil
}

// back ends a pause.
func (n *nomad) back() {
	if !n.left.IsZero() {
		n.pauses = append(n.pauses, time.Since(n.left))
		n.left = time.Time{}
	}
}

func (n *nomad) leave() {
	if n.c != nil {
		n.c.nc.Close()
	}
}

// produce sends numbered messages to a queue, each confirmed, at that rate, until stop is closed. Every tenth leaves in a transaction, which stays open
// until the next one is due. It returns how many there were.
func (n *nomad) produce(name, queue string, every time.Duration, stop <-chan struct{}) (sent int, err error) {
	defer n.leave()
	if err := n.settle(); err != nil {
		return 0, err
	}
	send := func(more ...string) string {
		s := text("SEND", append([]string{"destination:" + queue, fmt.Sprintf("=%s %d %s", name, sent, strings.Repeat("x", 200))}, more...)...)
		sent++
		return s
	}
	for due := time.Now(); ; {
		select {
		case <-stop:
			if n.open != "" {
				n.do("COMMIT", "", "transaction:t")
			}
			if len(n.pending) == 0 {
				return sent, nil
			}
		default:
			for ; !time.Now().Before(due); due = due.Add(every) {
				switch {
				case n.open != "":
					n.do("COMMIT", "", "transaction:t")
				case n.effects%10 == 9:
					n.begin(text("BEGIN", "transaction:t") + send("transaction:t") + send("transaction:t"))
				default:
					n.do("SEND", "", "destination:"+queue, fmt.Sprintf("=%s %d %s", name, sent, strings.Repeat("x", 200)))
					sent++
				}
			}
		}
		if _, err := n.next(max(time.Until(due), time.Millisecond)); err != nil {
			return sent, err
		}
	}
}

// consume takes the messages of one producer, and acknowledges them some time later, until stop is closed and it has had as many as there are. They come once,
// in order.
func (n *nomad) consume(queue string, total func() (int, bool)) error {
	defer n.leave()
	held := map[string]claim{}
	var order []string
	done := map[string]bool{}
	got := 0
	n.durable = func(id string) { delete(held, id) }
	n.greet = func() error {
		var all []string
		for id, c := range held {
			all = append(all, fmt.Sprintf("%s=%d.%d", id, c.basis.epoch, c.basis.ordinal))
		}
		headers := []string{"id:s", "destination:" + queue, "ack:client-individual", "receipt:sub", "prefetch-count:500"}
		if len(all) > 0 {
			headers = append(headers, frame.HeaderClaims+":"+strings.ReplaceAll(strings.Join(all, ","), ":", `\c`))
		}
		n.write(text("SUBSCRIBE", headers...))
		for {
			r, err := n.c.read(patience)
			switch {
			case err != nil: // it will be met again
				return nil
			case r.headers[frame.HeaderMoved] != "":
				n.depart()
				return nil
			case r.command != "RECEIPT":
				return fmt.Errorf("got %v before the answer to SUBSCRIBE", r)
			case r.headers["receipt-id"] != "sub":
				continue
			}
			for _, id := range strings.Split(r.headers[frame.HeaderGone], ",") {
				if _, ok := held[id]; ok && !done[id] {
					return fmt.Errorf("the claim of %s was refused", id)
				}
			}
			return nil
		}
	}
	if err := n.settle(); err != nil {
		return err
	}
	for {
		if want, all := total(); all && got == want && len(order) == 0 && len(n.pending) == 0 {
			return nil
		}
		r, err := n.next(20 * time.Millisecond)
		if err != nil {
			return err
		}
		late := r == nil
		if r != nil && r.command == "MESSAGE" {
			id := r.headers["message-id"]
			ordinal := uint64(1)
			if v := r.headers[frame.HeaderDelivery]; v != "" {
				ordinal, _ = strconv.ParseUint(v, 10, 64)
			}
			_, again := held[id]
			switch {
			case done[id]:
				return fmt.Errorf("%s came after it was acknowledged", id)
			case !again:
				var seq int
				if _, err := fmt.Sscanf(r.body, "p %d ", &seq); err != nil || seq != got {
					return fmt.Errorf("got %.20q, want number %d", r.body, got)
				}
				got++
				order = append(order, id)
			}
			held[id] = claim{basis: basis{uint64(n.epoch), ordinal}}
		}
		for len(order) > 20 || late && len(order) > 0 {
			id := order[0]
			order = order[1:]
			done[id] = true
			n.do("ACK", id, "subscription:s", "message-id:"+strings.ReplaceAll(id, ":", `\c`))
		}
	}
}
