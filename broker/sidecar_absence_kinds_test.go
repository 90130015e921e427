package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Absence is one thing, whatever ends a connection: what is tested here holds for a broker that lived, for a crash and for an orderly hand-over.

// absence ends the connections of a server in one of these ways, and says who serves then.
type absence struct {
	name string
	over func(*testServer) *testServer
}

var absences = []absence{
	{"blip", func(s *testServer) *testServer { return s }},
	{"crash", func(s *testServer) *testServer { return s.crash(patient) }},
	{"hand-over", func(s *testServer) *testServer { return s.restart(patient) }},
}

// patient has the window outlast a test.
func patient(c *Config) { c.ReclaimWindow = time.Minute }

func eachAbsence(t *testing.T, f func(t *testing.T, s *testServer, over func(*testServer) *testServer, kind string)) {
	for _, a := range absences {
		t.Run(a.name, func(t *testing.T) { f(t, serving(t, patient), a.over, a.name) })
	}
}

// crash starts a server on what the disk has of the store of s, which is not told and ends later.
func (s *testServer) crash(change ...func(*Config)) *testServer {
	s.t.Helper()
	dir, from := s.t.TempDir(), s.cfg.Stores[0].Dir
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && d.IsDir() {
			return nil // a test of the disk that has ended
		}
		octets, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		to := filepath.Join(dir, strings.TrimPrefix(path, from))
		return errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.WriteFile(to, octets, 0o600))
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, nc := range s.dialed {
		nc.Close()
	}
	s.stop()
	return start(s.t, dir, change...).active()
}

// away waits until the broker has noticed that n sessions are.
func (s *testServer) away(n int) {
	s.t.Helper()
	eventually(s.t, "sessions are away", func() bool { return s.Status().Stores[0].Absent == n })
}

func (s *testServer) messages(want int) {
	s.t.Helper()
	if n := s.Status().Stores[0].Messages; n != want {
		s.t.Fatalf("%d messages are left, want %d", n, want)
	}
}

func ackOf(session string, effect int) string {
	return fmt.Sprintf(`message-id:%s\c%d`, session, effect)
}

func TestAbsenceOfADurableSubscriber(t *testing.T) {
	eachAbsence(t, func(t *testing.T, s *testServer, over func(*testServer) *testServer, _ string) {
		durable := func(c *client, headers ...string) *reply {
			return c.subscribe("s", "/topic/a", "client-individual", append(headers, "durable-subscription-name:d")...)
		}
		x, _ := s.sidecar(sessionX, 1, "client-id:c")
		durable(x)
		y, _ := s.sidecar(sessionY, 1)
		y.effect(1, "SEND", "destination:/topic/a", "=one")
		y.effect(2, "SEND", "destination:/topic/a", "=two")
		x.message("one")
		x.message("two") // it is taken as lost on the way
		x.leave()
		s.away(1)
		y.effect(3, "SEND", "destination:/topic/a", "=three")
		s = over(s)
		s.connected("1.2").sent("/topic/a", "four")
		thief := s.dial()
		thief.connect("1.2", "client-id:c")
		thief.send("SUBSCRIBE", "id:s", "destination:/topic/a", "durable-subscription-name:d")
		thief.refused("durable subscription in use")
		x, _ = s.sidecar(sessionX, 2, "client-id:c")
		if r := durable(x, claims(sessionY+":1=1.1")); r.headers["understudy-gone"] != "" {
			t.Fatalf("got %v", r)
		}
		for _, body := range []string{"two", "three", "four"} {
			x.message(body)
		}
		x.quiet()
		for n := range 3 {
			x.effect(n+1, "ACK", "subscription:s", ackOf(sessionY, n+1))
		}
		s.messages(1)
	})
}

func TestAbsenceOfAnOwnerOfATemporaryQueue(t *testing.T) {
	eachAbsence(t, func(t *testing.T, s *testServer, over func(*testServer) *testServer, _ string) {
		x, _ := s.sidecar(sessionX, 1)
		x.subscribe("r", "/temp-queue/r", "client-individual")
		x.effect(1, "SEND", "destination:/queue/requests", "reply-to:/temp-queue/r", "=question")
		y, _ := s.sidecar(sessionY, 1)
		y.subscribe("s", "/queue/requests", "client-individual")
		to := y.message("question").headers["reply-to"]
		y.effect(1, "SEND", "destination:"+to, "=one")
		y.effect(2, "SEND", "destination:"+to, "=two")
		x.message("one")
		x.message("two")
		x.leave()
		s.away(1)
		y.effect(3, "SEND", "destination:"+to, "=three")
		s = over(s)
		s.connected("1.2").sent(to, "four") // the name is still good
		x, _ = s.sidecar(sessionX, 2)
		x.subscribe("r", "/temp-queue/r", "client-individual", claims(sessionY+":1=1.1"))
		x.message("two", "destination", "/temp-queue/r")
		x.message("three")
		x.message("four")
		x.quiet()
		x.effect(2, "ACK", "subscription:r", ackOf(sessionY, 1))
		s.messages(4) // and the request
	})
}

func TestAbsenceInATransaction(t *testing.T) {
	eachAbsence(t, func(t *testing.T, s *testServer, over func(*testServer) *testServer, _ string) {
		x, _ := s.sidecar(sessionX, 1)
		x.effect(1, "SEND", "destination:/queue/in", "=one")
		x.effect(2, "SEND", "destination:/queue/in", "=two")
		x.subscribe("s", "/queue/in", "client-individual")
		x.message("one")
		x.message("two")
		committed := text("BEGIN", "transaction:t") + text("ACK", "transaction:t", "subscription:s", ackOf(sessionX, 1)) +
			text("SEND", "transaction:t", "destination:/queue/out", "=done") + text("COMMIT", "understudy-effect:3", "transaction:t")
		doomed := text("BEGIN", "transaction:u") + text("ACK", "transaction:u", "subscription:s", ackOf(sessionY, 9)) +
			text("SEND", "transaction:u", "destination:/queue/out", "=never") + text("COMMIT", "understudy-effect:4", "transaction:u")
		open := text("BEGIN", "transaction:v") + text("ACK", "transaction:v", "subscription:s", ackOf(sessionX, 2)) +
			text("SEND", "transaction:v", "destination:/queue/out", "=later")
		x.write(committed + doomed + open)
		x.cursor(4)
		x.leave()
		s.away(1)
		s = over(s)
		x, hello := s.sidecar(sessionX, 2, "understudy-cursor:2") // it has heard of none of them
		if hello.headers["understudy-cursor"] != "4" || hello.headers["understudy-rolled-back"] != "4" {
			t.Fatalf("got %v", hello)
		}
		x.subscribe("s", "/queue/in", "client-individual", claims(sessionX+":2=1.1"))
		x.write(committed + doomed + open + text("COMMIT", "understudy-effect:5", "transaction:v"))
		for told := ""; told != "5"; {
			r := x.expect("RECEIPT")
			told = r.headers["understudy-cursor"]
			if rolled := r.headers["understudy-rolled-back"]; rolled != "" && rolled != "4" {
				t.Fatalf("got %v", r)
			}
		}
		d := s.subscriber("/queue/out", "auto")
		d.message("done")
		d.message("later")
		d.quiet()
		s.messages(0)
	})
}

// What a topic brings within the hold is kept. A crash loses what its session had not got, and no more.
func TestAbsenceOfASubscriberOfATopic(t *testing.T) {
	eachAbsence(t, func(t *testing.T, s *testServer, over func(*testServer) *testServer, kind string) {
		x, _ := s.sidecar(sessionX, 1)
		x.subscribe("s", "/topic/a", "client-individual")
		y, _ := s.sidecar(sessionY, 1)
		y.effect(1, "SEND", "destination:/topic/a", "=one")
		y.effect(2, "SEND", "destination:/topic/a", "=two")
		x.message("one")
		x.message("two") // it is taken as lost on the way
		x.leave()
		s.away(1)
		y.effect(3, "SEND", "destination:/topic/a", "=three")
		y.send("BEGIN", "transaction:t")
		y.send("SEND", "transaction:t", "destination:/topic/a", "=four")
		y.effect(4, "COMMIT", "transaction:t")
		s = over(s)
		d := s.connected("1.2")
		d.sent("/topic/a", "five")
		d.sent("/topic/a", "six", "persistent:false")
		x, _ = s.sidecar(sessionX, 2)
		if r := x.subscribe("s", "/topic/a", "client-individual", claims(sessionY+":1=1.1")); r.headers["understudy-gone"] != "" {
			t.Fatalf("a topic's message has gone elsewhere: %v", r)
		}
		if kind != "crash" {
			x.message("two")
			x.message("three")
			x.message("four", "message-id", sessionY+":4:0")
		}
		x.message("five")
		x.message("six")
		x.quiet()
		// What was claimed is acknowledged, also in a transaction, whether it is known or not.
		x.send("BEGIN", "transaction:t")
		x.send("ACK", "transaction:t", "subscription:s", ackOf(sessionY, 1))
		if r := x.effect(1, "COMMIT", "transaction:t"); r.headers["understudy-rolled-back"] != "" {
			t.Fatalf("got %v", r)
		}
		for n := range 2 {
			x.effect(n+2, "ACK", "subscription:s", ackOf(sessionY, n+2))
		}
		x.send("UNSUBSCRIBE", "id:s", "receipt:u")
		x.expect("RECEIPT", "receipt-id", "u")
		s.messages(0)
	})
}

// Queues to which nobody absent was subscribed flow at once, topics too, while others wait.
func TestAbsenceHoldsNothingElse(t *testing.T) {
	eachAbsence(t, func(t *testing.T, s *testServer, over func(*testServer) *testServer, kind string) {
		x, _ := s.sidecar(sessionX, 1)
		x.subscribe("t", "/topic/a", "client-individual")
		x.effect(1, "SEND", "destination:/queue/waits", "=one")
		x.effect(2, "SEND", "destination:/queue/waits", "=two")
		x.effect(3, "SEND", "destination:/queue/flows", "=one")
		x.subscribe("s", "/queue/waits", "client-individual", "prefetch-count:1")
		x.message("one")
		x.leave()
		s.away(1)
		s = over(s)
		began := time.Now()
		flows := s.subscriber("/queue/flows", "auto")
		flows.message("one")
		flows.sent("/queue/flows", "two")
		flows.message("two")
		topic := s.subscriber("/topic/a", "auto")
		s.connected("1.2").sent("/topic/a", "news")
		topic.message("news")
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("took %v", took)
		}
		waits := s.subscriber("/queue/waits", "client-individual")
		if kind == "blip" {
			waits.message("two") // it is known what the absent one has
		}
		waits.quiet()
	})
}
