package stomp

import (
	"testing"
	"time"
)

// A paired broker holds what it sends of a topic, so that what is lost on the way comes again. It is told what has arrived.
func TestTopicOnAutoIsAcknowledgedToAPairedBroker(t *testing.T) {
	k := live(t, Config{})
	k.client("SUBSCRIBE\nid:s\ndestination:/topic/t\n\n^@")
	k.toBroker("SUBSCRIBE\nreceipt:u1\nack:client-individual\nid:s\ndestination:/topic/t\n\n^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@" + message("m", "a"))
	k.toClient(message("m", "a"))
	k.do(func() { k.r.Wrote(0, 1<<20, &k.out) })
	k.down()
	k.up("1", "0", "")
	k.toBroker("SUBSCRIBE\nreceipt:u1\nack:client-individual\nunderstudy-claims:m=1.1\nid:s\ndestination:/topic/t\n\n^@")
	k.broker("RECEIPT\nreceipt-id:u1\n\n^@")
	k.pass(time.Minute)
	k.skip()
	k.client("SUBSCRIBE\nid:b\ndestination:/topic/t\nbrowser:true\n\n^@")
	k.toBroker("SUBSCRIBE\nreceipt:u2\nid:b\ndestination:/topic/t\nbrowser:true\n\n^@")
}

// To leave acknowledging to the broker, and to have brokers of other kinds, means what it did.
func TestTopicOnAutoIsNotAcknowledgedElsewhere(t *testing.T) {
	k := live(t, Config{BrokerAutoAck: true})
	k.client("SUBSCRIBE\nid:s\ndestination:/topic/t\n\n^@")
	k.toBroker("SUBSCRIBE\nreceipt:u1\nid:s\ndestination:/topic/t\n\n^@")
}
