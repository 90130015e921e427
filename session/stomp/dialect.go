package stomp

import (
	"bytes"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// dialect is what the recorder has to know of a kind of broker. Each trait stands beside the observation that it rests on; the recorder asks
// for traits, never for names. The kind is recognised from CONNECTED and stays for the life of a session: its broker's peers are of the
// same kind, or the session does not go to them.
type dialect struct {
	name string

	// paired: the headers of frame/paired.go settle everything; no other trait counts.
	paired bool

	// identity is how a message is known again when it is delivered anew.
	identity identity
	// acksByMessageID: what ACK names in 1.2 is the message-id. A producer's own ack header may stand before the broker's.
	acksByMessageID bool
	// receiptFirst: the RECEIPT of a SUBSCRIBE comes before its first MESSAGE, so that an earlier one belongs to a subscription before it.
	receiptFirst bool
	// nackRequeues: NACK puts a message back on its queue. Where it does not, a message that comes back was never NACKed.
	nackRequeues bool
	// forgetsAcks: the RECEIPT of an ACK is given before the broker would survive a crash with it.
	forgetsAcks bool
	// connectionAcks: ack:client acknowledges on every subscription of the connection.
	connectionAcks bool

	// duplicateID: a SEND with this header is stored once, however often it is sent.
	duplicateID string
	// stamps: nothing tells the broker a copy, so SENDs carry stamps and the consumer's recorder drops copies.
	stamps bool
	// marks: transactions are atomic, frames of a connection are worked through in order and there are exclusive consumers, so that marks settle what
	// is in doubt.
	marks bool
	// nackSingle: NACK means one message in every ack mode.
	nackSingle bool

	// buffersTx: a transaction is no more than a buffer at the broker and its COMMIT promises nothing, so it is kept here, and played as single
	// frames when it is committed.
	buffersTx bool
	// acksOutsideTx: an ACK inside a transaction would be executed at once, or not with it. It is kept back until the COMMIT is confirmed.
	acksOutsideTx bool
	// duplicateCommit: in the ERROR to a COMMIT, says that a SEND with the same duplicate id is stored: the transaction was committed before.
	duplicateCommit string

	// ownAckModes: the client's ack header is left as it is, for it is not known what modes there are.
	ownAckModes bool
	// maxLosses, where it is higher than usual: the broker ends connections for reasons that pass, such as a queue without a leader.
	maxLosses int
	// errorsStay: after an ERROR the connection goes on; errorsStayUntil12: in versions before 1.2.
	errorsStay, errorsStayUntil12 bool
	// transient are phrases of ERRORs that tell of the broker's state, not of the client's fault.
	transient []string
	// cancels: an ERROR that names a subscription takes it away.
	cancels bool

	// declares: the first frame that names a queue on a connection declares it, and has to do so with the same arguments each time.
	declares bool
	// prefetch is what a SUBSCRIBE is given whose ack:auto was made explicit, so that the client is not flooded; "" leaves the broker's default.
	prefetch string
	// prefetchInherited: a SUBSCRIBE without a prefetch takes over that of the one before it on the connection.
	prefetchInherited bool
	// leaks: headers of a SEND reach the consumer, so that ours are taken off there.
	leaks bool
	// tempQueues is what becomes of temporary queues when the connection that made them is lost.
	tempQueues tempQueues
}

// identity is where a message's identity stands in MESSAGE.
type identity uint8

const (
	noIdentity  identity = iota // a delivery cannot be recognised
	byMessageID                 // message-id
	bySuffix                    // what follows the comma in message-id; all of it where there is none
	byStamp                     // the stamp that the producer's recorder put on it; others cannot be recognised
)

// tempQueues says how /temp-queue/ names outlive a connection.
type tempQueues uint8

const (
	tempGlobal tempQueues = iota // they are names like any other
	tempRemote                   // known elsewhere as /remote-temp-queue/<session>:<n>, under which they can be made again
	tempReply                    // only in reply-to, named by the server: a queue of our own stands in
)

// The kinds that are known. [ActiveMQ Classic 5.17.2 and RabbitMQ 3.10.8 as observed; Artemis 2.x as observed and from its manual]
var (
	pairedBroker = dialect{name: "understudy", paired: true, receiptFirst: true, nackRequeues: true}

	// ActiveMQ Classic. A persistent message keeps its message-id over restarts. Frames are processed one after the other, receipts come in order
	// and behind an fsync. There is no detection of duplicates over STOMP. (The message-id of a SEND is predictable, but a queue that does not
	// hold it does not say whether it ever did, nor does a browser see beyond the pages that are in memory.) NACK sends one message to the
	// dead-letter queue. Most ERRORs leave the connection open.
	activeMQ = dialect{name: "ActiveMQ", identity: byMessageID, receiptFirst: true, marks: true, nackSingle: true, errorsStay: true,
		transient: []string{"STORE COMMIT FAILED"}, tempQueues: tempRemote}

	// Artemis. message-id is <consumer>,<message>: the first part is new with every SUBSCRIBE, the second is the journal's record id and
	// stays. Every header of a SEND reaches the consumer; an ack header even before the broker's own. _AMQ_DUPL_ID is checked per address, and
	// against what was committed before: in a transaction a known id makes COMMIT fail with an ERROR that has no other text than that of any
	// failure, so it counts only for a COMMIT in doubt. An ACK in a transaction is executed at once; NACK discards. Receipts wait for the journal.
	// In 1.2 every ERROR closes the connection. The default window of explicit modes is 10 KiB. redelivered tells nothing.
	artemis = dialect{name: "Artemis", identity: bySuffix, acksByMessageID: true, receiptFirst: true, duplicateID: "_AMQ_DUPL_ID", duplicateCommit: "AMQ339013",
		acksOutsideTx: true, errorsStayUntil12: true, prefetch: "consumer-window-size:1048576\n", leaks: true}

	// RabbitMQ. message-id is <consumer>@@<session>@@<delivery tag>: of the connection, and a stale one acknowledges whatever has its tag now.
	// RECEIPT of SEND is a publisher confirm; RECEIPT of ACK and COMMIT promise nothing: up to 31 of 50 acknowledged messages came back after the
	// death of a queue's leader, 0 of 20 committed ones were there. A transaction is replayed frame by frame at COMMIT, not atomically. Queues
	// are declared at their first use on a connection. basic.qos is per channel. A negative confirm ends the connection without an ERROR.
	rabbitMQ = dialect{name: "RabbitMQ", identity: byStamp, acksByMessageID: true, nackRequeues: true, forgetsAcks: true, connectionAcks: true, stamps: true,
		buffersTx: true, acksOutsideTx: true, maxLosses: 50, errorsStay: true, cancels: true, declares: true,
		prefetch: "prefetch-count:1000\n", prefetchInherited: true, leaks: true, tempQueues: tempReply,
		transient: []string{"is down or inaccessible", "nodedown", "AMQP channel died", "AMQP connection died", "Server cancelled", "noproc"}}

	// anyBroker is one that nothing is known of. A delivery cannot be recognised, what is in doubt stays in doubt.
	anyBroker = dialect{name: "unknown", nackRequeues: true, ownAckModes: true, leaks: true}
)

// goesOn reports whether the connection goes on after an ERROR.
func (d *dialect) goesOn(v frame.Version) bool {
	return d.errorsStay || d.errorsStayUntil12 && v < frame.V12
}

// recogniseBroker picks the dialect from CONNECTED. [STOMP 1.2 CONNECTED Frame: server] Artemis names itself in 1.1 and later only; in 1.0 its session is
// the eight hexadecimal digits of its connection's id, and all that it says.
func recogniseBroker(f *frame.Frame) *dialect {
	server, named := f.Get("server")
	switch session := f.Value("session"); {
	case bytes.HasPrefix(server, []byte("ActiveMQ-Artemis")):
		return &artemis
	case bytes.HasPrefix(server, []byte("ActiveMQ/")):
		return &activeMQ
	case bytes.HasPrefix(server, []byte("RabbitMQ/")):
		return &rabbitMQ
	case !named && len(session) == 8 && isHex(session) && (len(f.Value("version")) == 0 || string(f.Value("version")) == "1.0"):
		return &artemis
	}
	return &anyBroker
}
