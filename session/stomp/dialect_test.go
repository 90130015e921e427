package stomp

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session"
)

// at connects a broker of a kind.
func (k *talk) at(server, sessionID string) {
	k.Helper()
	k.attempt++
	k.do(func() { k.r.Up(session.Peer{Name: "b:1", Attempt: k.attempt}, &k.out) })
	k.sent[session.Broker] = ""
	k.broker("CONNECTED\nversion:1.2\nheart-beat:1000,1000\nserver:" + server + "\nsession:" + sessionID + "\n\n^@\n")
}

const (
	activeServer  = "ActiveMQ/5.17.2"
	rabbitServer  = "RabbitMQ/3.10.8"
	artemisServer = "ActiveMQ-Artemis/2.39.0 ActiveMQ Artemis Messaging Engine"
)

func behind(t *testing.T, server string, cfg Config) *talk {
	t.Helper()
	cfg.ReclaimWait = 2 * time.Second
	k := newTalk(t, cfg)
	k.client("CONNECT\naccept-version:1.2\nhost:h\n\n^@")
	k.at(server, "ID:b-1-2:3")
	k.skip()
	return k
}

const subscribe = "SUBSCRIBE\nid:s\ndestination:/queue/q\nack:client-individual\n\n^@"

// has asserts what some octets for a leg contain, and what not.
func (k *talk) has(leg session.Leg, want []string, never ...string) {
	k.Helper()
	got := strings.ReplaceAll(k.sent[leg], "\x00", "^@")
	for _, w := range want {
		if !strings.Contains(got, w) {
			k.Fatalf("%s was sent\n%s\nwithout\n%s", leg, got, w)
		}
	}
	for _, n := range never {
		if strings.Contains(got, n) {
			k.Fatalf("%s was sent\n%s\nwith\n%s", leg, got, n)
		}
	}
}

func TestEveryEffectIsConfirmedByItsOwnReceipt(t *testing.T) {
	k := behind(t, activeServer, Config{InDoubt: InDoubtError})
	k.client("SEND\ndestination:/queue/q\nreceipt:r1\n\na^@SEND\ndestination:/queue/q\n\nb^@")
	k.toBroker("SEND\nreceipt:u1\ndestination:/queue/q\n\na^@SEND\nreceipt:u2\ndestination:/queue/q\n\nb^@")
	k.broker("RECEIPT\nreceipt-id:u2\n\n^@")
	k.toClient("")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:r1\n\n^@")
	if r := k.report(); r.Unconfirmed != 0 || r.WindowBytes != 0 || r.NotResumable != "" {
		t.Fatalf("report %+v", r)
	}
}

const marksSubscribe = "id:understudy-marks\ndestination:/queue/understudy.marks." + sessionID + "\nack:client\nactivemq.exclusive:true\nactivemq.prefetchSize:1000000\n\n^@"

// mark is a message to the queue of marks.
func mark(value, tx string) string {
	if tx != "" {
		tx = "transaction:" + tx + "\n"
	}
	return "SEND\ndestination:/queue/understudy.marks." + sessionID + "\npersistent:true\nunderstudy-mark:" + value + "\n" + tx + "\n^@"
}

// single is a SEND with its mark.
func single(order, receipt, rest string) string {
	tx := "understudy-" + order
	return "BEGIN\ntransaction:" + tx + "\n\n^@SEND\ntransaction:" + tx + "\n" + rest + mark(order, tx) + "COMMIT\nreceipt:u" + receipt + "\ntransaction:" + tx + "\n\n^@"
}

// comes is a mark on its way back.
func comes(value string) string {
	return "MESSAGE\nsubscription:understudy-marks\nmessage-id:m" + value + "\nack:a" + value + "\nunderstudy-mark:" + value + "\n\n^@"
}

// Behind ActiveMQ a SEND goes with its mark, and after a break the latest mark says what is done.
func TestMarksAreACursor(t *testing.T) {
	k := behind(t, activeServer, Config{})
	k.client("SEND\ndestination:/queue/q\nreceipt:r1\n\na^@")
	k.toBroker("SUBSCRIBE\nreceipt:u1\n" + marksSubscribe)
	k.client("SEND\ndestination:/queue/q\nreceipt:r2\n\nb^@")
	k.toBroker("")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	k.toBroker(single("1", "2", "destination:/queue/q\n\na^@") + single("2", "3", "destination:/queue/q\n\nb^@"))
	k.client("BEGIN\ntransaction:t\n\n^@SEND\ntransaction:t\ndestination:/queue/q\n\nc^@COMMIT\ntransaction:t\nreceipt:c\n\n^@")
	k.toBroker("BEGIN\ntransaction:t\n\n^@SEND\ntransaction:t\ndestination:/queue/q\n\nc^@" + mark("5", "t") + "COMMIT\nreceipt:u4\ntransaction:t\n\n^@")
	k.down()
	k.client("SEND\ndestination:/queue/q\nreceipt:r4\n\nd^@")
	k.at(activeServer, "ID:b-9-9:1")
	k.toBroker("SUBSCRIBE\nreceipt:u1\n" + marksSubscribe)
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	k.toBroker(mark("fence-2", ""))
	k.broker(comes("1"))
	k.toBroker("SEND\nreceipt:u2\n" + mark("end-2", "")[len("SEND\n"):])
	k.broker(comes("end-1") + comes("fence-2") + comes("2") + comes("end-2"))
	k.toClient("")
	k.broker("RECEIPT\nreceipt-id:u2\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:r1\n\n^@RECEIPT\nreceipt-id:r2\n\n^@")
	k.toBroker("BEGIN\ntransaction:t\n\n^@SEND\ntransaction:t\ndestination:/queue/q\n\nc^@" + mark("5", "t") + "COMMIT\nreceipt:u3\ntransaction:t\n\n^@" +
		single("6", "4", "destination:/queue/q\n\nd^@"))
	if !k.out.Live {
		t.Fatal("not live")
	}
	k.broker("RECEIPT\nreceipt-id:u3\n\n^@RECEIPT\nreceipt-id:u4\n\n^@" + comes("5") + comes("6"))
	k.toClient("RECEIPT\nreceipt-id:c\n\n^@RECEIPT\nreceipt-id:r4\n\n^@")
	k.client("DISCONNECT\nreceipt:bye\n\n^@")
	k.toBroker("ACK\nid:a6\n\n^@DISCONNECT\nreceipt:u5\n\n^@")
}

func TestMarksDoNotPileUp(t *testing.T) {
	k := behind(t, activeServer, Config{})
	k.client("SEND\ndestination:/queue/q\n\na^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@RECEIPT\nreceipt-id:u2\n\n^@" + comes("1"))
	k.skip()
	for i := 2; i <= 17; i++ {
		k.client("SEND\ndestination:/queue/q\n\na^@")
		k.broker(comes(strconv.Itoa(i)))
	}
	k.has(session.Broker, nil, "ACK") // they have come, but nothing says that they are stored
	k.skip()
	for i := 3; i <= 17; i++ {
		k.broker("RECEIPT\nreceipt-id:u" + strconv.Itoa(i) + "\n\n^@")
	}
	k.toBroker("ACK\nid:a8\n\n^@") // never the latest
}

// Where marks are not to be had nothing is guessed.
func TestSendInDoubtWithoutMarksIsUnknown(t *testing.T) {
	lost := func(cfg Config) *talk {
		k := behind(t, activeServer, cfg)
		k.client("SEND\ndestination:/queue/q\nreceipt:r1\n\na^@")
		if cfg.InDoubt == InDoubtDefault {
			k.broker("ERROR\nreceipt-id:u1\nmessage:User u is not authorized to read from understudy.marks\n\n^@")
		}
		k.has(session.Broker, []string{"SEND\nreceipt:u"})
		k.has(session.Client, nil, "ERROR")
		k.skip()
		k.down()
		k.at(activeServer, "ID:b-9-9:1")
		return k
	}
	for _, cfg := range []Config{{}, {InDoubt: InDoubtError}} {
		k := lost(cfg)
		k.has(session.Client, []string{"ERROR\n", "error-code:in-doubt\n", "in-doubt-receipts:r1\n", "SEND outcome=unknown receipt=r1 destination=/queue/q\n"}, "RECEIPT")
	}
	k := lost(Config{InDoubt: InDoubtResend})
	k.has(session.Client, nil, "ERROR")
	k.has(session.Broker, []string{"SEND\nreceipt:u1\nunderstudy-stamp:" + sessionID + ".1.2\ndestination:/queue/q\n\na^@"})
}

// The ERROR to a SEND that asks for no receipt itself is told with the client's own.
func TestErrorOfAMarkedSendNamesItsReceipt(t *testing.T) {
	k := behind(t, activeServer, Config{})
	k.client("SEND\ndestination:/queue/q\nreceipt:r1\n\na^@SEND\ndestination:/queue/forbidden\nreceipt:r2\n\nb^@SEND\ndestination:/queue/q\nreceipt:r3\n\nc^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@RECEIPT\nreceipt-id:u2\n\n^@ERROR\nmessage:not authorized\n\n^@RECEIPT\nreceipt-id:u3\n\n^@RECEIPT\nreceipt-id:u4\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:r1\n\n^@ERROR\nreceipt-id:r2\nmessage:not authorized\n\n^@RECEIPT\nreceipt-id:r3\n\n^@")
	if r := k.report(); r.Unconfirmed != 0 {
		t.Fatalf("report %+v", r)
	}
}

// A transaction that was not finished is played again with the new names of what it acknowledges, or rolled back if one of them is gone.
func TestTransactionWaitsForWhatItAcknowledges(t *testing.T) {
	k := behind(t, activeServer, Config{InDoubt: InDoubtResend})
	k.client(subscribe)
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@" + message("m1", "a1"))
	k.client("BEGIN\ntransaction:t\n\n^@ACK\nid:a1\ntransaction:t\nreceipt:a\n\n^@")
	k.has(session.Client, []string{"RECEIPT\nreceipt-id:a\n"})
	k.skip()
	k.down()
	k.client("COMMIT\ntransaction:t\nreceipt:c\n\n^@SEND\ndestination:/queue/x\n\nz^@")
	k.at(activeServer, "ID:b-9-9:1")
	k.toBroker("SUBSCRIBE\nreceipt:u1\nack:client-individual\nid:s\ndestination:/queue/q\n\n^@BEGIN\ntransaction:t\n\n^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@" + message("m1", "b7"))
	k.toClient("")
	k.has(session.Broker, []string{"ACK\nid:b7\ntransaction:t\n\n^@COMMIT\nreceipt:u2\ntransaction:t\n\n^@SEND\nreceipt:u3\n"})
	k.broker("RECEIPT\nreceipt-id:u2\n\n^@RECEIPT\nreceipt-id:u3\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:c\n\n^@")

	k.broker(message("m2", "b8"))
	k.client("BEGIN\ntransaction:t\n\n^@ACK\nid:b8\ntransaction:t\n\n^@")
	k.skip()
	k.down()
	k.at(activeServer, "ID:b-9-9:2")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	k.client("COMMIT\ntransaction:t\nreceipt:c2\n\n^@")
	k.skip()
	k.pass(time.Second)
	k.broker("\n")
	k.pass(time.Second)
	k.broker("\n") // it is alive, and has nothing more for us
	k.has(session.Client, []string{"error-code:rolled-back\n", "receipt-id:c2\n"})
	k.has(session.Broker, []string{"ABORT\ntransaction:t\n\n^@"})
}

func TestAbortThatWasLostIsDone(t *testing.T) {
	k := behind(t, activeServer, Config{})
	k.client("BEGIN\ntransaction:t\n\n^@SEND\ntransaction:t\ndestination:/queue/q\n\na^@ABORT\ntransaction:t\nreceipt:r\n\n^@")
	k.skip()
	k.down()
	k.at(activeServer, "ID:b-9-9:1")
	k.toClient("RECEIPT\nreceipt-id:r\n\n^@")
	k.toBroker("")
}

func TestAckWaitsForTheRedelivery(t *testing.T) {
	k := behind(t, activeServer, Config{InDoubt: InDoubtResend})
	k.client(subscribe)
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@" + message("m1", "a1") + message("m2", "a2") + message("m3", "a3"))
	k.client("ACK\nid:a3\nreceipt:r3\n\n^@")
	k.skip()
	k.down()
	k.at(activeServer, "ID:b-9-9:1")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	k.skip()
	k.client("ACK\nid:a1\nreceipt:r1\n\n^@")
	k.toBroker("")
	k.broker(message("m1", "b1") + message("m2", "b2") + message("m4", "b4"))
	k.toClient(message("m4", "b4"))
	k.toBroker("ACK\nreceipt:u2\nid:b1\n\n^@")
	k.client("ACK\nid:a2\nreceipt:r2\n\n^@ACK\nid:b4\n\n^@")
	k.toBroker("ACK\nreceipt:u3\nid:b2\n\n^@ACK\nreceipt:u4\nid:b4\n\n^@")
	k.broker("RECEIPT\nreceipt-id:u2\n\n^@RECEIPT\nreceipt-id:u3\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:r1\n\n^@RECEIPT\nreceipt-id:r2\n\n^@")
	k.pass(time.Second)
	k.broker("\n")
	k.pass(time.Second)
	k.broker("\n")                                              // it is alive, and has nothing more for us
	k.has(session.Client, []string{"RECEIPT\nreceipt-id:r3\n"}) // it was done, or it is somebody else's
	k.skip()
	k.broker(message("m3", "b9"))
	k.toClient("")
	k.has(session.Broker, []string{"ACK\nreceipt:u5\nid:b9\n\n^@"})
	if r := k.report(); r.Hidden != 3 || r.LateAcks != 0 {
		t.Fatalf("report %+v", r)
	}
}

func TestNameThatMeansNothingNowNeverReachesTheBroker(t *testing.T) {
	k := behind(t, rabbitServer, Config{})
	k.client(subscribe)
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@" + message("T_s@@session-1@@1", "T_s@@session-1@@1"))
	k.down()
	k.at(rabbitServer, "session-2")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	k.skip()
	k.client("ACK\nid:T_s@@session-1@@1\nreceipt:r\n\n^@ACK\nid:T_s@@session-1@@7\nreceipt:x\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:x\n\n^@")
	k.pass(time.Second)
	k.broker("\n")
	k.pass(time.Second)
	k.broker("\n") // it is alive, and has nothing more for us
	k.toBroker("\n\n"[:1] + "\n")
	k.toClient("RECEIPT\nreceipt-id:r\n\n^@")
}

// RabbitMQ: everything asks for a confirm, copies are told by their stamps, acknowledged ones are known for a while.
func TestStampsTellCopiesFromRedeliveries(t *testing.T) {
	k := behind(t, rabbitServer, Config{})
	k.client("SEND\ndestination:/queue/q\nreceipt:r1\nx-queue-type:quorum\n\na^@")
	k.toBroker("SEND\nreceipt:u1\nunderstudy-stamp:" + sessionID + ".1.1\ndestination:/queue/q\nx-queue-type:quorum\n\na^@")
	k.down()
	k.at(rabbitServer, "session-2")
	k.toBroker("SEND\nreceipt:u1\nunderstudy-stamp:" + sessionID + ".1.2\ndestination:/queue/q\nx-queue-type:quorum\n\na^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:r1\n\n^@")
	k.down()
	k.client("SEND\ndestination:/queue/q\n\nb^@")
	k.at(rabbitServer, "session-3")
	k.toBroker("SEND\nreceipt:u1\nunderstudy-stamp:" + sessionID + ".2.1\nx-queue-type:quorum\ndestination:/queue/q\n\nb^@") // declared as before
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")

	stamped := func(tag, stamp string) string {
		return "MESSAGE\nsubscription:s\nmessage-id:T_s@@" + tag + "\ndestination:/queue/q\nack:T_s@@" + tag + "\nreceipt:u77\nunderstudy-stamp:" + stamp + "\nx:y\n\nbody^@"
	}
	shown := func(tag string) string {
		return "MESSAGE\nsubscription:s\nmessage-id:T_s@@" + tag + "\ndestination:/queue/q\nack:T_s@@" + tag + "\nx:y\n\nbody^@"
	}
	k.client(subscribe)
	k.broker("RECEIPT\nreceipt-id:u2\n\n^@")
	k.skip()
	k.broker(stamped("3@@1", "p.1.1") + stamped("3@@2", "p.1.2") + stamped("3@@3", "p.2.1"))
	k.toClient(shown("3@@1") + shown("3@@3"))
	k.toBroker("ACK\nreceipt:u3\nid:T_s@@3@@2\n\n^@") // the copy
	k.client("ACK\nid:T_s@@3@@3\nreceipt:a\n\n^@")
	k.broker("RECEIPT\nreceipt-id:u4\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:a\n\n^@")
	k.down()
	k.at(rabbitServer, "session-4")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	k.skip()
	k.broker(stamped("4@@1", "p.1.1") + stamped("4@@2", "p.2.1"))
	k.toClient("")
	k.toBroker("ACK\nreceipt:u2\nid:T_s@@4@@2\n\n^@") // its RECEIPT was given before it was safe
	k.client("ACK\nid:T_s@@3@@1\n\n^@")
	k.toBroker("ACK\nreceipt:u3\nid:T_s@@4@@1\n\n^@")
}

func TestTransactionThatIsWorthNothingIsKeptHere(t *testing.T) {
	k := behind(t, rabbitServer, Config{})
	k.client("BEGIN\ntransaction:t\nreceipt:b\n\n^@SEND\ntransaction:t\ndestination:/queue/q\nreceipt:s\n\na^@SEND\ntransaction:t\ndestination:/queue/q\n\nb^@")
	k.toClient("RECEIPT\nreceipt-id:b\n\n^@RECEIPT\nreceipt-id:s\n\n^@")
	k.toBroker("")
	k.client("COMMIT\ntransaction:t\nreceipt:c\n\n^@")
	k.toBroker("SEND\nreceipt:u1\nunderstudy-stamp:" + sessionID + ".2.1\ndestination:/queue/q\n\na^@" +
		"SEND\nreceipt:u2\nunderstudy-stamp:" + sessionID + ".3.1\ndestination:/queue/q\n\nb^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	k.toClient("")
	k.down()
	k.at(rabbitServer, "session-2")
	k.toBroker("SEND\nreceipt:u1\nunderstudy-stamp:" + sessionID + ".3.2\ndestination:/queue/q\n\nb^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:c\n\n^@")
	k.client("BEGIN\ntransaction:t\n\n^@SEND\ntransaction:t\ndestination:/queue/q\n\nx^@ABORT\ntransaction:t\nreceipt:d\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:d\n\n^@")
	k.toBroker("")
	if r := k.report(); r.Unconfirmed != 0 || r.WindowBytes != 0 || r.Transactions != 0 {
		t.Fatalf("report %+v", r)
	}
}

func TestCumulativeAckOfAConnection(t *testing.T) {
	k := behind(t, rabbitServer, Config{})
	k.client("SUBSCRIBE\nid:s\ndestination:/queue/q\nack:client-individual\n\n^@SUBSCRIBE\nid:c\ndestination:/queue/c\nack:client\n\n^@")
	k.skip()
	k.broker(message("T_1", "T_1") + strings.ReplaceAll(message("T_2", "T_2"), "subscription:s", "subscription:c") + message("T_3", "T_3"))
	k.client("ACK\nid:T_2\n\n^@")
	k.toBroker("ACK\nreceipt:u3\nid:T_1\n\n^@ACK\nreceipt:u4\nid:T_2\n\n^@")
}

func TestPrefetchIsNotInheritedFromOurs(t *testing.T) {
	k := behind(t, rabbitServer, Config{})
	k.client("SUBSCRIBE\nid:a\ndestination:/queue/a\n\n^@SUBSCRIBE\nid:b\ndestination:/queue/b\nack:client\n\n^@" +
		"SUBSCRIBE\nid:c\ndestination:/queue/c\nack:client\nprefetch-count:7\n\n^@SUBSCRIBE\nid:d\ndestination:/queue/d\nack:client\n\n^@")
	k.has(session.Broker, []string{"prefetch-count:1000\nid:a\n", "prefetch-count:0\nid:b\n", "ack:client-individual\nid:c\ndestination:/queue/c\nprefetch-count:7\n",
		"prefetch-count:7\nid:d\n"})
}

// Artemis: duplicate ids make SENDs and COMMITs exact.
func TestDuplicateIDs(t *testing.T) {
	k := behind(t, artemisServer, Config{})
	k.client("SEND\ndestination:q\nreceipt:r\n\na^@")
	k.toBroker("SEND\nreceipt:u1\n_AMQ_DUPL_ID:" + sessionID + ".1\ndestination:q\n\na^@")
	k.client("BEGIN\ntransaction:t\n\n^@SEND\ntransaction:t\ndestination:q\n\nb^@COMMIT\ntransaction:t\nreceipt:c\n\n^@")
	k.skip()
	k.down()
	k.at(artemisServer, "2")
	k.toBroker("SEND\nreceipt:u1\n_AMQ_DUPL_ID:" + sessionID + ".1\ndestination:q\n\na^@BEGIN\ntransaction:t\n\n^@SEND\n_AMQ_DUPL_ID:" + sessionID +
		".3\ntransaction:t\ndestination:q\n\nb^@COMMIT\nreceipt:u2\ntransaction:t\n\n^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@ERROR\nreceipt-id:u2\nmessage:AMQ339013 Error committing t\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:r\n\n^@RECEIPT\nreceipt-id:c\n\n^@")
	if k.broken == nil {
		t.Fatal("the broker closes behind an ERROR: it should be left first")
	}
}

func TestAckOutsideTheTransaction(t *testing.T) {
	k := behind(t, artemisServer, Config{})
	k.client("SUBSCRIBE\nid:s\ndestination:q\nack:client-individual\n\n^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@" + message("0,17", "0,17") + message("0,18", "0,18"))
	k.client("BEGIN\ntransaction:t\n\n^@ACK\nid:0,17\ntransaction:t\nreceipt:a\n\n^@")
	k.skip()
	k.client("ABORT\ntransaction:t\n\n^@BEGIN\ntransaction:t\n\n^@ACK\nid:0,17\ntransaction:t\n\n^@COMMIT\ntransaction:t\nreceipt:c\n\n^@")
	k.has(session.Broker, []string{"ABORT\n", "COMMIT\nreceipt:u3\n"}, "ACK\n")
	k.skip()
	k.down()
	k.at(artemisServer, "2")
	k.skip()
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@" + message("5,17", "5,17") + message("5,19", "5,19"))
	k.toClient(message("5,19", "5,19"))
	k.broker("RECEIPT\nreceipt-id:u2\n\n^@")
	k.toClient("RECEIPT\nreceipt-id:c\n\n^@")
	k.has(session.Broker, []string{"ACK\nreceipt:u3\nid:5,17\n\n^@"})
}

// An ERROR that leaves the connection open does not end the session; one with the end behind it does.
func TestErrorThatStays(t *testing.T) {
	k := behind(t, activeServer, Config{InDoubt: InDoubtResend})
	k.client("SUBSCRIBE\nid:s\ndestination:/queue/q\nselector:'\nreceipt:r\n\n^@")
	k.broker("ERROR\nreceipt-id:u1\nmessage:bad selector\n\ntrace^@")
	k.toClient("ERROR\nreceipt-id:r\nmessage:bad selector\n\ntrace^@")
	k.skip()
	if k.out.End != nil {
		t.Fatalf("end %+v", k.out.End)
	}
	k.client("COMMIT\ntransaction:none\nreceipt:c\n\n^@")
	k.toBroker("COMMIT\nreceipt:u2\ntransaction:none\n\n^@")
	k.broker("ERROR\nreceipt-id:u2\nmessage:Invalid transaction id\n\n^@")
	k.toClient("ERROR\nreceipt-id:c\nmessage:Invalid transaction id\n\n^@")
	k.down()
	if k.out.End == nil || k.out.End.Code != "broker-error" {
		t.Fatalf("end %+v", k.out.End)
	}
}

func TestTemporaryQueueKeepsItsName(t *testing.T) {
	k := behind(t, activeServer, Config{InDoubt: InDoubtResend})
	k.client("SUBSCRIBE\nid:s\ndestination:/temp-queue/foo\nack:client-individual\n\n^@SEND\ndestination:/queue/q\nreply-to:/temp-queue/foo\n\na^@")
	k.has(session.Broker, []string{"destination:/temp-queue/foo\n", "reply-to:/temp-queue/foo\n"}, "remote")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@RECEIPT\nreceipt-id:u2\n\n^@")
	k.skip()
	k.down()
	k.client("SEND\ndestination:/queue/q\nreply-to:/temp-queue/foo\n\nb^@")
	k.at(activeServer, "ID:b-9-9:1")
	k.has(session.Broker, []string{"destination:/remote-temp-queue/ID\\cb-1-2\\c3\\c1\n", "reply-to:/remote-temp-queue/ID\\cb-1-2\\c3\\c1\n"}, ":/temp-queue")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	k.skip()
	k.broker("MESSAGE\nsubscription:s\nmessage-id:m\nack:1\ndestination:/remote-temp-queue/ID\\cb-1-2\\c3\\c1\n\nre^@")
	k.toClient("MESSAGE\nsubscription:s\nmessage-id:m\nack:1\ndestination:/temp-queue/foo\n\nre^@")
}

func TestReplyQueueStandsInForATemporaryOne(t *testing.T) {
	k := behind(t, rabbitServer, Config{HoldIdle: time.Minute})
	k.client("SEND\ndestination:/queue/q\nreply-to:/temp-queue/foo\n\na^@")
	queue := "understudy." + sessionID + ".foo"
	k.toBroker("SUBSCRIBE\nreceipt:u2\nack:client-individual\nprefetch-count:1000\nid:understudy-reply-0\ndestination:/queue/" + queue +
		"\ndurable:true\nauto-delete:false\nexclusive:false\nx-expires:120000\n\n^@" +
		"SEND\nreceipt:u1\nunderstudy-stamp:" + sessionID + ".1.1\nreply-to:/reply-queue/" + queue + "\ndestination:/queue/q\n\na^@")
	k.broker("RECEIPT\nreceipt-id:u2\n\n^@RECEIPT\nreceipt-id:u1\n\n^@")
	k.toClient("")
	k.down()
	k.at(rabbitServer, "session-2")
	k.has(session.Broker, []string{"SUBSCRIBE\n", "id:understudy-reply-0\n"})
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@MESSAGE\nsubscription:understudy-reply-0\nmessage-id:1\n\nre^@")
	k.toClient("MESSAGE\nsubscription:/temp-queue/foo\nmessage-id:1\n\nre^@")
}

func TestHowMuchIsReplayedIsTheOperators(t *testing.T) {
	k := behind(t, activeServer, Config{Replay: ReplaySends, InDoubt: InDoubtResend})
	k.client("BEGIN\ntransaction:t\n\n^@SEND\ntransaction:t\ndestination:/queue/q\n\na^@")
	k.skip()
	k.down()
	k.at(activeServer, "ID:2")
	k.toBroker("")
	k.client("SEND\ntransaction:t\ndestination:/queue/q\n\nb^@COMMIT\ntransaction:t\nreceipt:c\n\n^@")
	k.has(session.Client, []string{"ERROR\n", "error-code:rolled-back\n", "receipt-id:c\n"})
	k.toBroker("")
	k.skip()
	k.client("BEGIN\ntransaction:t\n\n^@SEND\ntransaction:t\ndestination:/queue/q\n\na^@COMMIT\ntransaction:t\nreceipt:c\n\n^@")
	k.has(session.Broker, []string{"COMMIT\n"})

	k = behind(t, rabbitServer, Config{Replay: ReplaySession})
	k.client("SEND\ndestination:/queue/q\nreceipt:r\n\na^@")
	k.down()
	k.at(rabbitServer, "2")
	k.has(session.Client, []string{"error-code:not-resumable\n", "in-doubt-receipts:r\n"})
}

func TestBrokerOfAnotherKindIsLeft(t *testing.T) {
	k := behind(t, activeServer, Config{})
	k.down()
	k.at(rabbitServer, "2")
	if k.broken == nil || !strings.Contains(k.broken.Error(), "RabbitMQ, not ActiveMQ") {
		t.Fatalf("left because of %v", k.broken)
	}
}

func TestKindsAreRecognised(t *testing.T) {
	for connected, want := range map[string]*dialect{
		"server:ActiveMQ/5.17.2\nsession:ID:x\nversion:1.2\n": &activeMQ, "server:ActiveMQ-Artemis/2.44.0 ActiveMQ Artemis Messaging Engine\nversion:1.1\n": &artemis,
		"session:325f330e\n": &artemis, "version:1.0\nsession:325f330e\n": &artemis, "session:325f330e\nversion:1.1\n": &anyBroker, "server:RabbitMQ/3.10.8\n": &rabbitMQ, "server:CoilMQ/1\n": &anyBroker, "": &anyBroker,
		"understudy-epoch:1\nunderstudy-store:S\nserver:RabbitMQ/1\n": &pairedBroker,
	} {
		k := newTalk(t, Config{})
		k.client("CONNECT\naccept-version:1.0,1.1,1.2\n\n^@")
		k.do(func() { k.r.Up(session.Peer{Name: "b", Attempt: 1}, &k.out) })
		k.broker("CONNECTED\n" + connected + "\n^@")
		if k.r.dialect != want {
			t.Errorf("%q is taken for %s, want %s", connected, k.r.dialect.name, want.name)
		}
	}
}
