package stomp

import (
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// The figures that an operator reads tell what has happened, not one more or less.
func TestReportCounts(t *testing.T) {
	k := subscribed(t, "client-individual")
	k.broker(message("m1", "a1") + message("m2", "a2"))
	if r := k.report(); r.Takeovers != 0 || r.Unacked != 2 {
		t.Errorf("%d takeovers, %d not acknowledged, want 0 and 2", r.Takeovers, r.Unacked)
	}
	k.down()
	k.up("2", "0", "")
	k.broker(rcpt(1))
	if r := k.report(); r.Takeovers != 1 || r.Unacked != 2 {
		t.Errorf("%d takeovers, %d not acknowledged, want 1 and 2", r.Takeovers, r.Unacked)
	}
	k.client("UNSUBSCRIBE\nid:s\n\n^@")
	if r := k.report(); r.Unacked != 0 {
		t.Errorf("%d not acknowledged, but the client has left the subscription", r.Unacked)
	}
}

// A frame with which broker after broker is lost is not given to yet another, and the client is told which.
func TestPoisonFrame(t *testing.T) {
	k := live(t, Config{})
	k.client("SEND\ndestination:/queue/q\nreceipt:r1\n\na^@")
	for i := range maxLosses {
		if k.out.End != nil {
			t.Fatalf("ended after %d losses: %+v", i, k.out.End)
		}
		k.down()
		if i < maxLosses-1 {
			k.up("2", "0", "")
		}
	}
	k.has(session.Client, []string{"ERROR\n", "error-code:poison-frame\n", "in-doubt-receipts:r1\n"})
	if k.out.End == nil || k.out.End.Code != "poison-frame" {
		t.Fatalf("end %+v", k.out.End)
	}
}

// Frames that change nothing are not suspected: a session that has only subscribed and begun outlives any number of brokers.
func TestIdleSessionIsNotPoison(t *testing.T) {
	k := subscribed(t, "auto")
	k.client("BEGIN\ntransaction:t\n\n^@")
	for range 2 * maxLosses {
		k.down()
		k.up("2", "0", "")
		k.broker(rcpt(1))
	}
	if k.out.End != nil {
		t.Fatalf("end %+v", k.out.End)
	}
}

// A transaction that can be kept no longer and cannot be sent yet ends the session: let go of, it would be committed in part.
func TestTooLargeToBeHeld(t *testing.T) {
	large := "SEND\ntransaction:t\ndestination:/queue/q\n\n" + strings.Repeat("x", 300) + "^@"
	t.Run("where its COMMIT plays it", func(t *testing.T) {
		k := behind(t, rabbitServer, Config{MaxTransaction: 200})
		k.client("BEGIN\ntransaction:t\n\n^@" + large)
		k.has(session.Client, []string{"ERROR\n", "error-code:not-resumable\n"})
	})
	t.Run("while it waits for its turn", func(t *testing.T) {
		k := behind(t, activeServer, Config{MaxTransaction: 200})
		k.client("SEND\ndestination:/queue/q\n\na^@") // waits for the queue of marks
		k.client("BEGIN\ntransaction:t\n\n^@" + large)
		k.has(session.Client, nil, "ERROR")
		k.client(large + large)
		k.has(session.Client, []string{"ERROR\n", "error-code:not-resumable\n"})
	})
}

// Two copies of one SEND wait behind a full prefetch. The second is known for one only when the first is shown.
func TestCopiesThatWereWithheld(t *testing.T) {
	k := behind(t, rabbitServer, Config{})
	k.client("SUBSCRIBE\nid:s\ndestination:/queue/q\nack:client-individual\nprefetch-count:1\n\n^@")
	copyOf := func(tag, stamp string) string {
		return strings.Replace(message("T_s@@"+tag, "T_s@@"+tag), "MESSAGE\n", "MESSAGE\nunderstudy-stamp:"+stamp+"\n", 1)
	}
	k.broker(rcpt(1) + copyOf("1", "p.6.1"))
	k.skip()
	k.broker(copyOf("2", "p.7.1") + copyOf("3", "p.7.2"))
	k.toClient("")
	k.client("ACK\nid:T_s@@1\n\n^@")
	k.toClient(message("T_s@@2", "T_s@@2"))
	k.skip()
	k.client("ACK\nid:T_s@@2\n\n^@")
	k.toClient("")
	k.has(session.Broker, []string{"id:T_s@@2\n", "id:T_s@@3\n"})
	if r := k.report(); r.Hidden != 1 {
		t.Errorf("%d hidden, want 1", r.Hidden)
	}
}

// --replay=sends plays what was in doubt by itself, but the end of a transaction only where the broker says what became of it.
func TestReplaySendsInDoubt(t *testing.T) {
	begun := func(t *testing.T) *talk {
		k := live(t, Config{Replay: ReplaySends})
		k.client("SUBSCRIBE\nid:s\ndestination:/queue/q\nack:client-individual\n\n^@")
		k.broker(rcpt(1) + message("m1", "a1"))
		k.client("SEND\ndestination:/queue/q\n\na^@ACK\nid:a1\n\n^@")
		return k
	}
	t.Run("frames", func(t *testing.T) {
		k := begun(t)
		k.down()
		k.up("2", "0", "")
		k.has(session.Client, nil, "ERROR")
		k.has(session.Broker, []string{"SEND\nunderstudy-effect:1\n", "ACK\nunderstudy-effect:2\n"})
	})
	for _, end := range []string{"COMMIT", "ABORT"} {
		t.Run(end, func(t *testing.T) {
			for _, known := range []bool{false, true} {
				k := begun(t)
				k.client("BEGIN\ntransaction:t\n\n^@SEND\ntransaction:t\ndestination:/queue/q\n\nb^@" + end + "\ntransaction:t\nreceipt:c\n\n^@")
				k.down()
				k.skip()
				if known {
					k.up("2", "3", "")
					k.toClient("RECEIPT\nreceipt-id:c\n\n^@")
					continue
				}
				k.up("2", "2", "")
				k.has(session.Client, []string{"ERROR\n", "error-code:in-doubt\n", "in-doubt-receipts:c\n"}, "RECEIPT")
				k.has(session.Broker, nil, "SEND\n", end)
			}
		})
	}
}

// Where a message-id means nothing beyond its connection, one that stands on the next connection is another message, and is shown.
func TestIdentityEndsWithItsConnection(t *testing.T) {
	for _, server := range []string{rabbitServer, "CoilMQ/1"} {
		k := behind(t, server, Config{})
		k.client(subscribe)
		k.broker(rcpt(1) + message("1", "1"))
		k.down()
		k.at(server, "2")
		k.broker(rcpt(1))
		k.skip()
		k.broker(message("1", "1"))
		k.toClient(message("1", "1"))
		if r := k.report(); r.Hidden != 0 {
			t.Errorf("%s: %d hidden", server, r.Hidden)
		}
	}
}

// A frame that was rid of headers of ours is whole in all its parts, whatever its length.
func TestSanitizedFrame(t *testing.T) {
	for n := range 300 {
		body := strings.Repeat("x", n)
		raw := []byte("SEND\nunderstudy-effect:7\ndestination:/queue/q\n\n" + body + "\x00")
		parser := frame.Parser{Version: frame.V12, Limits: frame.Limits{Body: 1 << 10}}
		var f frame.Frame
		if took, _, err := parser.Next(raw, &f); took != len(raw) || err != nil {
			t.Fatal(took, err)
		}
		in := session.NewChunk(raw, nil).Range(0, len(raw))
		buf, own := sanitize(&parser, &f, in)
		want := "SEND\ndestination:/queue/q\n\n" + body + "\x00"
		if got := string(buf.Bytes()); !own || got != want || string(f.Raw) != want || string(f.Body) != body {
			t.Fatalf("%q, raw %q, body %q, want %q and %q", got, f.Raw, f.Body, want, body)
		}
		buf.Drop()
	}
}

// A heart-beat header of which one half makes no sense is refused, the client's as well as the broker's.
func TestHalfAHeartBeat(t *testing.T) {
	for _, header := range []string{"1000,x", "x,1000", "1000", "1000,", ",1000"} {
		k := newTalk(t, Config{})
		k.client("CONNECT\naccept-version:1.2\nheart-beat:" + header + "\n\n^@")
		k.has(session.Client, []string{"ERROR\n", "malformed heart-beat header"})

		k = newTalk(t, Config{})
		k.client("CONNECT\naccept-version:1.2\n\n^@")
		k.do(func() { k.r.Up(session.Peer{Name: "b:1", Attempt: 1}, &k.out) })
		k.broker("CONNECTED\nversion:1.2\nheart-beat:" + header + "\n\n^@")
		if k.broken == nil || !strings.Contains(k.broken.Error(), "malformed heart-beat header") {
			t.Errorf("%q of a broker: left because of %v", header, k.broken)
		}
		k.toClient("")
	}
}

// A later login says each thing once: what stands in for the client's own headers replaces them.
func TestLaterLoginSaysThingsOnce(t *testing.T) {
	k := newTalk(t, Config{})
	k.client("CONNECT\naccept-version:1.1,1.2\nhost:h\nlogin:u\nheart-beat:0,0\npasscode:p\n\n^@")
	k.up("1", "0", "")
	k.down()
	k.skip()
	k.do(func() { k.r.Up(session.Peer{Name: "b:2", Attempt: 2}, &k.out) })
	for _, header := range []string{"\naccept-version:", "\nheart-beat:", "\nhost:", "\nlogin:", "\npasscode:"} {
		if n := strings.Count(k.sent[session.Broker], header); n != 1 {
			t.Errorf("%q stands %d times in %q", header, n, k.sent[session.Broker])
		}
	}
	k.has(session.Broker, []string{"\naccept-version:1.2\n"})
}

// What a queue's name may not hold of a temporary queue's is written in another way, and different names stay different.
func TestReplyQueueNames(t *testing.T) {
	k := behind(t, rabbitServer, Config{})
	for local, want := range map[string]string{"aZ09-_.": "aZ09-_.", "a/b": "a~2fb", "a b": "a~20b", "a~2fb": "a~7e2fb", "ä": "~c3~a4", "": "", "@[`{:": "~40~5b~60~7b~3a"} {
		if got := k.r.replyQueue([]byte(tempPrefix + local)); got != "understudy."+sessionID+"."+want {
			t.Errorf("%q stands in for %q, want %q at the end", got, local, want)
		}
	}
}

// The queue of what waits for the client's kernel is as long as what waits in it, not as long as the session.
func TestAutoAckQueueIsBounded(t *testing.T) {
	var q autoAcks
	const backlog, rounds = 600, 20_000
	now := time.Unix(1, 0)
	for i := range rounds {
		q.push(autoAck{slot: int32(i), end: uint64(i)})
		if i < backlog {
			continue
		}
		q.arrive(uint64(i-backlog), now)
		if a, ok := q.due(now); !ok || a.slot != int32(i-backlog) {
			t.Fatalf("%d is due, %v, want %d", a.slot, ok, i-backlog)
		}
		if _, ok := q.due(now); ok {
			t.Fatal("two are due, one has arrived")
		}
		if len(q.queue) > 3*backlog {
			t.Fatalf("%d entries after %d, %d of them wait", len(q.queue), i, backlog)
		}
	}
}
