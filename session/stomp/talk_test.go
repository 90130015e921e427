package stomp

import (
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session"
)

// talk drives a recorder by hand: each helper hands octets in and looks at what came out. NULs are written as ^@ for the eye.
type talk struct {
	*testing.T
	r       *Recorder
	out     session.Out
	now     time.Time
	chunks  []*session.Chunk
	attempt uint64
	sent    [2]string // what came out for each leg and was not looked at yet
	broken  error     // Move, taken
}

const sessionID = "0123456789abcdef0123456789abcdef"

func newTalk(t *testing.T, cfg Config) *talk {
	t.Helper()
	cfg.Session = sessionID
	k := &talk{T: t, r: New(cfg), now: time.Unix(1_000_000, 0)}
	k.out.Listening = [2]time.Time{k.now, k.now}
	k.do(func() { k.r.Tick(&k.out) })
	t.Cleanup(k.close)
	return k
}

// close asserts that no octets are held any more.
func (k *talk) close() {
	k.r.Close()
	k.out.Close()
	for i, c := range k.chunks {
		if c.Refs() != 1 {
			k.Errorf("chunk %d has %d references after Close, want the maker's", i, c.Refs())
		}
	}
}

func (k *talk) do(f func()) {
	k.Helper()
	k.out.Now = k.now
	f()
	for leg := range k.sent {
		for _, b := range k.out.Take(session.Leg(leg), nil) {
			k.sent[leg] += string(b.Bytes())
			b.Drop()
		}
	}
	if k.out.Move != nil {
		k.broken, k.out.Move = k.out.Move, nil
	}
}

func (k *talk) feed(leg session.Leg, text string) {
	k.Helper()
	c := session.NewChunk([]byte(strings.ReplaceAll(text, "^@", "\x00")), nil)
	k.chunks = append(k.chunks, c)
	k.do(func() {
		if took, _ := k.r.Feed(leg, c.Range(0, len(c.Data)), &k.out); took != len(c.Data) && k.out.End == nil && k.out.Move == nil {
			k.Fatalf("%s fed %q: only %d octets taken", leg, text, took)
		}
	})
}

func (k *talk) client(text string) { k.Helper(); k.feed(session.Client, text) }
func (k *talk) broker(text string) { k.Helper(); k.feed(session.Broker, text) }

// sees asserts what came out for a leg since the last look, exactly.
func (k *talk) sees(leg session.Leg, want string) {
	k.Helper()
	got := strings.ReplaceAll(strings.ReplaceAll(k.sent[leg], "\x00\n", "^@"), "\x00", "^@") // one line feed behind a NUL means nothing
	k.sent[leg] = ""
	if got != want {
		k.Fatalf("%s was sent\n%s\nwant\n%s", leg, got, want)
	}
}

func (k *talk) toClient(want string) { k.Helper(); k.sees(session.Client, want) }
func (k *talk) toBroker(want string) { k.Helper(); k.sees(session.Broker, want) }

// skip forgets what came out.
func (k *talk) skip() { k.sent = [2]string{} }

// up connects a broker that answers at once.
func (k *talk) up(epoch, cursor, more string) {
	k.Helper()
	k.attempt++
	k.do(func() { k.r.Up(session.Peer{Name: "b:1", Attempt: k.attempt}, &k.out) })
	k.sent[session.Broker] = ""
	k.broker("CONNECTED\nversion:1.2\nheart-beat:1000,1000\nunderstudy-store:S\nunderstudy-epoch:" + epoch +
		"\nunderstudy-cursor:" + cursor + "\n" + more + "\n^@\n")
}

func (k *talk) down() { k.Helper(); k.do(func() { k.r.Down(nil, &k.out) }) }

func (k *talk) pass(d time.Duration) {
	k.Helper()
	k.now = k.now.Add(d)
	k.do(func() { k.r.Tick(&k.out) })
}

func (k *talk) report() (r session.Report) { k.r.Report(&r); return r }

// live is a client that is connected in 1.2 through epoch 1.
func live(t *testing.T, cfg Config) *talk {
	t.Helper()
	k := newTalk(t, cfg)
	k.client("CONNECT\naccept-version:1.2\nhost:h\nlogin:u\npasscode:p\\q:r\n\n^@")
	k.up("1", "0", "")
	k.skip()
	return k
}

// subscribed has a subscription s on /queue/q that the broker has answered.
func subscribed(t *testing.T, ack string) *talk {
	t.Helper()
	k := live(t, Config{})
	k.client("SUBSCRIBE\nid:s\ndestination:/queue/q\nack:" + ack + "\n\n^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	k.skip()
	return k
}

func message(id, ack string) string {
	return "MESSAGE\nsubscription:s\nmessage-id:" + id + "\ndestination:/queue/q\nack:" + ack + "\n\nbody^@"
}
