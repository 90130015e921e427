package stomp

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

func TestLoginForwardsCredentialsVerbatim(t *testing.T) {
	k := newTalk(t, Config{Hold: 20 * time.Second, HoldIdle: time.Minute})
	k.client("CONNECT\naccept-version:1.1,1.2\nlogin:u\npasscode:p\\q:r\nheart-beat:0,0\n\n^@")
	k.do(func() { k.r.Up(session.Peer{Name: "b:1", Attempt: 1}, &k.out) })
	k.toBroker("CONNECT\nunderstudy-session:" + sessionID + "\nunderstudy-attempt:1\nunderstudy-hold:60000\nunderstudy-cursor:0\n" +
		"heart-beat:1000,1000\naccept-version:1.1,1.2\nlogin:u\npasscode:p\\q:r\n\n^@")
	k.broker("CONNECTED\nversion:1.2\nserver:understudy/1\nheart-beat:1000,1000\nunderstudy-store:S\nunderstudy-epoch:3\nunderstudy-cursor:0\n\n^@\n")
	k.toClient("CONNECTED\nversion:1.2\nserver:understudy/1\nheart-beat:0,0\n\n^@")
	if !k.out.Live {
		t.Fatal("not live after the first login")
	}
	k.down()
	k.do(func() { k.r.Up(session.Peer{Name: "b:2", Attempt: 2}, &k.out) })
	if !strings.Contains(k.sent[session.Broker], "understudy-store:S\nheart-beat:1000,1000\naccept-version:1.2\n") {
		t.Fatalf("second login does not pin store and version: %q", k.sent[session.Broker])
	}
}

func TestSendIsConfirmedByTheCursor(t *testing.T) {
	k := live(t, Config{})
	k.client("SEND\ndestination:/queue/q\nreceipt:r1\n\na^@SEND\ndestination:/queue/q\n\nb^@SEND\ndestination:/queue/q\nreceipt:r3\n\nc^@")
	k.toBroker("SEND\nunderstudy-effect:1\ndestination:/queue/q\nreceipt:r1\n\na^@" +
		"SEND\nunderstudy-effect:2\ndestination:/queue/q\n\nb^@SEND\nunderstudy-effect:3\ndestination:/queue/q\nreceipt:r3\n\nc^@")
	k.toClient("")
	k.broker("RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:2\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:r1\n\n^@")

	k.down()
	k.toClient("")
	k.client("SEND\ndestination:/queue/q\nreceipt:r4\n\nd^@")
	k.up("2", "2", "")
	k.toBroker("SEND\nunderstudy-effect:3\ndestination:/queue/q\nreceipt:r3\n\nc^@SEND\nunderstudy-effect:4\ndestination:/queue/q\nreceipt:r4\n\nd^@")
	k.broker("RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:4\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:r3\n\n^@RECEIPT\nreceipt-id:r4\n\n^@")
	if r := k.report(); r.Resent != 1 || r.Unconfirmed != 0 || r.WindowBytes != 0 {
		t.Fatalf("report %+v", r)
	}
}

func TestReceiptLostIsAnsweredByTheNextLogin(t *testing.T) {
	k := live(t, Config{})
	k.client("SEND\ndestination:/queue/q\nreceipt:r1\n\na^@")
	k.skip()
	k.down()
	k.up("2", "1", "")
	k.toBroker("")
	k.toClient("RECEIPT\nreceipt-id:r1\n\n^@")
}

func TestHeldMessagesAreClaimedAndTheirAcksStillWork(t *testing.T) {
	k := subscribed(t, "client-individual")
	k.broker(message("m1", "a1") + message("m2", "a2"))
	k.toClient(strings.ReplaceAll(message("m1", "a1")+message("m2", "a2"), "\x00", "^@"))
	k.down()
	k.up("2", "0", "")
	k.toBroker("SUBSCRIBE\nreceipt:u1\nack:client-individual\nunderstudy-claims:m1=1.1,m2=1.1\nid:s\ndestination:/queue/q\n\n^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@" + message("m3", "b3"))
	k.toClient(message("m3", "b3"))
	k.client("ACK\nid:a1\n\n^@")
	k.toBroker("ACK\nunderstudy-effect:1\nsubscription:s\nmessage-id:m1\n\n^@")
	k.down()
	k.up("2", "0", "")
	k.toBroker("SUBSCRIBE\nreceipt:u1\nack:client-individual\nunderstudy-claims:m1=1.1,m2=1.1,m3=2.1\nid:s\ndestination:/queue/q\n\n^@" +
		"ACK\nunderstudy-effect:1\nsubscription:s\nmessage-id:m1\n\n^@")
	if r := k.report(); r.Hidden != 2 {
		t.Fatalf("hidden %d, want 2", r.Hidden)
	}
}

func TestCumulativeAckMeansWhatWasShown(t *testing.T) {
	k := subscribed(t, "client")
	k.broker(message("m1", "a1") + message("m2", "a2"))
	k.down()
	k.up("2", "0", "")
	// The next broker sends one of higher priority first; the client's ACK of m2 must not touch it.
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@" + message("m3", "b3"))
	k.skip()
	k.client("ACK\nid:a2\nreceipt:r\n\n^@")
	k.toBroker("ACK\nunderstudy-effect:1\nsubscription:s\nmessage-id:m1\n\n^@ACK\nunderstudy-effect:2\nsubscription:s\nmessage-id:m2\n\n^@")
	k.broker("RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:1\n\n^@")
	k.toClient("")
	k.broker("RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:2\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:r\n\n^@")
	if r := k.report(); r.Unacked != 1 {
		t.Fatalf("unacked %d, want m3", r.Unacked)
	}
}

func TestLegitimateRedeliveriesAreShown(t *testing.T) {
	k := subscribed(t, "client-individual")
	k.broker(message("m1", "a1"))
	k.client("NACK\nid:a1\n\n^@")
	k.skip()
	again := strings.Replace(message("m1", "a2"), "MESSAGE\n", "MESSAGE\nunderstudy-delivery:2\n", 1)
	k.broker("RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:1\n\n^@" + again)
	k.toClient(message("m1", "a2"))
}

func TestAckInAnAbortedTransactionCanBeMadeAgain(t *testing.T) {
	k := subscribed(t, "client-individual")
	k.broker(message("m1", "a1"))
	k.client("BEGIN\ntransaction:t\n\n^@ACK\nid:a1\ntransaction:t\n\n^@ABORT\ntransaction:t\n\n^@ACK\nid:a1\n\n^@")
	k.toBroker("BEGIN\ntransaction:t\n\n^@ACK\nsubscription:s\nmessage-id:m1\ntransaction:t\n\n^@" +
		"ABORT\nunderstudy-effect:1\ntransaction:t\n\n^@ACK\nunderstudy-effect:2\nsubscription:s\nmessage-id:m1\n\n^@")
}

func TestTransactionIsPlayedAgainWholeOrNotAtAll(t *testing.T) {
	conversation := "BEGIN\ntransaction:t\nreceipt:b\n\n^@SEND\ndestination:/queue/q\ntransaction:t\n\n1^@" +
		"SEND\ndestination:/queue/q\n\nplain^@COMMIT\ntransaction:t\nreceipt:c\n\n^@"
	k := live(t, Config{})
	k.client(conversation)
	k.toBroker("BEGIN\nreceipt:u1\ntransaction:t\nreceipt:b\n\n^@SEND\ndestination:/queue/q\ntransaction:t\n\n1^@" +
		"SEND\nunderstudy-effect:1\ndestination:/queue/q\n\nplain^@COMMIT\nunderstudy-effect:2\ntransaction:t\nreceipt:c\n\n^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:b\n\n^@")
	k.down()
	// The SEND outside was stored, the transaction was not: it is not mistaken for done.
	k.up("2", "1", "")
	k.toBroker("BEGIN\ntransaction:t\nreceipt:b\n\n^@SEND\ndestination:/queue/q\ntransaction:t\n\n1^@COMMIT\nunderstudy-effect:2\ntransaction:t\nreceipt:c\n\n^@")
	k.down()
	k.up("3", "2", "")
	k.toBroker("")
	k.toClient("RECEIPT\nreceipt-id:c\n\n^@")
	if r := k.report(); r.WindowBytes != 0 {
		t.Fatalf("%d octets kept of a settled conversation", r.WindowBytes)
	}
}

func TestRolledBackCommitIsAnError(t *testing.T) {
	k := subscribed(t, "client-individual")
	k.broker(message("m1", "a1"))
	k.client("BEGIN\ntransaction:t\n\n^@ACK\nid:a1\ntransaction:t\n\n^@COMMIT\ntransaction:t\nreceipt:c\n\n^@")
	k.skip()
	k.down()
	k.up("2", "1", "understudy-rolled-back:1\n")
	if got := k.sent[session.Client]; !strings.HasPrefix(got, "ERROR\nmessage:transaction rolled back\n") || !strings.Contains(got, "receipt-id:c\n") {
		t.Fatalf("client was sent %q", got)
	}
	if k.out.End != nil {
		t.Fatal("the session must go on: the next transaction works")
	}
	if r := k.report(); r.Unacked != 1 || r.RolledBack != 1 {
		t.Fatalf("report %+v", r)
	}
}

func TestAutoAckWaitsForTheClientsKernel(t *testing.T) {
	k := subscribed(t, "auto")
	k.broker(message("m1", "a1"))
	k.skip()
	if !k.out.Arrival {
		t.Fatal("arrival is not asked for")
	}
	k.pass(time.Second)
	k.do(func() { k.r.Wrote(session.Client, k.r.clientQueued-1, &k.out) })
	k.pass(time.Second)
	if strings.Contains(k.sent[session.Broker], "ACK") {
		t.Fatal("acknowledged though the last octet has not arrived")
	}
	k.do(func() { k.r.Wrote(session.Client, k.r.clientQueued, &k.out) })
	k.skip()
	k.pass(k.r.cfg.AutoAckLag / 2)
	k.toBroker("")
	k.pass(k.r.cfg.AutoAckLag)
	k.toBroker("ACK\nunderstudy-effect:1\nsubscription:s\nmessage-id:m1\n\n^@")
}

func TestAutoAckDeliveryIsHiddenAfterATakeover(t *testing.T) {
	k := subscribed(t, "auto")
	k.broker(message("m1", "a1"))
	k.down()
	k.do(func() { k.r.Wrote(session.Client, k.r.clientQueued, &k.out) })
	k.pass(10 * time.Millisecond)
	k.skip()
	k.up("2", "0", "")
	k.toBroker("SUBSCRIBE\nreceipt:u1\nack:client-individual\nunderstudy-claims:m1=1.1\nid:s\ndestination:/queue/q\n\n^@" +
		"ACK\nunderstudy-effect:1\nsubscription:s\nmessage-id:m1\n\n^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	if r := k.report(); r.Hidden != 1 {
		t.Fatalf("hidden %d", r.Hidden)
	}
}

func TestMessageThatComesBackIsRecognised(t *testing.T) {
	for _, tc := range []struct {
		name, client, want string // what the client says while the message is gone; what the broker is sent when it comes back
	}{
		{"still held", "", ""},
		{"acknowledged in vain", "ACK\nid:a1\n\n^@", "ACK\nunderstudy-effect:2\nsubscription:s\nmessage-id:m1\n\n^@"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, settled := range []bool{false, true} {
				k := subscribed(t, "client-individual")
				k.broker(message("m1", "a1"))
				k.down()
				k.up("2", "0", "")
				k.broker("RECEIPT\nreceipt-id:u1\nunderstudy-gone:m1\n\n^@")
				k.client(tc.client)
				if settled && tc.client != "" {
					k.broker("RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:1\n\n^@")
				}
				k.skip()
				k.broker(message("m1", "b1"))
				k.toClient("")
				k.toBroker(tc.want)
				if tc.client == "" {
					k.client("ACK\nid:a1\n\n^@")
					k.toBroker("ACK\nunderstudy-effect:1\nsubscription:s\nmessage-id:m1\n\n^@")
				}
			}
		})
	}
}

func TestPrefetchCountsWhatIsGone(t *testing.T) {
	k := live(t, Config{})
	k.client("SUBSCRIBE\nid:s\ndestination:/queue/q\nack:client-individual\nprefetch-count:1\n\n^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@" + message("m1", "a1"))
	k.down()
	k.up("2", "0", "")
	k.skip()
	k.broker("RECEIPT\nreceipt-id:u1\nunderstudy-gone:m1\n\n^@" + message("m2", "b2"))
	k.toClient("")
	k.client("ACK\nid:a1\n\n^@")
	k.toClient(message("m2", "b2"))
}

func TestDisconnectIsDrainedFirst(t *testing.T) {
	k := live(t, Config{})
	k.client("SEND\ndestination:/queue/q\n\na^@DISCONNECT\nreceipt:bye\n\n^@")
	k.toBroker("SEND\nunderstudy-effect:1\ndestination:/queue/q\n\na^@")
	k.down()
	k.up("2", "0", "")
	k.toBroker("SEND\nunderstudy-effect:1\ndestination:/queue/q\n\na^@")
	k.broker("RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:1\n\n^@")
	k.toBroker("DISCONNECT\nreceipt:u1\n\n^@")
	k.toClient("")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:bye\n\n^@")
	if k.out.End == nil || k.out.End.Code != "client-closed" {
		t.Fatalf("end %v", k.out.End)
	}
}

func TestDisconnectWhileParkedIsAnsweredAtOnceAndToldLater(t *testing.T) {
	k := live(t, Config{})
	k.down()
	k.client("DISCONNECT\nreceipt:bye\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:bye\n\n^@")
	k.do(func() { k.r.ClientEOF(false, &k.out) })
	if k.out.End != nil {
		t.Fatal("ended before the broker was told")
	}
	k.up("2", "0", "")
	k.toBroker("DISCONNECT\nreceipt:u1\n\n^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	if k.out.End == nil {
		t.Fatal("not ended")
	}
}

func TestHoldEndsWithAnErrorThatNamesWhatIsInDoubt(t *testing.T) {
	k := live(t, Config{Hold: 10 * time.Second})
	k.client("SEND\ndestination:/queue/q\nreceipt:r1\n\na^@")
	k.skip()
	k.down()
	k.pass(6 * time.Second)
	k.up("2", "0", "") // a flap must not start the clock again
	k.down()
	k.skip()
	k.pass(3 * time.Second)
	if k.out.End != nil {
		t.Fatal("ended early")
	}
	k.pass(time.Second)
	got := k.sent[session.Client]
	for _, want := range []string{"ERROR\n", "error-code:hold-timeout\n", "in-doubt-receipts:r1\n", "held-ms:10000\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if k.out.End == nil || k.out.End.Code != "hold-timeout" {
		t.Fatalf("end %v", k.out.End)
	}
}

func TestIdleClientIsHeldLonger(t *testing.T) {
	k := live(t, Config{Hold: time.Second, HoldIdle: time.Minute})
	k.down()
	k.pass(59 * time.Second)
	if k.out.End != nil {
		t.Fatal("ended early")
	}
	k.pass(time.Second)
	if k.out.End == nil {
		t.Fatal("held for ever")
	}
}

func TestHeartBeatsOfTheClientAreAnsweredWhileParked(t *testing.T) {
	k := newTalk(t, Config{})
	k.client("CONNECT\naccept-version:1.2\nheart-beat:1000,2000\n\n^@")
	k.up("1", "0", "")
	if !strings.Contains(k.sent[session.Client], "heart-beat:2000,1000\n") {
		t.Fatalf("CONNECTED %q", k.sent[session.Client])
	}
	k.down()
	k.skip()
	for range 5 {
		k.client("\n")
		k.pass(time.Second)
	}
	k.toClient("\n\n\n\n\n")
	k.pass(1500 * time.Millisecond)
	if k.out.End != nil || k.r.stage != leaving {
		t.Fatalf("a client silent beyond its word is still served: stage %d", k.r.stage)
	}
}

func TestSilentBrokerIsLeft(t *testing.T) {
	k := live(t, Config{BrokerHeartBeat: time.Second})
	k.pass(2 * time.Second)
	k.broker("\n")
	k.pass(2400 * time.Millisecond)
	if k.broken != nil {
		t.Fatalf("left early: %v", k.broken)
	}
	k.out.Listening[session.Broker] = time.Time{}
	k.pass(time.Second)
	if k.broken != nil {
		t.Fatal("left for a silence that nobody listened to")
	}
	k.out.Listening[session.Broker] = k.now
	k.pass(2500 * time.Millisecond)
	var refusal *Refusal
	if !errors.As(k.broken, &refusal) || refusal.Code() != "silent" {
		t.Fatalf("move %v", k.broken)
	}
}

func TestRefusalsOfOurOwnAreDealtWithElsewhere(t *testing.T) {
	for _, code := range []string{frame.CodeStandby, frame.CodeStaleAttempt, frame.CodeWrongStore, frame.CodeWhichStore, frame.CodeFenced} {
		k := newTalk(t, Config{})
		k.client("CONNECT\naccept-version:1.2\n\n^@")
		k.do(func() { k.r.Up(session.Peer{Name: "b", Attempt: 1}, &k.out) })
		k.broker("ERROR\nmessage:no\nunderstudy-error:" + code + "\n\n^@")
		var refusal *Refusal
		if !errors.As(k.broken, &refusal) || refusal.Code() != code || k.sent[session.Client] != "" {
			t.Errorf("%s: move %v, client was sent %q", code, k.broken, k.sent[session.Client])
		}
	}
}

func TestStoreIsAskedFor(t *testing.T) {
	k := newTalk(t, Config{})
	k.client("CONNECT\naccept-version:1.2\n\n^@")
	asked := func(attempt uint64, store string) string {
		at := len(k.sent[session.Broker])
		k.do(func() { k.r.Up(session.Peer{Name: "b", Attempt: attempt, Store: store}, &k.out) })
		_, rest, _ := strings.Cut(k.sent[session.Broker][at:], "\n"+frame.HeaderStore+":")
		line, _, _ := strings.Cut(rest, "\n")
		return line
	}
	if got := asked(1, "orders"); got != "orders" {
		t.Errorf("asked for %q", got)
	}
	k.down()
	if got := asked(2, ""); got != "" {
		t.Errorf("asked for %q, and none was wanted", got)
	}
	k.broker("CONNECTED\nversion:1.2\nunderstudy-store:S\nunderstudy-epoch:5\nunderstudy-cursor:0\n\n^@")
	k.down()
	if got := asked(3, "orders"); got != "S" || k.r.Hints().Store != "S" {
		t.Errorf("at home in S it asked for %q", got)
	}
}

type whichStore struct{}

func (whichStore) Error() string { return "several stores: orders, bills" }
func (whichStore) Code() string  { return "which-store" }

func TestNowhereToGoIsSaidToTheClient(t *testing.T) {
	for code, why := range map[string]error{"which-store": fmt.Errorf("no: %w", whichStore{}), "no-broker": errors.New("for no reason")} {
		k := newTalk(t, Config{})
		k.client("CONNECT\naccept-version:1.2\n\n^@")
		k.do(func() { k.r.Nowhere(why, &k.out) })
		k.toClient("ERROR\nmessage:" + why.Error() + "\nerror-code:" + code + "\ncontent-type:text/plain\n\n" + why.Error() + ".\n^@")
		if k.out.End == nil || k.out.End.Code != code || !errors.Is(k.out.End.Cause, why) {
			t.Errorf("ended with %+v", k.out.End)
		}
	}
}

func TestFirstLoginRefusedIsTheClientsToKnow(t *testing.T) {
	k := newTalk(t, Config{})
	k.client("CONNECT\naccept-version:1.2\n\n^@")
	k.do(func() { k.r.Up(session.Peer{Name: "b", Attempt: 1}, &k.out) })
	k.broker("ERROR\nmessage:bad credentials\n\n^@")
	k.toClient("ERROR\nmessage:bad credentials\n\n^@")
	if k.out.End == nil {
		t.Fatal("not ended")
	}
}

func TestLowerEpochAndOtherStoreAreLeft(t *testing.T) {
	for _, tc := range []struct{ name, epoch, store, code string }{
		{"lower epoch", "4", "S", "epoch"}, {"other store", "6", "T", frame.CodeWrongStore},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newTalk(t, Config{})
			k.client("CONNECT\naccept-version:1.2\n\n^@")
			k.up("5", "0", "")
			k.down()
			k.do(func() { k.r.Up(session.Peer{Name: "b", Attempt: 2}, &k.out) })
			k.broker("CONNECTED\nversion:1.2\nunderstudy-store:" + tc.store + "\nunderstudy-epoch:" + tc.epoch + "\nunderstudy-cursor:0\n\n^@")
			var refusal *Refusal
			if !errors.As(k.broken, &refusal) || refusal.Code() != tc.code {
				t.Fatalf("move %v", k.broken)
			}
		})
	}
}

func TestLostStateIsSaidNotHidden(t *testing.T) {
	k := live(t, Config{})
	k.client("SEND\ndestination:/queue/q\nreceipt:r1\n\na^@")
	k.broker("RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:1\n\n^@")
	k.skip()
	k.down()
	k.up("2", "0", "")
	if got := k.sent[session.Client]; !strings.Contains(got, "error-code:lost-state\n") || k.out.End == nil {
		t.Fatalf("client was sent %q", got)
	}
}

func TestHeadersOfOursAreStrippedBothWays(t *testing.T) {
	k := subscribed(t, "client")
	k.client("SEND\nunderstudy-effect:99\ndestination:/queue/q\nunderstudy-session:x\nreceipt:r\n\nunderstudy-body^@")
	k.toBroker("SEND\nunderstudy-effect:1\ndestination:/queue/q\nreceipt:r\n\nunderstudy-body^@")
	k.broker("RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:1\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:r\n\n^@")
	k.broker("MESSAGE\nunderstudy-delivery:2\nsubscription:s\nmessage-id:m\ndestination:/queue/q\nack:a\n\nb^@")
	k.toClient("MESSAGE\nsubscription:s\nmessage-id:m\ndestination:/queue/q\nack:a\n\nb^@")
}

func TestUnsubscribeAndReuseOfItsID(t *testing.T) {
	k := subscribed(t, "client-individual")
	k.broker(message("m1", "a1"))
	k.skip()
	k.client("UNSUBSCRIBE\nid:s\nreceipt:r\n\n^@SUBSCRIBE\nid:s\ndestination:/queue/other\n\n^@")
	k.toBroker("UNSUBSCRIBE\nreceipt:u2\nid:s\nreceipt:r\n\n^@SUBSCRIBE\nreceipt:u3\nack:client-individual\nid:s\ndestination:/queue/other\n\n^@")
	k.broker(message("m2", "a2")) // of the old one, under way
	k.toClient("")
	k.down()
	k.up("2", "0", "")
	k.toBroker("SUBSCRIBE\nreceipt:u1\nack:client-individual\nid:s\ndestination:/queue/q\n\n^@" +
		"UNSUBSCRIBE\nreceipt:u2\nid:s\nreceipt:r\n\n^@SUBSCRIBE\nreceipt:u3\nack:client-individual\nid:s\ndestination:/queue/other\n\n^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@RECEIPT\nreceipt-id:u2\n\n^@RECEIPT\nreceipt-id:u3\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:r\n\n^@")
	if r := k.report(); r.Subscriptions != 1 || r.State != "run" {
		t.Fatalf("report %+v", r)
	}
}

func TestGoneClaimIsNotClaimedAgain(t *testing.T) {
	k := subscribed(t, "client-individual")
	k.broker(message("m1", "a1"))
	k.down()
	k.up("2", "0", "")
	k.broker("RECEIPT\nreceipt-id:u1\nunderstudy-gone:m1\n\n^@")
	k.down()
	k.up("3", "0", "")
	if strings.Contains(k.sent[session.Broker], frame.HeaderClaims) {
		t.Fatalf("claims what is gone: %q", k.sent[session.Broker])
	}
	k.client("ACK\nid:a1\nreceipt:r\n\n^@")
	if r := k.report(); r.LateAcks != 1 {
		t.Fatalf("late acks %d", r.LateAcks)
	}
}

func TestWindowPausesTheClientAndTransactionsDoNot(t *testing.T) {
	send := "SEND\ndestination:/queue/q\n\n" + strings.Repeat("x", 500) + "^@"
	k := live(t, Config{Window: 1000})
	k.client("BEGIN\ntransaction:t\n\n^@")
	for range 10 {
		k.client("SEND\ntransaction:t\ndestination:/queue/q\n\n" + strings.Repeat("x", 500) + "^@")
	}
	if k.out.Pause[session.Client] {
		t.Fatal("an open transaction stops its own COMMIT from arriving")
	}
	k.client("COMMIT\ntransaction:t\n\n^@")
	if !k.out.Pause[session.Client] {
		t.Fatal("committed and unconfirmed octets are not counted")
	}
	k.broker("RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:1\n\n^@")
	if k.out.Pause[session.Client] {
		t.Fatal("still paused")
	}
	k.client(send + send)
	if !k.out.Pause[session.Client] {
		t.Fatal("window is not bounded")
	}
}

func TestTransactionTooLargeIsSaid(t *testing.T) {
	k := live(t, Config{MaxTransaction: 1000})
	k.client("BEGIN\ntransaction:t\n\n^@")
	for range 5 {
		k.client("SEND\ntransaction:t\ndestination:/queue/q\n\n" + strings.Repeat("x", 500) + "^@")
	}
	if r := k.report(); r.NotResumable == "" {
		t.Fatal("report does not say that the session is not resumable")
	}
	k.down()
	k.skip()
	k.up("2", "0", "")
	if got := k.sent[session.Client]; !strings.Contains(got, "error-code:not-resumable\n") || k.out.End == nil {
		t.Fatalf("client was sent %q", got)
	}
}

func TestNothingIsCarriedOnWhereThatIsWanted(t *testing.T) {
	k := newTalk(t, Config{Replay: ReplayNone})
	k.client("CONNECT\naccept-version:1.2\n\n^@SEND\ndestination:/queue/q\nreceipt:r\n\na^@")
	k.do(func() { k.r.Up(session.Peer{Name: "b", Attempt: 1}, &k.out) })
	k.skip()
	k.broker("CONNECTED\nversion:1.2\nserver:other/1\n\n^@")
	k.toBroker("SEND\ndestination:/queue/q\nreceipt:r\n\na^@")
	k.skip()
	k.broker("RECEIPT\nreceipt-id:r\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:r\n\n^@")
	if k.report().NotResumable == "" {
		t.Fatal("report does not say that the session is not resumable")
	}
	k.down()
	if !strings.Contains(k.sent[session.Client], "error-code:not-resumable\n") {
		t.Fatalf("client was sent %q", k.sent[session.Client])
	}
}

func TestGarbageIsOneClearError(t *testing.T) {
	for _, garbage := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00\n\n", "SEND\n\n^@", "CONNECT\ncontent-length:2000000000\n\n"} {
		k := newTalk(t, Config{})
		k.client(garbage)
		if got := k.sent[session.Client]; !strings.HasPrefix(got, "ERROR\nmessage:") || strings.Count(got, "\x00") != 1 || k.out.End == nil {
			t.Errorf("%q: client was sent %q", garbage, got)
		}
	}
}

func TestAckOfAnAbortedTransactionOutlivesItsSubscription(t *testing.T) {
	k := subscribed(t, "client-individual")
	k.broker(message("m1", "a1"))
	k.client("BEGIN\ntransaction:t\n\n^@ACK\nid:a1\ntransaction:t\n\n^@ABORT\ntransaction:t\n\n^@UNSUBSCRIBE\nid:s\n\n^@")
	k.down()
	k.skip()
	k.up("2", "0", "")
	if !strings.Contains(k.sent[session.Broker], "ACK\nsubscription:s\nmessage-id:m1\ntransaction:t\n\n\x00ABORT\nunderstudy-effect:1\n") {
		t.Fatalf("replay %q", k.sent[session.Broker])
	}
}

func TestDisconnectWhoseAnswerWasLostIsNotLostState(t *testing.T) {
	k := live(t, Config{})
	k.client("SEND\ndestination:/queue/q\n\na^@")
	k.broker("RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:1\n\n^@")
	k.client("DISCONNECT\nreceipt:bye\n\n^@")
	k.down()
	k.skip()
	k.up("2", "0", "") // the session was closed: the next broker does not know it
	k.toClient("RECEIPT\nreceipt-id:bye\n\n^@")
	if k.out.End == nil || k.out.End.Code != "client-closed" {
		t.Fatalf("end %+v", k.out.End)
	}
}

func TestDisconnectWaitsForWhatIsOnItsWayToAnAutoSubscriber(t *testing.T) {
	k := subscribed(t, "auto")
	k.broker(message("m1", "a1"))
	k.skip()
	k.client("DISCONNECT\nreceipt:bye\n\n^@")
	k.toBroker("")
	k.do(func() { k.r.Wrote(session.Client, k.r.clientQueued, &k.out) })
	k.toBroker("ACK\nunderstudy-effect:1\nsubscription:s\nmessage-id:m1\n\n^@")
	k.broker("RECEIPT\nreceipt-id:understudy\nunderstudy-cursor:1\n\n^@")
	k.toBroker("DISCONNECT\nreceipt:u2\n\n^@")

	k = subscribed(t, "auto")
	k.broker(message("m1", "a1"))
	k.skip()
	k.client("DISCONNECT\n\n^@")
	k.pass(arrivalGrace)
	k.toBroker("DISCONNECT\nreceipt:u2\n\n^@") // a client that never takes it leaves it to others
}

// What an owner sent before it was frozen and replaced may be anybody's by the time it wakes.
func TestOctetsAfterTooLongASilenceAreNotTaken(t *testing.T) {
	k := subscribed(t, "client-individual")
	k.now = k.now.Add(3 * time.Second) // no Tick came in between: this process may have been stopped too
	k.broker(message("m1", "a1"))
	k.toClient("")
	var refusal *Refusal
	if !errors.As(k.broken, &refusal) || refusal.Code() != "silent" {
		t.Fatalf("move %v", k.broken)
	}
}

func TestDisconnectDoesNotLengthenTheHold(t *testing.T) {
	k := live(t, Config{Hold: 10 * time.Second})
	k.client("SEND\ndestination:/queue/q\nreceipt:r1\n\na^@")
	k.down()
	k.pass(9 * time.Second)
	k.client("DISCONNECT\nreceipt:bye\n\n^@")
	k.skip()
	k.pass(time.Second)
	if got := k.sent[session.Client]; !strings.Contains(got, "in-doubt-receipts:bye,r1\n") || k.out.End == nil {
		t.Fatalf("client was sent %q", got)
	}
}

// What a broker says of a frame that none has seen before is the client's to know, also when it stands in the replay of a login.
func TestErrorOfAFreshFrameIsTheClients(t *testing.T) {
	refusal := "ERROR\nreceipt-id:u1\nmessage:not supported\n\nno selectors^@"
	t.Run("pipelined behind CONNECT", func(t *testing.T) {
		k := newTalk(t, Config{})
		k.client("CONNECT\naccept-version:1.2\n\n^@SUBSCRIBE\nid:s\ndestination:/queue/q\nselector:a=1\nreceipt:mine\n\n^@")
		k.up("1", "0", "")
		k.skip()
		k.broker(refusal)
		k.toClient("ERROR\nreceipt-id:mine\nmessage:not supported\n\nno selectors^@")
		if k.out.End == nil || k.broken != nil {
			t.Fatalf("end %v, move %v", k.out.End, k.broken)
		}
	})
	t.Run("said while parked", func(t *testing.T) {
		k := live(t, Config{})
		k.down()
		k.client("SUBSCRIBE\nid:s\ndestination:/queue/q\nselector:a=1\n\n^@")
		k.up("2", "0", "")
		k.skip()
		k.broker(refusal)
		k.toClient("ERROR\nmessage:not supported\n\nno selectors^@")
	})
	t.Run("not for ever of an old one", func(t *testing.T) {
		k := subscribed(t, "client")
		for i := 0; k.out.End == nil; i++ {
			if i > maxRefusals {
				t.Fatal("tried for ever")
			}
			k.down()
			k.up("2", "0", "")
			k.skip()
			k.broker(refusal)
		}
	})
}

func TestProtocolErrorsNameTheReceipt(t *testing.T) {
	k := live(t, Config{})
	k.client("COMMIT\ntransaction:q\nreceipt:z\n\n^@")
	if got := k.sent[session.Client]; !strings.Contains(got, "\nreceipt-id:z\n") {
		t.Fatalf("client was sent %q", got)
	}
	if k.out.End.Cause == nil || !strings.Contains(k.out.End.Cause.Error(), "not open") {
		t.Errorf("cause %v", k.out.End.Cause)
	}
}
