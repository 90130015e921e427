package broker

import "testing"

func TestSendReceive(t *testing.T) {
	for _, version := range []string{"1.0", "1.1", "1.2"} {
		t.Run(version, func(t *testing.T) {
			s := serving(t)
			c := s.connected(version)
			c.sent("/queue/a", "one", "colour:red")
			c.subscribe("s", "/queue/a", "client")
			m := c.message("one", "subscription", "s", "destination", "/queue/a", "colour", "red")
			if m.headers["ack"] == "" || m.headers["message-id"] == "" {
				t.Fatalf("got %v, want ids", m)
			}
			switch version {
			case "1.2":
				c.send("ACK", "id:"+m.headers["ack"], "receipt:a")
			default:
				c.send("ACK", "subscription:s", "message-id:"+m.headers["message-id"], "receipt:a")
			}
			c.expect("RECEIPT", "receipt-id", "a")
			c.send("DISCONNECT", "receipt:bye")
			c.expect("RECEIPT", "receipt-id", "bye")
			c.closed()
			if st := s.one(); st.Messages != 0 || st.Role != Active {
				t.Fatalf("got %+v", st)
			}
		})
	}
}

func TestSidecarSession(t *testing.T) {
	s := serving(t)
	c, hello := s.sidecar(sessionX, 1)
	if hello.headers["understudy-cursor"] != "0" || hello.headers["understudy-epoch"] != "1" {
		t.Fatalf("got %v", hello)
	}
	c.effect(1, "SEND", "destination:/queue/a", "=one")
	c.subscribe("s", "/queue/a", "client-individual")
	c.message("one", "message-id", sessionX+":1")
	c.effect(2, "ACK", "subscription:s", `message-id:`+sessionX+`\c1`)
	c.send("BEGIN", "transaction:t")
	c.send("SEND", "destination:/queue/a", "transaction:t", "=two")
	c.send("SEND", "destination:/queue/a", "transaction:t", "=three")
	c.effect(3, "COMMIT", "transaction:t")
	c.message("two", "message-id", sessionX+":3:0")
	c.message("three", "message-id", sessionX+":3:1")
}

func TestRestartKeepsWhatWasAcknowledged(t *testing.T) {
	s := serving(t)
	c := s.connected("1.2")
	for _, body := range []string{"one", "two", "three"} {
		c.sent("/queue/a", body)
	}
	c.subscribe("s", "/queue/a", "client-individual")
	m := c.message("one")
	c.message("two")
	c.message("three")
	c.send("ACK", "id:"+m.headers["ack"], "receipt:a")
	c.expect("RECEIPT", "receipt-id", "a")
	s = s.restart()
	c = s.subscriber("/queue/a", "client")
	c.message("two")
	c.message("three")
	c.quiet()
}
