package stomp

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session"
)

// foreign connects a broker that is not paired.
func (k *talk) foreign() {
	k.Helper()
	k.attempt++
	k.do(func() { k.r.Up(session.Peer{Name: "f:1", Attempt: k.attempt}, &k.out) })
	k.sent[session.Broker] = ""
	k.broker("CONNECTED\nversion:1.2\nheart-beat:0,0\n\n^@\n")
}

func TestRelayedBrokerGetsWhatWasPipelinedInOrder(t *testing.T) {
	k := newTalk(t, Config{Window: 1000, Replay: ReplayNone})
	k.client("CONNECT\naccept-version:1.2\n\n^@SEND\ndestination:/topic/t\n\n" + strings.Repeat("x", 2000) + "^@SUBSCRIBE\nid:1\ndestination:/topic/t\n\n^@DISCONNECT\nreceipt:bye\n\n^@")
	k.foreign()
	k.toBroker("SEND\ndestination:/topic/t\n\n" + strings.Repeat("x", 2000) + "^@SUBSCRIBE\nid:1\ndestination:/topic/t\n\n^@DISCONNECT\nreceipt:bye\n\n^@")
	if k.out.Pause[session.Client] {
		t.Fatal("the client stays paused for what is not kept any more")
	}
	k.skip()
	k.broker("RECEIPT\nreceipt-id:bye\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:bye\n\n^@")
	k.down()
	if k.out.End == nil || k.out.End.Code != "client-closed" {
		t.Fatalf("end %+v", k.out.End)
	}
}

// In 1.0 a broker trims what stands around a header's name.
func TestPaddedHeadersOfOursAreStrippedToo(t *testing.T) {
	k := newTalk(t, Config{})
	k.client("CONNECT\nlogin:u\n understudy-probe:1\n\n^@")
	k.do(func() { k.r.Up(session.Peer{Name: "b:1", Attempt: 1}, &k.out) })
	k.broker("CONNECTED\nunderstudy-store:S\nunderstudy-epoch:1\nunderstudy-cursor:0\n\n^@")
	if got := k.sent[session.Broker]; strings.Contains(got, "probe") {
		t.Fatalf("broker was sent %q", got)
	}
	k.skip()
	k.client("SEND\n understudy-effect:7\ndestination:/queue/q\n\n^@")
	if got := k.sent[session.Broker]; strings.Contains(got, "effect:7") {
		t.Fatalf("broker was sent %q", got)
	}
}

func TestWhatIsKeptOfTransactionsIsBounded(t *testing.T) {
	body := strings.Repeat("x", 10_000)
	t.Run("one, its receipts answered", func(t *testing.T) {
		k := live(t, Config{MaxTransaction: 1 << 10})
		k.client("BEGIN\ntransaction:t\n\n^@")
		for i := range 200 {
			k.client("SEND\ntransaction:t\nreceipt:r\ndestination:/q\n\n" + body + "^@")
			k.broker(fmt.Sprintf("RECEIPT\nreceipt-id:u%d\n\n^@", i+1))
		}
		if n, r := len(k.r.log.entries), k.report(); n > 64 || r.WindowBytes > 64<<10 {
			t.Errorf("%d entries, %d octets", n, r.WindowBytes)
		}
	})
	t.Run("many", func(t *testing.T) {
		k := live(t, Config{MaxTransaction: 64 << 10})
		for i := range 200 {
			k.client(fmt.Sprintf("BEGIN\ntransaction:t%d\n\n^@SEND\ntransaction:t%d\ndestination:/q\n\n%s^@", i, i, body))
		}
		if r := k.report(); r.WindowBytes > 128<<10 {
			t.Errorf("%d octets", r.WindowBytes)
		}
	})
}

func TestSessionOfAClientThatLeftEnds(t *testing.T) {
	k := live(t, Config{Hold: 10 * time.Second})
	k.client("SEND\ndestination:/q\n\n^@")
	k.do(func() { k.r.ClientEOF(false, &k.out) })
	for range 11 { // the broker lives, and never confirms
		k.broker("\n")
		k.pass(time.Second)
	}
	if k.out.End == nil {
		t.Fatal("waits for ever")
	}
}

func TestHeartBeatsAreNotAgreedBelowTheLeast(t *testing.T) {
	k := newTalk(t, Config{})
	k.client("CONNECT\naccept-version:1.2\nheart-beat:1,1\n\n^@")
	k.up("1", "0", "")
	if !strings.Contains(k.sent[session.Client], "heart-beat:100,100\n") {
		t.Fatalf("CONNECTED %q", k.sent[session.Client])
	}
}

// Each frame must cost the same, however many are kept: no work that grows with the log, parked or beside an open transaction.
func TestWorkDoesNotGrowWithTheLog(t *testing.T) {
	cost := func(kept int) time.Duration {
		k := live(t, Config{})
		say := func(leg session.Leg, text string) {
			c := session.NewChunk([]byte(text), nil)
			k.chunks = append(k.chunks, c)
			k.r.Feed(leg, c.Range(0, len(c.Data)), &k.out)
			k.out.Discard(session.Client)
			k.out.Discard(session.Broker)
		}
		send := "SEND\ntransaction:big\ndestination:/q\n\n\x00"
		say(session.Client, "BEGIN\ntransaction:big\n\n\x00"+strings.Repeat(send, kept))
		start := time.Now()
		for i := range 200 {
			say(session.Client, "BEGIN\ntransaction:t\n\n\x00COMMIT\ntransaction:t\n\n\x00")
			say(session.Broker, fmt.Sprintf("RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:%d\n\n\x00", i+1))
		}
		k.down()
		for range 200 {
			say(session.Client, send)
		}
		return time.Since(start)
	}
	// A scan per frame would make the second some two thousand times the first.
	if few, many := cost(100), cost(100_000); many > 100*max(few, time.Millisecond) {
		t.Errorf("400 frames take %v beside 100 kept ones and %v beside 100000", few, many)
	}
}

// A window that is full all the time must not make the log anew, nor look through it from the front with every confirmation, also beside a
// transaction that stays open. What it needed for a burst goes when it is not used any more.
func TestLogKeepsItsMemoryWhileItIsUsed(t *testing.T) {
	for _, kept := range []int{0, 50_000} {
		l := &journal{}
		tx := &transaction{first: l.end()}
		for i := range kept {
			kind := sendEntry
			if i == 0 {
				kind = beginEntry
			}
			l.add(entry{kind: kind, tx: tx, target: ackTarget{slot: none}})
		}
		effect, cursor := uint64(0), uint64(0)
		cycle := func(window int) {
			for effect < cursor+uint64(window) {
				effect++
				l.add(entry{effect: effect, target: ackTarget{slot: none}})
			}
			for range window / 2 {
				cursor++
				l.confirm(cursor, func(*entry) {})
				l.compact()
			}
		}
		drain := func() {
			for cursor < effect {
				cursor++
				l.confirm(cursor, func(*entry) {})
				l.compact()
			}
		}
		grow := func() {
			for range 100 {
				cycle(3000)
			}
			drain()
		}
		grow()
		start := time.Now()
		if n := testing.AllocsPerRun(10, grow); n != 0 {
			t.Errorf("beside %d entries: %v allocations for 100 windows", kept, n)
		}
		// 11 times 150,000 effects: a scan of what is kept with each would be 10^11 steps.
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("beside %d entries: %v", kept, took)
		}
		if kept > 0 {
			continue
		}
		for range 3 * weighEvery * 33 {
			cycle(2)
		}
		if c := cap(l.entries); c > 256 {
			t.Errorf("room for %d entries is kept for a few", c)
		}
	}
}

// An idle session keeps no log, also where no heart-beat was agreed on that would wake it.
func TestIdleSessionKeepsNoLog(t *testing.T) {
	k := live(t, Config{})
	k.client(strings.Repeat("SEND\ndestination:/q\n\n^@", 1000))
	k.broker("RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:1000\n\n^@")
	if cap(k.r.log.entries) < 1000 {
		t.Fatal("the log is given back at once")
	}
	k.pass(restful)
	if c := cap(k.r.log.entries); c > idleEntries {
		t.Errorf("room for %d entries is kept", c)
	}
}

// Small frames are packed: they must not keep the read buffers that they came in.
func TestSmallFramesDoNotPinReadBuffers(t *testing.T) {
	k := live(t, Config{})
	before := len(k.chunks)
	k.client("SEND\ndestination:/q\nreceipt:r1\n\n^@" + strings.Repeat("\n", 32<<10))
	if refs := k.chunks[before].Refs(); refs != 1 {
		t.Fatalf("a frame of 40 octets holds a chunk of 32 KiB (%d references)", refs)
	}
	k.down()
	k.skip()
	k.up("2", "0", "")
	k.toBroker("SEND\nunderstudy-effect:1\ndestination:/q\nreceipt:r1\n\n^@")
	k.broker("RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:1\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:r1\n\n^@")
	if k.r.arena.chunk != nil {
		t.Error("an idle session holds a buffer")
	}
}

// An ordinary close arrives as the end of the stream, behind which the client could still read.
func TestSessionOfAHalfClosedClientEnds(t *testing.T) {
	k := live(t, Config{Hold: 10 * time.Second})
	k.client("SEND\ndestination:/q\n\n^@")
	k.do(func() { k.r.ClientEOF(true, &k.out) })
	for range 11 {
		k.broker("\n")
		k.pass(time.Second)
	}
	if k.out.End == nil {
		t.Fatal("waits for ever")
	}
}

// The answer to a login may stand behind messages that a slow client does not take: then the broker is not to blame.
func TestLoginIsNotTimedWhileNobodyListens(t *testing.T) {
	k := live(t, Config{LoginTimeout: time.Second})
	k.client("SUBSCRIBE\nid:s\ndestination:/queue/q\n\n^@")
	k.down()
	k.up("2", "0", "") // the RECEIPT of the SUBSCRIBE is awaited
	k.out.Listening[session.Broker] = time.Time{}
	for range 5 {
		k.pass(time.Second)
	}
	if k.broken != nil {
		t.Fatalf("left: %v", k.broken)
	}
	k.out.Listening[session.Broker] = k.now
	k.pass(time.Second)
	if k.broken == nil {
		t.Fatal("not left though it was listened to")
	}
}
