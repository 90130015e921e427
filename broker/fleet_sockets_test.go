package broker

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

var fleetSize = flag.Int("fleet", 300, "how many sidecar sessions TestFleetOverSockets has")

// member is a sidecar session of a fleet that shares a queue.
type member struct {
	client
	id    string
	holds []string // ids
	acked string   // was acknowledged
}

const memberHolds = 4

// dial connects an attempt of the session.
func (m *member) dial(addr string, attempt int) error {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	m.client = client{nc: nc}
	m.parser.Version = frame.V12
	_, err = m.ask(text("CONNECT", "accept-version:1.2", "understudy-session:"+m.id, fmt.Sprint("understudy-attempt:", attempt), "understudy-hold:60000"), "CONNECTED")
	return err
}

// ask says something and waits for the answer.
func (m *member) ask(octets, want string) (*reply, error) {
	if _, err := m.nc.Write([]byte(octets)); err != nil {
		return nil, err
	}
	return m.get(want)
}

func (m *member) get(want string) (*reply, error) {
	r, err := m.client.read(patience)
	if err == nil && r.command != want {
		err = errors.New("got " + r.String() + ", want " + want)
	}
	return r, err
}

func (m *member) subscribe(headers ...string) (*reply, error) {
	return m.ask(text("SUBSCRIBE", append([]string{"id:s", "destination:/queue/jobs", "ack:client-individual", fmt.Sprint("prefetch-count:", memberHolds), "receipt:s"}, headers...)...), "RECEIPT")
}

// work takes the session's messages and acknowledges the first.
func (m *member) work() error {
	for range memberHolds {
		r, err := m.get("MESSAGE")
		if err != nil {
			return err
		}
		m.holds = append(m.holds, r.headers["message-id"])
	}
	m.acked, m.holds = m.holds[0], m.holds[1:]
	_, err := m.ask(text("ACK", "understudy-effect:1", "subscription:s", "message-id:"+m.acked), "RECEIPT")
	return err
}

// back claims what the session holds, and what it does not know to be acknowledged.
func (m *member) back(addr string) error {
	if err := m.dial(addr, 2); err != nil {
		return err
	}
	var all []string
	for _, id := range append(m.holds, m.acked) {
		all = append(all, id+"=1.1")
	}
	r, err := m.subscribe(claims(all...))
	if err == nil && r.headers[frame.HeaderGone] != m.acked {
		err = fmt.Errorf("got %v, want only %s gone", r, m.acked)
	}
	return err
}

// each has some members at a time do something.
func each(t *testing.T, members []*member, f func(*member) error) {
	t.Helper()
	todo, failed := make(chan *member), make(chan error, len(members))
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for m := range todo {
				if err := f(m); err != nil {
					failed <- err
				}
			}
		})
	}
	for _, m := range members {
		todo <- m
	}
	close(todo)
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Fatal(err)
	}
}

// After a crash all sessions of a fleet are back, and have what they held, before the window is over. With -fleet=5000 -v it says how long that takes.
func TestFleetOverSockets(t *testing.T) {
	usual := func(c *Config) { c.ReclaimWindow = 0 } // 2 s
	s := serving(t, usual)
	var members []*member
	for i := range *fleetSize {
		members = append(members, &member{id: fmt.Sprintf("%032x", i)})
	}
	each(t, members, func(m *member) error {
		if err := m.dial(s.addr, 1); err != nil {
			return err
		}
		_, err := m.subscribe()
		return err
	})
	p := s.connected("1.2")
	p.write(strings.Repeat(text("SEND", "destination:/queue/jobs", "=job"), memberHolds*len(members)))
	p.sent("/queue/other", "last")
	each(t, members, (*member).work)
	for _, m := range members {
		s.dialed = append(s.dialed, m.nc)
	}
	s = s.crash(usual)
	rival := s.subscriber("/queue/jobs", "client-individual")
	began := time.Now()
	each(t, members, func(m *member) error { return m.back(s.addr) })
	t.Logf("%d sessions with %d messages each were back after %v", len(members), memberHolds-1, time.Since(began).Round(time.Millisecond))
	rival.quiet()
	s.messages(len(members)*(memberHolds-1) + 1)
	for _, m := range members {
		m.nc.Close()
	}
}
