package stomp

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session"
)

const receiptU = "RECEIPT\nreceipt-id:u%d\n\n^@"

func rcpt(n int) string { return fmt.Sprintf(receiptU, n) }

// SENDs of a transaction that outgrows MaxTransaction while something is waited for are dropped unsent; the rest is committed.
func TestPartialTransaction(t *testing.T) {
	k := behind(t, activeServer, Config{InDoubt: InDoubtResend, MaxTransaction: 400})
	k.client(subscribe)
	k.broker(rcpt(1) + message("m1", "a1"))
	k.client("BEGIN\ntransaction:t\n\n^@ACK\nid:a1\ntransaction:t\n\n^@")
	k.down()
	k.client("COMMIT\ntransaction:t\n\n^@")
	k.at(activeServer, "ID:b-9-9:1")
	k.broker(rcpt(1))
	k.skip()
	body := strings.Repeat("x", 100)
	k.client("BEGIN\ntransaction:t2\n\n^@SEND\ntransaction:t2\ndestination:/queue/q\n\n" + body + "^@SEND\ntransaction:t2\ndestination:/queue/q\n\n" + body + "^@SEND\ntransaction:t2\ndestination:/queue/q\n\nlast^@COMMIT\ntransaction:t2\nreceipt:c2\n\n^@")
	if k.out.End != nil {
		t.Fatalf("ended: %+v", k.out.End)
	}
	k.broker(message("m1", "b1"))
	k.broker(rcpt(2) + rcpt(3))
	k.has(session.Client, []string{"RECEIPT\nreceipt-id:c2"})
	if n := strings.Count(k.sent[session.Broker], "SEND\n"); n != 3 {
		t.Fatalf("c2 was answered with %d of 3 SENDs played", n)
	}
}

// a transaction larger than MaxTransaction as the first effect behind ActiveMQ.
func TestLargeFirstTransaction(t *testing.T) {
	k := behind(t, activeServer, Config{MaxTransaction: 200})
	k.client("BEGIN\ntransaction:t\n\n^@SEND\ntransaction:t\ndestination:/queue/q\n\n" + strings.Repeat("x", 300) + "^@COMMIT\ntransaction:t\nreceipt:c\n\n^@")
	k.broker(rcpt(1))
	k.has(session.Client, nil, "ERROR")
	k.has(session.Broker, []string{"COMMIT\n"})
}

// an open large one, and any first SEND beside it.
func TestLargeOpenTransactionAndSend(t *testing.T) {
	k := behind(t, activeServer, Config{MaxTransaction: 200})
	k.client("BEGIN\ntransaction:t\n\n^@SEND\ntransaction:t\ndestination:/queue/q\n\n" + strings.Repeat("x", 300) + "^@SEND\ndestination:/queue/q\n\na^@")
	k.broker(rcpt(1))
	k.has(session.Client, nil, "ERROR")
}

// ERROR to a BEGIN settles it; the next end of the transaction panics.
func TestErrorToBegin(t *testing.T) {
	k := behind(t, activeServer, Config{InDoubt: InDoubtResend})
	k.client("BEGIN\ntransaction:t\nreceipt:b\n\n^@")
	k.broker("ERROR\nreceipt-id:u1\nmessage:Transaction already started\n\n^@")
	k.client("SEND\ntransaction:t\ndestination:/queue/q\n\nx^@COMMIT\ntransaction:t\nreceipt:c\n\n^@")
}

// replayed BEGIN with the client's own receipt header.
func TestClientReceiptLooksLikeOurs(t *testing.T) {
	k := behind(t, activeServer, Config{InDoubt: InDoubtResend})
	k.client("BEGIN\ntransaction:t\nreceipt:u1\n\n^@")
	k.broker(rcpt(1))
	k.down()
	k.client("SEND\ndestination:/queue/q\nreceipt:r1\n\na^@")
	k.at(activeServer, "ID:2")
	k.has(session.Broker, nil, "BEGIN\ntransaction:t\nreceipt:u1\n")
	k.skip()
}

// no right to write marks.
func TestMarksMayNotBeWritten(t *testing.T) {
	k := behind(t, activeServer, Config{})
	k.client("SEND\ndestination:/queue/q\nreceipt:r1\n\na^@")
	k.broker(rcpt(1))
	k.broker("ERROR\nmessage:User u is not authorized to write to\\c queue\\c//understudy.marks." + sessionID + "\n\n^@")
	k.has(session.Client, nil, "ERROR\nreceipt-id:r1")
}

// a deeper queue of marks than ActiveMQ's default prefetch of 1000.
func TestMarksBeyondPrefetch(t *testing.T) {
	k := behind(t, activeServer, Config{})
	for range 1500 {
		k.client("SEND\ndestination:/queue/q\n\na^@")
	}
	k.broker(rcpt(1))
	k.down()
	k.at(activeServer, "ID:2")
	k.broker(rcpt(1))
	k.has(session.Broker, nil)
	wide := strings.Contains(k.sent[session.Broker], "activemq.prefetchSize")
	k.skip()
	for i := 1; i <= 1000; i++ { // the prefetch; end is behind 500 more
		k.broker(comes(fmt.Sprint(i)))
	}
	if !wide && !strings.Contains(k.sent[session.Broker], "ACK\n") {
		t.Fatal("1000 marks delivered, none acknowledged: the fence never comes")
	}
}

// a client's subscription id equal to that of the marks.
func TestClientUsesMarksID(t *testing.T) {
	k := behind(t, activeServer, Config{})
	k.client("SUBSCRIBE\nid:understudy-marks\ndestination:/queue/q\nack:client-individual\n\n^@")
	if k.out.End != nil {
		return
	}
	k.broker(rcpt(1))
	k.skip()
	k.broker(strings.ReplaceAll(message("m1", "a1"), "subscription:s", "subscription:understudy-marks"))
	k.has(session.Client, []string{"message-id:m1"})
}

func TestClientUsesMarksIDLost(t *testing.T) {
	k := behind(t, activeServer, Config{})
	k.client("SUBSCRIBE\nid:understudy-marks\ndestination:/queue/q\nack:client-individual\n\n^@")
	k.broker(rcpt(1))
	k.skip()
	k.broker(strings.ReplaceAll(message("m1", "a1"), "subscription:s", "subscription:understudy-marks"))
	k.client("DISCONNECT\n\n^@")
	k.client("SEND\ndestination:/queue/q\n\na^@")
	k.has(session.Broker, nil, "ACK\n")
}

// a message shown on a subscription that was not sent yet.
func TestMessageOfTheOldSubscription(t *testing.T) {
	k := behind(t, activeServer, Config{InDoubt: InDoubtResend})
	k.client(subscribe)
	k.broker(rcpt(1) + message("m1", "a1"))
	k.client("ACK\nid:a1\n\n^@")
	k.down()
	k.at(activeServer, "ID:2")
	k.broker(rcpt(1))
	k.client("UNSUBSCRIBE\nid:s\n\n^@" + subscribe)
	k.skip()
	k.broker(message("m9", "b9")) // of the subscription that the client has left
	k.has(session.Client, nil, "m9")
}
func TestMessageOfTheOldSubscription2(t *testing.T) {
	k := behind(t, activeServer, Config{InDoubt: InDoubtResend})
	k.client(subscribe)
	k.broker(rcpt(1) + message("m1", "a1"))
	k.client("ACK\nid:a1\n\n^@")
	k.down()
	k.at(activeServer, "ID:2")
	k.broker(rcpt(1))
	k.client("UNSUBSCRIBE\nid:s\n\n^@" + subscribe)
	k.broker(message("m9", "b9"))
	k.broker(message("m1", "b1"))
	k.has(session.Broker, []string{"UNSUBSCRIBE\n"})
	k.broker(rcpt(2) + rcpt(3) + rcpt(4))
	k.skip()
	k.client("ACK\nid:b9\nreceipt:r\n\n^@")
	k.has(session.Broker, nil, "ACK\n")
}

// the same at Artemis, without a break.
func TestMessageOfTheOldSubscriptionArtemis(t *testing.T) {
	k := behind(t, artemisServer, Config{})
	k.client(subscribe)
	k.broker(rcpt(1))
	k.client("UNSUBSCRIBE\nid:s\n\n^@" + subscribe)
	k.skip()
	k.broker(message("0,17", "0,17") + rcpt(2) + rcpt(3)) // under way when the UNSUBSCRIBE came
	k.client("ACK\nid:0,17\n\n^@")
	k.has(session.Broker, nil, "ACK\n")
}

// a message that came back on B is stuck when A, which showed it, is left.
func TestMessageCameBackElsewhere(t *testing.T) {
	k := behind(t, activeServer, Config{InDoubt: InDoubtResend})
	k.client("SUBSCRIBE\nid:s\ndestination:/queue/q\nack:client-individual\n\n^@SUBSCRIBE\nid:b\ndestination:/queue/q\nack:client-individual\n\n^@")
	k.broker(rcpt(1) + rcpt(2) + message("m1", "a1"))
	k.down()
	k.at(activeServer, "ID:2")
	k.broker(rcpt(1) + rcpt(2))
	k.broker(strings.ReplaceAll(message("m1", "b1"), "subscription:s", "subscription:b"))
	k.skip()
	k.client("UNSUBSCRIBE\nid:s\n\n^@")
	k.broker(rcpt(3))
	k.pass(time.Second)
	k.broker("\n")
	k.pass(time.Second)
	k.broker("\n")
	// The broker holds m1 for b: b is shown it, or it is given back.
	if k.broken == nil && !strings.Contains(k.sent[session.Client], "m1") && !strings.Contains(k.sent[session.Broker], "NACK") && !strings.Contains(k.sent[session.Broker], "UNSUBSCRIBE\nreceipt:u4") {
		t.Fatalf("m1 is stuck: client %q broker %q", k.sent[0], k.sent[1])
	}
}

// RabbitMQ: ACK in an open transaction is executed by an UNSUBSCRIBE although the transaction is aborted then.
func TestUnsubscribeAcksAbortedTransaction(t *testing.T) {
	for _, server := range []string{rabbitServer, artemisServer} {
		k := behind(t, server, Config{})
		k.client(subscribe)
		k.broker(rcpt(1) + message("T_s,1", "T_s,1"))
		k.skip()
		k.client("BEGIN\ntransaction:t\n\n^@ACK\nid:T_s,1\ntransaction:t\n\n^@UNSUBSCRIBE\nid:s\n\n^@ABORT\ntransaction:t\n\n^@")
		if strings.Contains(k.sent[session.Broker], "ACK\n") {
			t.Errorf("%s: acknowledged, though the transaction was aborted: %q", server, k.sent[session.Broker])
		}
	}
}

func TestErrorWithoutReceiptIDGrows(t *testing.T) {
	k := behind(t, rabbitServer, Config{Window: 4096})
	for range 100 {
		k.client("COMMIT\ntransaction:none\n\n^@")
		k.broker("ERROR\nmessage:Unknown transaction\n\n^@")
	}
	if r := k.report(); r.WindowBytes > 1000 || k.out.Pause[session.Client] {
		t.Fatalf("window %d, client paused %v", r.WindowBytes, k.out.Pause[session.Client])
	}
}

// an ERROR of the client's own fault whose text holds "timeout" sends the session round for ever.
func TestTransientLoop(t *testing.T) {
	k := behind(t, rabbitServer, Config{})
	k.client("SEND\ndestination:/nosuch/timeout\n\na^@")
	for i := range 40 {
		k.broken = nil
		k.broker("ERROR\nmessage:Unknown destination\n\n'/nosuch/timeout' is not a valid destination^@")
		if k.broken == nil || strings.Contains(k.sent[session.Client], "ERROR") {
			return
		}
		_ = i
		k.down()
		k.pass(100 * time.Millisecond)
		k.at(rabbitServer, fmt.Sprint("s", i))
	}
	t.Fatal("40 reconnects, the client was told nothing")
}

// paired, ReplaySends: a lost transaction is played all the same, and its id is in use then.
func TestLostTransactionPaired(t *testing.T) {
	k := live(t, Config{Replay: ReplaySends})
	k.client("BEGIN\ntransaction:t\n\n^@SEND\ntransaction:t\ndestination:/queue/q\n\na^@")
	k.down()
	k.up("2", "0", "")
	k.client("COMMIT\ntransaction:t\n\n^@")
	k.has(session.Client, []string{"rolled-back"})
	k.client("BEGIN\ntransaction:t\n\n^@")
	if n := strings.Count(k.sent[session.Broker], "BEGIN\n"); n != 1 && !strings.Contains(k.sent[session.Broker], "ABORT") {
		t.Fatalf("%d BEGINs of one id and no ABORT: %q", n, k.sent[session.Broker])
	}
}

// ReplaySends: a COMMIT that was never sent is called in doubt.
func TestReplaySendsCommitNeverSent(t *testing.T) {
	k := behind(t, activeServer, Config{Replay: ReplaySends, InDoubt: InDoubtResend})
	k.client("BEGIN\ntransaction:t\n\n^@SEND\ntransaction:t\ndestination:/queue/q\n\na^@")
	k.down()
	k.client("COMMIT\ntransaction:t\nreceipt:c\n\n^@")
	k.at(activeServer, "ID:2")
	k.has(session.Client, nil, "error-code:in-doubt")
}

// ERROR says rolled back though the COMMIT was sent.
func TestUnplayableCommitInDoubt(t *testing.T) {
	for _, server := range []string{activeServer, artemisServer} {
		k := behind(t, server, Config{InDoubt: InDoubtResend, MaxTransaction: 200})
		k.client("BEGIN\ntransaction:t\n\n^@SEND\ntransaction:t\ndestination:/queue/q\n\n" + strings.Repeat("x", 300) + "^@COMMIT\ntransaction:t\nreceipt:c\n\n^@")
		k.has(session.Broker, []string{"COMMIT"})
		k.down()
		k.at(server, "ID:2")
		if strings.Contains(k.sent[session.Client], "is rolled back") {
			t.Errorf("%s: %q", server, k.sent[session.Client])
		}
	}
}

// a client's header that mentions the duplicate id's name.
func TestDuplicateIDName(t *testing.T) {
	k := behind(t, artemisServer, Config{})
	k.client("SEND\ndestination:q\nnote:_AMQ_DUPL_ID is not set\n\na^@")
	k.down()
	k.at(artemisServer, "2")
	k.has(session.Broker, []string{"_AMQ_DUPL_ID:" + sessionID})
}

// a subscription id used again: what was acknowledged on the first is acknowledged unseen on the second.
func TestScopeOfAReusedID(t *testing.T) {
	k := behind(t, rabbitServer, Config{})
	m := func(tag, dest string) string {
		return "MESSAGE\nsubscription:1\nmessage-id:T_1@@" + tag + "\ndestination:" + dest + "\nack:T_1@@" + tag + "\nunderstudy-stamp:p.7.1\n\nbody^@"
	}
	k.client("SUBSCRIBE\nid:1\ndestination:/exchange/e/a\nack:client-individual\ndurable:true\nauto-delete:false\n\n^@")
	k.broker(rcpt(1) + m("1", "/exchange/e/a"))
	k.client("ACK\nid:T_1@@1\n\n^@")
	k.broker(rcpt(2))
	k.client("UNSUBSCRIBE\nid:1\n\n^@")
	k.broker(rcpt(3))
	k.client("SUBSCRIBE\nid:1\ndestination:/exchange/e/b\nack:client-individual\ndurable:true\nauto-delete:false\n\n^@")
	k.broker(rcpt(4))
	k.skip()
	k.broker(m("2", "/exchange/e/b")) // the same SEND, routed to both
	k.has(session.Client, []string{"MESSAGE"})
}

// an ACK before CONNECTED reaches a broker that is not paired.
func TestAckBeforeConnected(t *testing.T) {
	k := newTalk(t, Config{})
	k.client("CONNECT\naccept-version:1.2\n\n^@ACK\nid:foo\n\n^@")
	k.at(activeServer, "ID:1")
	k.has(session.Broker, nil, "ACK\n")
}

// a client's _AMQ_DUPL_ID makes COMMIT fail for another reason.
func TestDuplicateCommitOfTheClients(t *testing.T) {
	k := behind(t, artemisServer, Config{})
	k.client("BEGIN\ntransaction:t\n\n^@SEND\ntransaction:t\ndestination:q\n_AMQ_DUPL_ID:mine\n\nb^@SEND\ntransaction:t\ndestination:q\n\nc^@COMMIT\ntransaction:t\nreceipt:c\n\n^@")
	k.down()
	k.at(artemisServer, "2")
	k.broker("ERROR\nreceipt-id:u1\nmessage:AMQ339013 Error committing t\n\n^@")
	k.has(session.Client, nil, "RECEIPT\nreceipt-id:c")
}

// the client's transaction has the name of ours.
func TestTransactionName(t *testing.T) {
	k := behind(t, activeServer, Config{})
	k.client("BEGIN\ntransaction:understudy-2\n\n^@SEND\ndestination:/queue/q\n\na^@")
	k.broker(rcpt(1))
	if strings.Count(k.sent[session.Broker], "BEGIN\ntransaction:understudy-2\n") > 1 {
		t.Fatal("two transactions of one name")
	}
}

// a client's subscription with the id of our reply subscription.
func TestReplyID(t *testing.T) {
	k := behind(t, rabbitServer, Config{})
	k.client("SUBSCRIBE\nid:understudy-reply-0\ndestination:/queue/a\nack:client-individual\n\n^@")
	if k.out.End != nil {
		return
	}
	k.broker(rcpt(1))
	k.client("SEND\ndestination:/queue/q\nreply-to:/temp-queue/foo\n\na^@")
	if strings.Count(k.sent[session.Broker], "id:understudy-reply-0\n") > 1 {
		t.Fatal("two subscriptions of one id")
	}
}

// what was acknowledged is shown again: a subscription that waits for its turn has not got its scope.
func TestAcknowledgedShownAgain(t *testing.T) {
	k := behind(t, activeServer, Config{InDoubt: InDoubtResend})
	k.client(subscribe)
	k.broker(rcpt(1) + message("m1", "a1"))
	k.client("ACK\nid:a1\n\n^@")
	k.down()
	k.at(activeServer, "ID:2")
	k.broker(rcpt(1))
	k.client("UNSUBSCRIBE\nid:s\n\n^@" + subscribe)
	k.skip()
	k.broker(message("m1", "b1"))
	k.has(session.Client, nil, "MESSAGE")
}

// an ERROR to a SUBSCRIBE with messages withheld: their octets are held for ever.
func TestWithheldLeaks(t *testing.T) {
	k := behind(t, rabbitServer, Config{})
	k.client("SUBSCRIBE\nid:s\ndestination:/queue/q\nack:client-individual\nprefetch-count:1\n\n^@")
	k.broker(message("m1", "m1") + message("m2", "m2"))
	k.broker("ERROR\nreceipt-id:u1\nmessage:no\n\n^@")
}

// the same by way of a transaction.
func TestMessageCameBackElsewhereTx(t *testing.T) {
	k := behind(t, activeServer, Config{InDoubt: InDoubtResend})
	k.client("SUBSCRIBE\nid:s\ndestination:/queue/q\nack:client-individual\n\n^@SUBSCRIBE\nid:b\ndestination:/queue/q\nack:client-individual\n\n^@")
	k.broker(rcpt(1) + rcpt(2) + message("m1", "a1"))
	k.client("BEGIN\ntransaction:t\n\n^@ACK\nid:a1\ntransaction:t\n\n^@")
	k.down()
	k.at(activeServer, "ID:2")
	k.broker(rcpt(1) + rcpt(2))
	k.broker(strings.ReplaceAll(message("m1", "b1"), "subscription:s", "subscription:b"))
	k.has(session.Broker, []string{"ACK\nid:b1\ntransaction:t\n"})
	k.skip()
	k.client("UNSUBSCRIBE\nid:s\n\n^@ABORT\ntransaction:t\n\n^@")
	k.broker(rcpt(3) + rcpt(4))
	k.pass(time.Second)
	k.broker("\n")
	if k.broken == nil && !strings.Contains(k.sent[session.Client], "m1") {
		t.Fatalf("m1 is stuck on b: broker %q", k.sent[1])
	}
}
